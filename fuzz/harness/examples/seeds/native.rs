//! Seeds of the targets of native deltas: golden vectors, and streams made by hand.

use std::fs;
use std::path::PathBuf;

use coracle_codec::native::deflate::coded::{Encoder, Settings};
use coracle_codec::native::entropy::{self, Method};
use coracle_testkit::image::{binary, mutate, text};

use super::{Outcome, Seeds};

/// The deltas of the golden vectors by name.
fn golden() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    for (set, kind, name) in [
        ("native", "good", "good"),
        ("native", "bad", "bad"),
        ("native-packed", "good", "packed-good"),
        ("native-packed", "bad", "packed-bad"),
        ("native-exec", "bad", "exec-bad"),
        ("native-deflate", "bad", "deflate-bad"),
    ] {
        let folder: PathBuf =
            [env!("CARGO_MANIFEST_DIR"), "../../testkit/golden", set, kind].iter().collect();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let delta = fs::read(entry.path().join("delta.coracle"))?;
            seeds.insert(format!("{name}-{}", entry.file_name().to_string_lossy()), delta);
        }
    }
    Ok(seeds)
}

/// Heads as they are, and between length and check.
pub fn heads() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    for (name, delta) in golden()? {
        if let Some(len) = delta.get(8..12).and_then(|l| l.try_into().ok()).map(u32::from_le_bytes)
            && let Some(head) = delta.get(12..12 + len as usize)
        {
            seeds.insert(format!("{name}-bare"), head.to_vec());
        }
        seeds.insert(name, delta);
    }
    Ok(seeds)
}

/// Deltas, and streams of one block that does a little of everything.
pub fn deltas() -> Outcome<Seeds> {
    let mut seeds = golden()?;
    let stream = |id: u8, bytes: &[u8]| [&[id, bytes.len() as u8, 0][..], bytes].concat();
    let block = |len: u16, streams: &[Vec<u8>]| [&len.to_le_bytes()[..], &streams.concat()].concat();
    let plan = |bytes: &[u8]| stream(0, bytes);
    seeds.insert("zeros".into(), block(9, &[plan(&[3, 9])]));
    seeds.insert("whole".into(), block(700, &[plan(&[1, 6])]));
    seeds.insert("header".into(), block(512, &[plan(&[0]), stream(1, &[1, 0])]));
    let flags = [3, 63, 9, 2, 0, 10, 3, 1, 0, 5, 4, 7];
    let names = b"abcd\0efghijklmnopqrstuvwxyz";
    seeds.insert("fields".into(), block(1024, &[plan(&[0]), stream(1, &flags), stream(2, names)]));
    let literal = [plan(&[2, 0, 5, 0, 0, 0]), stream(3, &[5]), stream(8, b"hello")];
    seeds.insert("literal".into(), block(5, &literal));
    let part = [2, 0, 30, 1, 2, 6, 0, 0, 1, 5, 100, 2];
    let operations = [stream(3, &[2, 0]), stream(4, &[20, 8]), stream(5, &[4, 3])];
    let rest = [stream(6, &[3, 5]), stream(7, &[1, 255]), stream(9, b"xy")];
    seeds.insert(
        "copies".into(),
        block(30, &[vec![plan(&part)], operations.to_vec(), rest.to_vec()].concat()),
    );
    let inflated = [2, 0, 40, 0, 1, 4, 2, 10, 169, 4, 0];
    let copy = [stream(3, &[0]), stream(4, &[40]), stream(5, &[20])];
    seeds.insert("inflated".into(), block(40, &[vec![plan(&inflated)], copy.to_vec()].concat()));
    let rebuilt = [2, 1, 20, 0, 0, 0, 1, 4, 0x99, 3, 12, 9];
    let literals = [stream(3, &[13]), stream(8, b"headabcabcabc")];
    seeds.insert("rebuilt".into(), block(20, &[vec![plan(&rebuilt)], literals.to_vec()].concat()));
    Ok(seeds)
}

/// Streams by each method.
pub fn streams() -> Seeds {
    let mut seeds = Seeds::new();
    let (noise, words) = (binary(1, 900), text(2, 1500));
    let contents: [(&str, &[u8]); 5] =
        [("empty", b""), ("one", b"a"), ("noise", &noise), ("words", &words), ("run", &[7; 4000])];
    for (i, method) in Method::ALL.into_iter().enumerate() {
        for (name, content) in contents {
            let encoded = entropy::encode(method, content, 3);
            let head = [i as u8, content.len() as u8, (content.len() >> 8) as u8];
            seeds.insert(format!("{}-{name}", method.name()), [&head[..], &encoded].concat());
        }
    }
    seeds
}

/// Codes of tokens with their contents, and streams.
pub fn tokens() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let content = [&text(1, 700)[..], &binary(2, 200), &text(1, 500), &[0; 300]].concat();
    let len = (content.len() as u16).to_le_bytes();
    for (i, made_by) in [0x011, 0x038, 0x069, 0x098, 0x169, 0x498].into_iter().enumerate() {
        let stream = coracle_testkit::native::deflate_stream(&content, made_by)?;
        for (flags, depth) in [(0, 3), (7, 0), (1, 5)] {
            let settings = flags << 4 | depth;
            let mut encoder = Encoder::new();
            if encoder.stream(&content, Settings::of(0x500 | settings)?, &stream).is_ok() {
                let head = [settings as u8, len[0], len[1]];
                let bytes = [&head[..], &content, &encoder.finish()].concat();
                seeds.insert(format!("code-{i}-{settings}"), bytes);
            }
            seeds.insert(format!("stream-{i}-{settings}"), [&[settings as u8, 0, 0], &stream[..]].concat());
        }
    }
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../testkit/golden/deflate"].iter().collect();
    for (i, name) in ["zopfli-1.0.3.gz", "go-1.19-1.gz", "7z-9.gz"].into_iter().enumerate() {
        // The first tokens of a stream are those of one that is cut.
        let file = fs::read(folder.join(name))?;
        let start =
            if file[3] == 8 { 10 + file[10..].iter().position(|&b| b == 0).unwrap_or(0) + 1 } else { 10 };
        seeds.insert(format!("real-{i}"), [&[0x13, 0, 0], &file[start..start + 2000]].concat());
    }
    Ok(seeds)
}

/// Files with deflate streams, and contents of such.
pub fn members() -> Seeds {
    let mut seeds = Seeds::new();
    let old = coracle_fuzz_harness::old_archive();
    let gzip = old.windows(3).position(|w| w == [0x1f, 0x8b, 8]).unwrap_or(0);
    seeds.insert("gzip".into(), old[gzip..gzip + 200].to_vec());
    let (noise, words) = (binary(1, 3000), text(2, 6000));
    for encoder in 0..27u8 {
        let content = if encoder % 2 == 0 { mutate(&words, encoder.into(), 30) } else { noise.clone() };
        seeds.insert(format!("content-{encoder}"), [&[encoder][..], &content].concat());
    }
    let name = b"a.class";
    let local = [
        &b"PK\x03\x04\x14\0\0\0\x08\0\0\0\0\0\x01\x02\x03\x04\x05\0\0\0\x03\0\0\0\x07\0\0\0"[..],
        name,
        b"KLJ\x06\0",
    ];
    let local = local.concat();
    let central = b"PK\x01\x02\x14\0\x14\0\0\0\x08\0\0\0\0\0\x01\x02\x03\x04\x05\0\0\0\x03\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let central = [&central[..], name].concat();
    let end = [
        &b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..],
        &[central.len() as u8, 0, 0, 0, local.len() as u8, 0, 0, 0, 0, 0],
    ];
    for (i, choice) in (0u8..12).map(|i| (i, if i < 8 { 224 } else { 240 })) {
        let settings =
            [i, 3, i % 5, i, 16 + i, i % 4 + if i % 2 == 0 { 0 } else { 20 }, if i < 6 { 0 } else { 200 }];
        seeds.insert(format!("library-{i}"), [&[choice][..], &settings, &words].concat());
    }
    for choice in 216..224u8 {
        let content = mutate(&words, choice.into(), 30);
        seeds.insert(format!("image-{choice}"), [&[choice][..], &content].concat());
    }
    let stream = coracle_testkit::native::deflate_stream(&words, 0x498).unwrap_or_default();
    let len = (stream.len() as u32 + 6).to_be_bytes();
    let start = b"\x89PNG\r\n\x1a\n\0\0\0\x02IHDR\x01\x02abcd";
    let png = [&start[..], &len, b"IDAT\x78\x9c", &stream, b"adlecrc!\0\0\0\0IENDcrc!"].concat();
    seeds.insert("png".into(), png);
    for (name, encoder) in [("xz", &[0x86, 4, 12, 93, 0, 16, 1, 0, 5][..]), ("zst", &[0x83, 6, 3, 0])] {
        let file = coracle_testkit::native::packed_stream(&words, encoder);
        seeds.insert(name.into(), file.unwrap_or_default());
    }
    seeds.insert("zip".into(), [local, central, end.concat()].concat());
    seeds
}
