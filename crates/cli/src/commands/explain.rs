//! `coracle explain`.

use coracle_codec::tardiff::{Cost, Explanation, MemberCost};
use coracle_engine::explain::{Explained, Request, run as attribute};
use serde_json::json;

use super::{
    FULL_MEMORY, archive_limits, delta_limits, native, native_limits, op_rows, print, show, watched,
};
use crate::args::Explain;
use crate::failure::Failure;
use crate::size::{grouped, percent};
use crate::table::{Align, render};

/// Shows what each file costs.
pub fn run(args: &Explain) -> Result<(), Failure> {
    let [source @ .., new, delta] = args.paths.as_slice() else {
        return Err(Failure::usage("explain takes old archives or a directory, a new archive and a delta"));
    };
    let request = Request {
        source: source.to_vec(),
        new: new.clone(),
        delta: delta.clone(),
        limits: delta_limits(&args.shared, FULL_MEMORY),
        native_limits: native_limits(&args.shared, FULL_MEMORY),
        archive_limits: archive_limits(&args.shared),
    };
    let found = watched(&args.shared, false, |context| attribute(&request, context))
        .map_err(Failure::without_memory_option)?;
    let path = delta.display().to_string();
    let found = match found {
        Explained::TarDiff(found) => found,
        Explained::Native(found) if args.shared.json => return print(&native::explained_json(&path, &found)),
        Explained::Native(found) => {
            let top = (!args.all).then_some(args.top);
            return print(&native::explained_text(&path, &found, top));
        }
    };
    let mut members: Vec<&MemberCost> = found.members.iter().collect();
    members.sort_by_key(|m| std::cmp::Reverse(m.delta_bytes));
    let text = if args.shared.json {
        as_json(&path, &found, &members)
    } else {
        let shown = if args.all { members.len() } else { args.top.min(members.len()) };
        as_text(&path, &found, &members, shown)
    };
    print(&text)
}

fn name(m: &MemberCost) -> String {
    if m.cost == Cost::Trailer { "(end of the archive)".into() } else { show(&m.path) }
}

fn as_json(path: &str, x: &Explanation, members: &[&MemberCost]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|m| {
            json!({
                "path": name(m),
                "cost": m.cost.name(),
                "size": m.size,
                "delta_bytes": m.delta_bytes,
                "stream_bytes": m.stream_bytes,
                "literal": m.literal,
                "copied": m.copied,
                "added": m.added,
                "patched": m.patched,
                "sources": m.sources.iter().map(|s| show(s)).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "kind": "explain",
        "path": path,
        "bytes": x.delta_bytes,
        "version": x.version.number(),
        "stream_bytes": x.stream_bytes,
        "operations": op_rows(&x.ops),
        "members": members,
    })
    .to_string()
}

fn as_text(path: &str, x: &Explanation, members: &[&MemberCost], shown: usize) -> String {
    let mut out = format!("{path}: {} bytes\n\n", grouped(x.delta_bytes));
    let right = |name| (name, Align::Right);
    let mut rows = Vec::new();
    for cost in [Cost::Changed, Cost::Literal, Cost::Copied, Cost::Metadata, Cost::Trailer] {
        let of: Vec<_> = members.iter().filter(|m| m.cost == cost).collect();
        let bytes = of.iter().map(|m| m.delta_bytes).sum();
        let size = of.iter().map(|m| m.size).sum();
        let count = grouped(of.len() as u64);
        rows.push(vec![
            cost.name().to_owned(),
            count,
            grouped(size),
            grouped(bytes),
            percent(bytes, x.delta_bytes),
        ]);
    }
    let header =
        [("kind", Align::Left), right("members"), right("content"), right("delta bytes"), right("of delta")];
    out += &render(&header, &rows);
    out += &format!("\nlargest {shown} of {}:\n", grouped(members.len() as u64));
    let rows: Vec<Vec<String>> = members[..shown]
        .iter()
        .map(|m| {
            let sources = match m.sources.as_slice() {
                [] => String::new(),
                [one] if *one == m.path => "same path".into(),
                [one] => show(one),
                [one, rest @ ..] => format!("{} and {} more", show(one), rest.len()),
            };
            vec![
                grouped(m.delta_bytes),
                percent(m.delta_bytes, x.delta_bytes),
                grouped(m.size),
                m.cost.name().to_owned(),
                name(m),
                sources,
            ]
        })
        .collect();
    let header = [
        right("delta bytes"),
        right("of delta"),
        right("content"),
        ("kind", Align::Left),
        ("member", Align::Left),
        ("from", Align::Left),
    ];
    out += &render(&header, &rows);
    out
}
