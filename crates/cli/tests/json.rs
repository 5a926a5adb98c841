//! `--json`: one object, with the documented keys (`docs/cli/json.md`) and numbers that add up.

use coracle_testkit::pair::{Pair, pair};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use crate::place::{Place, digest, one_object};

const OPERATIONS: [&str; 6] = ["ADD", "COPY", "DATA", "OPEN", "SEEK", "ZSTDDICT"];
const COST: [&str; 3] = ["cpu_seconds", "peak_rss_bytes", "seconds"];

#[track_caller]
pub fn check_keys(value: &Value, keys: &[&str]) {
    let mut want = keys.to_vec();
    want.sort_unstable();
    let mut found: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    found.sort_unstable();
    assert_eq!(found, want);
}

#[track_caller]
fn check_operations(value: &Value) {
    check_keys(value, &OPERATIONS);
    for name in OPERATIONS {
        check_keys(&value[name], &["bytes", "ops"]);
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn sum(array: &Value, key: &str) -> u64 {
    array.as_array().unwrap().iter().map(|item| number(&item[key])).sum()
}

fn with_delta(options: &str) -> (Place, Pair, Value) {
    let pair = pair(30, 700_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    let told = place.json(&format!("diff {options} in/old in/new out/delta"));
    (place, pair, told)
}

#[test]
fn diff() {
    for (options, version) in [("", 1), ("--format v2 --no-verify", 2)] {
        let (place, pair, told) = with_delta(options);
        check_keys(
            &told,
            &[&["kind", "old", "new", "delta", "files", "sources", "verified"][..], &COST].concat(),
        );
        assert_eq!(told["kind"], "diff");
        assert_eq!(told["old"], serde_json::json!([{ "path": "in/old", "bytes": pair.old.len() }]));
        check_keys(&told["new"], &["path", "bytes", "digest", "members"]);
        assert_eq!(
            (&told["new"]["path"], number(&told["new"]["bytes"])),
            (&"in/new".into(), pair.new.len() as u64)
        );
        assert_eq!(told["new"]["digest"], digest(&pair.new));
        let delta = &told["delta"];
        check_keys(delta, &["path", "bytes", "version", "stream_bytes", "operations"]);
        assert_eq!(number(&delta["bytes"]), place.read("out/delta").len() as u64);
        assert_eq!(delta["version"], version);
        check_operations(&delta["operations"]);
        check_keys(&told["files"], &["identical", "changed", "literal"]);
        assert!(number(&told["files"]["identical"]) > 1 && number(&told["files"]["changed"]) > 1);
        assert_eq!(told["verified"], version == 1);
        assert!(number(&told["sources"]) > 1 && number(&told["peak_rss_bytes"]) > 1 << 20);
        assert!(told["seconds"].as_f64().unwrap() >= 0.0 && told["cpu_seconds"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn patch() {
    let (place, pair, made) = with_delta("");
    for (options, verified) in [("", false), (&*format!("--expect {}", digest(&pair.new)), true)] {
        let told = place.json(&format!("patch {options} out/delta in/old out/new"));
        check_keys(&told, &[&["kind", "output", "delta", "verified"][..], &COST].concat());
        assert_eq!(told["kind"], "patch");
        let output = serde_json::json!({
            "path": "out/new", "bytes": pair.new.len(), "digest": digest(&pair.new),
        });
        assert_eq!(told["output"], output);
        check_keys(&told["delta"], &["version", "operations"]);
        check_operations(&told["delta"]["operations"]);
        assert_eq!(told["delta"]["operations"], made["delta"]["operations"]);
        assert_eq!(told["verified"], verified);
    }
}

#[test]
fn inspect_delta() {
    let (place, pair, made) = with_delta("");
    let told = place.json("inspect out/delta");
    check_keys(
        &told,
        &[
            "kind",
            "path",
            "bytes",
            "digest",
            "version",
            "stream_bytes",
            "output_bytes",
            "operations",
            "sources",
        ],
    );
    assert_eq!((&told["kind"], &told["path"]), (&"tar-diff".into(), &"out/delta".into()));
    assert_eq!(told["digest"], place.digest("out/delta"));
    for key in ["bytes", "stream_bytes", "version", "operations"] {
        assert_eq!(told[key], made["delta"][key], "{key}");
    }
    assert_eq!(number(&told["output_bytes"]), pair.new.len() as u64);
    let operations = &told["operations"];
    let made = ["DATA", "COPY", "ADD"].iter().map(|op| number(&operations[op]["bytes"])).sum::<u64>();
    assert_eq!(made, pair.new.len() as u64);
    for source in told["sources"].as_array().unwrap() {
        check_keys(source, &["path", "opens", "copied", "added", "patches", "needs"]);
    }
    assert_eq!(sum(&told["sources"], "copied"), number(&operations["COPY"]["bytes"]));
    assert_eq!(sum(&told["sources"], "added"), number(&operations["ADD"]["bytes"]));
    assert_eq!(sum(&told["sources"], "opens"), number(&operations["OPEN"]["ops"]));
}

#[test]
fn inspect_archive() {
    let tar = TarBuilder::new()
        .dir("d")
        .file("d/a", "12345")
        .file("d/.wh.b", "")
        .symlink("d/s", "a")
        .hardlink("d/h", "d/a")
        .fifo("d/f")
        .sparse_gnu("d/sparse", 1_000_000, &[(0, b"abc")])
        .finish_padded(20);
    let place = Place::new();
    let packed = crate::place::compress("xz", &tar);
    place.put("in/x", &packed);
    let told = place.json("inspect in/x");
    let want = serde_json::json!({
        "kind": "tar",
        "path": "in/x",
        "compression": "xz",
        "stored_bytes": packed.len(),
        "bytes": tar.len(),
        "diff_id": digest(&tar),
        "content_bytes": 5 + 3,
        "members": {
            "files": 3, "directories": 1, "symlinks": 1, "hardlinks": 1, "others": 1, "whiteouts": 1,
        },
    });
    assert_eq!(told, want);
}

#[test]
fn explain() {
    for options in ["", "--format v2"] {
        let (place, pair, made) = with_delta(options);
        let told = place.json("explain in/old in/new out/delta");
        check_keys(&told, &["kind", "path", "bytes", "version", "stream_bytes", "operations", "members"]);
        assert_eq!((&told["kind"], &told["path"]), (&"explain".into(), &"out/delta".into()));
        for key in ["bytes", "stream_bytes", "version", "operations"] {
            assert_eq!(told[key], made["delta"][key], "{key}");
        }
        let members = &told["members"];
        for member in members.as_array().unwrap() {
            check_keys(
                member,
                &[
                    "path",
                    "cost",
                    "size",
                    "delta_bytes",
                    "stream_bytes",
                    "literal",
                    "copied",
                    "added",
                    "patched",
                    "sources",
                ],
            );
        }
        assert_eq!(sum(members, "delta_bytes"), number(&told["bytes"]));
        assert_eq!(sum(members, "stream_bytes"), number(&told["stream_bytes"]));
        let made: u64 = ["literal", "copied", "added", "patched"].iter().map(|key| sum(members, key)).sum();
        assert_eq!(made, pair.new.len() as u64);
        let contents = members.as_array().unwrap().iter().filter(|member| member["cost"] != "trailer");
        let contents: u64 = contents.map(|member| number(&member["size"])).sum();
        assert_eq!(contents, number(&place.json("inspect in/new")["content_bytes"]));
    }
}

#[test]
fn errors() {
    let (place, pair, _) = with_delta("");
    let wrong = digest(b"another");
    for (line, kind, code, hint) in [
        ("patch in/absent in/old out/new", "input", 3, true),
        ("patch in/new in/old out/new", "format", 4, true),
        (&*format!("patch out/delta in/old out/new --expect {wrong}"), "integrity", 5, true),
        ("patch out/delta in/old out/new --max-size 1000", "limit", 6, true),
        ("patch out/delta in/old /dev/full", "output", 7, true),
        ("patch out/delta in/old in out/new", "usage", 2, true),
        ("patch out/delta in/old /proc/absent", "output", 7, true),
        ("diff in/new out/delta out/x", "format", 4, true),
    ] {
        let before = place.files();
        let ran = place.run(&format!("{line} --json"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{ran:?}");
        let told = one_object(&ran.text());
        check_keys(&told, &["kind", "error"]);
        assert_eq!(told["kind"], "error");
        check_keys(&told["error"], &["kind", "message", "hint", "exit_code"]);
        assert_eq!(
            (&told["error"]["kind"], &told["error"]["exit_code"]),
            (&kind.into(), &code.into()),
            "{line}"
        );
        assert!(told["error"]["message"].as_str().unwrap().len() > 10, "{told}");
        assert_eq!(told["error"]["hint"].is_string(), hint, "{told}");
        place.check_unchanged(line, &before);
    }
    assert_eq!(place.digest("in/new"), digest(&pair.new));
}

/// Standard output may be taken by the result.
#[test]
fn objects_leave_standard_output_alone() {
    let (place, pair, _) = with_delta("");
    let delta = place.read("out/delta");
    let ran = place.ok("diff --json in/old in/new -");
    assert!(ran.stdout == delta);
    assert_eq!(one_object(&ran.stderr)["kind"], "diff");
    let ran = place.ok("patch --json out/delta in/old -");
    assert!(ran.stdout == pair.new);
    assert_eq!(one_object(&ran.stderr)["output"]["path"], "-");
    let ran = place.run(&format!("patch --json out/delta in/old - --expect {}", digest(b"another")));
    assert_eq!(ran.code, Some(5));
    assert_eq!(one_object(&ran.stderr)["error"]["kind"], "integrity");
    let ran = place.run("diff --json in/old in/absent -");
    assert_eq!((ran.code, ran.stdout.len()), (Some(3), 0));
    assert_eq!(one_object(&ran.stderr)["error"]["kind"], "input");
}
