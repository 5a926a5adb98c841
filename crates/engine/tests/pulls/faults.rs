//! A pull with deltas works whenever one without does, whatever the deltas, their lists and the registry are like.

use std::time::Duration;

use coracle_codec::artifact::{Dialect, Payload};
use coracle_engine::Error;
use coracle_engine::pull::{From, Request};
use coracle_testkit::http::Fault;
use coracle_testkit::oci::digest;
use serde_json::{Value, json};

use crate::images::site::Site;

use super::{NEW, OLD, check, from, nothing_over, published, pull, pull_as, request, store};

/// The manifest of the one delta to the new image, and its digest.
fn artifact(site: &Site, target: &str) -> (String, Value) {
    let digest = site.double.about("app", target).remove(0);
    let manifest = site.double.manifest("app", &digest).unwrap();
    (digest, serde_json::from_slice(&manifest).unwrap())
}

/// The deltas in the artifact.
fn contents(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    let native = |layer: &Value| layer["mediaType"] == "application/vnd.coracle.delta.v1";
    layers.filter(|layer| native(layer)).map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn spoiled_deltas_are_replaced_by_whole_layers() {
    let faults = [
        Fault::Cut(10),
        Fault::Refuse,
        Fault::Status(404, Vec::new()),
        Fault::Status(500, Vec::new()),
        Fault::Status(403, Vec::new()),
        Fault::Flip,
        Fault::Longer(7),
        Fault::LieMore(9),
        Fault::Status(429, vec![("Retry-After".into(), "100000".into())]),
    ];
    for fault in faults {
        let site = Site::new();
        let (_, new) = published(&site, &[Dialect::Coracle]);
        pull(&site, OLD).unwrap();
        let (_, manifest) = artifact(&site, &new.digest());
        for content in contents(&manifest) {
            site.faults().add("GET", &content, fault.clone(), usize::MAX);
        }
        let (pulled, events) = pull_as(&site, &request(&site, NEW));
        let pulled = pulled.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(from(&pulled)[1..3], [From::Full; 2], "{fault:?}");
        assert_eq!(pulled.fallbacks.len(), 2, "{fault:?}");
        assert!(pulled.fallbacks.iter().all(|fell| !fell.reason.is_empty()));
        assert_eq!(events.iter().filter(|event| **event == "fell-back").count(), 2);
        check(&site, &pulled, &new);
        nothing_over(&site);
    }
}

#[test]
fn faults_that_pass_are_sat_out() {
    for fault in [
        Fault::Cut(100),
        Fault::Refuse,
        Fault::Status(503, Vec::new()),
        Fault::Slow(500, Duration::from_millis(1)),
        Fault::IgnoreRange,
        Fault::LoseAnswer,
    ] {
        let site = Site::new();
        let (_, new) = published(&site, &[Dialect::Coracle]);
        pull(&site, OLD).unwrap();
        site.faults().add("GET", "/blobs/", fault.clone(), 1);
        let pulled = pull(&site, NEW).unwrap();
        assert_eq!(from(&pulled)[1..3], [From::Delta(Payload::Native); 2], "{fault:?}");
        check(&site, &pulled, &new);
    }
}

#[test]
fn lists_that_cannot_be_read_are_no_reason_to_fail() {
    for (part, fault) in [
        ("/referrers/", Fault::Status(500, Vec::new())),
        ("/referrers/", Fault::Status(403, Vec::new())),
        ("/referrers/", Fault::Flip),
        ("/referrers/", Fault::Cut(10)),
        ("_deltaindex", Fault::Status(500, Vec::new())),
        ("_deltaindex", Fault::Refuse),
    ] {
        let site = Site::new();
        let (_, new) = published(&site, &[Dialect::Coracle]);
        pull(&site, OLD).unwrap();
        site.faults().add("GET", part, fault.clone(), usize::MAX);
        let pulled = pull(&site, NEW).unwrap_or_else(|error| panic!("{part} {fault:?}: {error}"));
        check(&site, &pulled, &new);
        assert!(
            !pulled.notes.is_empty() || from(&pulled)[1] == From::Delta(Payload::Native),
            "{part} {fault:?}"
        );
    }
}

/// Puts another manifest in the place of the one delta, listed as the first was.
fn replace(site: &Site, target: &str, change: impl FnOnce(&mut Value)) {
    let (old, mut manifest) = artifact(site, target);
    change(&mut manifest);
    site.double.forget_manifest("app", &old);
    let bytes = manifest.to_string().into_bytes();
    let media = "application/vnd.oci.image.manifest.v1+json";
    site.double.put_manifest("app", &digest(&bytes), media, &bytes);
}

type Change = fn(&mut Value);

#[test]
fn lying_deltas_are_replaced_by_whole_layers() {
    let lies: [(&str, Change); 7] = [
        ("made for another source", |m| {
            // The source that is here, and deltas that were not made from it.
            let layers = m["layers"].as_array_mut().unwrap();
            let (a, b) = (layers.len() - 2, layers.len() - 3);
            let (first, second) = (layers[a]["digest"].clone(), layers[b]["digest"].clone());
            let (first_size, second_size) = (layers[a]["size"].clone(), layers[b]["size"].clone());
            layers[a]["digest"] = second;
            layers[a]["size"] = second_size;
            layers[b]["digest"] = first;
            layers[b]["size"] = first_size;
        }),
        ("a size that is not the layer's", |m| {
            for layer in m["layers"].as_array_mut().unwrap() {
                layer["annotations"]["dev.coracle.delta.uncompressed-size"] = json!("1024");
            }
        }),
        ("content that is none", |m| {
            for layer in m["layers"].as_array_mut().unwrap() {
                if layer["annotations"]["dev.coracle.delta.content"] == "image-layer" {
                    layer["digest"] = json!(digest(b"missing"));
                    layer["size"] = json!(7);
                }
            }
        }),
        ("no layers", |m| m["layers"] = json!([])),
        ("another target", |m| {
            m["annotations"]["dev.coracle.delta.target"] = json!(digest(b"another"));
        }),
        ("a layer of another image", |m| {
            let layers = m["layers"].as_array_mut().unwrap();
            layers.last_mut().unwrap()["annotations"]["dev.coracle.delta.to"] = json!(digest(b"stray"));
        }),
        ("a huge delta", |m| {
            for layer in m["layers"].as_array_mut().unwrap() {
                if layer["annotations"]["dev.coracle.delta.content"] == "image-layer" {
                    layer["size"] = json!(1u64 << 50);
                }
            }
        }),
    ];
    for (what, lie) in lies {
        let site = Site::new();
        let (_, new) = published(&site, &[Dialect::Coracle]);
        pull(&site, OLD).unwrap();
        replace(&site, &new.digest(), lie);
        let pulled = pull(&site, NEW).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(from(&pulled)[1..3].contains(&From::Full), "{what}: {:?}", from(&pulled));
        check(&site, &pulled, &new);
        nothing_over(&site);
    }
}

#[test]
fn a_damaged_source_is_healed_on_the_way() {
    let site = Site::new();
    let (_, new) = published(&site, &[Dialect::Coracle]);
    pull(&site, OLD).unwrap();
    // Every object is damaged where no size tells it.
    let objects: Vec<_> = walk(&site.path("store/objects"));
    assert!(!objects.is_empty());
    for object in &objects {
        let mut bytes = std::fs::read(object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(object, bytes).unwrap();
    }
    let pulled = pull(&site, NEW).unwrap();
    assert!(!pulled.fallbacks.is_empty());
    assert!(from(&pulled)[1..].iter().all(|from| *from == From::Full), "{:?}", from(&pulled));
    // The layers of the new image that were fetched are right, whatever was there before.
    let store = store(&site);
    for made in pulled.layers.iter().filter(|made| made.from == From::Full) {
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut store.layer(&made.diff_id).unwrap().unwrap().reader(), &mut tar)
            .unwrap();
        assert_eq!(coracle_codec::digest::Digest::of(&tar), made.diff_id);
    }
    let _ = new;
    // And the rest is found and fetched.
    let options = coracle_store::FsckOptions::new(std::num::NonZeroUsize::MIN);
    let context =
        coracle_engine::Context { observer: &coracle_codec::observe::Quiet, temp_dir: site.path("tmp") };
    let like = request(&site, OLD);
    let checked = coracle_engine::stored::fsck(&options, Some(&like), &site.environment(), &context).unwrap();
    assert!(!checked.report.damages.is_empty());
    assert!(checked.repaired.iter().all(|(_, result)| result.is_ok()), "{:?}", checked.repaired);
    assert_eq!(checked.after.unwrap().damages, []);
    nothing_over(&site);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_pull_that_was_cut_off_goes_on() {
    let site = Site::new();
    let (_, new) = published(&site, &[]);
    let value: Value = serde_json::from_slice(&new.root.1).unwrap();
    let largest =
        value["layers"].as_array().unwrap().iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
    let (blob, size) = (largest["digest"].as_str().unwrap(), largest["size"].as_u64().unwrap());
    // Half of it comes, again and again, until the client gives up.
    site.faults().add("GET", blob, Fault::Cut(size as usize / 2), 1);
    site.faults().add("GET", blob, Fault::Refuse, usize::MAX);
    let failed = pull(&site, NEW).unwrap_err();
    assert!(matches!(failed, Error::Registry { .. }), "{failed}");
    assert!(store(&site).refs().unwrap().is_empty(), "nothing is visible");
    site.faults().clear();
    site.faults().forget();
    let pulled = pull(&site, NEW).unwrap();
    assert!(pulled.resumed_bytes >= size / 2, "{pulled:?}");
    assert!(site.faults().sent() < size * 2);
    check(&site, &pulled, &new);
    nothing_over(&site);
}

#[test]
fn what_an_earlier_run_left_is_not_believed() {
    let site = Site::new();
    let (_, new) = published(&site, &[]);
    let value: Value = serde_json::from_slice(&new.root.1).unwrap();
    let store = coracle_store::Store::open_or_create(&site.path("store"), Default::default()).unwrap();
    for (number, layer) in value["layers"].as_array().unwrap().iter().enumerate() {
        let digest = layer["digest"].as_str().unwrap().parse().unwrap();
        let size = layer["size"].as_u64().unwrap() as usize;
        // Too short, just as long, and too long; never right.
        let bytes = vec![7; [size / 2, size, size * 2][number % 3]];
        std::fs::write(store.partial(&digest), bytes).unwrap();
    }
    let pulled = pull(&site, NEW).unwrap();
    check(&site, &pulled, &new);
    nothing_over(&site);
}

#[test]
fn two_pulls_share_the_work() {
    let site = Site::new();
    let (_, new) = published(&site, &[]);
    site.faults().add("GET", "/blobs/", Fault::Slow(2000, Duration::from_millis(2)), usize::MAX);
    site.faults().forget();
    let results: Vec<_> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| pull(&site, NEW))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for result in results {
        check(&site, &result.unwrap(), &new);
    }
    let value: Value = serde_json::from_slice(&new.root.1).unwrap();
    for layer in value["layers"].as_array().unwrap() {
        let blob = layer["digest"].as_str().unwrap();
        assert_eq!(site.faults().count("GET", blob), 1, "each blob once");
    }
    nothing_over(&site);
}

#[test]
fn too_little_room_is_told_before_anything_is_fetched() {
    let site = Site::new();
    let (_, new) = published(&site, &[]);
    let mut manifest: Value = serde_json::from_slice(&new.root.1).unwrap();
    manifest["layers"][0]["size"] = json!(1u64 << 39);
    let bytes = manifest.to_string().into_bytes();
    site.double.put_manifest("app", "huge", &new.root.0, &bytes);
    let (failed, _) = pull_as(&site, &Request { ..request(&site, "docker://{double}/app:huge") });
    assert!(matches!(failed, Err(Error::NoSpace { .. })), "{failed:?}");
}

#[test]
fn damaged_documents_and_names_are_mended() {
    let site = Site::new();
    let (old, new) = published(&site, &[Dialect::Coracle]);
    let pulled = pull(&site, OLD).unwrap();
    for digest in [pulled.config, pulled.digest] {
        let path = site.path("store/documents").join(digest.hex());
        std::fs::write(&path, b"{}").unwrap();
        // A plain pull mends it; so does the check.
        assert!(!pull(&site, OLD).unwrap().up_to_date);
        check(&site, &pulled, &old);
        std::fs::write(&path, b"{}").unwrap();
        let options = coracle_store::FsckOptions::new(std::num::NonZeroUsize::MIN);
        let context =
            coracle_engine::Context { observer: &coracle_codec::observe::Quiet, temp_dir: site.path("tmp") };
        let like = request(&site, OLD);
        let checked =
            coracle_engine::stored::fsck(&options, Some(&like), &site.environment(), &context).unwrap();
        assert_eq!(checked.after.unwrap().damages, [], "{:?}", checked.repaired);
    }
    // The file of another name that cannot be read is nobody's obstacle.
    let other = site.path("store/refs/localhost/other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join(":1"), b"{").unwrap();
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled)[1], From::Delta(Payload::Native));
    assert_eq!(pulled.root.to_string(), new.digest());
    assert!(store(&site).refs().is_err());
    assert!(store(&site).remove_ref(&"localhost/other:1".parse().unwrap()).unwrap());
    check(&site, &pulled, &new);
}
