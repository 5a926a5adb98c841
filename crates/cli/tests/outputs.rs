//! Output files: replaced whole or not at all. And what people read about a delta.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use coracle_testkit::oracle::{Input, start};
use coracle_testkit::pair::pair;

use crate::place::{LIMIT, Place, Ran, digest};

fn with_delta() -> Place {
    let pair = pair(40, 400_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    place.ok("diff in/old in/new in/delta");
    place
}

#[test]
fn a_second_run_replaces_the_output() {
    let place = with_delta();
    for (line, want) in [("diff in/old in/new", "in/delta"), ("patch in/delta in/old", "in/new")] {
        place.put("out/x", "what was there before").put("out/other", "is not touched");
        for _ in 0..2 {
            place.ok(&format!("{line} out/x"));
            assert!(place.read("out/x") == place.read(want), "{line}");
        }
        assert_eq!(place.files().len(), 2, "{line}");
    }
}

#[test]
fn runs_at_the_same_time_do_not_disturb_each_other() {
    let place = with_delta();
    for (line, want) in [("diff in/old in/new", "in/delta"), ("patch in/delta in/old", "in/new")] {
        let commands = (0..6).map(|_| place.command(&format!("coracle {line} out/x")));
        let running: Vec<_> =
            commands.map(|mut command| start(&mut command, Input::Nothing).unwrap()).collect();
        for run in running {
            Ran::new(line, run.wait(LIMIT).unwrap()).success();
        }
        assert!(place.read("out/x") == place.read(want), "{line}");
        assert_eq!(place.files().len(), 1, "{line}");
    }
}

#[test]
fn a_file_that_is_open_elsewhere_keeps_its_content() {
    let place = with_delta();
    place.put("out/x", "what was there before");
    let before = fs::File::open(place.path("out/x")).unwrap();
    place.ok("patch in/delta in/old out/x");
    assert_eq!(std::io::read_to_string(before).unwrap(), "what was there before");
}

#[test]
fn a_failing_run_leaves_the_output_as_it_was() {
    let place = with_delta();
    let delta = place.read("in/delta");
    place.put("in/cut", &delta[..delta.len() - 9]).put("out/x", "what was there before");
    let inode = fs::metadata(place.path("out/x")).unwrap().ino();
    for (line, code) in [
        ("patch in/cut in/old out/x", 4),
        ("patch in/delta in/new out/x", 5),
        (&*format!("patch --expect {} in/delta in/old out/x", digest(b"another")), 5),
        ("patch --max-size 100k in/delta in/old out/x", 6),
        ("diff in/old in/cut out/x", 4),
        ("diff in/cut in/new out/x", 4),
    ] {
        place.fails(line, code, "");
        assert_eq!(fs::metadata(place.path("out/x")).unwrap().ino(), inode, "{line}");
    }
}

#[test]
fn a_link_stays_and_its_target_is_replaced() {
    let place = with_delta();
    place.put("out/target", "what was there before");
    symlink("target", place.path("out/link")).unwrap();
    place.ok("patch in/delta in/old out/link");
    assert!(place.path("out/link").is_symlink());
    assert!(place.read("out/target") == place.read("in/new"));
    symlink("absent", place.path("out/dangling")).unwrap();
    place.fails("patch in/delta in/old out/dangling", 7, "out/dangling: symbolic link to a missing file");
}

/// A forgotten argument must not cost an archive.
#[test]
fn an_input_cannot_be_the_output() {
    let place = with_delta();
    for (name, of) in [("out/old", "in/old"), ("out/new", "in/new"), ("out/delta", "in/delta")] {
        place.put(name, place.read(of));
    }
    fs::hard_link(place.path("out/old"), place.path("out/other-name")).unwrap();
    symlink("old", place.path("out/link")).unwrap();
    for line in [
        "diff out/old out/new out/old",
        "diff out/old out/new out/new",
        "diff out/old out/new out/other-name",
        "diff out/old out/new out/link",
        "diff out/old out/old out/new out/./new",
        "patch out/delta out/old out/delta",
        "patch out/delta out/old out/old",
        "patch out/delta out/old out/link",
    ] {
        let said = place.fails(line, 2, "the output is one of the inputs");
        assert!(said.contains("hint: was an argument forgotten?"), "{said}");
    }
}

#[test]
fn the_wrong_digest_is_told_with_both() {
    let place = with_delta();
    let (right, wrong) = (place.digest("in/new"), digest(b"another"));
    let said = place.fails(
        &format!("patch --expect {wrong} in/delta in/old out/x"),
        5,
        &format!("result has digest {right}, expected {wrong}"),
    );
    assert!(said.contains("hint: the source is not the one"), "{said}");
}

/// Bytes that went down a pipe cannot be taken back; the exit code tells.
#[test]
fn a_wrong_digest_on_standard_output_is_told_by_the_exit_code() {
    let place = with_delta();
    let ran = place.run(&format!("patch --expect {} in/delta in/old -", digest(b"another")));
    assert_eq!(ran.code, Some(5));
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

/// The numbers in the right-most column of a table whose cells look like `1,234`, by the first word of their row.
fn column(text: &str, nth_number: usize) -> Vec<(String, u64)> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let numbers: Vec<u64> = words.iter().filter_map(|w| w.replace(',', "").parse().ok()).collect();
            Some((words.first()?.to_string(), *numbers.get(nth_number)?))
        })
        .collect()
}

#[test]
fn explain_adds_up_for_people() {
    let place = with_delta();
    let size = place.read("in/delta").len() as u64;
    let text = place.ok("explain --all in/old in/new in/delta").text();
    let (kinds, members) = text.split_once("\nlargest ").unwrap();
    assert!(kinds.starts_with(&format!("in/delta: {} bytes\n", grouped(size))), "{kinds}");
    let rows = column(kinds.split_once("delta bytes").unwrap().1, 2);
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 5, "{kinds}");
    assert_eq!(rows.iter().map(|(_, bytes)| bytes).sum::<u64>(), size, "{kinds}");
    let rows = column(members.split_once("member").unwrap().1, 0);
    assert_eq!(rows.iter().map(|(_, bytes)| bytes).sum::<u64>(), size, "{members}");
    assert!(rows.is_sorted_by_key(|(_, bytes)| std::cmp::Reverse(*bytes)), "{members}");
    let all = rows.len();

    // From the tree as from the archives; and only so many as asked for.
    let tree = coracle_testkit::tree::extract(&place.read("in/old")).unwrap();
    let line = format!("explain --all {} in/new in/delta", tree.path().display());
    assert_eq!(place.ok(&line).text(), text);
    for (options, shown) in [("", 25.min(all)), ("--top 3", 3), ("--top 0", 0), ("--top 99999", all)] {
        let text = place.ok(&format!("explain {options} in/old in/new in/delta")).text();
        assert!(text.contains(&format!("\nlargest {shown} of {}:\n", grouped(all as u64))), "{text}");
        let rows = column(text.split_once("member  ").unwrap().1, 0);
        assert_eq!(rows.len(), shown, "{options}: {text}");
    }
}

#[test]
fn explain_wants_the_right_archive() {
    let place = with_delta();
    place.fails(
        "explain in/old in/old in/delta",
        5,
        "hint: give the very archive that the delta was made for",
    );
}

#[test]
fn inspect_adds_up_for_people() {
    let place = with_delta();
    let text = place.ok("inspect --all in/delta").text();
    let (size, digest) = (place.read("in/delta").len() as u64, place.digest("in/delta"));
    assert!(text.starts_with(&format!("in/delta: tar-diff version 1, {} bytes (", grouped(size))), "{text}");
    assert!(text.contains(&format!("\ndigest: {digest}\n")), "{text}");
    assert!(
        text.contains(&format!("\nmakes: {} bytes\n", grouped(place.read("in/new").len() as u64))),
        "{text}"
    );
    let operations = column(text.split_once("\n\n").unwrap().1, 1);
    let of = |name: &str| operations.iter().find(|(op, _)| op == name).map_or(0, |(_, bytes)| *bytes);
    assert_eq!(of("DATA") + of("COPY") + of("ADD"), place.read("in/new").len() as u64, "{text}");
    let sources = text.split_once("source files:\n").unwrap().1;
    let sum = |nth| column(sources, nth).iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!((sum(0), sum(1)), (of("COPY"), of("ADD")), "{text}");

    let text = place.ok("inspect in/new").text();
    assert!(text.starts_with("in/new: tar archive, compression none, "), "{text}");
    assert!(text.contains(&format!("\ndiff_id: {}\n", place.digest("in/new"))), "{text}");
}

fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
