//! eStargz and the zstd:chunked of stargz-snapshotter, with its own program: ctr-remote of Debian 13.

use coracle_codec::chunked::STARGZ_DIGEST;
use coracle_testkit::debian13::SITE;
use coracle_testkit::service::Engine;
use serde_json::Value;

use super::chunked::{asked, version, watched};
use super::peers::newer;
use super::site::{Site, program};

/// containerd with the images 1 and 2.
struct Images<'s> {
    site: &'s Site,
    engine: Engine,
}

impl<'s> Images<'s> {
    fn new(site: &'s Site) -> Self {
        let engine = Engine::containerd(&site.place.path("containerd")).unwrap();
        Images { site, engine }
    }

    fn ctr(&self, line: &str) -> String {
        let line = self.site.line(&format!("ctr -a {} images {line}", self.engine.socket().display()));
        program(&line, &self.site.place.path(""))
    }

    /// The newer program, which knows eStargz.
    fn remote(&self, line: &str) -> String {
        newer(self.site, &format!("ctr-remote -a {SITE}/containerd/containerd.sock images {line}"))
    }
}

fn layers(site: &Site, name: &str) -> Vec<Value> {
    let raw = site.program(&format!("skopeo inspect --raw --tls-verify=false docker://{name}"));
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    manifest["layers"].as_array().unwrap().clone()
}

/// ctr-remote finds in our layers the TOC that our annotations name, with the entries that we see.
#[test]
fn ctr_remote_reads_the_toc_of_our_layers() {
    let site = Site::new();
    let images = Images::new(&site);
    version(1).write_layout(&site.place.path("in/v1"), "image").unwrap();
    let name = site.line("{registry}/ours:1");
    site.json(&format!("convert --tls-verify=false --compression estargz oci:in/v1:image {name}"));
    images.ctr(&format!("pull --plain-http {name}"));
    for (number, layer) in layers(&site, &name).iter().enumerate() {
        let digest = layer["digest"].as_str().unwrap();
        let found = images.remote(&format!("get-toc-digest {digest}"));
        assert_eq!(layer["annotations"][STARGZ_DIGEST], found.trim(), "layer {number}");
        let toc: Value =
            serde_json::from_str(&images.remote(&format!("get-toc-digest --dump-toc {digest}"))).unwrap();
        let entries = toc["entries"].as_array().unwrap();
        assert!(entries.iter().any(|entry| entry["name"] == ".no.prefetch.landmark"), "layer {number}");
        assert!(entries.iter().all(|entry| entry["type"] != "reg"
            || entry["size"].as_u64() < Some(1)
            || entry["chunkDigest"].is_string()));
    }
    // And converts what we wrote, which it does by reading it as an image.
    images.remote(&format!("convert --estargz --oci {name} localhost/again:1"));
}

fn pulled(site: &Site, name: &str) -> Value {
    let ran = site.place.ok(&format!("pull --tls-verify=false {name} --json"));
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

/// How ctr-remote writes layers.
const WAYS: [(&str, &str); 6] = [
    ("plain", "--estargz"),
    ("cut", "--estargz --estargz-chunk-size 20000"),
    // Several contents in one gzip member.
    ("shared", "--estargz --estargz-min-chunk-size 100000"),
    // The TOC is in another image.
    ("elsewhere", "--estargz --estargz-external-toc --estargz-keep-diff-id"),
    ("first", "--estargz --estargz-record-in {record}"),
    ("zstd", "--zstdchunked"),
];

/// Whatever it writes, we pull as others do, and look into it without fetching contents.
#[test]
fn layers_of_ctr_remote_are_pulled_and_looked_into() {
    let site = Site::new();
    let images = Images::new(&site);
    for number in 1..=2 {
        let layout = site.place.path(&format!("in/v{number}"));
        version(number).write_layout(&layout, "image").unwrap();
        let name = format!("{{registry}}/plain-image:{number}");
        site.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/v{number}:image docker://{name}"
        ));
        images.ctr(&format!("pull --plain-http {name}"));
    }
    // What a run of the image has read: these files come first in their layers.
    let record =
        ["srv/7", "srv/3"].map(|path| format!("{{\"path\":\"{path}\",\"layerIndex\":1}}\n")).concat();
    site.place.put("in/record", record);
    let server = watched(&site);
    for (way, options) in WAYS {
        let options = options.replace("{record}", &format!("{SITE}/in/record"));
        for number in 1..=2 {
            let name = format!("{{registry}}/{way}:{number}");
            images.remote(&format!("convert {options} --oci {{registry}}/plain-image:{number} {name}"));
            images.ctr(&format!("push --plain-http {name}"));
        }
        let name = format!("{}/{way}", server.host());
        let landmark = if way == "first" { ".prefetch.landmark" } else { ".no.prefetch.landmark" };
        let _ = std::fs::remove_dir_all(site.place.path("store"));
        server.faults().forget();
        let told = site.json(&format!("ls --tls-verify=false --digests {name}:1"));
        let by_ranges = if way == "elsewhere" { 0 } else { 3 };
        assert_eq!(told["how"]["layers_by_ranges"], by_ranges, "{way}");
        assert_eq!(asked(&server).1, 4 - by_ranges, "{way}: the config, and layers without a TOC");
        let ran = site.place.ok(&format!("cat --quiet --tls-verify=false {name}:2 srv/3"));
        assert_eq!(ran.stdout, coracle_testkit::image::binary(3, 30_000 + 1777 * 3), "{way}");
        let hidden = !told["files"].to_string().contains(landmark);
        assert!(hidden || way == "zstd", "{way}: {}", told["files"]);
        // Pulled, it is what skopeo makes of it; the second version in parts, where that can be.
        for number in 1..=2 {
            server.faults().forget();
            let told = pulled(&site, &format!("{name}:{number}"));
            let config = site.program(&format!(
                "skopeo inspect --raw --tls-verify=false docker://{{registry}}/{way}:{number}"
            ));
            let config: Value = serde_json::from_str(&config).unwrap();
            assert_eq!(told["config"], config["config"]["digest"], "{way}");
            if number == 2 {
                // Where contents share members, and where there is no TOC, the layer comes whole.
                let parts = !["shared", "elsewhere"].contains(&way);
                let layer = &told["layers"][1];
                let expected = if parts { ("chunks", "predicted") } else { ("full", "") };
                let found = (layer["from"].as_str().unwrap(), layer["headers"].as_str().unwrap_or_default());
                assert_eq!(found, expected, "{way}: {told}");
                let ((ranged, whole), full) =
                    (asked(&server), told["plan"]["layers"][1]["full_bytes"].as_u64());
                assert_eq!(
                    whole,
                    if parts { 1 } else { 2 },
                    "{way}: the config, and what cannot be had in parts"
                );
                assert!(ranged * 5 < full.unwrap(), "{way}: {ranged} of {full:?}");
            }
        }
    }
}
