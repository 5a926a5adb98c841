//! The names `tar-diff` and `tar-patch`: what scripts written for upstream's programs rely on.

use std::fs;
use std::os::unix::fs::symlink;

use coracle_testkit::image::{Rng, text};
use coracle_testkit::oracle::run_bounded;
use coracle_testkit::pair::pair;
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::tree::{extract, extract_layers};

use crate::place::{LIMIT, PROGRAM, Place, Ran, compress};

fn place() -> Place {
    let place = Place::new();
    for name in ["tar-diff", "tar-patch"] {
        symlink(PROGRAM, place.path(name)).unwrap();
    }
    place
}

/// Two archives with programs of more than 1 MiB, a tree of the old one in `tree`, and the delta of defaults.
fn with_archives() -> (Place, tempfile::TempDir) {
    let pair = pair(70, 3_600_000);
    let place = place();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    let tree = extract(&pair.old).unwrap();
    symlink(tree.path(), place.path("tree")).unwrap();
    (place, tree)
}

fn check_applies(place: &Place, what: &str) {
    let ran = place.run_as("tar-patch out/delta tree out/new").success();
    assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    assert!(place.read("out/new") == place.read("in/new"), "{what}");
    fs::remove_file(place.path("out/new")).unwrap();
}

#[test]
fn versions() {
    let place = place();
    for name in ["tar-diff", "tar-patch"] {
        for flag in ["-version", "--version", "-version=true", "-version a b c"] {
            let ran = place.run_as(&format!("{name} {flag}")).success();
            let number = ran.text();
            let number = number.strip_prefix(&format!("{name} v")).unwrap_or_else(|| panic!("{ran:?}"));
            assert!(number.starts_with(|c: char| c.is_ascii_digit()) && number.ends_with('\n'), "{ran:?}");
            assert!(ran.stderr.is_empty(), "{ran:?}");
        }
    }
}

#[test]
fn usage() {
    let place = place();
    for (line, code) in [
        ("tar-diff", 1),
        ("tar-diff a", 1),
        ("tar-diff a b", 1),
        ("tar-diff -version=false a b", 1),
        ("tar-diff -no-such-flag a b c", 2),
        ("tar-diff --no-such-flag=1 a b c", 2),
        ("tar-diff -max-bsdiff-size", 2),
        ("tar-diff -max-bsdiff-size much a b c", 2),
        ("tar-diff -compression-level 1x a b c", 2),
        ("tar-diff -apply-whiteouts=perhaps a b c", 2),
        ("tar-diff -binary-diff xdelta a b c", 1),
        ("tar-diff -zstd-diff-window 3 a b c", 1),
        ("tar-diff -h", 0),
        ("tar-diff --help", 0),
        ("tar-diff -help", 0),
        ("tar-patch", 1),
        ("tar-patch a b", 1),
        ("tar-patch a b c d", 1),
        ("tar-patch -no-such-flag a b c", 2),
        ("tar-patch -h", 0),
    ] {
        let ran = place.run_as(line);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.is_empty(), "{ran:?}");
        let name = line.split(' ').next().unwrap();
        assert!(ran.stderr.contains(&format!("Usage: {name} ")), "{ran:?}");
    }
}

#[test]
fn flags_in_all_their_forms() {
    let (place, _tree) = with_archives();
    // The fastest compression, as long as that is not what is looked at.
    const FAST: &str = "tar-diff -compression-level 1";
    place.run_as(&format!("{FAST} in/old in/new out/default")).success();
    for (name, value) in [
        ("binary-diff", "bsdiff"),
        ("binary-diff", "zstd"),
        ("binary-diff", "auto"),
        ("compression-level", "9"),
        ("ignore-source-prefix", "usr/lib"),
        ("max-bsdiff-size", "1"),
        ("max-zstd-diff-size", "1"),
        ("source-prefix", "usr/bin"),
        ("tmp-dir", "tmp"),
        ("zstd-diff-level", "3"),
        ("zstd-diff-window", "8"),
    ] {
        let mut first = None;
        for form in [
            format!("-{name} {value}"),
            format!("-{name}={value}"),
            format!("--{name} {value}"),
            format!("--{name}={value}"),
        ] {
            let ran = place.run_as(&format!("{FAST} {form} in/old in/new out/delta")).success();
            assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
            let delta = place.read("out/delta");
            match &first {
                None => {
                    check_applies(&place, &form);
                    // What only steers zstd, or temporary files, changes nothing here. The rolling hash may find
                    // the same matches.
                    if name != "max-bsdiff-size" {
                        let idle = value == "bsdiff" || name.contains("zstd") || name == "tmp-dir";
                        assert_eq!(delta == place.read("out/default"), idle, "{form}");
                    }
                    let version =
                        if matches!(value, "zstd" | "auto") { b"tardf2\n\0" } else { b"tardf1\n\0" };
                    assert_eq!(&delta[..8], version, "{form}");
                    first = Some(delta);
                }
                Some(first) => assert!(delta == *first, "{form}"),
            }
        }
    }
    // With frames, their settings count.
    let mut deltas = Vec::new();
    for options in ["", "-zstd-diff-level 19", "-zstd-diff-window 1", "-max-zstd-diff-size 1"] {
        place.run_as(&format!("{FAST} -binary-diff zstd {options} in/old in/new out/delta")).success();
        check_applies(&place, options);
        deltas.push(place.read("out/delta"));
    }
    assert!(deltas[1..].iter().all(|delta| *delta != deltas[0]), "{:?}", deltas.iter().map(Vec::len));
}

#[test]
fn whiteouts_and_prefixes() {
    let place = place();
    let olds = [
        TarBuilder::new().file("data/a", text(1, 5000)).file("data/b", text(2, 5000)).finish(),
        TarBuilder::new().file("data/.wh.a", "").file("other/c", text(3, 5000)).finish(),
    ];
    let new =
        TarBuilder::new().file("1", text(1, 5000)).file("2", text(2, 5000)).file("3", text(3, 5000)).finish();
    place.put("in/old1", &olds[0]).put("in/old2", &olds[1]).put("in/new", &new);
    let sources = |place: &Place| -> Vec<String> {
        let found = place.json("inspect out/delta");
        let sources = found["sources"].as_array().unwrap().iter();
        sources.map(|source| source["path"].as_str().unwrap().to_owned()).collect()
    };
    for (flags, want, whiteouts) in [
        ("", &["data/a", "data/b", "other/c"][..], false),
        ("-apply-whiteouts", &["data/b", "other/c"], true),
        ("--apply-whiteouts=true", &["data/b", "other/c"], true),
        ("-apply-whiteouts=0", &["data/a", "data/b", "other/c"], false),
        ("-source-prefix data -source-prefix other", &["data/a", "data/b", "other/c"], false),
        ("-source-prefix data", &["data/a", "data/b"], false),
        ("-source-prefix=data -apply-whiteouts", &["data/b"], true),
        ("-ignore-source-prefix data -ignore-source-prefix other", &[], false),
    ] {
        place.run_as(&format!("tar-diff {flags} in/old1 in/old2 in/new out/delta")).success();
        assert_eq!(sources(&place), want, "{flags}");
        let tree = extract_layers(&olds, whiteouts).unwrap();
        place.run_as(&format!("tar-patch out/delta {} out/new", tree.path().display())).success();
        assert!(place.read("out/new") == new, "{flags}");
    }
}

#[test]
fn a_dash_is_standard_output_of_tar_patch_alone() {
    let place = place();
    let pair = pair(71, 100_000);
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    let tree = extract(&pair.old).unwrap();
    place.run_as("tar-diff in/old in/new -").success();
    assert_eq!(&place.read("-")[..8], b"tardf1\n\0");
    let ran = place.run_as(&format!("tar-patch - {} -", tree.path().display())).success();
    assert!(ran.stdout == pair.new && ran.stderr.is_empty());
    // The flags end at the first argument that is none, or at two dashes.
    let ran = place.run_as(&format!("tar-patch -- - {} -", tree.path().display())).success();
    assert!(ran.stdout == pair.new);
    let ran = place.run_as("tar-diff in/old in/new -version");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(place.path("-version").exists());
}

#[test]
fn failures_have_code_1_and_leave_no_result() {
    let (place, _tree) = with_archives();
    let old = place.read("in/old");
    place.put("in/cut", &old[..old.len() / 2]).put("in/text", text(1, 3000));
    let mut damaged = compress("gzip", &old);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 4;
    place.put("in/damaged", damaged);
    place.run_as("tar-diff in/old in/new in/delta").success();
    place.put("out/there", "already");
    for out in ["out/x", "out/there"] {
        let before = place.files();
        for line in [
            "tar-diff in/cut in/new",
            "tar-diff in/old in/cut",
            "tar-diff in/text in/new",
            "tar-diff in/old in/damaged",
            "tar-diff in/damaged in/new",
            "tar-diff in/absent in/new",
            "tar-diff in in/new",
            "tar-patch in/old tree",
            "tar-patch in/absent tree",
            "tar-patch in/delta absent",
            "tar-patch in/delta tmp",
        ] {
            let ran = place.run_as(&format!("{line} {out}"));
            place.check_failure(&ran, 1, ": ");
            let name = line.split(' ').next().unwrap();
            assert!(ran.stderr.starts_with(&format!("{name}: Error: ")), "{ran:?}");
            place.check_unchanged(line, &before);
        }
    }
    let before = place.files();
    place.put("in/strange\nname", "");
    let mut command = place.command("tar-diff in/old");
    let output = run_bounded(command.args(["in/strange\nname\u{7}", "out/x"]), LIMIT).unwrap();
    place.check_failure(&Ran::new("tar-diff", output), 1, "in/strange?name?: ");
    place.check_unchanged("strange name", &before);
    let ran = place.run_as("tar-patch in/delta tree out");
    place.check_failure(&ran, 1, "out: ");
    let ran = place.run_as("tar-diff in/old in/new absent/out");
    place.check_failure(&ran, 1, "absent/out: ");
}

#[test]
fn a_file_that_the_tree_lacks_is_named() {
    let place = place();
    let content = text(1, 20_000);
    let old = TarBuilder::new().file("data/only.txt", &content).finish();
    let new = TarBuilder::new().file("data/moved.txt", &content).finish();
    place.put("in/old", &old).put("in/new", &new);
    place.run_as("tar-diff in/old in/new in/delta").success();
    let ran = place.run_as("tar-patch in/delta tmp out/new");
    place.check_failure(&ran, 1, "data/only.txt");
    assert!(place.files().is_empty());
}

/// What upstream's own test checks: old archive with gzip, new one with bzip2, a tree with links and a sparse file, of
/// which one file moves, one is renamed and grows, and one is new.
#[test]
fn the_round_trip_of_upstreams_test() {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join("data").join(name);
    for dir in ["", "dir1", "dir2"] {
        fs::create_dir(path(dir)).unwrap();
    }
    fs::write(path("dir1/foo.txt"), "foo\n").unwrap();
    fs::write(path("dir1/bar.txt"), "bar\n").unwrap();
    fs::write(path("dir1/move.txt"), "movedata\n").unwrap();
    symlink("not-exist", path("broken")).unwrap();
    symlink("foo.txt", path("dir1/symlink")).unwrap();
    fs::hard_link(path("dir1/foo.txt"), path("dir1/hardlink")).unwrap();
    let sparse = fs::File::create(path("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"PART1\n", 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"PART2\n", 1 << 20).unwrap();

    let pack = || -> Vec<u8> {
        let mut command = std::process::Command::new(coracle_testkit::oracle::tool("tar").unwrap());
        command.args(["--create", "--sparse", "--directory"]).arg(tree.path()).arg("data");
        let output = run_bounded(&mut command, LIMIT).unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let old = pack();
    fs::write(path("newfile"), "newdata\n").unwrap();
    fs::rename(path("dir1/move.txt"), path("dir2/move.txt")).unwrap();
    fs::write(path("dir1/bar.txt"), "bar\nbar\n").unwrap();
    fs::rename(path("dir1/bar.txt"), path("dir1/bar.TXT")).unwrap();
    let new = pack();

    let place = place();
    place.put("in/old.gz", compress("gzip", &old)).put("in/new.bz2", compress("bzip2", &new));
    place.run_as("tar-diff in/old.gz in/new.bz2 out/delta").success();
    let source = extract(&old).unwrap();
    place.run_as(&format!("tar-patch out/delta {} out/new", source.path().display())).success();
    assert!(place.read("out/new") == new);
    assert_eq!(place.files().len(), 2);
}

/// Sizes are in MiB, and a negative one is no bound.
#[test]
fn sizes_choose_the_method() {
    let place = place();
    // No 32 bytes in a row are the same, which is what the rolling hash looks for.
    let content = Rng::new(1).bytes(3 << 20);
    let mut changed = content.clone();
    changed.iter_mut().step_by(25).for_each(|byte| *byte = byte.wrapping_add(1));
    let old = TarBuilder::new().file("a", &content).finish();
    let new = TarBuilder::new().file("a", &changed).finish();
    place.put("in/old", &old).put("in/new", &new);
    let tree = extract(&old).unwrap();
    symlink(tree.path(), place.path("tree")).unwrap();
    let operations = |flags: &str| {
        place.run_as(&format!("tar-diff -compression-level 1 {flags} in/old in/new out/delta")).success();
        check_applies(&place, flags);
        place.json("inspect out/delta")["operations"].clone()
    };
    for (flags, frames) in [
        ("-binary-diff auto", 1),
        ("-binary-diff auto -max-zstd-diff-size 2", 0),
        ("-binary-diff auto -max-zstd-diff-size 0", 1),
        ("-binary-diff zstd -max-zstd-diff-size -1", 1),
        ("-binary-diff bsdiff", 0),
    ] {
        assert_eq!(operations(flags)["ZSTDDICT"]["ops"], frames, "{flags}");
    }
    for (flags, sorted) in [
        ("-max-bsdiff-size 2", false),
        ("-max-bsdiff-size 3", false),
        ("-max-bsdiff-size 4", true),
        ("-max-bsdiff-size 0", true),
        ("-max-bsdiff-size -1", true),
    ] {
        assert_eq!(operations(flags)["ADD"]["ops"] != 0, sorted, "{flags}");
        assert_eq!(place.read("out/delta").len() < 1 << 20, sorted, "{flags}");
    }
}

#[test]
fn other_names_are_coracle() {
    let place = place();
    symlink(PROGRAM, place.path("tar-diff-like")).unwrap();
    let ran: Ran = place.run_as("tar-diff-like --version").success();
    assert!(ran.text().starts_with("coracle "), "{ran:?}");
}
