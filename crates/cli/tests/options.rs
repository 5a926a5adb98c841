//! Options that change the delta, and those that must not.

use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::pair::pair;
use coracle_testkit::tar_builder::TarBuilder;

use crate::place::{Place, digest};

fn sources(place: &Place, delta: &str) -> Vec<String> {
    let found = place.json(&format!("inspect {delta}"));
    let paths = found["sources"].as_array().unwrap().iter();
    paths.map(|source| source["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn threads_do_not_change_the_delta() {
    let pair = pair(7, 3_000_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    for options in ["", "--format v2", "--memory 16MiB"] {
        place.ok(&format!("diff {options} --threads 1 in/old in/new out/1"));
        for threads in [2, 4] {
            place.ok(&format!("diff {options} --threads {threads} in/old in/new out/{threads}"));
            assert!(place.read(&format!("out/{threads}")) == place.read("out/1"), "{options} {threads}");
        }
        for threads in [1, 4] {
            place.ok(&format!(
                "patch --threads {threads} --expect {} out/1 in/old out/new",
                digest(&pair.new)
            ));
        }
    }
}

#[test]
fn formats_and_windows() {
    let pair = pair(8, 900_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    for (options, magic) in [
        ("", b"tardf1\n\0"),
        ("--format v1", b"tardf1\n\0"),
        ("--format v2", b"tardf2\n\0"),
        ("--window 128MiB", b"tardf1\n\0"),
        ("--window 1KiB", b"tardf1\n\0"),
        ("--format v2 --window 128MiB --no-verify", b"tardf2\n\0"),
    ] {
        let ran = place.ok(&format!("diff {options} in/old in/new out/delta"));
        let verified = if options.contains("--no-verify") { "(not verified)" } else { "(verified)" };
        assert!(ran.text().contains(verified), "{ran:?}");
        assert_eq!(&place.read("out/delta")[..8], magic, "{options}");
        let version = magic[5] - b'0';
        assert_eq!(place.json("inspect out/delta")["version"], version, "{options}");
        place.ok(&format!("patch --expect {} out/delta in/old out/new", digest(&pair.new)));
    }
}

/// The window is what a reader must reserve, so it can refuse.
#[test]
fn a_small_memory_refuses_a_large_window() {
    let pair = pair(10, 200_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    place.ok("diff --window 128MiB in/old in/new out/large");
    place.ok("diff --window 1MiB in/old in/new out/small");
    let line = place.fails("patch --memory 70MiB out/large in/old out/new", 6, "zstd window is larger than");
    assert!(line.contains("hint: raise --memory"), "{line}");
    for line in ["patch --memory 70MiB out/small in/old out/new", "patch out/large in/old out/new"] {
        place.ok(&format!("{line} --expect {}", digest(&pair.new)));
    }
}

/// A dictionary that memory does not suffice for is a bound that was reached, not a wrong source.
#[test]
fn a_small_memory_refuses_a_large_dictionary() {
    let content = binary(4, 6 << 20);
    let old = TarBuilder::new().file("a", &content).finish();
    let new = TarBuilder::new().file("a", mutate(&content, 5, 30)).finish();
    let place = Place::new();
    place.put("in/old", old).put("in/new", &new);
    std::os::unix::fs::symlink(crate::place::PROGRAM, place.path("tar-diff")).unwrap();
    place.run_as("tar-diff -binary-diff zstd in/old in/new out/delta").success();
    for memory in ["50MiB", "58MiB"] {
        let line = place.fails(&format!("patch --memory {memory} out/delta in/old out/new"), 6, "");
        assert!(line.contains("hint: raise --memory"), "{memory}: {line}");
    }
    place.ok(&format!("patch --expect {} out/delta in/old out/new", digest(&new)));
}

#[test]
fn modes_and_prefixes_choose_sources() {
    let (a, b, c) = (text(1, 5_000), text(2, 5_000), text(3, 5_000));
    let old = TarBuilder::new().file_mode("secret", 0o600, &a).file("lib/x", &b).file("lib64/y", &c).finish();
    let new = TarBuilder::new().file("1", &a).file("2", &b).file("3", &c).finish();
    let place = Place::new();
    place.put("in/old", old).put("in/new", &new);
    for (options, want) in [
        ("", &["lib/x", "lib64/y"][..]),
        ("--any-mode", &["secret", "lib/x", "lib64/y"]),
        ("--source-prefix lib", &["lib/x"]),
        ("--source-prefix lib --source-prefix lib64", &["lib/x", "lib64/y"]),
        ("--ignore-source-prefix lib64", &["lib/x"]),
        ("--ignore-source-prefix lib --ignore-source-prefix lib64", &[]),
        ("--any-mode --source-prefix secret --ignore-source-prefix secret", &[]),
    ] {
        place.ok(&format!("diff {options} in/old in/new out/delta"));
        assert_eq!(sources(&place, "out/delta"), want, "{options}");
        place.ok(&format!("patch --expect {} out/delta in/old out/new", digest(&new)));
    }
}

#[test]
fn less_is_said_when_asked() {
    let pair = pair(9, 100_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    for line in ["diff -q in/old in/new out/delta", "patch --quiet out/delta in/old out/new"] {
        let ran = place.ok(line);
        assert!(ran.stdout.is_empty() && ran.stderr.is_empty(), "{ran:?}");
    }
}
