//! Bundles: one file with deltas, and the image if asked for, and no network.

use std::fs;

use coracle_testkit::image::{Rng, mutate};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::oracle::tool;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use crate::place::Place;

fn version(number: u64) -> Bundle {
    let program = fs::read(tool("busybox").unwrap()).unwrap();
    let below = TarBuilder::new().dir("data").file("data/big", Rng::new(7).bytes(300_000)).finish();
    let above = TarBuilder::new()
        .file_mode("tool", 0o755, mutate(&program, number, 50))
        .file("version", format!("{number}\n"))
        .finish();
    image("amd64", &[below, above], Compression::Gzip).unwrap()
}

/// A place with layouts of three versions.
fn place() -> Place {
    let place = Place::new();
    for number in 1..=3 {
        version(number).write_layout(&place.path(&format!("in/{number}")), "x").unwrap();
    }
    place
}

fn pull(place: &Place, line: &str) -> Value {
    let ran = place.ok(&format!("pull {line} --json"));
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

fn from(told: &Value) -> Vec<&str> {
    told["layers"].as_array().unwrap().iter().map(|layer| layer["from"].as_str().unwrap()).collect()
}

/// A name that nothing answers at: whoever asks the network fails.
const NAME: &str = "registry.invalid/app:3";

#[test]
fn several_deltas_in_one_file() {
    let place = place();
    place.json("delta create oci:in/1:x oci:in/2:x oci:in/3:x -o out/app.bundle --codec native");
    for old in 1..=2 {
        let store = format!("--store stores/{old}");
        pull(&place, &format!("oci:in/{old}:x --name localhost/app:{old} {store}"));
        let told = pull(&place, &format!("{NAME} --from-bundle out/app.bundle {store}"));
        assert_eq!(from(&told), ["store", "native"], "{told}");
        assert_eq!(told["digest"], version(3).digest(), "the manifest is the original one");
        assert_eq!(told["requests"], 0);
        place.json(&format!("store fsck --deep {store}"));
    }
    // From nothing, there is nothing to start from.
    let error = place.fails(
        &format!("pull {NAME} --from-bundle out/app.bundle --store stores/none -q"),
        3,
        "is not in it",
    );
    assert!(error.contains("--with-image"), "{error}");
}

#[test]
fn the_image_itself_on_request() {
    let place = place();
    place.json("delta create oci:in/2:x oci:in/3:x -o out/app.bundle --with-image");
    let told = pull(&place, &format!("{NAME} --from-bundle out/app.bundle --store stores/none"));
    assert_eq!(from(&told), ["full", "full"], "{told}");
    pull(&place, "oci:in/2:x --name localhost/app:2 --store stores/two");
    let told = pull(&place, &format!("{NAME} --from-bundle out/app.bundle --store stores/two"));
    assert_eq!(from(&told), ["store", "tar-diff-1"], "{told}");
    // The same bytes again.
    place.json("delta create oci:in/2:x oci:in/3:x -o out/again.bundle --with-image");
    assert!(place.read("out/app.bundle") == place.read("out/again.bundle"));
    // Other programs find the image in it, too.
    super::site::program("skopeo inspect oci-archive:app.bundle", &place.path("out"));
}

#[test]
fn a_bundle_for_something_else() {
    let place = place();
    place.json("delta create oci:in/2:x oci:in/3:x -o out/app.bundle");
    let other = format!("registry.invalid/app@{}", version(1).digest());
    place.fails(&format!("pull {other} --from-bundle out/app.bundle -q"), 3, "it leads to another image");
    place.fails(
        &format!("pull {NAME} --platform linux/arm64 --from-bundle out/app.bundle -q"),
        3,
        "linux/arm64",
    );
    let right = format!("registry.invalid/app@{}", version(3).digest());
    pull(&place, "oci:in/2:x --name localhost/app:2");
    assert_eq!(
        from(&pull(&place, &format!("{right} --from-bundle out/app.bundle"))),
        ["store", "tar-diff-1"]
    );
    // A damaged delta, and nothing to fall back to.
    let mut bytes = place.read("out/app.bundle");
    let at = bytes.windows(6).rposition(|window| window == b"tardf1").unwrap() + 300;
    bytes[at] ^= 1;
    place.put("out/bad.bundle", &bytes);
    pull(&place, "oci:in/2:x --name localhost/app:2 --store stores/2");
    place.fails(&format!("pull {NAME} --from-bundle out/bad.bundle --store stores/2 -q"), 3, "is not in it");
}

#[test]
fn archives_of_docker_save_in_and_out_are_stable() {
    let place = place();
    place.json("copy oci:in/3:x docker-archive:out/a.tar:localhost/app:3");
    place.json("copy docker-archive:out/a.tar docker-archive:out/b.tar:localhost/app:3");
    assert!(place.read("out/a.tar") == place.read("out/b.tar"), "the same image gives the same archive");
    let told = pull(&place, "docker-archive:out/a.tar --name localhost/app:3");
    let config = told["config"].clone();
    place.json("copy store:localhost/app:3 docker-archive:out/c.tar:localhost/app:3");
    assert!(place.read("out/a.tar") == place.read("out/c.tar"));
    // And as a bundle: a delta between two archives, applied to one.
    place.json("copy oci:in/2:x docker-archive:out/old.tar:localhost/app:2");
    place.json("delta create docker-archive:out/old.tar docker-archive:out/a.tar -o out/app.bundle");
    pull(&place, "docker-archive:out/old.tar --name localhost/app:2 --store stores/2");
    let told = pull(&place, "localhost/app:3 --from-bundle out/app.bundle --store stores/2");
    assert_eq!(told["config"], config);
}
