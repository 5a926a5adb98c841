//! What this process has used so far.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Processor time and memory of the whole process, all threads, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time together.
    pub cpu: Duration,
    /// Largest resident set in bytes; 0 where the kernel does not tell (no `/proc`).
    pub peak_rss: u64,
}

/// Reads the [`Usage`] of this process.
///
/// rustix has no getrusage(2): the time is `CLOCK_PROCESS_CPUTIME_ID`, the peak is `VmHWM` of
/// `/proc/self/status`. The latter starts afresh at execve(2), which `ru_maxrss` does not.
pub fn self_usage() -> Usage {
    let clock = clock_gettime(ClockId::ProcessCPUTime);
    let cpu =
        Duration::new(u64::try_from(clock.tv_sec).unwrap_or(0), u32::try_from(clock.tv_nsec).unwrap_or(0));
    let peak_rss = std::fs::read_to_string("/proc/self/status").map_or(0, |status| parse_peak(&status));
    Usage { cpu, peak_rss }
}

/// The `VmHWM` line of proc_pid_status(5) in bytes, 0 if there is none.
fn parse_peak(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|value| value.trim().strip_suffix("kB"))
        .and_then(|value| value.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib.saturating_mul(1024))
}

/// The number of the user that this process runs as.
pub fn user_id() -> u32 {
    rustix::process::getuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_line_is_parsed() {
        assert_eq!(
            parse_peak("Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"),
            2048 * 1024
        );
        assert_eq!(parse_peak("Name:\tx\n"), 0);
        assert_eq!(parse_peak("VmHWM:\tmuch kB\n"), 0);
    }

    #[test]
    fn time_and_memory_grow() {
        let before = self_usage();
        assert!(before.peak_rss > 100_000);
        // More than this test binary holds otherwise; written, so that it is resident.
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        while self_usage().cpu < before.cpu + Duration::from_millis(5) {
            std::hint::black_box(block.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
        let after = self_usage();
        assert!(after.cpu > before.cpu);
        assert!(after.peak_rss >= 64 << 20);
    }
}
