//! `coracle explain`.

use coracle_codec::delta::Cost;
use coracle_codec::tardiff::{Explanation, MemberCost};
use coracle_engine::artifact::explain as artifact;
use coracle_engine::explain::{Explained, Request, run as attribute};
use coracle_engine::image::ImageName;
use serde_json::json;

use super::delta::{artifact_name, payload_name};
use super::images::environment;
use super::{
    FULL_MEMORY, archive_limits, delta_limits, native, native_limits, op_rows, print, rsync, show, watched,
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
    if args.paths.iter().any(|path| path.to_str().is_some_and(ImageName::has_transport)) {
        return images(args);
    }
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
        Explained::Rsync(found) => {
            let members = by_cost(&found.members, |m| m.delta_bytes);
            let shown = if args.all { members.len() } else { args.top.min(members.len()) };
            return print(&match args.shared.json {
                true => rsync::explained_json(&path, &found, &members),
                false => rsync::explained_text(&path, &found, &members, shown),
            });
        }
    };
    let members = by_cost(&found.members, |m| m.delta_bytes);
    let text = if args.shared.json {
        as_json(&path, &found, &members)
    } else {
        let shown = if args.all { members.len() } else { args.top.min(members.len()) };
        as_text(&path, &found, &members, shown)
    };
    print(&text)
}

/// Shows what each file of an image costs in a delta artifact.
fn images(args: &Explain) -> Result<(), Failure> {
    let names: Vec<ImageName> =
        args.paths.iter().map(|path| artifact_name(&path.to_string_lossy())).collect::<Result<_, _>>()?;
    let [old, new, delta] = names.as_slice() else {
        return Err(Failure::usage("of images explain takes the old one, the new one and the delta"));
    };
    let (environment, _runtime) = environment(&args.registry, None, &args.shared)?;
    let request = artifact::Request {
        old: old.clone(),
        new: new.clone(),
        delta: delta.clone(),
        platform: args.platform.clone(),
        jobs: super::diff::all_cores(),
        limits: delta_limits(&args.shared, FULL_MEMORY),
        native_limits: native_limits(&args.shared, FULL_MEMORY),
    };
    let found = watched(&args.shared, false, |context| artifact::run(&request, &environment, context))
        .map_err(Failure::without_memory_option)?;
    let members = by_cost(&found.members, |m| m.delta_bytes);
    let name = delta.to_string();
    if args.shared.json {
        return print(&images_json(&name, &found, &members));
    }
    let shown = if args.all { members.len() } else { args.top.min(members.len()) };
    print(&images_text(&name, &found, &members, shown))
}

fn images_json(name: &str, x: &artifact::Explained, members: &[&artifact::Member]) -> String {
    let layers: Vec<_> = x
        .layers
        .iter()
        .map(|layer| {
            json!({
                "number": layer.number,
                "diff_id": layer.diff_id.to_string(),
                "bytes": layer.bytes,
                "content": layer.payload.map_or("same", payload_name),
            })
        })
        .collect();
    let members: Vec<_> = members
        .iter()
        .map(|m| {
            json!({
                "layer": m.layer,
                "path": member_name(m.cost, &m.path),
                "cost": m.cost.name(),
                "size": m.size,
                "delta_bytes": m.delta_bytes,
            })
        })
        .collect();
    json!({
        "kind": "delta-explain",
        "name": name,
        "dialect": x.dialect.name(),
        "digest": x.digest.to_string(),
        "bytes": x.bytes,
        "layers": layers,
        "members": members,
    })
    .to_string()
}

fn images_text(name: &str, x: &artifact::Explained, members: &[&artifact::Member], shown: usize) -> String {
    let mut out = format!("{name}: {}, {} bytes for layers\n\n", x.dialect, grouped(x.bytes));
    let rows: Vec<Vec<String>> = x
        .layers
        .iter()
        .map(|layer| {
            let content = layer.payload.map_or("same in both", payload_name).to_owned();
            vec![layer.number.to_string(), grouped(layer.bytes), percent(layer.bytes, x.bytes), content]
        })
        .collect();
    let right = |name| (name, Align::Right);
    out += &render(&[right("layer"), right("bytes"), right("of delta"), ("content", Align::Left)], &rows);
    out += "\n";
    out += &kinds_table(x.members.iter().map(|m| (m.cost, m.size, m.delta_bytes)), x.bytes);
    out += &format!("\nlargest {shown} of {}:\n", grouped(members.len() as u64));
    let rows: Vec<Vec<String>> = members[..shown]
        .iter()
        .map(|m| {
            let mut row = member_cells(m.delta_bytes, x.bytes, m.size, m.cost, &m.path);
            row.push(m.layer.to_string());
            row
        })
        .collect();
    let header = [&MEMBER_COLUMNS[..], &[("layer", Align::Right)]].concat();
    out + &render(&header, &rows)
}

/// Members of any codec's explanation, the most expensive first.
pub fn by_cost<M>(members: &[M], delta_bytes: fn(&M) -> u64) -> Vec<&M> {
    let mut members: Vec<&M> = members.iter().collect();
    members.sort_by_key(|m| std::cmp::Reverse(delta_bytes(m)));
    members
}

/// What a member is called.
pub fn member_name(cost: Cost, path: &[u8]) -> String {
    if cost == Cost::Trailer { "(end of the archive)".into() } else { show(path) }
}

/// Members by kind; of each is given its kind, its size and its bytes of the delta, of `delta` in all.
pub fn kinds_table(members: impl Iterator<Item = (Cost, u64, u64)> + Clone, delta: u64) -> String {
    let right = |name| (name, Align::Right);
    let mut rows = Vec::new();
    for cost in [Cost::Changed, Cost::Literal, Cost::Copied, Cost::Metadata, Cost::Trailer] {
        let (mut count, mut size, mut bytes) = (0, 0, 0);
        for (_, of_size, of_bytes) in members.clone().filter(|m| m.0 == cost) {
            (count, size, bytes) = (count + 1, size + of_size, bytes + of_bytes);
        }
        let share = percent(bytes, delta);
        rows.push(vec![cost.name().to_owned(), grouped(count), grouped(size), grouped(bytes), share]);
    }
    let header =
        [("kind", Align::Left), right("members"), right("content"), right("delta bytes"), right("of delta")];
    render(&header, &rows)
}

/// The first cells of a member's row: its bytes of the delta, of `delta` in all, its size and its name.
pub fn member_cells(bytes: u64, delta: u64, size: u64, cost: Cost, path: &[u8]) -> Vec<String> {
    vec![
        grouped(bytes),
        percent(bytes, delta),
        grouped(size),
        cost.name().to_owned(),
        member_name(cost, path),
    ]
}

/// The first columns of the table of members.
pub const MEMBER_COLUMNS: [(&str, Align); 5] = [
    ("delta bytes", Align::Right),
    ("of delta", Align::Right),
    ("content", Align::Right),
    ("kind", Align::Left),
    ("member", Align::Left),
];

fn as_json(path: &str, x: &Explanation, members: &[&MemberCost]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|m| {
            json!({
                "path": member_name(m.cost, &m.path),
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
    out += &kinds_table(x.members.iter().map(|m| (m.cost, m.size, m.delta_bytes)), x.delta_bytes);
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
            let mut row = member_cells(m.delta_bytes, x.delta_bytes, m.size, m.cost, &m.path);
            row.push(sources);
            row
        })
        .collect();
    let header = [&MEMBER_COLUMNS[..], &[("from", Align::Left)]].concat();
    out += &render(&header, &rows);
    out
}
