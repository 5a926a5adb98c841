//! Delta artifacts.

use std::collections::HashSet;

use coracle_codec::artifact::{Artifact, Dialect, Draft, LayerSource, Payload, Target, flatpak};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, ImageConfig, Limits, Manifest, Unverified, Verified};

use crate::oci::LIMITS;

/// Between the documents of an input.
const BREAK: u8 = 0x1e;

/// Reads `data` as the manifest of an artifact and, behind separators, as the target's manifest and config.
///
/// * What an artifact says of its target agrees: subject, annotation, content. No layer is made twice.
/// * Together with the target every layer has one source, and content is for layers of the target alone.
/// * The target and its layers as a draft are written and read as the same.
/// * A manifest of `_deltaindex` keeps to the bounds, and what it lists is listed again.
pub fn artifact_parse(data: &[u8]) {
    let mut parts = data.split(|byte| *byte == BREAK);
    let raw = |bytes: &[u8]| Unverified::new(bytes.to_vec()).identify();
    let first = raw(parts.next().unwrap_or_default());
    layer_deltas(&first);
    let _ = Payload::of_prefix(data);
    let Some(manifest) = manifest(first) else { return };
    let Ok(artifact) = Artifact::parse(&manifest) else { return };
    check(&manifest, &artifact);
    let Some(target) = parts.next().and_then(|bytes| self::manifest(raw(bytes))) else { return };
    let Some(config) = parts.next().and_then(|bytes| ImageConfig::parse(raw(bytes), &LIMITS).ok()) else {
        return;
    };
    if let Ok(target) = Target::new(&artifact, target, config) {
        together(&artifact, &target);
    }
}

fn manifest(raw: Verified) -> Option<Manifest> {
    match Document::parse(raw, None, &LIMITS) {
        Ok(Document::Manifest(manifest)) => Some(manifest),
        _ => None,
    }
}

fn check(manifest: &Manifest, artifact: &Artifact) {
    let target = artifact.target_manifest.digest;
    assert!(manifest.subject().is_none_or(|subject| subject.digest == target));
    let to: HashSet<Digest> = artifact.layers.iter().map(|layer| layer.to).collect();
    assert_eq!(to.len(), artifact.layers.len(), "a layer is made twice");
    assert_eq!(artifact.layers.len() + artifact.others.len() + 2, manifest.layers().len());
    assert!(artifact.dialect.artifact_type() == manifest.artifact_type());
}

fn together(artifact: &Artifact, target: &Target) {
    assert_eq!(target.layers.len(), target.manifest.layers().len());
    assert_eq!(target.layers.len(), target.config.diff_ids().len());
    assert_eq!(target.config.raw().digest(), target.manifest.config().digest);
    let mut used = HashSet::new();
    for (source, layer) in target.layers.iter().zip(target.manifest.layers()) {
        if let LayerSource::Artifact(number) = source {
            assert_eq!(artifact.layers[*number].to, layer.digest);
            used.insert(*number);
        }
    }
    assert_eq!(used.len(), artifact.layers.len(), "content for no layer");
    for dialect in [Dialect::OciDelta, Dialect::Coracle] {
        let draft = Draft {
            dialect,
            target: &target.manifest,
            target_config: target.config.raw().size(),
            source: artifact.source.unwrap_or(artifact.source_config),
            source_config: artifact.source_config,
            source_created: artifact.source_created.as_deref(),
            layers: Vec::new(),
            signatures: Vec::new(),
        };
        let bytes = draft.to_bytes();
        assert_eq!(bytes, draft.to_bytes());
        // The limits here are small: what is written may be larger.
        let raw = Unverified::new(bytes).identify();
        let Ok(Document::Manifest(written)) = Document::parse(raw, None, &Limits::default()) else {
            panic!("what was written is no manifest")
        };
        let again = Artifact::parse(&written).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(again.target_manifest.digest, target.manifest.digest());
        assert_eq!(again.source_config, artifact.source_config);
        assert_eq!(again.source_created, artifact.source_created);
    }
}

fn layer_deltas(raw: &Verified) {
    let target = Digest::of(b"");
    let Ok(deltas) = flatpak::parse(raw, &target, &LIMITS) else { return };
    assert!(deltas.len() <= LIMITS.entries as usize && raw.size() <= LIMITS.manifest_bytes);
    let listed: Vec<_> = deltas.iter().map(|delta| delta.blob.clone()).collect();
    let bytes = flatpak::manifest(Dialect::Flatpak, &target, &listed);
    let again = flatpak::parse(&Unverified::new(bytes).identify(), &target, &Limits::default());
    let again = again.unwrap_or_else(|e| panic!("{e}"));
    for delta in &deltas {
        assert!(again.contains(delta), "{delta:?} is lost");
    }
}
