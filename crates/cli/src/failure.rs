//! Failures for people and scripts: one line, a hint, an exit code (`docs/cli/exit-codes.md`).

use std::io;
use std::process::ExitCode;

use coracle_codec::source::OpenError;
use coracle_codec::{artifact, compress, native, oci, rsync, tar, tardiff};
use coracle_engine::Error;
use serde::Serialize;

use crate::commands::{clean, say};

/// What kind of failure it is; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// None of the others.
    Other,
    /// The command line is wrong. Also clap's own code.
    Usage,
    /// An input is missing or cannot be read.
    Input,
    /// An input is damaged, hostile or of the wrong kind.
    Format,
    /// The result is not what was expected.
    Integrity,
    /// A bound was reached.
    Limit,
    /// An output cannot be written.
    Output,
    /// A registry or another service cannot be reached or does not work.
    Network,
    /// Credentials are missing, wrong, or not enough.
    Auth,
    /// A program or service of this machine is missing or failed.
    Tool,
    /// The policy does not accept an image, or no signature holds.
    Rejected,
    /// A fault of Coracle itself.
    Internal,
    /// A signal asked for the end.
    Interrupted,
}

impl Kind {
    fn exit_code(self, signal: Option<i32>) -> u8 {
        match self {
            Kind::Other => 1,
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::Format => 4,
            Kind::Integrity => 5,
            Kind::Limit => 6,
            Kind::Output => 7,
            Kind::Network => 8,
            Kind::Auth => 9,
            Kind::Tool => 10,
            Kind::Rejected => 11,
            Kind::Internal => 70,
            Kind::Interrupted => 128 + signal.unwrap_or(2) as u8,
        }
    }
}

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    hint: Option<&'static str>,
    signal: Option<i32>,
    /// The command's output went to standard output: say nothing there.
    stdout_taken: bool,
}

impl Failure {
    /// A failure of the command line.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure { kind: Kind::Usage, message: message.into(), hint: None, signal: None, stdout_taken: false }
    }

    /// Adds the signal that interrupted the work.
    pub fn interrupted_by(mut self, signal: Option<i32>) -> Self {
        self.signal = signal;
        self
    }

    /// For a command without `--memory`: no hint that names it.
    pub fn without_memory_option(mut self) -> Self {
        self.hint = self.hint.filter(|hint| *hint != RAISE_MEMORY);
        self
    }

    /// What a check has found and told.
    pub fn damaged(count: usize, repaired: bool) -> Self {
        let things = if count == 1 { "thing is" } else { "things are" };
        let hint = if repaired {
            "what could not be fetched has to be pulled from elsewhere, or removed"
        } else {
            "--repair fetches it again"
        };
        Failure {
            kind: Kind::Integrity,
            message: format!("{count} {things} damaged"),
            hint: Some(hint),
            signal: None,
            stdout_taken: true,
        }
    }

    /// What a look at signatures has found and told.
    pub fn rejected(image: &str, reason: &str) -> Self {
        Failure {
            kind: Kind::Rejected,
            message: format!("{image}: {reason}"),
            hint: None,
            signal: None,
            stdout_taken: true,
        }
    }

    /// For several failures of which each has been told: this one gives the exit code.
    pub fn already_told(mut self, count: usize) -> Self {
        if count > 1 {
            self.message = format!("{count} images could not be updated; the first: {}", self.message);
        }
        self
    }

    /// Keeps standard output free of messages.
    pub fn keep_stdout(mut self, taken: bool) -> Self {
        self.stdout_taken = taken;
        self
    }

    /// The message alone, on one line.
    pub fn message(&self) -> String {
        clean(&self.message)
    }

    /// The code for [`Kind::Interrupted`], else `None`.
    pub fn interruption(&self) -> Option<u8> {
        (self.kind == Kind::Interrupted).then(|| self.kind.exit_code(self.signal))
    }

    /// Prints the failure and gives the exit code. Nobody reading any more is no failure.
    pub fn report(self, json: bool) -> ExitCode {
        let code = self.kind.exit_code(self.signal);
        if json {
            #[derive(Serialize)]
            struct Line<'a> {
                kind: &'static str,
                error: Inner<'a>,
            }
            #[derive(Serialize)]
            struct Inner<'a> {
                kind: Kind,
                message: &'a str,
                hint: Option<&'static str>,
                exit_code: u8,
            }
            let inner = Inner { kind: self.kind, message: &self.message, hint: self.hint, exit_code: code };
            let line = serde_json::to_string(&Line { kind: "error", error: inner }).unwrap_or_default();
            say(&line, self.stdout_taken);
        } else {
            let hint = self.hint.map(|h| format!(" (hint: {h})")).unwrap_or_default();
            say(&format!("coracle: error: {}{hint}", clean(&self.message)), true);
        }
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (kind, hint) = classify(&error);
        Failure { kind, message: error.to_string(), hint, signal: None, stdout_taken: false }
    }
}

const RAISE_MEMORY: &str = "raise --memory if this is expected";
const INCOMPLETE: &str = "the archive is incomplete; fetch it again";

fn classify(error: &Error) -> (Kind, Option<&'static str>) {
    match error {
        Error::Open { error, .. } => (Kind::Input, open_hint(error)),
        Error::Read { .. } | Error::ReadAgain(_) => (Kind::Input, None),
        Error::Compressed { error, .. } => match compressed(error) {
            // What --memory bounds is another stream, the delta's.
            (Kind::Limit, _) if !matches!(error, compress::Error::OutputTooLarge(_)) => {
                (Kind::Limit, Some("decompress it first"))
            }
            told => told,
        },
        Error::Tar { error, .. } => match error {
            tar::Error::UnexpectedEof { .. } => (Kind::Format, Some(INCOMPLETE)),
            tar::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof => (Kind::Format, Some(INCOMPLETE)),
            tar::Error::InvalidHeader { offset: 0, .. } => (Kind::Format, Some("is this a tar archive?")),
            tar::Error::TooLong { .. } | tar::Error::TooManyMembers(_) => (Kind::Limit, None),
            tar::Error::Io(_) => (Kind::Input, None),
            _ => (Kind::Format, None),
        },
        Error::Delta { error, .. } => delta(error),
        Error::Native { error, .. } => native(error),
        Error::Explain { .. } | Error::ExplainNative { .. } => {
            (Kind::Integrity, Some("give the very archive that the delta was made for"))
        }
        Error::Digest { .. } => (
            Kind::Integrity,
            Some("the source is not the one the delta was made from, or the delta is another one"),
        ),
        Error::SelfCheck(_) => (
            Kind::Internal,
            Some("did an input change meanwhile? if not, please report this; nothing was written"),
        ),
        Error::DirectoryAmongArchives(_) => (Kind::Usage, Some("give one directory, or archives only")),
        Error::StdinTwice => (Kind::Usage, None),
        Error::OutputIsInput(_) => (Kind::Usage, Some("was an argument forgotten?")),
        Error::Write { error, .. } => (Kind::Output, write_hint(error)),
        Error::Temporary { error, .. } => match write_hint(error) {
            Some(_) => (Kind::Output, Some("choose another directory with --temp-dir")),
            None => (Kind::Output, None),
        },
        Error::UnknownFile(_) => {
            (Kind::Format, Some("known are tar archives, compressed or not, tar-diffs and native deltas"))
        }
        Error::ImageName { .. } => {
            (Kind::Usage, Some("write TRANSPORT:NAME, such as docker://quay.io/x:tag or oci:DIR"))
        }
        Error::NoSuchFile { .. } => (Kind::Input, Some("coracle ls shows what there is")),
        Error::Chunked { .. } => {
            (Kind::Format, Some("the layer can still be had whole: coracle pull does so by itself"))
        }
        Error::NoSuchImage { .. } => (Kind::Input, Some("name one that is there")),
        Error::NoPlatform { .. } => (Kind::Input, Some("choose another with --platform")),
        Error::Document { error, .. } => document(error),
        Error::WrongBlob { .. } => {
            (Kind::Integrity, Some("the source is damaged or lies; fetch it anew or from elsewhere"))
        }
        Error::WrongLayer { .. } => (
            Kind::Integrity,
            Some("the source is not the one the delta was made from, or one of them is damaged"),
        ),
        Error::Artifact { error, .. } => artifact(error),
        Error::WrongBase { .. } => (
            Kind::Integrity,
            Some("give the image that the delta starts from; coracle delta list names them"),
        ),
        Error::MissingLayer { .. } => (
            Kind::Integrity,
            Some("give the image itself as the source; for bootc, --partial leaves the layer away"),
        ),
        Error::NoDelta { .. } => (Kind::Input, Some("coracle delta list shows what there is")),
        Error::ApplyTarDiff { error, .. } => delta(error),
        Error::ApplyNative { error, .. } => native(error),
        Error::ApplyRsync { error, .. } => rsync(error),
        Error::Rsync { error, .. } => rsync(error),
        Error::ExplainRsync { error, .. } => match error {
            rsync::ExplainError::Delta(error) => rsync(error),
            _ => (Kind::Integrity, Some("give the archive that the delta makes")),
        },
        Error::DeltaLayer { .. } => (Kind::Format, Some("the delta image is not what balenaEngine makes")),
        Error::NoBasis { .. } => {
            (Kind::Input, Some("name a place that has it with --source, or the image itself with --full"))
        }
        Error::ReadBlob { .. } => (Kind::Input, None),
        Error::Layer { error, .. } => compressed(error),
        Error::ForeignLayer { .. } => (
            Kind::Input,
            Some("addresses in manifests are never followed; push the layer to the registry first"),
        ),
        Error::NotInBundle { .. } => (
            Kind::Input,
            Some(
                "make the bundle from an image that is here, or with --with-image; or pull from the registry",
            ),
        ),
        Error::BadLayer { .. } => (
            Kind::Format,
            Some(
                "no file can be made of that member here; is it the image that it should be? what was there stays",
            ),
        ),
        Error::BadImage { .. } => (Kind::Format, Some("the image is incomplete or damaged; fetch it anew")),
        Error::Unsupported { .. } => (Kind::Usage, Some("choose another source or destination")),
        Error::Registry { error, .. } => registry(error),
        Error::Policy { .. } => (Kind::Usage, Some("mend the file; it is never passed over")),
        Error::Rejected { .. } => (
            Kind::Rejected,
            Some("coracle inspect --verify shows its signatures; docs/trust.md says how policies work"),
        ),
        Error::Service { .. } => (Kind::Tool, Some("is it running, and may you use it? see $DOCKER_HOST")),
        Error::MissingProgram { .. } => {
            (Kind::Tool, Some("install it, or use another transport, such as oci:"))
        }
        Error::Program { .. } => (Kind::Tool, None),
        Error::Store(error) => store(error),
        Error::NoSpace { .. } => (Kind::Output, Some("free some space; coracle store gc may find some")),
        Error::Cancelled => (Kind::Interrupted, None),
        _ => (Kind::Other, None),
    }
}

fn artifact(error: &artifact::Error) -> (Kind, Option<&'static str>) {
    use artifact::Error as E;
    match error {
        E::NotADelta(_) => (Kind::Format, Some("coracle inspect shows what it is")),
        E::Document(error) => document(error),
        _ => (Kind::Format, Some("do not use it: it was put together wrongly, or on purpose")),
    }
}

fn document(error: &oci::Error) -> (Kind, Option<&'static str>) {
    use oci::Error as E;
    match error {
        E::TooLarge { .. } | E::TooManyEntries(_) | E::TooManyValues(_) | E::TooDeep(_) | E::Size { .. } => {
            (Kind::Limit, Some("no ordinary image is like this; do not trust where it comes from"))
        }
        E::SchemaOne => (Kind::Format, Some("push the image again with a program of this decade")),
        E::Ambiguous | E::DuplicateKey(_) | E::MediaType { .. } => {
            (Kind::Format, Some("programs would differ on what it says; do not trust where it comes from"))
        }
        _ => (Kind::Format, Some("is it the manifest of an image?")),
    }
}

fn registry(error: &coracle_registry::Error) -> (Kind, Option<&'static str>) {
    use coracle_registry::Error as E;
    match error {
        E::Connect { tls: true, .. } => (
            Kind::Network,
            Some(
                "add its authority to certs.d or --cert-dir; without TLS: mark it insecure in registries.conf",
            ),
        ),
        E::Connect { .. } => (Kind::Network, Some("check the name and the network; mirrors were tried, too")),
        E::Broken { .. } => (Kind::Network, Some("run it again: what is there is not fetched twice")),
        E::NotFound { .. } => (Kind::Input, Some("check name and tag")),
        E::Unauthorized { .. } => {
            (Kind::Auth, Some("log in, for example with podman login, or give --authfile"))
        }
        E::Denied { .. } => (Kind::Auth, Some("the account may not do this; ask who runs the registry")),
        E::RateLimited { .. } => (Kind::Network, Some("wait, or log in to be allowed more")),
        E::Status { .. } | E::Protocol { .. } | E::Contended { .. } => {
            (Kind::Network, Some("try again later"))
        }
        E::Redirect { .. } => {
            (Kind::Network, Some("the registry, or something before it, is set up wrongly"))
        }
        E::Mismatch { .. } => (Kind::Integrity, Some("the registry or a mirror is damaged or lies")),
        E::Document { error, .. } => document(error),
        E::Blocked { .. } => {
            (Kind::Auth, Some("whoever set up this machine does not want this registry used"))
        }
        E::Config { .. } => (Kind::Usage, Some("mend the file; it is never passed over")),
        E::Helper { .. } => (Kind::Auth, Some("is the credential helper installed and unlocked?")),
        E::Content { .. } => (Kind::Input, None),
        E::ContentMismatch { .. } => (Kind::Integrity, None),
        _ => (Kind::Other, None),
    }
}

fn store(error: &coracle_store::Error) -> (Kind, Option<&'static str>) {
    use coracle_store::Error as E;
    const DAMAGED: Option<&str> = Some("coracle store fsck --repair fetches what is damaged again");
    match error {
        E::Io { source, .. } => (Kind::Output, write_hint(source)),
        E::NotAStore { .. } => (Kind::Usage, Some("choose another folder with --store")),
        E::Format { .. } => (Kind::Format, Some("another version of coracle may know it")),
        E::Busy { .. } => (Kind::Output, Some("try again later")),
        E::WrongLayer { .. } => (Kind::Integrity, None),
        E::Unclear { .. } => {
            (Kind::Format, Some("pull the image again, or remove its name; --force goes on"))
        }
        _ => (Kind::Integrity, DAMAGED),
    }
}

fn compressed(error: &compress::Error) -> (Kind, Option<&'static str>) {
    match error {
        compress::Error::OutputTooLarge(_) => (Kind::Limit, Some("raise --max-size if this is expected")),
        compress::Error::WindowTooLarge(_) | compress::Error::MemoryTooLarge(_) => {
            (Kind::Limit, Some(RAISE_MEMORY))
        }
        compress::Error::Truncated(_) => (Kind::Format, Some("the file is incomplete; fetch it again")),
        _ => (Kind::Format, None),
    }
}

const WRONG_SOURCE: &str = "the source is not the one the delta was made from";

fn native(error: &native::Error) -> (Kind, Option<&'static str>) {
    use native::Error as E;
    match error {
        E::Truncated(_) | E::DamagedHead | E::DamagedBlock { .. } => {
            (Kind::Format, Some("the delta is incomplete or damaged; fetch it again"))
        }
        E::Version(_) | E::UnknownFeatures(_) | E::NeedsEncoder(_) => {
            (Kind::Format, Some("another version of coracle may know it"))
        }
        E::MemoryTooLarge { .. } => (Kind::Limit, Some(RAISE_MEMORY)),
        E::OutputTooLarge { .. } => (Kind::Limit, Some("raise --max-size if this is expected")),
        E::TooMuchWork | E::MemoryExceeded(_) => (Kind::Limit, None),
        E::NeedsArchives => {
            (Kind::Integrity, Some("give the old archives, or make the delta with --for tree"))
        }
        E::SourceCount { .. }
        | E::WrongSource { .. }
        | E::MissingSource { .. }
        | E::WrongSize { .. }
        | E::WrongFile { .. }
        | E::WrongFiles { .. }
        | E::WrongTree { .. }
        | E::Expand { .. } => (Kind::Integrity, Some(WRONG_SOURCE)),
        E::Source { error: OpenError::Io(_), .. } | E::ReadSource(_) | E::Tar { .. } => (Kind::Input, None),
        E::Source { .. } => (Kind::Integrity, Some(WRONG_SOURCE)),
        E::WrongResult { .. } => (Kind::Integrity, None),
        _ => (Kind::Format, None),
    }
}

fn rsync(error: &rsync::Error) -> (Kind, Option<&'static str>) {
    use rsync::Error as E;
    match error {
        E::BadMagic(_) => (Kind::Format, Some("a librsync delta starts with the bytes 72 73 02 36")),
        E::NoMagic | E::NoEnd { .. } | E::Truncated { .. } => {
            (Kind::Format, Some("the delta is incomplete; fetch it again"))
        }
        E::BeyondBasis { .. } => (Kind::Integrity, Some("the source is not the one the delta was made from")),
        E::OutputTooLarge(_) => (Kind::Limit, Some("raise --max-size if this is expected")),
        E::TooManyOps => (Kind::Limit, None),
        E::ReadDelta(_) | E::ReadBasis(_) => (Kind::Input, None),
        _ => (Kind::Format, None),
    }
}

fn delta(error: &tardiff::Error) -> (Kind, Option<&'static str>) {
    use tardiff::Error as E;
    match error {
        E::BadMagic => (Kind::Format, Some("a tar-diff delta starts with tardf1 or tardf2")),
        E::EmptyStream | E::Truncated { .. } => {
            (Kind::Format, Some("the delta is incomplete; fetch it again"))
        }
        E::Stream(e) => compressed(e),
        E::Source { error: OpenError::NotFound | OpenError::NotRegular(_), .. } | E::ShortSource { .. } => {
            (Kind::Integrity, Some("the source is not the one the delta was made from"))
        }
        E::Source { error: OpenError::Io(_), .. } | E::ReadSource { .. } => (Kind::Input, None),
        E::Frame { error, .. } if compressed(error).0 == Kind::Limit => compressed(error),
        E::Frame { .. } => (Kind::Integrity, Some("the source is not the one the delta was made from")),
        E::OutputTooLarge(_) => (Kind::Limit, Some("raise --max-size if this is expected")),
        E::DictionaryTooLarge { .. } => (Kind::Limit, Some(RAISE_MEMORY)),
        E::TooManyOps | E::TooManyDictionaries => (Kind::Limit, None),
        _ => (Kind::Format, None),
    }
}

fn open_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::NotFound => Some("check the path"),
        io::ErrorKind::PermissionDenied => Some("check the permissions"),
        _ => None,
    }
}

fn write_hint(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free some space; nothing was left behind")
        }
        io::ErrorKind::FileTooLarge => Some("a limit on file sizes is in force; nothing was left behind"),
        io::ErrorKind::NotFound => Some("does the directory exist?"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Some("check the permissions"),
        io::ErrorKind::IsADirectory => Some("name a file, not a directory"),
        _ => None,
    }
}
