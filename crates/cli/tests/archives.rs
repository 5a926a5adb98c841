//! Compressed archives, several old archives, whiteouts, standard input and output.

use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::pair::{Pair, pair};
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::tree::{extract, extract_layers};

use crate::place::{COMPRESSORS, Place, compress, digest};

/// A place with `in/old`, `in/new` and `in/delta` between them.
fn with_delta(pair: &Pair) -> Place {
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    place.ok("diff in/old in/new in/delta");
    place
}

#[test]
fn compression_changes_nothing_in_the_delta() {
    let pair = pair(1, 600_000);
    let place = with_delta(&pair);
    let want = place.digest("in/new");
    for name in COMPRESSORS {
        place.put("in/old.x", compress(name, &pair.old)).put("in/new.x", compress(name, &pair.new));
        place.ok("diff in/old.x in/new.x out/delta");
        assert!(place.read("out/delta") == place.read("in/delta"), "{name}");
        place.ok(&format!("patch --expect {want} out/delta in/old.x out/new"));
        assert!(place.read("out/new") == pair.new, "{name}");
        let found = place.json("inspect in/new.x");
        assert_eq!((&found["compression"], &found["diff_id"]), (&name.into(), &want.as_str().into()));
        assert_eq!(place.files().len(), 2, "{name}");
    }
}

#[test]
fn streams_in_several_parts_are_one_archive() {
    let pair = pair(2, 200_000);
    let place = with_delta(&pair);
    let (head, tail) = pair.old.split_at(70_001);
    for name in COMPRESSORS {
        place.put("in/old.x", [compress(name, head), compress(name, tail)].concat());
        place.ok("diff in/old.x in/new out/delta");
        assert!(place.read("out/delta") == place.read("in/delta"), "{name}");
    }
}

#[test]
fn a_delta_applies_to_the_tree_and_to_the_archive() {
    let pair = pair(3, 500_000);
    let place = with_delta(&pair);
    let tree = extract(&pair.old).unwrap();
    for source in ["in/old", tree.path().to_str().unwrap()] {
        let ran = place.ok(&format!("patch in/delta {source} out/new"));
        assert!(place.read("out/new") == pair.new);
        assert!(ran.text().contains(&digest(&pair.new)), "{ran:?}");
        assert!(ran.text().contains("not compared"), "{ran:?}");
        let ran = place.ok(&format!("patch in/delta {source} out/new --expect {}", digest(&pair.new)));
        assert!(ran.text().contains("as expected"), "{ran:?}");
    }
}

/// Three layers: the second and the third remove files of the ones below.
fn layers() -> ([Vec<u8>; 3], Vec<u8>) {
    let program = binary(1, 90_000);
    let base = TarBuilder::new()
        .file("etc/kept", text(1, 9_000))
        .file("etc/gone", text(2, 9_000))
        .file("opt/app/one", text(3, 9_000))
        .file("opt/app/two", text(4, 9_000))
        .file("usr/program", &program)
        .finish();
    let middle = TarBuilder::new()
        .file("etc/.wh.gone", "")
        .file("opt/app/.wh..wh..opq", "")
        .file("opt/app/three", text(5, 9_000))
        .file("usr/program", mutate(&program, 1, 20))
        .finish();
    let top = TarBuilder::new().file("opt/.wh.app", "").file("srv/page", text(6, 9_000)).finish();
    // Everything comes again, also what was removed.
    let new = TarBuilder::new()
        .file("a", text(1, 9_000))
        .file("b", text(2, 9_000))
        .file("c", text(3, 9_000))
        .file("d", text(5, 9_000))
        .file("e", text(6, 9_000))
        .file("usr/program", mutate(&program, 2, 20))
        .finish();
    ([base, middle, top], new)
}

fn sources(place: &Place, delta: &str) -> Vec<String> {
    let found = place.json(&format!("inspect {delta}"));
    let mut paths: Vec<String> =
        found["sources"].as_array().unwrap().iter().map(|s| s["path"].as_str().unwrap().to_owned()).collect();
    paths.sort();
    paths
}

#[test]
fn several_old_archives_are_layers_with_whiteouts() {
    let (old, new) = layers();
    let place = Place::new();
    for (name, content) in ["in/base", "in/middle", "in/top"].iter().zip(&old) {
        place.put(name, content);
    }
    place.put("in/new", &new);
    let all = "in/base in/middle in/top";
    let left = ["etc/kept", "srv/page", "usr/program"];
    let with_gone = ["etc/gone", "etc/kept", "opt/app/one", "opt/app/three", "srv/page", "usr/program"];

    let tree = extract_layers(&old, true).unwrap();
    for options in ["", "--whiteouts auto", "--whiteouts on"] {
        place.ok(&format!("diff {options} {all} in/new out/delta"));
        assert_eq!(sources(&place, "out/delta"), left, "{options}");
        for source in [all, tree.path().to_str().unwrap()] {
            place.ok(&format!("patch --expect {} out/delta {source} out/new", digest(&new)));
            assert!(place.read("out/new") == new);
        }
    }

    // Off: whiteouts are files like others, and the removed ones are still there.
    place.ok(&format!("diff --whiteouts off {all} in/new out/delta"));
    assert_eq!(sources(&place, "out/delta"), with_gone);
    let everything = extract_layers(&old, false).unwrap();
    place.ok(&format!("patch --expect {} out/delta {} out/new", digest(&new), everything.path().display()));
    let ran = place.fails(
        &format!("patch out/delta {} out/other", tree.path().display()),
        5,
        "source file \"etc/gone\": not found",
    );
    assert!(ran.contains("hint: the source is not the one"), "{ran}");

    // One archive is one layer of which nobody knows what is below.
    let alone = TarBuilder::new().file("gone", text(2, 9_000)).file(".wh.gone", "").finish();
    place.put("in/alone", &alone);
    place.ok("diff in/alone in/new out/delta");
    assert_eq!(sources(&place, "out/delta"), ["gone"]);
    let tree = extract(&alone).unwrap();
    place.ok(&format!("patch --expect {} out/delta {} out/new", digest(&new), tree.path().display()));
}

#[test]
fn a_dash_is_standard_input_or_output() {
    let pair = pair(4, 300_000);
    let place = with_delta(&pair);
    let delta = place.read("in/delta");
    let packed = compress("gzip", &pair.new);

    for new in [pair.new.clone(), packed] {
        place.fed("diff in/old - out/delta", new).success();
        assert!(place.read("out/delta") == delta);
    }
    for (line, input) in [
        ("diff - in/new out/delta", &pair.old),
        ("diff /dev/stdin in/new out/delta", &pair.old),
        ("diff in/old /dev/stdin out/delta", &pair.new),
    ] {
        place.fed(line, input.clone()).success();
        assert!(place.read("out/delta") == delta, "{line}");
    }

    let ran = place.ok("diff in/old in/new -");
    assert!(ran.stdout == delta);
    assert!(ran.stderr.contains(&digest(&pair.new)), "{ran:?}");
    assert_eq!(place.ok("diff -q in/old in/new -").stderr, "");

    for input in ["-", "/dev/stdin"] {
        place.fed(&format!("patch {input} in/old out/new"), delta.clone()).success();
        assert!(place.read("out/new") == pair.new);
    }
    let told = place.fed("inspect --json /dev/stdin", pair.new.clone()).success();
    assert!(told.text().contains(&digest(&pair.new)), "{told:?}");
    let ran = place.ok("patch in/delta in/old -");
    assert!(ran.stdout == pair.new);
    assert!(ran.stderr.contains(&digest(&pair.new)), "{ran:?}");
    let ran = place.fed("patch -q - in/old -", delta.clone()).success();
    assert!(ran.stdout == pair.new && ran.stderr.is_empty(), "{}", ran.stderr);
    let ran = place.fed("patch in/delta - out/new", pair.old.clone()).success();
    assert!(ran.text().contains(&digest(&pair.new)), "{ran:?}");

    place.fed("explain in/old in/new -", delta).success();
    assert_eq!(place.files().len(), 2, "out/delta and out/new");
}

#[test]
fn a_dash_twice_is_refused() {
    let pair = pair(5, 50_000);
    let place = with_delta(&pair);
    for line in ["diff - - out/delta", "patch - - out/new", "explain - in/new -"] {
        let before = place.files();
        let ran = place.fed(line, pair.old.clone());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        place.check_failure(&ran, 2, "standard input");
        place.check_unchanged(line, &before);
    }
}

#[test]
fn archives_at_their_ends() {
    let some = TarBuilder::new().file("a", text(1, 3_000)).finish();
    let none = TarBuilder::new().finish();
    let cut = &some[..some.len() - 1024];
    let odd = TarBuilder::new().file("a", text(1, 3_000)).finish_with(b"what follows belongs to the file");
    for (what, old, new) in [
        ("empty files", &[][..], &[][..]),
        ("from nothing", &[], &some),
        ("to nothing", &some, &[]),
        ("no members", &none, &none),
        ("the same", &some, &some),
        ("no trailer", &some, cut),
        ("bytes behind the end", &some, &odd),
        ("bytes behind the old end", &odd, &some),
    ] {
        let place = Place::new();
        place.put("in/old", old).put("in/new", new);
        place.ok("diff in/old in/new out/delta");
        place.ok(&format!("patch --expect {} out/delta in/old out/new", digest(new)));
        assert!(place.read("out/new") == new, "{what}");
    }
}
