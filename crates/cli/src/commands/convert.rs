//! `coracle convert`.

use std::time::Instant;

use coracle_engine::convert::{Done, Format, Layer, Request, run as convert};
use serde_json::json;

use super::images::{environment, image_name, writes_stdout};
use super::trust::{verdict_json, verdict_text};
use super::{Cost, say, watched};
use crate::args::convert::{Compression, Convert};
use crate::failure::Failure;
use crate::size::human;

/// Converts an image.
pub fn run(args: &Convert) -> Result<(), Failure> {
    let start = Instant::now();
    let format = match args.compression {
        Compression::Gzip => Format::Gzip,
        Compression::Zstd => Format::Zstd,
        Compression::Chunked => Format::Chunked,
        Compression::Stargz => Format::Stargz,
    };
    if args.compat.is_some() && format != Format::Chunked {
        return Err(Failure::usage("--compat is of use with --compression zstd:chunked only"));
    }
    let (levels, _) = format.levels();
    if args.level.is_some_and(|level| !levels.contains(&level)) {
        let (least, most) = (levels.start(), levels.end());
        return Err(Failure::usage(format!("--level of {} is from {least} to {most}", format.name())));
    }
    let request = Request {
        source: image_name(&args.source)?,
        destination: image_name(&args.destination)?,
        platform: args.platform.clone(),
        format,
        level: args.level,
        legacy: args.compat.is_some(),
        jobs: args.jobs,
    };
    let (environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    let stdout_taken = writes_stdout(&request.destination);
    let done = watched(&args.shared, stdout_taken, |context| convert(&request, &environment, context))?;
    let cost = Cost::since(start);
    if args.shared.json {
        say(&as_json(&request, &done, &cost), stdout_taken);
    } else if !args.shared.quiet {
        say(&as_text(&request, &done, &cost), stdout_taken);
    }
    Ok(())
}

fn as_json(request: &Request, done: &Done, cost: &Cost) -> String {
    let layers = done.layers.iter().map(|layer| {
        json!({
            "image": layer.image.to_string(),
            "layer": layer.number,
            "diff_id": layer.diff_id.to_string(),
            "new_diff_id": layer.new_diff_id.to_string(),
            "blob": layer.old.to_string(),
            "bytes": layer.old_bytes,
            "new_blob": layer.new.to_string(),
            "new_bytes": layer.new_bytes,
            "tar_bytes": layer.tar_bytes,
            "compression": layer.format.name(),
            "fell_back": layer.fell_back,
        })
    });
    let mut out = json!({
        "kind": "convert",
        "source": request.source.to_string(),
        "destination": request.destination.to_string(),
        "compression": request.format.name(),
        "digest": done.digest.to_string(),
        "source_digest": done.source_digest.to_string(),
        "config_kept": done.config_kept,
        "images": done.images,
        "layers": layers.collect::<Vec<_>>(),
        "trust": verdict_json(&done.trust),
        "notes": done.notes,
    });
    cost.add_to(&mut out);
    out.to_string()
}

fn as_text(request: &Request, done: &Done, cost: &Cost) -> String {
    let mut out = format!("{}\n  -> {}\ndigest: {}\n", request.source, request.destination, done.digest);
    let sum = |bytes: fn(&Layer) -> u64| human(done.layers.iter().map(bytes).sum());
    let (old, new, tar) = (sum(|l| l.old_bytes), sum(|l| l.new_bytes), sum(|l| l.tar_bytes));
    let layers = if done.layers.len() == 1 { "layer" } else { "layers" };
    out += &format!(
        "{} {layers} in {}: {new}, before {old}, uncompressed {tar}\n",
        done.layers.len(),
        request.format.name()
    );
    let kept = if done.config_kept { "kept" } else { "new" };
    out += &format!("config and diff_ids: {kept}\n");
    out += &verdict_text(&done.trust);
    for note in &done.notes {
        out += &format!("note: {note}\n");
    }
    out += &format!("took {}", cost.text());
    out
}
