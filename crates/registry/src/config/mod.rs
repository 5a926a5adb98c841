//! What the machine's configuration says about registries: which hosts serve a name, with which certificates and which
//! credentials. Files and folders to read are arguments; nothing here asks the environment.

mod auth;
mod certs;
mod registries;

pub use auth::{AuthFiles, Credentials};
pub use certs::{CertFolders, HostCerts};
pub use registries::{Place, Purpose, Registries};
