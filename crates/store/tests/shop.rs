//! A store with things in it.

use std::io::Write;
use std::path::Path;

use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::{Descriptor, Document, Limits, Unverified};
use coracle_store::{Error, Layer, LayerInfo, LayerWriter, Lease, Options, Ref, Store, WriterOptions};
use coracle_testkit::oci::{self, Compression};
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::{image, oci::Bundle};

/// A new store in a folder that goes with it.
pub fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    (dir, store)
}

pub fn open(dir: &Path) -> Store {
    Store::open_or_create(&dir.join("store"), Options::default()).unwrap()
}

pub fn try_put(
    lease: &Lease,
    tar: &[u8],
    hints: &[Layer],
    options: WriterOptions,
) -> Result<LayerInfo, Error> {
    let mut out = Hashing::new(lease.layer_writer(hints, options)?);
    for piece in tar.chunks(70_001) {
        if let Err(error) = out.write_all(piece) {
            return Err(*error.into_inner().unwrap().downcast().unwrap());
        }
    }
    LayerWriter::publish(out, &Digest::of(tar))
}

pub fn put(lease: &Lease, tar: &[u8]) -> LayerInfo {
    try_put(lease, tar, &[], WriterOptions::default()).unwrap()
}

/// A layer of small and large files; of two versions most are the same.
pub fn layer(seed: u64, version: u64) -> Vec<u8> {
    let mut tar = TarBuilder::new();
    tar.dir("d");
    for number in 0..12u64 {
        let own = if number % 4 == 0 { version } else { 0 };
        let len = [100, 5_000, 70_000, 300_000][number as usize % 4] as usize;
        tar.file(format!("d/{number}"), image::binary(seed * 1000 + number * 10 + own, len));
    }
    tar.file("large", image::binary(seed * 7 + version % 2, 1_500_000));
    tar.finish()
}

/// An image of layers, and its name.
pub struct Image {
    pub bundle: Bundle,
    pub layers: Vec<Vec<u8>>,
}

pub fn image_of(layers: Vec<Vec<u8>>) -> Image {
    let bundle = oci::image("amd64", &layers, Compression::None).unwrap();
    Image { bundle, layers }
}

impl Image {
    pub fn config(&self) -> Vec<u8> {
        self.bundle.blobs.iter().find(|blob| blob.starts_with(b"{")).unwrap().clone()
    }

    pub fn manifest(&self) -> Vec<u8> {
        self.bundle.root.1.clone()
    }

    pub fn entry(&self, name: &str) -> Ref {
        let raw = Unverified::new(self.manifest()).identify();
        let document = Document::parse(raw.clone(), None, &Limits::default()).unwrap();
        let root = Descriptor::new(document.media_type(), raw.digest(), raw.size());
        Ref {
            name: name.parse().unwrap(),
            images: vec![root.clone()],
            root,
            source: "a test".into(),
            tracked: true,
            updated: 1_800_000_000,
        }
    }

    pub fn put(&self, store: &Store, name: &str) {
        let lease = store.lease().unwrap();
        for layer in &self.layers {
            if !lease.keep_layer(&Digest::of(layer)).unwrap() {
                put(&lease, layer);
            }
        }
        for document in [self.config(), self.manifest()] {
            lease.put_document(&Unverified::new(document).identify()).unwrap();
        }
        lease.set_ref(&self.entry(name)).unwrap();
    }
}
