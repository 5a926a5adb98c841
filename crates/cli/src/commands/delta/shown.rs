//! Results of `coracle delta` as JSON (docs/cli/json.md) and as text.

use coracle_codec::artifact::Payload;
use coracle_codec::digest::Digest;
use coracle_engine::artifact::apply::{Applied, How};
use coracle_engine::artifact::create::{Created, Delta, Request};
use coracle_engine::artifact::list::{Entry, Listed};
use coracle_engine::artifact::prune::{self, Pruned};
use coracle_engine::artifact::push::{self, Pushed};
use coracle_engine::artifact::{apply, create};
use coracle_engine::image::ImageName;
use serde_json::{Value, json};

use super::super::{Cost, clean};
use crate::commands::trust::{verdict_json, verdict_text};
use crate::size::{grouped, human, percent};
use crate::table::{Align, render};

pub(in crate::commands) fn payload(payload: Payload) -> &'static str {
    match payload {
        Payload::TarDiff(version) if version.number() == 1 => "tar-diff-1",
        Payload::TarDiff(_) => "tar-diff-2",
        Payload::Native => "native",
        Payload::Rsync => "rsync",
        Payload::Layer => "layer",
    }
}

/// Enough of a digest to tell it from others.
fn short(digest: &Digest) -> String {
    digest.hex()[..12].to_owned()
}

fn cost_members(mut out: Value, cost: &Cost) -> String {
    cost.add_to(&mut out);
    out.to_string()
}

fn note_text(notes: &[String]) -> String {
    notes.iter().map(|note| format!("note: {note}\n")).collect()
}

fn delta_json(delta: &Delta) -> Value {
    let layers: Vec<Value> = delta
        .layers
        .iter()
        .map(|layer| {
            json!({
                "number": layer.number,
                "digest": layer.to.to_string(),
                "diff_id": layer.diff_id.to_string(),
                "full_bytes": layer.full,
                "bytes": layer.bytes,
                "content": layer.payload.map_or("same", payload),
                "content_digest": layer.content.map(|digest| digest.to_string()),
            })
        })
        .collect();
    json!({
        "from": delta.from,
        "platform": delta.platform.as_ref().map(ToString::to_string),
        "dialect": delta.dialect.name(),
        "digest": delta.digest.to_string(),
        "source": delta.source.to_string(),
        "target": delta.target.to_string(),
        "full_bytes": delta.full,
        "changed_bytes": delta.changed,
        "bytes": if delta.existed { Value::Null } else { json!(delta.bytes()) },
        "existed": delta.existed,
        "layers": if delta.existed { json!([]) } else { json!(layers) },
    })
}

pub(super) fn created_json(request: &Request, created: &Created, dry: bool, cost: &Cost) -> String {
    let to = match &request.to {
        create::To::Image(name) => json!(name.to_string()),
        create::To::Registry(_) => json!("registry"),
        create::To::Nowhere => Value::Null,
    };
    let out = json!({
        "kind": "delta-create",
        "new": request.new.to_string(),
        "to": to,
        "estimated": dry,
        "deltas": created.deltas.iter().map(delta_json).collect::<Vec<_>>(),
        "trust": created
            .trust
            .iter()
            .map(|(image, verdict)| {
                let mut out = verdict_json(verdict);
                out["image"] = json!(image);
                out
            })
            .collect::<Vec<_>>(),
        "notes": created.notes,
    });
    cost_members(out, cost)
}

pub(super) fn created_text(request: &Request, created: &Created, dry: bool, cost: &Cost) -> String {
    let mut out = format!("deltas to {}", request.new);
    if let create::To::Image(name) = &request.to {
        out += &format!(" in {name}");
    }
    out += if dry { ", estimated with the least effort\n" } else { "\n" };
    let rows: Vec<Vec<String>> = created
        .deltas
        .iter()
        .map(|delta| {
            let size = if delta.existed {
                ["-".to_owned(), "is there".to_owned()]
            } else {
                [grouped(delta.bytes()), percent(delta.bytes(), delta.changed)]
            };
            let [bytes, share] = size;
            vec![
                grouped(delta.changed),
                bytes,
                share,
                delta.dialect.to_string(),
                delta.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
                if dry { "-".into() } else { short(&delta.digest) },
                delta.from.clone(),
            ]
        })
        .collect();
    let header = [
        ("changed layers", Align::Right),
        ("delta", Align::Right),
        ("", Align::Right),
        ("dialect", Align::Left),
        ("platform", Align::Left),
        ("digest", Align::Left),
        ("from", Align::Left),
    ];
    if !rows.is_empty() {
        out += &render(&header, &rows);
    }
    let mut told: Vec<String> = created.trust.iter().map(|(_, verdict)| verdict_text(verdict)).collect();
    told.dedup();
    out += &told.concat();
    out += &note_text(&created.notes);
    out + &cost.text()
}

pub(super) fn pushed_json(request: &push::Request, pushed: &[Pushed], cost: &Cost) -> String {
    let deltas: Vec<Value> = pushed
        .iter()
        .map(|delta| {
            json!({
                "digest": delta.digest.to_string(),
                "target": delta.target.to_string(),
                "bytes": delta.bytes,
                "target_there": delta.target_there,
            })
        })
        .collect();
    let out = json!({ "kind": "delta-push", "to": request.to.to_string(), "deltas": deltas });
    cost_members(out, cost)
}

pub(super) fn pushed_text(request: &push::Request, pushed: &[Pushed]) -> String {
    let mut out = format!("{}\n", request.to);
    for delta in pushed {
        out += &format!("{}  {} bytes, to {}\n", delta.digest, grouped(delta.bytes), short(&delta.target));
        if !delta.target_there {
            out += "note: the repository does not have the image that it leads to\n";
        }
    }
    out
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "dialect": entry.dialect.name(),
        "digest": entry.digest.to_string(),
        "source": entry.source.map(|digest| digest.to_string()),
        "source_config": entry.source_config.map(|digest| digest.to_string()),
        "source_created": entry.source_created,
        "bytes": entry.bytes,
        "layer": entry.layer.map(|digest| digest.to_string()),
    })
}

fn entry_table(entries: &[Entry], full: Option<u64>) -> String {
    let rows: Vec<Vec<String>> = entries
        .iter()
        .map(|entry| {
            vec![
                grouped(entry.bytes),
                full.map(|full| percent(entry.bytes, full)).unwrap_or_default(),
                entry.dialect.to_string(),
                short(&entry.digest),
                entry.source.as_ref().map(short).unwrap_or_default(),
                clean(entry.source_created.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    let header = [
        ("bytes", Align::Right),
        ("", Align::Right),
        ("dialect", Align::Left),
        ("digest", Align::Left),
        ("from", Align::Left),
        ("made", Align::Left),
    ];
    render(&header, &rows)
}

pub(super) fn listed_json(name: &ImageName, listed: &Listed) -> String {
    let targets: Vec<Value> = listed
        .targets
        .iter()
        .map(|target| {
            json!({
                "platform": target.platform.as_ref().map(ToString::to_string),
                "digest": target.digest.to_string(),
                "full_bytes": target.full,
                "deltas": target.deltas.iter().map(entry_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    let repaired: Vec<String> = listed.repaired.iter().map(ToString::to_string).collect();
    json!({ "kind": "delta-list", "image": name.to_string(), "targets": targets, "repaired": repaired })
        .to_string()
}

pub(super) fn listed_text(name: &ImageName, listed: &Listed) -> String {
    let mut out = format!("{name}\n");
    for digest in &listed.repaired {
        out += &format!("repaired: {digest} was not listed\n");
    }
    for target in &listed.targets {
        let platform = target.platform.as_ref().map(|p| format!(", {p}")).unwrap_or_default();
        out += &format!("\n{}{platform}: {} bytes of layers\n", target.digest, grouped(target.full));
        if target.deltas.is_empty() {
            out += "no deltas\n";
        } else {
            out += &entry_table(&target.deltas, Some(target.full));
        }
    }
    out
}

pub(super) fn pruned_json(request: &prune::Request, pruned: &Pruned) -> String {
    json!({
        "kind": "delta-prune",
        "image": request.image.to_string(),
        "dry_run": request.dry_run,
        "removed": pruned.removed.iter().map(entry_json).collect::<Vec<_>>(),
        "kept": pruned.kept.iter().map(entry_json).collect::<Vec<_>>(),
        "notes": pruned.notes,
    })
    .to_string()
}

pub(super) fn pruned_text(request: &prune::Request, pruned: &Pruned) -> String {
    let verb = if request.dry_run { "would be removed" } else { "removed" };
    let mut out = format!("{}\n{} {verb}, {} kept\n", request.image, pruned.removed.len(), pruned.kept.len());
    if !pruned.removed.is_empty() {
        out += &entry_table(&pruned.removed, None);
    }
    out + &note_text(&pruned.notes)
}

fn how(how: How) -> &'static str {
    match how {
        How::Source => "source",
        How::Delta(content) => payload(content),
        How::Whole => "layer",
        How::Fetched => "fetched",
        How::Left => "left",
    }
}

pub(super) fn applied_json(request: &apply::Request, applied: &Applied, cost: &Cost) -> String {
    let layers: Vec<Value> = applied
        .layers
        .iter()
        .map(|layer| {
            json!({
                "diff_id": layer.diff_id.to_string(),
                "original": layer.original.to_string(),
                "digest": layer.digest.to_string(),
                "how": how(layer.how),
            })
        })
        .collect();
    let out = json!({
        "kind": "delta-apply",
        "delta": request.delta.to_string(),
        "source": request.base.to_string(),
        "destination": request.destination.to_string(),
        "digest": applied.digest.to_string(),
        "target": applied.target.map(|digest| digest.to_string()),
        "digest_kept": applied.digest_kept,
        "config": applied.config.to_string(),
        "dialect": applied.dialect.name(),
        "artifact": applied.delta.to_string(),
        "delta_bytes": applied.delta_bytes,
        "rebuilt_bytes": applied.rebuilt_bytes,
        "layers": layers,
        "trust": verdict_json(&applied.trust),
        "notes": applied.notes,
    });
    cost_members(out, cost)
}

pub(super) fn applied_text(request: &apply::Request, applied: &Applied, cost: &Cost) -> String {
    let count = |wanted: fn(How) -> bool| applied.layers.iter().filter(|layer| wanted(layer.how)).count();
    let mut out = format!(
        "{}\n  on {}\n  -> {}\nimage: {}\ndigest: {}{}\n",
        request.delta,
        request.base,
        request.destination,
        applied.config,
        applied.digest,
        if applied.digest_kept { "" } else { " (changed)" }
    );
    out += &format!(
        "layers: {} from the source, {} made by deltas, {} whole\n",
        count(|how| how == How::Source),
        count(|how| matches!(how, How::Delta(_))),
        count(|how| matches!(how, How::Whole | How::Fetched)),
    );
    out +=
        &format!("{} of delta for {} of layers\n", human(applied.delta_bytes), human(applied.rebuilt_bytes));
    out += &verdict_text(&applied.trust);
    out += &note_text(&applied.notes);
    out + &cost.text()
}
