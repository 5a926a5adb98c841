//! What the commands say of native deltas.

use std::path::{Path, PathBuf};
use std::time::Instant;

use coracle_codec::native::{
    Applied, Base, Explanation, Head, Options, Origin, Report, StreamId, StreamSize,
};
use coracle_codec::tar;
use coracle_engine::diff::{Made, Request};
use coracle_engine::native::{Delta, diff as make};
use serde_json::{Value, json};

use super::diff::{all_cores, effort, files_json, old_json};
use super::explain::{MEMBER_COLUMNS, by_cost, kinds_table, member_cells, member_name};
use super::{Cost, archive_limits, is_stdio, say, show, watched};
use crate::args::{Diff, Target};
use crate::failure::Failure;
use crate::size::{grouped, human, percent};
use crate::table::{Align, render};

/// Makes a native delta.
pub fn diff(args: &Diff, old: &[PathBuf], new: &Path, delta: &Path) -> Result<(), Failure> {
    let start = Instant::now();
    if !args.source_prefix.is_empty() || !args.ignore_source_prefix.is_empty() {
        return Err(Failure::usage("--source-prefix and --ignore-source-prefix are for tar-diffs"));
    }
    let base = match args.target {
        Target::Archives => Base::Archives,
        Target::Tree => {
            Base::Tree { apply_whiteouts: args.whiteouts.apply(old.len()), any_mode: args.any_mode }
        }
    };
    let options = Options {
        effort: effort(args),
        memory: args.memory,
        threads: args.threads.unwrap_or_else(all_cores),
        base,
        limits: tar::Limits::default(),
        ..Options::default()
    };
    let to_stdout = is_stdio(delta);
    let request = Request {
        old: old.to_vec(),
        new: new.into(),
        delta: delta.into(),
        options,
        limits: archive_limits(&args.shared),
        verify: !args.no_verify,
    };
    let made = watched(&args.shared, to_stdout, |context| make(&request, context))?;
    let cost = Cost::since(start);
    if args.shared.json {
        say(&made_json(&request, &made, &cost), to_stdout);
    } else if !args.shared.quiet {
        say(&made_text(delta, &made, &cost), to_stdout);
    }
    Ok(())
}

fn made_json(request: &Request<Options>, made: &Made<Report>, cost: &Cost) -> String {
    let report = &made.report;
    json!({
        "kind": "native-diff",
        "old": old_json(request, made),
        "new": {
            "path": request.new.display().to_string(),
            "bytes": report.head.size,
            "digest": report.head.digest.to_string(),
            "members": report.members,
        },
        "delta": {
            "path": request.delta.display().to_string(),
            "bytes": made.delta_bytes,
            "effort": request.options.effort.number(),
            "memory": report.head.memory,
            "blocks": report.head.blocks.len(),
        },
        "files": files_json(&report.files),
        "rebuilt_streams": report.rebuilt_streams,
        "other_streams": report.other_streams,
        "verified": made.verified,
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_bytes": cost.peak_rss_bytes,
    })
    .to_string()
}

fn made_text(delta: &Path, made: &Made<Report>, cost: &Cost) -> String {
    let report = &made.report;
    format!(
        "{}: {} bytes, {} of the new archive's {}\n\
         files: {} identical, {} changed, {} literal; {} compressed streams rebuilt\n\
         result: {}{}\n\
         took {}; applying takes {}",
        delta.display(),
        grouped(made.delta_bytes),
        percent(made.delta_bytes, report.head.size),
        grouped(report.head.size),
        grouped(report.files.identical),
        grouped(report.files.changed),
        grouped(report.files.literal),
        grouped(report.rebuilt_streams),
        report.head.digest,
        if made.verified { " (verified)" } else { " (not verified)" },
        cost.text(),
        human(report.head.memory),
    )
}

/// What `patch` says of a native delta in its JSON.
pub fn applied_json(applied: &Applied) -> Value {
    json!({ "memory": applied.memory, "blocks": applied.blocks })
}

/// `inspect` of a native delta as JSON.
pub fn delta_json(path: &str, d: &Delta) -> String {
    let blocks: Vec<_> = d
        .head
        .blocks
        .iter()
        .enumerate()
        .map(|(i, block)| {
            let streams = d.streams.iter().filter(|s| s.block == i + 1).map(stream_json);
            json!({ "output": block.output, "bytes": block.encoded, "streams": streams.collect::<Vec<_>>() })
        })
        .collect();
    let mut all = json!({
        "kind": "native",
        "path": path,
        "bytes": d.bytes,
        "digest": d.digest.to_string(),
        "output_bytes": d.head.size,
        "output_digest": d.head.digest.to_string(),
        "memory": d.head.memory,
        "blocks": blocks,
    });
    if !d.head.encoders.is_empty() {
        all["encoders"] = json!(d.head.encoders);
    }
    match &d.head.origin {
        Origin::Archives(archives) => {
            let archives =
                archives.iter().map(|a| json!({ "bytes": a.size, "digest": a.digest.to_string() }));
            all["archives"] = archives.collect();
        }
        Origin::Tree(tree) => {
            let files = tree.files.iter().map(|f| json!({ "path": show(&f.path), "bytes": f.size }));
            all["files_used"] = files.collect();
        }
    }
    all.to_string()
}

fn stream_json(s: &StreamSize) -> Value {
    json!({ "name": s.stream.name(), "method": s.method.name(), "decoded": s.decoded, "bytes": s.encoded })
}

/// `inspect` of a native delta as text.
pub fn delta_text(path: &str, d: &Delta) -> String {
    let mut out = format!(
        "{path}: native delta, {} bytes\ndigest: {}\nmakes: {} bytes, {}\nmemory: {}\n",
        grouped(d.bytes),
        d.digest,
        grouped(d.head.size),
        d.head.digest,
        human(d.head.memory),
    );
    if !d.head.encoders.is_empty() {
        out += &format!("needs encoders: {}\n", d.head.encoders.join(", "));
    }
    out += &match &d.head.origin {
        Origin::Archives(archives) => archives
            .iter()
            .map(|a| format!("from: archive of {} bytes, {}\n", grouped(a.size), a.digest))
            .collect(),
        Origin::Tree(tree) => format!("from: {} files of a tree\n", grouped(tree.files.len() as u64)),
    };
    out += &format!("\n{} blocks:\n", grouped(d.head.blocks.len() as u64));
    out + &streams_table(&d.streams, d.bytes)
}

/// Bytes by stream, of all blocks.
fn streams_table(streams: &[StreamSize], delta: u64) -> String {
    let rows: Vec<Vec<String>> = StreamId::ALL
        .into_iter()
        .filter_map(|id| {
            let of: Vec<_> = streams.iter().filter(|s| s.stream == id).collect();
            let (decoded, encoded) =
                (of.iter().map(|s| s.decoded).sum::<u64>(), of.iter().map(|s| s.encoded).sum());
            let mut methods: Vec<&str> = of.iter().map(|s| s.method.name()).collect();
            methods.sort_unstable();
            methods.dedup();
            (decoded > 0).then(|| {
                vec![
                    id.name().to_owned(),
                    grouped(decoded),
                    grouped(encoded),
                    percent(encoded, delta),
                    methods.join(", "),
                ]
            })
        })
        .collect();
    let right = |name| (name, Align::Right);
    let header = [("stream", Align::Left), right("decoded"), right("bytes"), right("of delta")];
    render(&[&header[..], &[("method", Align::Left)]].concat(), &rows)
}

/// `explain` of a native delta as JSON.
pub fn explained_json(path: &str, x: &Explanation) -> String {
    let Head { size, digest, .. } = &x.head;
    let members: Vec<_> = by_cost(&x.members, |m| m.delta_bytes)
        .into_iter()
        .map(|m| {
            let streams: serde_json::Map<String, Value> = StreamId::ALL
                .into_iter()
                .zip(m.streams)
                .filter(|(_, bytes)| *bytes > 0)
                .map(|(id, bytes)| (id.name().to_owned(), bytes.into()))
                .collect();
            json!({
                "path": member_name(m.cost, &m.path),
                "cost": m.cost.name(),
                "size": m.size,
                "delta_bytes": m.delta_bytes,
                "rebuilt_streams": m.rebuilt,
                "streams": streams,
            })
        })
        .collect();
    json!({
        "kind": "native-explain",
        "path": path,
        "bytes": x.delta_bytes,
        "output_bytes": size,
        "output_digest": digest.to_string(),
        "streams": x.streams.iter().map(stream_json).collect::<Vec<_>>(),
        "members": members,
    })
    .to_string()
}

/// `explain` of a native delta as text, with the `top` most expensive members, or all.
pub fn explained_text(path: &str, x: &Explanation, top: Option<usize>) -> String {
    let mut out = format!("{path}: {} bytes\n\n", grouped(x.delta_bytes));
    out += &kinds_table(x.members.iter().map(|m| (m.cost, m.size, m.delta_bytes)), x.delta_bytes);
    out += "\n";
    out += &streams_table(&x.streams, x.delta_bytes);
    let members = by_cost(&x.members, |m| m.delta_bytes);
    let shown = top.unwrap_or(members.len()).min(members.len());
    out += &format!("\nlargest {shown} of {}:\n", grouped(members.len() as u64));
    let rows: Vec<Vec<String>> = members[..shown]
        .iter()
        .map(|m| member_cells(m.delta_bytes, x.delta_bytes, m.size, m.cost, &m.path))
        .collect();
    out + &render(&MEMBER_COLUMNS, &rows)
}
