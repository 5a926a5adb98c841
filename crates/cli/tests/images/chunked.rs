//! Chunked images, with the programs that read and write them.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use coracle_testkit::forward::Forward;
use coracle_testkit::http::{Request, Server};
use coracle_testkit::image::{binary, mutate};
use coracle_testkit::oci::{Bundle, Compression, image, runnable_layers};
use coracle_testkit::oracle::{run_ok, tool};
use coracle_testkit::service::Engine;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::{LIMIT, PODMAN_RUN, Site, docker, podman, program, storage_conf};

/// A program that runs, and files of which a few differ between versions.
fn version(number: u64) -> Bundle {
    let mut layers = runnable_layers().unwrap();
    let mut files = TarBuilder::new();
    files.file("etc/.wh.removed", "").file("version", format!("{number}\n")).dir("srv");
    for name in 0..30 {
        let content = binary(name, 30_000 + 1777 * name as usize);
        let changed = name % 10 == 0;
        files.file(format!("srv/{name}"), if changed { mutate(&content, number, 4) } else { content });
    }
    files.file("srv/zeros", vec![0; 300_000]);
    layers[1] = files.finish();
    image("amd64", &layers, Compression::Gzip).unwrap()
}

/// Versions 1 and 2 in the registry, converted with these options.
fn published(site: &Site, options: &str) {
    for number in 1..=2 {
        version(number).write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        let told = site.json(&format!(
            "convert --tls-verify=false {options} oci:in/v{number}:image {{registry}}/app:{number}"
        ));
        assert_eq!(told["kind"], "convert");
    }
}

/// The registry, and what was asked of it.
pub fn watched(site: &Site) -> Server {
    Server::start(Arc::new(Forward::new(&site.registry.host()))).unwrap()
}

/// Bytes of the ranges of blobs that were asked for, and requests for whole blobs.
pub fn asked(server: &Server) -> (u64, usize) {
    let requests = server.faults().requests();
    let blobs = requests.iter().filter(|r| r.method == "GET" && r.path.contains("/blobs/"));
    let (ranged, whole): (Vec<&Request>, Vec<&Request>) = blobs.partition(|r| r.header("range").is_some());
    let bytes = |request: &Request| -> u64 {
        let ranges = request.header("range").unwrap().strip_prefix("bytes=").unwrap();
        let one = |range: &str| {
            let (start, last) = range.split_once('-').unwrap();
            last.parse::<u64>().unwrap() + 1 - start.parse::<u64>().unwrap()
        };
        ranges.split(',').map(one).sum()
    };
    (ranged.into_iter().map(bytes).sum(), whole.len())
}

/// podman 4.3 of Debian 12 pulls in parts what we wrote for it, and runs it.
#[test]
fn podman_before_2024_pulls_our_layers_in_parts() {
    let site = Site::new();
    published(&site, "--compression zstd:chunked --compat podman4");
    let conf = storage_conf(&site.place.path("storage"));
    let text = fs::read_to_string(&conf).unwrap();
    let options = "[storage.options]\npull_options = {enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}\n";
    fs::write(&conf, text + options).unwrap();
    let server = watched(&site);
    let mut bytes = Vec::new();
    for number in 1..=2 {
        server.faults().forget();
        let name = format!("{}/app:{number}", server.host());
        podman(&conf, &format!("pull -q --tls-verify=false {name}"));
        assert_eq!(podman(&conf, &format!("{PODMAN_RUN} {name}")), format!("{number}\n"));
        let (ranged, whole) = asked(&server);
        // The config alone.
        assert_eq!(whole, 1, "version {number}");
        bytes.push(ranged);
    }
    assert!(bytes[1] * 4 < bytes[0], "{bytes:?}");
    podman(&conf, "rmi -a -f");
}

/// We pull in parts what skopeo of this machine wrote, whichever family that is.
#[test]
fn layers_of_skopeo_come_in_parts() {
    let site = Site::new();
    for number in 1..=2 {
        version(number).write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        // Without what skopeo remembers of other runs: it would reuse a blob as it is.
        let line = format!(
            "mkdir -p /var/lib/containers/cache && mount -t tmpfs none /var/lib/containers/cache && \
             exec skopeo copy --quiet --dest-tls-verify=false --dest-compress-format zstd:chunked \
             oci:in/v{number}:image docker://{}/app:{number}",
            site.registry.host()
        );
        let mut command = Command::new(tool("unshare").unwrap());
        command.args(["-m", "--propagation", "private", "sh", "-ec", &line]).current_dir(site.place.path(""));
        run_ok(&mut command, LIMIT).unwrap();
    }
    let server = watched(&site);
    let pull = |number: u64| {
        server.faults().forget();
        let ran = site.place.ok(&format!("pull --tls-verify=false {}/app:{number} --json", server.host()));
        serde_json::from_str::<Value>(ran.text().lines().last().unwrap()).unwrap()
    };
    pull(1);
    let whole = asked(&server);
    let told = pull(2);
    let from: Vec<&str> =
        told["layers"].as_array().unwrap().iter().map(|l| l["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["store", "chunks", "store"], "{told}");
    let (bytes, others) = asked(&server);
    assert_eq!((whole.0, others), (0, 1), "the config is fetched whole");
    let full = told["plan"]["layers"][1]["full_bytes"].as_u64().unwrap();
    assert!(bytes * 3 < full, "{bytes} of {full}");
    // The image is the one that a full pull gives.
    site.program(&format!(
        "skopeo copy --quiet --src-tls-verify=false docker://{}/app:2 oci:out/full:x",
        site.registry.host()
    ));
    let config = version(2).blobs.iter().map(|blob| crate::place::digest(blob)).any(|d| told["config"] == d);
    assert!(config, "the config of the image as it was built");
}

/// Whoever knows nothing of chunks reads our layers as plain zstd or gzip.
#[test]
fn others_read_what_we_convert() {
    let site = Site::new();
    version(1).write_layout(&site.place.path("in/v1"), "image").unwrap();
    let containerd = Engine::containerd(&site.place.path("containerd")).unwrap();
    let dockerd = Engine::dockerd(&site.place.path("docker"), &[site.registry.host()]).unwrap();
    let socket = format!("unix://{}", dockerd.socket().display());
    let conf = storage_conf(&site.place.path("storage"));
    for (compression, by_docker) in
        [("gzip", true), ("zstd", false), ("zstd:chunked", false), ("estargz", true)]
    {
        let tag = compression.replace(':', "-");
        let told = site.json(&format!(
            "convert --tls-verify=false --compression {compression} oci:in/v1:image {{registry}}/{tag}:1"
        ));
        assert_eq!(told["config_kept"], compression != "estargz");
        let name = site.line(&format!("{{registry}}/{tag}:1"));
        // Copying compares every blob.
        site.program(&format!("skopeo copy --quiet --src-tls-verify=false docker://{name} oci:out/{tag}:x"));
        podman(&conf, &format!("pull -q --tls-verify=false {name}"));
        assert_eq!(podman(&conf, &format!("{PODMAN_RUN} {name}")), "1\n", "{compression}");
        podman(&conf, "rmi -a -f");
        let line = format!("ctr -a {} images pull --plain-http {name}", containerd.socket().display());
        program(&line, &site.place.path(""));
        if by_docker {
            docker(&socket, &format!("pull -q {name}"));
            assert_eq!(docker(&socket, &format!("run --rm --network=none {name}")), "1\n");
            docker(&socket, &format!("rmi -f {name}"));
        }
    }
    let refused = site.place.fails(
        "convert oci:in/v1:image oci:out/x:x --compression gzip --level 12",
        2,
        "from 1 to 9",
    );
    assert!(refused.contains("--level"), "{refused}");
    site.place.fails(
        "convert oci:in/v1:image oci:out/x:x --compression zstd --compat podman4",
        2,
        "zstd:chunked only",
    );
}

/// An image with files to look at, and the next version of it.
fn release(number: u64) -> Bundle {
    let status = format!(
        "Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: {number}.0\n\n\
         Package: same\nStatus: install ok installed\nArchitecture: all\nVersion: 7\n"
    );
    let mut base = TarBuilder::new();
    base.dir("usr").dir("usr/bin").file_mode("usr/bin/tool", 0o4755, binary(number, 200_000));
    base.symlink("bin", "usr/bin")
        .file("etc/gone", "gone\n")
        .dir("var/lib/dpkg")
        .file("var/lib/dpkg/status", status);
    base.file("usr/large", binary(8, 3_000_000));
    let mut upper = TarBuilder::new();
    upper.file("etc/.wh.gone", "").hardlink("etc/hard", "etc/hosts");
    upper.file("etc/hosts", "localhost\n");
    if number == 2 {
        upper.file("etc/new", "new\n").owner(5, 6).file("etc/owned", "x");
    } else {
        upper.file("etc/owned", "x").file("etc/old", "old\n");
    }
    image("amd64", &[base.finish(), upper.finish()], Compression::Gzip).unwrap()
}

#[test]
fn images_are_looked_into_without_being_fetched() {
    let site = Site::new();
    for number in 1..=2 {
        release(number).write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        for compression in ["zstd:chunked", "estargz", "gzip"] {
            let repository = compression.replace(':', "-");
            site.json(&format!(
                "convert --tls-verify=false --compression {compression} oci:in/v{number}:image {{registry}}/{repository}:{number}"
            ));
        }
    }
    let server = watched(&site);
    let mut lists = Vec::new();
    for repository in ["zstd-chunked", "estargz", "gzip"] {
        let name = format!("{}/{repository}:1", server.host());
        server.faults().forget();
        let told = site.json(&format!("ls --tls-verify=false --digests {name}"));
        let (ranged, whole) = asked(&server);
        let chunked = repository != "gzip";
        assert_eq!(told["how"]["layers_by_ranges"], if chunked { 2 } else { 0 }, "{repository}");
        // The config, and the layers of which nothing else is known.
        assert_eq!(whole, if chunked { 1 } else { 3 }, "{repository}");
        assert!(ranged < 20_000, "{repository}: {ranged}");
        lists.push(told["files"].clone());
        // One file, through a link; of the large one next to it nothing.
        server.faults().forget();
        let ran = site.place.ok(&format!("cat --quiet --tls-verify=false {name} /bin/tool"));
        assert_eq!(crate::place::digest(&ran.stdout), crate::place::digest(&binary(1, 200_000)));
        assert!(!chunked || asked(&server).0 < 300_000, "{repository}: {:?}", asked(&server));
        let told = site.json(&format!(
            "compare --tls-verify=false {name} {}",
            name.replace(":1", ":2").replace(&format!("{repository}:1"), &format!("{repository}:2"))
        ));
        let paths = |what: &str| -> Vec<String> {
            let all = told[what].as_array().unwrap().iter();
            let member = |file: &Value| if what == "changed" { file["new"].clone() } else { file.clone() };
            all.map(|file| member(file)["path"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(paths("added"), ["etc/new"], "{repository}");
        assert_eq!(paths("removed"), ["etc/old"]);
        assert_eq!(paths("changed"), ["etc/owned", "usr/bin/tool", "var/lib/dpkg/status"]);
        let content: Vec<bool> =
            told["changed"].as_array().unwrap().iter().map(|c| c["content"].as_bool().unwrap()).collect();
        assert_eq!(content, [false, true, true]);
        let packages =
            serde_json::json!([{ "manager": "dpkg", "name": "tool:amd64", "old": "1.0", "new": "2.0" }]);
        assert_eq!(told["packages"], packages);
    }
    // The same files, however they were read.
    assert_eq!(lists[0], lists[2]);
    assert_eq!(lists[1], lists[2]);
    let ran = site.place.ok(&site.line("ls --quiet --long --tls-verify=false {registry}/gzip:1 usr/bin"));
    assert!(ran.text().contains("-rwsr-xr-x      0      0       200000"), "{}", ran.text());
    site.place.fails(&site.line("cat --tls-verify=false {registry}/gzip:1 etc/gone"), 3, "no file");
}
