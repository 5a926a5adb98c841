//! `coracle pull` and `coracle update`.

use std::num::NonZeroUsize;
use std::time::Instant;

use coracle_engine::image::{ImageName, Sharing, Transport, store_beside};
use coracle_engine::pull::plan::{Prices, Way};
use coracle_engine::pull::platforms::run_all as pull_all;
use coracle_engine::pull::update::{Updated, update as update_all};
use coracle_engine::pull::{
    Event, FellBack, From, Headers, Made, Planned, PlannedLayer, Pulled, Request, run as pull,
};
use serde_json::{Value, json};

use super::delta::{artifact_name, payload_name as payload};
use super::diff::all_cores;
use super::images::{environment, image_name, selection, sharing, store_is_named, writes_stdout};
use super::subset::subset_json;
use super::trust::{verdict_json, verdict_text};
use super::{Cost, clean, delta_limits, native_limits, say, watched};
use crate::args::{Pull, Pulling, Shared, Update};
use crate::failure::Failure;
use crate::size::{grouped, human, percent};
use crate::table::{Align, render};

/// Layers at the same time.
const JOBS: NonZeroUsize = NonZeroUsize::new(4).unwrap();

fn request(image: ImageName, dry_run: bool, pulling: &Pulling) -> Request {
    let shared = &pulling.shared;
    let threads = pulling.threads.unwrap_or_else(all_cores);
    let from_deltas =
        Request { deltas: !pulling.no_deltas, ..plain_request(image, shared, pulling.memory, threads) };
    Request { dry_run, jobs: pulling.jobs, ..from_deltas }
}

/// A pull as it is without options.
pub(super) fn plain_request(
    image: ImageName,
    shared: &Shared,
    memory: u64,
    threads: NonZeroUsize,
) -> Request {
    Request {
        image,
        bundle: None,
        origin: None,
        name: None,
        sources: Vec::new(),
        trees: Vec::new(),
        platform: None,
        to: None,
        keep: false,
        private: false,
        full: None,
        deltas: true,
        dry_run: false,
        jobs: JOBS,
        threads,
        limits: delta_limits(shared, memory),
        native_limits: native_limits(shared, memory),
        prices: Prices::default(),
    }
}

/// Pulls one image.
pub fn run(args: &Pull) -> Result<(), Failure> {
    let start = Instant::now();
    let shared = &args.pulling.shared;
    let mut request = Request {
        name: args.name.clone(),
        keep: args.keep,
        bundle: args.from_bundle.as_deref().map(artifact_name).transpose()?,
        sources: args.source.iter().map(|name| image_name(name)).collect::<Result<_, _>>()?,
        trees: args.dedupe.dedupe_from.clone(),
        platform: args.platform.clone(),
        to: args.to.as_deref().map(image_name).transpose()?,
        full: args.balena.full.as_deref().map(image_name).transpose()?,
        ..request(image_name(&args.image)?, args.dry_run, &args.pulling)
    };
    let stdout_taken = request.to.as_ref().is_some_and(writes_stdout);
    let (mut environment, _runtime) = environment(&args.pulling.registry, Some(&args.pulling.trust), shared)?;
    environment.sharing = sharing(args.hardlinks);
    environment.selection = selection(&args.subset, request.to.as_ref())?;
    let rootfs = request.to.as_ref().and_then(|to| match to.transport() {
        Transport::Rootfs(path) => Some(path.clone()),
        _ => None,
    });
    // A tree has a store of its own beside it, unless one is named.
    if let (Some(path), false) = (rootfs, store_is_named(&args.pulling.registry.place)) {
        environment.store = store_beside(&path)?;
        environment.sharing = Sharing::Links;
        request.private = true;
    }
    let tell = |event: &Event<'_>| tell(None, event, shared.json, shared.quiet, stdout_taken);
    if args.all_platforms {
        let all = watched(shared, false, |context| pull_all(&request, &environment, context, &tell))?;
        return all_told(&all, args.dry_run, &Cost::since(start), shared);
    }
    let pulled = watched(shared, stdout_taken, |context| pull(&request, &environment, context, &tell))?;
    let cost = Cost::since(start);
    if shared.json {
        let mut out = pulled_json(&pulled, args.dry_run);
        cost.add_to(&mut out);
        say(&out.to_string(), stdout_taken);
    } else if !shared.quiet {
        say(&format!("{}took {}", pulled_text(&pulled, args.dry_run), cost.text()), stdout_taken);
    }
    Ok(())
}

/// Tells what came of images for several platforms.
fn all_told(all: &[Pulled], dry_run: bool, cost: &Cost, shared: &Shared) -> Result<(), Failure> {
    if shared.json {
        let images: Vec<Value> = all.iter().map(|pulled| pulled_json(pulled, dry_run)).collect();
        let mut out = json!({ "kind": "pull-all", "images": images });
        cost.add_to(&mut out);
        say(&out.to_string(), false);
    } else if !shared.quiet {
        let texts: Vec<String> = all.iter().map(|pulled| pulled_text(pulled, dry_run) + "\n").collect();
        say(&format!("{}took {}", texts.concat(), cost.text()), false);
    }
    Ok(())
}

/// Pulls all tracked images.
pub fn update(args: &Update) -> Result<(), Failure> {
    let start = Instant::now();
    let shared = &args.pulling.shared;
    let (environment, _runtime) = environment(&args.pulling.registry, Some(&args.pulling.trust), shared)?;
    // The image is filled in for each.
    let like = request(image_name("docker://localhost/any")?, args.dry_run, &args.pulling);
    let tell = |name: &str, event: &Event<'_>| tell(Some(name), event, shared.json, shared.quiet, false);
    let updated = watched(shared, false, |context| update_all(&like, &environment, context, &tell))?;
    let cost = Cost::since(start);
    let failed = updated.iter().filter(|image| image.result.is_err()).count();
    if shared.json {
        let images: Vec<Value> = updated.iter().flat_map(|image| updated_json(image, args.dry_run)).collect();
        let out = json!({
            "kind": "update",
            "images": images,
            "failed": failed,
            "seconds": cost.seconds,
            "cpu_seconds": cost.cpu_seconds,
            "peak_rss_bytes": cost.peak_rss_bytes,
        });
        say(&out.to_string(), false);
    } else if !shared.quiet {
        let texts: Vec<String> = updated.iter().map(|image| updated_text(image, args.dry_run)).collect();
        let none = if updated.is_empty() { "the store tracks no image: pull one by its tag\n" } else { "" };
        say(&format!("{}{none}took {}", texts.concat(), cost.text()), false);
    }
    // What could not be updated decides the exit code; all have been told.
    match updated.into_iter().find_map(|image| image.result.err()) {
        Some(error) => Err(Failure::from(error).already_told(failed).keep_stdout(true)),
        None => Ok(()),
    }
}

/// Says what happens while it happens: as JSON, or where a delta could not be used.
fn tell(image: Option<&str>, event: &Event<'_>, json: bool, quiet: bool, stdout_taken: bool) {
    if json {
        let mut out = match event {
            Event::Planned(planned) => {
                let mut out = planned_json(planned);
                out["event"] = json!("planned");
                out
            }
            Event::Layer(made) => {
                let mut out = made_json(made);
                out["event"] = json!("layer");
                out
            }
            Event::FellBack(fell_back) => {
                let mut out = fell_back_json(fell_back);
                out["event"] = json!("fell-back");
                out
            }
            _ => return,
        };
        out["kind"] = json!("pull-event");
        if let Some(image) = image {
            out["image"] = json!(image);
        }
        say(&out.to_string(), stdout_taken);
    } else if let (Event::FellBack(fell_back), false) = (event, quiet) {
        let FellBack { number, delta, reason, .. } = fell_back;
        say(&clean(&format!("layer {number} is fetched whole: {delta} failed: {reason}")), true);
    }
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Have => "have",
        Way::Delta(_) => "delta",
        Way::Chunks => "chunks",
        Way::Full => "full",
    }
}

fn planned_json(planned: &Planned) -> Value {
    let layers: Vec<Value> = planned
        .layers
        .iter()
        .map(|layer| {
            json!({
                "number": layer.number,
                "diff_id": layer.diff_id.to_string(),
                "way": way(layer.way),
                "full_bytes": layer.full_bytes,
                "bytes": layer.bytes,
                "delta": layer.delta.as_ref().map(|(name, _)| name),
                "dialect": layer.delta.as_ref().map(|(_, dialect)| dialect.name()),
                "through": layer.through,
            })
        })
        .collect();
    json!({ "layers": layers, "bytes": planned.bytes, "full_bytes": planned.full_bytes })
}

fn from(from: From) -> &'static str {
    match from {
        From::Store => "store",
        From::Source => "source",
        From::Delta(content) => payload(content),
        From::Chunks => "chunks",
        From::Full => "full",
    }
}

fn headers(headers: Headers) -> &'static str {
    match headers {
        Headers::Fetched => "fetched",
        Headers::Predicted => "predicted",
        Headers::Corrected => "corrected",
    }
}

fn made_json(made: &Made) -> Value {
    json!({
        "number": made.number,
        "diff_id": made.diff_id.to_string(),
        "digest": made.blob.to_string(),
        "from": from(made.from),
        "bytes": made.bytes,
        "headers": made.headers.map(headers),
    })
}

fn fell_back_json(fell_back: &FellBack) -> Value {
    json!({
        "number": fell_back.number,
        "diff_id": fell_back.diff_id.to_string(),
        "delta": fell_back.delta,
        "reason": fell_back.reason,
    })
}

fn pulled_json(pulled: &Pulled, dry_run: bool) -> Value {
    json!({
        "kind": "pull",
        "name": pulled.name.to_string(),
        "root": pulled.root.to_string(),
        "digest": pulled.digest.to_string(),
        "config": pulled.config.to_string(),
        "up_to_date": pulled.up_to_date,
        "dry_run": dry_run,
        "plan": planned_json(&pulled.planned),
        "layers": pulled.layers.iter().map(made_json).collect::<Vec<_>>(),
        "fallbacks": pulled.fallbacks.iter().map(fell_back_json).collect::<Vec<_>>(),
        "resumed_bytes": pulled.resumed_bytes,
        "requests": pulled.requests,
        "received_bytes": pulled.received_bytes,
        "subset": subset_json(pulled.subset.as_ref()),
        "copied_to": pulled.copied.as_ref().map(|copied| copied.digest.to_string()),
        "trust": verdict_json(&pulled.trust),
        "notes": pulled.notes,
    })
}

fn updated_json(image: &Updated, dry_run: bool) -> Vec<Value> {
    let before = image.before.map(|before| before.to_string());
    match &image.result {
        Ok(all) => all
            .iter()
            .map(|pulled| {
                let mut out = pulled_json(pulled, dry_run);
                out["before"] = json!(before);
                out
            })
            .collect(),
        Err(error) => {
            vec![json!({ "kind": "pull", "name": image.name, "before": before, "error": error.to_string() })]
        }
    }
}

fn layer_row(pulled: &Pulled, layer: &PlannedLayer) -> Vec<String> {
    let made = pulled.layers.iter().find(|made| made.number == layer.number);
    let (bytes, how) = match made {
        Some(made) => (made.bytes, from(made.from)),
        None => (layer.bytes, way(layer.way)),
    };
    let through = layer.through.iter().map(|image| format!("through {image}"));
    let note = layer.delta.iter().map(|(name, _)| name.clone()).chain(through).collect::<Vec<_>>().join(", ");
    vec![
        layer.number.to_string(),
        layer.diff_id.hex()[..12].to_owned(),
        how.to_owned(),
        if layer.way == Way::Have { "-".into() } else { grouped(bytes) },
        if layer.full_bytes == 0 { "-".into() } else { grouped(layer.full_bytes) },
        if how == "delta" || made.is_none_or(|made| matches!(made.from, From::Delta(_))) {
            note
        } else {
            String::new()
        },
    ]
}

fn pulled_text(pulled: &Pulled, dry_run: bool) -> String {
    let mut out = format!("{}\ndigest: {}\nimage:  {}\n", pulled.name, pulled.root, pulled.config);
    out += &verdict_text(&pulled.trust);
    if let Some(subset) = &pulled.subset {
        out += &format!("subset: {}\n", subset.patterns.in_words());
    }
    if pulled.up_to_date {
        out += "is up to date\n";
    } else {
        let header = [
            ("layer", Align::Right),
            ("diff_id", Align::Left),
            (if dry_run { "way" } else { "from" }, Align::Left),
            ("fetched", Align::Right),
            ("whole", Align::Right),
            ("", Align::Left),
        ];
        let rows: Vec<Vec<String>> =
            pulled.planned.layers.iter().map(|layer| layer_row(pulled, layer)).collect();
        out += &render(&header, &rows);
        let bytes =
            if dry_run { pulled.planned.bytes } else { pulled.layers.iter().map(|made| made.bytes).sum() };
        let would = if dry_run { "would be fetched" } else { "fetched" };
        out += &format!("{} {would}", human(bytes));
        if pulled.planned.full_bytes > 0 {
            out += &format!(
                ", {} of {} without deltas",
                percent(bytes, pulled.planned.full_bytes),
                human(pulled.planned.full_bytes)
            );
        }
        out += "\n";
    }
    for fell_back in &pulled.fallbacks {
        let reason = &fell_back.reason;
        out += &format!("note: layer {} was fetched whole: {reason}\n", fell_back.number);
    }
    if pulled.resumed_bytes > 0 {
        out += &format!("{} were here from an earlier run\n", human(pulled.resumed_bytes));
    }
    for note in &pulled.notes {
        out += &format!("note: {note}\n");
    }
    if let Some(copied) = &pulled.copied {
        out += &format!("copied: {}\n", copied.digest);
        for note in &copied.notes {
            out += &format!("note: {note}\n");
        }
    }
    out += &format!("{} requests, {} received\n", pulled.requests, human(pulled.received_bytes));
    // Digests and reasons come from others.
    out.lines().map(clean).collect::<Vec<_>>().join("\n") + "\n"
}

fn updated_text(image: &Updated, dry_run: bool) -> String {
    match &image.result {
        Ok(all) => all.iter().map(|pulled| pulled_text(pulled, dry_run) + "\n").collect(),
        Err(error) => clean(&format!("{}: failed: {error}", image.name)) + "\n\n",
    }
}
