//! One module a command: arguments to request, result to text or JSON.

pub mod audit;
pub mod convert;
pub mod copy;
pub mod delta;
pub mod diff;
pub mod explain;
pub mod images;
pub mod inspect;
pub mod inspect_image;
pub mod manual;
pub mod native;
pub mod patch;
pub mod pull;
mod rsync;
pub mod store;
mod subset;
pub mod trust;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use coracle_codec::tardiff::{Limits, MAX_DICTIONARY, MAX_WINDOW_LOG, OpCounts};
use coracle_codec::{compress, native as codec};
use coracle_engine::input::STDIO;
use coracle_engine::{Context, Error};
use coracle_sys::usage::self_usage;
use serde::Serialize;

use crate::args::Shared;
use crate::failure::Failure;
use crate::progress::Watch;
use crate::size::human;

/// What a run cost.
#[derive(Debug, Serialize)]
pub struct Cost {
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_bytes: u64,
}

impl Cost {
    /// The cost of this process since `start`.
    pub fn since(start: Instant) -> Self {
        let usage = self_usage();
        let round = |s: f64| (s * 1000.0).round() / 1000.0;
        Cost {
            seconds: round(start.elapsed().as_secs_f64()),
            cpu_seconds: round(usage.cpu.as_secs_f64()),
            peak_rss_bytes: usage.peak_rss,
        }
    }

    /// Its members beside those of a result.
    pub fn add_to(&self, out: &mut serde_json::Value) {
        out["seconds"] = serde_json::json!(self.seconds);
        out["cpu_seconds"] = serde_json::json!(self.cpu_seconds);
        out["peak_rss_bytes"] = serde_json::json!(self.peak_rss_bytes);
    }

    /// In words.
    pub fn text(&self) -> String {
        format!(
            "{:.2} s, {:.2} s of CPU, {} of memory",
            self.seconds,
            self.cpu_seconds,
            human(self.peak_rss_bytes)
        )
    }
}

/// Operations as JSON: `{"DATA": {"ops": 1, "bytes": 2}, ...}`.
#[derive(Debug, Serialize)]
pub struct OpRow {
    ops: u64,
    bytes: u64,
}

/// Operations by name.
pub fn op_rows(ops: &OpCounts) -> serde_json::Map<String, serde_json::Value> {
    ops.rows()
        .into_iter()
        .map(|(name, c)| (name.to_owned(), serde_json::json!(OpRow { ops: c.ops, bytes: c.bytes })))
        .collect()
}

/// Bounds for archives.
pub fn archive_limits(shared: &Shared) -> compress::Limits {
    compress::Limits { max_output: shared.max_size, ..compress::Limits::default() }
}

/// Bounds for a delta whose windows and dictionaries may take `memory` bytes.
pub fn delta_limits(shared: &Shared, memory: u64) -> Limits {
    // What everything but windows and dictionaries takes (docs/formats/tar-diff.md, section 7.4).
    const BASE: u64 = 48 << 20;
    let room = memory.saturating_sub(BASE).max(1 << 20);
    // A dictionary shares its room with the window of its frame.
    Limits {
        max_output: shared.max_size,
        max_window_log: room.ilog2().min(MAX_WINDOW_LOG),
        max_dictionary: (room / 2).min(MAX_DICTIONARY),
    }
}

/// Bounds for a native delta that may declare `memory` bytes.
pub fn native_limits(shared: &Shared, memory: u64) -> codec::Limits {
    codec::Limits { max_output: shared.max_size, max_memory: memory, ..codec::Limits::default() }
}

/// Memory with which [`delta_limits`] are the format's own.
pub const FULL_MEMORY: u64 = 1088 << 20;

/// Calls `work` with a watch on it; failures know which signal there was.
pub fn watched<R>(
    shared: &Shared,
    stdout_taken: bool,
    work: impl FnOnce(&Context<'_>) -> Result<R, Error>,
) -> Result<R, Failure> {
    let watch = Watch::new(shared.quiet || shared.json);
    let temp_dir = shared.temp_dir.clone().unwrap_or_else(default_temp_dir);
    let result = work(&Context { observer: &watch, temp_dir });
    let signal = watch.signal();
    drop(watch);
    result.map_err(|e| Failure::from(e).interrupted_by(signal).keep_stdout(stdout_taken))
}

/// `$TMPDIR`, else /var/tmp: decoded archives are too large for a /tmp in memory.
pub fn default_temp_dir() -> PathBuf {
    std::env::var_os("TMPDIR").filter(|d| !d.is_empty()).map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// Whether a path stands for standard output.
pub fn is_stdio(path: &Path) -> bool {
    path == Path::new(STDIO)
}

/// Says how it went, to standard error if standard output is taken. Not being heard changes nothing.
pub fn say(text: &str, stdout_taken: bool) {
    let line = format!("{}\n", text.trim_end());
    let _ = if stdout_taken {
        io::stderr().write_all(line.as_bytes())
    } else {
        io::stdout().write_all(line.as_bytes())
    };
}

/// Prints what the command is for. A reader who has gone away is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let line = format!("{}\n", text.trim_end());
    let mut out = io::stdout();
    match out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let failure = Failure::from(Error::Write { path: "standard output".into(), error });
            Err(failure.keep_stdout(true))
        }
        _ => Ok(()),
    }
}

/// Text from others, on one line and without what a terminal would obey.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A path for people and JSON; what is not UTF-8 is escaped.
pub fn show(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}
