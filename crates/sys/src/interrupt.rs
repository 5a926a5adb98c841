//! Signals that ask the process to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Whether, and by which signal, the process was asked to stop. Clones share one state.
#[derive(Debug, Clone)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Whether a stop was asked for. Work looks here now and then and returns early when it is true.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// The number of the signal that asked for the stop (2 for SIGINT, ...), `None` if none did.
    pub fn signal(&self) -> Option<i32> {
        match self.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => i32::try_from(signal).ok(),
        }
    }
}

/// Installs the handlers, for the rest of the process's life. Meant to be called once, early in `main`.
///
/// The first SIGINT, SIGTERM or SIGHUP sets the returned flag; a second one of them ends the process at once
/// with status 128 + its number. A signal that was ignored when the process started (SIGHUP under nohup(1),
/// SIGINT of a background job) stays ignored. SIGXFSZ no longer kills, so that reaching the limit on file
/// sizes is the ordinary error `EFBIG` of a write. SIGPIPE is left as Rust sets it: ignored.
///
/// # Errors
/// The kernel refuses a handler.
pub fn install() -> io::Result<Interrupt> {
    let interrupt =
        Interrupt { raised: Arc::new(AtomicBool::new(false)), signal: Arc::new(AtomicUsize::new(0)) };
    let ignored = ignored_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if ignored & (1 << (signal - 1)) != 0 {
            continue;
        }
        // Actions run in the order they were registered: the shutdown must see the flag as it was before
        // this signal, and whoever sees the flag must find the number.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&interrupt.raised))?;
        flag::register_usize(signal, Arc::clone(&interrupt.signal), usize::try_from(signal).unwrap_or(0))?;
        flag::register(signal, Arc::clone(&interrupt.raised))?;
    }
    // Any handler will do: the write then returns EFBIG. Nobody reads this flag.
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Ok(interrupt)
}

/// The set of signals that this process ignores now, as the kernel writes it: bit `n - 1` for signal `n`.
/// Empty if `/proc` is not there.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or_default();
    u64::from_str_radix(mask.trim(), 16).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};
    use std::time::{Duration, Instant};

    use signal_hook::low_level::raise;

    use super::*;

    const CASE: &str = "CORACLE_SIGNAL_CASE";

    // Handlers belong to the whole process and the second signal ends it, so each case is an ignored test
    // that its parent runs in a process of its own. Output goes to pipes: the file size limit of a case
    // would also count for a regular file that happens to be the standard output.
    fn run_case(case: &str, shell_before: &str) -> ExitStatus {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("{shell_before} exec \"$0\" --ignored --exact interrupt::tests::{case}"))
            .arg(std::env::current_exe().unwrap())
            .env(CASE, case)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "no such case {case}: {text}");
        output.status
    }

    /// False when somebody runs all ignored tests: the cases are nothing on their own.
    fn is_case() -> bool {
        std::env::var_os(CASE).is_some()
    }

    fn wait_until(what: impl Fn() -> bool) {
        let start = Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(10), "the signal never arrived");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn first_signal_sets_the_flag() {
        assert!(run_case("case_first", "").success());
    }

    #[test]
    #[ignore = "run by first_signal_sets_the_flag"]
    fn case_first() {
        if !is_case() {
            return;
        }
        let interrupt = install().unwrap();
        assert!(!interrupt.raised());
        assert_eq!(interrupt.signal(), None);
        raise(SIGTERM).unwrap();
        wait_until(|| interrupt.raised());
        assert_eq!(interrupt.clone().signal(), Some(SIGTERM));
    }

    #[test]
    fn second_signal_ends_the_process_with_its_own_number() {
        assert_eq!(run_case("case_second", "").code(), Some(128 + SIGTERM));
    }

    #[test]
    #[ignore = "run by second_signal_ends_the_process_with_its_own_number"]
    fn case_second() {
        if !is_case() {
            return;
        }
        let interrupt = install().unwrap();
        raise(SIGINT).unwrap();
        wait_until(|| interrupt.raised());
        raise(SIGTERM).unwrap();
        std::thread::sleep(Duration::from_secs(10));
        std::process::exit(99);
    }

    #[test]
    fn an_ignored_signal_stays_ignored() {
        assert!(run_case("case_ignored", "trap '' HUP;").success());
    }

    #[test]
    #[ignore = "run by an_ignored_signal_stays_ignored"]
    fn case_ignored() {
        if !is_case() {
            return;
        }
        let interrupt = install().unwrap();
        raise(SIGHUP).unwrap();
        raise(SIGHUP).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert!(!interrupt.raised());
    }

    #[test]
    fn file_size_limit_is_an_ordinary_error() {
        let status = run_case("case_file_size", "ulimit -f 8;");
        assert!(status.success(), "{status}");
        // And this is what it is without the handler.
        let status = run_case("case_file_size_without_handler", "ulimit -c 0; ulimit -f 8;");
        assert_eq!(status.signal(), Some(SIGXFSZ));
    }

    #[test]
    #[ignore = "run by file_size_limit_is_an_ordinary_error"]
    fn case_file_size() {
        if !is_case() {
            return;
        }
        let _interrupt = install().unwrap();
        let error = write_a_mebibyte().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    #[ignore = "run by file_size_limit_is_an_ordinary_error"]
    fn case_file_size_without_handler() {
        if !is_case() {
            return;
        }
        write_a_mebibyte().unwrap();
    }

    fn write_a_mebibyte() -> io::Result<()> {
        crate::spool::spool_file(&std::env::temp_dir())?.write_all(&[7; 1 << 20])
    }
}
