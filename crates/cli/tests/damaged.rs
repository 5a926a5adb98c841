//! Inputs that are cut off, damaged, of another kind, or not there.

use std::fs;

use coracle_testkit::image::{Rng, text};
use coracle_testkit::pair::pair;
use coracle_testkit::tar_builder::TarBuilder;

use crate::place::{COMPRESSORS, Place, compress, digest};

/// A tar of two files with what is at each of some offsets, and whether a reader can take it for a whole one when it
/// is cut there.
fn cuts() -> (Vec<u8>, Vec<(&'static str, usize, bool)>) {
    let tar = TarBuilder::new().file("a", text(1, 3000)).file("b", text(2, 700)).finish();
    let second = 512 + 3072;
    let end = second + 512 + 1024;
    assert_eq!(tar.len(), end + 1024);
    let cuts = vec![
        ("nothing", 0, true),
        ("the first byte", 1, false),
        ("inside the first header", 300, false),
        ("after the first header", 512, false),
        ("inside the first content", 512 + 1500, false),
        // As Go's archive/tar reads it: all of the content is there.
        ("inside the padding", 512 + 3030, true),
        ("between the members", second, true),
        ("inside the second header", second + 511, false),
        ("before the last byte of content", second + 512 + 699, false),
        ("before the end blocks", end, true),
        ("inside the first end block", end + 100, false),
        ("between the end blocks", end + 512, true),
        ("inside the second end block", end + 1000, false),
        ("everything", end + 1024, true),
    ];
    (tar, cuts)
}

#[test]
fn cut_archives_are_refused_or_rebuilt_as_they_are() {
    let (tar, cuts) = cuts();
    let other = TarBuilder::new().file("a", text(3, 2000)).finish();
    for (what, at, whole) in cuts {
        let place = Place::new();
        println!("cut at {what}");
        place.put("in/cut", &tar[..at]).put("in/other", &other);
        for (old, new) in [("cut", "other"), ("other", "cut")] {
            let line = format!("diff in/{old} in/{new} out/delta");
            if whole {
                let want = place.digest(&format!("in/{new}"));
                place.ok(&line);
                place.ok(&format!("patch --expect {want} out/delta in/{old} out/new"));
                fs::remove_file(place.path("out/delta")).unwrap();
                fs::remove_file(place.path("out/new")).unwrap();
            } else {
                let said = place.fails(&line, 4, "in/cut: ");
                assert!(said.contains("hint: the archive is incomplete; fetch it again"), "{said}");
            }
        }
        if !whole {
            place.fails("inspect in/cut", 4, "in/cut: ");
        }
    }
}

#[test]
fn an_existing_delta_stays_when_making_another_fails() {
    let (tar, _) = cuts();
    let place = Place::new();
    place.put("in/old", &tar).put("in/cut", &tar[..600]).put("out/delta", "the old delta");
    place.fails("diff in/old in/cut out/delta", 4, "in/cut: ");
}

#[test]
fn cut_compressed_archives_are_refused() {
    let tar = pair(20, 60_000).new;
    let place = Place::new();
    place.put("in/old", &tar);
    for name in COMPRESSORS {
        let packed = compress(name, &tar);
        let mut rng = Rng::new(1);
        // In the header, somewhere, and in what stands at the end.
        let mut cuts = vec![12, packed.len() - 1, packed.len() - 4, packed.len() - 9];
        cuts.extend((0..8).map(|_| rng.below(packed.len() - 20) + 12));
        for at in cuts {
            place.put("in/cut", &packed[..at]);
            let said = place.fails("diff in/old in/cut out/delta", 4, "in/cut: ");
            assert!(said.contains("hint: "), "{name} cut at {at} of {}: {said}", packed.len());
        }
    }
}

#[test]
fn damaged_compressed_archives_are_refused() {
    let tar = pair(21, 60_000).new;
    let place = Place::new();
    place.put("in/old", &tar);
    let mut refused = 0;
    for name in COMPRESSORS {
        let packed = compress(name, &tar);
        let mut rng = Rng::new(2);
        let mut places: Vec<usize> = (0..16).map(|_| rng.below(packed.len() - 20) + 12).collect();
        // Checksums stand at or near the end.
        places.extend([packed.len() - 1, packed.len() - 2, packed.len() - 6, packed.len() - 10]);
        for at in places {
            let mut damaged = packed.clone();
            damaged[at] ^= 1 << rng.below(8);
            place.put("in/damaged", damaged);
            let ran = place.run("inspect --json in/damaged");
            if ran.code == Some(0) {
                // Bits without a meaning: then it is the same tar all the same.
                assert!(ran.text().contains(&digest(&tar)), "{name}, byte {at}: {ran:?}");
            } else {
                place.fails("diff in/old in/damaged out/delta", 4, "in/damaged: ");
                place.fails("diff in/damaged in/old out/delta", 4, "in/damaged: ");
                refused += 1;
            }
        }
    }
    assert!(refused >= 72, "{refused} of 80");
}

#[test]
fn what_is_no_archive_is_refused() {
    let tar = pair(22, 30_000).new;
    let mut header = tar.clone();
    header[150] ^= 1;
    let place = Place::new();
    place.put("in/tar", &tar);
    for (what, content) in [
        ("random bytes", Rng::new(3).bytes(5000)),
        ("text", text(4, 5000)),
        ("damaged header", header),
        ("compressed text", compress("gzip", &text(5, 5000))),
        ("a delta", b"tardf1\n\0and so on, for more than one block of a tar".repeat(20)),
    ] {
        place.put("in/other", content);
        for line in ["diff in/other in/tar out/delta", "diff in/tar in/other out/delta"] {
            let said = place.fails(line, 4, "in/other: ");
            assert!(said.contains("hint: is this a tar archive?"), "{what}: {said}");
        }
        if what != "a delta" {
            place.fails("patch in/other in/tar out/new", 4, "in/other: not a tar-diff delta");
            place.fails("inspect in/other", 4, "in/other: neither a delta nor an archive");
        }
    }
    place.fails("patch in/tar in/tar out/new", 4, "hint: a tar-diff delta starts with tardf1 or tardf2");
}

#[test]
fn what_is_not_there_or_a_directory_is_named() {
    let pair = pair(23, 30_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    place.ok("diff in/old in/new in/delta");
    for line in [
        "diff in/absent in/new out/x",
        "diff in/old in/absent in/new out/x",
        "diff in/old in/absent out/x",
        "patch in/absent in/old out/x",
        "patch in/delta in/absent out/x",
        "inspect in/absent",
        "explain in/absent in/new in/delta",
        "explain in/old in/absent in/delta",
        "explain in/old in/new in/absent",
    ] {
        let said = place.fails(line, 3, "in/absent: ");
        assert!(said.contains("hint: check the path"), "{said}");
    }
    for line in [
        "diff in in/new out/x",
        "diff in/old in out/x",
        "patch in in/old out/x",
        "inspect in",
        "explain in/old in in/delta",
        "explain in/old in/new in",
    ] {
        let said = place.fails(line, 3, " in: ");
        assert!(said.to_lowercase().contains("is a directory"), "{said}");
    }
    let said = place.fails("patch in/delta in/old in out/x", 2, " in: a directory");
    assert!(said.contains("hint: give one directory, or archives only"), "{said}");
    // A directory that is not the tree.
    place.fails("patch in/delta tmp out/x", 5, "not found");
}

/// Names are shown without what a terminal would act on.
#[test]
fn an_error_is_one_line_whatever_the_name() {
    let place = Place::new();
    let name = "in/\u{1b}[31mred\nline";
    place.put("in/tar", "");
    let mut command = place.command("coracle diff in/tar");
    let output =
        coracle_testkit::oracle::run_bounded(command.args([name, "out/delta"]), crate::place::LIMIT).unwrap();
    let ran = crate::place::Ran::new("diff", output);
    place.check_failure(&ran, 3, "in/?[31mred?line: ");
}

/// Nothing that cannot be decoded within the bounds of an archive is a matter of the delta's memory.
#[test]
fn a_window_beyond_the_bound_of_archives_is_refused_with_a_hint_that_helps() {
    let tar = TarBuilder::new().file("a", text(1, 3000)).finish();
    let mut command = std::process::Command::new(coracle_testkit::oracle::tool("zstd").unwrap());
    command.args(["-c", "--long=31"]);
    let packed =
        coracle_testkit::oracle::run_fed(&mut command, tar.clone(), crate::place::LIMIT).unwrap().stdout;
    let place = Place::new();
    place.put("in/old", tar).put("in/packed", packed);
    let said = place.fails("diff in/old in/packed out/delta", 6, "in/packed: zstd window is larger than");
    assert!(said.contains("hint: decompress it first"), "{said}");
}
