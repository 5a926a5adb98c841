//! Other implementations, to compare Coracle with in tests.
//!
//! A crate of its own because the `oci-delta` crate links OpenSSL: building this needs the Debian packages
//! `libssl-dev` and `pkg-config`, which nothing else in the workspace does. It is no default member.

mod chunked;
mod composefs;

pub use chunked::{ChunkedView, zstd_chunked_view};
pub use composefs::{Pulled, composefs_pull};

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail, ensure};
use oci_delta::{
    BlobStream, BlobStreamFuture, DeltaBlobReader, DeltaDataSource, is_delta_artifact, parse_delta_manifest,
    reconstruct_layer_to, tar_patch_apply,
};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

/// Applies a tar-diff delta with the crate `oci-delta` (the one that bootc uses) to the files beneath `root`
/// and returns the new tar.
///
/// The result is not compared with any digest. The tree must be one that the test made itself: nothing keeps
/// a symlink in it from leading elsewhere.
///
/// # Errors
/// What the crate says, with causes.
pub fn oci_delta_apply(delta: &[u8], root: &Path) -> Result<Vec<u8>, String> {
    let mut source = Tree { root: root.to_owned(), current: None };
    let mut out = Vec::new();
    tar_patch_apply(delta, &mut source, &mut out).map_err(|error| format!("{error:#}"))?;
    Ok(out)
}

/// What the crate `oci-delta` makes of a delta artifact.
#[derive(Debug)]
pub struct Rebuilt {
    /// Digest of the target's manifest.
    pub target: String,
    /// Digest of the config that the source must have.
    pub source_config: String,
    /// By number of the layer of the target: the uncompressed layer; `None` for those that the artifact does not hold.
    pub layers: Vec<Option<Vec<u8>>>,
}

/// Reads the only artifact of the OCI layout `dir` with the crate `oci-delta`, and rebuilds all layers that it holds from
/// the files beneath `root`. The crate compares each with its diff_id.
///
/// # Errors
/// What the crate says, with causes.
pub fn oci_delta_rebuild(dir: &Path, root: &Path) -> Result<Rebuilt, String> {
    rebuild(dir, root).map_err(|error| format!("{error:#}"))
}

fn rebuild(dir: &Path, root: &Path) -> anyhow::Result<Rebuilt> {
    let blobs = Blobs(dir.to_owned());
    let index = ImageIndex::from_file(dir.join("index.json"))?;
    let entry = index.manifests().first().context("an empty layout")?;
    let manifest = ImageManifest::from_reader(blobs.open(entry)?)?;
    ensure!(is_delta_artifact(&manifest), "no delta artifact");
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let parsed = runtime.block_on(parse_delta_manifest(&manifest, &blobs))?;
    let mut layers = Vec::new();
    for (layer, diff_id) in
        parsed.target_manifest.layers().iter().zip(parsed.target_config.rootfs().diff_ids())
    {
        let Some(content) = parsed.delta_layer_by_to.get(layer.digest()) else {
            layers.push(None);
            continue;
        };
        let mut source = Tree { root: root.to_owned(), current: None };
        let mut out = Vec::new();
        let blob = blobs.open(content)?;
        reconstruct_layer_to(blob, content.media_type(), &mut source, &diff_id.parse()?, &mut out)?;
        layers.push(Some(out));
    }
    Ok(Rebuilt {
        target: parsed.target_manifest_descriptor.digest().to_string(),
        source_config: parsed.source_config_digest.to_string(),
        layers,
    })
}

/// Blobs of an OCI layout.
struct Blobs(PathBuf);

impl Blobs {
    fn open(&self, blob: &Descriptor) -> anyhow::Result<File> {
        let path = self.0.join("blobs").join(blob.digest().to_string().replace(':', "/"));
        File::open(&path).with_context(|| format!("opening {}", path.display()))
    }
}

impl DeltaBlobReader for Blobs {
    fn open_blob(&self, blob: &Descriptor) -> BlobStreamFuture<'_> {
        let opened = self.open(blob).map(|file| Box::new(file) as Box<dyn BlobStream>);
        Box::pin(std::future::ready(opened))
    }
}

/// Source files in an extracted tree.
struct Tree {
    root: PathBuf,
    current: Option<File>,
}

impl Tree {
    fn current(&mut self) -> anyhow::Result<&mut File> {
        self.current.as_mut().context("no current file")
    }
}

impl DeltaDataSource for Tree {
    fn set_current_file(&mut self, path: &str) -> anyhow::Result<()> {
        self.current = None;
        let mut full = self.root.clone();
        for component in Path::new(path).components() {
            match component {
                Component::Normal(name) => full.push(name),
                Component::CurDir => {}
                _ => bail!("path {path:?} leaves the tree"),
            }
        }
        let file = File::open(&full).with_context(|| format!("opening {path:?}"))?;
        ensure!(file.metadata()?.is_file(), "{path:?} is not a regular file");
        self.current = Some(file);
        Ok(())
    }

    fn read_exact_current(&mut self, buf: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.current()?.read_exact(buf)?)
    }

    fn seek_current(&mut self, offset: u64) -> anyhow::Result<u64> {
        Ok(self.current()?.seek(SeekFrom::Start(offset))?)
    }

    fn read_current_to_end(&mut self, max_size: u64) -> anyhow::Result<Vec<u8>> {
        let file = self.current()?;
        ensure!(file.metadata()?.len() <= max_size, "source is larger than {max_size} bytes");
        file.seek(SeekFrom::Start(0))?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok(content)
    }

    fn copy_to(&mut self, dst: &mut dyn Write, n: u64) -> anyhow::Result<()> {
        let copied = std::io::copy(&mut self.current()?.take(n), dst)?;
        ensure!(copied == n, "source ends after {copied} of {n} bytes");
        Ok(())
    }
}
