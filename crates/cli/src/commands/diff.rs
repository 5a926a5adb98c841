//! `coracle diff`.

use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use coracle_codec::delta::{Effort, FileCounts};
use coracle_codec::tardiff::{Method, Options, StreamOptions, Version};
use coracle_engine::diff::{Made, Request, run as make};
use serde_json::{Value, json};

use super::{Cost, archive_limits, is_stdio, op_rows, say, watched};
use crate::args::{Codec, Diff, Format, Target};
use crate::failure::Failure;
use crate::size::{grouped, percent};

/// Makes a delta.
pub fn run(args: &Diff) -> Result<(), Failure> {
    let start = Instant::now();
    let [old @ .., new, delta] = args.paths.as_slice() else {
        return Err(Failure::usage("diff takes old archives, a new archive and a delta"));
    };
    if args.codec == Codec::Native {
        return super::native::diff(args, old, new, delta);
    }
    if args.target != Target::Archives {
        return Err(Failure::usage("--for needs --codec native"));
    }
    let to_stdout = is_stdio(delta);
    let prefixes = |paths: &[PathBuf]| paths.iter().map(|p| p.as_os_str().as_bytes().to_vec()).collect();
    let (version, method) = match args.format {
        Format::V1 => (Version::V1, Method::Bsdiff),
        Format::V2 => (Version::V2, Method::Smallest),
    };
    let basis = Options::at(effort(args));
    let options = Options {
        version,
        method,
        stream: StreamOptions { window_log: args.window, ..basis.stream },
        memory: args.memory,
        threads: args.threads.unwrap_or_else(all_cores),
        apply_whiteouts: args.whiteouts.apply(old.len()),
        any_mode: args.any_mode,
        source_prefixes: prefixes(&args.source_prefix),
        ignore_prefixes: prefixes(&args.ignore_source_prefix),
        ..basis
    };
    let request = Request {
        old: old.to_vec(),
        new: new.clone(),
        delta: delta.clone(),
        options,
        limits: archive_limits(&args.shared),
        verify: !args.no_verify,
    };
    let made = watched(&args.shared, to_stdout, |context| make(&request, context))?;
    let cost = Cost::since(start);
    if args.shared.json {
        say(&as_json(&request, &made, &cost), to_stdout);
    } else if !args.shared.quiet {
        say(&as_text(delta, &made, &cost), to_stdout);
    }
    Ok(())
}

/// The effort that was asked for; arguments are within its bounds.
pub fn effort(args: &Diff) -> Effort {
    Effort::new(args.effort).unwrap_or_default()
}

/// As many threads as there are cores.
pub fn all_cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn as_json(request: &Request, made: &Made, cost: &Cost) -> String {
    let report = &made.report;
    json!({
        "kind": "diff",
        "old": old_json(request, made),
        "new": {
            "path": request.new.display().to_string(),
            "bytes": report.new_size,
            "digest": report.digest.to_string(),
            "members": report.members,
        },
        "delta": {
            "path": request.delta.display().to_string(),
            "bytes": made.delta_bytes,
            "version": request.options.version.number(),
            "stream_bytes": report.stream_bytes,
            "operations": op_rows(&report.ops),
        },
        "files": files_json(&report.files),
        "sources": report.sources,
        "verified": made.verified,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_bytes": cost.peak_rss_bytes,
    })
    .to_string()
}

/// The old archives of a delta of any codec.
pub fn old_json<O, R>(request: &Request<O>, made: &Made<R>) -> Value {
    let archives = request.old.iter().zip(&made.old_bytes);
    archives.map(|(path, bytes)| json!({ "path": path.display().to_string(), "bytes": bytes })).collect()
}

/// How many files went which way.
pub fn files_json(files: &FileCounts) -> Value {
    json!({ "identical": files.identical, "changed": files.changed, "literal": files.literal })
}

fn as_text(delta: &Path, made: &Made, cost: &Cost) -> String {
    let report = &made.report;
    format!(
        "{}: {} bytes, {} of the new archive's {}\n\
         files: {} identical, {} changed, {} literal\n\
         result: {}{}\n\
         took {}",
        delta.display(),
        grouped(made.delta_bytes),
        percent(made.delta_bytes, report.new_size),
        grouped(report.new_size),
        grouped(report.files.identical),
        grouped(report.files.changed),
        grouped(report.files.literal),
        report.digest,
        if made.verified { " (verified)" } else { " (not verified)" },
        cost.text(),
    )
}
