//! The dialect `flatpak`: an index under the tag `_deltaindex` with a manifest for each target, which holds deltas from
//! many sources (`docs/formats/delta-artifacts.md`, section 5). The patches to skopeo write a variant of it.

use serde_json::{Value, json};

use super::pair::{DraftLayer, EMPTY, declared_size};
use super::{Dialect, Error, digest};
use crate::digest::Digest;
use crate::oci::{Descriptor, Index, Limits, Manifest, Platform, Verified, check_json, media_type};

const FROM: &str = "io.github.containers.delta.from";
const TO: &str = "io.github.containers.delta.to";
const TARGET: &str = "io.github.containers.delta.target";
/// Media type of the config, as flatpak's page has it; skopeo's lacks what stands before the slash.
const CONFIG: &str = "application/vnd.redhat.delta.config.v1+json";
const CONFIG_SKOPEO: &str = "vnd.redhat.delta.config.v1+json";

/// One delta between two layers. Both are named by diff_id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerDelta {
    /// diff_id of the old layer.
    pub from: Digest,
    /// diff_id of the layer that it makes.
    pub to: Digest,
    /// Where the delta is.
    pub blob: Descriptor,
    /// Bytes of the uncompressed layer, if declared.
    pub uncompressed_size: Option<u64>,
}

/// The entry of an index for a target, if it has one.
pub fn entry<'a>(index: &'a Index, target: &Digest) -> Option<&'a Descriptor> {
    let target = target.to_string();
    index.manifests().iter().find(|entry| entry.annotations.get(TARGET) == Some(&target))
}

/// Reads the manifest of a target. Entries that are no deltas between layers are passed over: only annotations tell.
///
/// # Errors
/// [`Error`].
pub fn parse(raw: &Verified, target: &Digest, limits: &Limits) -> Result<Vec<LayerDelta>, Error> {
    if raw.size() > limits.manifest_bytes {
        let limit = limits.manifest_bytes;
        return Err(crate::oci::Error::TooLarge { what: "manifest", actual: raw.size(), limit }.into());
    }
    check_json(raw.as_bytes(), "manifest", limits)?;
    let invalid = |reason: String| crate::oci::Error::Invalid { what: "manifest", reason };
    let value: Value = serde_json::from_slice(raw.as_bytes()).map_err(|e| invalid(e.to_string()))?;
    // Written as schema version 1 by some, which it is not: it has the members of version 2.
    let layers =
        value.get("layers").and_then(Value::as_array).ok_or_else(|| invalid("no list of layers".into()))?;
    if layers.len() > limits.entries as usize {
        return Err(crate::oci::Error::TooManyEntries(limits.entries).into());
    }
    if let Some(said) = value.get("annotations").and_then(|all| all.get(TARGET)).and_then(Value::as_str) {
        let actual = digest(TARGET, said)?;
        if actual != *target {
            let (what, by) = ("the target of a manifest", "is what the index says");
            return Err(Error::Contradiction { what, actual, expected: *target, by });
        }
    }
    let mut deltas = Vec::new();
    for layer in layers {
        let blob = Descriptor::parse(layer, limits)?;
        let (Some(from), Some(to)) = (blob.annotations.get(FROM), blob.annotations.get(TO)) else { continue };
        let (from, to) = (digest(FROM, from)?, digest(TO, to)?);
        deltas.push(LayerDelta { from, to, uncompressed_size: declared_size(&blob)?, blob });
    }
    Ok(deltas)
}

/// A delta to be listed.
#[derive(Debug, Clone)]
pub struct DraftDelta {
    /// diff_id of the old layer.
    pub from: Digest,
    /// diff_id of the layer that it makes.
    pub to: Digest,
    /// The delta; [`DraftLayer::to`] is not used.
    pub layer: DraftLayer,
}

impl DraftDelta {
    /// What a manifest says of it.
    pub fn descriptor(&self) -> Descriptor {
        let mut blob = self.layer.descriptor();
        blob.annotations.insert(FROM.to_owned(), self.from.to_string());
        blob.annotations.insert(TO.to_owned(), self.to.to_string());
        blob
    }
}

/// The manifest of a target with these deltas, whatever order they come in. The same content gives the same bytes.
pub fn manifest(dialect: Dialect, target: &Digest, deltas: &[Descriptor]) -> Vec<u8> {
    let config = if dialect == Dialect::Skopeo { CONFIG_SKOPEO } else { CONFIG };
    let mut deltas: Vec<&Descriptor> = deltas.iter().collect();
    // Readers take the first that fits: the smallest.
    deltas.sort_by_key(|delta| (delta.size, delta.digest.to_string(), delta.annotations.get(FROM).cloned()));
    deltas.dedup();
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": Descriptor::new(config, Digest::of(EMPTY), EMPTY.len() as u64).to_json(),
        "layers": deltas.iter().map(|delta| delta.to_json()).collect::<Vec<_>>(),
        "annotations": { TARGET: target.to_string() },
    })
    .to_string()
    .into_bytes()
}

/// The entry of the index for a target.
pub fn index_entry(manifest: &[u8], target: &Digest, platform: Option<&Platform>) -> Descriptor {
    let mut entry = Descriptor::new(media_type::OCI_MANIFEST, Digest::of(manifest), manifest.len() as u64);
    entry.annotations.insert(TARGET.to_owned(), target.to_string());
    entry.platform = platform.cloned();
    entry
}

/// The target of a manifest, if it says.
pub fn target(manifest: &Manifest) -> Option<Digest> {
    manifest.annotations().get(TARGET)?.parse().ok()
}

/// Whether an entry of an index, as JSON, is for `target`.
pub fn is_for(entry: &Value, target: &Digest) -> bool {
    entry["annotations"][TARGET].as_str() == Some(target.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Payload;
    use crate::oci::{LayerCompression, Unverified};
    use crate::tardiff::Version;

    fn delta(from: &[u8], size: u64) -> Descriptor {
        let layer = DraftLayer {
            to: Digest::of(b"blob"),
            digest: Digest::of(from),
            size,
            payload: Payload::TarDiff(Version::V1),
            compression: LayerCompression::Gzip,
            uncompressed_size: 1024,
        };
        DraftDelta { from: Digest::of(from), to: Digest::of(b"to"), layer }.descriptor()
    }

    #[test]
    fn what_is_written_is_read_smallest_first() {
        let target = Digest::of(b"target");
        for dialect in [Dialect::Flatpak, Dialect::Skopeo] {
            let bytes = manifest(dialect, &target, &[delta(b"x", 9), delta(b"y", 5), delta(b"x", 9)]);
            let raw = Unverified::new(bytes).identify();
            let read = parse(&raw, &target, &Limits::default()).unwrap();
            let found: Vec<_> = read.iter().map(|delta| (delta.from, delta.blob.size)).collect();
            assert_eq!(found, [(Digest::of(b"y"), 5), (Digest::of(b"x"), 9)]);
            assert_eq!(read[0].uncompressed_size, Some(1024));
        }
    }

    #[test]
    fn the_manifest_of_another_target_is_refused() {
        let bytes = manifest(Dialect::Flatpak, &Digest::of(b"one"), &[]);
        let raw = Unverified::new(bytes).identify();
        assert!(matches!(
            parse(&raw, &Digest::of(b"other"), &Limits::default()),
            Err(Error::Contradiction { .. })
        ));
    }
}
