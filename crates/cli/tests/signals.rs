//! Signals in the midst of the work: the right code, one line, nothing left behind.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use coracle_testkit::image::{binary, mutate};
use coracle_testkit::oracle::{Input, Running, Signal, start};
use coracle_testkit::tar_builder::TarBuilder;

use crate::place::{LIMIT, Place, Ran, compress};

/// Two archives of one program of 40 MB, whose delta takes seconds.
fn archives() -> &'static (Vec<u8>, Vec<u8>) {
    static ARCHIVES: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    ARCHIVES.get_or_init(|| {
        let old = binary(60, 40 << 20);
        let new = mutate(&old, 61, 3000);
        (TarBuilder::new().file("program", old).finish(), TarBuilder::new().file("program", new).finish())
    })
}

/// Two deltas that make zeros without end, as far as tests are concerned: one by many operations, one by a single one.
struct Endless {
    many: Vec<u8>,
    one: Vec<u8>,
}

fn endless() -> &'static Endless {
    static DELTAS: OnceLock<Endless> = OnceLock::new();
    DELTAS.get_or_init(|| {
        let operation = |size: u64| {
            let mut out = vec![0];
            let mut rest = size;
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
            out
        };
        let zeros = vec![0; 64 << 20];
        let frame = |parts: &[&[u8]]| compress("zstd", &parts.concat());
        let many = frame(&[&operation(zeros.len() as u64), &zeros]);
        let one = [frame(&[&operation(250 << 30)]), frame(&[&zeros]).repeat(4000)].concat();
        let delta = |frames: &[u8]| [b"tardf1\n\0", frames].concat();
        Endless { many: delta(&many.repeat(500)), one: delta(&one) }
    })
}

/// A bound in case the signal is ignored: then the run ends with another code.
const MAX: &str = "--max-size 8GiB";

/// The open files of a process that lie in `dir`, with or without a name, and their sizes.
fn files_in(id: u32, dir: &Path) -> Vec<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{id}/fd")) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let file = fs::read_link(&path).ok()?;
            file.starts_with(dir).then(|| fs::metadata(&path).map(|meta| meta.len()).unwrap_or(0))
        })
        .collect()
}

/// Starts `LINE` and waits until its output has at least `size` bytes.
fn under_way(place: &Place, line: &str, input: Input, size: u64) -> Running {
    let mut running = start(&mut place.command(line), input).unwrap();
    let out = fs::canonicalize(place.path("out")).unwrap();
    let begin = Instant::now();
    while !files_in(running.id(), &out).iter().any(|len| *len >= size) {
        if running.ended().unwrap() {
            panic!("{:?}", Ran::new(line, running.wait(LIMIT).unwrap()));
        }
        assert!(begin.elapsed() < LIMIT, "{line}: no output after {LIMIT:?}");
        sleep(Duration::from_millis(1));
    }
    running
}

/// Interrupts `LINE` once it has written `size` bytes, after `delay`.
fn interrupted(place: &Place, line: &str, input: Input, size: u64, delay: u64, signal: Signal, code: i32) {
    let before = place.files();
    let mut running = under_way(place, line, input, size);
    sleep(Duration::from_millis(delay));
    running.signal(signal).unwrap();
    let ran = Ran::new(line, running.wait(LIMIT).unwrap());
    place.check_failure(&ran, code, "interrupted");
    place.check_unchanged(line, &before);
}

const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)];

#[test]
fn diff_stops() {
    let (old, new) = archives();
    let place = Place::new();
    place.put("in/old", old).put("in/new", new).put("out/there", "already");
    for ((signal, code), (out, delay)) in SIGNALS.into_iter().zip([("x", 300), ("there", 0), ("there", 600)])
    {
        let line = format!("coracle diff in/old in/new out/{out}");
        interrupted(&place, &line, Input::Nothing, 0, delay, signal, code);
    }
}

#[test]
fn patch_stops() {
    let place = Place::new();
    place.put("out/there", "already");
    place.put("in/delta", &endless().many);
    for ((signal, code), out) in SIGNALS.into_iter().zip(["there", "x", "x"]) {
        for threads in [1, 2] {
            let line = format!("coracle patch {MAX} --threads {threads} in/delta tmp out/{out}");
            interrupted(&place, &line, Input::Nothing, 1 << 20, 0, signal, code);
        }
    }
}

/// Also in the midst of an operation, which may take hours.
#[test]
fn patch_stops_within_an_operation() {
    let place = Place::new();
    place.put("in/delta", &endless().one);
    for threads in [1, 2] {
        let line = format!("coracle patch --max-size 1TiB --threads {threads} in/delta tmp /dev/null");
        let mut running = start(&mut place.command(&line), Input::Nothing).unwrap();
        // Standard input and the output.
        let null = || files_in(running.id(), Path::new("/dev/null")).len();
        let begin = Instant::now();
        while null() < 2 {
            assert!(begin.elapsed() < LIMIT, "{line}: no output after {LIMIT:?}");
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_millis(200));
        running.signal(Signal::TERM).unwrap();
        let ran = Ran::new(&line, running.wait(Duration::from_secs(30)).unwrap());
        place.check_failure(&ran, 143, "interrupted");
    }
}

/// A pipe from which nothing comes.
#[test]
fn waiting_for_input_stops() {
    let (old, _) = archives();
    let place = Place::new();
    place.put("in/old", old);
    let delta = &endless().many;
    // The output is open by then, and what there is of the delta is read.
    let line = format!("coracle patch {MAX} - tmp out/x");
    interrupted(&place, &line, Input::Open(delta[..20].to_vec()), 0, 100, Signal::TERM, 143);
    for line in ["diff - in/old out/x", "diff in/old - out/x", "inspect /dev/stdin", "explain tmp in/old -"] {
        let before = place.files();
        let mut running = start(&mut place.command(&format!("coracle {line}")), Input::Open(vec![])).unwrap();
        sleep(Duration::from_millis(300));
        running.signal(Signal::INT).unwrap();
        let ran = Ran::new(line, running.wait(Duration::from_secs(20)).unwrap());
        place.check_failure(&ran, 130, "interrupted");
        place.check_unchanged(line, &before);
    }
}

#[test]
fn upstream_names_stop() {
    let (old, new) = archives();
    let place = Place::new();
    for name in ["tar-diff", "tar-patch"] {
        std::os::unix::fs::symlink(crate::place::PROGRAM, place.path(name)).unwrap();
    }
    place.put("in/old", old).put("in/new", new).put("in/delta", &endless().many);
    interrupted(&place, "tar-diff in/old in/new out/x", Input::Nothing, 0, 300, Signal::INT, 130);
    interrupted(&place, "tar-patch in/delta tmp out/x", Input::Nothing, 1 << 20, 0, Signal::TERM, 143);
}

#[test]
fn an_object_tells_of_the_signal() {
    let place = Place::new();
    place.put("in/delta", &endless().many);
    let line = format!("coracle patch {MAX} --json in/delta tmp out/x");
    let mut running = under_way(&place, &line, Input::Nothing, 1 << 20);
    running.signal(Signal::INT).unwrap();
    let ran = Ran::new(&line, running.wait(LIMIT).unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(130), ""), "{ran:?}");
    let told = crate::place::one_object(&ran.text());
    assert_eq!((&told["error"]["kind"], &told["error"]["exit_code"]), (&"interrupted".into(), &130.into()));
    assert!(place.files().is_empty());
}

/// Whether a file in `dir` can be without a name, and so vanish with the process. Else a hidden one stays.
pub fn unnamed_files_in(dir: &Path) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    openat(CWD, dir, OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR).is_ok()
}

/// What may be left after a kill: nothing; a hidden file where files must have names.
#[track_caller]
pub fn check_killed(place: &Place, what: &str, before: &std::collections::BTreeMap<Vec<u8>, Vec<u8>>) {
    if unnamed_files_in(&place.path("out")) {
        place.check_unchanged(what, before);
        return;
    }
    for (path, content) in place.files() {
        let hidden = path.starts_with(b".") && path.windows(4).any(|w| w == b".tmp");
        assert!(hidden || before.get(&path) == Some(&content), "{what}: {}", path.escape_ascii());
        if hidden {
            fs::remove_file(place.path("out").join(String::from_utf8(path).unwrap())).unwrap();
        }
    }
}

#[test]
fn a_kill_leaves_nothing() {
    let (old, new) = archives();
    let place = Place::new();
    place.put("in/old", old).put("in/new", new).put("in/new.gz", compress("gzip", new));
    place.put("in/delta", &endless().many).put("out/there", "already");
    let before = place.files();
    for out in ["out/x", "out/there"] {
        for (line, size, delay) in [
            (format!("coracle diff in/old in/new.gz {out}"), 0, 200),
            (format!("coracle patch {MAX} in/delta tmp {out}"), 1 << 20, 0),
        ] {
            let mut running = under_way(&place, &line, Input::Nothing, size);
            sleep(Duration::from_millis(delay));
            running.signal(Signal::KILL).unwrap();
            assert_eq!(Ran::new(&line, running.wait(LIMIT).unwrap()).code, None, "{line}");
            check_killed(&place, &line, &before);
        }
    }
    // While an archive is decoded: only a temporary file is there.
    let line = "coracle diff in/new.gz in/old out/x";
    let mut running = start(&mut place.command(line), Input::Nothing).unwrap();
    let tmp = fs::canonicalize(place.path("tmp")).unwrap();
    while !files_in(running.id(), &tmp).iter().any(|len| *len > 0) && !running.ended().unwrap() {
        sleep(Duration::from_millis(1));
    }
    running.signal(Signal::KILL).unwrap();
    assert_eq!(Ran::new(line, running.wait(LIMIT).unwrap()).code, None);
    check_killed(&place, line, &before);
}
