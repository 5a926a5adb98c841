//! The stored chunked layers: each good one comes back from its parts, each bad one is refused for its reason.
//!
//! Vectors are never changed. With `CORACLE_NEW_VECTORS=1` the ones listed here that are not stored yet are written.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::PathBuf;

use coracle_codec::chunked::{Family, Footer, Limits, Options, Part, Place, write, write_stargz};
use coracle_codec::compress::{ZstdWriter, ZstdWriterOptions};
use coracle_codec::digest::Digest;
use coracle_testkit::golden::Golden;
use coracle_testkit::image::text;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::{Value, json};

use crate::chunked::{content, decoded, described, rebuild, toc_of};

type Annotations = BTreeMap<String, String>;
/// Name, blob with its annotations, and the start of the error.
type Claim = (&'static str, (Vec<u8>, Annotations), &'static str);

fn small() -> Vec<u8> {
    TarBuilder::new()
        .mtime(1_700_000_000)
        .dir("./")
        .file("./empty", b"")
        .file_mode("./text", 0o4755, text(1, 300))
        .file("./holes", [text(2, 200), vec![0; 3000], text(3, 50)].concat())
        .symlink("./link", "text")
        .finish_padded(20)
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut out = ZstdWriter::new(Vec::new(), ZstdWriterOptions::default()).unwrap();
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn unpacked(blob: &[u8], part: Part) -> Vec<u8> {
    decoded(&blob[part.range().start as usize..part.range().end as usize])
}

/// A layer of our writer, taken apart.
struct Layer {
    frames: Vec<u8>,
    toc: Value,
    split: Vec<u8>,
}

impl Layer {
    fn new() -> Self {
        let mut blob = Vec::new();
        let written = write(Cursor::new(small()), &mut blob, &Options { level: 3, legacy: false }).unwrap();
        let place = Place::of(&described(&blob, written.annotations), &Limits::default()).unwrap().unwrap();
        let toc = serde_json::from_slice(&unpacked(&blob, place.toc.unwrap())).unwrap();
        let split = unpacked(&blob, place.split.unwrap());
        Layer { frames: blob[..place.data_end() as usize].to_vec(), toc, split }
    }

    fn entry(&mut self, number: usize) -> &mut Value {
        &mut self.toc["entries"][number]
    }

    /// Puts it together again; `claim` changes what is said of places.
    fn blob(&self, bind: bool, tail: &[u8], claim: impl Fn(&mut Place)) -> (Vec<u8>, Annotations) {
        let split = packed(&self.split);
        let mut toc = self.toc.clone();
        if bind {
            toc["tarSplitDigest"] = json!(Digest::of(&split).to_string());
        }
        let json = [toc.to_string().as_bytes(), tail].concat();
        let toc = packed(&json);
        let mut blob = self.frames.clone();
        let mut skippable = |bytes: &[u8], decoded: usize| {
            blob.extend([0x50, 0x2a, 0x4d, 0x18]);
            blob.extend((bytes.len() as u32).to_le_bytes());
            let part =
                Part { offset: blob.len() as u64, stored: bytes.len() as u64, decoded: decoded as u64 };
            blob.extend(bytes);
            part
        };
        let mut place = Place {
            family: Family::Current,
            digest: Digest::of(&toc),
            toc: Some(skippable(&toc, json.len())),
            split: Some(skippable(&split, self.split.len())),
            size: 0,
        };
        claim(&mut place);
        blob.extend(Footer { toc: place.toc.unwrap(), split: place.split }.to_bytes());
        place.size = blob.len() as u64;
        (blob, place.annotations(false))
    }
}

/// Layers by name, with their annotations and the digest of what they decode to.
fn good() -> Vec<(&'static str, Vec<u8>, Annotations)> {
    let options = Options { level: 3, legacy: false };
    let both = Options { legacy: true, ..options };
    let mut out = Vec::new();
    for (name, options) in [("current", options), ("both-families", both)] {
        let mut blob = Vec::new();
        let written = write(Cursor::new(small()), &mut blob, &options).unwrap();
        out.push((name, blob, written.annotations));
    }
    let mut blob = Vec::new();
    let written = write_stargz(Cursor::new(small()), &mut blob, &Options { level: 6, ..options }).unwrap();
    out.push(("estargz", blob, written.annotations));
    // As before 2024: no tar-split, and a footer of 40 bytes.
    let mut layer = Layer::new();
    layer.toc.as_object_mut().unwrap().remove("tarSplitDigest");
    let json = layer.toc.to_string();
    let toc = packed(json.as_bytes());
    let mut blob = layer.frames.clone();
    let numbers = [blob.len() as u64 + 8, toc.len() as u64, json.len() as u64, 1];
    for bytes in [toc.clone(), [numbers.map(u64::to_le_bytes).concat(), b"GnUlInUx".to_vec()].concat()] {
        blob.extend([0x50, 0x2a, 0x4d, 0x18]);
        blob.extend((bytes.len() as u32).to_le_bytes());
        blob.extend(bytes);
    }
    let part = Part { offset: numbers[0], stored: numbers[1], decoded: numbers[2] };
    let place =
        Place { family: Family::Legacy, digest: Digest::of(&toc), toc: Some(part), split: None, size: 0 };
    out.push(("legacy", blob, place.annotations(false)));
    out
}

/// Layers by name, with the start of the error.
fn bad() -> Vec<(&'static str, Vec<u8>, Annotations, &'static str)> {
    let mut out = Vec::new();
    let mut change = |name, change: fn(&mut Layer), error| {
        let mut layer = Layer::new();
        change(&mut layer);
        let (blob, annotations) = layer.blob(true, b"", |_| ());
        out.push((name, blob, annotations, error));
    };
    change("name-leaves", |l| l.entry(2)["name"] = json!("../x"), "TOC entry \"../x\": the name leads out");
    change("name-twice", |l| l.entry(1)["name"] = json!("text"), "TOC entry \"./text\": the same name twice");
    change(
        "no-digest",
        |l| drop(l.entry(2).as_object_mut().unwrap().remove("digest")),
        "TOC entry \"./text\": a content without a digest",
    );
    change("size-huge", |l| l.entry(2)["size"] = json!(1u64 << 60), "the tar has 1152921504606846976 bytes");
    change(
        "chunk-gap",
        |l| l.entry(4)["chunkOffset"] = json!(201),
        "TOC entry \"./holes\": chunks with a gap",
    );
    change(
        "chunk-sizes",
        |l| l.entry(5)["chunkSize"] = json!(51),
        "TOC entry \"./holes\": chunks that are not as long",
    );
    change(
        "range-backwards",
        |l| l.entry(2)["endOffset"] = json!(1),
        "TOC entry \"./text\": ranges that are empty or run backwards",
    );
    change(
        "range-into-toc",
        |l| l.entry(2)["endOffset"] = json!(l.frames.len() + 1),
        "TOC entry \"./text\": a range that reaches",
    );
    change("range-negative", |l| l.entry(2)["offset"] = json!(-5), "TOC entry \"./text\": a negative number");
    change("other-mode", |l| l.entry(2)["mode"] = json!(0o755), "TOC and tar differ in mode of \"./text\"");
    change("other-size", |l| l.entry(2)["size"] = json!(299), "TOC and tar differ in size of \"./text\"");
    change(
        "missing",
        |l| drop(l.toc["entries"].as_array_mut().unwrap().pop()),
        "TOC and tar differ in its being there of \"./link\"",
    );
    change(
        "additional",
        |l| l.toc["entries"].as_array_mut().unwrap().push(json!({ "type": "fifo", "name": "x" })),
        "TOC and tar differ in the number of members",
    );
    change("unknown-type", |l| l.entry(6)["type"] = json!("door"), "TOC entry \"./link\": unknown type");
    change(
        "other-chunk",
        |l| l.entry(5)["chunkDigest"] = json!(Digest::of(b"another").to_string()),
        "a chunk of \"./holes\" has the digest",
    );
    change(
        "other-content",
        |l| l.entry(3)["digest"] = json!(Digest::of(b"another").to_string()),
        "the content of \"./holes\" has the digest",
    );
    change(
        "split-crc",
        |l| {
            let lines = String::from_utf8(l.split.clone()).unwrap();
            let mut lines: Vec<Value> =
                lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let text = lines.iter_mut().find(|line| line["name"] == "./text").unwrap();
            text["payload"] = json!("AAAAAAAAAAA=");
            l.split = lines.iter().map(|line| line.to_string() + "\n").collect::<String>().into_bytes();
        },
        "TOC and tar differ in the checksum of the content of \"./text\"",
    );
    change(
        "split-cut",
        |l| {
            let half = l.split.len() / 2;
            l.split.truncate(half);
        },
        "tar-split line",
    );
    let layer = Layer::new();
    let mut unbound = Layer::new();
    unbound.toc.as_object_mut().unwrap().remove("tarSplitDigest");
    let mut claims: Vec<Claim> = vec![
        ("split-unbound", unbound.blob(false, b"", |_| ()), "the TOC does not name the digest"),
        (
            "split-other",
            {
                let mut other = Layer::new();
                other.split.extend(b"\n");
                other.blob(false, b"", |_| ())
            },
            "the tar-split has the digest",
        ),
        ("toc-tail", layer.blob(true, b"{}", |_| ()), "the TOC: trailing characters"),
        (
            "toc-digest",
            layer.blob(true, b"", |place| place.digest = Digest::of(b"another")),
            "the TOC has the digest",
        ),
        (
            "toc-shorter",
            layer.blob(true, b"", |place| place.toc.as_mut().unwrap().decoded -= 1),
            "the TOC does not have the length",
        ),
        (
            "toc-longer",
            layer.blob(true, b"", |place| place.toc.as_mut().unwrap().decoded += 1),
            "the TOC does not have the length",
        ),
        (
            "toc-bomb",
            layer.blob(true, &[b' '; 1 << 20], |place| place.toc.as_mut().unwrap().decoded = 2000),
            "the TOC does not have the length",
        ),
        (
            "toc-claims-huge",
            layer.blob(true, b"", |place| place.toc.as_mut().unwrap().decoded = 1 << 40),
            "the TOC has 1099511627776 bytes",
        ),
    ];
    let (mut blob, annotations) = layer.blob(true, b"", |_| ());
    *blob.last_mut().unwrap() = b'y';
    claims.push(("footer-magic", (blob, annotations), "footer: wrong magic"));
    let (mut blob, annotations) = layer.blob(true, b"", |_| ());
    let at = blob.len() - 64;
    blob[at] ^= 1;
    claims.push(("footer-other", (blob, annotations), "footer: it contradicts"));
    out.extend(claims.into_iter().map(|(name, (blob, annotations), error)| (name, blob, annotations, error)));
    out
}

fn store(set: &str, name: &str, blob: &[u8], case: &Value) {
    let folder: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../testkit/golden/chunked", set, name].iter().collect();
    if std::env::var_os("CORACLE_NEW_VECTORS").is_none() || folder.exists() {
        return;
    }
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("blob"), blob).unwrap();
    fs::write(folder.join("case.json"), serde_json::to_string_pretty(case).unwrap() + "\n").unwrap();
}

fn annotations(case: &Value) -> Annotations {
    serde_json::from_value(case["annotations"].clone()).unwrap()
}

#[test]
fn good_layers() {
    let listed = good();
    for (name, blob, annotations) in &listed {
        let diff_id = Digest::of(&decoded(blob)).to_string();
        store("good", name, blob, &json!({ "annotations": annotations, "diff_id": diff_id }));
    }
    let cases = Golden::built_in().cases::<Value>("chunked/good").unwrap();
    assert_eq!(cases.len(), listed.len());
    for case in cases {
        let blob = case.read("blob").unwrap();
        let layer = described(&blob, annotations(&case.json));
        assert_eq!(case.json["diff_id"], Digest::of(&decoded(&blob)).to_string(), "{}", case.name);
        let (_, toc) = toc_of(&blob, &layer, &Limits::default()).unwrap();
        assert!(toc.entries.iter().any(|entry| entry.name == "./holes"), "{}", case.name);
        if case.name != "estargz" {
            let tar = rebuild(&blob, &layer, &Limits::default()).unwrap();
            assert_eq!(case.json["diff_id"], Digest::of(&tar).to_string(), "{}", case.name);
        }
    }
}

/// What other programs made of the same tar.
#[test]
fn layers_of_peers() {
    let contents =
        [Digest::of(&text(1, 300)), Digest::of(&[text(2, 200), vec![0; 3000], text(3, 50)].concat())];
    let cases = Golden::built_in().cases::<Value>("chunked/peers").unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let blob = case.read("blob").unwrap();
        let layer = described(&blob, annotations(&case.json));
        let diff_id = Digest::of(&decoded(&blob)).to_string();
        assert_eq!(case.json["diff_id"], diff_id, "{}", case.name);
        let (place, toc) = toc_of(&blob, &layer, &Limits::default()).unwrap();
        let mut found = Vec::new();
        for (number, entry) in toc.entries.iter().enumerate().filter(|(_, entry)| entry.size > 1) {
            let bytes = content(&blob, place.family, &toc, number).unwrap();
            assert_eq!(Some(Digest::of(&bytes)), entry.digest, "{}: {}", case.name, entry.name);
            found.extend(entry.digest);
        }
        assert_eq!(found, contents, "{}", case.name);
        if place.split.is_some() {
            let tar = rebuild(&blob, &layer, &Limits::default()).unwrap();
            assert_eq!(diff_id, Digest::of(&tar).to_string(), "{}", case.name);
        }
    }
}

#[test]
fn bad_layers() {
    let listed = bad();
    for (name, blob, annotations, error) in &listed {
        store("bad", name, blob, &json!({ "annotations": annotations, "expect_error": error }));
    }
    let cases = Golden::built_in().cases::<Value>("chunked/bad").unwrap();
    assert_eq!(cases.len(), listed.len());
    for case in cases {
        let blob = case.read("blob").unwrap();
        let layer = described(&blob, annotations(&case.json));
        let error = rebuild(&blob, &layer, &Limits::default()).unwrap_err().to_string();
        let expected = case.json["expect_error"].as_str().unwrap();
        assert!(error.starts_with(expected), "{}: {error}", case.name);
    }
}
