//! What takes how much room.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_codec::digest::Digest;
use coracle_codec::oci::Reference;

use crate::error::Error;
use crate::reach::Needs;
use crate::store::Store;

/// What the images of one name take. All sizes in bytes; those on disk as the file system allots them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUsage {
    /// The name.
    pub name: Reference,
    /// Layers that are here, each once.
    pub layers: u64,
    /// Their tars.
    pub logical: u64,
    /// Their objects and layer files on disk.
    pub on_disk: u64,
    /// Of these, what other names need, too.
    pub shared: u64,
    /// Of these, what only this name needs: so much is free when it is removed.
    pub unique: u64,
    /// Bytes of the tars that are in layer files.
    pub inline: u64,
    /// Why it is not all counted: a document or a layer that is damaged or missing.
    pub unclear: Option<String>,
}

/// What the store takes. Sizes as in [`RefUsage`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each name.
    pub refs: Vec<RefUsage>,
    /// Tars of all layers that are here.
    pub logical: u64,
    /// Objects: how many.
    pub object_count: u64,
    /// Objects, on disk.
    pub objects: u64,
    /// Layer files: how many.
    pub layer_count: u64,
    /// Layer files, on disk.
    pub layers: u64,
    /// Bytes of tars that are in layer files.
    pub inline: u64,
    /// Objects and layer files that several names need, on disk.
    pub shared: u64,
    /// Objects and layer files that no name needs, on disk.
    pub unused: u64,
    /// Manifests, indexes and configs, on disk.
    pub documents: u64,
    /// Blobs in flight, on disk.
    pub partial: u64,
    /// Leases and what is staged in them, on disk.
    pub leases: u64,
}

/// A layer, as it is counted.
struct Counted {
    logical: u64,
    inline: u64,
    stored: u64,
    objects: HashSet<Digest>,
}

impl Store {
    /// Measures everything. Others may use the store meanwhile; what comes or goes is counted or not.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn usage(&self) -> Result<Usage, Error> {
        let layout = self.layout();
        let mut usage = Usage {
            documents: tree_size(&layout.documents())?,
            partial: tree_size(&layout.partial())?,
            leases: tree_size(&layout.leases())?,
            ..Usage::default()
        };
        let mut layers = HashMap::new();
        for (diff_id, stored) in self.list_layers()? {
            usage.layer_count += 1;
            usage.layers += stored;
            if let Ok(Some(layer)) = self.layer(&diff_id) {
                let objects = layer.objects().map(|(digest, _)| digest).collect();
                let size = coracle_codec::ReadAt::size(&layer);
                usage.logical += size;
                usage.inline += layer.inline();
                layers.insert(diff_id, Counted { logical: size, inline: layer.inline(), stored, objects });
            }
        }
        let objects: HashMap<Digest, u64> = self.list_objects()?.into_iter().collect();
        usage.object_count = objects.len() as u64;
        usage.objects = objects.values().sum();
        let mut users: HashMap<Digest, u32> = HashMap::new();
        let needs = self.needs_by_name()?;
        for (_, needs, _) in &needs {
            parts(needs, &layers).for_each(|part| *users.entry(part).or_default() += 1);
        }
        let size = |part: &Digest| {
            layers.get(part).map(|layer| layer.stored).or(objects.get(part).copied()).unwrap_or(0)
        };
        for (name, needs, unclear) in needs {
            let here: Vec<_> = needs.layers.iter().filter_map(|diff_id| layers.get(diff_id)).collect();
            let on_disk: u64 = parts(&needs, &layers).map(|part| size(&part)).sum();
            let unique = parts(&needs, &layers).filter(|part| users[part] == 1).map(|part| size(&part)).sum();
            usage.refs.push(RefUsage {
                name,
                layers: here.len() as u64,
                logical: here.iter().map(|layer| layer.logical).sum(),
                on_disk,
                shared: on_disk - unique,
                unique,
                inline: here.iter().map(|layer| layer.inline).sum(),
                unclear,
            });
        }
        usage.shared = users.iter().filter(|(_, users)| **users > 1).map(|(part, _)| size(part)).sum();
        let used: u64 = users.keys().map(size).sum();
        usage.unused = (usage.objects + usage.layers).saturating_sub(used);
        Ok(usage)
    }

    /// What each name needs, and why it may not be all.
    fn needs_by_name(&self) -> Result<Vec<(Reference, Needs, Option<String>)>, Error> {
        let mut all = Vec::new();
        for entry in self.refs()? {
            let mut needs = Needs::default();
            let mut unclear = needs.add_ref(self, &entry).err().map(|error| error.to_string());
            let missing = needs.layers.iter().find(|layer| !self.has_layer(layer));
            if let Some(layer) = missing {
                unclear.get_or_insert_with(|| Error::Missing { what: "layer", digest: *layer }.to_string());
            }
            all.push((entry.name, needs, unclear));
        }
        Ok(all)
    }

    /// Layer files by diff_id, with their sizes on disk.
    pub(crate) fn list_layers(&self) -> Result<Vec<(Digest, u64)>, Error> {
        named(&self.layout().layers(), crate::layout::digest_of_name)
    }

    /// Documents by digest, with their sizes on disk.
    pub(crate) fn list_documents(&self) -> Result<Vec<(Digest, u64)>, Error> {
        named(&self.layout().documents(), crate::layout::digest_of_name)
    }

    /// Objects by digest, with their sizes on disk.
    pub(crate) fn list_objects(&self) -> Result<Vec<(Digest, u64)>, Error> {
        let objects = self.layout().objects();
        let mut all = Vec::new();
        for folder in fs::read_dir(&objects).map_err(Error::io("list", &objects))? {
            let folder = folder.map_err(Error::io("list", &objects))?;
            let prefix = folder.file_name();
            all.extend(named(&folder.path(), |name| crate::layout::digest_of_object(&prefix, name))?);
        }
        all.sort_unstable();
        Ok(all)
    }
}

/// Layer files and objects of what is needed, each once.
fn parts<'a>(needs: &'a Needs, layers: &'a HashMap<Digest, Counted>) -> impl Iterator<Item = Digest> + 'a {
    let here = needs.layers.iter().filter_map(|diff_id| Some((diff_id, layers.get(diff_id)?)));
    let mut parts = HashSet::new();
    for (diff_id, layer) in here {
        parts.insert(*diff_id);
        parts.extend(layer.objects.iter().copied());
    }
    parts.into_iter()
}

/// Files of `folder` that are named by digests, with their sizes on disk.
fn named(
    folder: &Path,
    digest: impl Fn(&std::ffi::OsStr) -> Option<Digest>,
) -> Result<Vec<(Digest, u64)>, Error> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        // Removed meanwhile.
        let Ok(found) = entry.metadata() else { continue };
        if let Some(digest) = digest(&entry.file_name()) {
            all.push((digest, found.blocks() * 512));
        }
    }
    all.sort_unstable();
    Ok(all)
}

/// Bytes on disk of everything in a folder.
fn tree_size(folder: &Path) -> Result<u64, Error> {
    let mut sum = 0;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(Error::io("list", folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(Error::io("list", folder))?;
        let Ok(found) = entry.metadata() else { continue };
        sum += if found.is_dir() {
            tree_size(&entry.path())?
        } else {
            found.blocks() * 512 / found.nlink().max(1)
        };
    }
    Ok(sum)
}
