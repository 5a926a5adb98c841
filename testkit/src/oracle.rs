//! Running other programs within a time limit.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;

/// The Debian package of each program that our tests run.
const PACKAGES: [(&str, &str); 12] = [
    ("bsdtar", "libarchive-tools"),
    ("fsck.erofs", "erofs-utils"),
    ("gzip", "gzip"),
    ("mkfs.erofs", "erofs-utils"),
    ("podman", "podman"),
    ("python3", "python3"),
    ("rdiff", "rdiff"),
    ("sha256sum", "coreutils"),
    ("skopeo", "skopeo"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("zstd", "zstd"),
];

/// Finds the program `name` on `PATH`.
///
/// # Errors
/// [`Error::MissingTool`] with the Debian package to install.
pub fn tool(name: &str) -> Result<PathBuf, Error> {
    find_in(&std::env::var_os("PATH").unwrap_or_default(), name).ok_or_else(|| {
        let package =
            PACKAGES.iter().find(|(tool, _)| *tool == name).map_or("unknown", |(_, package)| package);
        Error::MissingTool { tool: name.to_owned(), package }
    })
}

fn find_in(path: &OsString, name: &str) -> Option<PathBuf> {
    let is_program = |file: &Path| {
        file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// Runs `command` to its end and returns its status and everything it wrote.
///
/// Its standard input is empty. It runs in a process group of its own, which is killed as a whole when `limit`
/// is over. Meant for output that fits in memory.
///
/// # Errors
/// The program cannot be started ([`Error::Io`]) or took longer than `limit` ([`Error::Timeout`]). A status
/// other than 0 is no error here, see [`run_ok`].
pub fn run_bounded(command: &mut Command, limit: Duration) -> Result<Output, Error> {
    let start = Instant::now();
    let program = PathBuf::from(command.get_program());
    let failed = |error| Error::io(&program, error);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    // Both pipes are emptied all the time: a program that waits for one to drain would never end.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    // The pipes end when the last process that holds them does, so they count against the limit, too.
    while !(stdout.is_finished() && stderr.is_finished() && child.try_wait().map_err(failed)?.is_some()) {
        if start.elapsed() > limit {
            kill(&mut child).map_err(failed)?;
            return Err(Error::Timeout { command: format!("{command:?}"), limit });
        }
        thread::sleep(Duration::from_millis(2));
    }
    let status = child.wait().map_err(failed)?;
    let collect = |thread: thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().unwrap_or_else(|_| Err(std::io::Error::other("reader thread ended early")))
    };
    Ok(Output { status, stdout: collect(stdout).map_err(failed)?, stderr: collect(stderr).map_err(failed)? })
}

/// As [`run_bounded`], but a status other than 0 is an error that shows what the program said; returns its
/// standard output.
///
/// # Errors
/// As [`run_bounded`], and [`Error::Failed`].
pub fn run_ok(command: &mut Command, limit: Duration) -> Result<Vec<u8>, Error> {
    let output = run_bounded(command, limit)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if let Some((end, _)) = stderr.char_indices().nth(2000) {
        stderr.truncate(end);
    }
    Err(Error::Failed { command: format!("{command:?}"), status: output.status, stderr })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<std::io::Result<Vec<u8>>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn kill(child: &mut Child) -> std::io::Result<()> {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // The group may be gone by now, which is as good.
        let _ = kill_process_group(group, Signal::KILL);
    }
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_returned() {
        let output = run_bounded(&mut shell("cat; echo out; echo err >&2; exit 3"), Duration::from_secs(30));
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    fn much_output_does_not_block() {
        let script = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; \
                      echo 0123456789012345678901234567890123456789 >&2; i=$((i+1)); done";
        let output = run_bounded(&mut shell(script), Duration::from_secs(30)).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (3000 * 41, 3000 * 41));
    }

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children() {
        let start = Instant::now();
        let error = run_bounded(&mut shell("sleep 300 & sleep 300"), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn failures_show_the_message() {
        let error = run_ok(&mut shell("echo because >&2; exit 1"), Duration::from_secs(30)).unwrap_err();
        assert!(error.to_string().contains("because"), "{error}");
        assert_eq!(run_ok(&mut shell("echo fine"), Duration::from_secs(30)).unwrap(), b"fine\n");
    }

    #[test]
    fn tools_are_found_or_named() {
        assert!(tool("tar").unwrap().is_absolute());
        let error = tool("no-such-program").unwrap_err();
        assert_eq!(error.to_string(), "no-such-program is not on PATH; Debian package: unknown");
        assert!(find_in(&OsString::from("/dev:/etc"), "null").is_none());
    }
}
