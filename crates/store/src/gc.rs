//! Removing what nothing needs any more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use coracle_codec::digest::Digest;
use coracle_codec::observe::Observer;
use coracle_sys::lock::FileLock;
use coracle_sys::resume::Resumable;
use coracle_sys::sync::sync_folder;

use crate::error::Error;
use crate::layout::{digest_of_name, digest_of_object};
use crate::lease::{self, Kept};
use crate::reach::Needs;
use crate::refs;
use crate::store::Store;

/// Between two looks whether the store is free.
const PAUSE: Duration = Duration::from_millis(20);

/// How [`Store::gc`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GcOptions {
    /// The time.
    pub now: SystemTime,
    /// Count, and remove nothing.
    pub dry_run: bool,
    /// Go on where it cannot be told what a name needs: what only that name leads to is removed.
    pub force: bool,
    /// Blobs in flight that nobody has open are removed when they were not written to for so long.
    pub partial_age: Duration,
    /// How long to wait for others that are publishing.
    pub patience: Duration,
}

impl GcOptions {
    /// Removes for real, blobs in flight after a week, waits for a minute.
    pub fn new(now: SystemTime) -> Self {
        GcOptions {
            now,
            dry_run: false,
            force: false,
            partial_age: Duration::from_secs(7 * 24 * 3600),
            patience: Duration::from_secs(60),
        }
    }
}

/// Things of one kind that were removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many.
    pub count: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
}

/// What [`Store::gc`] has done.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Manifests, indexes and configs, what is known of tables of contents, and what killed writers left of such.
    pub documents: Swept,
    /// Layer files.
    pub layers: Swept,
    /// Objects.
    pub objects: Swept,
    /// Folders of leases that nobody holds, with what is in them.
    pub leases: Swept,
    /// Blobs in flight.
    pub partial: Swept,
    /// Folders of names without a name in them, and what killed writers left there.
    pub refs: Swept,
    /// Layers that an image needs and that are not here, and the manifest of one such image.
    pub missing_layers: Vec<(Digest, Digest)>,
    /// With [`GcOptions::force`]: why it could not be told what some names need.
    pub unclear: Vec<Error>,
}

impl GcReport {
    /// Bytes on the disk of everything together.
    pub fn bytes(&self) -> u64 {
        let all = [self.documents, self.layers, self.objects, self.leases, self.partial, self.refs];
        all.iter().map(|swept| swept.bytes).sum()
    }
}

impl Store {
    /// Removes what no name leads to and no lease keeps: documents, layers, objects; leases of processes that ended;
    /// blobs in flight that were given up. Others may use the store meanwhile; those who publish wait.
    ///
    /// # Errors
    /// [`Error::Unclear`] if a document that a name leads to, or a layer file, cannot be read, unless forced; then nothing
    /// was removed. [`Error::Busy`] after waiting in vain. [`Error::Cancelled`]. What was removed before any other
    /// error was not needed, and the rest is found next time.
    pub fn gc(&self, options: &GcOptions, observer: &dyn Observer) -> Result<GcReport, Error> {
        let _lock = self.alone(options.patience, observer)?;
        let mut report = GcReport::default();
        let needs = self.needs(options.force, &mut report)?;
        let objects = self.needed_objects(&needs, options.force, &mut report)?;
        let mut sweep = Sweep { dry_run: options.dry_run, observer };
        let layout = self.layout();
        // First what refers, then what is referred to: whatever stops it in between leaves nothing that lacks a part.
        report.documents = sweep.folder(&layout.documents(), |name| needs.documents.contains(&name))?;
        // Of pairs those go whose layer goes, or is not there.
        let pairs = sweep.folder(&layout.tocs(), |toc| {
            self.made_of_toc(&toc).is_ok_and(|made| made.is_some_and(|layer| needs.layers.contains(&layer)))
        })?;
        report.documents.count += pairs.count;
        report.documents.bytes += pairs.bytes;
        report.layers = sweep.folder(&layout.layers(), |name| needs.layers.contains(&name))?;
        report.objects = sweep.objects(&layout.objects(), &objects)?;
        for folder in lease::folders(&layout.leases())? {
            if lease::kept(&folder)?.is_none() {
                sweep.tree(&folder, &mut report.leases)?;
            }
        }
        report.partial = sweep.partial(&layout.partial(), options)?;
        report.refs = sweep.refs(&refs::list(layout)?)?;
        Ok(report)
    }

    /// Waits until nobody publishes, and keeps it so.
    pub(crate) fn alone(
        &self,
        patience: Duration,
        observer: &dyn Observer,
    ) -> Result<(FileLock, FileLock), Error> {
        let mut waited = Duration::ZERO;
        // The turn first: who comes later waits for us, so that those who are at it get fewer.
        let mut take = |path: &Path| loop {
            if let Some(lock) = FileLock::try_exclusive(path).map_err(Error::io("lock", path))? {
                return Ok(lock);
            }
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            if waited >= patience {
                return Err(Error::Busy { path: self.path().to_owned(), waited });
            }
            std::thread::sleep(PAUSE);
            waited += PAUSE;
        };
        let turn = take(&self.layout().turn())?;
        Ok((take(&self.layout().lock())?, turn))
    }

    /// What names and leases need.
    fn needs(&self, force: bool, report: &mut GcReport) -> Result<Needs, Error> {
        let mut needs = Needs::default();
        for path in refs::list(self.layout())?.files {
            // By its name as far as that can be read.
            match refs::read_file(self.layout(), &path) {
                Ok(entry) => {
                    if let Err(source) = needs.add_ref(self, &entry) {
                        unclear(report, force, entry.name.to_string(), source)?;
                    }
                }
                Err(source) => unclear(report, force, path.display().to_string(), source)?,
            }
        }
        for (layer, image) in &needs.images {
            if !self.has_layer(layer) && !report.missing_layers.iter().any(|(known, _)| known == layer) {
                report.missing_layers.push((*layer, *image));
            }
        }
        for folder in lease::folders(&self.layout().leases())? {
            for kept in lease::kept(&folder)?.unwrap_or_default() {
                match kept {
                    Kept::Layer(diff_id) => {
                        needs.layers.insert(diff_id);
                    }
                    Kept::Document(digest) => needs.add_kept(self, &digest),
                }
            }
        }
        Ok(needs)
    }

    /// The objects of the needed layers.
    fn needed_objects(
        &self,
        needs: &Needs,
        force: bool,
        report: &mut GcReport,
    ) -> Result<HashSet<Digest>, Error> {
        let mut objects = HashSet::new();
        for diff_id in &needs.layers {
            match self.layer(diff_id) {
                Ok(Some(layer)) => objects.extend(layer.objects().map(|(digest, _)| digest)),
                Ok(None) => {}
                Err(source) => unclear(report, force, format!("layer {diff_id}"), source)?,
            }
        }
        Ok(objects)
    }
}

/// Stops, or notes why it should have been stopped.
fn unclear(report: &mut GcReport, force: bool, name: String, source: Error) -> Result<(), Error> {
    let error = Error::Unclear { name, source: Box::new(source) };
    if !force {
        return Err(error);
    }
    report.unclear.push(error);
    Ok(())
}

struct Sweep<'a> {
    dry_run: bool,
    observer: &'a dyn Observer,
}

impl Sweep<'_> {
    /// Removes the file `path`, or counts it.
    fn file(&mut self, path: &Path, swept: &mut Swept) -> Result<(), Error> {
        if self.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let found = match fs::symlink_metadata(path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        swept.count += 1;
        // Another link is that of a writer that has it staged.
        if found.nlink() == 1 {
            swept.bytes += found.blocks() * 512;
        }
        if self.dry_run {
            return Ok(());
        }
        fs::remove_file(path).map_err(Error::io("remove", path))
    }

    /// Removes files of `folder` unless they are named by a digest that is needed.
    fn folder(&mut self, folder: &Path, needed: impl Fn(Digest) -> bool) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for path in entries(folder)? {
            if !path.file_name().and_then(digest_of_name).is_some_and(&needed) {
                self.file(&path, &mut swept)?;
            }
        }
        if swept.count > 0 && !self.dry_run {
            sync_folder(folder).map_err(Error::io("sync", folder))?;
        }
        Ok(swept)
    }

    /// Removes objects that are not needed.
    fn objects(&mut self, objects: &Path, needed: &HashSet<Digest>) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for folder in entries(objects)? {
            for path in entries(&folder)? {
                let names = (folder.file_name(), path.file_name());
                let digest = match names {
                    (Some(folder), Some(name)) => digest_of_object(folder, name),
                    _ => None,
                };
                if !digest.is_some_and(|digest| needed.contains(&digest)) {
                    self.file(&path, &mut swept)?;
                }
            }
        }
        Ok(swept)
    }

    /// Removes a folder with all that is in it; as one thing.
    fn tree(&mut self, folder: &Path, swept: &mut Swept) -> Result<(), Error> {
        let mut inside = Swept::default();
        self.inner(folder, &mut inside)?;
        swept.count += 1;
        swept.bytes += inside.bytes;
        Ok(())
    }

    fn inner(&mut self, folder: &Path, swept: &mut Swept) -> Result<(), Error> {
        for path in entries(folder)? {
            // Never through a link.
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                self.inner(&path, swept)?;
            } else {
                self.file(&path, swept)?;
            }
        }
        self.empty_folder(folder)
    }

    fn empty_folder(&self, folder: &Path) -> Result<(), Error> {
        if self.dry_run {
            return Ok(());
        }
        fs::remove_dir(folder).map_err(Error::io("remove", folder))
    }

    /// Removes blobs that nobody has open and that are old, and claims that nobody holds.
    fn partial(&mut self, folder: &Path, options: &GcOptions) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for path in entries(folder)? {
            let Ok(found) = fs::metadata(&path) else { continue };
            let written = found.modified().map_err(Error::io("read", &path))?;
            let age = options.now.duration_since(written).unwrap_or_default();
            // An empty file is a claim, or a blob of which nothing is there.
            if age < options.partial_age && found.len() > 0 {
                continue;
            }
            // Held while it is removed.
            let Some(_held) = Resumable::open(&path).map_err(Error::io("lock", &path))? else { continue };
            self.file(&path, &mut swept)?;
        }
        Ok(swept)
    }

    /// Removes empty folders of names.
    fn refs(&mut self, found: &refs::Found) -> Result<Swept, Error> {
        let mut swept = Swept::default();
        for path in &found.remains {
            self.file(path, &mut swept)?;
        }
        let mut used: HashSet<&Path> = HashSet::new();
        for file in &found.files {
            used.extend(file.ancestors());
        }
        // Inner ones come first.
        for folder in found.folders.iter().filter(|folder| !used.contains(folder.as_path())) {
            self.empty_folder(folder)?;
            swept.count += 1;
        }
        Ok(swept)
    }
}

/// What is in a folder; nothing if it is gone, or is none.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let list = match fs::read_dir(folder) {
        Ok(list) => list,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    list.map(|entry| Ok(entry.map_err(Error::io("list", folder))?.path())).collect()
}
