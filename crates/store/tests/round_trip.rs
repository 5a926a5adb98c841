//! What goes in comes out, bit for bit.

use std::io::{Read, Write};

use coracle_codec::ReadAt;
use coracle_codec::digest::{Digest, Hashing};
use coracle_store::{Layer, LayerInfo, LayerWriter, Options, Store, WriterOptions};
use coracle_testkit::golden::Golden;
use coracle_testkit::{image, pair};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_or_create(&dir.path().join("store"), Options::default()).unwrap();
    (dir, store)
}

fn put(store: &Store, tar: &[u8], hints: &[Layer], options: WriterOptions) -> LayerInfo {
    let lease = store.lease().unwrap();
    let mut out = Hashing::new(lease.layer_writer(hints, options).unwrap());
    for piece in tar.chunks(70_001) {
        out.write_all(piece).unwrap();
    }
    LayerWriter::publish(out, &Digest::of(tar)).unwrap()
}

fn with_limit(limit: u64) -> WriterOptions {
    WriterOptions { inline_limit: Some(limit), distrust: false }
}

/// Compares the layer with `tar`, in order and at some offsets.
fn check(store: &Store, tar: &[u8]) -> Layer {
    let layer = store.layer(&Digest::of(tar)).unwrap().unwrap();
    assert_eq!(layer.size(), tar.len() as u64);
    let mut back = Vec::new();
    layer.reader().read_to_end(&mut back).unwrap();
    assert!(back == tar, "in order");
    let mut random = image::Rng::new(tar.len() as u64);
    for _ in 0..40 {
        let from = random.below(tar.len() + 2);
        let len = random.below(100_000);
        let mut buf = vec![0; len];
        let n = layer.read_at(from as u64, &mut buf).unwrap();
        let want = &tar[from.min(tar.len())..(from + len).min(tar.len())];
        assert!(buf[..n] == *want, "{len} bytes at {from}");
    }
    for file in layer.files() {
        let content = &tar[file.offset as usize..(file.offset + file.size) as usize];
        if let Some(object) = file.object {
            assert_eq!(object, Digest::of(content));
        }
    }
    layer
}

#[test]
fn golden_archives_with_every_limit() {
    for limit in [0, 1, 511, 4096, 1 << 30] {
        let (_dir, store) = store();
        for case in Golden::built_in().tar().unwrap() {
            let tar = std::fs::read(case.dir.join("input.tar")).unwrap();
            put(&store, &tar, &[], with_limit(limit));
            check(&store, &tar);
        }
    }
}

#[test]
fn large_layers_and_their_successors() {
    let (_dir, store) = store();
    let pair = pair::pair(7, 24 << 20);
    let first = put(&store, &pair.old, &[], WriterOptions::default());
    assert!(first.written.objects > 3, "{first:?}");
    let old = check(&store, &pair.old);
    let second = put(&store, &pair.new, std::slice::from_ref(&old), WriterOptions::default());
    assert!(second.linked.objects > 0, "{second:?}");
    let by_hints = std::fs::read(store.path().join("layers").join(second.diff_id.hex())).unwrap();
    check(&store, &pair.new);
    // Without hints, and all anew: the same file.
    let options = WriterOptions { distrust: true, ..Default::default() };
    let third = put(&store, &pair.new, &[old], options);
    assert_eq!((third.linked.objects, third.existing.objects), (0, second.existing.objects));
    assert!(std::fs::read(store.path().join("layers").join(second.diff_id.hex())).unwrap() == by_hints);
    check(&store, &pair.new);
}
