//! Seeds of `artifact_parse`.

use coracle_codec::artifact::{Dialect, Draft, DraftLayer, Payload};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, LayerCompression, Limits, Unverified};
use coracle_codec::tardiff::Version;
use coracle_testkit::golden::Golden;
use coracle_testkit::oci::{Compression, image, layers};

use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    // Every document of the golden layouts and archives.
    let root = Golden::built_in().root().join("artifact");
    for variant in ["spec", "flatpak-indexer", "skopeo", "skopeo-fallback"] {
        let blobs = root.join(format!("dialect-a-{variant}/repo/blobs/sha256"));
        for entry in std::fs::read_dir(blobs)? {
            let path = entry?.path();
            let bytes = std::fs::read(&path)?;
            if bytes.starts_with(b"{") && bytes.len() > 2 {
                let name: String =
                    path.file_name().unwrap_or_default().to_string_lossy().chars().take(8).collect();
                seeds.insert(format!("{variant}-{name}"), bytes);
            }
        }
    }
    for (n, compression) in [Compression::Gzip, Compression::Zstd, Compression::None].into_iter().enumerate()
    {
        let bundle = image("amd64", &layers(), compression)?;
        let config = bundle.blobs.last().cloned().unwrap_or_default();
        let raw = Unverified::new(bundle.root.1.clone()).identify();
        let Document::Manifest(target) = Document::parse(raw, None, &Limits::default())? else { continue };
        for dialect in [Dialect::OciDelta, Dialect::Coracle] {
            for (kind, payload) in [
                Payload::TarDiff(Version::V1),
                Payload::TarDiff(Version::V2),
                Payload::Native,
                Payload::Layer,
            ]
            .into_iter()
            .enumerate()
            {
                let content = |layer: &coracle_codec::oci::Descriptor| DraftLayer {
                    to: layer.digest,
                    digest: Digest::of(b"delta"),
                    size: 5,
                    payload,
                    compression: LayerCompression::Gzip,
                    uncompressed_size: 10_240,
                };
                let draft = Draft {
                    dialect,
                    target: &target,
                    target_config: config.len() as u64,
                    source: Digest::of(b"source"),
                    source_config: Digest::of(b"config"),
                    source_created: (kind % 2 == 0).then_some("2026-01-02T03:04:05Z"),
                    layers: target.layers().iter().skip(kind % 2).map(content).collect(),
                    signatures: Vec::new(),
                };
                let parts = [draft.to_bytes(), bundle.root.1.clone(), config.clone()];
                seeds.insert(format!("{dialect}-{n}-{kind}"), parts.join(&0x1e));
            }
        }
    }
    Ok(seeds)
}
