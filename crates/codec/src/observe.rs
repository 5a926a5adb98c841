//! How long work reports progress and is asked to stop.

/// A phase of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Reading the old archives.
    ReadOld,
    /// Reading the new archive.
    ReadNew,
    /// Sampling old files to find candidates.
    Index,
    /// Matching and writing the delta.
    Diff,
    /// Applying the delta again, to prove it.
    Verify,
    /// Applying a delta.
    Apply,
    /// Copying the blobs of an image.
    Copy,
    /// Reading a store to see whether it is as it should be.
    Check,
}

impl Stage {
    /// A word for people.
    pub fn name(self) -> &'static str {
        match self {
            Stage::ReadOld => "read-old",
            Stage::ReadNew => "read-new",
            Stage::Index => "index",
            Stage::Diff => "diff",
            Stage::Verify => "verify",
            Stage::Apply => "apply",
            Stage::Copy => "copy",
            Stage::Check => "check",
        }
    }
}

/// Watches long work. Called often and from several threads: be quick.
pub trait Observer: Send + Sync {
    /// `done` of `total` bytes of `stage`; `total` is 0 where it is not known.
    fn progress(&self, stage: Stage, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Whether the work should stop as soon as it can.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Watches nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
