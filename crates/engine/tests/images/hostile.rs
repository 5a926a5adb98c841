//! Images that somebody made to do harm: each a clear error that names the image, and nothing at the destination.

use std::sync::atomic::{AtomicUsize, Ordering};

use coracle_engine::Error;
use coracle_testkit::http::Fault;
use coracle_testkit::oci::{Bundle, Compression, digest, image, index, layers};

use super::site::{Site, files};

/// With `N` for a number: what an earlier copy has put there must not help.
const DESTINATIONS: [&str; 5] = [
    "oci:{}/outN-oci:x",
    "oci-archive:{}/outN-oci.tar:x",
    "docker-archive:{}/outN.tar:x:y",
    "dir:{}/outN-dir",
    "docker://{double}/outN:x",
];

fn destination(pattern: &str) -> (String, String) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let out = format!("out{}", NEXT.fetch_add(1, Ordering::Relaxed));
    (pattern.replace("outN", &out), out)
}

/// Copies to every destination: each time the error that `check` accepts, and nothing that could be taken for an image.
#[track_caller]
fn refused(site: &Site, source: &str, check: impl Fn(&Error) -> bool) {
    for pattern in DESTINATIONS {
        let (destination, out) = destination(pattern);
        let error = site.copy(source, &destination).expect_err(&destination);
        assert!(check(&error), "{source} -> {destination}: {error:?}");
        let message = error.to_string();
        let name = site.name(source).to_string();
        assert!(message.contains(&name), "{message:?} does not name {name}");
        for file in ["-oci/index.json", "-oci.tar", ".tar", "-dir/manifest.json"] {
            let file = format!("{out}{file}");
            assert!(!site.path(&file).exists(), "{file} is there after {error}");
        }
        assert!(site.double.manifest(&out, "x").is_none(), "a manifest is there after {error}");
        assert_eq!(site.left(), Vec::<std::path::PathBuf>::new(), "{destination}");
    }
    // A store that has the layers from elsewhere would not need to ask for them.
    let _ = std::fs::remove_dir_all(site.path("store"));
    if source.starts_with("docker://") {
        let error = crate::pulls::pull(site, source).expect_err(source);
        let ours = matches!(error, Error::Store(_) | Error::Write { .. } | Error::SelfCheck(_));
        assert!(!ours, "pull {source}: {error:?}");
        let store = coracle_store::Store::open(&site.path("store")).unwrap();
        assert!(store.refs().unwrap().is_empty(), "{source}");
    }
}

fn bundle() -> Bundle {
    image("amd64", &layers(), Compression::Gzip).unwrap()
}

/// The bundle with another manifest, made from its text.
fn with_manifest(change: impl Fn(&str) -> String) -> Bundle {
    let mut bundle = bundle();
    let text = String::from_utf8(bundle.root.1.clone()).unwrap();
    bundle.root.1 = change(&text).into_bytes();
    bundle
}

#[test]
fn absurd_manifests() {
    let site = Site::new();
    let deep =
        |text: &str| text.replacen("{", &format!("{{\"x\":{}{},", "[".repeat(5000), "]".repeat(5000)), 1);
    let large = |text: &str| format!("{text}{}", " ".repeat(5 << 20));
    let many = |text: &str| text.replacen("{", &format!("{{\"x\":[{}0],", "0,".repeat(400_000)), 1);
    let negative = |text: &str| text.replacen("\"size\":", "\"size\":-", 1);
    let huge = |text: &str| text.replacen("\"size\":", "\"size\":9223372036854775", 1);
    let both = |text: &str| text.replacen("{", "{\"manifests\":[],", 1);
    let twice = |text: &str| text.replacen("{", "{\"layers\":[],", 1);
    let cases: [&dyn Fn(&str) -> String; 7] = [&deep, &large, &many, &negative, &huge, &both, &twice];
    for (i, change) in cases.into_iter().enumerate() {
        let source = site.put_registry(&format!("bad{i}"), "t", &with_manifest(change));
        refused(&site, &source, |error| {
            matches!(error, Error::Document { .. })
                || matches!(error, Error::Registry { error, .. } if matches!(**error, coracle_registry::Error::Document { .. }))
        });
    }
}

/// A layer, a config or a manifest with other bytes than its digest says; shorter; longer.
#[test]
fn wrong_bytes() {
    let site = Site::new();
    // What a registry links within itself nobody else sees.
    site.double.behave(|behaviour| behaviour.mount = false);
    let good = bundle();
    for (i, which) in [0, 1, 2].into_iter().enumerate() {
        let name = format!("wrong{i}");
        let source = site.put_registry(&name, "t", &good);
        let layout = site.put(&name, &good);
        let right = good.blobs[which].clone();
        let mut flipped = right.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 4;
        let longer = [right.as_slice(), b"!"].concat();
        for wrong in [flipped, right[..right.len() - 1].to_vec(), longer] {
            site.double.put_blob_as(&name, &digest(&right), wrong.clone());
            refused(&site, &source, |error| {
                matches!(error, Error::WrongBlob { .. })
                    || matches!(error, Error::Registry { error, .. } if matches!(**error, coracle_registry::Error::Mismatch { .. }))
            });
            let digits = digest(&right).replace("sha256:", "");
            std::fs::write(site.path(&name).join("blobs/sha256").join(digits), &wrong).unwrap();
            refused(&site, &layout, |error| matches!(error, Error::WrongBlob { .. }));
        }
    }
}

/// A blob that came whole and turned out wrong is not kept for the next run; halves of others may be.
#[test]
fn wrong_blobs_are_not_kept() {
    let site = Site::new();
    let good = image("amd64", &layers()[..1], Compression::Gzip).unwrap();
    let source = site.put_registry("kept", "t", &good);
    let mut wrong = good.blobs[0].clone();
    wrong[30] ^= 1;
    let name = digest(&good.blobs[0]);
    site.double.put_blob_as("kept", &name, wrong);
    for to in ["oci:{}/kept-oci:x", "dir:{}/kept-dir"] {
        assert!(matches!(site.copy(&source, to), Err(Error::WrongBlob { .. })));
    }
    for folder in ["kept-oci", "kept-dir"] {
        let found = files(&site.path(folder));
        let digits = name.replace("sha256:", "");
        assert!(found.keys().all(|file| !String::from_utf8_lossy(file).contains(&digits)), "{folder}");
    }
}

/// A layer that decodes to something else than the config says: seen where layers are decoded.
#[test]
fn wrong_diff_ids() {
    let site = Site::new();
    let mut lie = bundle();
    let config = lie.blobs.pop().unwrap();
    let other = String::from_utf8(config.clone()).unwrap();
    let first =
        serde_json::from_slice::<serde_json::Value>(&config).unwrap()["rootfs"]["diff_ids"][0].clone();
    let other = other.replace(first.as_str().unwrap(), &digest(b"another layer")).into_bytes();
    let text = String::from_utf8(lie.root.1.clone()).unwrap();
    lie.root.1 = text.replace(&digest(&config), &digest(&other)).into_bytes();
    lie.blobs.push(other);
    let source = site.put("lie", &lie);
    let error = site.copy(&source, "docker-archive:{}/out.tar:x:y").unwrap_err();
    assert!(matches!(&error, Error::WrongBlob { what, .. } if what.contains("layer 0")), "{error}");
    assert!(!site.path("out.tar").exists());
}

/// A small layer that decodes to more than anybody wants.
#[test]
fn bombs() {
    let site = Site::new();
    let bomb = image("amd64", &[vec![0; (1 << 30) + 1]], Compression::Zstd).unwrap();
    assert!(bomb.blobs[0].len() < 1 << 20);
    let source = site.put("bomb", &bomb);
    let error = site.copy(&source, "docker-archive:{}/out.tar:x:y").unwrap_err();
    assert!(matches!(&error, Error::Layer { what, .. } if what.contains("layer 0")), "{error}");
    assert!(!site.path("out.tar").exists());
}

/// A blob with two sizes; an index that lists what is no manifest; an index within indexes within indexes.
#[test]
fn contradictions() {
    let site = Site::new();
    let text = String::from_utf8(bundle().root.1).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut twice = value.clone();
    let mut layer = value["layers"][0].clone();
    layer["size"] = serde_json::json!(layer["size"].as_u64().unwrap() + 1);
    twice["layers"].as_array_mut().unwrap().push(layer);
    let two_sizes = Bundle { root: (bundle().root.0, twice.to_string().into_bytes()), ..bundle() };
    let source = site.put_registry("two-sizes", "t", &two_sizes);
    refused(
        &site,
        &source,
        |error| matches!(error, Error::BadImage { reason, .. } if reason.contains("bytes in one place")),
    );

    let mut nested = index(&[("amd64", bundle())]);
    for _ in 0..5 {
        nested = index(&[("amd64", nested)]);
    }
    for blob in &nested.blobs {
        site.double.put_manifest("nested", "any", "application/vnd.oci.image.index.v1+json", blob);
    }
    let source = site.put_registry("nested", "t", &nested);
    refused(
        &site,
        &source,
        |error| matches!(error, Error::BadImage { reason, .. } if reason.contains("deep")),
    );

    let mut odd = index(&[("amd64", bundle())]);
    let changed = String::from_utf8(odd.root.1).unwrap().replace("image.manifest.v1", "image.poem.v1");
    odd.root.1 = changed.into_bytes();
    let source = site.put("odd", &odd);
    for pattern in &DESTINATIONS[..2] {
        let error = site.copy(&source, &destination(pattern).0).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { reason, .. } if reason.contains("poem")), "{error}");
    }
}

/// URLs in manifests are an invitation to fetch anything from anywhere: nobody follows them.
#[test]
fn foreign_urls_are_not_followed() {
    let site = Site::new();
    let elsewhere = Site::new();
    let mut bundle = bundle();
    let mut value: serde_json::Value = serde_json::from_slice(&bundle.root.1).unwrap();
    value["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".into();
    let url = format!("http://{}/v2/x/blobs/y", elsewhere.server.host());
    value["layers"][0]["urls"] = serde_json::json!([url]);
    bundle.root.1 = value.to_string().into_bytes();
    let layer = bundle.blobs.remove(0);
    let source = site.put_registry("foreign", "t", &bundle);
    refused(&site, &source, |error| matches!(error, Error::ForeignLayer { urls, .. } if urls.len() == 1));
    assert!(elsewhere.faults().requests().is_empty());
    // A registry that has it all the same gives it.
    site.double.put_blob("foreign", layer);
    site.copy(&source, "oci:{}/good:x").unwrap();
    assert!(elsewhere.faults().requests().is_empty());
}

/// A registry that breaks off again and again, or has lost a blob: the error names image and layer.
#[test]
fn what_is_missing_is_named() {
    let site = Site::new();
    let mut bundle = bundle();
    let layer = bundle.blobs.remove(1);
    let source = site.put_registry("gone", "t", &bundle);
    let error = site.copy(&source, "oci:{}/gone-out:x").unwrap_err().to_string();
    for part in ["gone:t", "layer 1", &digest(&layer), "not found"] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
    site.double.put_blob("gone", layer);
    site.faults().add("GET", "/v2/gone/blobs/", Fault::Cut(3), 100);
    let error = site.copy(&source, "oci:{}/gone-out:x").unwrap_err().to_string();
    assert!(error.contains("broke off after") && error.contains("gone:t"), "{error}");
}
