//! Why a piece of work failed.

use std::io;
use std::path::PathBuf;

use coracle_codec::delta::DiffError;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{self, Mismatch, Platform};
use coracle_codec::tardiff::{self, ExplainError};
use coracle_codec::{artifact, chunked, compress, native, rsync, tar};
use coracle_sys::wait::is_stopped;

/// Why a piece of work failed. Names the file in question wherever there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input cannot be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input that was read before cannot be read a second time.
    #[error("an input changed or went away while it was read: {0}")]
    ReadAgain(io::Error),
    /// A compressed input is damaged or out of bounds.
    #[error("{}: {error}", path.display())]
    Compressed {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: compress::Error,
    },
    /// An input is not a readable tar.
    #[error("{}: {error}", path.display())]
    Tar {
        /// The input.
        path: PathBuf,
        /// The reason.
        error: tar::Error,
    },
    /// A delta is damaged, hostile or out of bounds, or does not fit its source.
    #[error("{}: {error}", path.display())]
    Delta {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: tardiff::Error,
    },
    /// A native delta is damaged, hostile or out of bounds, or does not fit its source.
    #[error("{}: {error}", path.display())]
    Native {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: native::Error,
    },
    /// A native delta makes another tar than the one it was said to make.
    #[error("{}: {error}", path.display())]
    ExplainNative {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: native::ExplainError,
    },
    /// A delta makes another tar than the one it was said to make.
    #[error("{}: {error}", path.display())]
    Explain {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: ExplainError,
    },
    /// The result has another digest than expected.
    #[error("result has digest {actual}, expected {expected}")]
    Digest {
        /// What the caller wants.
        expected: Digest,
        /// What came out.
        actual: Digest,
    },
    /// A delta just made does not give the new tar when it is applied.
    #[error("self-check failed: {0}")]
    SelfCheck(String),
    /// A directory was given among archives.
    #[error("{}: a directory can only be the one and only source", .0.display())]
    DirectoryAmongArchives(PathBuf),
    /// Standard input was named for more than one input.
    #[error("standard input can be given only once")]
    StdinTwice,
    /// The output would take the place of an input.
    #[error("{}: the output is one of the inputs", .0.display())]
    OutputIsInput(PathBuf),
    /// An output cannot be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// A temporary file cannot be made or written.
    #[error("temporary file in {}: {error}", dir.display())]
    Temporary {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// An input is of no known kind.
    #[error("{}: neither a delta nor an archive", .0.display())]
    UnknownFile(PathBuf),
    /// A text is no name of an image.
    #[error("{text:?} is no image name: {reason}")]
    ImageName {
        /// The text.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The place is there, but no image of that name in it.
    #[error("{image}: no such image: {reason}")]
    NoSuchImage {
        /// The image as named.
        image: String,
        /// What there is instead.
        reason: String,
    },
    /// There is no such file in an image.
    #[error("{image}: there is no file {path:?}")]
    NoSuchFile {
        /// The image as named.
        image: String,
        /// The path.
        path: String,
    },
    /// An index has no image for a platform.
    #[error("{image}: no image for {wanted}; there are: {}", has.join(", "))]
    NoPlatform {
        /// The image as named.
        image: String,
        /// What was wanted.
        wanted: Box<Platform>,
        /// What there is.
        has: Vec<String>,
    },
    /// A manifest, index or config cannot be used.
    #[error("{image}: {error}")]
    Document {
        /// The image as named.
        image: String,
        /// The reason.
        error: oci::Error,
    },
    /// A blob or manifest has other bytes than its descriptor says.
    #[error("{image}: {what}: {mismatch}")]
    WrongBlob {
        /// The image as named.
        image: String,
        /// Which blob of it.
        what: Box<str>,
        /// What is wrong.
        mismatch: Mismatch,
    },
    /// A blob cannot be read.
    #[error("{image}: {what}: {error}")]
    ReadBlob {
        /// The image as named.
        image: String,
        /// Which blob of it.
        what: String,
        /// The reason.
        error: io::Error,
    },
    /// A layer cannot be decoded.
    #[error("{image}: {what}: {error}")]
    Layer {
        /// The image as named.
        image: String,
        /// Which layer.
        what: String,
        /// The reason.
        error: compress::Error,
    },
    /// A layer cannot be read in parts.
    #[error("{image}: {what}: {error}")]
    Chunked {
        /// The image as named.
        image: String,
        /// Which layer.
        what: String,
        /// The reason.
        error: Box<chunked::Error>,
    },
    /// A layer is another tar than the config says.
    #[error("{image}: {layer}: uncompressed it is {actual}, the config says {expected}")]
    WrongLayer {
        /// The image, or the delta that made the layer.
        image: String,
        /// Which layer.
        layer: String,
        /// Its diff_id.
        expected: Digest,
        /// What came out.
        actual: Digest,
    },
    /// A document is no delta artifact, or one that cannot be used.
    #[error("{image}: {error}")]
    Artifact {
        /// The artifact as named.
        image: String,
        /// The reason.
        error: Box<artifact::Error>,
    },
    /// A delta starts from another image.
    #[error("{delta}: it starts from the image with config {wanted}; {base} has {actual}")]
    WrongBase {
        /// The delta as named.
        delta: String,
        /// Config of the image it starts from.
        wanted: Digest,
        /// The source as named.
        base: String,
        /// Its config.
        actual: Digest,
    },
    /// A layer is neither in the delta nor in the source.
    #[error("{delta}: layer {layer} (diff_id {diff_id}) is neither in the delta nor in {base}")]
    MissingLayer {
        /// The delta as named.
        delta: String,
        /// Number of the layer.
        layer: usize,
        /// Its diff_id.
        diff_id: Digest,
        /// The source as named.
        base: String,
    },
    /// There is no delta that leads from the source to the target.
    #[error("{image}: no delta from {base}: {reason}")]
    NoDelta {
        /// The target as named.
        image: String,
        /// The source as named.
        base: String,
        /// What there is.
        reason: String,
    },
    /// A layer's delta cannot be applied.
    #[error("{delta}: {layer}: {error}")]
    ApplyTarDiff {
        /// The artifact as named.
        delta: String,
        /// Which layer.
        layer: String,
        /// The reason.
        error: Box<tardiff::Error>,
    },
    /// A layer's native delta cannot be applied.
    #[error("{delta}: {layer}: {error}")]
    ApplyNative {
        /// The artifact as named.
        delta: String,
        /// Which layer.
        layer: String,
        /// The reason.
        error: Box<native::Error>,
    },
    /// A layer's librsync delta cannot be applied.
    #[error("{delta}: {layer}: {error}")]
    ApplyRsync {
        /// The delta image as named.
        delta: String,
        /// Which layer.
        layer: String,
        /// The reason.
        error: Box<rsync::Error>,
    },
    /// A layer of a delta image holds no delta.
    #[error("{delta}: {layer}: {error}")]
    DeltaLayer {
        /// The delta image as named.
        delta: String,
        /// Which layer.
        layer: String,
        /// The reason.
        error: artifact::balena::LayerError,
    },
    /// The image that a delta image starts from is nowhere, and neither is the target.
    #[error("{image}: it starts from the image {base}, which is not here")]
    NoBasis {
        /// The delta image as named.
        image: String,
        /// Digest of the config of the image to start from.
        base: Digest,
    },
    /// A librsync delta is damaged or out of bounds.
    #[error("{}: {error}", path.display())]
    Rsync {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: rsync::Error,
    },
    /// A librsync delta cannot be explained.
    #[error("{}: {error}", path.display())]
    ExplainRsync {
        /// The delta.
        path: PathBuf,
        /// The reason.
        error: rsync::ExplainError,
    },
    /// A layer that the registry does not have, since it is to be fetched from elsewhere.
    #[error("{image}: layer {layer} is not in the registry but at {}", if urls.is_empty() { "no place it names".into() } else { urls.join(", ") })]
    ForeignLayer {
        /// The image as named.
        image: String,
        /// Its digest.
        layer: Digest,
        /// Where its author says it is. Never followed.
        urls: Vec<String>,
    },
    /// An image, or the place it is in, is put together wrongly.
    #[error("{image}: {reason}")]
    BadImage {
        /// The image as named.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A layer that cannot be unpacked.
    #[error("{image}: {layer}{}: {reason}", member.as_ref().map(|member| format!(": {member}")).unwrap_or_default())]
    BadLayer {
        /// The image as named.
        image: String,
        /// Which layer.
        layer: String,
        /// The member of its tar, bytes that are no text escaped.
        member: Option<String>,
        /// Why.
        reason: String,
    },
    /// A layer that is in a bundle neither whole nor as a delta that can be used.
    #[error("{image}: layer {layer} is not in it, and no delta in it starts from what is here")]
    NotInBundle {
        /// The bundle.
        image: String,
        /// The layer's blob digest.
        layer: Digest,
    },
    /// Something that the place or the program cannot do.
    #[error("{image}: {reason}")]
    Unsupported {
        /// The image as named.
        image: String,
        /// What, and why not.
        reason: String,
    },
    /// A registry could not be asked, or refused.
    #[error("{context}: {error}")]
    Registry {
        /// The image as named.
        context: String,
        /// The reason.
        error: Box<coracle_registry::Error>,
    },
    /// A policy, or a key that it names, cannot be used.
    #[error("{}: {reason}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The policy does not accept an image.
    #[error("{image}: {digest} is rejected: {reason} ({rule})")]
    Rejected {
        /// The image as named.
        image: String,
        /// Digest of its manifest.
        digest: Digest,
        /// The part of the policy that was used.
        rule: String,
        /// Why.
        reason: String,
    },
    /// A service on this machine does not do what it is asked for.
    #[error("{name}: {reason}")]
    Service {
        /// Which service, and where.
        name: String,
        /// What it says.
        reason: String,
    },
    /// A program that a transport needs is not installed.
    #[error("{image}: the program {program} is not installed")]
    MissingProgram {
        /// Its name.
        program: String,
        /// The image as named.
        image: String,
    },
    /// A program that a transport needs failed.
    #[error("{image}: {program}: {reason}")]
    Program {
        /// Its name.
        program: String,
        /// The image as named.
        image: String,
        /// What it said.
        reason: String,
    },
    /// The store cannot do what it is asked for.
    #[error("store: {0}")]
    Store(Box<coracle_store::Error>),
    /// There is less room than an image takes.
    #[error("{}: {needed} bytes are needed and {free} are free", path.display())]
    NoSpace {
        /// The store.
        path: PathBuf,
        /// Bytes that will be written at least.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The observer asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl From<coracle_store::Error> for Error {
    fn from(error: coracle_store::Error) -> Self {
        match error {
            coracle_store::Error::Cancelled => Error::Cancelled,
            error => Error::Store(Box::new(error)),
        }
    }
}

impl Error {
    /// Gives errors of applying a delta the delta's name.
    pub(crate) fn delta(path: &std::path::Path, out: &std::path::Path, error: tardiff::Error) -> Self {
        match error {
            tardiff::Error::Cancelled => Error::Cancelled,
            tardiff::Error::Write(error) => Error::Write { path: out.into(), error },
            tardiff::Error::ReadDelta(error) => Error::read(path, error),
            error => Error::Delta { path: path.into(), error },
        }
    }

    /// Gives errors of applying a native delta the delta's name.
    pub(crate) fn native(path: &std::path::Path, out: &std::path::Path, error: native::Error) -> Self {
        match error {
            native::Error::Cancelled => Error::Cancelled,
            native::Error::Write(error) => Error::Write { path: out.into(), error },
            native::Error::ReadDelta(error) => Error::read(path, error),
            error => Error::Native { path: path.into(), error },
        }
    }

    /// Gives errors of making a delta the names of its inputs.
    pub(crate) fn diff(
        old: &[PathBuf],
        new: &std::path::Path,
        out: &std::path::Path,
        error: DiffError,
    ) -> Self {
        match error {
            DiffError::Old { layer, error } => Error::tar(&old[layer], error),
            DiffError::New(error) => Error::tar(new, error),
            DiffError::Read(error) => Error::ReadAgain(error),
            DiffError::Write(error) => Error::Write { path: out.into(), error },
            DiffError::Cancelled => Error::Cancelled,
            other => Error::SelfCheck(other.to_string()),
        }
    }

    /// An input that cannot be read, or whose reading was given up because the observer asked for it.
    pub(crate) fn read(path: &std::path::Path, error: io::Error) -> Self {
        if is_stopped(&error) { Error::Cancelled } else { Error::Read { path: path.into(), error } }
    }

    pub(crate) fn tar(path: &std::path::Path, error: tar::Error) -> Self {
        Error::Tar { path: path.into(), error }
    }
}
