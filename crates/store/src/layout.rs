//! Where things are in the folder of a store: `docs/formats/store.md`, section 2.

use std::path::{Path, PathBuf};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Reference, Repository, Version};

/// The folder of a store, and the names in it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub fn new(root: &Path) -> Self {
        Layout { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn format(&self) -> PathBuf {
        self.root.join("format")
    }

    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub fn object(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.root.join("objects").join(&hex[..2]).join(&hex[2..])
    }

    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex())
    }

    pub fn documents(&self) -> PathBuf {
        self.root.join("documents")
    }

    pub fn document(&self, digest: &Digest) -> PathBuf {
        self.documents().join(digest.hex())
    }

    pub fn tocs(&self) -> PathBuf {
        self.root.join("tocs")
    }

    /// What a table of contents makes.
    pub fn toc(&self, digest: &Digest) -> PathBuf {
        self.tocs().join(digest.hex())
    }

    pub fn refs(&self) -> PathBuf {
        self.root.join("refs")
    }

    /// The file of a name. Parts of a repository begin with a letter, a digit or `[`, so a folder is never a file.
    pub fn ref_file(&self, name: &Reference) -> PathBuf {
        let file = match name.version() {
            Version::Tag(tag) => format!(":{tag}"),
            Version::Digest(digest) => format!("@{digest}"),
        };
        self.repository(name.repository()).join(file)
    }

    fn repository(&self, repository: &Repository) -> PathBuf {
        self.refs().join(repository.registry()).join(repository.path())
    }

    pub fn partial(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// A blob in flight.
    pub fn partial_blob(&self, digest: &Digest) -> PathBuf {
        self.partial().join(format!("sha256-{}", digest.hex()))
    }

    /// Ranges of a blob in flight.
    pub fn partial_ranges(&self, digest: &Digest) -> PathBuf {
        self.partial().join(format!("ranges-{}", digest.hex()))
    }

    /// The file whose lock says that somebody makes this layer.
    pub fn claim(&self, diff_id: &Digest) -> PathBuf {
        self.partial().join(format!("layer-{}", diff_id.hex()))
    }

    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub fn turn(&self) -> PathBuf {
        self.root.join("turn")
    }
}

/// The digest that a file in `layers` or `documents` is named by.
pub(crate) fn digest_of_name(name: &std::ffi::OsStr) -> Option<Digest> {
    format!("sha256:{}", name.to_str()?).parse().ok()
}

/// The digest that a file `name` in the folder `folder` of `objects` is named by.
pub(crate) fn digest_of_object(folder: &std::ffi::OsStr, name: &std::ffi::OsStr) -> Option<Digest> {
    let (folder, name) = (folder.to_str()?, name.to_str()?);
    if folder.len() != 2 { None } else { format!("sha256:{folder}{name}").parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_files_that_cannot_collide() {
        let layout = Layout::new(Path::new("/s"));
        let file = |name: &str| layout.ref_file(&name.parse().unwrap());
        assert_eq!(file("alpine"), Path::new("/s/refs/docker.io/library/alpine/:latest"));
        assert_eq!(file("[::1]:5000/a/b:c"), Path::new("/s/refs/[::1]:5000/a/b/:c"));
        let digest = Digest::of(b"");
        let both = file(&format!("quay.io/a:t@{digest}"));
        assert_eq!(both, Path::new("/s/refs/quay.io/a").join(format!("@{digest}")));
        let object = layout.object(&digest);
        let (folder, name) = (object.parent().unwrap().file_name().unwrap(), object.file_name().unwrap());
        assert_eq!(digest_of_object(folder, name), Some(digest));
        assert_eq!(digest_of_name(layout.layer(&digest).file_name().unwrap()), Some(digest));
        assert_eq!(digest_of_name("x".as_ref()), None);
    }
}
