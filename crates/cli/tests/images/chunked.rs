//! Chunked images, with the programs that read and write them.

use std::fs;
use std::path::Path;
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
pub fn version(number: u64) -> Bundle {
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
pub fn published(site: &Site, options: &str) {
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

/// Lets podman pull in parts.
pub fn allow_parts(conf: &Path) {
    let text = fs::read_to_string(conf).unwrap();
    let options = "[storage.options]\npull_options = {enable_partial_images = \"true\", use_hard_links = \"false\", ostree_repos = \"\"}\n";
    fs::write(conf, text + options).unwrap();
}

/// Has podman pull version 1, then 2, and run them; gives the names of the images. Nothing but the config may come whole.
pub fn pulled_in_parts(server: &Server, podman: impl Fn(&str) -> String, run: &str) -> [String; 2] {
    let mut bytes = Vec::new();
    let names = [1, 2].map(|number| {
        server.faults().forget();
        let name = format!("{}/app:{number}", server.host());
        podman(&format!("pull -q --tls-verify=false {name}"));
        assert_eq!(podman(&format!("{run} {name}")), format!("{number}\n"));
        let (ranged, whole) = asked(server);
        assert_eq!(whole, 1, "version {number}");
        for (request, status, _) in server.faults().answers() {
            assert!(request.header("range").is_none() || status == 206, "{request:?}: {status}");
        }
        bytes.push(ranged);
        name
    });
    assert!(bytes[1] * 4 < bytes[0], "{bytes:?}");
    names
}

/// podman 4.3 of Debian 12 pulls in parts what we wrote for it, and runs it.
#[test]
fn podman_before_2024_pulls_our_layers_in_parts() {
    let site = Site::new();
    published(&site, "--compression zstd:chunked --compat podman4");
    let conf = storage_conf(&site.place.path("storage"));
    allow_parts(&conf);
    let server = watched(&site);
    pulled_in_parts(&server, |line| podman(&conf, line), PODMAN_RUN);
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
    we_pull_in_parts(&site, "");
}

/// Pulls version 1, then 2: of the second layer of that a small part alone, and the image is the one that was built.
pub fn we_pull_in_parts(site: &Site, suffix: &str) {
    let server = watched(site);
    let pull = |number: u64| {
        server.faults().forget();
        let line = format!("pull --tls-verify=false {}/app:{number}{suffix} --json", server.host());
        let ran = site.place.ok(&line);
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
    let parts =
        server.faults().answers().into_iter().filter(|(request, ..)| request.header("range").is_some());
    let sent: Vec<(u16, u64)> = parts.map(|(_, status, bytes)| (status, bytes)).collect();
    assert!(sent.iter().all(|(status, _)| *status == 206), "{sent:?}");
    // Several ranges in one answer have heads.
    let sent: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
    assert!((bytes..bytes + 4000).contains(&sent), "{sent} for {bytes}");
    // The image is the one that a full pull gives: the program compares each layer with its config.
    site.program(&format!(
        "skopeo copy --quiet --src-tls-verify=false docker://{}/app:2{suffix} oci:out/full{suffix}:x",
        site.registry.host()
    ));
    let config = told["config"].as_str().unwrap().replace(':', "/");
    let kept = version(2).blobs.iter().any(|blob| crate::place::digest(blob) == told["config"]);
    assert!(kept && site.place.path(&format!("out/full{suffix}/blobs/{config}")).is_file(), "{told}");
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

/// Layers of an image in a registry that the store has are read from there; of one that is damaged there, its TOC is asked
/// for as before.
#[test]
fn layers_in_the_store_are_looked_into_there() {
    let site = Site::new();
    let repositories = ["zstd-chunked", "estargz"];
    for number in 1..=2 {
        release(number).write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        for repository in repositories {
            let compression = repository.replace("zstd-", "zstd:");
            site.json(&format!(
                "convert --tls-verify=false --compression {compression} oci:in/v{number}:image {{registry}}/{repository}:{number}"
            ));
        }
    }
    let server = watched(&site);
    let look = |line: &str| {
        server.faults().forget();
        site.json(line)
    };
    let layers = |name: &str| -> Vec<String> {
        let told = site.json(&format!("inspect --tls-verify=false {name}"));
        told["layers"].as_array().unwrap().iter().map(|l| l["digest"].as_str().unwrap().to_owned()).collect()
    };
    let mut before = Vec::new();
    for repository in repositories {
        let (old, new) =
            (format!("{}/{repository}:1", server.host()), format!("{}/{repository}:2", server.host()));
        let from_toc = look(&format!("ls --tls-verify=false {old}"));
        assert_eq!(from_toc["how"]["layers_from_store"], 0);
        let changes = look(&format!("compare --tls-verify=false {old} {new}"));
        site.place.ok(&format!("pull --tls-verify=false {old}"));

        let told = look(&format!("ls --tls-verify=false {old}"));
        // The config, and nothing of any layer.
        assert_eq!(asked(&server), (0, 1), "{repository}");
        assert_eq!(
            (&told["how"]["layers_from_store"], &told["how"]["layers_by_ranges"]),
            (&2.into(), &0.into())
        );
        assert_eq!(told["files"], from_toc["files"], "{repository}");
        server.faults().forget();
        let ran = site.place.ok(&format!("cat --tls-verify=false {old} /bin/tool"));
        assert_eq!(crate::place::digest(&ran.stdout), crate::place::digest(&binary(1, 200_000)));
        assert!(ran.stderr.contains("2 in the store, 0 read by ranges"), "{ran:?}");
        assert_eq!(asked(&server), (0, 1), "{repository}");

        let told = look(&format!("compare --tls-verify=false {old} {new}"));
        assert_eq!(
            (&told["how"]["layers_from_store"], &told["how"]["layers_by_ranges"]),
            (&2.into(), &2.into())
        );
        for what in ["added", "removed", "changed", "packages"] {
            assert_eq!(told[what], changes[what], "{repository}: {what}");
        }
        let digests = layers(&old);
        assert_eq!(digests.len(), 2);
        for request in server.faults().requests() {
            assert!(!digests.iter().any(|digest| request.path.contains(digest)), "{request:?}");
        }
        before.push((old, from_toc));
    }

    // One byte of a file of the first layer.
    let tool = crate::place::digest(&binary(1, 200_000));
    let object = site.place.path(&format!("store/objects/{}/{}", &tool[7..9], &tool[9..]));
    let mut bytes = fs::read(&object).unwrap();
    bytes[77] ^= 1;
    fs::write(&object, bytes).unwrap();
    for (name, from_toc) in before {
        let told = look(&format!("ls --tls-verify=false {name}"));
        assert_eq!(
            (&told["how"]["layers_from_store"], &told["how"]["layers_by_ranges"]),
            (&1.into(), &1.into())
        );
        assert_eq!(told["files"], from_toc["files"]);
        let ran = site.place.ok(&format!("cat --quiet --tls-verify=false {name} usr/bin/tool"));
        assert_eq!(crate::place::digest(&ran.stdout), tool);
    }
}
