//! The stored native deltas with streams of xz and zstd, like those of `golden_native`.

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::{Archive, Base, Block, Head, Options, Origin, apply, diff};
use coracle_codec::observe::Quiet;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::native::{deflate_stream, packed_stream};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::json;

use crate::golden_native::{all_made, all_refused, number, signed, store};

const SET: &str = "native-packed";
/// What the bad vectors list, unless they say otherwise.
const NAMES: [&str; 2] = ["liblzma-5.8.4", "zstd-1.5.7"];

/// Fields of an encoder, as a plan holds them.
pub fn encoder(fields: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|&n| number(&mut out, n));
    out
}

fn pack(content: &[u8], fields: &[u64]) -> Vec<u8> {
    packed_stream(content, &encoder(fields)).unwrap()
}

/// As the modules of a kernel are: preset 6, 1 MiB, CRC32, headers with sizes.
const MODULE: [u64; 8] = [0x206, 20, 93, 0, 16, 1, 0, 5];
/// `xz` by default with one thread: 8 MiB, CRC64.
const DEFAULT: [u64; 8] = [0x206, 14, 93, 0, 22, 4, 0, 0];
/// x86 filter, extreme, SHA-256.
const FILTERED: [u64; 8] = [0x216, 16, 93, 4, 22, 10, 0, 0];
/// Several blocks, as several threads write them, at the lowest preset.
const BLOCKS: [u64; 8] = [0x200, 12, 93, 0, 12, 0, 4096, 4];
/// `zstd`, from a file and from a pipe, and at level 19 without checksum.
const FRAMES: [[u64; 3]; 3] = [[0x303, 3, 0], [0x303, 5, 0], [0x313, 2, 0]];

fn old() -> Vec<u8> {
    TarBuilder::new()
        .file("lib/modules/1/a.ko.xz", pack(&binary(1, 9000), &MODULE))
        .file("lib/modules/1/b.ko.zst", pack(&binary(2, 9000), &FRAMES[0]))
        .file("doc/changes.xz", pack(&text(3, 6000), &DEFAULT))
        .file("doc/plain", text(4, 6000))
        .finish()
}

/// An image but for its checksums.
fn png(content: &[u8], encoder: u64) -> Vec<u8> {
    let stream = deflate_stream(content, encoder).unwrap();
    let len = (stream.len() as u32 + 6).to_be_bytes();
    let head = b"\x89PNG\r\n\x1a\n\0\0\0\x02IHDR\x01\x02abcd";
    [&head[..], &len, b"IDAT\x78\x9c", &stream, b"adlecrc!\0\0\0\0IENDcrc!"].concat()
}

fn targets() -> Vec<(&'static str, Vec<u8>)> {
    let (a, b) = (mutate(&binary(1, 9000), 5, 9), mutate(&binary(2, 9000), 6, 9));
    let news = [&text(9, 300)[..], &text(3, 6000)].concat();
    let mut modules = TarBuilder::new();
    modules
        .file("lib/modules/2/a.ko.xz", pack(&a, &MODULE))
        .file("lib/modules/2/b.ko.zst", pack(&b, &FRAMES[0]));
    let mut settings = TarBuilder::new();
    for (i, fields) in [DEFAULT, FILTERED, BLOCKS].iter().enumerate() {
        settings.file(format!("doc/{i}/changes.xz"), pack(&news, fields));
    }
    for (i, fields) in FRAMES.iter().enumerate() {
        settings.file(format!("doc/{i}/changes.zst"), pack(&news, fields));
    }
    let mut several = TarBuilder::new();
    let row = [pack(&a, &MODULE), pack(&news, &DEFAULT), b"and more".to_vec()].concat();
    several.file("lib/modules/2/a.ko.xz", row).file("doc/changes.gz", text(8, 300));
    several.file("doc/plain.xz", pack(&mutate(&text(4, 6000), 1, 5), &DEFAULT));
    let mut image = TarBuilder::new();
    image.file("doc/icon.png", png(&mutate(&binary(1, 5000), 3, 4), 0x468));
    let all = [("modules", modules), ("settings", settings), ("several", several), ("image", image)];
    all.map(|(name, tar)| (name, tar.finish())).to_vec()
}

#[test]
fn good_vectors_give_their_targets_in_both_decoders() {
    let archive = old();
    for (name, target) in targets() {
        for (kind, base) in
            [("archives", Base::Archives), ("tree", Base::Tree { apply_whiteouts: false, any_mode: true })]
        {
            let mut delta = Vec::new();
            let archives: [&dyn ReadAt; 1] = [&archive];
            let options = Options { base, ..Options::default() };
            let report = diff(&archives, &target, &mut delta, &options, &Quiet).unwrap();
            assert_eq!(report.other_streams, 0, "{name}");
            let case = json!({ "size": target.len(), "digest": Digest::of(&target).to_string() });
            store(SET, "good", &format!("{name}-{kind}"), &archive, &delta, &case);
        }
    }
    all_made(SET, 6);
}

/// A delta of one part that claims to make `target` of nothing but `text`.
fn delta(encoders: &[&str], memory: u64, target: &[u8], plan: &[u8], text: &[u8]) -> Vec<u8> {
    let mut lengths = Vec::new();
    number(&mut lengths, text.len() as u64);
    let mut streams: Vec<(u8, &[u8])> = vec![(0, plan)];
    if !text.is_empty() {
        streams.extend([(3, &lengths[..]), (8, text)]);
    }
    delta_of(&old(), encoders, memory, target, &streams)
}

/// A delta of one block with these streams.
pub fn delta_of(
    old: &[u8],
    encoders: &[&str],
    memory: u64,
    target: &[u8],
    streams: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut block = vec![streams.len() as u8];
    for (id, bytes) in streams {
        block.extend([*id, 0]);
        number(&mut block, bytes.len() as u64);
        number(&mut block, bytes.len() as u64);
    }
    streams.iter().for_each(|s| block.extend_from_slice(s.1));
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(&block).as_bytes()[..8]);
    let output = target.len() as u64;
    let head = Head {
        size: output,
        digest: Digest::of(target),
        memory,
        encoders: encoders.iter().map(|&e| e.to_owned()).collect(),
        origin: Origin::Archives(vec![Archive { size: old.len() as u64, digest: Digest::of(old) }]),
        blocks: vec![Block { output, encoded: block.len() as u64, check }],
    };
    [head.to_bytes(), block].concat()
}

/// A part of one rebuilt stream of `content` bytes.
fn rebuilt(fields: &[u64], stream: u64, content: u64) -> Vec<u8> {
    let mut plan = vec![2, 1];
    number(&mut plan, stream);
    plan.extend([0, 0, 0, 1, 0]);
    plan.extend(encoder(fields));
    number(&mut plan, stream);
    number(&mut plan, content);
    plan
}

fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const MEMORY: u64 = 48 << 20;
    let content = text(3, 500);
    let (xz, zstd) = (pack(&content, &MODULE), pack(&content, &FRAMES[0]));
    let of = |fields: &[u64], target: &[u8], stream: u64| {
        delta(&NAMES, MEMORY, target, &rebuilt(fields, stream, 500), &content)
    };
    let xz_with = |at: usize, value| {
        let mut fields = MODULE;
        fields[at] = value;
        of(&fields, &xz, xz.len() as u64)
    };
    let zstd_with = |at: usize, value| {
        let mut fields = FRAMES[0];
        fields[at] = value;
        of(&fields, &zstd, zstd.len() as u64)
    };
    let listing =
        |names: &[&str]| delta(names, MEMORY, &zstd, &rebuilt(&FRAMES[0], zstd.len() as u64, 500), &content);
    let good = listing(&NAMES);
    // Between length and check: features, and the list of two names.
    let head = &good[12..12 + u32::from_le_bytes([good[8], good[9], good[10], good[11]]) as usize];
    let list = |list: &[u8]| signed(&[&[2], list, &head[2 + 14 + 11..]].concat(), &[]);
    let view = |kind: u8, file: u8, fields: &[u64]| {
        let plan = [&[2, 0, 5, 0, 1, file, kind][..], &encoder(fields), &[0]].concat();
        delta(&[], 1 << 24, b"hello", &plan, b"")
    };
    vec![
        ("encoder-missing", listing(&["liblzma-5.8.4", "zstd-9.9.9"]), "delta needs encoder zstd-9.9.9"),
        ("encoder-unlisted", listing(&["liblzma-5.8.4"]), "delta contradicts itself: a part uses an encoder"),
        ("encoders-none", list(&[0]), "delta contradicts itself: a list of no encoders"),
        ("encoders-many", list(&[17]), "number of encoders is 17"),
        ("encoders-order", list(b"\x02\x01b\x01a"), "delta contradicts itself: encoders are not in order"),
        ("encoders-name", list(b"\x01\x02a/"), "delta contradicts itself: an encoder has no proper name"),
        ("encoders-empty", list(b"\x01\x00"), "delta contradicts itself: an encoder has no proper name"),
        ("encoders-long", list(&[1, 65]), "length of the name of an encoder is 65"),
        ("xz-preset", xz_with(0, 0x207), "unknown xz encoder 7"),
        ("xz-dictionary", xz_with(1, 27), "dictionary of an xz encoder is 27"),
        ("xz-dictionary-small", xz_with(1, 11), "unknown dictionary of an xz encoder 11"),
        ("xz-properties", xz_with(2, 44), "unknown properties of LZMA 44"),
        ("xz-filter", xz_with(3, 6), "unknown filter of xz 6"),
        ("xz-check", xz_with(5, 2), "unknown check of xz 2"),
        ("xz-block", xz_with(6, 100), "unknown block of xz 100"),
        ("xz-header-short", xz_with(7, 3), "delta asks for more work"),
        ("xz-memory", xz_with(1, 22), "delta takes more than the"),
        ("xz-length", of(&MODULE, &[&xz[..], b"x"].concat(), xz.len() as u64 + 1), "rebuilt xz stream has"),
        ("zstd-level", zstd_with(0, 0x317), "unknown zstd encoder 23"),
        ("zstd-flags", zstd_with(1, 16), "flags of a zstd encoder is 16"),
        ("zstd-window", zstd_with(2, 28), "window of a zstd encoder is 28"),
        ("zstd-window-small", zstd_with(2, 9), "unknown window of a zstd encoder 9"),
        (
            "zstd-memory",
            delta(&NAMES, 10 << 20, &zstd, &rebuilt(&FRAMES[0], zstd.len() as u64, 500), &content),
            "delta takes more than the",
        ),
        ("family", of(&[0x403, 0, 0], &xz, xz.len() as u64), "unknown deflate encoder 1027"),
        ("view-3", view(3, 0, &[0, 9, 9]), "unknown view 3"),
        ("view-no-xz", view(4, 6, &[0, 90, 9]), "xz stream at byte 0 of old member 3"),
        ("view-xz-cut", view(4, 0, &[0, 90, 9000]), "xz stream at byte 0 of old member 0"),
        ("view-no-zstd", view(5, 6, &[0, 90, 9]), "zstd stream at byte 0 of old member 3"),
        ("view-beyond", view(4, 6, &[5000, 1001, 9]), "length of a packed stream is 1001"),
        ("view-memory", view(5, 2, &[0, 90, 1 << 24]), "delta takes more than the"),
    ]
}

#[test]
fn bad_vectors_are_refused_with_their_errors() {
    let archive = old();
    for (name, delta, error) in bad() {
        store(SET, "bad", name, &archive, &delta, &json!({ "expect_error": error }));
    }
    all_refused(SET, 30);
}

/// Before anything is read of the source: here it is the wrong one.
#[test]
fn a_missing_encoder_is_told_before_the_source_is_read() {
    let (_, delta, error) = bad().remove(0);
    let nothing: Vec<u8> = Vec::new();
    let archives: [&dyn ReadAt; 1] = [&nothing];
    let mut out = Vec::new();
    let sources = coracle_codec::native::Sources::Archives(&archives);
    let result =
        apply(&delta[..], sources, &mut out, &Default::default(), std::num::NonZeroUsize::MIN, &Quiet);
    let found = result.unwrap_err().to_string();
    assert!(found.starts_with(error) && out.is_empty(), "{found}");
}
