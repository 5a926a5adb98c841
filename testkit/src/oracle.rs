//! Running other programs within a time limit.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};

use crate::Error;

/// The Debian package of each program that our tests run.
const PACKAGES: &[(&str, &str)] = &[
    ("bash", "bash"),
    ("bsdtar", "libarchive-tools"),
    ("busybox", "busybox-static"),
    ("bzip2", "bzip2"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("dockerd", "docker.io"),
    ("fsck.erofs", "erofs-utils"),
    ("gzip", "gzip"),
    ("htpasswd", "apache2-utils"),
    ("mkfs.erofs", "erofs-utils"),
    ("mount", "mount"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("python3", "python3"),
    ("rdiff", "rdiff"),
    ("runc", "runc"),
    ("setpriv", "util-linux"),
    ("sha256sum", "coreutils"),
    ("skopeo", "skopeo"),
    ("tar", "tar"),
    ("umoci", "umoci"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
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
    start(command, Input::Nothing)?.wait(limit)
}

/// As [`run_bounded`], with `input` on standard input, through a pipe.
///
/// # Errors
/// As [`run_bounded`]. A program that does not read all of it is no error.
pub fn run_fed(command: &mut Command, input: Vec<u8>, limit: Duration) -> Result<Output, Error> {
    start(command, Input::Bytes(input))?.wait(limit)
}

/// What a program finds on its standard input.
#[derive(Debug)]
pub enum Input {
    /// The end of the file.
    Nothing,
    /// These bytes and the end, through a pipe.
    Bytes(Vec<u8>),
    /// These bytes and nothing more, not even an end, as long as the program runs.
    Open(Vec<u8>),
}

/// A program under way. Killed with its whole process group when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    command: String,
    program: PathBuf,
    /// Keeps standard input open.
    stdin: Option<Sender<()>>,
    stdout: Option<Collector>,
    stderr: Option<Collector>,
}

type Collector = thread::JoinHandle<std::io::Result<Vec<u8>>>;

/// Starts `command` in a process group of its own.
///
/// # Errors
/// [`Error::Io`] if it cannot be started.
pub fn start(command: &mut Command, input: Input) -> Result<Running, Error> {
    let program = PathBuf::from(command.get_program());
    let stdin = if matches!(input, Input::Nothing) { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(|error| Error::io(&program, error))?;
    // All pipes are served all the time: a program that waits for one would never end.
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let mut running = Running {
        command: format!("{command:?}"),
        program,
        stdin: None,
        stdout: Some(stdout),
        stderr: Some(stderr),
        child,
    };
    match (input, running.child.stdin.take()) {
        (Input::Bytes(bytes), Some(mut pipe)) => {
            // A program that does not want it all has its reasons.
            thread::spawn(move || pipe.write_all(&bytes));
        }
        (Input::Open(bytes), Some(mut pipe)) => {
            let (open, closed) = channel();
            running.stdin = Some(open);
            thread::spawn(move || {
                let result = pipe.write_all(&bytes);
                // Ends when the other side is dropped.
                let _ = closed.recv();
                result
            });
        }
        _ => {}
    }
    Ok(running)
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` to the process, not to its group. No error if it has ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        // An ended process whose status nobody fetched is still there, so the id is nobody else's.
        if self.ended()? {
            return Ok(());
        }
        let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) else { return Ok(()) };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::io(&self.program, error.into())),
        }
    }

    /// Whether the process has ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn ended(&mut self) -> Result<bool, Error> {
        Ok(self.child.try_wait().map_err(|error| Error::io(&self.program, error))?.is_some())
    }

    /// Waits for the end; the time counts from here.
    ///
    /// # Errors
    /// As [`run_bounded`].
    pub fn wait(mut self, limit: Duration) -> Result<Output, Error> {
        let start = Instant::now();
        let failed = |program: &Path, error| Error::io(program, error);
        // The pipes end when the last process that holds them does, so they count against the limit, too.
        let drained = |it: &Option<Collector>| it.as_ref().is_none_or(thread::JoinHandle::is_finished);
        while !(drained(&self.stdout) && drained(&self.stderr) && self.ended()?) {
            if start.elapsed() > limit {
                kill(&mut self.child).map_err(|error| failed(&self.program, error))?;
                return Err(Error::Timeout { command: std::mem::take(&mut self.command), limit });
            }
            thread::sleep(Duration::from_millis(2));
        }
        let status = self.child.wait().map_err(|error| failed(&self.program, error))?;
        let collect = |it: Option<Collector>| match it.map(thread::JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(std::io::Error::other("reader thread ended early")),
        };
        let (stdout, stderr) = (collect(self.stdout.take()), collect(self.stderr.take()));
        Ok(Output {
            status,
            stdout: stdout.map_err(|error| failed(&self.program, error))?,
            stderr: stderr.map_err(|error| failed(&self.program, error))?,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // Nobody is left to tell.
            let _ = kill(&mut self.child);
        }
    }
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

/// Runs `work` in a thread of its own and panics if it is not over within `limit`, or as `work` does. The thread then
/// goes on until the process ends.
///
/// # Panics
/// See above; `what` is in the message.
pub fn bounded<R: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (done, result) = channel();
    let worker = thread::spawn(move || done.send(work()));
    match result.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what}: still running after {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => panic!("{what}: ended without a result"),
        },
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Collector {
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
    use std::os::unix::process::ExitStatusExt;

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
    fn input_is_given_and_signals_arrive() {
        let limit = Duration::from_secs(30);
        let much = vec![7; 300_000];
        assert_eq!(run_fed(&mut Command::new("cat"), much.clone(), limit).unwrap().stdout, much);
        assert!(run_fed(&mut Command::new("true"), much, limit).unwrap().status.success());
        let mut running = start(&mut Command::new("cat"), Input::Open(b"x".to_vec())).unwrap();
        thread::sleep(Duration::from_millis(50));
        assert!(!running.ended().unwrap());
        running.signal(Signal::TERM).unwrap();
        assert_eq!(running.wait(limit).unwrap().status.signal(), Some(15));
    }

    #[test]
    fn work_is_bounded() {
        assert_eq!(bounded("sum", Duration::from_secs(30), || 1 + 1), 2);
        let hangs = || bounded("sleep", Duration::from_millis(20), || thread::sleep(Duration::from_secs(5)));
        let panic = std::panic::catch_unwind(hangs).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().starts_with("sleep: still running after"));
        let panics = || bounded("panic", Duration::from_secs(30), || panic!("inner"));
        let panic = std::panic::catch_unwind(panics).unwrap_err();
        assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "inner");
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
