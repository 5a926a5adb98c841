//! `coracle inspect` of images.

use std::collections::BTreeMap;

use coracle_codec::artifact::Artifact;
use coracle_codec::oci::Descriptor;
use coracle_engine::image::show::{Content, Image, Shown, run as look};
use serde_json::{Value, json};

use super::images::{environment, image_name};
use super::subset::{subset_json, subset_text};
use super::{clean, print, rsync, watched};
use crate::args::Inspect;
use crate::failure::Failure;
use crate::size::grouped;
use crate::table::{Align, render};

/// Shows an image.
pub fn run(args: &Inspect, name: &str) -> Result<(), Failure> {
    let image = image_name(name)?;
    let (environment, _runtime) = environment(&args.registry, None, &args.shared)?;
    let shown =
        watched(&args.shared, false, |context| look(&image, args.platform.as_ref(), &environment, context))?;
    let name = image.to_string();
    print(&if args.shared.json { as_json(&name, &shown) } else { as_text(&name, &shown) })
}

fn descriptor(of: &Descriptor) -> Value {
    json!({
        "media_type": of.media_type,
        "digest": of.digest.to_string(),
        "bytes": of.size,
        "artifact_type": of.artifact_type,
        "platform": of.platform.as_ref().map(ToString::to_string),
        "annotations": of.annotations,
    })
}

fn as_json(name: &str, shown: &Shown) -> String {
    let mut out = json!({
        "kind": "image",
        "name": name,
        "digest": shown.digest.to_string(),
        "media_type": shown.media_type,
        "made_up": shown.made_up,
    });
    match &shown.content {
        Content::Index { entries, annotations } => {
            out["kind"] = json!("index");
            out["manifests"] = entries.iter().map(descriptor).collect();
            out["annotations"] = json!(annotations);
        }
        Content::Image(image) => {
            let layers = image.layers.iter().enumerate().map(|(i, layer)| {
                let mut value = descriptor(layer);
                value["diff_id"] = json!(image.diff_ids.get(i).map(ToString::to_string));
                value
            });
            out["platform"] = json!(image.platform.as_ref().map(ToString::to_string));
            out["created"] = json!(image.created);
            out["artifact_type"] = json!(image.artifact_type);
            out["config"] = descriptor(&image.config);
            out["layers"] = layers.collect();
            out["subject"] = json!(image.subject.as_ref().map(descriptor));
            out["annotations"] = json!(image.annotations);
            out["subset"] = subset_json(image.subset.as_ref());
            if let Some(delta) = &image.delta {
                out["delta"] = delta_json(delta);
            }
            if let Some(delta) = &image.delta_image {
                out["delta"] = rsync::image_json(image, delta);
            }
        }
    }
    out.to_string()
}

fn delta_json(delta: &Artifact) -> Value {
    let layers = delta.layers.iter().map(|layer| {
        json!({
            "to": layer.to.to_string(),
            "digest": layer.blob.digest.to_string(),
            "bytes": layer.blob.size,
            "media_type": layer.blob.media_type,
            "uncompressed_bytes": layer.uncompressed_size,
        })
    });
    json!({
        "dialect": delta.dialect.name(),
        "target": delta.target_manifest.digest.to_string(),
        "target_config": delta.target_config.digest.to_string(),
        "source": delta.source.map(|digest| digest.to_string()),
        "source_config": delta.source_config.to_string(),
        "source_created": delta.source_created,
        "bytes": delta.layer_bytes(),
        "layers": layers.collect::<Vec<_>>(),
    })
}

fn delta_text(delta: &Artifact) -> String {
    let mut out = format!("delta: {}, {} bytes for layers\n", delta.dialect, grouped(delta.layer_bytes()));
    out += &format!("to: {}\n", delta.target_manifest.digest);
    if let Some(source) = &delta.source {
        out += &format!("from: {source}\n");
    }
    out += &format!("from the image with config: {}\n", delta.source_config);
    if let Some(created) = &delta.source_created {
        out += &format!("made: {}\n", clean(created));
    }
    let rows: Vec<Vec<String>> = delta
        .layers
        .iter()
        .map(|layer| {
            let size = layer.uncompressed_size.map(grouped).unwrap_or_default();
            vec![grouped(layer.blob.size), size, layer.to.to_string(), clean(&layer.blob.media_type)]
        })
        .collect();
    let header = [
        ("bytes", Align::Right),
        ("uncompressed", Align::Right),
        ("makes layer", Align::Left),
        ("type", Align::Left),
    ];
    out += &format!("\n{} layers:\n", rows.len());
    out + &render(&header, &rows)
}

fn as_text(name: &str, shown: &Shown) -> String {
    let mut out = format!("{}\ndigest: {}\n", clean(name), shown.digest);
    if let Some(reason) = shown.made_up {
        out += &format!("note: the manifest is new: {reason}\n");
    }
    out += &format!("type: {}\n", clean(&shown.media_type));
    match &shown.content {
        Content::Image(image) => out + &image_text(image),
        Content::Index { entries, annotations } => {
            let rows: Vec<Vec<String>> = entries
                .iter()
                .map(|entry| {
                    let platform = entry.platform.as_ref().map(ToString::to_string).unwrap_or_default();
                    vec![grouped(entry.size), entry.digest.to_string(), clean(&platform)]
                })
                .collect();
            out += &annotation_text(annotations);
            out += &format!("\n{} manifests:\n", entries.len());
            let header = [("bytes", Align::Right), ("digest", Align::Left), ("platform", Align::Left)];
            out + &render(&header, &rows)
        }
    }
}

fn image_text(image: &Image) -> String {
    if let Some(delta) = &image.delta {
        return delta_text(delta);
    }
    if let Some(delta) = &image.delta_image {
        return rsync::image_text(image, delta);
    }
    let mut out = subset_text("it", image.subset.as_ref());
    if let Some(kind) = &image.artifact_type {
        out += &format!("artifact: {}\n", clean(kind));
    }
    if let Some(platform) = &image.platform {
        out += &format!("platform: {}\n", clean(&platform.to_string()));
    }
    if let Some(created) = &image.created {
        out += &format!("created: {}\n", clean(created));
    }
    if let Some(subject) = &image.subject {
        out += &format!("subject: {}\n", subject.digest);
    }
    out += &format!("config: {}, {} bytes\n", image.config.digest, grouped(image.config.size));
    out += &annotation_text(&image.annotations);
    let total: u64 = image.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
    out += &format!("\n{} layers, {} bytes:\n", image.layers.len(), grouped(total));
    let rows: Vec<Vec<String>> = image
        .layers
        .iter()
        .map(|layer| vec![grouped(layer.size), layer.digest.to_string(), clean(&layer.media_type)])
        .collect();
    out + &render(&[("bytes", Align::Right), ("digest", Align::Left), ("type", Align::Left)], &rows)
}

fn annotation_text(annotations: &BTreeMap<String, String>) -> String {
    annotations
        .iter()
        .map(|(key, value)| format!("annotation: {} = {}\n", clean(key), clean(value)))
        .collect()
}
