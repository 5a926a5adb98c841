//! Deltas that are damaged or hostile, from the golden vectors, in the place of the one that a pull finds: the layer
//! comes whole, in bounded memory.

use std::fs;
use std::path::{Path, PathBuf};

use coracle_testkit::golden::Golden;
use coracle_testkit::image::{Rng, mutate};
use coracle_testkit::oci::{Bundle, Compression, digest, image};
use coracle_testkit::registry::{Behaviour, start};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use crate::place::Place;

fn version(edits: usize) -> Bundle {
    let program = mutate(&Rng::new(3).bytes(100_000), 1, edits);
    let layer = TarBuilder::new().file("program", program).finish();
    image("amd64", &[layer], Compression::Gzip).unwrap()
}

/// All files below a folder of vectors that may be deltas.
fn vectors(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(vectors(&path));
        } else if path.extension().is_none_or(|kind| kind != "json") {
            all.push(path);
        }
    }
    all.sort();
    all
}

#[test]
fn layers_of_hostile_deltas_come_whole() {
    let (double, server) = start(Behaviour::default()).unwrap();
    let (old, new) = (version(0), version(40));
    for (tag, bundle) in [("old", &old), ("new", &new)] {
        bundle.blobs.iter().for_each(|blob| drop(double.put_blob("app", blob.clone())));
        double.put_manifest("app", tag, &bundle.root.0, &bundle.root.1);
    }
    let place = Place::new();
    let host = server.host();
    for codec in ["native", "tardiff"] {
        let line = format!("--tls-verify=false --push --codec {codec} {host}/app:old {host}/app:new");
        place.ok(&format!("delta create {line}"));
    }
    let mut templates: Vec<(String, Value)> = double
        .about("app", &new.digest())
        .into_iter()
        .map(|digest| {
            let manifest = double.manifest("app", &digest).unwrap();
            (digest, serde_json::from_slice(&manifest).unwrap())
        })
        .collect();
    assert_eq!(templates.len(), 2);
    place.ok(&format!("pull --tls-verify=false {host}/app:old"));
    fs::rename(place.path("store"), place.path("before")).unwrap();

    let golden = Golden::built_in();
    let (mut fell_back, mut passed_over) = (0, 0);
    for (folder, kind) in
        [("native/bad", "coracle"), ("native-packed/bad", "coracle"), ("tardiff/bad", "oci-delta")]
    {
        for vector in vectors(&golden.root().join(folder)) {
            let content = fs::read(&vector).unwrap();
            let what = vector.display().to_string();
            // One delta is listed at a time.
            for (listed, _) in &templates {
                double.forget_manifest("app", listed);
            }
            let of_kind = |manifest: &Value| manifest["artifactType"].as_str().unwrap().contains(kind);
            let template = templates.iter_mut().find(|(_, manifest)| of_kind(manifest)).unwrap();
            let layer = template.1["layers"].as_array_mut().unwrap().last_mut().unwrap();
            layer["digest"] = double.put_blob("app", content.clone()).into();
            layer["size"] = content.len().into();
            let bytes = template.1.to_string().into_bytes();
            double.put_manifest("app", "delta", "application/vnd.oci.image.manifest.v1+json", &bytes);
            template.0 = digest(&bytes);

            let _ = fs::remove_dir_all(place.path("store"));
            let mut copy = std::process::Command::new("cp");
            copy.arg("-a").arg(place.path("before")).arg(place.path("store"));
            assert!(copy.status().unwrap().success());
            let ran = place.ok(&format!("pull --tls-verify=false {host}/app:new --json"));
            let told: Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
            assert_eq!(told["layers"][0]["from"], "full", "{what}: {told}");
            assert_eq!(told["digest"], new.digest(), "{what}");
            assert!(told["peak_rss_bytes"].as_u64().unwrap() < 150 << 20, "{what}: {told}");
            // What is as large as the layer itself is not tried at all.
            match told["fallbacks"].as_array().unwrap().len() {
                0 => passed_over += 1,
                1 => fell_back += 1,
                count => panic!("{what}: {count}"),
            }
            let checked = place.json("store fsck --deep");
            assert_eq!(checked["damages"].as_array().unwrap().len(), 0, "{what}");
        }
    }
    assert!(fell_back > 100 && passed_over < 20, "{fell_back} tried, {passed_over} passed over");
}
