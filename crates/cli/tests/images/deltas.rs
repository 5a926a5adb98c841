//! Delta artifacts beside images that skopeo pushed: published, listed, applied, run, moved, pruned and collected.

use std::fs;
use std::process::Command;
use std::time::Duration;

use coracle_testkit::oci::{Bundle, Compression, image, runnable_layers};
use coracle_testkit::oracle::{Input, Signal, run_ok, start, tool};
use coracle_testkit::service::Engine;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::{LIMIT, PODMAN_RUN, Site, docker, podman, program, runnable, storage_conf};

/// The image that prints `7` with another number.
fn printing(number: &str) -> Bundle {
    let mut layers = runnable_layers().unwrap();
    layers[1] = TarBuilder::new().file("etc/.wh.removed", "").file("version", format!("{number}\n")).finish();
    layers[0] = TarBuilder::new()
        .dir("etc")
        .file("etc/kept", [coracle_testkit::image::text(1, 70_000), number.as_bytes().to_vec()].concat())
        .hardlink("etc/hard", "etc/kept")
        .finish();
    image("amd64", &layers, Compression::Gzip).unwrap()
}

/// Versions 1 and 2 in a registry, pushed with skopeo.
fn versions(site: &Site) -> (Bundle, Bundle) {
    let (old, new) = (runnable(), printing("8"));
    for (bundle, tag) in [(&old, "1"), (&new, "2")] {
        bundle.write_layout(&site.place.path(&format!("in/{tag}")), "image").unwrap();
        site.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/{tag}:image docker://{{registry}}/app:{tag}"
        ));
    }
    (old, new)
}

fn published(site: &Site) -> (Bundle, Bundle, Value) {
    let pair = versions(site);
    let made = site.json("delta create --tls-verify=false --push {registry}/app:1 {registry}/app:2");
    (pair.0, pair.1, made)
}

#[test]
fn published_listed_and_applied() {
    let site = Site::new();
    let (_, new, made) = published(&site);
    let deltas = made["deltas"].as_array().unwrap();
    let dialects: Vec<&str> = deltas.iter().map(|delta| delta["dialect"].as_str().unwrap()).collect();
    assert_eq!(dialects, ["oci-delta", "coracle"]);
    for delta in deltas {
        assert!(delta["bytes"].as_u64().unwrap() * 10 < delta["changed_bytes"].as_u64().unwrap(), "{delta}");
    }
    let listed = site.json("delta list --tls-verify=false {registry}/app:2");
    let found = listed["targets"][0]["deltas"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(listed["targets"][0]["digest"], new.digest());
    let shown = site.place.ok(&site.line("delta list --tls-verify=false {registry}/app:2")).text();
    assert!(shown.contains("oci-delta") && shown.contains("coracle"), "{shown}");

    // From the registry, by the artifact's digest, on an image in another place.
    let digest = deltas[0]["digest"].as_str().unwrap();
    let told = site.json(&format!(
        "delta apply --tls-verify=false {{registry}}/app@{digest} --source oci:in/1:image --to oci:out/new:x"
    ));
    assert_eq!((&told["target"], &told["digest_kept"]), (&new.digest().into(), &false.into()));
    // skopeo reads all of it, umoci unpacks it.
    site.program("skopeo copy --quiet oci:out/new:x oci:out/again:x");
    site.program("umoci unpack --rootless --image out/again:x out/bundle");
    assert_eq!(site.place.read("out/bundle/rootfs/version"), b"8\n");
    // The image's ID is the config's digest, which is the original one.
    let config = site.program("skopeo inspect --raw oci:out/new:x");
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["config"]["digest"], told["config"]);

    // By the name of the target, compressed as registries like it, and published under a name of its own.
    let told = site.json(
        "delta apply --tls-verify=false {registry}/app:2 --source {registry}/app:1 --to docker://{registry}/made:2",
    );
    let smallest = deltas.iter().map(|delta| delta["bytes"].as_u64().unwrap()).min();
    assert_eq!(told["delta_bytes"].as_u64(), smallest);
    site.program("skopeo copy --quiet --src-tls-verify=false docker://{registry}/made:2 oci:out/made:x");
    site.place.fails(
        &site.line(
            "delta apply --tls-verify=false {registry}/app:2 --source {registry}/app:2 --to oci:out/none:x",
        ),
        3,
        "no delta from",
    );
    site.place.fails(
        &site.line("delta create --tls-verify=false --push {registry}/none:1 {registry}/app:2"),
        3,
        "not found",
    );
}

/// An archive comes through a pipe, and what it makes is run by podman and by dockerd.
#[test]
fn engines_run_what_a_delta_makes() {
    let site = Site::new();
    versions(&site);
    site.json("delta create oci:in/1:image oci:in/2:image -o out/delta.oci-archive");
    let conf = storage_conf(&site.place.path("storage"));
    let podman = |args: &str| podman(&conf, args);
    let piped = site.place.fed(
        "delta apply - --source oci:in/1:image --to docker-archive:out/new.tar:localhost/new:2 --json",
        site.place.read("out/delta.oci-archive"),
    );
    assert_eq!(piped.code, Some(0), "{piped:?}");
    podman(&format!("load -q -i {}", site.place.path("out/new.tar").display()));
    assert_eq!(podman(&format!("{PODMAN_RUN} localhost/new:2")), "8\n");
    let mut command = site.place.command(
        "coracle delta apply out/delta.oci-archive --source oci:in/1:image --to containers-storage:localhost/ours:2",
    );
    run_ok(command.env("CONTAINERS_STORAGE_CONF", &conf), LIMIT).unwrap();
    assert_eq!(podman(&format!("{PODMAN_RUN} localhost/ours:2")), "8\n");
    podman("rmi -a -f");

    let engine = Engine::dockerd(&site.place.path("docker"), &[site.registry.host()]).unwrap();
    let socket = format!("unix://{}", engine.socket().display());
    let docker = |args: &str| docker(&socket, args);
    docker(&format!("load -q -i {}", site.place.path("out/new.tar").display()));
    assert_eq!(docker("run --rm --network=none localhost/new:2"), "8\n");
    let line = site.line(
        "coracle delta apply --tls-verify=false out/delta.oci-archive --source oci:in/1:image --to {registry}/app:made",
    );
    run_ok(&mut site.place.command(&line), LIMIT).unwrap();
    let pulled = site.line("{registry}/app:made");
    docker(&format!("pull -q {pulled}"));
    assert_eq!(docker(&format!("run --rm --network=none {pulled}")), "8\n");
}

/// skopeo moves artifacts between registries as any other document; there they are deltas as before.
#[test]
fn artifacts_travel() {
    let site = Site::new();
    let (_, new, made) = published(&site);
    site.program(
        "skopeo copy --quiet --src-tls-verify=false --dest-tls-verify=false docker://{registry}/app:2 docker://{registry}/mirror:2",
    );
    for delta in made["deltas"].as_array().unwrap() {
        let digest = delta["digest"].as_str().unwrap();
        let hex = digest.split(':').nth(1).unwrap();
        site.program(&format!(
            "skopeo copy --quiet --preserve-digests --src-tls-verify=false --dest-tls-verify=false \
             docker://{{registry}}/app@{digest} docker://{{registry}}/mirror:moved-{hex}"
        ));
        let told = site.json(&format!(
            "delta apply --tls-verify=false {{registry}}/mirror:moved-{hex} --source oci:in/1:image --to oci:out/{hex}:x"
        ));
        assert_eq!(told["target"], new.digest());
        // Ours lists it as well.
        site.json(&format!(
            "copy --tls-verify=false {{registry}}/app@{digest} docker://{{registry}}/mirror@{digest}"
        ));
    }
    let listed = site.json("delta list --tls-verify=false {registry}/mirror:2");
    assert_eq!(listed["targets"][0]["deltas"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_pruned_is_collected() {
    let mut site = Site::new();
    let (_, _, made) = published(&site);
    let kept = site.json("delta prune --tls-verify=false --older-than 9999w {registry}/app:2");
    assert_eq!(kept["removed"].as_array().unwrap().len(), 0);
    let told = site.json("delta prune --tls-verify=false --keep-sources 0 {registry}/app:2");
    assert_eq!(told["removed"].as_array().unwrap().len(), made["deltas"].as_array().unwrap().len());
    let listed = site.json("delta list --tls-verify=false {registry}/app:2");
    assert_eq!(listed["targets"][0]["deltas"].as_array().unwrap().len(), 0);
    site.registry.down();
    let blobs = |site: &Site| {
        let root = site.place.path("registry/data/docker/registry/v2/blobs/sha256");
        let mut all = Vec::new();
        for folder in fs::read_dir(root).unwrap() {
            all.extend(fs::read_dir(folder.unwrap().path()).unwrap().map(|blob| blob.unwrap().file_name()));
        }
        all
    };
    let before = blobs(&site).len();
    let config = site.place.path("registry/config.yml");
    site.program(&format!("docker-registry garbage-collect --delete-untagged {}", config.display()));
    let after = blobs(&site);
    assert!(after.len() < before);
    for delta in made["deltas"].as_array().unwrap() {
        let hex = delta["digest"].as_str().unwrap().split(':').nth(1).unwrap().to_owned();
        assert!(!after.iter().any(|name| *name == *hex), "{hex} is still there");
    }
    site.registry.up().unwrap();
    for tag in ["1", "2"] {
        site.program(&format!(
            "skopeo copy --quiet --src-tls-verify=false docker://{{registry}}/app:{tag} oci:out/kept:{tag}"
        ));
    }
}

/// Eight processes publish at once, with nothing between them but the registry. In every second round three of them are
/// killed on the way: whoever was told that it worked is listed all the same, and after a repair nobody is missing whose
/// marker is there.
fn race(rounds: usize) {
    const PUBLISHERS: usize = 8;
    let site = Site::new();
    let target = printing("100");
    target.write_layout(&site.place.path("in/new"), "image").unwrap();
    let mut digests: Vec<String> = Vec::new();
    for n in 0..PUBLISHERS {
        printing(&n.to_string()).write_layout(&site.place.path(&format!("in/old{n}")), "image").unwrap();
        let made = site.json(&format!(
            "delta create oci:in/old{n}:image oci:in/new:image -o in/{n}.oci-archive --effort 1"
        ));
        digests.push(made["deltas"][0]["digest"].as_str().unwrap().to_owned());
    }
    for round in 0..rounds {
        site.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/new:image docker://{{registry}}/app{round}:new"
        ));
        let running: Vec<_> = (0..PUBLISHERS)
            .map(|n| {
                let line = format!(
                    "coracle delta push --quiet --tls-verify=false in/{n}.oci-archive {{registry}}/app{round}"
                );
                start(&mut site.place.command(&site.line(&line)), Input::Nothing).unwrap()
            })
            .collect();
        let mut running = running;
        let victims = if round % 2 == 1 { 3 } else { 0 };
        for (n, victim) in running.iter_mut().take(victims).enumerate() {
            std::thread::sleep(Duration::from_millis(10 + (round as u64 * 7 + n as u64 * 13) % 60));
            if !victim.ended().unwrap() {
                victim.signal(Signal::KILL).unwrap();
            }
        }
        let mut done = Vec::new();
        for (n, one) in running.into_iter().enumerate() {
            let output = one.wait(LIMIT).unwrap();
            let killed = n < victims && output.status.code().is_none();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || killed, "round {round}: {said}");
            if output.status.success() {
                done.push(digests[n].clone());
            }
        }
        let list = |more: &str| -> Vec<String> {
            let line = format!("delta list --tls-verify=false {more} {{registry}}/app{round}:new");
            let listed = site.json(&line);
            let deltas = listed["targets"][0]["deltas"].as_array().unwrap();
            deltas.iter().map(|delta| delta["digest"].as_str().unwrap().to_owned()).collect()
        };
        let listed = list("");
        assert!(
            done.iter().all(|digest| listed.contains(digest)),
            "round {round}: {listed:?} lacks one of {done:?}"
        );
        let repaired = list("--repair");
        let tags =
            site.program(&format!("skopeo list-tags --tls-verify=false docker://{{registry}}/app{round}"));
        for digest in &digests {
            let marked = tags.contains(digest.split(':').nth(1).unwrap());
            assert_eq!(repaired.contains(digest), marked, "round {round}: {digest}");
        }
        assert!(victims > 0 || repaired.len() == PUBLISHERS);
    }
}

#[test]
fn eight_processes_publish_at_once() {
    race(5);
}

#[test]
#[ignore = "long: fifty rounds of the same"]
fn eight_processes_publish_at_once_fifty_times() {
    race(50);
}

/// The files of the source lie in a repository of ostree, as bootc has them.
#[test]
fn from_a_repository_of_ostree() {
    let site = Site::new();
    let (old, new) = versions(&site);
    site.json("delta create oci:in/1:image oci:in/2:image -o out/delta.oci-archive");
    site.program("umoci unpack --rootless --image in/1:image out/bundle");
    let manifest = String::from_utf8(old.root.1.clone()).unwrap();
    for mode in ["bare", "bare-user"] {
        let dir = site.place.path("");
        program(&format!("ostree init --repo=out/{mode} --mode={mode}"), &dir);
        let mut command = Command::new(tool("ostree").unwrap());
        command
            .args([
                "commit",
                &format!("--repo=out/{mode}"),
                "--branch=ostree/container/image/x",
                "--no-xattrs",
            ])
            .args([
                "--tree=dir=out/bundle/rootfs",
                &format!("--add-metadata-string=ostree.manifest={manifest}"),
            ])
            .current_dir(&dir);
        run_ok(&mut command, LIMIT).unwrap();
        for found in ["", "--ostree-ref ostree/container/image/x"] {
            let told = site.json(&format!(
                "delta apply out/delta.oci-archive --ostree-repo out/{mode} {found} --partial --to oci:out/{mode}-new:x"
            ));
            assert_eq!(told["target"], new.digest(), "{mode}");
            let made = told["layers"].as_array().unwrap().iter().filter(|layer| layer["how"] == "tar-diff-1");
            assert_eq!(made.count(), 2, "{told}");
        }
        let message = site.place.fails(
            &format!("delta apply out/delta.oci-archive --ostree-repo out/{mode} --ostree-ref none --partial --to oci:out/no:x"),
            4,
            "there is no ref none",
        );
        assert!(message.contains("out/"), "{message}");
    }
}

/// What goes to standard output is the archive and nothing else.
#[test]
fn archives_through_pipes() {
    let site = Site::new();
    versions(&site);
    let made = site.place.ok("delta create oci:in/1:image oci:in/2:image -o -");
    assert!(made.stderr.contains("deltas to"), "{}", made.stderr);
    let applied = site.place.fed("delta apply - --source oci:in/1:image --to -", made.stdout);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    fs::write(site.place.path("out/new.oci-archive"), &applied.stdout).unwrap();
    site.program("skopeo copy --quiet oci-archive:out/new.oci-archive oci:out/new:x");
    let copied = site.place.ok("copy oci:out/new:x oci-archive:-");
    assert_eq!(copied.stdout.len() % 512, 0);
}

/// `inspect` knows artifacts, `explain` says what each file costs, by both forms of delta.
#[test]
fn shown_and_explained() {
    let site = Site::new();
    let (_, new, made) = published(&site);
    for delta in made["deltas"].as_array().unwrap() {
        let name = format!("docker://{{registry}}/app@{}", delta["digest"].as_str().unwrap());
        let shown = site.json(&format!("inspect --tls-verify=false {name}"));
        assert_eq!(
            (&shown["delta"]["dialect"], &shown["delta"]["target"], &shown["delta"]["bytes"]),
            (&delta["dialect"], &new.digest().into(), &delta["bytes"])
        );
        let text = site.place.ok(&site.line(&format!("inspect --tls-verify=false {name}"))).text();
        assert!(text.contains("makes layer") && text.contains(&new.digest()), "{text}");
        let told = site.json(&format!("explain --tls-verify=false oci:in/1:image oci:in/2:image {name}"));
        let sum = |part: &str, key: &str| -> u64 {
            told[part].as_array().unwrap().iter().map(|row| row[key].as_u64().unwrap()).sum()
        };
        assert_eq!(told["bytes"], delta["bytes"]);
        assert_eq!(sum("layers", "bytes"), told["bytes"].as_u64().unwrap());
        let whole: u64 = told["layers"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|layer| layer["content"] == "layer")
            .map(|layer| layer["bytes"].as_u64().unwrap())
            .sum();
        assert_eq!(sum("members", "delta_bytes") + whole, told["bytes"].as_u64().unwrap());
        let paths: Vec<&str> =
            told["members"].as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap()).collect();
        assert!(paths.contains(&"version") || whole > 0, "{paths:?}");
    }
    let text = site
        .place
        .ok(&site.line("explain --tls-verify=false docker://{registry}/app:1 docker://{registry}/app:2 docker://{registry}/app:2"))
        .text();
    assert!(text.contains("same in both") && text.contains("etc/kept"), "{text}");
}
