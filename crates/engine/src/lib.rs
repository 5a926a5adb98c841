//! The product: what the commands do, without a terminal and without the environment.
//!
//! | module | what it does |
//! |---|---|
//! | [`diff`](mod@diff) | old archives and a new one in, a proved delta out |
//! | [`patch`](mod@patch) | a delta and a source in, the new tar out, published only when complete and verified |
//! | [`inspect`](mod@inspect) | what a delta or an archive holds |
//! | [`native`](mod@native) | the part of these that native deltas have for themselves |
//! | [`explain`](mod@explain) | what each file of the new archive costs in a delta |
//! | [`audit`] | what is in an image, without unpacking it |
//! | [`convert`] | the same image with its layers compressed otherwise |
//! | [`artifact`] | deltas between whole images: made, published, applied |
//! | [`pull`] | images into the store: discover, plan, fetch, rebuild, publish |
//! | [`stored`] | looking after the store, where that takes a registry |
//! | [`trust`] | whether an image is accepted: policy.json and signatures |
//! | [`image`] | whole images: every transport, copying, what an image holds |
//!
//! The other modules are what these share: [`input`] opens archives and lets them be read at any offset, [`output`]
//! publishes last, [`source`] finds old files in a directory tree or in archives.

pub mod artifact;
pub mod audit;
mod chunked;
pub mod convert;
pub mod diff;
mod error;
pub mod explain;
mod hashed;
pub mod image;
pub mod input;
pub mod inspect;
pub mod native;
pub mod output;
pub mod patch;
pub mod pull;
pub mod source;
pub mod stored;
pub mod subset;
pub mod trust;

pub use error::Error;

use std::path::PathBuf;

use coracle_codec::observe::Observer;

/// What every piece of work needs from its caller.
#[derive(Clone)]
pub struct Context<'a> {
    /// Sees progress and can stop the work.
    pub observer: &'a dyn Observer,
    /// Where unnamed temporary files go: decoded archives, and deltas on their way to a pipe.
    pub temp_dir: PathBuf,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("temp_dir", &self.temp_dir).finish_non_exhaustive()
    }
}
