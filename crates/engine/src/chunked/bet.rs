//! The bet on what stands between the contents of a layer: that the tar is written like an old one.

use std::collections::HashSet;

use coracle_codec::chunked::{Layer, Limits, Style, Toc};
use coracle_store::Layer as Stored;

/// Old layers that are looked at, and of those how many are learned from.
const MAX_LOOKED_AT: usize = 32;
const MAX_LEARNED: usize = 3;

/// The layer of a TOC as the likeliest of the old `layers` lets expect it; `None` if none shows how it is written.
pub(crate) fn predict(toc: &Toc, layers: &[Stored], limits: &Limits) -> Option<Layer> {
    let names: HashSet<&[u8]> = toc.entries.iter().map(|entry| entry.name.as_bytes()).collect();
    let shared = |layer: &Stored| layer.files().filter(|file| names.contains(file.path)).count();
    let mut old: Vec<(usize, &Stored)> =
        layers.iter().take(MAX_LOOKED_AT).map(|layer| (shared(layer), layer)).collect();
    // The one that has most of its files is the one that it replaces; among equals the first.
    old.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    old.iter().take(MAX_LEARNED).find_map(|(_, layer)| {
        // One that cannot be read is of no use here, and no reason to fail.
        let style = Style::learn(*layer, limits).ok()?;
        style.predict(toc, limits)
    })
}
