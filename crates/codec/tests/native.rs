//! Native deltas: writer and reader against each other, against the second decoder, and against stored vectors.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use coracle_codec::ReadAt;
use coracle_codec::delta::{Cost, DiffError, Effort};
use coracle_codec::digest::Digest;
use coracle_codec::native::{
    Base, Error, Limits, Options, Origin, Parts, Report, Sources, apply, diff, explain, inspect,
};
use coracle_codec::observe::{Observer, Quiet};
use coracle_codec::source::EmptySource;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::native::{Sources as Second, apply as second};
use coracle_testkit::tar_builder::TarBuilder;
use flate2::Compression;
use proptest::prelude::*;

use crate::sources::Files;

const TREE: Base = Base::Tree { apply_whiteouts: false, any_mode: true };

fn make(old: &[Vec<u8>], new: &[u8], options: &Options) -> (Vec<u8>, Report) {
    let archives: Vec<&dyn ReadAt> = old.iter().map(|o| o as &dyn ReadAt).collect();
    let mut delta = Vec::new();
    let report = diff(&archives, &new.to_vec(), &mut delta, options, &Quiet).unwrap();
    assert_eq!(report.digest(), Digest::of(new));
    (delta, report)
}

fn rebuild(delta: &[u8], old: &[Vec<u8>], limits: &Limits, threads: usize) -> Result<Vec<u8>, Error> {
    let archives: Vec<&dyn ReadAt> = old.iter().map(|o| o as &dyn ReadAt).collect();
    let mut out = Vec::new();
    let threads = NonZeroUsize::new(threads).unwrap();
    apply(delta, Sources::Archives(&archives), &mut out, limits, threads, &Quiet)?;
    Ok(out)
}

/// Makes a delta and has both decoders apply it.
fn round_trip(old: &[Vec<u8>], new: &[u8], options: &Options) -> Vec<u8> {
    let (delta, report) = make(old, new, options);
    let limits = Limits { max_memory: report.head.memory, max_output: new.len() as u64, ..Limits::default() };
    assert!(rebuild(&delta, old, &limits, 1).unwrap() == new, "ours differs");
    if options.base == Base::Archives {
        assert!(second(&delta, Second::Archives(old)).unwrap() == new, "the second decoder's differs");
    }
    delta
}

fn gzip(content: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = flate2::bufread::GzEncoder::new(content, Compression::new(level));
    std::io::Read::read_to_end(&mut reader, &mut out).unwrap();
    out
}

/// A `.gz` as GNU gzip -9 writes it: by the model of the second decoder, so that no encoder of ours is needed.
fn gzip_9(content: &[u8]) -> Vec<u8> {
    let stream = coracle_testkit::native::deflate_stream(content, 0x199).unwrap();
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3][..], &stream, &[1, 2, 3, 4], &(content.len() as u32).to_le_bytes()]
        .concat()
}

/// A zip with deflated entries, as zlib at level 6 makes them.
fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (i, (name, content)) in entries.iter().enumerate() {
        let stream = coracle_testkit::native::deflate_stream(content, 0x068).unwrap();
        let sizes = [(stream.len() as u32).to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
        // Not the CRC-32, but as telling here.
        let digest = Digest::of(content);
        let crc = &digest.as_bytes()[..4];
        let lens = [name.len() as u8, 0, 0, 0];
        let at = (out.len() as u32).to_le_bytes();
        out.extend(
            [b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0", crc, &sizes, &lens, name.as_bytes(), &stream].concat(),
        );
        directory.extend(
            [b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0", crc, &sizes, &lens, &[0; 10], &at, name.as_bytes()]
                .concat(),
        );
        assert!(i < 1000);
    }
    let (count, len, at) = (entries.len() as u16, directory.len() as u32, out.len() as u32);
    let end = [count.to_le_bytes(), count.to_le_bytes()].concat();
    let tail = [b"PK\x05\x06\0\0\0\0", &end[..], &len.to_le_bytes(), &at.to_le_bytes(), &[0, 0]].concat();
    [out, directory, tail].concat()
}

/// A pair that takes every way: identical, moved, changed, new, empty, linked, compressed in several ways.
fn pair() -> (Vec<u8>, Vec<u8>) {
    let (program, library) = (binary(1, 120_000), binary(2, 60_000));
    let changelog = text(3, 40_000);
    let news = [&text(9, 700)[..], &changelog].concat();
    let entries = |seed| -> Vec<(&str, Vec<u8>)> {
        vec![
            ("a.class", binary(20, 9000)),
            ("b.class", mutate(&binary(21, 9000), seed, 9)),
            ("c.txt", text(22, 5000)),
        ]
    };
    let old = TarBuilder::new()
        .dir("usr")
        .file("usr/same", &program)
        .file("usr/lib.so", &library)
        .file("usr/moved", text(5, 30_000))
        .file("usr/changelog.gz", gzip_9(&changelog))
        .file("usr/zlib.gz", gzip(&changelog, 6))
        .file("usr/app.jar", zip(&entries(1)))
        .file("usr/gone", b"gone")
        .symlink("usr/link", "same")
        .finish();
    let new = TarBuilder::new()
        .dir("usr")
        .file("usr/same", &program)
        .file("usr/lib.so", mutate(&library, 7, 60))
        .file("usr/new/moved", text(5, 30_000))
        .file("usr/changelog.gz", gzip_9(&news))
        .file("usr/zlib.gz", gzip(&news, 6))
        .file("usr/app.jar", zip(&entries(2)))
        .file("usr/fresh", text(77, 9000))
        .file("usr/empty", b"")
        .symlink("usr/link", "lib.so")
        .hardlink("usr/hard", "usr/same")
        .finish();
    (old, new)
}

#[test]
fn every_way_comes_back_and_none_is_large() {
    let (old, new) = pair();
    let old = [old];
    let (delta, report) = make(&old, &new, &Options::default());
    round_trip(&old, &new, &Options::default());
    assert_eq!(
        (report.files.identical, report.rebuilt_streams),
        (2, 3),
        "gzip, the changed entry of the zip, and zlib-rs, which is no zlib"
    );
    assert_eq!(report.other_streams, 0);
    assert_eq!(report.head.encoders, ["deflate-tokens-1"]);
    // Most of it is the file that has no old one.
    assert!(delta.len() < 6000, "{} bytes", delta.len());
    let known = Options { parts: Parts { tokens: false, ..Parts::default() }, ..Options::default() };
    let (without, report) = make(&old, &new, &known);
    assert_eq!((report.rebuilt_streams, report.other_streams), (2, 1));
    assert!(without.len() > 2 * delta.len(), "{} bytes without", without.len());
}

#[test]
fn xz_and_zst_members_are_expanded_from_effort_3_on() {
    let packed =
        |content: &[u8], encoder: &[u8]| coracle_testkit::native::packed_stream(content, encoder).unwrap();
    // Preset 6 with 1 MiB, CRC32, sizes in headers; level 3 with checksum and size.
    let (xz, zstd) = (&[0x86, 4, 20, 93, 0, 16, 1, 0, 5][..], &[0x83, 6, 3, 0][..]);
    let (a, b) = (binary(1, 90_000), binary(2, 90_000));
    let tar = |a: &[u8], b: &[u8]| {
        let mut tar = TarBuilder::new();
        tar.file("m/a.ko.xz", packed(a, xz)).file("m/b.ko.zst", packed(b, zstd)).finish()
    };
    let (old, new) = ([tar(&a, &b)], tar(&mutate(&a, 3, 50), &mutate(&b, 4, 50)));
    for (effort, rebuilt) in [(2, 0), (3, 2), (5, 2)] {
        let options = Options { effort: Effort::new(effort).unwrap(), ..Options::default() };
        let (_, report) = make(&old, &new, &options);
        assert_eq!(report.rebuilt_streams, rebuilt, "effort {effort}");
        assert_eq!(report.head.encoders.len() as u64, rebuilt);
        let delta = round_trip(&old, &new, &options);
        assert_eq!(delta.len() < 2000, rebuilt > 0, "effort {effort}: {} bytes", delta.len());
    }
}

#[test]
fn an_unchanged_image_costs_next_to_nothing() {
    let mut builder = TarBuilder::new();
    for i in 0..3000 {
        builder.file(format!("usr/share/{}/{i}", i / 50), binary(i, 40));
    }
    let image = builder.finish();
    let delta = round_trip(std::slice::from_ref(&image), &image, &Options::default());
    assert!(delta.len() < 300, "{} bytes for nothing", delta.len());
}

#[test]
fn all_efforts_and_parts_give_the_target() {
    let (old, new) = pair();
    let old = [old];
    let full = make(&old, &new, &Options::default()).0.len();
    for effort in 1..=9 {
        let effort = Effort::new(effort).unwrap();
        round_trip(&old, &new, &Options { effort, ..Options::default() });
    }
    let all = Parts::default();
    for parts in [
        Parts { old_headers: false, ..all },
        Parts { deflate: false, ..all },
        Parts { likeness: false, ..all },
        Parts { mixing: false, ..all },
        Parts { classes: false, ..all },
    ] {
        let len = round_trip(&old, &new, &Options { parts, ..Options::default() }).len();
        assert!(len + 100 > full, "{parts:?}: {len} bytes, {full} with all parts");
    }
    assert!((Effort::new(0), Effort::new(10)) == (None, None));
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let (old, new) = pair();
    let one = make(std::slice::from_ref(&old), &new, &Options::default()).0;
    for n in [2, 3, 8] {
        let threads = NonZeroUsize::new(n).unwrap();
        assert!(
            make(std::slice::from_ref(&old), &new, &Options { threads, ..Options::default() }).0 == one,
            "{n} threads"
        );
    }
}

#[test]
fn a_delta_for_a_tree_needs_no_headers() {
    let (old, new) = pair();
    let (delta, report) =
        make(std::slice::from_ref(&old), &new, &Options { base: TREE, ..Options::default() });
    let Origin::Tree(tree) = &report.head.origin else { panic!("{:?}", report.head.origin) };
    let archives: Vec<&dyn ReadAt> = vec![&old];
    let source = coracle_codec::source::TarSource::new(archives, Default::default(), &Quiet).unwrap();
    let mut files = BTreeMap::new();
    for file in &tree.files {
        let mut content = Vec::new();
        let mut opened = coracle_codec::source::Source::open_path(&source, &file.path).unwrap();
        std::io::Read::read_to_end(&mut opened, &mut content).unwrap();
        files.insert(file.path.clone(), content);
    }
    assert!(second(&delta, Second::Tree(&files)).unwrap() == new);
    let from = |files: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let source = Files(files.clone());
        let mut out = Vec::new();
        let threads = NonZeroUsize::MIN;
        apply(&delta[..], Sources::Tree(&source), &mut out, &Limits::default(), threads, &Quiet).map(|_| out)
    };
    assert!(from(&files).unwrap() == new);
    // Any change of the source shows before output.
    let path = b"usr/lib.so".to_vec();
    for change in [
        |c: &mut Vec<u8>| c[5] ^= 1,
        |c: &mut Vec<u8>| {
            c.pop();
        },
    ] {
        let mut changed = files.clone();
        change(changed.get_mut(&path).unwrap());
        let error = from(&changed).unwrap_err();
        assert!(matches!(error, Error::WrongFiles { .. } | Error::WrongSize { .. }), "{error}");
    }
    files.remove(&path);
    assert!(matches!(from(&files).unwrap_err(), Error::Source { .. }));
}

#[test]
fn a_wrong_source_is_told_before_any_output() {
    let (old, new) = pair();
    let (delta, _) = make(std::slice::from_ref(&old), &new, &Options::default());
    let mut other = old.clone();
    other[1024 + 512] ^= 1;
    let archives: [&dyn ReadAt; 1] = [&other];
    let mut out = Vec::new();
    let threads = NonZeroUsize::MIN;
    let error =
        apply(&delta[..], Sources::Archives(&archives), &mut out, &Limits::default(), threads, &Quiet);
    assert!(matches!(error, Err(Error::WrongSource { number: 1, .. })));
    let error = apply(&delta[..], Sources::Archives(&[]), &mut out, &Limits::default(), threads, &Quiet);
    assert!(matches!(error, Err(Error::SourceCount { wanted: 1, given: 0 })));
    let error = apply(&delta[..], Sources::Tree(&EmptySource), &mut out, &Limits::default(), threads, &Quiet);
    assert!(matches!(error, Err(Error::NeedsArchives)));
    assert!(out.is_empty());
}

#[test]
fn memory_and_output_are_bounded() {
    let (old, new) = pair();
    let (delta, report) = make(std::slice::from_ref(&old), &new, &Options::default());
    let old = [old];
    let limits = Limits { max_memory: report.head.memory - 1, ..Limits::default() };
    assert!(matches!(rebuild(&delta, &old, &limits, 1), Err(Error::MemoryTooLarge { .. })));
    let limits = Limits { max_output: new.len() as u64 - 1, ..Limits::default() };
    assert!(matches!(rebuild(&delta, &old, &limits, 1), Err(Error::OutputTooLarge { .. })));
}

/// Enough literals for several blocks.
fn several_blocks() -> (Vec<u8>, Vec<u8>) {
    let old = TarBuilder::new().file("a", b"old").finish();
    let mut new = TarBuilder::new();
    for i in 0..7 {
        new.file(format!("noise{i}"), binary(100 + i, 2 << 20));
    }
    (old, new.finish())
}

#[test]
fn blocks_are_decoded_beside_each_other_and_damage_names_one() {
    let (old, new) = several_blocks();
    let old = [old];
    let effort = Effort::new(1).unwrap();
    let (delta, report) = make(&old, &new, &Options { effort, ..Options::default() });
    let count = report.head.blocks.len();
    assert!(count >= 3, "{count} blocks");
    for threads in [1, 2, 8] {
        assert!(rebuild(&delta, &old, &Limits::default(), threads).unwrap() == new);
    }
    let mut damaged = delta.clone();
    let last = damaged.len() - 10;
    damaged[last] ^= 1;
    let error = rebuild(&damaged, &old, &Limits::default(), 2).unwrap_err();
    assert!(
        matches!(error, Error::DamagedBlock { number, count: c } if number == c && c == count),
        "{error}"
    );
    for cut in [5, 20, delta.len() / 2, delta.len() - 1] {
        let error = rebuild(&delta[..cut], &old, &Limits::default(), 2).unwrap_err();
        assert!(matches!(error, Error::Truncated(_)), "{error}");
    }
}

/// Views of a large old file for many small new ones would be more work than a reader does (section 8.4).
#[test]
fn no_more_work_is_asked_for_than_readers_do() {
    let base = text(60, 3000);
    let large: Vec<u8> = (0..260).flat_map(|i| mutate(&base, i, 6)).collect();
    let wrap = |content: &[u8]| {
        let stream = coracle_testkit::native::deflate_stream(content, 0x119).unwrap();
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3][..], &stream, &[0; 8]].concat()
    };
    let old = TarBuilder::new().file("a.gz", wrap(&large)).finish();
    assert!(old.len() < 64 << 10, "{} bytes: no longer like the new ones by size", old.len());
    let mut new = TarBuilder::new();
    for i in 0..130 {
        new.file(format!("{i}/a.gz"), wrap(&base[i * 20..i * 20 + 250]));
    }
    let new = new.finish();
    let effort = Effort::new(1).unwrap();
    let (delta, report) = make(std::slice::from_ref(&old), &new, &Options { effort, ..Options::default() });
    assert!(rebuild(&delta, &[old], &Limits::default(), 1).unwrap() == new);
    assert!((1..130).contains(&report.rebuilt_streams), "{}", report.rebuilt_streams);
}

#[test]
fn explain_accounts_for_every_byte() {
    let (old, new) = pair();
    let (delta, _) = make(std::slice::from_ref(&old), &new, &Options::default());
    let archives: [&dyn ReadAt; 1] = [&old];
    let limits = Limits::default();
    let x = explain(&delta[..], Sources::Archives(&archives), &new, &limits, &Quiet).unwrap();
    assert_eq!(x.delta_bytes, delta.len() as u64);
    assert_eq!(x.members.iter().map(|m| m.delta_bytes).sum::<u64>(), x.delta_bytes);
    let find = |path: &str| x.members.iter().find(|m| m.path == path.as_bytes()).unwrap();
    for (path, cost) in [
        ("usr/same", Cost::Copied),
        ("usr/new/moved", Cost::Copied),
        ("usr/lib.so", Cost::Changed),
        ("usr/changelog.gz", Cost::Changed),
        ("usr/fresh", Cost::Literal),
        ("usr/empty", Cost::Metadata),
        ("usr/link", Cost::Metadata),
    ] {
        assert_eq!(find(path).cost, cost, "{path}");
    }
    assert_eq!((find("usr/changelog.gz").rebuilt, find("usr/app.jar").rebuilt), (1, 1));
    assert!(find("usr/fresh").delta_bytes > 20 * find("usr/same").delta_bytes);
    for (i, stream) in x.streams.iter().enumerate() {
        assert!(stream.decoded > 0 && stream.encoded > 0, "{i}");
        let taken: u64 = x.members.iter().map(|m| m.streams[stream.stream as usize]).sum();
        assert_eq!(taken, stream.decoded, "{}", stream.stream);
    }
    let (head, streams) = inspect(&mut &delta[..], &limits).unwrap();
    assert_eq!((head, streams), (x.head, x.streams));
    let error = explain(&delta[..], Sources::Archives(&archives), &old, &limits, &Quiet);
    assert!(error.is_err());
}

#[test]
fn odd_archives_come_back() {
    let (old, new) = pair();
    let tail = [&new[..], b"behind the end", &[0; 3000], b"x"].concat();
    let bare = new[..new.len() - 1024].to_vec();
    let mut dirty = TarBuilder::new().file("a", b"not padded with zeros").file("b", b"2").finish();
    dirty[512 + 100] = 7;
    let long = TarBuilder::new().file("long/".repeat(40), b"long name").finish();
    for target in [tail, bare, dirty, long, vec![0; 1024], Vec::new()] {
        round_trip(std::slice::from_ref(&old), &target, &Options::default());
        round_trip(&[], &target, &Options::default());
        round_trip(&[target.clone(), old.clone()], &target, &Options::default());
        let (delta, _) =
            make(std::slice::from_ref(&old), &target, &Options { base: TREE, ..Options::default() });
        assert!(rebuild(&delta, std::slice::from_ref(&old), &Limits::default(), 1).unwrap() == target);
    }
}

#[test]
fn a_cancelled_run_stops() {
    struct Stop;
    impl Observer for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let (old, new) = pair();
    let archives: [&dyn ReadAt; 1] = [&old];
    let made = diff(&archives, &new, &mut Vec::new(), &Options::default(), &Stop);
    assert!(matches!(made, Err(DiffError::Cancelled)));
    let (delta, _) = make(std::slice::from_ref(&old), &new, &Options::default());
    let sources = Sources::Archives(&archives);
    let error = apply(&delta[..], sources, &mut Vec::new(), &Limits::default(), NonZeroUsize::MIN, &Stop);
    assert!(matches!(error, Err(Error::Cancelled)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_edit_comes_back(seed in 0u64..1000, edits in 0usize..200, len in 0usize..20_000, level in 1u8..=6) {
        let content = if seed % 2 == 0 { binary(seed, len) } else { text(seed, len) };
        let changed = if len > 0 { mutate(&content, seed + 1, edits) } else { content.clone() };
        let old = TarBuilder::new().file("x", &content).file("y.gz", gzip_9(&content)).finish();
        let new = TarBuilder::new().file("y.gz", gzip_9(&changed)).file("x", &changed).finish();
        round_trip(&[old], &new, &Options { effort: Effort::new(level).unwrap(), ..Options::default() });
    }

    #[test]
    fn damage_gives_an_error_or_the_target(at in 0usize..4000, bit in 0u8..8) {
        let (old, new) = pair();
        let old = [old];
        let (mut delta, _) = make(&old, &new, &Options { effort: Effort::new(3).unwrap(), ..Options::default() });
        let at = at % delta.len();
        delta[at] ^= 1 << bit;
        prop_assert!(rebuild(&delta, &old, &Limits::default(), 1).is_err());
    }
}
