//! Artifacts that other programs made are applied; altered ones are refused, and leave no image.

use std::fs;
use std::path::PathBuf;

use coracle_codec::digest::Digest;
use coracle_engine::Error;
use coracle_engine::artifact::apply::{Applied, Base, How};
use coracle_testkit::golden::Golden;
use serde_json::Value;

use super::journey;
use crate::images::site::Site;

fn set() -> PathBuf {
    Golden::built_in().root().join("artifact")
}

fn case(name: &str) -> Value {
    serde_json::from_slice(&fs::read(set().join(name).join("case.json")).unwrap()).unwrap()
}

fn apply(site: &Site, delta: &str, base: &str, to: &str) -> Result<Applied, Error> {
    journey::apply(site, delta, Base::Image(base.parse().unwrap()), to, |_| {})
}

fn digest(value: &Value) -> Digest {
    value.as_str().unwrap().parse().unwrap()
}

/// Every layer that the layout has hashes to its diff_id.
fn check_layers(site: &Site, name: &str, applied: &Applied) {
    for layer in &applied.layers {
        let hex = layer.digest.to_string().replace("sha256:", "");
        let bytes = fs::read(site.path(name).join("blobs/sha256").join(hex)).unwrap();
        let limits = coracle_codec::compress::Limits::default();
        let (_, mut tar) = coracle_codec::compress::decoder(bytes.as_slice(), limits).unwrap();
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut tar, &mut plain).unwrap();
        assert_eq!(Digest::of(&plain), layer.diff_id);
    }
}

#[test]
fn artifacts_of_oci_delta() {
    for name in ["dialect-b", "dialect-b-zstd-target"] {
        let site = Site::new();
        let (case, dir) = (case(name), set().join(name));
        let archive = |file: &str| format!("oci-archive:{}/{file}", dir.display());
        let applied =
            apply(&site, &archive("delta.oci-archive"), &archive("old.oci-archive"), "oci:{}/new").unwrap();
        let expect = &case["expect"];
        assert_eq!(applied.target, Some(digest(&expect["target_manifest"])), "{name}");
        assert_eq!(applied.config, digest(&expect["target_config"]), "{name}");
        let layers = expect["target_layers"].as_array().unwrap();
        assert_eq!(applied.layers.len(), layers.len());
        for (layer, expected) in applied.layers.iter().zip(layers) {
            assert_eq!(layer.diff_id, digest(&expected["diff_id"]), "{name}");
            let how = match expected["how"].as_str().unwrap() {
                "reused" => How::Source,
                "raw" => How::Whole,
                _ => layer.how,
            };
            assert_eq!(layer.how, how, "{name}: {expected}");
        }
        check_layers(&site, "new", &applied);
        assert!(site.left().is_empty());
    }
}

#[test]
fn deltas_of_a_delta_index() {
    for variant in ["spec", "flatpak-indexer", "skopeo", "skopeo-fallback"] {
        let site = Site::new();
        let name = format!("dialect-a-{variant}");
        let (case, dir) = (case(&name), set().join(&name));
        let layout = |folder: &str, tag: &str| format!("oci:{}/{folder}{tag}", dir.display());
        let applied = apply(&site, &layout("repo", ":latest"), &layout("old", ""), "oci:{}/new").unwrap();
        assert_eq!(applied.target, Some(digest(&case["expect"]["target_manifest"])), "{name}");
        let usable = case["expect"]["usable"].as_array().unwrap();
        let bytes: u64 = usable.iter().map(|delta| delta["size"].as_u64().unwrap()).sum();
        assert_eq!(applied.delta_bytes, bytes, "{name}");
        assert!(applied.layers.iter().all(|layer| matches!(layer.how, How::Delta(_))), "{name}");
        check_layers(&site, "new", &applied);
    }
}

#[test]
fn altered_artifacts_are_refused() {
    let reasons = [
        ("blob-flipped", "digest is sha256:e877656b"),
        ("missing-layer", "neither in the delta nor in"),
        ("no-manifest-layer", "the target's manifest is missing"),
        ("no-source-config", "the digest of the source's config is missing"),
        ("raw-layer-swapped", "uncompressed it is sha256:5042f7ca"),
        ("subject-mismatch", "is the artifact's subject"),
        ("swapped-config", "the target's config is sha256:3e2c2083"),
        ("target-annotation-mismatch", "is its annotated target"),
        ("to-bad-syntax", "delta.to is \"sha256:../../../etc/passwd\""),
        ("to-not-in-target", "which the target image does not have"),
        ("wrong-artifact-type", "not a delta artifact but of type \"application/vnd.example.other\""),
        ("wrong-source-config", "it starts from the image with config sha256:1111"),
        ("wrong-tar-diff", "uncompressed it is sha256:bd7bf40e"),
    ];
    let mut names: Vec<String> = fs::read_dir(set().join("bad"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, reasons.map(|(name, _)| name.to_owned()));
    let base = format!("oci-archive:{}", set().join("dialect-b/old.oci-archive").display());
    for (name, reason) in reasons {
        let site = Site::new();
        let packed = fs::File::open(set().join("bad").join(name).join("delta.oci-archive.zst")).unwrap();
        let limits = coracle_codec::compress::Limits::default();
        let (_, mut plain) = coracle_codec::compress::decoder(packed, limits).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut plain, &mut bytes).unwrap();
        fs::write(site.path("delta"), bytes).unwrap();
        let delta = format!("oci-archive:{}", site.path("delta").display());
        let error = apply(&site, &delta, &base, "oci:{}/new").unwrap_err().to_string();
        assert!(error.contains(reason), "{name}: {error}");
        assert!(!site.path("new/index.json").exists(), "{name}");
        assert!(site.left().is_empty(), "{name}");
    }
}
