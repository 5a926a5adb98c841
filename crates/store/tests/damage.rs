//! Damaged bytes: told exactly, and never given out as good ones without somebody noticing.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_store::layer_file::{LayerFile, Limits};
use coracle_store::{Damage, Error, FsckOptions, Part, Store, WriterOptions};
use coracle_testkit::image::Rng;

use crate::shop::{Image, image_of, layer, store, try_put};

fn fsck(store: &Store, deep: bool, remove: bool) -> coracle_store::FsckReport {
    let mut options = FsckOptions::new(NonZeroUsize::new(2).unwrap());
    (options.deep, options.remove_damaged) = (deep, remove);
    store.fsck(&options, &Quiet).unwrap()
}

fn only(mut damages: Vec<Damage>) -> Damage {
    assert_eq!(damages.len(), 1, "{damages:?}");
    damages.remove(0)
}

fn object(store: &Store, content: &Digest) -> PathBuf {
    let hex = content.hex();
    store.path().join("objects").join(&hex[..2]).join(&hex[2..])
}

fn filled() -> (tempfile::TempDir, Store, Image) {
    let (dir, store) = store();
    let image = image_of(vec![layer(1, 1), layer(2, 1)]);
    image.put(&store, "quay.io/a:t");
    (dir, store, image)
}

#[test]
fn a_damaged_object_is_named_with_all_that_needs_it_and_heals() {
    let (_dir, store, image) = filled();
    let layer = store.layer(&Digest::of(&image.layers[0])).unwrap().unwrap();
    let file = layer.find(b"d/2").unwrap();
    let digest = file.object.unwrap();
    let path = object(&store, &digest);
    let good = std::fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[100] ^= 4;
    let damages = [(Some(flipped), false), (Some(good[1..].to_vec()), false), (None, true)];
    for (bytes, missing) in damages {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let damage = only(fsck(&store, false, false).damages);
        assert_eq!((&damage.part, damage.missing), (&Part::Object(digest), missing));
        assert_eq!(damage.places, [(layer.diff_id(), b"d/2".to_vec())]);
        assert_eq!(damage.images, [Digest::of(&image.manifest())]);
        assert_eq!(damage.refs, ["quay.io/a:t"]);
        let mut out = Vec::new();
        let fresh = store.layer(&layer.diff_id()).unwrap().unwrap();
        let read = fresh.reader().read_to_end(&mut out);
        assert!(read.is_err() || Digest::of(&out) != layer.diff_id());
        assert!(!fsck(&store, true, false).damages.is_empty());
        // Removed, the layer counts as missing, and is made again.
        let removed = fsck(&store, false, true).removed;
        assert!(removed.contains(&Part::Layer(layer.diff_id())), "{removed:?}");
        assert!(!store.has_layer(&layer.diff_id()));
        let lease = store.lease().unwrap();
        try_put(&lease, &image.layers[0], &[], WriterOptions::default()).unwrap();
        assert_eq!(fsck(&store, true, false).damages, []);
    }
    // Without removing: whoever distrusts the store replaces what is there.
    std::fs::write(&path, vec![0; good.len()]).unwrap();
    let lease = store.lease().unwrap();
    let distrust = WriterOptions { distrust: true, ..Default::default() };
    try_put(&lease, &image.layers[0], &[], distrust).unwrap();
    assert_eq!(fsck(&store, true, false).damages, []);
}

#[test]
fn damaged_documents_and_names_are_named() {
    let (_dir, store, image) = filled();
    let digest = Digest::of(&image.config());
    let path = store.path().join("documents").join(digest.hex());
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[1..]).unwrap();
    assert!(matches!(store.document(&digest), Err(Error::Damaged { .. })));
    let damage = only(fsck(&store, false, false).damages);
    assert_eq!((damage.part, damage.refs.len()), (Part::Document(digest), 1));
    std::fs::remove_file(&path).unwrap();
    assert!(only(fsck(&store, false, false).damages).missing);
    std::fs::write(&path, good).unwrap();
    let file = store.path().join("refs/quay.io/a/:t");
    let text = std::fs::read_to_string(&file).unwrap();
    for bad in [text.replace("a:t", "a:u"), text.replace("\"tracked\"", "\"x\""), "[]".into()] {
        std::fs::write(&file, bad).unwrap();
        assert_eq!(only(fsck(&store, false, false).damages).part, Part::Ref(file.clone()));
        assert!(matches!(store.refs(), Err(Error::Ref { .. })));
    }
}

/// Every byte of a layer file changed in turn: an error or the right bytes, never a panic; fsck always says so.
#[test]
fn every_byte_of_a_layer_file() {
    let (_dir, store) = store();
    let mut tar = coracle_testkit::tar_builder::TarBuilder::new();
    for number in 0..20 {
        tar.file(format!("small{number}"), coracle_testkit::image::text(number, 300));
        tar.file(format!("large{number}"), coracle_testkit::image::binary(number, 5000));
    }
    let tar = tar.finish();
    let digest = Digest::of(&tar);
    try_put(&store.lease().unwrap(), &tar, &[], WriterOptions::default()).unwrap();
    let path = store.path().join("layers").join(digest.hex());
    let good = std::fs::read(&path).unwrap();
    let mut random = Rng::new(5);
    let mut told = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << random.below(8);
        std::fs::write(&path, &bad).unwrap();
        let file = LayerFile::open(bad, &Limits::default());
        let whole = file.map(|file| file.check());
        assert!(!matches!(whole, Ok(Ok(_))), "byte {at}: fsck would not notice");
        let Ok(layer) = store.layer(&digest) else {
            told += 1;
            continue;
        };
        let mut out = Vec::new();
        match layer.unwrap().reader().read_to_end(&mut out) {
            Ok(_) => assert!(out == tar, "byte {at}: other bytes and no error"),
            Err(error) => {
                told += 1;
                let inner = error.get_ref().unwrap().downcast_ref::<Error>();
                assert!(matches!(inner, Some(Error::Layer { .. })), "{error:?}");
            }
        }
    }
    assert!(told > good.len() * 9 / 10, "{told} of {}", good.len());
    for len in 0..good.len() {
        let cut = LayerFile::open(good[..len].to_vec(), &Limits::default());
        assert!(cut.is_err(), "cut to {len}");
    }
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert_eq!(only(fsck(&store, false, false).damages).part, Part::Layer(digest));
    fsck(&store, false, true);
    assert!(!store.has_layer(&digest));
}

#[test]
fn limits_are_kept() {
    let (_dir, store) = store();
    let tar = layer(1, 1);
    try_put(&store.lease().unwrap(), &tar, &[], WriterOptions::default()).unwrap();
    let file = std::fs::read(store.path().join("layers").join(Digest::of(&tar).hex())).unwrap();
    for limits in [
        Limits { table_bytes: 100, ..Limits::default() },
        Limits { objects: 3, ..Limits::default() },
        Limits { files: 3, ..Limits::default() },
    ] {
        let error = LayerFile::open(file.clone(), &limits).unwrap_err();
        assert!(matches!(error, coracle_store::layer_file::Error::TooLarge { .. }), "{error}");
    }
}
