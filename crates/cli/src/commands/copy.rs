//! `coracle copy`.

use std::time::Instant;

use coracle_engine::image::copy::{Copied, Request, run as copy};
use serde_json::json;

use super::images::{environment, image_name, selection, sharing, writes_stdout};
use super::trust::{verdict_json, verdict_text};
use super::{Cost, say, watched};
use crate::args::Copy;
use crate::failure::Failure;
use crate::size::{grouped, human};

/// Copies an image.
pub fn run(args: &Copy) -> Result<(), Failure> {
    let start = Instant::now();
    let request = Request {
        source: image_name(&args.source)?,
        destination: image_name(&args.destination)?,
        platform: args.platform.clone(),
        jobs: args.jobs,
    };
    let (mut environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    environment.sharing = sharing(args.hardlinks);
    environment.selection = selection(&args.subset, Some(&request.destination))?;
    let stdout_taken = writes_stdout(&request.destination);
    let copied = watched(&args.shared, stdout_taken, |context| copy(&request, &environment, context))?;
    let cost = Cost::since(start);
    if args.shared.json {
        say(&as_json(&request, &copied, &cost), stdout_taken);
    } else if !args.shared.quiet {
        say(&as_text(&request, &copied, &cost), stdout_taken);
    }
    Ok(())
}

fn as_json(request: &Request, copied: &Copied, cost: &Cost) -> String {
    let blobs = &copied.blobs;
    json!({
        "kind": "copy",
        "source": request.source.to_string(),
        "destination": request.destination.to_string(),
        "digest": copied.digest.to_string(),
        "media_type": copied.media_type,
        "source_digest": copied.source_digest.to_string(),
        "digest_kept": copied.digest_kept,
        "trust": verdict_json(&copied.trust),
        "notes": copied.notes,
        "images": copied.images,
        "blobs": {
            "copied": { "count": blobs.copied, "bytes": blobs.copied_bytes },
            "existed": { "count": blobs.existed, "bytes": blobs.existed_bytes },
            "mounted": { "count": blobs.mounted, "bytes": blobs.mounted_bytes },
        },
        "seconds": cost.seconds,
        "cpu_seconds": cost.cpu_seconds,
        "peak_rss_bytes": cost.peak_rss_bytes,
    })
    .to_string()
}

fn as_text(request: &Request, copied: &Copied, cost: &Cost) -> String {
    let mut out = format!(
        "{}\n  -> {}\ndigest: {}{}\n",
        request.source,
        request.destination,
        copied.digest,
        if copied.digest_kept { " (kept)" } else { "" },
    );
    let images = if copied.images == 1 { "image" } else { "images" };
    let parts = [
        ("copied", copied.blobs.copied, copied.blobs.copied_bytes),
        ("there already", copied.blobs.existed, copied.blobs.existed_bytes),
        ("mounted", copied.blobs.mounted, copied.blobs.mounted_bytes),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, count, _)| *count > 0)
        .map(|(what, count, bytes)| format!("{} blobs {what} ({})", grouped(*count), human(*bytes)))
        .collect();
    out += &format!("{} {images}: {}\n", copied.images, parts.join(", "));
    out += &verdict_text(&copied.trust);
    for note in &copied.notes {
        out += &format!("note: {note}\n");
    }
    out += &format!("took {}", cost.text());
    out
}
