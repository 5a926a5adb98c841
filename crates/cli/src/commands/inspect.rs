//! `coracle inspect`.

use std::path::Path;

use coracle_engine::image::ImageName;
use coracle_engine::inspect::{Contents, Delta, Inspection, SourceUse, run as look};
use serde_json::json;

use super::{
    FULL_MEMORY, archive_limits, delta_limits, native, native_limits, op_rows, print, rsync, show, watched,
};
use crate::args::Inspect;
use crate::failure::Failure;
use crate::size::{grouped, percent};
use crate::table::{Align, render};

/// Sources shown unless all are wanted.
const SHOWN: usize = 20;

/// Shows what a file holds.
pub fn run(args: &Inspect) -> Result<(), Failure> {
    if args.verify {
        return super::trust::verify(args);
    }
    if let Some(image) = args.path.to_str().filter(|text| names_image(text)) {
        return super::inspect_image::run(args, image);
    }
    let limits = delta_limits(&args.shared, FULL_MEMORY);
    let found = watched(&args.shared, false, |context| {
        look(
            &args.path,
            &limits,
            &native_limits(&args.shared, u64::MAX),
            archive_limits(&args.shared),
            context,
        )
    })
    .map_err(Failure::without_memory_option)?;
    let path = args.path.display().to_string();
    let text = match (&found, args.shared.json) {
        (Inspection::Delta(delta), true) => delta_json(&path, delta),
        (Inspection::Delta(delta), false) => delta_text(&path, delta, args.all),
        (Inspection::Native(delta), true) => native::delta_json(&path, delta),
        (Inspection::Native(delta), false) => native::delta_text(&path, delta),
        (Inspection::Rsync(delta), true) => rsync::delta_json(&path, delta),
        (Inspection::Rsync(delta), false) => rsync::delta_text(&path, delta),
        (Inspection::Archive(contents), true) => archive_json(&path, contents),
        (Inspection::Archive(contents), false) => archive_text(&path, contents),
    };
    print(&text)
}

/// Whether `text` is the name of an image and not the path of a file: it begins with a transport, or no such file is
/// there and it begins with a host.
fn names_image(text: &str) -> bool {
    if ImageName::has_transport(text) {
        return true;
    }
    let host = text.split_once('/').map_or("", |(host, _)| host);
    let is_host = host == "localhost" || (host.contains(['.', ':']) && !host.starts_with('.'));
    is_host && !Path::new(text).exists()
}

fn delta_json(path: &str, d: &Delta) -> String {
    let sources: Vec<_> = d
        .sources
        .iter()
        .map(|s| {
            json!({
                "path": show(&s.path),
                "opens": s.opens,
                "copied": s.copied,
                "added": s.added,
                "patches": s.patches,
                "needs": s.needs,
            })
        })
        .collect();
    json!({
        "kind": "tar-diff",
        "path": path,
        "bytes": d.bytes,
        "digest": d.digest.to_string(),
        "version": d.version.number(),
        "stream_bytes": d.stream_bytes,
        "output_bytes": d.output_bytes,
        "operations": op_rows(&d.ops),
        "sources": sources,
    })
    .to_string()
}

fn delta_text(path: &str, d: &Delta, all: bool) -> String {
    let output = d
        .output_bytes
        .map_or_else(|| "known only with the source".into(), |n| format!("{} bytes", grouped(n)));
    let mut out = format!(
        "{path}: tar-diff version {}, {} bytes ({} of operations)\ndigest: {}\nmakes: {output}\n\n",
        d.version.number(),
        grouped(d.bytes),
        grouped(d.stream_bytes),
        d.digest,
    );
    let rows: Vec<Vec<String>> = d
        .ops
        .rows()
        .into_iter()
        .filter(|(_, c)| c.ops > 0)
        .map(|(name, c)| vec![name.to_owned(), grouped(c.ops), grouped(c.bytes)])
        .collect();
    out += &render(&[("operation", Align::Left), ("count", Align::Right), ("bytes", Align::Right)], &rows);
    let mut sources: Vec<&SourceUse> = d.sources.iter().collect();
    sources.sort_by_key(|s| std::cmp::Reverse(s.copied.saturating_add(s.added)));
    let shown = if all { sources.len() } else { SHOWN.min(sources.len()) };
    let rows: Vec<Vec<String>> = sources[..shown]
        .iter()
        .map(|s| vec![grouped(s.copied), grouped(s.added), grouped(s.patches), show(&s.path)])
        .collect();
    let right = |name| (name, Align::Right);
    out += &format!("\n{} source files", grouped(d.sources.len() as u64));
    out += if shown < sources.len() { ", the ones used most (--all shows the rest):\n" } else { ":\n" };
    out += &render(&[right("copied"), right("corrected"), right("patches"), ("path", Align::Left)], &rows);
    out
}

fn archive_json(path: &str, c: &Contents) -> String {
    json!({
        "kind": "tar",
        "path": path,
        "compression": c.compression.name(),
        "stored_bytes": c.stored_bytes,
        "bytes": c.bytes,
        "diff_id": c.diff_id.to_string(),
        "content_bytes": c.content_bytes,
        "members": {
            "files": c.members.files,
            "directories": c.members.directories,
            "symlinks": c.members.symlinks,
            "hardlinks": c.members.hardlinks,
            "others": c.members.others,
            "whiteouts": c.members.whiteouts,
        },
    })
    .to_string()
}

fn archive_text(path: &str, c: &Contents) -> String {
    let m = &c.members;
    format!(
        "{path}: tar archive, compression {}, {} bytes ({} of the archive)\n\
         archive: {} bytes, {} of them content\n\
         diff_id: {}\n\
         members: {} files, {} directories, {} symlinks, {} hardlinks, {} others; {} whiteouts among them",
        c.compression.name(),
        grouped(c.stored_bytes),
        percent(c.stored_bytes, c.bytes),
        grouped(c.bytes),
        grouped(c.content_bytes),
        c.diff_id,
        grouped(m.files),
        grouped(m.directories),
        grouped(m.symlinks),
        grouped(m.hardlinks),
        grouped(m.others),
        grouped(m.whiteouts),
    )
}
