//! Pulls images with the crate `composefs-oci`, with which bootc keeps them.
//!
//! ```text
//! coracle-oracles-composefs DIR NAME...
//! ```
//!
//! Makes a composefs repository in the folder DIR and pulls each NAME into it in turn: `oci:FOLDER`, for example, an image
//! or a delta artifact. Then it writes what the repository holds of the last image to files in DIR: `manifest` and
//! `config` as they came, `manifest-digest` and `config-digest` by which the repository knows them, `layer-0`, `layer-1`,
//! ..., uncompressed, `mounted`, the digest of the file system that composefs mounts, and `present`, how many of the
//! layers were there before.
//!
//! A program, and not a library for tests, because `composefs-oci` asks `flate2` for the C library zlib, which takes
//! precedence over zlib-rs in everything that is built together with it. The tests, in `testkit/oracles`, must have the
//! decoder that the product has.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use composefs_oci::composefs::fsverity::{FsVerityHashValue, Sha256HashValue};
use composefs_oci::composefs::repository::{Repository, RepositoryConfig};
use composefs_oci::{OciDigest, OciImage, PullOptions, layer_tar, oci_fsck, pull};

/// What the last image is called in the repository.
const TAG: &str = "last";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [dir, names @ ..] = arguments.as_slice() else {
        bail!("usage: coracle-oracles-composefs DIR NAME...");
    };
    // A pull waits for work on other threads.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(run(&PathBuf::from(dir), names))
}

async fn run(dir: &std::path::Path, names: &[OsString]) -> anyhow::Result<()> {
    let at = fs::File::open(dir).context("opening the folder")?;
    // Few file systems can seal objects by fs-verity; digests are the same without.
    let config = RepositoryConfig::default().set_insecure();
    let (repository, _) = Repository::<Sha256HashValue>::init_path(&at, "repository", config)?;
    let repository = Arc::new(repository);
    let mut last = None;
    for name in names {
        let name = name.to_str().context("a name that is no text")?;
        last = Some(pull(&repository, name, Some(TAG), PullOptions::default()).await?);
    }
    let pulled = last.context("nothing to pull")?;

    let check = oci_fsck(&repository).await?;
    ensure!(check.is_ok(), "the repository is damaged: {check:?}");
    let image = OciImage::open_ref(&repository, TAG)?;
    ensure!(image.manifest_digest() == &pulled.manifest_digest, "the tag leads to another image");
    fs::write(dir.join("manifest-digest"), image.manifest_digest().to_string())?;
    fs::write(dir.join("config-digest"), image.config_digest().to_string())?;
    fs::write(dir.join("manifest"), image.read_manifest_json(&repository)?)?;
    fs::write(dir.join("config"), image.read_config_json(&repository)?)?;
    for (number, diff_id) in image.layer_diff_ids().into_iter().enumerate() {
        let diff_id: OciDigest = diff_id.parse()?;
        layer_tar(&repository, &diff_id, &mut fs::File::create(dir.join(format!("layer-{number}")))?)?;
    }
    let mounted = image.image_ref(repository.erofs_version()).context("the image has no file system")?;
    fs::write(dir.join("mounted"), mounted.to_hex())?;
    fs::write(dir.join("present"), pulled.stats.layers_already_present.to_string())?;
    Ok(())
}
