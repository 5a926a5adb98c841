//! `containers-storage:`: images of podman and its relatives, by way of the installed skopeo.
//!
//! That store is a library of its makers and no format: its layout, locks and layers belong to whichever version is
//! installed. So the program that comes with it does the work, and gets or gives an OCI layout in a temporary folder
//! (see `docs/design/0010-containers-storage-by-skopeo.md`).

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use coracle_codec::oci::{Descriptor, Document, Limits};

use super::blob::Blob;
use super::layout::{LayoutDestination, LayoutSource};
use super::stop::Stop;
use super::{Destination, Outcome, Source, Takes};
use crate::{Context, Error};

const PROGRAM: &str = "skopeo";
/// The image inside the folder.
const IMAGE: &str = "image";

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn create(dir: &Path) -> Result<Self, Error> {
        let path = coracle_sys::spool::temp_folder(dir)
            .map_err(|error| Error::Temporary { dir: dir.to_owned(), error })?;
        Ok(TempFolder(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs skopeo to its end, or until the work is stopped.
fn skopeo(args: &[&str], shown: &str, stop: &Stop) -> Result<(), Error> {
    let fail = |reason: String| Error::Program { program: PROGRAM.into(), image: shown.to_owned(), reason };
    let mut command = Command::new(PROGRAM);
    // Coracle has asked the policy itself.
    command
        .arg("--insecure-policy")
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::MissingProgram { program: PROGRAM.into(), image: shown.to_owned() }
        }
        _ => fail(e.to_string()),
    })?;
    let mut stderr = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        if let Some(stderr) = &mut stderr {
            // What it says is for people; half of it is better than nothing.
            let _ = stderr.take(64 << 10).read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).trim().replace('\n', "; ")
    });
    let status = loop {
        if stop.raised() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(Error::Cancelled);
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Err(e) => return Err(fail(e.to_string())),
        }
    };
    let text = reader.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(fail(format!("{status}: {text}"))) }
}

/// An image of the store.
#[derive(Debug)]
pub(crate) struct StorageSource {
    layout: LayoutSource,
    _folder: TempFolder,
}

impl StorageSource {
    pub(crate) fn open(
        name: &str,
        limits: &Limits,
        stop: &Stop,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let folder = TempFolder::create(&context.temp_dir)?;
        let to = format!("oci:{}:{IMAGE}", folder.path().display());
        skopeo(&["copy", "--quiet", name, &to], name, stop)?;
        let layout = LayoutSource {
            name: name.to_owned(),
            path: folder.path().to_owned(),
            image: Some(IMAGE.into()),
            limits: *limits,
        };
        Ok(StorageSource { layout, _folder: folder })
    }
}

impl Source for StorageSource {
    fn name(&self) -> &str {
        self.layout.name()
    }

    fn root(&self) -> Result<Document, Error> {
        self.layout.root()
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        self.layout.document(wanted)
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        self.layout.open_blob(wanted, offset)
    }

    fn made_up(&self) -> Option<&'static str> {
        Some("containers-storage keeps layers unpacked; they were compressed anew")
    }
}

/// The store as a destination: a layout, which skopeo takes over at the end.
#[derive(Debug)]
pub(crate) struct StorageDestination {
    layout: LayoutDestination,
    folder: TempFolder,
    name: String,
    stop: Stop,
}

impl StorageDestination {
    pub(crate) fn create(name: &str, stop: &Stop, context: &Context<'_>) -> Result<Self, Error> {
        // Better now than after everything was fetched.
        skopeo(&["--version"], name, stop)?;
        let folder = TempFolder::create(&context.temp_dir)?;
        let layout = LayoutDestination::create(name, folder.path(), Some(IMAGE))?;
        Ok(StorageDestination { layout, folder, name: name.to_owned(), stop: stop.clone() })
    }
}

impl Destination for StorageDestination {
    fn takes(&self) -> Takes {
        Takes { index: false, artifacts: false, ..self.layout.takes() }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        self.layout.put_blob(blob)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        self.layout.put_document(document)
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        let this = *self;
        let from = format!("oci:{}:{IMAGE}", this.folder.path().display());
        Box::new(this.layout).finish(root)?;
        skopeo(&["copy", "--quiet", "--preserve-digests", &from, &this.name], &this.name, &this.stop)?;
        Ok(Vec::new())
    }
}
