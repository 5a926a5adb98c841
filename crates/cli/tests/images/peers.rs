//! Chunked images, with the newest programs that Debian has: podman 5.4 and skopeo 1.18 of Debian 13.

use std::ops::Range;

use coracle_codec::chunked::{Limits, Place, Toc};
use coracle_codec::oci::Descriptor;
use coracle_testkit::debian13::{Debian13, SITE};
use coracle_testkit::http::Server;
use coracle_testkit::oracle::run_ok;
use serde_json::Value;

use super::chunked::{allow_parts, published, pulled_in_parts, version, watched, we_pull_in_parts};
use super::site::{LIMIT, PODMAN_RUN, Site, podman, storage_conf_seen_at};

/// As [`PODMAN_RUN`], with crun.
const RUN: &str = "run --rm --network=none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// Runs a program of Debian 13, which must succeed; gives what it printed.
pub fn newer(site: &Site, line: &str) -> String {
    newer_with(site, line, &[])
}

fn newer_with(site: &Site, line: &str, variables: &[(&str, &str)]) -> String {
    let line = site.line(line);
    let (program, arguments) = line.split_once(' ').unwrap();
    let mut command = Debian13::new().unwrap().command(program, &site.place.path("")).unwrap();
    command.args(arguments.split(' ')).envs(variables.iter().copied());
    String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap()
}

/// podman 5.4 with a storage of its own.
struct Podman<'s> {
    site: &'s Site,
    conf: String,
}

impl<'s> Podman<'s> {
    fn new(site: &'s Site, name: &str, parts: bool) -> Self {
        let conf = storage_conf_seen_at(&site.place.path(name), &format!("{SITE}/{name}"));
        if parts {
            allow_parts(&conf);
        }
        Podman { site, conf: format!("{SITE}/{name}/storage.conf") }
    }

    fn run(&self, line: &str) -> String {
        newer_with(self.site, &format!("podman {line}"), &[("CONTAINERS_STORAGE_CONF", &self.conf)])
    }

    /// ID and diff_ids of an image.
    fn identity(&self, name: &str) -> (String, Vec<String>) {
        let told: Value = serde_json::from_str(&self.run(&format!("image inspect {name}"))).unwrap();
        let layers = told[0]["RootFS"]["Layers"].as_array().unwrap().iter();
        let layers = layers.map(|layer| layer.as_str().unwrap().to_owned()).collect();
        (format!("sha256:{}", told[0]["Id"].as_str().unwrap()), layers)
    }
}

/// Config and diff_ids as they were built.
fn built(number: u64) -> (String, Vec<String>) {
    let bundle = version(number);
    let manifest: Value = serde_json::from_slice(&bundle.root.1).unwrap();
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let config = bundle.blobs.iter().find(|blob| crate::place::digest(blob) == id).unwrap();
    let config: Value = serde_json::from_slice(config).unwrap();
    let diff_ids = config["rootfs"]["diff_ids"].as_array().unwrap().iter();
    (id, diff_ids.map(|id| id.as_str().unwrap().to_owned()).collect())
}

/// The layer of an image in the registry, and its TOC.
fn toc(site: &Site, tag: &str, layer: usize) -> (Descriptor, Toc) {
    let dir = format!("out/toc-{tag}");
    site.program(&format!(
        "skopeo copy --quiet --src-tls-verify=false docker://{{registry}}/app:{tag} dir:{dir}"
    ));
    let manifest: Value = serde_json::from_slice(&site.place.read(&format!("{dir}/manifest.json"))).unwrap();
    let layer = Descriptor::parse(&manifest["layers"][layer], &Default::default()).unwrap();
    let blob = site.place.read(&format!("{dir}/{}", layer.digest.to_string().trim_start_matches("sha256:")));
    let place = Place::of(&layer, &Limits::default()).unwrap().unwrap();
    let range = place.toc.unwrap().range();
    let toc = Toc::read(&blob[range.start as usize..range.end as usize], &place, &Limits::default()).unwrap();
    (layer, toc)
}

/// What was asked for of a blob by ranges, the first answer, the documents, left out.
fn ranges(server: &Server, layer: &Descriptor) -> Vec<Range<u64>> {
    let requests = server.faults().requests();
    let of = requests.iter().filter(|request| request.path.ends_with(&layer.digest.to_string()));
    let lists = of.map(|request| request.header("range").unwrap().strip_prefix("bytes=").unwrap().to_owned());
    let one = |range: &str| {
        let (start, last) = range.split_once('-').unwrap();
        start.parse::<u64>().unwrap()..last.parse::<u64>().unwrap() + 1
    };
    lists.skip(1).flat_map(|list| list.split(',').map(one).collect::<Vec<_>>()).collect()
}

/// What podman asked for is what version 1 has not, and next to nothing else.
fn only_what_is_missing(site: &Site, server: &Server) {
    let (_, old) = toc(site, "1", 1);
    let (layer, new) = toc(site, "2", 1);
    let chunks = |toc: &Toc| toc.entries.iter().flat_map(|entry| entry.chunks.clone()).collect::<Vec<_>>();
    let here: Vec<_> = chunks(&old).iter().map(|chunk| chunk.digest).collect();
    let missing: Vec<_> =
        chunks(&new).into_iter().filter(|chunk| !chunk.zeros && !here.contains(&chunk.digest)).collect();
    assert!(missing.len() >= 4, "{missing:?}");
    let fetched = ranges(server, &layer);
    for chunk in &missing {
        let inside = |range: &Range<u64>| range.start <= chunk.stored.start && chunk.stored.end <= range.end;
        assert!(fetched.iter().any(inside), "{chunk:?} in {fetched:?}");
    }
    let wanted: u64 = missing.iter().map(|chunk| chunk.stored.end - chunk.stored.start).sum();
    let bytes: u64 = fetched.iter().map(|range| range.end - range.start).sum();
    // It takes each content up to the next one, and gaps of up to 1024 bytes.
    assert!(bytes <= wanted + 1500 * missing.len() as u64, "{bytes} for {wanted}");
}

/// The same image whether it was pulled in parts or whole.
fn podman_5_4(site: &Site) {
    let server = watched(site);
    let parts = Podman::new(site, "parts", true);
    let names = pulled_in_parts(&server, |line| parts.run(line), RUN);
    only_what_is_missing(site, &server);
    let whole = Podman::new(site, "whole", false);
    server.faults().forget();
    whole.run(&format!("pull -q --tls-verify=false {}", names[1]));
    assert!(server.faults().requests().iter().all(|request| request.header("range").is_none()));
    assert_eq!(parts.identity(&names[1]), built(2));
    assert_eq!(whole.identity(&names[1]), built(2));
    assert_eq!(parts.identity(&names[0]), built(1));
}

#[test]
fn podman_5_4_pulls_our_layers_in_parts() {
    let site = Site::new();
    published(&site, "--compression zstd:chunked");
    podman_5_4(&site);
}

/// One blob for the podman of Debian 12 and that of Debian 13.
#[test]
fn both_podmans_pull_one_blob_in_parts() {
    let site = Site::new();
    published(&site, "--compression zstd:chunked --compat podman4");
    podman_5_4(&site);
    let conf = super::site::storage_conf(&site.place.path("storage"));
    allow_parts(&conf);
    pulled_in_parts(&watched(&site), |line| podman(&conf, line), PODMAN_RUN);
    podman(&conf, "rmi -a -f");
}

/// We pull in parts what skopeo 1.18 wrote.
#[test]
fn layers_of_skopeo_1_18_come_in_parts() {
    let site = Site::new();
    for number in 1..=2 {
        version(number).write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        newer(
            &site,
            &format!(
                "skopeo copy --quiet --dest-tls-verify=false --dest-compress-format zstd:chunked \
                 oci:{SITE}/in/v{number}:image docker://{{registry}}/app:{number}"
            ),
        );
    }
    let (layer, read) = toc(&site, "2", 1);
    assert!(read.split.is_some() && layer.annotations.keys().any(|name| name.ends_with("tarsplit-position")));
    we_pull_in_parts(&site, "");
}

/// All that we convert is read by programs that know more than those of Debian 12, and run.
#[test]
fn podman_5_4_and_skopeo_1_18_read_what_we_convert() {
    let site = Site::new();
    version(1).write_layout(&site.place.path("in/v1"), "image").unwrap();
    let podman = Podman::new(&site, "storage", true);
    for compression in ["gzip", "zstd", "zstd:chunked", "estargz"] {
        let tag = compression.replace(':', "-");
        let told = site.json(&format!(
            "convert --tls-verify=false --compression {compression} oci:in/v1:image {{registry}}/{tag}:1"
        ));
        let name = site.line(&format!("{{registry}}/{tag}:1"));
        // Copying compares every blob.
        newer(
            &site,
            &format!("skopeo copy --quiet --src-tls-verify=false docker://{name} oci:{SITE}/out/{tag}:x"),
        );
        assert_eq!(site.digest_by_skopeo(&format!("oci:out/{tag}:x")), told["digest"].as_str().unwrap());
        podman.run(&format!("pull -q --tls-verify=false {name}"));
        assert_eq!(podman.run(&format!("{RUN} {name}")), "1\n", "{compression}");
        // The image as it was built, but for eStargz, whose TOC is a file in the layers.
        let kept = podman.identity(&name) == built(1);
        assert_eq!(
            (kept, told["config_kept"].as_bool()),
            (compression != "estargz", Some(kept)),
            "{compression}"
        );
        podman.run("rmi -a -f");
    }
}
