//! Looking whether the store is as it should be.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use coracle_codec::digest::{Digest, Hasher, Hashing};
use coracle_codec::observe::{Observer, Stage};

use crate::error::Error;
use crate::layer::Layer;
use crate::reach::Needs;
use crate::refs;
use crate::store::Store;

/// Bytes read at once.
const BLOCK: usize = 512 << 10;
/// Places in layers that are named for one damaged object.
const MAX_PLACES: usize = 100;

/// How [`Store::fsck`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsckOptions {
    /// Threads that read and hash.
    pub jobs: NonZeroUsize,
    /// Make each tar again and compare its diff_id: all objects are read once more for each layer that has them.
    pub deep: bool,
    /// Remove damaged objects, layer files that are damaged or refer to damaged or missing objects, and damaged
    /// documents, so that a later pull makes them again.
    pub remove_damaged: bool,
    /// How long to wait for others before removing.
    pub patience: Duration,
}

impl FsckOptions {
    /// So many threads; not deep, removes nothing, would wait for a minute.
    pub fn new(jobs: NonZeroUsize) -> Self {
        FsckOptions { jobs, deep: false, remove_damaged: false, patience: Duration::from_secs(60) }
    }
}

/// What is damaged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// The object of this digest.
    Object(Digest),
    /// The layer of this diff_id.
    Layer(Digest),
    /// The manifest, index or config of this digest.
    Document(Digest),
    /// A file below `refs`.
    Ref(PathBuf),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Object(digest) => write!(f, "object {digest}"),
            Part::Layer(diff_id) => write!(f, "layer {diff_id}"),
            Part::Document(digest) => write!(f, "document {digest}"),
            Part::Ref(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Something that is not as it should be, and what that harms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub part: Part,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is not there at all.
    pub missing: bool,
    /// Of an object: the layers that have it, and the names of files in them (none for content that is no plain file);
    /// the first hundred.
    pub places: Vec<(Digest, Vec<u8>)>,
    /// Manifests of images that need it.
    pub images: Vec<Digest>,
    /// Names that lead there.
    pub refs: Vec<String>,
}

/// What [`Store::fsck`] has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// All damage, in order of parts.
    pub damages: Vec<Damage>,
    /// Objects that were read.
    pub objects: u64,
    /// Layer files that were read.
    pub layers: u64,
    /// Documents that were read.
    pub documents: u64,
    /// Names that were followed.
    pub refs: u64,
    /// Bytes that were hashed.
    pub bytes: u64,
    /// What was removed.
    pub removed: Vec<Part>,
}

impl Store {
    /// Reads everything once and compares it: objects, documents and layer files with their digests, tables with the
    /// objects that are there, names with the documents that they lead to. Others may use the store meanwhile; what is
    /// put there after the start is not looked at.
    ///
    /// # Errors
    /// A folder cannot be read; [`Error::Cancelled`]; [`Error::Busy`] before removing. Damage is no error.
    pub fn fsck(&self, options: &FsckOptions, observer: &dyn Observer) -> Result<FsckReport, Error> {
        // What is looked at must not be removed meanwhile, or it would count as missing.
        let lease = self.lease()?;
        let (mut layers, mut documents) = (Vec::new(), Vec::new());
        for (diff_id, _) in self.list_layers()? {
            if lease.keep_layer(&diff_id)? {
                layers.push(diff_id);
            }
        }
        for (digest, _) in self.list_documents()? {
            if lease.keep_document(&digest)? {
                documents.push(digest);
            }
        }
        let objects = self.list_objects()?;
        let total = objects.iter().chain(&self.list_layers()?).map(|(_, size)| size).sum();
        let check = Check { store: self, observer, total, done: AtomicU64::new(0), found: Mutex::default() };
        let digests: Vec<Digest> = objects.iter().map(|(digest, _)| *digest).collect();
        check.in_parallel(options.jobs, &documents, Check::document)?;
        check.in_parallel(options.jobs, &layers, Check::layer)?;
        check.in_parallel(options.jobs, &digests, Check::object)?;
        let sizes = check.sizes(&layers)?;
        if options.deep {
            check.in_parallel(options.jobs, &layers, Check::deep)?;
        }
        let mut report = FsckReport {
            objects: digests.len() as u64,
            layers: layers.len() as u64,
            documents: documents.len() as u64,
            ..FsckReport::default()
        };
        let by_name = check.names(&mut report)?;
        report.bytes = check.done.load(Ordering::Relaxed);
        let found = check.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.damages = self.explain(found, &sizes, &by_name);
        drop(lease);
        if options.remove_damaged && !report.damages.is_empty() {
            report.removed = self.remove_damaged(&report.damages, options, observer)?;
        }
        Ok(report)
    }

    /// Says of each damage what it harms.
    fn explain(&self, found: Found, tables: &Tables, by_name: &[(String, Needs)]) -> Vec<Damage> {
        found
            .into_iter()
            .map(|(part, (reason, missing))| {
                let mut damage = Damage {
                    part,
                    reason,
                    missing,
                    places: Vec::new(),
                    images: Vec::new(),
                    refs: Vec::new(),
                };
                match &damage.part {
                    Part::Object(digest) => {
                        let layers = tables.users.get(digest).cloned().unwrap_or_default();
                        damage.places = places(tables, digest, &layers);
                        harm(&mut damage, by_name, |needs| !needs.layers.is_disjoint(&layers), &layers);
                    }
                    Part::Layer(diff_id) => {
                        let layers = HashSet::from([*diff_id]);
                        harm(&mut damage, by_name, |needs| !needs.layers.is_disjoint(&layers), &layers);
                    }
                    Part::Document(digest) => {
                        let digest = *digest;
                        harm(
                            &mut damage,
                            by_name,
                            |needs| needs.documents.contains(&digest),
                            &HashSet::new(),
                        );
                    }
                    Part::Ref(_) => {}
                }
                damage
            })
            .collect()
    }

    /// Removes what is damaged and can be made again.
    fn remove_damaged(
        &self,
        damages: &[Damage],
        options: &FsckOptions,
        observer: &dyn Observer,
    ) -> Result<Vec<Part>, Error> {
        let _lock = self.alone(options.patience, observer)?;
        let layout = self.layout();
        let mut removed = Vec::new();
        let mut remove = |part: Part, path: PathBuf| match fs::remove_file(&path) {
            Ok(()) => {
                removed.push(part);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", &path)(error)),
        };
        // Layer files first: one that is there has all of its objects.
        let broken: HashSet<Digest> = damages
            .iter()
            .filter_map(|damage| match damage.part {
                Part::Object(digest) => Some(digest),
                _ => None,
            })
            .collect();
        for (diff_id, _) in self.list_layers()? {
            let damaged = damages.iter().any(|damage| damage.part == Part::Layer(diff_id) && !damage.missing);
            let lacking = || {
                let layer = self.layer(&diff_id).ok().flatten();
                layer.is_some_and(|layer| layer.objects().any(|(digest, _)| broken.contains(&digest)))
            };
            if damaged || lacking() {
                remove(Part::Layer(diff_id), layout.layer(&diff_id))?;
            }
        }
        for damage in damages.iter().filter(|damage| !damage.missing) {
            match damage.part {
                Part::Object(digest) => remove(damage.part.clone(), layout.object(&digest))?,
                Part::Document(digest) => remove(damage.part.clone(), layout.document(&digest))?,
                Part::Layer(_) | Part::Ref(_) => {}
            }
        }
        Ok(removed)
    }
}

/// Fills in images and names of which `needs` says that they are harmed.
fn harm(
    damage: &mut Damage,
    by_name: &[(String, Needs)],
    harmed: impl Fn(&Needs) -> bool,
    layers: &HashSet<Digest>,
) {
    for (name, needs) in by_name.iter().filter(|(_, needs)| harmed(needs)) {
        damage.refs.push(name.clone());
        for (layer, image) in &needs.images {
            if layers.contains(layer) && !damage.images.contains(image) {
                damage.images.push(*image);
            }
        }
    }
}

/// Where an object is in layers.
fn places(tables: &Tables, digest: &Digest, layers: &HashSet<Digest>) -> Vec<(Digest, Vec<u8>)> {
    let mut places = Vec::new();
    for layer in tables.layers.iter().filter(|layer| layers.contains(&layer.diff_id())) {
        let before = places.len();
        let files = layer.files().filter(|file| file.object == Some(*digest));
        places.extend(files.map(|file| (layer.diff_id(), file.path.to_vec())));
        if places.len() == before {
            places.push((layer.diff_id(), Vec::new()));
        }
    }
    places.truncate(MAX_PLACES);
    places
}

/// Damage by part: the reason, and whether it is that nothing is there.
type Found = BTreeMap<Part, (String, bool)>;

/// The layers whose tables can be read, and which of them have an object.
struct Tables {
    layers: Vec<Layer>,
    users: HashMap<Digest, HashSet<Digest>>,
}

struct Check<'a> {
    store: &'a Store,
    observer: &'a dyn Observer,
    total: u64,
    done: AtomicU64,
    found: Mutex<Found>,
}

impl Check<'_> {
    /// Runs `check` on each of `list`, on several threads.
    fn in_parallel(
        &self,
        jobs: NonZeroUsize,
        list: &[Digest],
        check: fn(&Self, &Digest) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(digest) = list.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                check(self, digest)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..jobs.get()).map(|_| scope.spawn(work)).collect();
            let mut result = work();
            for other in others {
                result = result.and(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            result
        })
    }

    fn note(&self, part: Part, reason: String, missing: bool) {
        // The first thing that was found is the plainest.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.entry(part).or_insert((reason, missing));
    }

    fn read(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.observer.progress(Stage::Check, done.min(self.total), self.total);
    }

    fn document(&self, digest: &Digest) -> Result<(), Error> {
        match self.store.document(digest) {
            Ok(Some(document)) => self.read(document.size()),
            Ok(None) => {}
            Err(error) => self.note(Part::Document(*digest), error.to_string(), false),
        }
        Ok(())
    }

    fn layer(&self, diff_id: &Digest) -> Result<(), Error> {
        let layer = match self.store.layer(diff_id) {
            Ok(Some(layer)) => layer,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.note(Part::Layer(*diff_id), error.to_string(), false);
                return Ok(());
            }
        };
        match layer.file().check() {
            Ok(bytes) => self.read(bytes),
            Err(error) => self.note(Part::Layer(*diff_id), error.to_string(), false),
        }
        Ok(())
    }

    fn object(&self, digest: &Digest) -> Result<(), Error> {
        match self.hash(digest) {
            Ok(actual) if actual == *digest => {}
            Ok(actual) => self.note(Part::Object(*digest), format!("its content is {actual}"), false),
            // No layer had it when this began, or it will be found missing from there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(Error::Cancelled),
            Err(error) => self.note(Part::Object(*digest), format!("cannot be read: {error}"), false),
        }
        Ok(())
    }

    fn hash(&self, digest: &Digest) -> io::Result<Digest> {
        let mut file = File::open(self.store.layout().object(digest))?;
        let mut hasher = Hasher::new();
        let len = file.metadata()?.len();
        let mut buf = vec![0; BLOCK.min(len as usize + 1)];
        loop {
            let n = file.read(&mut buf)?;
            if n == 0 {
                return Ok(hasher.finish());
            }
            hasher.update(&buf[..n]);
            self.read(n as u64);
            if self.observer.cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// Looks whether the objects of all layers are there, in their sizes.
    fn sizes(&self, layers: &[Digest]) -> Result<Tables, Error> {
        let mut tables = Tables { layers: Vec::new(), users: HashMap::new() };
        let mut sizes: HashMap<Digest, Option<u64>> = HashMap::new();
        for diff_id in layers {
            // One that cannot be opened was noted.
            let Ok(Some(layer)) = self.store.layer(diff_id) else { continue };
            for (digest, len) in layer.objects() {
                tables.users.entry(digest).or_default().insert(*diff_id);
                let path = || self.store.layout().object(&digest);
                let actual = *sizes
                    .entry(digest)
                    .or_insert_with(|| fs::metadata(path()).ok().map(|found| found.len()));
                match actual {
                    None => self.note(Part::Object(digest), "is missing".into(), true),
                    Some(actual) if actual != len => {
                        let error = Error::ObjectSize { digest, expected: len, actual };
                        // Either is wrong: if the object has its digest, it is the table.
                        let part = Part::Object(digest);
                        let known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
                        let damaged = known.contains_key(&part);
                        drop(known);
                        self.note(
                            if damaged { part } else { Part::Layer(*diff_id) },
                            error.to_string(),
                            false,
                        );
                    }
                    Some(_) => {}
                }
            }
            tables.layers.push(layer);
        }
        Ok(tables)
    }

    /// Makes the tar again.
    fn deep(&self, diff_id: &Digest) -> Result<(), Error> {
        let Ok(Some(layer)) = self.store.layer(diff_id) else { return Ok(()) };
        let mut tar = Hashing::new(layer.reader());
        let mut buf = vec![0; BLOCK];
        loop {
            match tar.read(&mut buf) {
                Ok(0) => break,
                Ok(_) if self.observer.cancelled() => return Err(Error::Cancelled),
                Ok(_) => {}
                Err(error) => {
                    self.note(Part::Layer(*diff_id), error.to_string(), false);
                    return Ok(());
                }
            }
        }
        let actual = tar.digest();
        if actual != *diff_id {
            self.note(Part::Layer(*diff_id), format!("its tar is {actual}"), false);
        }
        Ok(())
    }

    /// Follows all names.
    fn names(&self, report: &mut FsckReport) -> Result<Vec<(String, Needs)>, Error> {
        let mut by_name = Vec::new();
        for path in refs::list(self.store.layout())?.files {
            let entry = match refs::read_file(self.store.layout(), &path) {
                Ok(entry) => entry,
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    self.note(Part::Ref(path), error.to_string(), false);
                    continue;
                }
            };
            report.refs += 1;
            let mut needs = Needs::default();
            if let Err(error) = needs.add_ref(self.store, &entry) {
                let (part, missing) = match &error {
                    Error::Missing { digest, .. } => (Part::Document(*digest), true),
                    Error::Damaged { digest, .. } | Error::Document { digest, .. } => {
                        (Part::Document(*digest), false)
                    }
                    _ => (Part::Ref(path), false),
                };
                // So that it is found to be harmed.
                if let Part::Document(digest) = part {
                    needs.documents.insert(digest);
                }
                self.note(part, error.to_string(), missing);
            }
            for layer in needs.layers.iter().filter(|layer| !self.store.has_layer(layer)) {
                self.note(Part::Layer(*layer), "is missing".into(), true);
            }
            by_name.push((entry.name.to_string(), needs));
        }
        Ok(by_name)
    }
}
