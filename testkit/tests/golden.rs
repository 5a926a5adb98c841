//! The golden data is what its descriptions say.

use std::collections::BTreeSet;

use coracle_testkit::golden::{Case, Fact, FailsAt, FileFact, Golden};
use coracle_testkit::tree;

#[track_caller]
fn check<T>(case: &Case<T>, file: &str, fact: &Fact) {
    assert_eq!(Fact::of(&case.read(file).unwrap()), *fact, "{}/{file}", case.name);
}

#[track_caller]
fn check_file<T>(case: &Case<T>, file: &FileFact) {
    check(case, &file.file, &file.fact);
}

#[test]
fn good_deltas() {
    let cases = Golden::built_in().tardiff_good().unwrap();
    assert_eq!(cases.len(), 34);
    for case in &cases {
        for old in &case.json.inputs.old {
            check(case, &old.file, &old.tar);
        }
        check_file(case, &case.json.inputs.delta);
        let new = case.new_tar_bytes().unwrap().expect("all are small enough to be stored");
        assert_eq!(Fact::of(&new), *case.new_tar(), "{}", case.name);
        assert!(case.delta().unwrap().starts_with(format!("tardf{}\n\0", case.version()).as_bytes()));
        // The sizes of the operations add up to the result, op 5 aside: its size is that of a frame.
        let sum: u64 =
            ["DATA", "COPY", "ADD"].iter().filter_map(|op| case.ops().get(*op)).map(|op| op.sum).sum();
        assert!(sum == new.len() as u64 || case.ops().contains_key("ZSTDDICT"), "{}", case.name);
    }
}

#[test]
fn good_trees_have_the_sources() {
    for case in Golden::built_in().tardiff_good().unwrap() {
        let tree = case.tree().unwrap();
        let files = tree::files(tree.path()).unwrap();
        for source in case.sources() {
            let path = source.clean_path();
            let content = files.get(&path).unwrap_or_else(|| panic!("{}: {path:?}", case.name));
            assert_eq!(Fact::of(content), source.fact, "{}", case.name);
        }
    }
}

#[test]
fn bad_deltas() {
    let cases = Golden::built_in().tardiff_bad().unwrap();
    assert_eq!(cases.len(), 66);
    for case in &cases {
        check_file(case, &case.json.inputs.delta);
        assert!(!case.expect_error().is_empty());
        let needs_digest = matches!(case.fails_at(), FailsAt::Digest | FailsAt::ApplyOrDigest);
        assert_eq!(needs_digest, case.expected_digest().is_some(), "{}", case.name);
        let tree = case.tree().unwrap();
        assert!(tree.source_root().is_dir());
        let files = tree::files(&tree.source_root()).unwrap();
        for file in &case.json.inputs.files {
            assert_eq!(Fact::of(&files[&file.path()]), file.fact, "{}", case.name);
        }
    }
    let names: BTreeSet<&str> = cases
        .iter()
        .filter(|case| case.limits().max_output.is_some())
        .map(|case| case.name.as_str())
        .collect();
    let bombs = ["copy-amplification", "data-bomb", "data-bomb-claims-small", "op5-bomb"];
    assert_eq!(names, BTreeSet::from(bombs));
}

#[test]
fn trees_that_try_to_leave() {
    for case in Golden::built_in().tardiff_bad().unwrap() {
        let tree = case.tree().unwrap();
        let source = tree.source_root().join("x/a");
        match case.name.as_str() {
            // A reader that follows links finds something: it is the reader that must not.
            "symlink-escape-last" => assert!(std::fs::read(source).unwrap().starts_with(b"TOP SECRET")),
            "symlink-escape-parent" => assert_eq!(std::fs::read(source).unwrap().len(), 20000),
            "fifo-source" => assert!(!source.metadata().unwrap().is_file()),
            "wrong-source-content" => assert_eq!(&std::fs::read(source).unwrap()[100..105], b"WRONG"),
            _ => {}
        }
    }
}

#[test]
fn tars_and_listings() {
    let cases = Golden::built_in().tar().unwrap();
    assert_eq!(cases.len(), 62);
    for case in &cases {
        check_file(case, &case.json.inputs.tar);
        let listing = case.listing().unwrap();
        assert_eq!(listing.error, case.json.expect_error, "{}", case.name);
        // Go counts a member only when all of its content was read.
        let whole = listing.members.iter().filter(|member| member.read_error.is_none()).count();
        assert!(case.json.members == whole || case.json.members == listing.members.len(), "{}", case.name);
    }
    let member = |name: &str| {
        let case = cases.iter().find(|case| case.name == name).unwrap();
        case.listing().unwrap().members.remove(0)
    };
    assert_eq!(member("non-utf8-name").name(), b"\xff\xfe/\xe9");
    assert_eq!(member("pax-xattr-binary").pax()["SCHILY.xattr.user.b"], b"\x00\xff\x0a=\x01");
    assert_eq!(member("base256-negative-mtime").mtime, -100);
}

#[test]
#[expect(clippy::print_stderr, reason = "a skipped test has to say so")]
fn external_cases_load_as_well() {
    let Some(golden) = Golden::external() else {
        eprintln!("skipped: CORACLE_VECTORS names no folder with further cases");
        return;
    };
    for set in ["oci-delta/bad", "zstd-chunked/bad", "tar"] {
        if golden.root().join(set).is_dir() {
            assert!(!golden.cases::<serde_json::Value>(set).unwrap().is_empty(), "{set}");
        }
    }
}

#[test]
fn documents() {
    let cases = Golden::built_in().cases::<serde_json::Value>("oci").unwrap();
    assert_eq!(cases.len(), 46);
    for case in &cases {
        let fact: FileFact = serde_json::from_value(case.json["inputs"]["document"].clone()).unwrap();
        check_file(case, &fact);
        let expects = ["expect", "expect_error"].map(|key| case.json.get(key).is_some());
        assert!(expects[0] != expects[1], "{}: either good or bad", case.name);
        assert_eq!(expects[1], case.name.starts_with("bad-"), "{}", case.name);
    }
}
