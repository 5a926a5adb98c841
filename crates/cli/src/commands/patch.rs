//! `coracle patch`.

use std::path::Path;
use std::time::Instant;

use coracle_engine::patch::{Done, Rebuilt, Request, run as apply};
use serde_json::json;

use super::native::applied_json;
use super::{
    Cost, archive_limits, delta_limits, diff::all_cores, is_stdio, native_limits, op_rows, say, watched,
};
use crate::args::Patch;
use crate::failure::Failure;
use crate::size::grouped;

/// Applies a delta.
pub fn run(args: &Patch) -> Result<(), Failure> {
    let start = Instant::now();
    let [delta, source @ .., out] = args.paths.as_slice() else {
        return Err(Failure::usage("patch takes a delta, a source and an output"));
    };
    if source.is_empty() {
        return Err(Failure::usage("patch takes a delta, a source and an output"));
    }
    let to_stdout = is_stdio(out);
    let request = Request {
        delta: delta.clone(),
        source: source.to_vec(),
        out: out.clone(),
        expect: args.expect,
        limits: delta_limits(&args.shared, args.memory),
        native_limits: native_limits(&args.shared, args.memory),
        archive_limits: archive_limits(&args.shared),
        threads: args.threads.unwrap_or_else(all_cores),
    };
    let rebuilt = watched(&args.shared, to_stdout, |context| apply(&request, context))?;
    let cost = Cost::since(start);
    if args.shared.json {
        say(&as_json(out, &rebuilt, &cost), to_stdout);
    } else if !args.shared.quiet {
        say(&as_text(out, &rebuilt, &cost), to_stdout);
    }
    Ok(())
}

fn as_json(out: &Path, rebuilt: &Rebuilt, cost: &Cost) -> String {
    let (kind, delta) = match &rebuilt.applied {
        Done::TarDiff(applied) => {
            let operations = op_rows(&applied.ops);
            ("patch", json!({ "version": applied.version.number(), "operations": operations }))
        }
        Done::Native(applied) => ("native-patch", applied_json(applied)),
    };
    json!({
        "kind": kind,
        "output": {
            "path": out.display().to_string(),
            "bytes": rebuilt.applied.output(),
            "digest": rebuilt.digest.to_string(),
        },
        "delta": delta,
        "verified": rebuilt.verified,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_bytes": cost.peak_rss_bytes,
    })
    .to_string()
}

fn as_text(out: &Path, rebuilt: &Rebuilt, cost: &Cost) -> String {
    let verdict = match (rebuilt.verified, &rebuilt.applied) {
        (true, _) => "as expected",
        (false, Done::TarDiff(_)) => "not compared with anything: see --expect",
        (false, Done::Native(_)) => "as the delta says; see --expect",
    };
    format!(
        "{}: {} bytes\nresult: {} ({verdict})\ntook {}",
        out.display(),
        grouped(rebuilt.applied.output()),
        rebuilt.digest,
        cost.text()
    )
}
