//! Reading a tree as an image with one layer.
//!
//! The layer is a tar of the tree: members in byte order of their names, with owner, mode, time in whole seconds,
//! extended attributes, devices and hardlinks. The same tree gives the same layer.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, Document, Limits, Platform, Unverified, Verified, media_type};
use coracle_codec::tar::write::{END, Member, MemberKind, padding};
use coracle_sys::beneath::Root;
use coracle_sys::file::xattrs;
use coracle_sys::spool::spool_file;
use serde_json::json;

use super::{FileFrom, Record, reopen};
use crate::image::docker_archive::made_up;
use crate::image::{Source, bytes_from};
use crate::{Context, Error};

/// The same tree gives the same config; and umoci cannot show an image without a time.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A tree to read from.
#[derive(Debug)]
pub(crate) struct RootfsSource {
    name: String,
    document: Document,
    config: Verified,
    layer: File,
    layer_digest: Digest,
    is_subset: bool,
}

impl RootfsSource {
    pub(crate) fn open(
        name: &str,
        path: &Path,
        platform: &Platform,
        limits: &Limits,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let temporary = |error| Error::Temporary { dir: context.temp_dir.clone(), error };
        let out = io::BufWriter::with_capacity(1 << 17, spool_file(&context.temp_dir).map_err(temporary)?);
        let mut out = Hashing::new(out);
        let open = |error| Error::Open { path: path.to_owned(), error };
        let mut tree = Tree {
            root: Root::open(path).map_err(open)?,
            path: path.to_owned(),
            links: HashMap::new(),
            out: &mut out,
            context,
        };
        tree.folder(b"")?;
        out.write_all(&END).map_err(temporary)?;
        out.flush().map_err(temporary)?;
        let (out, layer_digest, size) = out.finish();
        let layer = out.into_inner().map_err(|e| temporary(e.into_error()))?;
        let mut config = json!({
            "created": CREATED,
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [layer_digest.to_string()] },
            "history": [{ "created": CREATED, "created_by": "coracle rootfs" }],
        });
        let subset =
            Record::beside(path).ok().and_then(|record| record.in_tree()).and_then(|found| found.subset());
        if let Some(subset) = &subset {
            config["config"]["Labels"] = subset.labels();
        }
        if !platform.variant.is_empty() {
            config["variant"] = json!(platform.variant);
        }
        let config = Unverified::new(config.to_string().into_bytes()).identify();
        let descriptor = Descriptor::new(media_type::OCI_LAYER, layer_digest, size);
        let document = made_up(&config, &[descriptor], limits)
            .map_err(|error| Error::Document { image: name.to_owned(), error })?;
        let is_subset = subset.is_some();
        Ok(RootfsSource { name: name.to_owned(), document, config, layer, layer_digest, is_subset })
    }
}

struct Tree<'a, W> {
    root: Root,
    path: PathBuf,
    /// First names of files that have several, by device and inode.
    links: HashMap<(u64, u64), Vec<u8>>,
    out: &'a mut W,
    context: &'a Context<'a>,
}

impl<W: Write> Tree<'_, W> {
    fn at(&self, name: &[u8]) -> PathBuf {
        self.path.join(OsStr::from_bytes(name))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let dir = self.context.temp_dir.clone();
        self.out.write_all(bytes).map_err(|error| Error::Temporary { dir, error })
    }

    /// Adds what the folder `name` (without a slash at its end; empty for the root) holds.
    fn folder(&mut self, name: &[u8]) -> Result<(), Error> {
        if self.context.observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let path = self.at(name);
        let fail = |error| Error::Read { path: path.clone(), error };
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(&path).map_err(fail)? {
            names.push(entry.map_err(fail)?.file_name());
        }
        names.sort();
        for child in names {
            let child = child.into_vec();
            let full = if name.is_empty() { child } else { [name, b"/", &child].concat() };
            self.entry(&full)?;
        }
        Ok(())
    }

    fn entry(&mut self, name: &[u8]) -> Result<(), Error> {
        let path = self.at(name);
        let fail = |error| Error::Read { path: path.clone(), error };
        let meta = fs::symlink_metadata(&path).map_err(fail)?;
        let kind = meta.file_type();
        let mut member = Member {
            name: name.to_vec(),
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: meta.mtime(),
            xattrs: xattrs(&path).map_err(fail)?,
            ..Member::file("", 0)
        };
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                member.kind = MemberKind::Hardlink;
                member.link.clone_from(first);
                member.xattrs.clear();
                return self.put(&member.header());
            }
            self.links.insert((meta.dev(), meta.ino()), name.to_vec());
        }
        if kind.is_file() {
            return self.file(member, &path);
        }
        if kind.is_dir() {
            member.kind = MemberKind::Directory;
            member.name.push(b'/');
            self.put(&member.header())?;
            return self.folder(name);
        }
        if kind.is_symlink() {
            member.kind = MemberKind::Symlink;
            member.link = fs::read_link(&path).map_err(fail)?.into_os_string().into_vec();
        } else if kind.is_fifo() {
            member.kind = MemberKind::Fifo;
        } else if kind.is_char_device() || kind.is_block_device() {
            let char_device = kind.is_char_device();
            member.kind = if char_device { MemberKind::CharDevice } else { MemberKind::BlockDevice };
            member.device = coracle_sys::file::device_numbers(meta.rdev());
        } else {
            // A socket belongs to who listens at it; tar leaves sockets away, too.
            return Ok(());
        }
        self.put(&member.header())
    }

    fn file(&mut self, mut member: Member, path: &Path) -> Result<(), Error> {
        let fail = |error| Error::Read { path: path.to_owned(), error };
        // Opened beneath the root, so that a link put there meanwhile leads nowhere else.
        let file = self.root.open_file(&member.name).map_err(|error| fail(io::Error::other(error)))?;
        member.size = file.metadata().map_err(fail)?.len();
        self.put(&member.header())?;
        let mut input = (&file).take(member.size);
        let mut left = member.size;
        let mut piece = vec![0; 1 << 17];
        while left > 0 {
            if self.context.observer.cancelled() {
                return Err(Error::Cancelled);
            }
            match input.read(&mut piece) {
                // Shorter than it said a moment ago.
                Ok(0) => return Err(Error::ReadAgain(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    left -= n as u64;
                    self.put(&piece[..n])?;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail(e)),
            }
        }
        self.put(&vec![0; padding(member.size)])
    }
}

impl Source for RootfsSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.document.clone())
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if wanted.digest == self.layer_digest {
            return Ok(Box::new(FileFrom { file: reopen(&self.layer, &self.name)?, offset }));
        }
        Ok(bytes_from(self.config.as_bytes(), offset))
    }

    fn made_up(&self) -> Option<&'static str> {
        Some(match self.is_subset {
            true => "a tree of files has no manifest, and in this one is only a subset of an image",
            false => "a tree of files has no manifest",
        })
    }
}
