//! Names in the store: `docs/formats/store.md`, section 6.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coracle_codec::oci::{Descriptor, Limits, Reference};
use coracle_sys::publish::Pending;
use coracle_sys::sync::sync_folder;
use serde_json::{Value, json};

use crate::error::Error;
use crate::layout::Layout;

/// Bytes of the file of one name at most.
const MAX_FILE: u64 = 4 << 20;
/// Folders within each other below `refs`: a name of 255 bytes has fewer parts.
const MAX_DEPTH: usize = 130;

/// A name in the store, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The name in full. In the store a name with a digest is told by the digest alone; a tag beside it is only a note.
    pub name: Reference,
    /// What the name led to where it was pulled from: a manifest or an index.
    pub root: Descriptor,
    /// Manifests of the platforms that are here. Of a name that leads to a manifest: that one.
    pub images: Vec<Descriptor>,
    /// Where it was pulled from, as a text for people.
    pub source: String,
    /// Whether updates of all tracked images include it.
    pub tracked: bool,
    /// When it was written, in seconds since 1970.
    pub updated: u64,
}

impl Ref {
    fn to_json(&self) -> Vec<u8> {
        let value = json!({
            "name": self.name.to_string(),
            "root": self.root.to_json(),
            "images": self.images.iter().map(Descriptor::to_json).collect::<Vec<_>>(),
            "source": self.source,
            "tracked": self.tracked,
            "updated": self.updated,
        });
        value.to_string().into_bytes()
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let member = |name: &str| value.get(name).ok_or_else(|| format!("no member {name:?}"));
        let wrong = |name: &str| format!("member {name:?} is of another kind");
        let descriptor =
            |value: &Value| Descriptor::parse(value, &Limits::default()).map_err(|e| e.to_string());
        let images = member("images")?.as_array().ok_or_else(|| wrong("images"))?;
        let name = member("name")?.as_str().ok_or_else(|| wrong("name"))?;
        Ok(Ref {
            name: name.parse().map_err(|e| format!("{e}"))?,
            root: descriptor(member("root")?)?,
            images: images.iter().map(descriptor).collect::<Result<_, _>>()?,
            source: member("source")?.as_str().ok_or_else(|| wrong("source"))?.into(),
            tracked: member("tracked")?.as_bool().ok_or_else(|| wrong("tracked"))?,
            updated: member("updated")?.as_u64().ok_or_else(|| wrong("updated"))?,
        })
    }
}

/// Writes the file of a name, in place of the one before.
pub(crate) fn write(layout: &Layout, entry: &Ref) -> Result<(), Error> {
    let path = layout.ref_file(&entry.name);
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io("make", folder))?;
    let fail = || Error::io("write", &path);
    let mut pending = Pending::create(&path).map_err(fail())?;
    pending.write_all(&entry.to_json()).map_err(fail())?;
    pending.publish().map_err(fail())?;
    sync_folders(layout, folder)
}

/// Makes the folders of a name durable, up to `refs`.
fn sync_folders(layout: &Layout, folder: &Path) -> Result<(), Error> {
    let refs = layout.refs();
    for folder in folder.ancestors().skip(1).take_while(|folder| folder.starts_with(&refs)) {
        sync_folder(folder).map_err(Error::io("sync", folder))?;
    }
    Ok(())
}

/// Removes the file of a name; false if there is none.
pub(crate) fn remove(layout: &Layout, name: &Reference) -> Result<bool, Error> {
    let path = layout.ref_file(name);
    match fs::remove_file(&path) {
        Ok(()) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            sync_folder(folder).map_err(Error::io("sync", folder))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", &path)(error)),
    }
}

/// Reads the file of a name; `None` if there is none.
pub(crate) fn read(layout: &Layout, name: &Reference) -> Result<Option<Ref>, Error> {
    let path = layout.ref_file(name);
    match read_file(layout, &path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Reads the file `path`, which has to be where its name belongs.
pub(crate) fn read_file(layout: &Layout, path: &Path) -> Result<Ref, Error> {
    let bad = |reason: String| Error::Ref { path: path.to_owned(), reason };
    let size = fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > MAX_FILE {
        return Err(bad(format!("{size} bytes, more than {MAX_FILE}")));
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let entry = Ref::parse(&bytes).map_err(bad)?;
    if layout.ref_file(&entry.name) != path {
        return Err(bad(format!("it is about {}", entry.name)));
    }
    Ok(entry)
}

/// What is below `refs`.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Files that may be those of names, in order.
    pub files: Vec<PathBuf>,
    /// Hidden files of writers that were killed.
    pub remains: Vec<PathBuf>,
    /// Folders, inner ones first.
    pub folders: Vec<PathBuf>,
}

/// Lists what is below `refs`.
pub(crate) fn list(layout: &Layout) -> Result<Found, Error> {
    let mut found = Found::default();
    walk(&layout.refs(), 0, &mut found)?;
    found.files.sort();
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut Found) -> Result<(), Error> {
    let fail = || Error::io("list", folder);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound && depth > 0 => return Ok(()),
        Err(error) => return Err(fail()(error)),
    };
    for entry in entries {
        let entry = entry.map_err(fail())?;
        let path = entry.path();
        if entry.file_type().map_err(fail())?.is_dir() {
            if depth == MAX_DEPTH {
                return Err(Error::Ref { path, reason: "too many folders within each other".into() });
            }
            walk(&path, depth + 1, found)?;
            found.folders.push(path);
        } else if entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.remains.push(path);
        } else {
            found.files.push(path);
        }
    }
    Ok(())
}
