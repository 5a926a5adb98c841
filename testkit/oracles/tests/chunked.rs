//! The crate `zstd-chunked` reads the layers that our writer writes as we do.

use std::io::{Cursor, Read};

use coracle_codec::chunked::{Layer, Limits, Options, Piece, Place, TarSplit, Toc, write};
use coracle_codec::compress;
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_oracles::zstd_chunked_view;
use coracle_testkit::golden::Golden;
use coracle_testkit::image::{Rng, binary, text};
use coracle_testkit::pair::pair;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

/// Of all that a chunked layer can have, something.
fn rich() -> Vec<u8> {
    let holes = [text(5, 3000), vec![0; 70_000], text(6, 900), vec![0; 1023], text(7, 40)].concat();
    TarBuilder::new()
        .mtime(1_700_000_000)
        .dir("./")
        .dir("./etc")
        .file("./etc/empty", b"")
        .owner(7, 8)
        .file_mode("./etc/small", 0o4755, text(1, 100))
        .pax([("SCHILY.xattr.user.note", &b"\xff\x00binary"[..]), ("mtime", b"1700000000.25")])
        .file("./etc/xattr", b"with an attribute")
        .file("./large", binary(2, 400_000))
        .file("./holes", holes)
        .file("./zeros", vec![0; 5000])
        .symlink("./link", "etc/small")
        .hardlink("./hard", "./large")
        .file(format!("./{}", "long".repeat(50)), b"a long name")
        .finish_padded(20)
}

fn check(what: &str, tar: &[u8], options: &Options) {
    let mut blob = Vec::new();
    let written = write(Cursor::new(tar), &mut blob, options).unwrap();
    let view = zstd_chunked_view(&blob, &written.annotations).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(view.tar == tar, "{what}: another tar");
    // What the two say of the contents.
    let mut layer =
        Descriptor::new("application/vnd.oci.image.layer.v1.tar+zstd", Digest::of(&blob), blob.len() as u64);
    layer.annotations = written.annotations;
    let limits = Limits::default();
    let place = Place::of(&layer, &limits).unwrap().unwrap();
    let part = |range: std::ops::Range<u64>| &blob[range.start as usize..range.end as usize];
    let toc = Toc::read(part(place.toc.unwrap().range()), &place, &limits).unwrap();
    let ours: Vec<_> = toc
        .entries
        .iter()
        .filter(|entry| !entry.chunks.is_empty())
        .map(|entry| {
            let range = entry.chunks[0].stored.start..entry.chunks[entry.chunks.len() - 1].stored.end;
            (range, entry.digest.unwrap().to_string(), entry.size)
        })
        .collect();
    assert_eq!(view.contents, ours, "{what}");
    for (range, digest, _) in &view.contents {
        let mut content = Vec::new();
        compress::decoder(part(range.clone()), compress::Limits::default())
            .unwrap()
            .1
            .read_to_end(&mut content)
            .unwrap();
        assert_eq!(Digest::of(&content).to_string(), *digest, "{what}");
    }
    // And of what stands between them.
    let split = place.split.unwrap();
    let framing = TarSplit::read(part(split.range()), &toc.split.unwrap(), &split, &limits).unwrap();
    let layer = Layer::new(toc, framing, &limits).unwrap();
    let framing: usize = layer
        .pieces
        .iter()
        .map(|piece| if let Piece::Framing(range) = piece { range.len() } else { 0 })
        .sum();
    let contents: u64 = view.contents.iter().map(|(.., size)| size).sum();
    assert_eq!(framing as u64 + contents, tar.len() as u64, "{what}");
    let [document, lines] = &view.documents;
    let document: Value = serde_json::from_slice(document).unwrap();
    assert_eq!((&document["version"], lines.last()), (&1.into(), Some(&b'\n')), "{what}");
}

#[test]
fn the_crate_reads_our_layers() {
    let options = Options { level: 3, legacy: false };
    check("rich", &rich(), &options);
    check("rich, both families", &rich(), &Options { legacy: true, level: 9 });
    check("empty", &TarBuilder::new().finish(), &options);
    check("one file", &TarBuilder::new().file("a", b"1").finish(), &options);
    for seed in 0..4 {
        check(&format!("pair {seed}"), &pair(seed, 300_000 << seed).new, &options);
    }
    // Sizes around blocks, chunks and holes.
    let mut rng = Rng::new(7);
    for round in 0..40 {
        let mut tar = TarBuilder::new();
        for file in 0..rng.below(9) {
            let near = [0, 1, 511, 512, 513, 1023, 1024, 1025, 65_536, 200_000][rng.below(10)];
            let mut content = binary(round * 10 + file as u64, near);
            if rng.below(3) == 0 {
                content.extend(vec![0; rng.below(5000)]);
            }
            tar.file(format!("f{file}"), content);
        }
        check(&format!("round {round}"), &tar.finish(), &options);
    }
}

/// The stored ones, too: those of the current family come back, and those that are damaged where the crate looks do not.
#[test]
fn the_crate_reads_the_stored_layers() {
    for case in Golden::built_in().cases::<Value>("chunked/good").unwrap() {
        let blob = case.read("blob").unwrap();
        let annotations = serde_json::from_value(case.json["annotations"].clone()).unwrap();
        match (case.name.as_str(), zstd_chunked_view(&blob, &annotations)) {
            ("current" | "both-families", view) => {
                let tar = view.unwrap_or_else(|e| panic!("{}: {e}", case.name)).tar;
                assert_eq!(Digest::of(&tar).to_string(), case.json["diff_id"], "{}", case.name);
            }
            (_, view) => assert!(view.unwrap_err().contains("annotations"), "{}: no tar-split", case.name),
        }
    }
}
