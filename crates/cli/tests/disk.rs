//! Full disks, limits on file sizes, files and directories without the rights.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use coracle_testkit::image::{Rng, text};
use coracle_testkit::oracle::{run_bounded, tool};
use coracle_testkit::tar_builder::TarBuilder;

use crate::place::{LIMIT, PROGRAM, Place, Ran, compress};

/// A place with archives whose delta is as large as the new one: 3 MB that nothing shortens.
fn large() -> Place {
    let old = TarBuilder::new().file("a", Rng::new(1).bytes(3_000_000)).finish();
    let new = TarBuilder::new().file("b", Rng::new(2).bytes(3_000_000)).finish();
    let place = Place::new();
    place.put("in/old", old).put("in/new.gz", compress("gzip", &new)).put("in/new", new);
    place.ok("diff in/old in/new in/delta");
    place
}

/// Runs `script` in the place; `$coracle` is the program.
fn shell(place: &Place, script: &str) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(place.path("")).env("coracle", PROGRAM);
    command.env("TMPDIR", place.path("tmp"));
    Ran::new(script, run_bounded(&mut command, LIMIT).unwrap())
}

#[test]
fn a_full_device_is_told() {
    let place = large();
    for line in [
        "diff in/old in/new /dev/full",
        "diff in/old in/new.gz /dev/full",
        "patch in/delta in/old /dev/full",
        "patch --threads 1 in/delta in/old /dev/full",
    ] {
        let said = place.fails(line, 7, "/dev/full: No space left on device");
        assert!(said.contains("hint: free some space"), "{said}");
    }
    let before = place.files();
    for line in ["diff in/old in/new -", "patch in/delta in/old -"] {
        let ran = shell(&place, &format!("\"$coracle\" {line} >/dev/full"));
        place.check_failure(&ran, 7, "No space left on device");
    }
    // The report is what these are for.
    for line in ["inspect in/new", "explain in/old in/new in/delta"] {
        let ran = shell(&place, &format!("\"$coracle\" {line} >/dev/full"));
        place.check_failure(&ran, 7, "standard output: No space left on device");
        let ran = shell(&place, &format!("\"$coracle\" {line} --json >/dev/full"));
        assert_eq!(ran.code, Some(7), "{ran:?}");
        assert_eq!(crate::place::one_object(&ran.stderr)["error"]["kind"], "output");
    }
    place.check_unchanged("full", &before);
}

/// Nobody to tell, but still a code.
#[test]
fn messages_that_cannot_be_written_change_nothing() {
    let place = large();
    for (line, code) in [
        ("inspect in/absent 2>/dev/full", 3),
        ("inspect in/absent 2>&-", 3),
        ("inspect in/absent --json >/dev/full", 3),
        ("diff in/old in/new out/delta >/dev/full", 0),
        ("patch in/delta in/old - --json >out/new 2>/dev/full", 0),
    ] {
        let ran = shell(&place, &format!("\"$coracle\" {line}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(code), ""), "{ran:?}");
    }
}

/// Who stops reading has seen enough.
#[test]
fn a_reader_who_goes_away_is_no_failure_of_a_report() {
    let place = large();
    for line in ["inspect in/new", "inspect --json in/delta", "explain in/old in/new in/delta"] {
        let ran = shell(&place, &format!("{{ \"$coracle\" {line}; echo $? >out/code; }} | true"));
        assert_eq!((place.read("out/code").as_slice(), ran.stderr.as_str()), (&b"0\n"[..], ""), "{line}");
    }
}

/// And who stops reading an archive will not get it.
#[test]
fn a_reader_who_goes_away_is_a_failure_of_an_output() {
    let place = large();
    for line in ["diff in/old in/new -", "patch in/delta in/old -"] {
        let ran =
            shell(&place, &format!("{{ \"$coracle\" {line}; echo $? >out/code; }} | head -c 10 >/dev/null"));
        assert_eq!(place.read("out/code"), b"7\n", "{ran:?}");
        assert!(ran.stderr.contains("Broken pipe") && ran.stderr.lines().count() == 1, "{ran:?}");
    }
}

/// A file system of 1 MiB, or `None` where mounting is not allowed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut command = Command::new(tool("mount").unwrap());
        command.args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&at);
        run_bounded(&mut command, LIMIT).unwrap().status.success().then(|| SmallDisk(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = tool("umount").unwrap_or_else(|_| "umount".into());
        let result = run_bounded(Command::new(umount).arg(&self.0), LIMIT);
        if !std::thread::panicking() {
            assert!(result.unwrap().status.success());
        }
    }
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let place = large();
    let Some(disk) = SmallDisk::mount(place.path("disk")) else {
        println!("mounting is not allowed here: limits_on_file_sizes_are_like_a_full_disk stands for this");
        return;
    };
    fs::write(disk.0.join("there"), "already").unwrap();
    for out in ["disk/absent", "disk/there"] {
        for line in [
            "diff in/old in/new",
            "diff --no-verify in/old in/new.gz",
            "patch in/delta in/old",
            "patch --threads 1 in/delta in/old",
        ] {
            let said = place.fails(&format!("{line} {out}"), 7, &format!("{out}: No space left on device"));
            assert!(said.contains("hint: free some space; nothing was left behind"), "{said}");
            let names: Vec<_> = fs::read_dir(&disk.0).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(names, ["there"], "{line}");
            assert_eq!(fs::read(disk.0.join("there")).unwrap(), b"already", "{line}");
        }
    }
    // Temporary files are another matter: they can go elsewhere.
    let said = place.fails(
        "diff --temp-dir disk in/old in/new.gz out/delta",
        7,
        "temporary file in disk: No space left",
    );
    assert!(said.contains("hint: choose another directory with --temp-dir"), "{said}");
    let said =
        place.fails("patch --temp-dir absent in/delta in/new.gz out/new", 7, "temporary file in absent: ");
    assert!(said.contains("--temp-dir"), "{said}");
}

#[test]
fn limits_on_file_sizes_are_like_a_full_disk() {
    let place = large();
    place.put("out/there", "already");
    let before = place.files();
    for out in ["out/absent", "out/there"] {
        for line in ["diff in/old in/new", "patch in/delta in/old", "patch --threads 1 in/delta in/old"] {
            let ran = shell(&place, &format!("ulimit -f 100; exec \"$coracle\" {line} {out}"));
            place.check_failure(&ran, 7, &format!("{out}: File too large"));
            assert!(ran.stderr.contains("hint: a limit on file sizes is in force"), "{ran:?}");
            place.check_unchanged(line, &before);
        }
    }
    let ran = shell(&place, "ulimit -f 100; exec \"$coracle\" diff in/old in/new.gz out/absent");
    place.check_failure(&ran, 7, "temporary file in ");
    place.check_unchanged("temporary file", &before);
}

/// Runs `LINE` without the rights of root.
fn without_rights(place: &Place, line: &str) -> Ran {
    let mut command = place.command(&format!("coracle {line}"));
    if rustix::process::geteuid().is_root() {
        // The program may lie where only root can go.
        let program = place.path("coracle");
        if !program.exists() {
            fs::copy(PROGRAM, &program).unwrap();
        }
        let mut other = Command::new(tool("setpriv").unwrap());
        other.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
        other.args(command.get_args()).current_dir(place.path("")).env("TMPDIR", place.path("tmp"));
        command = other;
    }
    Ran::new(line, run_bounded(&mut command, LIMIT).unwrap())
}

fn chmod(place: &Place, name: &str, mode: u32) {
    fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_and_directories_without_the_rights_are_named() {
    let place = large();
    place.put("in/secret", "").put("out/there", "already");
    chmod(&place, "", 0o755);
    chmod(&place, "in/secret", 0);
    chmod(&place, "tmp", 0o1777);
    fs::create_dir(place.path("closed")).unwrap();
    chmod(&place, "closed", 0);

    // Somebody may do what needs no rights.
    chmod(&place, "out", 0o1777);
    without_rights(&place, "diff in/old in/new out/delta").success();
    let before = place.files();
    for line in [
        "diff in/secret in/new out/x",
        "diff in/old in/secret out/x",
        "patch in/secret in/old out/x",
        "patch in/delta in/secret out/x",
        "inspect in/secret",
    ] {
        let ran = without_rights(&place, line);
        place.check_failure(&ran, 3, "in/secret: Permission denied");
        assert!(ran.stderr.contains("hint: check the permissions"), "{ran:?}");
    }
    // A directory whose files cannot be looked at, and a file in a tree that cannot be read.
    let tree = TarBuilder::new().file("tree/secret", text(1, 9000)).finish();
    place.put("in/tree", &tree).put("in/moved", TarBuilder::new().file("moved", text(1, 9000)).finish());
    place.ok("diff in/tree in/moved in/moves");
    fs::create_dir(place.path("tree")).unwrap();
    place.put("tree/secret", text(1, 9000));
    chmod(&place, "tree/secret", 0);
    for source in ["closed", "."] {
        let ran = without_rights(&place, &format!("patch in/moves {source} out/x"));
        place.check_failure(&ran, 3, "source file \"tree/secret\": Permission denied");
    }

    chmod(&place, "out", 0o555);
    chmod(&place, "out/there", 0o444);
    for out in ["out/x", "out/there", "closed/x"] {
        for line in ["diff in/old in/new", "patch in/delta in/old"] {
            let ran = without_rights(&place, &format!("{line} {out}"));
            place.check_failure(&ran, 7, &format!("{out}: Permission denied"));
            assert!(ran.stderr.contains("hint: check the permissions"), "{ran:?}");
        }
    }
    chmod(&place, "tmp", 0o555);
    chmod(&place, "out", 0o1777);
    let ran = without_rights(&place, "diff in/old in/new.gz out/x");
    place.check_failure(&ran, 7, "temporary file in ");
    place.check_unchanged("rights", &before);
    chmod(&place, "closed", 0o755);
}

#[test]
fn outputs_that_cannot_be_are_named() {
    let place = large();
    for line in ["diff in/old in/new", "patch in/delta in/old"] {
        let said = place.fails(&format!("{line} absent/out"), 7, "absent/out: ");
        assert!(said.contains("hint: does the directory exist?"), "{said}");
        let said = place.fails(&format!("{line} in"), 7, " in: ");
        assert!(said.contains("hint: name a file, not a directory"), "{said}");
        place.fails(&format!("{line} in/"), 7, " in/: ");
        place.fails(&format!("{line} out/new/"), 7, " out/new/: ");
        place.fails(&format!("{line} in/old/x"), 7, "in/old/x: Not a directory");
    }
}
