//! What takes minutes: `make test-long` runs it.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use coracle_testkit::image::{Rng, binary, mutate, text};
use coracle_testkit::oracle::{Input, run_ok, start, tool};
use coracle_testkit::pair::pair;
use coracle_testkit::tar_builder::{Header, TarBuilder};

use crate::place::{LIMIT, PROGRAM, Place, Ran, compress, digest};
use crate::signals::check_killed;

/// For one run on gigabytes.
const LONG: Duration = Duration::from_secs(3600);

/// A place on the disk that holds the build, since /tmp may be memory.
fn on_disk() -> Place {
    Place::within(Path::new(env!("CARGO_TARGET_TMPDIR")))
}

/// Runs `LINE --json`, which must succeed within [`LONG`].
fn long_json(place: &Place, line: &str) -> serde_json::Value {
    let mut command = place.command(&format!("coracle {line} --json"));
    let output = start(&mut command, Input::Nothing).unwrap().wait(LONG).unwrap();
    let told = crate::place::one_object(&Ran::new(line, output).success().text());
    println!(
        "{line}: {} s, {} s of CPU, {} MiB",
        told["seconds"],
        told["cpu_seconds"],
        told["peak_rss_bytes"].as_u64().unwrap() >> 20
    );
    told
}

/// The digest as another program sees it.
fn sha256sum(path: &Path) -> String {
    let line = run_ok(Command::new(tool("sha256sum").unwrap()).arg("-b").arg(path), LONG).unwrap();
    format!("sha256:{}", String::from_utf8(line[..64].to_vec()).unwrap())
}

/// 64 MiB of the large file; each part has other bytes.
fn part(number: u64) -> Vec<u8> {
    Rng::new(number).bytes(64 << 20)
}

/// A tar with a file of 4.25 GiB and small ones around it. The second edition differs from the first by some bytes in
/// each part, a shift of all that follows its first part, and a changed small file.
fn write_large(path: &Path, second: bool) {
    const PARTS: u64 = 68;
    let shift = if second { vec![7; 100] } else { vec![] };
    let size = PARTS * (64 << 20) + shift.len() as u64;
    assert!(size > 4 << 30);
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let before = TarBuilder::new()
        .file("a/before", text(1, 100_000))
        .file("a/changed", text(if second { 3 } else { 2 }, 5_000))
        .finish_without_trailer();
    out.write_all(&before).unwrap();
    out.write_all(&Header { size, mode: 0o644, ..Header::new("data/large") }.block()).unwrap();
    for number in 0..PARTS {
        let mut content = part(number);
        if second {
            let at = 1_000_003 * (number as usize % 60);
            content[at..at + 500].fill(number as u8);
        }
        out.write_all(&content).unwrap();
        if number == 0 {
            out.write_all(&shift).unwrap();
        }
    }
    out.write_all(&vec![0; (size.next_multiple_of(512) - size) as usize]).unwrap();
    out.write_all(&TarBuilder::new().file("z/after", text(4, 100_000)).finish_padded(20)).unwrap();
    out.into_inner().unwrap().sync_all().unwrap();
}

#[test]
#[ignore = "long: gigabytes, 15 GiB of disk"]
fn a_file_beyond_4_gib() {
    let place = on_disk();
    let free = rustix::fs::statvfs(place.path("")).unwrap();
    let free = free.f_bavail * free.f_frsize;
    assert!(
        free >= 15 << 30,
        "needs 15 GiB of disk at {}, {} MiB are free",
        place.path("").display(),
        free >> 20
    );
    write_large(&place.path("in/old"), false);
    write_large(&place.path("in/new"), true);
    let want = sha256sum(&place.path("in/new"));
    let size = fs::metadata(place.path("in/new")).unwrap().len();
    let made = long_json(&place, "diff in/old in/new out/delta");
    assert_eq!((&made["new"]["digest"], &made["new"]["bytes"]), (&want.as_str().into(), &size.into()));
    let delta = made["delta"]["bytes"].as_u64().unwrap();
    println!("delta: {delta} bytes of {size}");
    assert!(delta < 4 << 20, "{delta} bytes");
    assert!(made["peak_rss_bytes"].as_u64().unwrap() < 3 << 29, "more than 1.5 GiB of memory");

    let told = long_json(&place, &format!("patch --expect {want} out/delta in/old out/new"));
    assert!(told["peak_rss_bytes"].as_u64().unwrap() < 100 << 20, "more than 100 MiB of memory");
    assert_eq!(sha256sum(&place.path("out/new")), want);
    fs::remove_file(place.path("out/new")).unwrap();
    let told = place.json("inspect out/delta");
    assert_eq!(told["output_bytes"], size);
    // The bound is one of every archive, the old one too.
    place.fails("patch --max-size 4GiB out/delta in/old out/new", 6, "exceeds 4294967296 bytes");
}

/// How often to kill.
const KILLS: usize = 100;

#[test]
#[ignore = "long: 100 runs that are killed"]
fn kills_leave_no_partial_output() {
    let pair = pair(90, 12_000_000);
    let place = on_disk();
    place.put("in/old", &pair.old).put("in/new", &pair.new).put("in/new.gz", compress("gzip", &pair.new));
    place.put("in/old.gz", compress("gzip", &pair.old));
    place.ok("diff in/old in/new in/delta");
    let delta = place.read("in/delta");
    let mut rng = Rng::new(91);
    let (mut complete, mut nothing) = (0, 0);
    for (line, want, kills) in [
        ("coracle diff in/old in/new.gz out/x", &delta, KILLS * 2 / 5),
        ("coracle patch in/delta in/old.gz out/x", &pair.new, KILLS * 3 / 5),
    ] {
        let begin = Instant::now();
        Ran::new(line, start(&mut place.command(line), Input::Nothing).unwrap().wait(LIMIT).unwrap())
            .success();
        let all = begin.elapsed();
        println!("{line}: {all:?}");
        for kill in 0..kills {
            let existing = kill % 2 == 1;
            let _ = fs::remove_file(place.path("out/x"));
            if existing {
                place.put("out/x", "the old one");
            }
            let before = place.files();
            // Anywhere, or around the end, where the output gets its name.
            let share = rng.below(1000) as f64 / 1000.0;
            let share = if kill % 3 == 0 { 0.85 + 0.3 * share } else { share };
            let mut running = start(&mut place.command(line), Input::Nothing).unwrap();
            sleep(all.mul_f64(share));
            running.signal(coracle_testkit::oracle::Signal::KILL).unwrap();
            let ran = Ran::new(line, running.wait(LIMIT).unwrap());
            assert!(matches!(ran.code, None | Some(0)), "{ran:?}");
            let left = place.files();
            if left.get(b"x".as_slice()) == Some(want) {
                complete += 1;
                // A hidden name in the way to an existing one may be left, with all its bytes, by a kill in between.
                let others = left.iter().filter(|(path, _)| *path != b"x");
                assert!(
                    others.clone().count() == 0,
                    "{:?}",
                    others.map(|(path, _)| path).collect::<Vec<_>>()
                );
            } else {
                assert_eq!(ran.code, None, "{ran:?}");
                nothing += 1;
                check_killed(&place, line, &before);
            }
        }
    }
    println!("{complete} complete, {nothing} with nothing");
    assert_eq!(complete + nothing, KILLS);
    assert!(complete >= KILLS / 50 && nothing >= KILLS / 2, "{complete} complete, {nothing} with nothing");
}

/// About 300 MB, of which most is in files beyond the bound of suffix arrays.
fn large_pair(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let mut rng = Rng::new(seed);
    let (mut old, mut new) = (TarBuilder::new(), TarBuilder::new());
    for number in 0..6 {
        let len = (20 << 20) + rng.below(40 << 20);
        let content = match number % 3 {
            0 => rng.bytes(len),
            1 => binary(rng.next_u64(), len),
            _ => text(rng.next_u64(), len),
        };
        let edits = 1 + rng.below(400);
        old.file(format!("large/{number}"), &content);
        // Two keep their names, the others get new ones.
        let name = if number < 2 { format!("large/{number}") } else { format!("renamed/{number}") };
        new.file(name, mutate(&content, rng.next_u64(), edits));
    }
    for number in 0..40 {
        let content = binary(rng.next_u64(), rng.below(3 << 20));
        old.file(format!("small/{number}"), &content);
        new.file(format!("small/{number}"), mutate(&content, rng.next_u64(), 5));
    }
    (old.finish(), new.finish())
}

#[test]
#[ignore = "long: pairs of 300 MB"]
fn large_files_through_the_rolling_hash() {
    for seed in 0..3 {
        let place = on_disk();
        std::os::unix::fs::symlink(PROGRAM, place.path("tar-diff")).unwrap();
        let (old, new) = large_pair(100 + seed);
        let (size, want) = (new.len(), digest(&new));
        place.put("in/old", old).put("in/new", new);
        for flags in ["-max-bsdiff-size 16", "-max-bsdiff-size 16 -binary-diff auto -max-zstd-diff-size 30"] {
            let line = format!("tar-diff {flags} in/old in/new out/delta");
            let begin = Instant::now();
            let output = start(&mut place.command(&line), Input::Nothing).unwrap().wait(LONG).unwrap();
            Ran::new(&line, output).success();
            let delta = fs::metadata(place.path("out/delta")).unwrap().len();
            println!("pair {seed} of {size} bytes, {flags}: {delta} bytes, {:?}", begin.elapsed());
            assert!(delta < size as u64 / 50, "{delta} bytes");
            long_json(&place, &format!("patch --expect {want} out/delta in/old out/new"));
        }
        // Little memory means small pieces, for any size.
        let made = long_json(&place, "diff --memory 64MiB in/old in/new out/delta");
        let delta = made["delta"]["bytes"].as_u64().unwrap();
        println!("pair {seed}, 64 MiB of memory: {delta} bytes");
        assert!(delta < size as u64 / 20, "{delta} bytes");
        long_json(&place, &format!("patch --expect {want} out/delta in/old out/new"));
    }
}
