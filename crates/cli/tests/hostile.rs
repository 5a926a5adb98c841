//! Hostile deltas: refused with the right code, within the bounds of memory.

use std::process::Command;

use coracle_testkit::golden::{BadDelta, Case, FailsAt, Golden};
use coracle_testkit::oracle::{run_bounded, tool};

use crate::place::{LIMIT, PROGRAM, Place, Ran};

/// The arguments that apply the delta of a bad case to its tree.
fn line(place: &Place, case: &Case<BadDelta>, source: &std::path::Path) -> String {
    place.put("in/delta", case.delta().unwrap());
    let mut line = format!("patch in/delta {} out/new", source.display());
    if let Some(max) = case.limits().max_output {
        line += &format!(" --max-size {max}");
    }
    if let Some(fact) = case.expected_digest() {
        line += &format!(" --expect sha256:{}", fact.sha256);
    }
    line
}

/// What scripts are told: damaged (4), not the right source (5), or beyond a bound (6).
fn code(name: &str) -> i32 {
    match name {
        "copy-amplification" | "data-bomb" | "data-bomb-claims-small" | "op5-bomb" => 6,
        "outer-window-2-30" | "op5-window-2-30" => 6,
        "fifo-source" | "path-directory" | "path-missing" => 5,
        "symlink-escape-last" | "symlink-escape-parent" => 5,
        "short-source-add" | "short-source-copy" | "short-source-seek" => 5,
        "stale-source" | "wrong-source-content" | "op5-stale-cursor" => 5,
        // A frame that does not decode: the delta or its dictionary, nobody knows.
        "op5-bad-checksum" | "op5-not-a-frame" | "op5-truncated-frame" | "op5-wrong-dictionary" => 5,
        "op5-junk-after-frame" | "op5-two-frames" => 5,
        _ => 4,
    }
}

#[test]
fn bad_deltas_give_one_line_a_code_and_no_output() {
    let cases = Golden::built_in().tardiff_bad().unwrap();
    assert!(cases.len() >= 66, "{}", cases.len());
    for case in cases {
        let place = Place::new();
        let tree = case.tree().unwrap();
        let line = line(&place, &case, &tree.source_root());
        let message = if case.fails_at() == FailsAt::Digest { "result has digest" } else { "in/delta: " };
        let said = place.fails(&line, code(&case.name), message);
        assert!(
            code(&case.name) != 5 || said.contains("hint: the source is not the one"),
            "{}: {said}",
            case.name
        );
    }
}

/// Runs `COMMAND` and says what the largest resident set of it was, in bytes.
const PEAK: &str = "import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print('peak', usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))";

fn with_peak(place: &Place, line: &str) -> (Ran, u64) {
    let mut command = Command::new(tool("python3").unwrap());
    command.args(["-c", PEAK, PROGRAM]).args(line.split(' ')).current_dir(place.path(""));
    let mut ran = Ran::new(line, run_bounded(command.env("TMPDIR", place.path("tmp")), LIMIT).unwrap());
    let text = ran.text();
    let (before, peak) = text.trim_end().rsplit_once("peak ").unwrap_or_else(|| panic!("{ran:?}"));
    let peak = peak.parse().unwrap();
    ran.stdout = before.into();
    (ran, peak)
}

#[test]
fn bombs_stay_small_in_memory() {
    let cases = Golden::built_in().tardiff_bad().unwrap();
    let bombs = ["copy-amplification", "data-bomb", "data-bomb-claims-small", "op5-bomb"];
    for case in cases.iter().filter(|case| bombs.contains(&case.name.as_str())) {
        let place = Place::new();
        let tree = case.tree().unwrap();
        place.put("in/delta", case.delta().unwrap());
        let line = format!("patch --max-size 64MiB in/delta {} out/new", tree.source_root().display());
        let (ran, peak) = with_peak(&place, &line);
        place.check_failure(&ran, 6, "output exceeds the limit of 67108864 bytes");
        assert!(ran.stderr.contains("hint: raise --max-size"), "{ran:?}");
        assert!(peak < 100 << 20, "{}: {peak} bytes", case.name);
        assert!(place.files().is_empty());
    }
}

/// The bound is one of the output, not of memory: what is allowed takes no more memory either.
#[test]
fn large_output_stays_small_in_memory() {
    let case = Golden::built_in().tardiff_bad().unwrap().into_iter().find(|c| c.name == "copy-amplification");
    let case = case.unwrap();
    let place = Place::new();
    let tree = case.tree().unwrap();
    place.put("in/delta", case.delta().unwrap());
    let line = format!("patch in/delta {} /dev/null --json", tree.source_root().display());
    let (ran, peak) = with_peak(&place, &line);
    let told = crate::place::one_object(&ran.text());
    assert_eq!(told["output"]["bytes"], 400_000_000);
    assert!(peak < 100 << 20, "{peak} bytes");
    let own = told["peak_rss_bytes"].as_u64().unwrap();
    assert!(own > 1 << 20 && own <= peak, "{own} and {peak}");
}

/// Compressed archives can be bombs as well.
#[test]
fn a_compressed_bomb_stops_at_the_bound() {
    let place = Place::new();
    for name in crate::place::COMPRESSORS {
        place.put("in/bomb", crate::place::compress(name, &vec![0; 80 << 20])).put("in/tar", "");
        let (ran, peak) = with_peak(&place, "diff --max-size 64MiB in/tar in/bomb out/delta");
        place.check_failure(&ran, 6, "in/bomb: decoded data exceeds 67108864 bytes");
        assert!(ran.stderr.contains("hint: raise --max-size"), "{ran:?}");
        assert!(peak < 100 << 20, "{name}: {peak} bytes");
        assert!(place.files().is_empty());
    }
    place.put("in/large", vec![0; (1 << 20) + 1]);
    place.fails("diff --max-size 1MiB in/tar in/large out/delta", 6, "in/large: ");
    place.put("in/large", vec![0; 1 << 20]);
    place.ok("diff --max-size 1MiB in/tar in/large out/delta");
}
