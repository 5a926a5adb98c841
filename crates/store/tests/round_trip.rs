//! What goes in comes out, bit for bit.

use std::io::Read;

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_store::{Layer, LayerInfo, Store, WriterOptions};
use coracle_testkit::golden::{EXTERNAL, Golden};
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::{image, pair};
use proptest::prelude::*;

use crate::shop::{self, store};

fn put(store: &Store, tar: &[u8], hints: &[Layer], options: WriterOptions) -> LayerInfo {
    shop::try_put(&store.lease().unwrap(), tar, hints, options).unwrap()
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
    let mut sets = vec![Golden::built_in()];
    match Golden::external() {
        Some(more) => sets.push(more),
        None => println!("{EXTERNAL} is not set: no other archives"),
    }
    for limit in [0, 1, 511, 4096, 1 << 30] {
        let (_dir, store) = store();
        for case in sets.iter().flat_map(|set| set.tar().unwrap()) {
            let tar = case.tar().unwrap();
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
    let path = store.path().join("layers").join(second.diff_id.hex());
    let by_hints = std::fs::read(&path).unwrap();
    check(&store, &pair.new);
    // Without hints, and all anew: the same file.
    let options = WriterOptions { distrust: true, ..Default::default() };
    let third = put(&store, &pair.new, &[old], options);
    assert_eq!((third.linked.objects, third.existing), (0, second.existing));
    assert!(std::fs::read(&path).unwrap() == by_hints);
    check(&store, &pair.new);
}

/// A content that differs from the old one of its name only after a while: what was compared is not lost.
#[test]
fn hints_that_turn_out_wrong() {
    let (_dir, store) = store();
    let content = image::binary(3, 5 << 20);
    let tar = |content: &[u8]| TarBuilder::new().file("a", content).finish();
    put(&store, &tar(&content), &[], WriterOptions::default());
    let old = check(&store, &tar(&content));
    for at in [0, 1, (1 << 20) - 1, 1 << 20, 3 << 20, (5 << 20) - 1] {
        let mut other = content.clone();
        other[at] ^= 1;
        let info = put(&store, &tar(&other), std::slice::from_ref(&old), WriterOptions::default());
        assert_eq!((info.linked.objects, info.written.objects), (0, 1), "{at}");
        check(&store, &tar(&other));
        // The tar ends within the content.
        let cut = &tar(&content)[..512 + at];
        put(&store, cut, std::slice::from_ref(&old), WriterOptions::default());
        check(&store, cut);
    }
    let renamed = TarBuilder::new().file("b", &content).finish();
    let info = put(&store, &renamed, &[old], WriterOptions::default());
    assert_eq!((info.linked.objects, info.written.objects), (1, 0));
}

/// An old object that is gone, or damaged, by the time it is linked.
#[test]
fn hints_whose_objects_are_gone_or_damaged() {
    for damage in [true, false] {
        for len in [100_000, 3 << 20] {
            let (_dir, store) = store();
            let content = image::binary(4, len);
            let tar = TarBuilder::new().file("a", &content).finish();
            put(&store, &tar, &[], WriterOptions::default());
            let old = check(&store, &tar);
            let hex = Digest::of(&content).hex();
            let object = store.path().join("objects").join(&hex[..2]).join(&hex[2..]);
            if damage {
                let mut bytes = content.clone();
                bytes[len / 2] ^= 1;
                std::fs::write(&object, bytes).unwrap();
            } else {
                std::fs::remove_file(&object).unwrap();
            }
            let next = TarBuilder::new().dir("x").file("a", &content).finish();
            let options = WriterOptions { distrust: damage, inline_limit: None };
            let info = put(&store, &next, &[old], options);
            assert_eq!(info.written.objects, 1, "{info:?}");
            check(&store, &next);
        }
    }
}

#[test]
fn files_are_found_by_name() {
    let (_dir, store) = store();
    let (a, b) = (image::binary(1, 9000), image::binary(2, 9000));
    let tar = TarBuilder::new()
        .file("./d//a", &a)
        .file("small", "x")
        .file("empty", "")
        .sparse_gnu("sparse", 100_000, &[(512, &a)])
        .file("d/a", &b)
        .finish();
    put(&store, &tar, &[], WriterOptions::default());
    let layer = check(&store, &tar);
    let names: Vec<_> = layer.files().map(|file| file.path.to_vec()).collect();
    assert_eq!(names, [&b"./d//a"[..], b"small", b"empty", b"d/a"]);
    let mut content = Vec::new();
    layer.open_file(b"/d/a").unwrap().unwrap().read_to_end(&mut content).unwrap();
    assert!(content == b);
    assert!(layer.open_file(b"small").unwrap().is_none());
    assert!(layer.find(b"small").unwrap().object.is_none() && layer.find(b"sparse").is_none());
    // What is stored of the sparse file is an object, too: the same as that of the first one.
    assert_eq!(
        layer.objects().map(|(digest, _)| digest).filter(|digest| *digest == Digest::of(&a)).count(),
        2
    );
}

#[derive(Debug, Clone)]
enum Member {
    File(u8, Vec<u8>),
    Link(u8),
    Pax(String),
    Junk(Vec<u8>),
}

fn member() -> impl Strategy<Value = Member> {
    let content = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        (any::<u64>(), 0..9000usize).prop_map(|(seed, len)| image::binary(seed, len)),
        (any::<u64>(), (1usize << 20) - 3..(1 << 20) + 3).prop_map(|(seed, len)| image::text(seed, len)),
    ];
    prop_oneof![
        6 => (any::<u8>(), content).prop_map(|(name, content)| Member::File(name, content)),
        1 => any::<u8>().prop_map(Member::Link),
        1 => "[a-z]{1,300}".prop_map(Member::Pax),
        1 => proptest::collection::vec(any::<u8>(), 0..1500).prop_map(Member::Junk),
    ]
}

fn build(members: &[Member]) -> Vec<u8> {
    let mut tar = TarBuilder::new();
    for member in members {
        match member {
            Member::File(name, content) => tar.file(format!("f{name}"), content),
            Member::Link(name) => tar.hardlink("link", format!("f{name}")),
            Member::Pax(name) => tar.file(name, "pax"),
            Member::Junk(bytes) => tar.raw(bytes),
        };
    }
    tar.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_tar_comes_back(
        members in proptest::collection::vec(member(), 0..12),
        limit in prop_oneof![Just(0), Just(512), Just(4096), Just(u64::MAX), 0..20_000u64],
        cut in any::<proptest::sample::Index>(),
    ) {
        let (_dir, store) = store();
        let tar = build(&members);
        for tar in [&tar[..], &tar[..cut.index(tar.len() + 1)]] {
            put(&store, tar, &[], with_limit(limit));
            let old = check(&store, tar);
            put(&store, &[tar, b"!"].concat(), &[old], with_limit(limit));
            check(&store, &[tar, b"!"].concat());
        }
    }

    #[test]
    fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let (_dir, store) = store();
        put(&store, &bytes, &[], with_limit(0));
        check(&store, &bytes);
    }
}
