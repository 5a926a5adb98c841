//! Seeds of `tardiff_parse` and `tardiff_apply`: whole deltas, and operation streams without magic and frame.

use std::io::Read;

use coracle_codec::compress::{FrameEnd, ZstdReader, ZstdWriterOptions};
use coracle_codec::tardiff::{MAGIC_LEN, MAGIC_V1, MAGIC_V2, OpWriter, StreamOptions, Version};
use coracle_fuzz_harness::stored_frame;
use coracle_fuzz_harness::tree::TREE;
use coracle_testkit::golden::Golden;

use crate::streams::{looks_skippable, tiny_with_large_window, zstd};
use crate::{MAX_LEN, Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let golden = Golden::built_in();
    for case in golden.tardiff_good()? {
        add(&mut seeds, &format!("good-{}", case.name), case.delta()?);
    }
    for case in golden.tardiff_bad()? {
        add(&mut seeds, &format!("bad-{}", case.name), case.delta()?);
    }
    for version in [Version::V1, Version::V2] {
        add(&mut seeds, &format!("written-v{}", version.number()), written(version)?);
    }
    let two_frames =
        [&MAGIC_V1[..], &stored_frame(b"\x00\x03ab"), &stored_frame(b"c\x01\x01a\x02\x01")].concat();
    seeds.insert("two-frames".into(), two_frames);
    seeds.insert(
        "skippable-frames".into(),
        [&MAGIC_V2[..], &[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0], &stored_frame(b"")].concat(),
    );
    seeds.insert("looks-skippable".into(), [&MAGIC_V1[..], &looks_skippable()].concat());
    let tiny = [&MAGIC_V1[..], &tiny_with_large_window()].concat();
    seeds.insert("tiny-large-window".into(), tiny);
    for (name, stream) in streams()? {
        seeds.insert(format!("stream-{name}"), stream);
    }
    Ok(seeds)
}

/// A delta, and its operation stream if that can be decoded.
fn add(seeds: &mut Seeds, name: &str, delta: Vec<u8>) {
    if let Some(frames) = delta.get(MAGIC_LEN..) {
        let mut stream = Vec::new();
        // What comes before the damage is a good seed as well.
        let _ = ZstdReader::new(frames, 27, FrameEnd::Continue).take(MAX_LEN as u64).read_to_end(&mut stream);
        if !stream.is_empty() {
            seeds.insert(format!("stream-{name}"), stream);
        }
    }
    seeds.insert(name.to_owned(), delta);
}

/// What the writer makes for the tree of the harness.
fn written(version: Version) -> Outcome<Vec<u8>> {
    let mut w = OpWriter::new(Vec::new(), version, StreamOptions::level(3, 18))?;
    w.literal(b"some header")?;
    w.copy(b"d/conf", 0, 3000)?;
    w.copy(b"d/tool", 4000, 96)?;
    w.add(b"zero", 39_000, b"a thousand zeros")?;
    w.copy(b"big", 99_000, 1000)?;
    if version == Version::V2 {
        let dictionary = TREE.content(b"d/tool").unwrap_or_default();
        w.zstd_dict(b"d/tool", dictionary.len() as u64, &changed(dictionary, Default::default())?)?;
        w.copy(b"d/tool", 0, 10)?;
    }
    w.literal(&[0; 1024])?;
    Ok(w.finish()?.0)
}

/// A frame for operation 5: the file itself with some bytes changed.
fn changed<'a>(dictionary: &'a [u8], options: ZstdWriterOptions<'a>) -> Outcome<Vec<u8>> {
    let mut content = dictionary.to_vec();
    content.iter_mut().step_by(301).for_each(|b| *b ^= 0x20);
    content.extend_from_slice(b"and a tail");
    zstd(&content, ZstdWriterOptions { prefix: Some(dictionary), ..options })
}

fn streams() -> Outcome<Vec<(String, Vec<u8>)>> {
    let open = |path: &str| op(1, path.as_bytes());
    let mut out: Vec<(String, Vec<u8>)> = [
        ("nothing", vec![]),
        ("data", op(0, b"literal")),
        ("data-cut", vec![0, 5, b'a']),
        ("copy", [open("d/conf"), vec![4, 10, 2, 20, 2, 0]].concat()),
        ("add", [open("d/tool"), op(3, b"differences"), vec![4, 0], op(3, b"")].concat()),
        ("seek-beyond", [open("a"), vec![4, 0xff, 0x7f, 2, 0]].concat()),
        ("copy-beyond", [open("a"), vec![4, 1, 2, 1]].concat()),
        ("shrinks", [open("shrinks"), vec![2, 100, 2, 1]].concat()),
        ("unreadable", [open("io"), vec![2, 1]].concat()),
        ("directory", open("d")),
        ("broken", open("broken")),
        ("missing", open("none")),
        ("unclean", [open("./d//tool/."), vec![2, 5]].concat()),
        ("dots", open("d/../a")),
        ("absolute", open("/a")),
        ("long-form", vec![1, 0x81, 0x80, 0x00, b'a', 2, 0x81, 0x00]),
        ("amplified", [open("zero"), [vec![4, 0], copy(40_000)].concat().repeat(27)].concat()),
        ("no-source", vec![2, 0, 3, 0, 4, 0]),
        ("frame-no-source", op(5, &stored_frame(b"x"))),
        ("frame-empty-op", [open("d/tool"), op(5, b""), vec![2, 0, 4, 0, 2, 3]].concat()),
        ("frame-stored", [open("empty"), op(5, &stored_frame(b"stored"))].concat()),
        ("frame-junk", [open("a"), op(5, &[&stored_frame(b"x")[..], b"junk"].concat())].concat()),
        ("frame-twice", [open("a"), op(5, &stored_frame(b"x").repeat(2))].concat()),
        ("frame-looks-skippable", [open("a"), op(5, &looks_skippable())].concat()),
        ("frame-tiny-large-window", [open("a"), op(5, &tiny_with_large_window())].concat()),
        ("frame-shrinks", [open("shrinks"), op(5, &stored_frame(b"x"))].concat()),
    ]
    .map(|(name, stream)| (name.to_owned(), stream))
    .into();
    for path in ["empty", "a", "d/conf", "d/tool", "zero", "big"] {
        let dictionary = TREE.content(path.as_bytes()).unwrap_or_default();
        let sized =
            ZstdWriterOptions { content_size: Some(dictionary.len() as u64 + 10), ..Default::default() };
        for (form, options) in [
            ("plain", ZstdWriterOptions::default()),
            ("sized", sized),
            ("window-10", ZstdWriterOptions { window_log: Some(10), ..Default::default() }),
            ("window-21", ZstdWriterOptions { window_log: Some(21), ..Default::default() }),
        ] {
            let frame = changed(dictionary, options)?;
            let name = path.replace('/', "-");
            let stream = [open(path), op(5, &frame), vec![4, 0, 2, 1], op(5, &frame), vec![2, 1]].concat();
            out.push((format!("frame-{name}-{form}"), stream));
        }
    }
    Ok(out)
}

fn op(code: u8, payload: &[u8]) -> Vec<u8> {
    [vec![code], varint(payload.len() as u64), payload.to_vec()].concat()
}

fn copy(size: u64) -> Vec<u8> {
    [vec![2], varint(size)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
