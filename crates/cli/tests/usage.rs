//! Wrong command lines, help and version.

use coracle_testkit::pair::pair;

use crate::place::Place;

#[test]
fn wrong_command_lines_have_code_2() {
    let place = Place::new();
    let pair = pair(50, 30_000);
    place.put("in/old", &pair.old).put("in/new", &pair.new).put("in/delta", "");
    for line in [
        "",
        "no-such-command",
        "diff",
        "diff in/old",
        "diff in/new out/x",
        "diff --no-such-option in/old in/new out/x",
        "diff --format v3 in/old in/new out/x",
        "diff --window 9MiB in/old in/new out/x",
        "diff --window 256MiB in/old in/new out/x",
        "diff --memory much in/old in/new out/x",
        "diff --threads 0 in/old in/new out/x",
        "diff --max-size -1 in/old in/new out/x",
        "diff --whiteouts maybe in/old in/new out/x",
        "patch in/delta",
        "patch in/delta out/x",
        "patch --expect in/delta in/old out/x",
        "patch --expect sha256:12 in/delta in/old out/x",
        "patch --expect md5:d41d8cd98f00b204e9800998ecf8427e in/delta in/old out/x",
        "inspect",
        "inspect in/old in/new",
        "explain in/old in/new",
        "explain --all --top 3 in/old in/new in/delta",
    ] {
        let before = place.files();
        let ran = place.run(line);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran:?}");
        place.check_unchanged(line, &before);
    }
}

#[test]
fn help_and_version() {
    let place = Place::new();
    let ran = place.ok("--version");
    assert_eq!(ran.text(), format!("coracle {}\n", env!("CARGO_PKG_VERSION")));
    for line in ["--help", "-h", "diff --help", "patch --help", "inspect -h", "explain --help"] {
        let ran = place.ok(line);
        assert!(ran.text().contains("Usage: coracle"), "{ran:?}");
        assert!(ran.stderr.is_empty(), "{ran:?}");
    }
}
