//! Images for tests: layers, configs, manifests and indexes as bytes, and OCI layouts made of them.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::Error;
use crate::golden::sha256_hex;
use crate::tar_builder::TarBuilder;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `sha256:HEX` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// A descriptor.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// How layers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Plain tars.
    None,
    /// gzip, stored blocks only.
    Gzip,
    /// zstd.
    Zstd,
}

/// Blobs and documents that belong together.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// All blobs, documents included.
    pub blobs: Vec<Vec<u8>>,
    /// The root: its media type and bytes.
    pub root: (String, Vec<u8>),
}

/// `bytes` as gzip, written by the program of this name so that it is nobody's own.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut command = std::process::Command::new(crate::oracle::tool("gzip")?);
    let limit = std::time::Duration::from_secs(120);
    Ok(crate::oracle::run_fed(command.args(["-n", "-1"]), bytes.to_vec(), limit)?.stdout)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    // The buffer is as large as it has to be.
    let _ = zstd_safe::compress(&mut out, bytes, 3);
    out
}

/// An image with the given layers for one platform (`amd64`, ...). Its JSON has odd blanks, so that nobody who writes it
/// again gets the same digest.
///
/// # Errors
/// gzip is missing.
pub fn image(architecture: &str, layers: &[Vec<u8>], compression: Compression) -> Result<Bundle, Error> {
    let mut bundle = Bundle::default();
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let history: Vec<Value> =
        layers.iter().map(|_| json!({ "created": "2026-01-02T03:04:05Z", "created_by": "test" })).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": { "Cmd": ["/bin/sh", "-c", "cat /version"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
    });
    let config = config.to_string().into_bytes();
    let mut descriptors = Vec::new();
    for layer in layers {
        let (kind, blob) = match compression {
            Compression::None => ("", layer.clone()),
            Compression::Gzip => ("+gzip", gzip(layer)?),
            Compression::Zstd => ("+zstd", zstd(layer)),
        };
        descriptors
            .push(descriptor(&format!("application/vnd.oci.image.layer.v1.tar{kind}"), &blob).to_string());
        bundle.blobs.push(blob);
    }
    let manifest = format!(
        "{{\n  \"schemaVersion\" : 2,\n  \"mediaType\":\"{MANIFEST}\",\n  \"config\": {},\n  \"layers\": [ {} ]\n}}\n",
        descriptor("application/vnd.oci.image.config.v1+json", &config),
        descriptors.join(" ,\n    ")
    );
    bundle.blobs.push(config);
    bundle.root = (MANIFEST.to_owned(), manifest.into_bytes());
    Ok(bundle)
}

/// An index of images for these platforms.
pub fn index(images: &[(&str, Bundle)]) -> Bundle {
    let mut bundle = Bundle::default();
    let mut entries = Vec::new();
    for (architecture, image) in images {
        bundle.blobs.extend(image.blobs.iter().cloned());
        bundle.blobs.push(image.root.1.clone());
        let mut entry = descriptor(&image.root.0, &image.root.1);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entries.push(entry.to_string());
    }
    let text = format!(
        "{{ \"schemaVersion\":2, \"mediaType\" : \"{INDEX}\",\n\"manifests\":[{}] }}",
        entries.join(",\n")
    );
    bundle.root = (INDEX.to_owned(), text.into_bytes());
    bundle
}

impl Bundle {
    /// The digest of the root.
    pub fn digest(&self) -> String {
        digest(&self.root.1)
    }

    /// Writes an OCI layout in which the root is called `name`.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_layout(&self, dir: &Path, name: &str) -> Result<(), Error> {
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| Error::io(&blobs, e))?;
        let put = |path: &Path, bytes: &[u8]| {
            let mut file = fs::File::create(path).map_err(|e| Error::io(path, e))?;
            file.write_all(bytes).map_err(|e| Error::io(path, e))
        };
        for blob in self.blobs.iter().chain([&self.root.1]) {
            put(&blobs.join(sha256_hex(blob)), blob)?;
        }
        let mut entry = descriptor(&self.root.0, &self.root.1);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        put(
            &dir.join("index.json"),
            json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().as_bytes(),
        )?;
        put(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

/// Two layers: files that need no program to be looked at, links, an odd name, and a whiteout of one of them.
pub fn layers() -> Vec<Vec<u8>> {
    let one = TarBuilder::new()
        .dir("etc")
        .file("etc/removed", "gone\n")
        .file("etc/kept", crate::image::text(1, 70_000))
        .symlink("etc/link", "kept")
        .hardlink("etc/hard", "etc/kept")
        .file(format!("etc/{}", "long".repeat(40)), "x")
        .finish();
    let two = TarBuilder::new().file("etc/.wh.removed", "").file("version", "7\n").finish();
    vec![one, two]
}

/// As [`layers`], with a third one that has busybox as `/bin/sh` and `/bin/cat`: it can be run.
///
/// # Errors
/// busybox is missing.
pub fn runnable_layers() -> Result<Vec<Vec<u8>>, Error> {
    let path = crate::oracle::tool("busybox")?;
    let busybox = fs::read(&path).map_err(|e| Error::io(&path, e))?;
    let mut all = layers();
    let program = TarBuilder::new()
        .dir("bin")
        .file_mode("bin/busybox", 0o755, busybox)
        .symlink("bin/sh", "busybox")
        .symlink("bin/cat", "busybox")
        .dir("proc")
        .dir("sys")
        .dir("dev")
        .dir("tmp")
        .finish();
    all.push(program);
    Ok(all)
}
