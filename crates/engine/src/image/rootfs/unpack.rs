//! Layers laid over each other (OCI image-spec, "Filesystem Layers"), beneath a folder that nothing leaves.
//!
//! Names are read as if the folder were `/`: a leading slash means nothing, `..` stops there, links on the way to a
//! member are followed inside. What a member replaces is removed first, unless both are folders. Whiteouts remove what
//! lower layers have put there, never what their own layer has.
//!
//! Owner, mode, time and attributes of folders are set when all layers are there: until then files are put into them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use coracle_codec::tar::{self, Entry, Kind, Reader};
use coracle_store::{Layer, StoredObject};
use coracle_sys::file::xattrs;
use coracle_sys::tree::{self, Folder, Metadata, Node, Tree, set_metadata, share_blocks};

use crate::Error;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names of overlayfs's own attributes. In a tree they would be instructions to whoever mounts it.
const OVERLAY: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
/// Bytes moved at once.
const PIECE: usize = 128 << 10;

/// How files come from the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// They share blocks where the file system can, and are copies where it cannot.
    #[default]
    Blocks,
    /// Where blocks cannot be shared, they are the very files of the store: a change in place damages it.
    Links,
}

/// What was made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Report {
    /// Files whose blocks are shared with the store.
    pub(crate) shared: u64,
    /// Files that are files of the store.
    pub(crate) linked: u64,
    /// Members whose owner could not be set, since that is for root.
    pub(crate) not_owned: u64,
    /// Devices that were left away, since they are for root.
    pub(crate) devices: u64,
    /// Attributes that were left away.
    pub(crate) attributes: BTreeSet<String>,
}

impl Report {
    /// In words, for the user.
    pub(crate) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.not_owned > 0 {
            let many = self.not_owned;
            notes.push(format!(
                "{many} files belong to this user and have no setuid bits: owners are for root to set"
            ));
        }
        if self.devices > 0 {
            notes.push(format!("{} devices were left away: they are for root to make", self.devices));
        }
        if !self.attributes.is_empty() {
            let names: Vec<&str> = self.attributes.iter().map(String::as_str).collect();
            notes.push(format!("extended attributes were left away: {}", names.join(", ")));
        }
        notes
    }
}

/// Where the content of a member is.
pub(super) enum Bytes<'a> {
    /// Here, and in the store if the layer is from there.
    Here(&'a mut dyn Read, Option<&'a Layer>),
    /// In a layer whose contents come when it is known which of them are needed.
    Later(Wanted),
}

/// A content that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Wanted {
    /// Number of the layer.
    pub(super) layer: usize,
    /// Number of the member in the layer's table of contents.
    pub(super) entry: usize,
}

/// A tree on its way.
#[derive(Debug)]
pub(crate) struct Unpacker {
    tree: Tree,
    /// For messages: the image.
    image: String,
    root: bool,
    /// Whether sharing blocks, and linking, has not failed yet.
    can_share: bool,
    can_link: bool,
    /// What this layer has put: number of the folder, and name.
    upper: HashSet<(u64, Vec<u8>)>,
    /// Metadata of folders by their number, with their paths.
    folders: HashMap<u64, (Vec<u8>, Metadata)>,
    /// Files without their content, by their numbers. What takes such a number later is another file.
    pub(super) later: HashMap<u64, (Wanted, Metadata)>,
    pub(crate) report: Report,
}

impl Unpacker {
    /// Unpacks into the folder `path`.
    pub(crate) fn new(image: &str, path: &Path, sharing: Sharing) -> io::Result<Self> {
        Ok(Unpacker {
            tree: Tree::open(path)?,
            image: image.to_owned(),
            root: coracle_sys::usage::user_id() == 0,
            can_share: true,
            can_link: sharing == Sharing::Links,
            upper: HashSet::new(),
            folders: HashMap::new(),
            later: HashMap::new(),
            report: Report::default(),
        })
    }

    /// Lays a layer over what is there. `stored` is the same layer in the store, if it is from there. Reads `input` to
    /// its end.
    pub(crate) fn layer(
        &mut self,
        what: &str,
        input: impl Read,
        limits: tar::Limits,
        stored: Option<&Layer>,
    ) -> Result<(), Error> {
        self.begin_layer();
        let image = self.image.clone();
        let bad = |member: Option<&Entry>, reason: String| bad_layer(&image, what, member, reason);
        let mut reader = Reader::new(input, limits);
        loop {
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) => return Err(bad(None, error.to_string())),
            };
            let bytes = Bytes::Here(&mut reader, stored);
            self.member(&entry, bytes).map_err(|reason| bad(Some(&entry), reason))?;
        }
        let mut rest = reader.into_rest();
        io::copy(&mut rest, &mut io::sink()).map_err(|error| bad(None, error.to_string()))?;
        Ok(())
    }

    /// What comes now is above all that is there.
    pub(super) fn begin_layer(&mut self) {
        self.upper.clear();
    }

    /// Lays one member over what is there; `what` is its layer, for messages.
    pub(super) fn lay(&mut self, what: &str, entry: &Entry, bytes: Bytes<'_>) -> Result<(), Error> {
        let laid = self.member(entry, bytes);
        laid.map_err(|reason| bad_layer(&self.image, what, Some(entry), reason))
    }

    /// The folder of the tree at a path, and the last name of the path.
    pub(super) fn place<'p>(&mut self, path: &'p [u8]) -> io::Result<(Folder, &'p [u8])> {
        let (above, name) = split(path);
        let folder = self.tree.folder(above)?.ok_or(io::ErrorKind::NotFound)?;
        Ok((folder, name))
    }

    /// The top of the tree.
    pub(super) fn top_folder(&mut self) -> Folder {
        self.tree.forget();
        self.tree.top()
    }

    /// Sets what folders were to have. Nothing may be unpacked after it.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.tree.forget();
        let image = self.image.clone();
        for (id, (path, metadata)) in std::mem::take(&mut self.folders) {
            let fail = |reason: String| Error::BadLayer {
                image: image.clone(),
                layer: "tree".into(),
                member: Some(path.escape_ascii().to_string()),
                reason,
            };
            let Some(folder) = self.tree.folder(&path).map_err(|error| fail(error.to_string()))? else {
                continue;
            };
            // One that was replaced since is another folder.
            if folder.id().map_err(|error| fail(error.to_string()))? == id {
                let refused = folder.set_own_metadata(&metadata).map_err(|error| fail(error.to_string()))?;
                self.refused(refused);
            }
        }
        Ok(())
    }

    fn refused(&mut self, names: Vec<Vec<u8>>) {
        self.report.attributes.extend(names.iter().map(|name| name.escape_ascii().to_string()));
    }

    fn member(&mut self, entry: &Entry, bytes: Bytes<'_>) -> Result<(), String> {
        if entry.kind == Kind::GlobalHeader {
            return Ok(());
        }
        let path = inside(&entry.name)?;
        let (above, name) = split(&path);
        if name.is_empty() {
            return self.top(entry);
        }
        let text = |error: io::Error| error.to_string();
        if name.starts_with(WHITEOUT) {
            return self.whiteout(above, name).map_err(text);
        }
        let folder = self.tree.folder_or_new(above).map_err(text)?;
        let id = folder.id().map_err(text)?;
        let found = folder.look(name).map_err(text)?;
        if entry.kind == Kind::Directory {
            self.folder(entry, &path, &folder, name, found).map_err(text)?;
        } else {
            // GNU tar writes a link to itself when it is told the same file twice.
            if entry.kind == Kind::Hardlink && inside(&entry.link_name)? == path {
                return Ok(());
            }
            match found {
                None => {}
                Some((kind, _)) => {
                    folder.remove(name).map_err(text)?;
                    if kind != tree::Kind::File {
                        self.tree.forget();
                    }
                }
            }
            self.other(entry, bytes, &folder, name)?;
        }
        self.upper.insert((id, name.to_vec()));
        Ok(())
    }

    /// A member that is the folder itself.
    fn top(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.kind != Kind::Directory {
            return Err("it has no name".into());
        }
        let id = self.tree.top().id().map_err(|error| error.to_string())?;
        let metadata = self.metadata(entry)?;
        self.folders.insert(id, (Vec::new(), metadata));
        Ok(())
    }

    fn folder(
        &mut self,
        entry: &Entry,
        path: &[u8],
        folder: &Folder,
        name: &[u8],
        found: Option<(tree::Kind, u64)>,
    ) -> io::Result<()> {
        let id = match found {
            Some((tree::Kind::Folder, id)) => id,
            found => {
                if found.is_some() {
                    folder.remove(name)?;
                    self.tree.forget();
                }
                folder.make_folder(name)?.id()?
            }
        };
        let metadata = self.metadata(entry).map_err(io::Error::other)?;
        self.folders.insert(id, (path.to_vec(), metadata));
        Ok(())
    }

    fn other(&mut self, entry: &Entry, bytes: Bytes<'_>, folder: &Folder, name: &[u8]) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let number =
            |value: i64| u32::try_from(value).map_err(|_| format!("no device has the number {value}"));
        let node = match entry.kind {
            Kind::Hardlink => {
                let target = inside(&entry.link_name)?;
                let (above, other) = split(&target);
                let missing = || format!("there is no {}", entry.link_name.escape_ascii());
                let above = self.tree.folder(above).map_err(text)?;
                let above = above.filter(|_| !other.is_empty()).ok_or_else(missing)?;
                if above.look(other).map_err(text)?.is_none() {
                    return Err(missing());
                }
                return folder.make_link(name, &above, other).map_err(text);
            }
            Kind::Symlink => {
                folder.make_symlink(name, &entry.link_name).map_err(text)?;
                return self.set_of(entry, folder, name);
            }
            Kind::Fifo => Node::Fifo,
            Kind::CharDevice => Node::CharDevice(number(entry.device.0)?, number(entry.device.1)?),
            Kind::BlockDevice => Node::BlockDevice(number(entry.device.0)?, number(entry.device.1)?),
            // POSIX has unknown types be regular files (pax, "ustar Interchange Format").
            _ => return self.file(entry, bytes, folder, name),
        };
        if node != Node::Fifo && !self.root {
            self.report.devices += 1;
            return Ok(());
        }
        folder.make_node(name, node).map_err(text)?;
        self.set_of(entry, folder, name)
    }

    fn set_of(&mut self, entry: &Entry, folder: &Folder, name: &[u8]) -> Result<(), String> {
        let metadata = self.metadata(entry)?;
        let set = folder.set_metadata_of(name, entry.kind == Kind::Symlink, &metadata);
        let refused = set.map_err(|error| error.to_string())?;
        self.refused(refused);
        Ok(())
    }

    fn file(&mut self, entry: &Entry, bytes: Bytes<'_>, folder: &Folder, name: &[u8]) -> Result<(), String> {
        let text = |error: io::Error| error.to_string();
        let metadata = self.metadata(entry)?;
        let (reader, stored) = match bytes {
            Bytes::Here(reader, stored) => (reader, stored),
            Bytes::Later(wanted) => {
                let file = self.make_file(folder, name).map_err(text)?;
                self.later.insert(file.metadata().map_err(text)?.ino(), (wanted, metadata));
                return Ok(());
            }
        };
        let object = match stored {
            Some(layer) if entry.sparse.is_none() && (self.can_share || self.can_link) => {
                layer.object_at(entry.content_offset, entry.content_len).map_err(|e| e.to_string())?
            }
            _ => None,
        };
        if let (Some(object), true) = (&object, self.can_share) {
            let file = self.make_file(folder, name).map_err(text)?;
            if share_blocks(&object.file, &file).map_err(text)? {
                self.report.shared += 1;
                return self.set(&file, &metadata);
            }
            self.can_share = false;
            folder.remove(name).map_err(text)?;
        }
        if let Some(object) = &object
            && self.link(object, &metadata, folder, name).map_err(text)?
        {
            self.report.linked += 1;
            return Ok(());
        }
        let mut file = self.make_file(folder, name).map_err(text)?;
        fill(entry, reader, &mut file).map_err(text)?;
        self.set(&file, &metadata)
    }

    fn make_file(&mut self, folder: &Folder, name: &[u8]) -> io::Result<File> {
        let file = folder.make_file(name)?;
        if !self.later.is_empty() {
            self.later.remove(&file.metadata()?.ino());
        }
        Ok(file)
    }

    pub(super) fn set(&mut self, file: &File, metadata: &Metadata) -> Result<(), String> {
        let refused = set_metadata(file, metadata).map_err(|error| error.to_string())?;
        self.refused(refused);
        Ok(())
    }

    /// Makes `name` the very file of the store, if that file has, or may get, the right metadata.
    fn link(
        &mut self,
        object: &StoredObject,
        metadata: &Metadata,
        folder: &Folder,
        name: &[u8],
    ) -> io::Result<bool> {
        if !self.can_link || !self.fits(object, metadata)? {
            return Ok(false);
        }
        match folder.link_from(name, &object.path) {
            Ok(()) => {
                self.later.remove(&object.file.metadata()?.ino());
            }
            Err(error) if error.kind() == io::ErrorKind::TooManyLinks => return Ok(false),
            // Another file system, or a kernel that protects hardlinks.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied
                ) =>
            {
                self.can_link = false;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let refused = set_metadata(&object.file, metadata).map_err(io::Error::other)?;
        self.refused(refused);
        Ok(true)
    }

    /// Whether a file of the store may be the file in the tree: nobody else uses it, or all want the same of it.
    fn fits(&self, object: &StoredObject, metadata: &Metadata) -> io::Result<bool> {
        // The store has to be able to read it.
        if !self.root && metadata.mode & 0o400 == 0 {
            return Ok(false);
        }
        let found = object.file.metadata()?;
        if found.nlink() == 1 {
            return Ok(true);
        }
        let time = (found.mtime(), found.mtime_nsec() as u32);
        let owner = metadata.owner.is_none_or(|owner| owner == (found.uid(), found.gid()));
        Ok(found.mode() & 0o7777 == metadata.mode
            && time == metadata.mtime
            && owner
            && xattrs(&object.path)? == metadata.xattrs)
    }

    fn whiteout(&mut self, above: &[u8], name: &[u8]) -> io::Result<()> {
        self.tree.forget();
        let Some(folder) = self.tree.folder(above)? else { return Ok(()) };
        let upper = &self.upper;
        let keep = |folder, name: &[u8]| upper.contains(&(folder, name.to_vec()));
        if name == OPAQUE {
            return folder.remove_but(&keep);
        }
        let hidden = &name[WHITEOUT.len()..];
        // `.wh..wh.*` are aufs' own notes; `.` and `..` are no names.
        if hidden.is_empty() || hidden.starts_with(WHITEOUT) || hidden == b"." || hidden == b".." {
            return Ok(());
        }
        match folder.look(hidden)? {
            None => {}
            Some((tree::Kind::Folder, _)) => {
                let below = folder.enter(hidden)?;
                below.remove_but(&keep)?;
                if !keep(folder.id()?, hidden) {
                    drop(below);
                    self.tree.forget();
                    folder.remove_if_empty(hidden)?;
                }
            }
            Some(_) if keep(folder.id()?, hidden) => {}
            Some(_) => folder.remove(hidden)?,
        }
        Ok(())
    }

    fn metadata(&mut self, entry: &Entry) -> Result<Metadata, String> {
        let id = |value: i64, what: &str| {
            u32::try_from(value).map_err(|_| format!("no {what} has the number {value}"))
        };
        let (owner, mask) = if self.root {
            (Some((id(entry.uid, "user")?, id(entry.gid, "group")?)), 0o7777)
        } else {
            self.report.not_owned += 1;
            (None, 0o1777)
        };
        let (mut xattrs, mut left) = (Vec::new(), Vec::new());
        for (name, value) in &entry.xattrs {
            if OVERLAY.iter().any(|prefix| name.starts_with(prefix)) {
                left.push(name.clone());
            } else {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        self.refused(left);
        let mode = (entry.mode as u32) & mask;
        Ok(Metadata { mode, owner, mtime: (entry.mtime, entry.mtime_nanos), xattrs })
    }
}

fn bad_layer(image: &str, what: &str, member: Option<&Entry>, reason: String) -> Error {
    Error::BadLayer {
        image: image.to_owned(),
        layer: what.to_owned(),
        member: member.map(|entry| entry.name.escape_ascii().to_string()),
        reason,
    }
}

/// A name as a path inside, without `.`, `..` and slashes at its ends.
fn inside(name: &[u8]) -> Result<Vec<u8>, String> {
    if name.contains(&0) {
        return Err("its name has a NUL byte".into());
    }
    Ok(tar::lexical_path(name))
}

/// The folder that a path of [`inside`] is in, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Writes the content of a member.
fn fill(entry: &Entry, reader: &mut dyn Read, file: &mut File) -> io::Result<()> {
    let mut piece = vec![0; (PIECE as u64).min(entry.content_len.max(1)) as usize];
    let Some(map) = &entry.sparse else {
        return copy(reader, u64::MAX, file, &mut piece);
    };
    for fragment in &map.fragments {
        file.seek(SeekFrom::Start(fragment.offset))?;
        copy(reader, fragment.len, file, &mut piece)?;
    }
    file.set_len(map.size)
}

/// Copies up to `left` bytes, or to the end.
fn copy(from: &mut dyn Read, mut left: u64, to: &mut impl Write, piece: &mut [u8]) -> io::Result<()> {
    while left > 0 {
        let want = left.min(piece.len() as u64) as usize;
        match from.read(&mut piece[..want]) {
            Ok(0) => return Ok(()),
            Ok(n) => {
                to.write_all(&piece[..n])?;
                left -= n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
