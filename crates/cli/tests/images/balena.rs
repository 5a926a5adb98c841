//! Delta images of balenaEngine, through docker-registry, with skopeo and docker as witnesses.

use std::fs;
use std::io::Read;

use coracle_codec::artifact::balena::delta_in;
use coracle_codec::compress::decoder;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::Site;

/// Two versions of an image of three layers: one stays, one has a program that was linked again, one is text.
fn versions() -> (Bundle, Bundle) {
    let base = TarBuilder::new().dir("etc").file("etc/base", text(1, 90_000)).finish();
    let program = binary(2, 400_000);
    let one = |program: &[u8]| TarBuilder::new().dir("usr").file_mode("usr/program", 0o755, program).finish();
    let two = |notes: Vec<u8>| TarBuilder::new().file("usr/notes", notes).finish();
    let notes = text(3, 60_000);
    let old = [base.clone(), one(&program), two(notes.clone())];
    let new = [base, one(&mutate(&program, 4, 300)), two(mutate(&notes, 5, 20))];
    (image("amd64", &old, Compression::Gzip).unwrap(), image("amd64", &new, Compression::Gzip).unwrap())
}

/// Both versions in the registry, pushed with skopeo.
fn pushed(site: &Site) -> (Bundle, Bundle) {
    let (old, new) = versions();
    for (bundle, tag) in [(&old, "1"), (&new, "2")] {
        bundle.write_layout(&site.place.path(&format!("in/{tag}")), "image").unwrap();
        site.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/{tag}:image docker://{{registry}}/app:{tag}"
        ));
    }
    (old, new)
}

/// The result of a pull, which is its last line.
fn pull(site: &Site, line: &str) -> Value {
    let ran = site.place.ok(&site.line(&format!("pull --tls-verify=false --json {line}")));
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

const CREATE: &str = "delta create --tls-verify=false --dialect balena --push";

fn config(bundle: &Bundle) -> String {
    let manifest: Value = serde_json::from_slice(&bundle.root.1).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[test]
fn through_a_registry() {
    let site = Site::new();
    let (old, new) = pushed(&site);
    let made = site.json(&format!("{CREATE} --tag delta {{registry}}/app:1 {{registry}}/app:2"));
    let classic =
        site.json(&format!("{CREATE} --classic --tag classic {{registry}}/app:1 {{registry}}/app:2"));
    let bytes = |made: &Value| made["deltas"][0]["bytes"].as_u64().unwrap();
    assert_eq!(made["deltas"][0]["dialect"], "balena");
    assert_eq!(made["deltas"][0]["target"], new.digest());
    assert!(bytes(&made) * 100 < bytes(&classic) * 85, "{} and {}", bytes(&made), bytes(&classic));

    // Another program sees an image with the labels, and takes all of it: its digests and diff_ids are right.
    let raw = site.program("skopeo inspect --tls-verify=false --config --raw docker://{registry}/app:delta");
    let labels = &serde_json::from_str::<Value>(&raw).unwrap()["config"]["Labels"];
    assert_eq!(labels["io.resin.delta.base"], config(&old));
    site.program("skopeo copy --quiet --src-tls-verify=false docker://{registry}/app:delta oci:copied:x");

    // What it is for.
    let shown = site.json("inspect --tls-verify=false docker://{registry}/app:delta");
    assert_eq!(shown["delta"]["dialect"], "balena");
    assert_eq!(shown["delta"]["target_config"], config(&new));
    assert_eq!(shown["delta"]["source_config"], config(&old));
    let text = site.place.ok(&site.line("inspect --tls-verify=false docker://{registry}/app:delta")).text();
    assert!(text.contains("delta: balena") && text.contains(&config(&old)), "{text}");
    let told = site.json(
        "explain --tls-verify=false docker://{registry}/app:1 docker://{registry}/app:2 docker://{registry}/app:delta",
    );
    let first = &told["members"][0];
    assert_eq!((&first["path"], &first["cost"]), (&"usr/program".into(), &"changed".into()), "{told}");

    // Pulled with the old image in the store, it is the new image with its own digest.
    pull(&site, "{registry}/app:1");
    for tag in ["delta", "classic"] {
        let pulled = pull(&site, &format!("{{registry}}/app:{tag}"));
        assert_eq!(
            (&pulled["digest"], &pulled["config"]),
            (&new.digest().into(), &config(&new).into()),
            "{tag}"
        );
        let from: Vec<&str> = pulled["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["from"].as_str().unwrap())
            .collect();
        let rest = if tag == "delta" { "rsync" } else { "store" };
        assert_eq!(from, ["store", rest, rest], "{pulled}");
        assert_eq!(pulled["fallbacks"].as_array().unwrap().len(), 0);
    }
    site.place.ok("store fsck --deep");
}

/// rdiff makes of our deltas what we do: each layer of a delta image, applied to the joined layers of the old image.
#[test]
fn rdiff_reads_what_we_write() {
    let site = Site::new();
    let (old, new) = versions();
    for (bundle, name) in [(&old, "old"), (&new, "new")] {
        bundle.write_layout(&site.place.path(name), "image").unwrap();
    }
    let blob = |folder: &str, descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
        fs::read(site.place.path(folder).join("blobs").join(digest)).unwrap()
    };
    let plain = |bytes: &[u8]| {
        let mut out = Vec::new();
        decoder(bytes, Default::default()).unwrap().1.read_to_end(&mut out).unwrap();
        out
    };
    let layers = |folder: &str, manifest: &[u8]| -> Vec<Vec<u8>> {
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        manifest["layers"].as_array().unwrap().iter().map(|layer| plain(&blob(folder, layer))).collect()
    };
    fs::write(site.place.path("basis"), layers("old", &old.root.1).concat()).unwrap();
    let targets = layers("new", &new.root.1);
    for option in ["", "--classic"] {
        let folder = format!("delta{option}");
        site.place.ok(&format!(
            "delta create --dialect balena {option} -o oci:{folder}:d oci:old:image oci:new:image"
        ));
        let index: Value =
            serde_json::from_slice(&fs::read(site.place.path(&folder).join("index.json")).unwrap()).unwrap();
        for (number, layer) in
            layers(&folder, &blob(&folder, &index["manifests"][0])).iter().enumerate().skip(1)
        {
            let mut delta = Vec::new();
            delta_in(&layer[..]).unwrap().read_to_end(&mut delta).unwrap();
            fs::write(site.place.path("delta.rdiff"), delta).unwrap();
            site.program(&format!("rdiff -f patch basis delta.rdiff made{number}"));
            assert!(site.place.read(&format!("made{number}")) == targets[number], "layer {number} {option}");
        }
    }
}

#[test]
fn from_a_folder_with_what_is_there() {
    let site = Site::new();
    let (_, new) = pushed(&site);
    site.place.ok(&site.line("delta create --dialect balena -o oci:delta:d oci:in/1:image oci:in/2:image"));
    let missing = site.place.run("pull --name localhost/app:2 oci:delta:d");
    site.place.check_failure(&missing, 3, "which is not here");
    let pulled = pull(&site, "--name localhost/app:2 --source oci:in/1:image oci:delta:d");
    assert_eq!(pulled["config"], config(&new));
    let notes = pulled["notes"].to_string();
    assert!(notes.contains("could not be compared"), "{notes}");
    // Applied without the store, the layers are what the config says: umoci unpacks them.
    site.place.ok(&site.line("delta apply oci:delta:d --source oci:in/1:image --to oci:made:x"));
    site.program("umoci unpack --rootless --image made:x bundle");
    let program = fs::read(site.place.path("bundle/rootfs/usr/program")).unwrap();
    assert!(program == mutate(&binary(2, 400_000), 4, 300));
    // With the image itself named, and without the old one.
    site.place.ok("store rm localhost/app:2");
    site.place.ok("store gc");
    let full = pull(&site, "--name localhost/full:2 --full {registry}/app:2 oci:delta:d");
    assert_eq!(full["digest"], new.digest());
    assert!(full["layers"].as_array().unwrap().iter().all(|layer| layer["from"] == "full"), "{full}");
}
