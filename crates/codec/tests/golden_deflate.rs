//! Deflate streams of encoders that are not known, from real programs, and the stored deltas with their tokens and with
//! images in chunks, like those of `golden_native`.

use std::fs;

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::{Options, Parts, diff};
use coracle_codec::observe::Quiet;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::native::{self as second, deflate_stream};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::json;

use crate::golden_native::{all_made, all_refused, folder, number, run, store};
use crate::golden_packed::{delta_of, encoder};

const SET: &str = "native-deflate";

/// Files that real programs made of the same content, by name, and what the delta may take of each, in percent.
const STREAMS: [(&str, usize); 12] = [
    ("7z-1.gz", 5),
    ("7z-9.gz", 8),
    ("advzip-2.5-4.zip", 8),
    ("go-1.19-1.gz", 13),
    ("go-1.19-6.gz", 2),
    ("libdeflate-1.14-6.gz", 3),
    ("libdeflate-1.14-12.gz", 8),
    ("miniz_oxide-0.9.1-6.gz", 3),
    ("miniz_oxide-0.9.1-9.gz", 3),
    ("zlib-fixed.gz", 3),
    ("zlib-flushed.gz", 3),
    ("zopfli-1.0.3.gz", 8),
];

fn made_by(name: &str) -> Vec<u8> {
    fs::read(folder("deflate").join(name)).unwrap()
}

/// What all of [`STREAMS`] hold.
fn content() -> Vec<u8> {
    let mut content = Vec::new();
    let file = made_by("go-1.19-6.gz");
    let mut reader = flate2::read::GzDecoder::new(&file[..]);
    std::io::Read::read_to_end(&mut reader, &mut content).unwrap();
    content
}

fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let bytes = [kind, data].concat();
    let mut crc = flate2::Crc::new();
    crc.update(&bytes);
    [&(data.len() as u32).to_be_bytes()[..], &bytes, &crc.sum().to_be_bytes()].concat()
}

/// An image whose data are cut into pieces.
fn png(stream: &[u8], content: &[u8], piece: usize) -> Vec<u8> {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in content {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    let data = [&[0x78, 0xda], stream, &(b << 16 | a).to_be_bytes()].concat();
    let mut out = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &[0; 13])].concat();
    data.chunks(piece).for_each(|piece| out.extend(chunk(b"IDAT", piece)));
    [out, chunk(b"IEND", b"")].concat()
}

/// What an encoder of ours makes of a content, in an image.
fn image(content: &[u8], encoder: u64, piece: usize) -> Vec<u8> {
    png(&deflate_stream(content, encoder).unwrap(), content, piece)
}

/// The deflate stream of a stored `.gz` without name.
fn stream(name: &str) -> Vec<u8> {
    let file = made_by(name);
    let name = if file[3] == 8 { file[10..].iter().position(|&b| b == 0).unwrap() + 1 } else { 0 };
    file[10 + name..file.len() - 8].to_vec()
}

#[test]
fn streams_of_real_encoders_cost_a_few_bytes() {
    let content = content();
    let changed = mutate(&content, 1, 5);
    let before =
        [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &deflate_stream(&changed, 0x199).unwrap(), &[0; 8]];
    let before = before.concat();
    for (name, percent) in STREAMS {
        let file = made_by(name);
        // The content is there but for a few bytes, so that the delta is little more than tokens.
        let old = TarBuilder::new().file(format!("d/{name}"), &before).finish();
        let new = TarBuilder::new().file(format!("d/{name}"), &file).finish();
        let make = |parts| {
            let archives: [&dyn ReadAt; 1] = [&old];
            let mut delta = Vec::new();
            let options = Options { parts, ..Options::default() };
            let report = diff(&archives, &new, &mut delta, &options, &Quiet).unwrap();
            (delta, report)
        };
        let (delta, report) = make(Parts::default());
        assert_eq!((report.rebuilt_streams, report.other_streams), (1, 0), "{name}");
        assert_eq!(report.head.encoders, ["deflate-tokens-1"], "{name}: it is known");
        let most = file.len() * percent / 100 + 200;
        assert!(delta.len() < most, "{name}: {} bytes, {most} expected", delta.len());
        assert!(run(&delta, &old).unwrap() == new, "{name}");
        let other = second::apply(&delta, second::Sources::Archives(std::slice::from_ref(&old)));
        assert!(other.as_ref() == Ok(&new), "{name}: the second decoder: {:?}", other.err());
        let (plain, report) = make(Parts { tokens: false, ..Parts::default() });
        assert_eq!(report.other_streams, 1, "{name}");
        assert!(plain.len() > file.len() * 9 / 10, "{name}: {} bytes without tokens", plain.len());
    }
}

#[test]
fn tokens_are_sent_only_where_they_pay() {
    // Nothing of the content is old, and it is noise: inflating it gains nothing.
    let noise = binary(1, 20_000);
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    for (i, piece) in noise.chunks(3000).enumerate() {
        let last = u8::from((i + 1) * 3000 >= noise.len());
        let len = piece.len() as u16;
        file.extend([&[last][..], &len.to_le_bytes(), &(!len).to_le_bytes(), piece].concat());
    }
    file.extend([0; 8]);
    let (old, new) = (TarBuilder::new().finish(), TarBuilder::new().file("noise.gz", &file).finish());
    let archives: [&dyn ReadAt; 1] = [&old];
    let mut delta = Vec::new();
    diff(&archives, &new, &mut delta, &Options::default(), &Quiet).unwrap();
    assert!(run(&delta, &old).unwrap() == new);
    assert!(delta.len() < file.len() + 400, "{} bytes", delta.len());
}

#[test]
fn images_in_chunks_are_rebuilt() {
    let pixels: Vec<u8> = (0..40_000u32).map(|i| ((i * i) >> 9) as u8).collect();
    let changed = mutate(&pixels, 2, 12);
    let text = content();
    let tokens = image(&mutate(&text, 1, 5), 0x498, 5000);
    let old = TarBuilder::new().file("a.png", image(&pixels, 0x498, 4096)).file("of tokens", tokens).finish();
    for (name, new, rebuilt) in [
        ("regular", image(&changed, 0x498, 1000), true),
        ("one byte", image(&changed, 0x468, 1), true),
        ("one chunk", image(&changed, 0x498, 1 << 20), true),
        ("of tokens", png(&stream("zopfli-1.0.3.gz"), &text, 8192), true),
        ("another sum", [&image(&changed, 0x498, 1000)[..200], &[0; 9000]].concat(), false),
    ] {
        let path = if name == "of tokens" { name } else { "a.png" };
        let new = TarBuilder::new().file(path, new).finish();
        let archives: [&dyn ReadAt; 1] = [&old];
        let mut delta = Vec::new();
        let report = diff(&archives, &new, &mut delta, &Options::default(), &Quiet).unwrap();
        assert_eq!(report.rebuilt_streams > 0, rebuilt, "{name}");
        assert!(run(&delta, &old).unwrap() == new, "{name}");
        let other = second::apply(&delta, second::Sources::Archives(std::slice::from_ref(&old)));
        assert!(other.as_ref() == Ok(&new), "{name}: the second decoder: {:?}", other.err());
        assert!(
            !rebuilt || delta.len() < if name == "of tokens" { 2000 } else { 1000 },
            "{name}: {} bytes",
            delta.len()
        );
    }
}

/// A zip of streams and their contents.
fn zip(entries: &[(&str, &[u8], &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, stream, content) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let sizes = [stream.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat();
        let of = [&crc.sum().to_le_bytes()[..], &sizes, &[name.len() as u8, 0, 0, 0]].concat();
        let at = (out.len() as u32).to_le_bytes();
        out.extend([b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0", &of[..], name.as_bytes(), stream].concat());
        directory.extend(
            [b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0", &of[..], &[0; 10], &at, name.as_bytes()].concat(),
        );
    }
    let (count, at) = (entries.len() as u8, out.len() as u32);
    let end =
        [b"PK\x05\x06\0\0\0\0", &[count, 0, count, 0][..], &(directory.len() as u32).to_le_bytes()].concat();
    [out, directory, end, at.to_le_bytes().to_vec(), vec![0, 0]].concat()
}

/// The old archive of all vectors.
fn old() -> Vec<u8> {
    let changed = mutate(&content(), 1, 5);
    let gzip = deflate_stream(&changed, 0x199).unwrap();
    let pixels = binary(7, 5000);
    TarBuilder::new()
        .file("d/a.gz", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &gzip, &[0; 8]].concat())
        .file("d/a.zip", zip(&[("a", &gzip, &changed), ("b", &gzip, &changed)]))
        .file("d/a.png", image(&pixels, 0x468, 900))
        .finish()
}

fn targets() -> Vec<(&'static str, Vec<u8>)> {
    let content = content();
    let mut all = Vec::new();
    for (name, _) in STREAMS.iter().filter(|(name, _)| name.ends_with(".gz")) {
        all.push((name.trim_end_matches(".gz"), TarBuilder::new().file("d/a.gz", made_by(name)).finish()));
    }
    let (go, zopfli) = (stream("go-1.19-6.gz"), stream("zopfli-1.0.3.gz"));
    let several = zip(&[("a", &go, &content), ("b", &zopfli, &content), ("c", &go, &content)]);
    all.push(("several", TarBuilder::new().file("d/a.zip", several).finish()));
    let pixels = mutate(&binary(7, 5000), 1, 4);
    let mut images = TarBuilder::new();
    images.file("d/a.png", image(&pixels, 0x468, 1000)).file("d/a.gz", png(&go, &content, 8192));
    all.push(("images", images.finish()));
    all
}

#[test]
fn good_vectors_give_their_targets_in_both_decoders() {
    let archive = old();
    for (name, target) in targets() {
        let mut delta = Vec::new();
        let archives: [&dyn ReadAt; 1] = [&archive];
        let report = diff(&archives, &target, &mut delta, &Options::default(), &Quiet).unwrap();
        assert_eq!((report.other_streams, report.head.encoders.is_empty()), (0, false), "{name}");
        let case = json!({ "size": target.len(), "digest": Digest::of(&target).to_string() });
        store(SET, "good", name, &archive, &delta, &case);
    }
    all_made(SET, 13);
}

/// A delta of one part with one rebuilt stream of 500 bytes, which stand in it, and a code of tokens.
fn bad_of(names: &[&str], memory: u64, fields: &[u64], len: u64, code: Option<(u64, &[u8])>) -> Vec<u8> {
    let content = text(3, 500);
    let mut plan = vec![2, 1];
    number(&mut plan, len);
    plan.extend([0, 0, 0, 1, 0]);
    plan.extend(encoder(fields));
    number(&mut plan, len);
    number(&mut plan, 500);
    let mut streams: Vec<(u8, &[u8])> = vec![];
    if let Some((len, _)) = code {
        number(&mut plan, len);
    }
    let mut lengths = Vec::new();
    number(&mut lengths, 500);
    streams.extend([(0, &plan[..]), (3, &lengths[..]), (8, &content[..])]);
    streams.extend(code.filter(|c| !c.1.is_empty()).map(|c| (12, c.1)));
    delta_of(&old(), names, memory, &vec![0; len as usize], &streams)
}

fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const MEMORY: u64 = 16 << 20;
    const NAMES: [&str; 2] = ["deflate-tokens-1", "png-chunks-1"];
    let noise = binary(4, 300);
    let tokens = |fields: &[u64], code: (u64, &[u8])| bad_of(&NAMES, MEMORY, fields, 300, Some(code));
    let png = |fields: &[u64]| bad_of(&NAMES, MEMORY, fields, 300, None);
    let view = |names: &[&str], file: u8| {
        let plan = [&[2, 0, 5, 0, 1, file, 6][..], &encoder(&[0, 90, 9]), &[0]].concat();
        delta_of(&old(), names, MEMORY, b"hello", &[(0, &plan)])
    };
    vec![
        (
            "tokens-unlisted",
            bad_of(&NAMES[1..], MEMORY, &[0x503], 300, Some((0, &[]))),
            "delta contradicts itself: a part uses an encoder",
        ),
        (
            "stream-unlisted",
            bad_of(&NAMES[1..], MEMORY, &[0x503], 300, Some((300, &noise))),
            "unknown stream 12",
        ),
        ("tokens-depth", tokens(&[0x506], (0, &[])), "unknown deflate encoder 1286"),
        ("tokens-flags", tokens(&[0x583], (0, &[])), "unknown deflate encoder 1411"),
        ("tokens-length", tokens(&[0x503], (301, &noise)), "length of tokens is 301"),
        ("tokens-left", tokens(&[0x503], (0, &noise)), "tokens of a deflate stream do not fit"),
        ("tokens-noise", tokens(&[0x513], (300, &noise)), "tokens of a deflate stream do not fit"),
        ("tokens-kind", tokens(&[0x503], (0, &[])), "tokens of a deflate stream do not fit"),
        // A length of a code that does not fit into the three bits in which it is sent.
        ("tokens-lengths", tokens(&[0x503], (14, &binary(48, 14))), "tokens of a deflate stream do not fit"),
        (
            "tokens-memory",
            bad_of(&NAMES, 1 << 20, &[0x503], 300, Some((300, &noise))),
            "delta takes more than the",
        ),
        (
            "tokens-in-png-unlisted",
            bad_of(&NAMES[1..], MEMORY, &[0x600, 0x78da, 100, 0x503], 300, Some((0, &[]))),
            "delta contradicts itself: a part uses an encoder",
        ),
        (
            "png-unlisted",
            bad_of(&NAMES[..1], MEMORY, &[0x600, 0x78da, 100, 0x068], 300, None),
            "delta contradicts itself: a part uses an encoder",
        ),
        ("png-number", png(&[0x601, 0x78da, 100, 0x068]), "unknown png encoder 1"),
        ("png-header", png(&[0x600, 0x10000, 100, 0x068]), "header of a zlib stream is 65536"),
        ("png-piece", png(&[0x600, 0x78da, 0, 0x068]), "unknown data of a chunk 0"),
        ("png-piece-large", png(&[0x600, 0x78da, 1 << 31, 0x068]), "data of a chunk is 2147483648"),
        ("png-xz", png(&[0x600, 0x78da, 100, 0x206]), "unknown deflate encoder 518"),
        ("png-png", png(&[0x600, 0x78da, 100, 0x600]), "unknown deflate encoder 1536"),
        ("png-length", png(&[0x600, 0x78da, 100, 0x068]), "rebuilt png stream has"),
        (
            "png-too-long",
            bad_of(&NAMES, MEMORY, &[0x600, 0x78da, 1, 0x068], 300, None),
            "delta asks for more work",
        ),
        ("view-png-unlisted", view(&NAMES[..1], 4), "unknown view 6"),
        ("view-png-none", view(&NAMES, 0), "png stream at byte 0 of old member 0"),
    ]
}

#[test]
fn bad_vectors_are_refused_with_their_errors() {
    for (name, delta, error) in bad() {
        store(SET, "bad", name, &old(), &delta, &json!({ "expect_error": error }));
    }
    all_refused(SET, 21);
}
