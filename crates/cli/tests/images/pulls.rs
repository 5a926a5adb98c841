//! `pull`, `update` and `store`, with docker-registry, and skopeo to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use coracle_testkit::forward::Forward;
use coracle_testkit::http::Server;
use coracle_testkit::image::{Rng, mutate};
use coracle_testkit::oci::{Bundle, Compression, image, runnable_layers};
use coracle_testkit::oracle::{Input, run_bounded, start, tool};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::{LIMIT, Site};
use crate::place::{Place, Ran, digest};

/// An image with programs of this machine.
fn version(number: u64) -> Bundle {
    let mut layers = runnable_layers().unwrap();
    let program = fs::read(tool("busybox").unwrap()).unwrap();
    layers[1] = TarBuilder::new()
        .file("etc/.wh.removed", "")
        .file("version", format!("{number}\n"))
        .dir("usr")
        .file_mode("usr/tool", 0o755, mutate(&program, number, 50))
        .finish();
    image("amd64", &layers, Compression::Gzip).unwrap()
}

/// The registry, and what was asked of it.
fn watched(site: &Site) -> Server {
    Server::start(Arc::new(Forward::new(&site.registry.host()))).unwrap()
}

fn push(site: &Site, bundle: &Bundle, tag: &str) {
    bundle.write_layout(&site.place.path(&format!("in/{tag}")), "image").unwrap();
    site.program(&format!(
        "skopeo copy --quiet --dest-tls-verify=false oci:in/{tag}:image docker://{{registry}}/app:{tag}"
    ));
}

/// The last line that a command printed: its result. The others are events.
fn result(ran: &Ran) -> Value {
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

fn pull(place: &Place, line: &str) -> Value {
    let ran = place.ok(&format!("pull --tls-verify=false {line} --json"));
    for event in ran.text().lines() {
        let kind = serde_json::from_str::<Value>(event).unwrap()["kind"].clone();
        assert!(kind == "pull" || kind == "pull-event", "{event}");
    }
    result(&ran)
}

/// The uncompressed layers that skopeo fetches, by digest.
fn layers_by_skopeo(site: &Site, name: &str) -> Vec<String> {
    let out = site.place.path("out/skopeo");
    let _ = fs::remove_dir_all(&out);
    site.program(&format!("skopeo copy --quiet --src-tls-verify=false docker://{name} oci:out/skopeo:x"));
    let blob = |digest: &Value| {
        fs::read(out.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))).unwrap()
    };
    let index: Value = serde_json::from_slice(&fs::read(out.join("index.json")).unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| digest(&gunzip(&blob(&layer["digest"])))).collect()
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tool("gzip").unwrap());
    coracle_testkit::oracle::run_fed(command.arg("-dc"), bytes.to_vec(), LIMIT).unwrap().stdout
}

/// The layers in the store, as they come out of it.
fn layers_of_store(place: &Place, name: &str) -> Vec<String> {
    let _ = fs::remove_dir_all(place.path("out/store"));
    place.ok(&format!("copy --tls-verify=false store:{name} oci:out/store:x"));
    let index: Value = serde_json::from_slice(&place.read("out/store/index.json")).unwrap();
    let blob = |digest: &Value| {
        place.read(&format!("out/store/blobs/{}", digest.as_str().unwrap().replace(':', "/")))
    };
    let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers.map(|layer| digest(&blob(&layer["digest"]))).collect()
}

#[test]
fn only_manifest_config_delta_and_lists_are_fetched() {
    let site = Site::new();
    let server = watched(&site);
    let name = format!("{}/app", server.host());
    push(&site, &version(1), "1");
    pull(&site.place, &format!("{name}:1"));
    push(&site, &version(2), "2");
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:1 {registry}/app:2");

    server.faults().forget();
    let told = pull(&site.place, &format!("{name}:2"));
    let from: Vec<&str> =
        told["layers"].as_array().unwrap().iter().map(|l| l["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["store", "native", "store"]);
    assert_eq!(told["digest"], version(2).digest());
    // What the registry was asked for, by kind.
    let delta = told["plan"]["layers"][1]["delta"].as_str().unwrap().rsplit(' ').next().unwrap();
    let config = told["config"].as_str().unwrap();
    let asked: Vec<String> = server
        .faults()
        .requests()
        .iter()
        .map(|request| {
            let path = request.path.strip_prefix("/v2/app/").unwrap_or(&request.path).to_owned();
            match path.as_str() {
                "manifests/2" => "manifest".into(),
                path if path == format!("manifests/{delta}") => "delta manifest".into(),
                path if path == format!("blobs/{config}") => "config".into(),
                path if path.starts_with("blobs/") => "delta".into(),
                path if path.starts_with("referrers/") => "list".into(),
                "manifests/_deltaindex" => "list".into(),
                path if path.starts_with("manifests/sha256-") => "list".into(),
                path => path.into(),
            }
        })
        .collect();
    let count = |kind: &str| asked.iter().filter(|asked| *asked == kind).count();
    assert_eq!(
        [count("manifest"), count("config"), count("delta manifest"), count("delta"), count("list")],
        [1, 1, 1, 1, 3],
        "{asked:?}"
    );
    assert_eq!(asked.len(), 7, "{asked:?}");
    let fetched = told["layers"][1]["bytes"].as_u64().unwrap();
    assert!(server.faults().sent() < fetched + 16_000, "{} for {fetched}", server.faults().sent());
    assert!(told["peak_rss_bytes"].as_u64().unwrap() < 150 << 20, "{told}");

    // The same as skopeo fetches, bit for bit.
    assert_eq!(
        layers_of_store(&site.place, &format!("{name}:2")),
        layers_by_skopeo(&site, &format!("{name}:2"))
    );
    let raw = site.program("skopeo inspect --raw --tls-verify=false docker://{registry}/app:2");
    let hex = told["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert_eq!(site.place.read(&format!("store/documents/{hex}")), raw.as_bytes());
}

/// The layers that `make demo` has made of two versions of real packages.
fn real_pair() -> Option<[Vec<u8>; 2]> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/demo");
    Some([fs::read(folder.join("old.tar")).ok()?, fs::read(folder.join("new.tar")).ok()?])
}

#[test]
fn a_real_update_comes_by_delta() {
    let Some(pair) = real_pair() else {
        println!("no real packages: make demo fetches them");
        return;
    };
    let site = Site::new();
    let [old, new] = pair.map(|tar| image("amd64", &[tar], Compression::Gzip).unwrap());
    push(&site, &old, "1");
    push(&site, &new, "2");
    site.json(
        "delta create --tls-verify=false --push --codec native --effort 3 {registry}/app:1 {registry}/app:2",
    );
    let server = watched(&site);
    let name = format!("{}/app", server.host());
    pull(&site.place, &format!("{name}:1"));
    server.faults().forget();
    let told = pull(&site.place, &format!("{name}:2"));
    assert_eq!(told["layers"][0]["from"], "native");
    let bytes = told["layers"][0]["bytes"].as_u64().unwrap();
    assert!(server.faults().sent() < bytes + 16_000);
    assert!(bytes * 5 < told["plan"]["full_bytes"].as_u64().unwrap(), "{told}");
    assert_eq!(
        layers_of_store(&site.place, &format!("{name}:2")),
        layers_by_skopeo(&site, &format!("{name}:2"))
    );
}

#[test]
fn tar_diffs_serve_as_well_within_little_memory() {
    let site = Site::new();
    push(&site, &version(1), "1");
    push(&site, &version(2), "2");
    site.json("delta create --tls-verify=false --push --codec tardiff {registry}/app:1 {registry}/app:2");
    pull(&site.place, &site.line("{registry}/app:1"));
    let told = pull(&site.place, &site.line("{registry}/app:2"));
    assert_eq!(told["layers"][1]["from"], "tar-diff-1");
    assert!(told["peak_rss_bytes"].as_u64().unwrap() < 150 << 20, "{told}");
}

#[test]
fn updated_listed_measured_checked_and_removed() {
    let site = Site::new();
    let place = &site.place;
    push(&site, &version(1), "latest");
    push(&site, &version(1), "1");
    pull(place, &site.line("{registry}/app:latest"));
    let line = site.line("{registry}/app@") + &version(1).digest();
    pull(place, &line);
    let listed = place.json("store images");
    let images = listed["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images.iter().filter(|image| image["tracked"] == true).count(), 1, "a digest does not change");

    let told = result(&place.ok("update --tls-verify=false --json"));
    assert_eq!(told["images"].as_array().unwrap().len(), 1);
    assert_eq!(told["images"][0]["up_to_date"], true);
    push(&site, &version(2), "latest");
    site.json("delta create --tls-verify=false --push {registry}/app:1 {registry}/app:latest");
    let told = result(&place.ok("update --tls-verify=false --json"));
    let image = &told["images"][0];
    // The smaller of the two.
    let from = image["layers"][1]["from"].as_str().unwrap();
    assert!(["native", "tar-diff-1"].contains(&from), "{image}");
    assert_eq!(image["digest"], version(2).digest());
    assert!(place.ok("update --tls-verify=false").text().contains("is up to date"));

    let usage = place.json("store du");
    let [one, two] = usage["images"].as_array().unwrap().as_slice() else { panic!("{usage}") };
    assert!(
        one["shared_bytes"].as_u64().unwrap() > 0 && two["unique_bytes"].as_u64().unwrap() > 0,
        "{usage}"
    );
    assert_eq!(usage["unused_bytes"], 0);
    let checked = place.json("store fsck --deep");
    assert_eq!(checked["damages"].as_array().unwrap().len(), 0);

    // One byte in one object.
    let object = objects(&place.path("store/objects")).remove(0);
    let mut bytes = fs::read(&object).unwrap();
    bytes[10] ^= 1;
    fs::write(&object, bytes).unwrap();
    let ran = place.run("store fsck --json");
    assert_eq!(ran.code, Some(5), "{ran:?}");
    let damage = result(&ran)["damages"][0].clone();
    assert!(damage["part"].as_str().unwrap().starts_with("object sha256:"), "{damage}");
    assert!(
        !damage["names"].as_array().unwrap().is_empty() && !damage["files"].as_array().unwrap().is_empty()
    );
    let repaired = place.json("store fsck --repair --tls-verify=false");
    assert_eq!(repaired["left"].as_array().unwrap().len(), 0, "{repaired}");
    place.json("store fsck --deep");

    place.fails("store rm localhost/none:1", 3, "no such image");
    place.ok(&site.line("store rm {registry}/app:latest"));
    let freed = place.json("store gc --partial-age 0s");
    assert!(freed["bytes"].as_u64().unwrap() > 0);
    assert_eq!(place.json("store images")["images"].as_array().unwrap().len(), 1);
    place.ok(&format!("store rm {line}"));
    place.json("store gc --partial-age 0s");
    assert_eq!(objects(&place.path("store/objects")), Vec::<PathBuf>::new());
    assert!(place.ok("store images").text().contains("empty"));
}

fn objects(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(objects(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

#[test]
fn twenty_four_pulls_at_once() {
    let site = Site::new();
    let server = watched(&site);
    push(&site, &version(1), "1");
    push(&site, &version(2), "2");
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:1 {registry}/app:2");
    let name = format!("{}/app", server.host());
    pull(&site.place, &format!("{name}:1"));
    server.faults().forget();
    let running: Vec<_> = (0..24)
        .map(|_| {
            let line = format!("coracle pull --tls-verify=false {name}:2 --json");
            start(&mut site.place.command(&line), Input::Nothing).unwrap()
        })
        .collect();
    for running in running {
        let ran = Ran::new("pull", running.wait(LIMIT).unwrap()).success();
        assert_eq!(result(&ran)["digest"], version(2).digest());
    }
    // Whoever came first made the layer; the others had it.
    let blobs = server.faults().requests().into_iter().filter(|request| request.path.contains("/blobs/"));
    let config = version(2);
    let configs: Value = serde_json::from_slice(&config.root.1).unwrap();
    let config = configs["config"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(blobs.filter(|request| !request.path.ends_with(&config)).count(), 1);
    site.place.json("store fsck --deep");
    site.place.json("store gc --partial-age 0s");
    assert_eq!(site.place.json("store du")["lease_bytes"], 0);
}

#[test]
fn a_full_disk_leaves_what_was() {
    let place = Place::new();
    let site = Site::new();
    let disk = place.path("disk");
    fs::create_dir(&disk).unwrap();
    let Some(_mounted) = Mounted::over(&disk, "6m") else { return };
    let small = image(
        "amd64",
        &[TarBuilder::new().file("a", Rng::new(1).bytes(1 << 20)).finish()],
        Compression::Gzip,
    );
    let large = image(
        "amd64",
        &[TarBuilder::new().file("a", Rng::new(2).bytes(8 << 20)).finish()],
        Compression::Gzip,
    );
    push(&site, &small.unwrap(), "small");
    push(&site, &large.unwrap(), "large");
    let line = |tag: &str| {
        site.line(&format!("pull --tls-verify=false --store {}/s {{registry}}/app:{tag}", disk.display()))
    };
    place.ok(&line("small"));
    let ran = place.run(&line("large"));
    place.check_failure(&ran, 7, "bytes are needed");
    // A tar that is larger than its blob tells: the disk is full only while it is written.
    let zeros = image(
        "amd64",
        &[TarBuilder::new().file("z", mutate(&vec![0; 8 << 20], 1, 9000)).finish()],
        Compression::Gzip,
    );
    push(&site, &zeros.unwrap(), "zeros");
    let ran = place.run(&line("zeros"));
    assert_eq!(ran.code, Some(7), "{ran:?}");
    assert!(ran.stderr.contains("No space left on device"), "{ran:?}");
    let store = format!("--store {}/s", disk.display());
    assert_eq!(place.json(&format!("store images {store}"))["images"].as_array().unwrap().len(), 1);
    place.json(&format!("store fsck --deep {store}"));
    place.json(&format!("store gc --partial-age 0s {store}"));
    let usage = place.json(&format!("store du {store}"));
    assert_eq!(
        (&usage["unused_bytes"], &usage["partial_bytes"], &usage["lease_bytes"]),
        (&0.into(), &0.into(), &0.into())
    );
}

/// What is fetched is written twice: as it comes, and as what it becomes. Here there is room for the latter only.
#[test]
fn a_disk_that_is_full_of_half_fetched_blobs_is_no_fault_of_the_source() {
    let (place, site) = (Place::new(), Site::new());
    let bytes = Rng::new(3).bytes(1 << 20);
    for (tag, compression) in
        [("gzip", Compression::Gzip), ("zstd", Compression::Zstd), ("none", Compression::None)]
    {
        let made = image("amd64", &[TarBuilder::new().file(tag, &bytes).finish()], compression).unwrap();
        push(&site, &made, tag);
    }
    let line = |tag: &str| site.line(&format!("pull --tls-verify=false {{registry}}/app:{tag}"));
    place.ok(&line("none"));
    let partial = place.path("store/partial");
    assert!(partial.is_dir(), "{}", partial.display());
    {
        let Some(_mounted) = Mounted::over(&partial, "256k") else { return };
        for tag in ["gzip", "zstd"] {
            let ran = place.run(&line(tag));
            place.check_failure(&ran, 7, "No space left on device");
            assert!(!ran.stderr.contains("damaged or lies"), "{ran:?}");
        }
    }
    place.ok(&line("gzip"));
    place.ok(&line("zstd"));
}

/// A file system of limited size, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where mounting is not allowed.
    fn over(at: &Path, size: &str) -> Option<Self> {
        let mut mount = Command::new(tool("mount").unwrap());
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"]).arg(at);
        if run_bounded(&mut mount, LIMIT).unwrap().status.success() {
            return Some(Mounted(at.to_owned()));
        }
        println!("mounting is not allowed here: the store's own tests limit the size of files instead");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let umount = tool("umount").unwrap_or_else(|_| "umount".into());
        let _ = run_bounded(Command::new(umount).arg(&self.0), LIMIT);
    }
}
