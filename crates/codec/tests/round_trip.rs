//! Deltas of our writer, applied by our reader: always the same new tar, always the same delta.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use coracle_codec::ReadAt;
use coracle_codec::delta::Cost;
use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_codec::source::{EmptySource, Source, TarSource};
use coracle_codec::tardiff::{
    Limits, Method, Op, OpReader, Options, Report, StreamOptions, Version, apply, diff, explain,
};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::tar_builder::TarBuilder;
use proptest::prelude::*;

use crate::sources::Files;

/// Cheap compression: these tests are about operations.
fn options() -> Options {
    Options { stream: StreamOptions::level(1, 20), patch_level: 3, ..Options::default() }
}

fn make(old: &[&[u8]], new: &[u8], options: &Options) -> (Vec<u8>, Report) {
    let old: Vec<Vec<u8>> = old.iter().map(|o| o.to_vec()).collect();
    let layers: Vec<&dyn ReadAt> = old.iter().map(|o| o as &dyn ReadAt).collect();
    let mut delta = Vec::new();
    let report = diff(&layers, &new.to_vec(), &mut delta, options, &Quiet).unwrap();
    assert_eq!(report.digest, Digest::of(new));
    (delta, report)
}

fn rebuild(delta: &[u8], source: &dyn Source) -> Vec<u8> {
    let mut out = Vec::new();
    apply(delta, source, &mut out, &Limits::default(), &Quiet).unwrap();
    out
}

fn rebuild_from_tars(delta: &[u8], old: &[&[u8]]) -> Vec<u8> {
    let old: Vec<Vec<u8>> = old.iter().map(|o| o.to_vec()).collect();
    let layers = old.iter().map(|o| o as &dyn ReadAt).collect();
    rebuild(delta, &TarSource::new(layers, Default::default(), &Quiet).unwrap())
}

/// Paths that a delta opens.
fn opened(delta: &[u8]) -> Vec<String> {
    let mut ops = OpReader::new(delta, Limits::default()).unwrap();
    let mut out = Vec::new();
    while let Some(op) = ops.next_op().unwrap() {
        if let Op::Open(path) = op {
            out.push(String::from_utf8_lossy(&path).into_owned());
        }
    }
    out
}

/// A pair that takes every way: identical, moved, changed, split, renamed, new, tiny, hardlinked.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let program = binary(1, 300_000);
    let library = binary(2, 120_000);
    let mut old = TarBuilder::new();
    old.dir("usr")
        .file("usr/program", &program)
        .file("usr/lib/liba.so.1.2", &library)
        .file("usr/same", text(3, 9_000))
        .file("usr/moved", text(4, 20_000))
        .hardlink("usr/alias", "usr/moved")
        .file("usr/tiny", b"1")
        .file("usr/gone", text(5, 5_000));
    let mut new = TarBuilder::new();
    new.dir("usr")
        .mtime(1_700_000_001)
        .file("usr/program", mutate(&program, 6, 40))
        .file("usr/lib/liba.so.1.3", mutate(&library, 7, 10))
        .file("usr/same", text(3, 9_000))
        .file("usr/elsewhere/moved", text(4, 20_000))
        .file("usr/unrelated-name", mutate(&program, 8, 5))
        .file("usr/tiny", b"1")
        .file("usr/fresh", text(9, 4_000))
        .symlink("usr/link", "same")
        .file("usr/empty", b"");
    (old.finish(), new.finish_with(b"bytes behind the end"))
}

#[test]
fn every_method_rebuilds_the_tar() {
    let (old, new) = pair();
    for (version, method) in [
        (Version::V1, Method::Bsdiff),
        (Version::V2, Method::Bsdiff),
        (Version::V2, Method::Zstd),
        (Version::V2, Method::ZstdThenBsdiff),
        (Version::V2, Method::Smallest),
    ] {
        let (delta, report) = make(&[&old], &new, &Options { version, method, ..options() });
        assert!(rebuild_from_tars(&delta, &[&old]) == new, "{version:?} {method:?}");
        assert!(delta.len() < 40_000, "{version:?} {method:?}: {} bytes", delta.len());
        assert_eq!(report.files.identical, 2, "{method:?}: {:?}", report.files);
        assert_eq!(report.files.changed, 3, "{method:?}: {:?}", report.files);
        match method {
            Method::Bsdiff => assert_eq!(report.ops.zstd_dict.ops, 0),
            Method::Zstd | Method::ZstdThenBsdiff => assert_eq!(report.ops.zstd_dict.ops, 3),
            Method::Smallest => {}
        }
    }
}

/// The same words, three at a time in another order: too short for operations, but good as a dictionary.
fn reordered(text: &[u8]) -> Vec<u8> {
    let line = |line: &[u8]| {
        let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let mut threes: Vec<Vec<u8>> = words.chunks(3).map(|three| three.join(&b' ')).collect();
        threes.reverse();
        threes.join(&b' ')
    };
    text.split(|&b| b == b'\n').map(line).collect::<Vec<_>>().join(&b'\n')
}

#[test]
fn a_patch_is_taken_where_it_is_clearly_smaller_and_says_what_no_other_file_says() {
    let words = text(31, 30_000);
    let one = |new: &[u8]| {
        let mut old_tar = TarBuilder::new();
        old_tar.file("usr/words", &words).file("usr/more", text(32, 30_000));
        let mut new_tar = TarBuilder::new();
        new_tar.file("usr/words", new).file("usr/more", text(32, 30_000));
        (old_tar.finish(), new_tar.finish())
    };
    let with = |method, old: &Vec<u8>, new: &[u8]| {
        let (delta, report) =
            make(&[old], new, &Options { version: Version::V2, method, patch_level: 19, ..options() });
        assert!(rebuild_from_tars(&delta, &[old]) == new, "{method:?}");
        (delta.len(), report.ops.zstd_dict.ops)
    };
    let (old, new) = one(&reordered(&words));
    let (without, _) = with(Method::Bsdiff, &old, &new);
    let (smallest, patches) = with(Method::Smallest, &old, &new);
    assert!(patches == 1 && smallest * 8 < without * 7, "{patches} patches, {smallest} of {without}");

    // Edited in few places: matches do well.
    let (old, new) = one(&mutate(&words, 33, 6));
    assert_eq!(with(Method::Smallest, &old, &new), with(Method::Bsdiff, &old, &new));

    // Two files with the same new content: the stream says it once.
    let mut old = TarBuilder::new();
    old.file("usr/words", &words).file("usr/more", text(32, 30_000));
    let mut new = TarBuilder::new();
    new.file("usr/words", reordered(&words)).file("usr/more", [&reordered(&words)[..], b"end"].concat());
    let (old, new) = (old.finish(), new.finish());
    assert_eq!(with(Method::Smallest, &old, &new), with(Method::Bsdiff, &old, &new));
}

#[test]
fn renamed_content_is_found_by_likeness() {
    let (old, new) = pair();
    let (delta, _) = make(&[&old], &new, &options());
    let opened = opened(&delta);
    assert_eq!(opened.iter().filter(|p| *p == "usr/program").count(), 2, "{opened:?}");
    assert!(opened.contains(&"usr/moved".to_owned()), "{opened:?}");
    assert!(!opened.iter().any(|p| p == "usr/tiny" || p == "usr/gone"), "{opened:?}");
}

#[test]
fn the_delta_does_not_depend_on_threads() {
    let (old, new) = pair();
    let with = |threads, memory| {
        let threads = NonZeroUsize::new(threads).unwrap();
        make(&[&old], &new, &Options { threads, memory, ..options() }).0
    };
    let one = with(1, 1 << 30);
    for threads in [2, 3, 8] {
        assert!(with(threads, 1 << 30) == one, "{threads} threads");
    }
    assert!(with(1, 4 << 20) == with(4, 4 << 20), "small memory");
}

#[test]
fn small_memory_and_the_rolling_hash_still_work() {
    let base = binary(11, 6 << 20);
    let old = TarBuilder::new().file("big", &base).finish();
    let new = TarBuilder::new().file("big", mutate(&base, 12, 200)).finish();
    for (name, options) in [
        ("pieces", Options { memory: 8 << 20, ..options() }),
        ("rolling hash", Options { max_suffix_size: 1 << 20, ..options() }),
        ("both", Options { max_suffix_size: 1 << 20, memory: 8 << 20, ..options() }),
    ] {
        let (delta, _) = make(&[&old], &new, &options);
        assert!(rebuild_from_tars(&delta, &[&old]) == new, "{name}");
        assert!(delta.len() < 400_000, "{name}: {} bytes", delta.len());
    }
}

#[test]
fn edge_archives() {
    let some = TarBuilder::new().file("a", text(1, 3000)).finish();
    let none = TarBuilder::new().finish();
    for (what, old, new) in [
        ("empty files", &[][..], &[][..]),
        ("from nothing", &[], &some),
        ("to nothing", &some, &[]),
        ("no members", &none, &none),
        ("same", &some, &some),
        ("no trailer", &some, &some[..some.len() - 1024]),
    ] {
        let (delta, _) = make(&[old], new, &options());
        assert!(rebuild_from_tars(&delta, &[old]) == new, "{what}");
    }
    let (delta, _) = make(&[], &some, &options());
    assert!(rebuild(&delta, &EmptySource) == some, "no old archive at all");
}

#[test]
fn only_world_readable_files_are_sources_unless_asked() {
    let content = text(1, 5_000);
    let old = TarBuilder::new().file_mode("secret", 0o600, &content).file("open", text(2, 5_000)).finish();
    let new = TarBuilder::new().file("secret", &content).file("open", text(2, 5_000)).finish();
    assert_eq!(opened(&make(&[&old], &new, &options()).0), ["open"]);
    let any = Options { any_mode: true, ..options() };
    assert_eq!(opened(&make(&[&old], &new, &any).0), ["secret", "open"]);
}

#[test]
fn prefixes_choose_sources_by_whole_components() {
    let content = text(1, 5_000);
    let old = TarBuilder::new()
        .file("blobs/a", &content)
        .file("blobs2/b", text(2, 5_000))
        .file("c", text(3, 5_000))
        .finish();
    let new =
        TarBuilder::new().file("x", &content).file("y", text(2, 5_000)).file("z", text(3, 5_000)).finish();
    let with = |source: &[&str], ignore: &[&str]| {
        let bytes = |l: &[&str]| l.iter().map(|p| p.as_bytes().to_vec()).collect();
        let options = Options { source_prefixes: bytes(source), ignore_prefixes: bytes(ignore), ..options() };
        opened(&make(&[&old], &new, &options).0)
    };
    assert_eq!(with(&["blobs"], &[]), ["blobs/a"]);
    assert_eq!(with(&["blobs", "c"], &[]), ["blobs/a", "c"]);
    assert_eq!(with(&["blobs/"], &[]), ["blobs/a"]);
    assert_eq!(with(&[""], &["blobs"]), ["blobs2/b", "c"]);
    assert_eq!(with(&["./blobs/"], &[]), [""; 0]);
}

#[test]
#[ignore = "long: sorts the suffixes of 101 MiB"]
fn large_additions_are_split() {
    // Every 100th byte differs: one stretch of 101 MiB that needs corrections all along.
    let base = binary(21, 101 << 20);
    let mut changed = base.clone();
    changed.iter_mut().step_by(100).for_each(|b| *b = b.wrapping_add(1));
    let old = TarBuilder::new().file("f", &base).finish();
    let new = TarBuilder::new().file("f", &changed).finish();
    let (delta, report) = make(&[&old], &new, &options());
    assert!(report.ops.add.bytes > 100 << 20, "{:?}", report.ops);
    assert!(rebuild_from_tars(&delta, &[&old]) == new);
}

#[test]
fn explanations_account_for_every_byte() {
    let (old, new) = pair();
    for (version, method) in [(Version::V1, Method::Bsdiff), (Version::V2, Method::Zstd)] {
        let (delta, report) = make(&[&old], &new, &Options { version, method, ..options() });
        let counted = {
            let mut ops = OpReader::new(delta.as_slice(), Limits::default()).unwrap();
            while ops.next_op().unwrap().is_some() {}
            ops.position()
        };
        assert_eq!(report.stream_bytes, counted);
        let layers = vec![&old as &dyn ReadAt];
        let source = TarSource::new(layers, Default::default(), &Quiet).unwrap();
        let x = explain(delta.as_slice(), &new, &source, &Limits::default(), &Quiet).unwrap();
        assert_eq!(x.delta_bytes, delta.len() as u64);
        assert_eq!(x.members.iter().map(|m| m.delta_bytes).sum::<u64>(), x.delta_bytes);
        assert_eq!(x.members.iter().map(|m| m.stream_bytes).sum::<u64>(), x.stream_bytes);
        let made: u64 = x.members.iter().map(|m| m.literal + m.copied + m.added + m.patched).sum();
        assert_eq!(made, new.len() as u64);
        assert_eq!(x.ops, report.ops);
        let cost = |path: &str| {
            let m = x.members.iter().find(|m| m.path == path.as_bytes()).unwrap();
            (m.cost, m.delta_bytes)
        };
        assert_eq!(cost("usr/same").0, Cost::Copied);
        assert_eq!(cost("usr/program").0, Cost::Changed);
        assert_eq!(cost("usr/fresh").0, Cost::Literal);
        assert_eq!(cost("usr/link").0, Cost::Metadata);
        assert!(cost("usr/fresh").1 > cost("usr/same").1);
    }
    let other = TarBuilder::new().file("x", b"y").finish();
    let (delta, _) = make(&[&old], &new, &options());
    assert!(explain(delta.as_slice(), &other, &EmptySource, &Limits::default(), &Quiet).is_err());
    let mut same_size = new.clone();
    same_size[0] ^= 1;
    assert!(explain(delta.as_slice(), &same_size, &EmptySource, &Limits::default(), &Quiet).is_err());
}

/// One random member of an old layer.
#[derive(Debug, Clone)]
enum Member {
    File { path: usize, mode: u64, seed: u64 },
    Empty(usize),
    Dir(usize),
    Symlink(usize, usize),
    Hardlink(usize, usize),
    Whiteout(usize),
    Opaque(usize),
}

const PATHS: [&str; 9] = ["a", "b", "d/a", "d/b", "d", "d/e/a", "d/e", "./a", "x//b"];

fn member() -> impl Strategy<Value = Member> {
    let path = 0..PATHS.len();
    prop_oneof![
        6 => (path.clone(), prop_oneof![4 => Just(0o644u64), 1 => Just(0o600)], 0u64..4)
            .prop_map(|(path, mode, seed)| Member::File { path, mode, seed }),
        1 => path.clone().prop_map(Member::Empty),
        1 => path.clone().prop_map(Member::Dir),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Member::Symlink(a, b)),
        2 => (path.clone(), path.clone()).prop_map(|(a, b)| Member::Hardlink(a, b)),
        1 => path.clone().prop_map(Member::Whiteout),
        1 => path.prop_map(Member::Opaque),
    ]
}

fn layer(members: &[Member]) -> Vec<u8> {
    let mut b = TarBuilder::new();
    for m in members {
        match m {
            Member::File { path, mode, seed } => b.file_mode(PATHS[*path], *mode, text(*seed, 3_000)),
            Member::Empty(path) => b.file(PATHS[*path], b""),
            Member::Dir(path) => b.dir(PATHS[*path]),
            Member::Symlink(path, to) => b.symlink(PATHS[*path], PATHS[*to]),
            Member::Hardlink(path, to) => b.hardlink(PATHS[*path], PATHS[*to]),
            Member::Whiteout(path) => {
                let (dir, base) = PATHS[*path].rsplit_once('/').unwrap_or((".", PATHS[*path]));
                b.file(format!("{dir}/.wh.{base}"), b"")
            }
            Member::Opaque(path) => {
                let (dir, _) = PATHS[*path].rsplit_once('/').unwrap_or((".", ""));
                b.file(format!("{dir}/.wh..wh..opq"), b"")
            }
        };
    }
    b.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever happens to paths in the old layers: a delta applies to what GNU tar makes of them.
    #[test]
    fn no_stale_source_is_ever_used(
        layers in proptest::collection::vec(proptest::collection::vec(member(), 1..8), 1..4),
        whiteouts in any::<bool>(),
    ) {
        let olds: Vec<Vec<u8>> = layers.iter().map(|l| layer(l)).collect();
        let refs: Vec<&[u8]> = olds.iter().map(Vec::as_slice).collect();
        let mut new = TarBuilder::new();
        for seed in 0..4 {
            new.file(format!("new/{seed}"), text(seed, 3_000)).file(PATHS[seed as usize], mutate(&text(seed, 3_000), 1, 2));
        }
        let new = new.finish();
        let options = Options { apply_whiteouts: whiteouts, ..options() };
        let (delta, _) = make(&refs, &new, &options);
        prop_assert!(rebuild_from_tars(&delta, &refs) == new);
        // GNU tar refuses some sequences, such as a file over a filled directory.
        if let Ok(tree) = coracle_testkit::tree::extract_layers(&olds, whiteouts) {
            let files: BTreeMap<_, _> = coracle_testkit::tree::files(tree.path()).unwrap();
            prop_assert!(rebuild(&delta, &Files(files)) == new);
        }
    }

    /// Any two archives, any damage in the middle: the reader says so or gives the same tar.
    #[test]
    fn damaged_deltas_never_panic(at in 8usize..2000, bit in 0u8..8) {
        let old = TarBuilder::new().file("a", binary(1, 8_000)).finish();
        let new = TarBuilder::new().file("a", mutate(&binary(1, 8_000), 2, 9)).finish();
        let (mut delta, _) = make(&[&old], &new, &options());
        let at = at % delta.len();
        delta[at] ^= 1 << bit;
        let layers = vec![&old as &dyn ReadAt];
        let source = TarSource::new(layers, Default::default(), &Quiet).unwrap();
        let mut out = Vec::new();
        if apply(delta.as_slice(), &source, &mut out, &Limits::default(), &Quiet).is_ok() {
            // The stream's checksum covers all but reserved header bits.
            prop_assert!(out == new);
        }
    }
}
