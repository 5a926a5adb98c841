//! Why a registry could not be asked, or answered otherwise than hoped.

use std::path::PathBuf;

use coracle_codec::oci::{self, Mismatch};

/// Why a request to a registry failed. `what` names the image, the blob or the host it was about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection, or none that TLS would trust.
    #[error("{what}: cannot connect to {host}: {reason}")]
    Connect {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// What the network stack says.
        reason: String,
        /// Whether the reason is a certificate that is not trusted, or no TLS at all.
        tls: bool,
    },
    /// A connection that broke, or an answer that ended too soon, more often than it is tried again.
    #[error("{what}: transfer from {host} broke off after {done} bytes: {reason}")]
    Broken {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// Bytes that had come or gone.
        done: u64,
        /// What happened last.
        reason: String,
    },
    /// The registry has no such thing, and says so.
    #[error("{what}: not found in {host}")]
    NotFound {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
    },
    /// The registry does not know who asks: no credentials, or wrong ones.
    #[error("{what}: {host} asks for credentials: {reason}")]
    Unauthorized {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// Which were tried.
        reason: String,
    },
    /// The registry knows who asks and refuses.
    #[error("{what}: {host} denies access: {reason}")]
    Denied {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// What it says.
        reason: String,
    },
    /// The registry wants to be asked less often, for longer than is waited.
    #[error("{what}: {host} limits the rate of requests: {reason}")]
    RateLimited {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// What it says, with the time it wants to be left alone.
        reason: String,
    },
    /// Any other answer that is no success.
    #[error("{what}: {host} answers {status}: {reason}")]
    Status {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// HTTP status.
        status: u16,
        /// What it says, shortened.
        reason: String,
    },
    /// An answer that breaks the protocol.
    #[error("{what}: {host} breaks the protocol: {reason}")]
    Protocol {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// How.
        reason: String,
    },
    /// Other bytes than were asked for.
    #[error("{what}: wrong bytes from {host}: {mismatch}")]
    Mismatch {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// What is wrong with them.
        mismatch: Mismatch,
    },
    /// A manifest, index or list of tags that cannot be read or is out of bounds.
    #[error("{what}: {error}")]
    Document {
        /// What was wanted.
        what: String,
        /// The reason.
        error: oci::Error,
    },
    /// A redirect that is not followed.
    #[error("{what}: {host} redirects where coracle does not go: {reason}")]
    Redirect {
        /// What was wanted.
        what: String,
        /// Host and port.
        host: String,
        /// Why not.
        reason: String,
    },
    /// registries.conf blocks the registry.
    #[error("{what}: blocked by {}", conf.display())]
    Blocked {
        /// What was wanted.
        what: String,
        /// The file that says so.
        conf: PathBuf,
    },
    /// A configuration or credentials file that cannot be used. It is never passed over.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A credential helper failed, otherwise than by knowing nothing.
    #[error("credential helper {helper} for {host}: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// Host the credentials are for.
        host: String,
        /// What it said.
        reason: String,
    },
    /// Content to be pushed could not be read.
    #[error("{what}: {error}")]
    Content {
        /// What was pushed.
        what: String,
        /// The reason.
        error: std::io::Error,
    },
    /// Content to be pushed is not what its descriptor says. Nothing was published.
    #[error("{what}: {mismatch}")]
    ContentMismatch {
        /// What was pushed.
        what: String,
        /// What is wrong.
        mismatch: Mismatch,
    },
    /// Somebody else kept changing the list of referrers.
    #[error("{what}: the list of referrers was changed by others {attempts} times")]
    Contended {
        /// The list.
        what: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The HTTP client could not be set up.
    #[error("cannot set up HTTP for {host}: {reason}")]
    Setup {
        /// Host and port.
        host: String,
        /// What the library says.
        reason: String,
    },
}

impl Error {
    /// Whether the same request may well succeed a little later, or at a mirror's peer.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::Connect { tls, .. } => !tls,
            Error::Broken { .. } | Error::RateLimited { .. } => true,
            Error::Status { status, .. } => matches!(status, 408 | 425 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether another registry with the same content may do better.
    pub(crate) fn is_elsewhere_better(&self) -> bool {
        !matches!(
            self,
            Error::Blocked { .. }
                | Error::Config { .. }
                | Error::Helper { .. }
                | Error::Content { .. }
                | Error::ContentMismatch { .. }
        )
    }
}
