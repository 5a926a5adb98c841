//! librsync deltas in `coracle inspect` and `coracle explain`, as files and as delta images.

use coracle_codec::artifact::balena::DeltaImage;
use coracle_codec::rsync::{Explanation, MemberCost, OpCounts};
use coracle_engine::image::show::Image;
use coracle_engine::inspect::Rsync;
use serde_json::{Value, json};

use super::explain::{MEMBER_COLUMNS, kinds_table, member_cells, member_name};
use crate::size::grouped;
use crate::table::{Align, render};

fn operations(ops: &OpCounts) -> Value {
    json!({
        "literal": { "count": ops.literal.ops, "bytes": ops.literal.bytes },
        "copy": { "count": ops.copy.ops, "bytes": ops.copy.bytes },
    })
}

pub fn delta_json(path: &str, delta: &Rsync) -> String {
    json!({
        "kind": "rsync-delta",
        "path": path,
        "bytes": delta.bytes,
        "digest": delta.digest.to_string(),
        "output_bytes": delta.ops.output(),
        "basis_bytes": delta.needs,
        "operations": operations(&delta.ops),
    })
    .to_string()
}

pub fn delta_text(path: &str, delta: &Rsync) -> String {
    let row = |name: &str, ops: u64, bytes: u64| vec![name.to_owned(), grouped(ops), grouped(bytes)];
    let (literal, copy) = (delta.ops.literal, delta.ops.copy);
    format!(
        "{path}: librsync delta, {} bytes\ndigest: {}\nmakes: {} bytes\nneeds: a basis of at least {} bytes\n\n{}",
        grouped(delta.bytes),
        delta.digest,
        grouped(delta.ops.output()),
        grouped(delta.needs),
        render(
            &[("operation", Align::Left), ("count", Align::Right), ("bytes", Align::Right)],
            &[row("literal", literal.ops, literal.bytes), row("copy", copy.ops, copy.bytes)],
        )
    )
}

pub fn explained_json(path: &str, x: &Explanation, members: &[&MemberCost]) -> String {
    let members = members.iter().map(|m| {
        json!({
            "path": member_name(m.cost, &m.path),
            "cost": m.cost.name(),
            "size": m.size,
            "delta_bytes": m.delta_bytes,
            "literal": m.literal,
            "copied": m.copied,
            "operations": m.operations,
        })
    });
    json!({
        "kind": "rsync-explain",
        "path": path,
        "bytes": x.delta_bytes,
        "operations": operations(&x.ops),
        "members": members.collect::<Vec<_>>(),
    })
    .to_string()
}

pub fn explained_text(path: &str, x: &Explanation, members: &[&MemberCost], shown: usize) -> String {
    let mut out = format!("{path}: {} bytes\n\n", grouped(x.delta_bytes));
    out += &kinds_table(x.members.iter().map(|m| (m.cost, m.size, m.delta_bytes)), x.delta_bytes);
    out += &format!("\nlargest {shown} of {}:\n", grouped(members.len() as u64));
    let rows: Vec<Vec<String>> = members[..shown]
        .iter()
        .map(|m| {
            let mut row = member_cells(m.delta_bytes, x.delta_bytes, m.size, m.cost, &m.path);
            row.push(grouped(m.operations));
            row
        })
        .collect();
    let header = [&MEMBER_COLUMNS[..], &[("operations", Align::Right)]].concat();
    out + &render(&header, &rows)
}

pub fn image_json(image: &Image, delta: &DeltaImage) -> Value {
    let layers = image.layers.iter().zip(delta.target.diff_ids()).enumerate();
    let layers = layers.map(|(number, (layer, diff_id))| {
        let size = delta.sizes.as_ref().and_then(|sizes| sizes.get(number)).filter(|size| **size > 0);
        json!({
            "to": diff_id.to_string(),
            "digest": layer.digest.to_string(),
            "bytes": layer.size,
            "media_type": layer.media_type,
            "uncompressed_bytes": size,
        })
    });
    json!({
        "dialect": "balena",
        "target": delta.target_manifest.map(|digest| digest.to_string()),
        "target_config": delta.target.raw().digest().to_string(),
        "source": null,
        "source_config": delta.base.to_string(),
        "source_created": null,
        "bytes": bytes(image),
        "layers": layers.collect::<Vec<_>>(),
    })
}

pub fn image_text(image: &Image, delta: &DeltaImage) -> String {
    let mut out = format!("delta: balena, {} bytes for layers\n", grouped(bytes(image)));
    out += &format!("to the image: {}\n", delta.target.raw().digest());
    if let Some(manifest) = &delta.target_manifest {
        out += &format!("with manifest: {manifest}\n");
    }
    out += &format!("from the image: {}\n", delta.base);
    let layers = image.layers.iter().zip(delta.target.diff_ids()).enumerate();
    let rows: Vec<Vec<String>> = layers
        .map(|(number, (layer, diff_id))| {
            let size = delta.sizes.as_ref().and_then(|sizes| sizes.get(number)).filter(|size| **size > 0);
            vec![
                grouped(layer.size),
                size.map(|size| grouped(*size)).unwrap_or_default(),
                diff_id.to_string(),
            ]
        })
        .collect();
    let header = [("bytes", Align::Right), ("uncompressed", Align::Right), ("makes layer", Align::Left)];
    out += &format!("\n{} layers:\n", rows.len());
    out + &render(&header, &rows)
}

fn bytes(image: &Image) -> u64 {
    image.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
}
