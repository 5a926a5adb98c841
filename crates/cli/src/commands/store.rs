//! `coracle store`.

use std::time::{Instant, SystemTime};

use coracle_engine::Error;
use coracle_engine::image::ImageName;
use coracle_engine::pull::Pulled;
use coracle_engine::stored::{Checked, fsck};
use coracle_store::{
    Damage, FsckOptions, FsckReport, GcOptions, GcReport, Ref, RefUsage, Store, Swept, Usage,
};
use serde_json::{Value, json};

use super::diff::all_cores;
use super::images::{environment, now, store as place_of};
use super::pull::plain_request;
use super::{Cost, FULL_MEMORY, clean, say, show, watched};
use crate::args::{Shared, StoreCommand, StoreDu, StoreFsck, StoreGc, StoreImages, StorePlace, StoreRm};
use crate::failure::Failure;
use crate::size::{age, grouped, human};
use crate::table::{Align, render};

/// Runs a subcommand.
pub fn run(command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Images(args) => images(args),
        StoreCommand::Rm(args) => remove(args),
        StoreCommand::Gc(args) => gc(args),
        StoreCommand::Fsck(args) => check(args),
        StoreCommand::Du(args) => usage(args),
    }
}

fn open(place: &StorePlace) -> Result<Store, Failure> {
    Store::open(&place_of(place)?).map_err(|error| Failure::from(Error::from(error)))
}

/// Says a result, as JSON with its cost or as text.
fn tell(shared: &Shared, start: Instant, mut out: Value, text: &str) {
    if shared.json {
        let cost = Cost::since(start);
        cost.add_to(&mut out);
        say(&out.to_string(), false);
    } else if !shared.quiet {
        say(&text.lines().map(clean).collect::<Vec<_>>().join("\n"), false);
    }
}

fn images(args: &StoreImages) -> Result<(), Failure> {
    let start = Instant::now();
    let refs = open(&args.place)?.readable_refs().map_err(|error| Failure::from(Error::from(error)))?;
    let (refs, damaged) = refs;
    let rows: Vec<Vec<String>> = refs
        .iter()
        .map(|held| {
            let platforms: Vec<String> =
                held.images.iter().filter_map(|image| Some(image.platform.as_ref()?.to_string())).collect();
            vec![
                held.name.to_string(),
                held.root.digest.hex()[..12].to_owned(),
                platforms.join(", "),
                format!("{} ago", age(now().saturating_sub(held.updated))),
                if held.tracked { "tracked".into() } else { String::new() },
            ]
        })
        .collect();
    let header = [
        ("image", Align::Left),
        ("digest", Align::Left),
        ("platform", Align::Left),
        ("pulled", Align::Left),
        ("", Align::Left),
    ];
    let mut text = if rows.is_empty() { "the store is empty\n".to_owned() } else { render(&header, &rows) };
    for error in &damaged {
        text += &format!("note: {error}\n");
    }
    let out = json!({
        "kind": "store-images",
        "images": refs.iter().map(ref_json).collect::<Vec<_>>(),
        "damaged": damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    tell(&args.shared, start, out, &text);
    Ok(())
}

fn ref_json(held: &Ref) -> Value {
    let images: Vec<Value> = held
        .images
        .iter()
        .map(|image| {
            json!({
                "digest": image.digest.to_string(),
                "platform": image.platform.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    json!({
        "name": held.name.to_string(),
        "digest": held.root.digest.to_string(),
        "media_type": held.root.media_type,
        "images": images,
        "source": held.source,
        "tracked": held.tracked,
        "updated": held.updated,
    })
}

fn remove(args: &StoreRm) -> Result<(), Failure> {
    let start = Instant::now();
    let store = open(&args.place)?;
    let failed = |error| Failure::from(Error::from(error));
    // All or none: a typing mistake is told before anything is gone.
    for name in &args.names {
        // One that cannot be read can be removed.
        if store.reference(name).is_ok_and(|held| held.is_none()) {
            let has = store.readable_refs().map_err(failed)?.0;
            let has: Vec<String> = has.iter().map(|held| held.name.to_string()).collect();
            let reason = if has.is_empty() {
                "the store is empty".to_owned()
            } else {
                format!("it has: {}", has.join(", "))
            };
            let image = ImageName::store(name.clone()).to_string();
            return Err(Failure::from(Error::NoSuchImage { image, reason }));
        }
    }
    let mut removed = Vec::new();
    for name in &args.names {
        if store.remove_ref(name).map_err(failed)? {
            removed.push(name.to_string());
        }
    }
    let text = removed.iter().map(|name| format!("removed {name}\n")).collect::<String>()
        + "coracle store gc frees what nothing needs any more";
    tell(&args.shared, start, json!({ "kind": "store-rm", "removed": removed }), &text);
    Ok(())
}

fn gc(args: &StoreGc) -> Result<(), Failure> {
    let start = Instant::now();
    let store = open(&args.place)?;
    let options = GcOptions {
        dry_run: args.dry_run,
        force: args.force,
        partial_age: args.partial_age,
        ..GcOptions::new(SystemTime::now())
    };
    let report =
        watched(&args.shared, false, |context| store.gc(&options, context.observer).map_err(Error::from))?;
    let parts: [(&str, Swept); 6] = [
        ("objects", report.objects),
        ("layers", report.layers),
        ("documents", report.documents),
        ("leases", report.leases),
        ("partial", report.partial),
        ("refs", report.refs),
    ];
    let mut text: String = parts
        .iter()
        .filter(|(_, swept)| swept.count > 0)
        .map(|(what, swept)| format!("{what}: {} ({})\n", grouped(swept.count), human(swept.bytes)))
        .collect();
    let done = if args.dry_run { "would be free" } else { "free now" };
    text += &format!("{} {done}\n", human(report.bytes()));
    for (layer, image) in &report.missing_layers {
        text += &format!("note: image {image} lacks layer {layer}: coracle store fsck --repair fetches it\n");
    }
    for error in &report.unclear {
        text += &format!("note: {error}\n");
    }
    tell(&args.shared, start, gc_json(&report, &parts, args.dry_run), &text);
    Ok(())
}

fn gc_json(report: &GcReport, parts: &[(&str, Swept)], dry_run: bool) -> Value {
    let mut out = json!({
        "kind": "store-gc",
        "dry_run": dry_run,
        "bytes": report.bytes(),
        "missing_layers": report.missing_layers.iter().map(|(layer, image)| {
            json!({ "layer": layer.to_string(), "image": image.to_string() })
        }).collect::<Vec<_>>(),
        "unclear": report.unclear.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    for (what, swept) in parts {
        out[*what] = json!({ "count": swept.count, "bytes": swept.bytes });
    }
    out
}

fn check(args: &StoreFsck) -> Result<(), Failure> {
    let start = Instant::now();
    let (environment, _runtime) = environment(&args.registry, Some(&args.trust), &args.shared)?;
    let threads = args.threads.unwrap_or_else(all_cores);
    let options = FsckOptions { deep: args.deep, ..FsckOptions::new(threads) };
    let any: ImageName = "docker://localhost/any".parse().map_err(Failure::from)?;
    let like = plain_request(any, &args.shared, FULL_MEMORY, threads);
    let repair = args.repair.then_some(&like);
    let checked = watched(&args.shared, false, |context| fsck(&options, repair, &environment, context))?;
    tell(&args.shared, start, checked_json(&checked), &checked_text(&checked));
    let left = checked.after.as_ref().unwrap_or(&checked.report);
    match left.damages.len() {
        0 => Ok(()),
        count => Err(Failure::damaged(count, args.repair).keep_stdout(true)),
    }
}

fn damage_json(damage: &Damage) -> Value {
    json!({
        "part": damage.part.to_string(),
        "reason": damage.reason,
        "missing": damage.missing,
        "files": damage.places.iter().map(|(layer, path)| {
            json!({ "layer": layer.to_string(), "path": show(path) })
        }).collect::<Vec<_>>(),
        "images": damage.images.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "names": damage.refs,
    })
}

fn checked_json(checked: &Checked) -> Value {
    let FsckReport { damages, objects, layers, documents, refs, bytes, removed } = &checked.report;
    let repaired = checked.repaired.iter().map(|(name, result): &(String, Result<Pulled, Error>)| {
        json!({ "name": name, "error": result.as_ref().err().map(ToString::to_string) })
    });
    json!({
        "kind": "store-fsck",
        "objects": objects,
        "layers": layers,
        "documents": documents,
        "names": refs,
        "bytes": bytes,
        "damages": damages.iter().map(damage_json).collect::<Vec<_>>(),
        "removed": removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "repaired": repaired.collect::<Vec<_>>(),
        "left": checked.after.as_ref().map(|after| after.damages.iter().map(damage_json).collect::<Vec<_>>()),
    })
}

fn checked_text(checked: &Checked) -> String {
    let report = &checked.report;
    let mut out = format!(
        "{} objects, {} layers, {} documents, {} names: {} read\n",
        grouped(report.objects),
        grouped(report.layers),
        grouped(report.documents),
        grouped(report.refs),
        human(report.bytes)
    );
    for damage in &report.damages {
        let part = damage.part.to_string();
        let reason = damage.reason.strip_prefix(&format!("{part}: ")).unwrap_or(&damage.reason);
        out += &format!("{part}: {reason}\n");
        for (layer, path) in damage.places.iter().take(3) {
            out += &format!("  is {} in layer {layer}\n", show(path));
        }
        if damage.places.len() > 3 {
            out += &format!("  and {} others\n", damage.places.len() - 3);
        }
        for name in &damage.refs {
            out += &format!("  belongs to {name}\n");
        }
    }
    for (name, result) in &checked.repaired {
        out += &match result {
            Ok(_) => format!("{name}: fetched again\n"),
            Err(error) => format!("{name}: could not be fetched again: {error}\n"),
        };
    }
    if report.damages.is_empty() {
        out += "nothing is damaged\n";
    } else if let Some(after) = &checked.after {
        out += &match after.damages.len() {
            0 => "nothing is damaged any more\n".to_owned(),
            1 => "one thing is damaged still\n".to_owned(),
            left => format!("{left} things are damaged still\n"),
        };
    }
    out
}

fn usage(args: &StoreDu) -> Result<(), Failure> {
    let start = Instant::now();
    let usage = open(&args.place)?.usage().map_err(|error| Failure::from(Error::from(error)))?;
    let header = [
        ("tars", Align::Right),
        ("on disk", Align::Right),
        ("shared", Align::Right),
        ("only here", Align::Right),
        ("image", Align::Left),
    ];
    let row = |held: &RefUsage| {
        vec![
            human(held.logical),
            human(held.on_disk),
            human(held.shared),
            human(held.unique),
            held.name.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = usage.refs.iter().map(row).collect();
    let mut text = if rows.is_empty() { String::new() } else { render(&header, &rows) };
    text += &format!(
        "{} layers of {} are {} in {} objects and {} in layer files\n",
        grouped(usage.layer_count),
        human(usage.logical),
        human(usage.objects),
        grouped(usage.object_count),
        human(usage.layers)
    );
    text += &format!("{} are not needed by any name\n", human(usage.unused));
    if usage.partial + usage.leases > 0 {
        text += &format!("{} are on their way\n", human(usage.partial + usage.leases));
    }
    tell(&args.shared, start, usage_json(&usage), &text);
    Ok(())
}

fn usage_json(usage: &Usage) -> Value {
    let images = usage.refs.iter().map(|held| {
        json!({
            "name": held.name.to_string(),
            "layers": held.layers,
            "tar_bytes": held.logical,
            "disk_bytes": held.on_disk,
            "shared_bytes": held.shared,
            "unique_bytes": held.unique,
            "inline_bytes": held.inline,
            "unclear": held.unclear,
        })
    });
    json!({
        "kind": "store-du",
        "images": images.collect::<Vec<_>>(),
        "layers": usage.layer_count,
        "tar_bytes": usage.logical,
        "objects": usage.object_count,
        "object_bytes": usage.objects,
        "layer_bytes": usage.layers,
        "inline_bytes": usage.inline,
        "shared_bytes": usage.shared,
        "unused_bytes": usage.unused,
        "document_bytes": usage.documents,
        "partial_bytes": usage.partial,
        "lease_bytes": usage.leases,
    })
}
