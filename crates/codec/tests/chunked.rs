//! Chunked layers: what is written comes back in parts, and what peers wrote is read, or refused.

use std::io::{Cursor, Read, Write};

use coracle_codec::chunked::{
    ChunkReader, ContentWriter, Error, Family, Footer, Layer, Limits, Options, Piece, Place, TarSplit, Toc,
    read_stargz_toc, stargz_footer, write, write_stargz,
};
use coracle_codec::compress;
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_testkit::golden::Golden;
use coracle_testkit::image::{binary, text};
use coracle_testkit::tar_builder::TarBuilder;
use proptest::prelude::*;
use serde_json::Value;

const LEVEL: Options = Options { level: 3, legacy: false };

/// A descriptor of a blob.
pub fn described(blob: &[u8], annotations: impl IntoIterator<Item = (String, String)>) -> Descriptor {
    let mut layer =
        Descriptor::new("application/vnd.oci.image.layer.v1.tar+zstd", Digest::of(blob), blob.len() as u64);
    layer.annotations = annotations.into_iter().collect();
    layer
}

/// The TOC of a layer.
pub fn toc_of(blob: &[u8], layer: &Descriptor, limits: &Limits) -> Result<(Place, Toc), Error> {
    let place = Place::of(layer, limits)?.expect("annotations");
    let documents = place.documents();
    if place.family == Family::Stargz {
        let offset = stargz_footer(&blob[documents.start as usize..], place.size)?;
        let member = &blob[offset as usize..documents.start as usize];
        return read_stargz_toc(member, &place, offset, limits).map(|toc| (place, toc));
    }
    let tail = blob.len().saturating_sub(72);
    Footer::parse(&blob[tail..])?.check(&place)?;
    let range = place.toc.unwrap().range();
    let toc = Toc::read(&blob[range.start as usize..range.end as usize], &place, limits)?;
    Ok((place, toc))
}

/// A layer without its contents.
pub fn layer_of(blob: &[u8], layer: &Descriptor, limits: &Limits) -> Result<(Place, Layer), Error> {
    let (place, toc) = toc_of(blob, layer, limits)?;
    let layer = match place.split {
        Some(part) => {
            let digest = toc.split.ok_or(Error::Unbound)?;
            let range = part.range();
            let stored = &blob[range.start as usize..range.end as usize];
            Layer::new(toc, TarSplit::read(stored, &digest, &part, limits)?, limits)?
        }
        None => Layer::without_split(toc, &place).ok_or(Error::Unbound)?,
    };
    Ok((place, layer))
}

/// The content of an entry, chunk by chunk.
pub fn content(blob: &[u8], family: Family, layer: &Toc, entry: usize) -> Result<Vec<u8>, Error> {
    let entry = &layer.entries[entry];
    let mut out = Vec::new();
    for chunk in &entry.chunks {
        let stored = &blob[chunk.stored.start as usize..chunk.stored.end as usize];
        let mut reader = ChunkReader::new(stored, family, chunk, &entry.name, &Limits::default());
        reader.read_to_end(&mut out)?;
    }
    Ok(out)
}

/// The whole tar, from parts alone.
pub fn rebuild(blob: &[u8], layer: &Descriptor, limits: &Limits) -> Result<Vec<u8>, Error> {
    let (place, layer) = layer_of(blob, layer, limits)?;
    let mut tar = Vec::new();
    for piece in &layer.pieces {
        match piece {
            Piece::Framing(range) => tar.extend_from_slice(&layer.framing[range.clone()]),
            Piece::Glue(range) => {
                let stored = &blob[range.start as usize..range.end as usize];
                compress::decoder(stored, compress::Limits::default())?.1.read_to_end(&mut tar)?;
            }
            Piece::Content { entry, crc } => {
                let bytes = content(blob, place.family, &layer.toc, *entry)?;
                let mut out = ContentWriter::new(&mut tar, &layer.toc.entries[*entry], *crc);
                out.write_all(&bytes)?;
                out.finish()?;
            }
        }
    }
    Ok(tar)
}

/// What an ordinary reader gets.
pub fn decoded(blob: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    compress::decoder(blob, compress::Limits::default()).unwrap().1.read_to_end(&mut tar).unwrap();
    tar
}

/// A tar with a bit of everything that a chunked layer can have.
pub fn rich() -> TarBuilder {
    let mut tar = TarBuilder::new();
    let holes = [text(5, 3000), vec![0; 70_000], text(6, 900), vec![0; 1023], text(7, 40)].concat();
    tar.mtime(1_700_000_000)
        .dir("./")
        .dir("./etc")
        .file("./etc/empty", b"")
        .owner(7, 8)
        .file_mode("./etc/small", 0o4755, text(1, 100))
        .pax([
            ("SCHILY.xattr.user.note", &b"\xff\x00binary"[..]),
            ("mtime", b"1700000000.25"),
            ("atime", b"1600000000.5"),
        ])
        .file("./etc/xattr", b"with an attribute")
        .file("./large", binary(2, 400_000))
        .file("./holes", holes)
        .file("./zeros", vec![0; 5000])
        .symlink("./link", "etc/small")
        .hardlink("./hard", "./large")
        .fifo("./fifo")
        .file(format!("./{}", "long/".repeat(40)), text(3, 700))
        .file("./.wh.gone", b"");
    tar
}

#[test]
fn a_layer_comes_back_from_its_parts() {
    let plain = rich().finish();
    let odd = [&plain[..], b"behind the end", &[0; 700]].concat();
    for tar in [
        plain.clone(),
        odd,
        rich().finish_padded(20),
        rich().finish_without_trailer(),
        TarBuilder::new().finish(),
    ] {
        let mut blob = Vec::new();
        let written = write(Cursor::new(&tar), &mut blob, &LEVEL).unwrap();
        assert_eq!((written.diff_id, written.tar), (Digest::of(&tar), tar.len() as u64));
        assert!(decoded(&blob) == tar, "an ordinary reader gets the tar");
        let layer = described(&blob, written.annotations);
        assert!(rebuild(&blob, &layer, &Limits::default()).unwrap() == tar, "the tar from its parts");
    }
    let mut blob = Vec::new();
    let written = write(Cursor::new(&plain), &mut blob, &LEVEL).unwrap();
    let mut again = Vec::new();
    assert_eq!(write(Cursor::new(&plain), &mut again, &LEVEL).unwrap(), written);
    assert!(blob == again, "the same input gives the same blob");
    let layer = described(&blob, written.annotations.clone());
    let (_, toc) = toc_of(&blob, &layer, &Limits::default()).unwrap();
    let entry = |name: &str| toc.entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(entry("./etc/xattr").mtime.nanos, 250_000_000);
    assert_eq!(entry("./etc/xattr").atime.unwrap().seconds, 1_600_000_000);
    assert_eq!(entry("./etc/xattr").xattrs["user.note"], b"\xff\x00binary");
    assert_eq!(entry("./etc/small").mode, 0o4755);
    let shape: Vec<(u64, bool)> = entry("./holes").chunks.iter().map(|c| (c.size, c.zeros)).collect();
    assert_eq!(shape, [(3000, false), (70_000, true), (1963, false)]);
    assert!(entry("./large").chunks.len() > 1);
    // Both sets of annotations name the same places, and change nothing about the blob.
    let mut both = Vec::new();
    let twice = write(Cursor::new(&plain), &mut both, &Options { legacy: true, ..LEVEL }).unwrap();
    assert!(both == blob);
    assert_eq!((written.annotations.len(), twice.annotations.len()), (3, 5));
    // What podman before 2024 sees: no tar-split, and yet all of the tar.
    let old = twice.annotations.into_iter().filter(|(name, _)| name.starts_with("io.containers."));
    let layer = described(&blob, old);
    let (place, _) = toc_of_unchecked(&blob, &layer);
    assert_eq!(place.family, Family::Legacy);
}

fn toc_of_unchecked(blob: &[u8], layer: &Descriptor) -> (Place, Toc) {
    let place = Place::of(layer, &Limits::default()).unwrap().unwrap();
    let range = place.toc.unwrap().range();
    let stored = &blob[range.start as usize..range.end as usize];
    let toc = Toc::read(stored, &place, &Limits::default()).unwrap();
    (place, toc)
}

#[test]
fn estargz_comes_back_as_far_as_it_goes() {
    let mut tar = rich();
    tar.file("./very-large", binary(9, 9 << 20));
    let plain = tar.finish();
    let mut blob = Vec::new();
    let written = write_stargz(Cursor::new(&plain), &mut blob, &LEVEL).unwrap();
    let outcome = decoded(&blob);
    assert_eq!((written.diff_id, written.tar), (Digest::of(&outcome), outcome.len() as u64));
    // The members stand in it as they were, between the landmark and the TOC.
    let end = plain.len() - 1024;
    assert!(outcome[1024..1024 + end] == plain[..end]);
    let layer = described(&blob, written.annotations);
    let (place, toc) = toc_of(&blob, &layer, &Limits::default()).unwrap();
    assert_eq!(toc.entries.len() as u64, written.entries);
    for (number, entry) in toc.entries.iter().enumerate().filter(|(_, entry)| !entry.chunks.is_empty()) {
        let bytes = content(&blob, place.family, &toc, number).unwrap();
        assert_eq!(Some(Digest::of(&bytes)), entry.digest, "{}", entry.name);
    }
    let large = toc.entries.iter().find(|entry| entry.name == "./very-large").unwrap();
    let sizes: Vec<u64> = large.chunks.iter().map(|chunk| chunk.size).collect();
    assert_eq!(sizes, [4 << 20, 4 << 20, 1 << 20]);
    assert!(Layer::without_split(toc, &place).is_none(), "headers are not to be had by themselves");
}

#[test]
fn what_a_toc_cannot_say_is_refused() {
    let cases: [(&str, TarBuilder); 5] = [
        ("no word for its type", TarBuilder::new().sparse_gnu("s", 100_000, &[(0, b"x")]).clone()),
        ("no word for its type", TarBuilder::new().pax_global([("comment", "x")]).file("a", b"").clone()),
        ("stands in the tar twice", TarBuilder::new().file("a", b"1").file("./a", b"2").clone()),
        ("out of the tree", TarBuilder::new().file("a/../b", b"1").clone()),
        ("no UTF-8", TarBuilder::new().file(b"\xff", b"1").clone()),
    ];
    for (what, tar) in cases {
        for result in [
            write(Cursor::new(tar.finish()), std::io::sink(), &LEVEL),
            write_stargz(Cursor::new(tar.finish()), std::io::sink(), &LEVEL),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
            assert!(error.to_string().contains(what), "{error}: not {what}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn any_files_come_back(files in prop::collection::vec((0u64..1000, 0usize..200_000, 0usize..5000), 0..6)) {
        let mut tar = TarBuilder::new();
        for (number, (seed, size, zeros)) in files.into_iter().enumerate() {
            let content = [binary(seed, size), vec![0; zeros], text(seed, size / 7)].concat();
            tar.file(format!("f{number}"), content);
        }
        let tar = tar.finish();
        let mut blob = Vec::new();
        let written = write(Cursor::new(&tar), &mut blob, &LEVEL).unwrap();
        let layer = described(&blob, written.annotations);
        prop_assert!(rebuild(&blob, &layer, &Limits::default()).unwrap() == tar);
    }
}

fn annotations(inputs: &Value) -> Vec<(String, String)> {
    let of = |value: &Value| value.as_str().unwrap().to_owned();
    inputs["annotations"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), of(value))).collect()
}

#[expect(clippy::print_stderr, reason = "a test that was left out must say so")]
fn say_skipped() {
    eprintln!("skipped: no external golden data");
}

/// Blobs of skopeo 1.9, skopeo 1.18 and ctr-remote, if somebody has them.
#[test]
fn layers_of_peers() {
    let Some(golden) = Golden::external() else {
        say_skipped();
        return;
    };
    let limits = Limits::default();
    let mut seen = 0;
    for case in golden.cases::<Value>("zstd-chunked").unwrap() {
        let blob = case.read("blob").unwrap();
        let layer = described(&blob, annotations(&case.json["inputs"]));
        let (place, toc) = toc_of(&blob, &layer, &limits).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        for (number, entry) in toc.entries.iter().enumerate().filter(|(_, entry)| entry.size > 0) {
            let bytes = content(&blob, place.family, &toc, number).unwrap();
            assert_eq!(Some(Digest::of(&bytes)), entry.digest, "{}: {}", case.name, entry.name);
        }
        let expect = &case.json["expect"];
        let diff_id = expect["diff_id"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| expect["decoded"]["sha256"].as_str().map(|hex| format!("sha256:{hex}")));
        match rebuild(&blob, &layer, &limits) {
            Ok(tar) => assert_eq!(Some(Digest::of(&tar).to_string()), diff_id, "{}", case.name),
            Err(Error::Unbound) => assert!(case.name.contains("stargz"), "{}", case.name),
            Err(error) => panic!("{}: {error}", case.name),
        }
        seen += 1;
    }
    assert_eq!(seen, 7);
    // Our own writer cuts the contents of the same tar where skopeo 1.18 has cut them.
    let root = golden.root().join("zstd-chunked");
    let tar = decoded(&std::fs::read(root.join("layer.tar.zst")).unwrap());
    let mut blob = Vec::new();
    let written = write(Cursor::new(&tar), &mut blob, &LEVEL).unwrap();
    let (_, ours) = toc_of(&blob, &described(&blob, written.annotations), &limits).unwrap();
    let theirs = std::fs::read(root.join("new-skopeo-1.18/toc.json")).unwrap();
    let theirs = Toc::parse(&theirs, Family::Current, 1 << 40, &limits).unwrap();
    assert_eq!(ours.entries.len(), theirs.entries.len());
    let chunks = |toc: &Toc| -> Vec<_> {
        let all = toc.entries.iter().flat_map(|entry| &entry.chunks);
        all.map(|chunk| (chunk.offset, chunk.size, chunk.digest, chunk.zeros)).collect()
    };
    assert_eq!(chunks(&ours), chunks(&theirs));
    for (ours, theirs) in ours.entries.into_iter().zip(theirs.entries) {
        let without = |entry: coracle_codec::chunked::Entry| coracle_codec::chunked::Entry {
            chunks: Vec::new(),
            user_name: String::new(),
            group_name: String::new(),
            ..entry
        };
        assert_eq!(without(ours), without(theirs));
    }
}

/// Damaged and hostile variants of a blob of skopeo 1.18.
#[test]
fn lies_of_peers() {
    let Some(golden) = Golden::external() else {
        say_skipped();
        return;
    };
    let base = std::fs::read(golden.root().join("zstd-chunked/new-skopeo-1.18/blob")).unwrap();
    let mut seen = 0;
    for case in golden.cases::<Value>("zstd-chunked/bad").unwrap() {
        let first = &case.json["inputs"]["blob"]["join"][0]["bytes"][1];
        let mut blob = base[..first.as_u64().unwrap() as usize].to_vec();
        blob.extend(case.read("tail").unwrap());
        let layer = described(&blob, annotations(&case.json["inputs"]));
        let diff_id = case.json["inputs"]["config_diff_id"].as_str().unwrap();
        let result = rebuild(&blob, &layer, &Limits::default());
        let good = result.as_ref().is_ok_and(|tar| Digest::of(tar).to_string() == diff_id);
        assert_eq!(good, case.name == "control", "{}: {:?}", case.name, result.err());
        seen += 1;
    }
    assert_eq!(seen, 31);
}
