//! Directories for one piece of work, and a limit for its time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_codec::observe::Observer;
use coracle_engine::Context;
use tempfile::TempDir;

/// Far more than any piece of work here needs.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A directory with inputs, one for the output, and one for temporary files.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["in", "out", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Place(dir)
    }

    /// Writes an input.
    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join("in").join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes inputs `NAME0`, `NAME1`, ...
    pub fn put_all(&self, name: &str, contents: &[Vec<u8>]) -> Vec<PathBuf> {
        contents.iter().enumerate().map(|(i, content)| self.put(&format!("{name}{i}"), content)).collect()
    }

    /// Where the output goes.
    pub fn out(&self) -> PathBuf {
        self.0.path().join("out/result")
    }

    /// What there is in the directories for the output and for temporary files.
    pub fn left(&self) -> Vec<PathBuf> {
        let names = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        names(&self.0.path().join("out")).chain(names(&self.temp_dir())).collect()
    }

    pub fn context<'a>(&self, observer: &'a dyn Observer) -> Context<'a> {
        Context { observer, temp_dir: self.temp_dir() }
    }

    pub fn temp_dir(&self) -> PathBuf {
        self.0.path().join("tmp")
    }
}

/// Runs `work` and fails the test if it is not over within [`LIMIT`].
pub fn bounded<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    coracle_testkit::oracle::bounded(what, LIMIT, work)
}
