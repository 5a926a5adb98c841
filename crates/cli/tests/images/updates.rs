//! Updates by a delta into the places where engines keep images: no other image comes out than by a full pull.

use std::fs;

use coracle_testkit::image::mutate;
use coracle_testkit::oci::{Bundle, Compression, image, index, runnable_layers};
use coracle_testkit::oracle::run_ok;
use coracle_testkit::service::Engine;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::{LIMIT, PODMAN_RUN, Site, docker, podman, program, storage_conf};

/// An image that can be run and prints its number.
fn version(number: u64) -> Bundle {
    let mut layers = runnable_layers().unwrap();
    let large = mutate(&coracle_testkit::image::binary(5, 600_000), number, 40);
    layers[1] = TarBuilder::new()
        .file("etc/.wh.removed", "")
        .file("version", format!("{number}\n"))
        .file("large", large)
        .finish();
    image("amd64", &layers, Compression::Gzip).unwrap()
}

/// A registry with two versions and a delta between them; and the digests of their configs.
fn site() -> (Site, [String; 2]) {
    let site = Site::new();
    let configs = [1, 2].map(|number| {
        let bundle = version(number);
        bundle.write_layout(&site.place.path(&format!("in/{number}")), "x").unwrap();
        site.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/{number}:x docker://{{registry}}/app:{number}"
        ));
        let manifest: Value = serde_json::from_slice(&bundle.root.1).unwrap();
        manifest["config"]["digest"].as_str().unwrap().to_owned()
    });
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:1 {registry}/app:2");
    (site, configs)
}

/// Pulls both versions to the same place, the second by the delta.
fn update(site: &Site, to: &str, configs: &[String; 2], environment: &[(&str, &str)]) {
    for (number, config) in (1..).zip(configs) {
        let line = format!("coracle pull --tls-verify=false {{registry}}/app:{number} --to {to} --json");
        let mut command = site.place.command(&site.line(&line));
        command.envs(environment.iter().copied());
        let text = String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap();
        let told: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(told["config"], config.as_str());
        assert_eq!(told["fallbacks"].as_array().unwrap().len(), 0, "{told}");
        if number == 2 {
            let from: Vec<&str> =
                told["layers"].as_array().unwrap().iter().map(|l| l["from"].as_str().unwrap()).collect();
            assert_eq!(from, ["store", "native", "store"], "{told}");
        }
        // What is there is the source of the next: nothing is kept besides.
        assert_eq!(fs::read_dir(site.place.path("store/layers")).unwrap().count(), 0, "{to}");
    }
}

#[test]
fn podman_has_the_image_of_a_full_pull() {
    let (site, configs) = site();
    let conf = storage_conf(&site.place.path("storage"));
    let podman = |args: &str| podman(&conf, args);
    let environment = [("CONTAINERS_STORAGE_CONF", conf.to_str().unwrap())];
    update(&site, "containers-storage:localhost/app:latest", &configs, &environment);
    let id = |name: &str| podman(&format!("image inspect --format {{{{.Id}}}} {name}")).trim().to_owned();
    assert_eq!(format!("sha256:{}", id("localhost/app:latest")), configs[1]);
    assert_eq!(podman(&format!("{PODMAN_RUN} localhost/app:latest")), "2\n");
    let whole = site.line("{registry}/app:2");
    podman(&format!("pull -q --tls-verify=false {whole}"));
    assert_eq!(id(&whole), id("localhost/app:latest"));
    podman("rmi -a -f");
}

#[test]
fn docker_has_the_image_of_a_full_pull() {
    let (site, configs) = site();
    let engine = Engine::dockerd(&site.place.path("docker"), &[site.registry.host()]).unwrap();
    let socket = format!("unix://{}", engine.socket().display());
    let docker = |args: &str| docker(&socket, args);
    update(&site, "docker-daemon:app:latest", &configs, &[("DOCKER_HOST", &socket)]);
    let id = |name: &str| docker(&format!("image inspect --format {{{{.Id}}}} {name}")).trim().to_owned();
    assert_eq!(id("app:latest"), configs[1]);
    assert_eq!(docker("run --rm --network=none app:latest"), "2\n");
    // The same by way of an archive.
    update(&site, "docker-archive:out/app.tar:loaded:1", &configs, &[]);
    docker(&format!("load -q -i {}", site.place.path("out/app.tar").display()));
    assert_eq!(id("loaded:1"), configs[1]);
    assert_eq!(docker("run --rm --network=none loaded:1"), "2\n");
    let whole = site.line("{registry}/app:2");
    docker(&format!("pull -q {whole}"));
    assert_eq!(id(&whole), configs[1]);
}

#[test]
fn containerd_imports_the_image_of_a_full_pull() {
    let (site, configs) = site();
    let engine = Engine::containerd(&site.place.path("containerd")).unwrap();
    let ctr = |args: &str| {
        let socket = engine.socket().display();
        program(&format!("ctr -a {socket} {args}"), &site.place.path(""))
    };
    update(&site, "oci-archive:out/app.tar:example.com/app:2", &configs, &[]);
    ctr("images import out/app.tar");
    assert!(ctr("images ls").contains("example.com/app:2"));
    assert!(ctr("content ls").contains(&configs[1]), "the config is the original one");
}

#[test]
fn all_platforms_under_one_name() {
    let site = Site::new();
    let place = &site.place;
    let plain = image("arm64", &coracle_testkit::oci::layers(), Compression::Zstd).unwrap();
    let bundle = index(&[("amd64", version(1)), ("arm64", plain)]);
    bundle.write_layout(&place.path("in/many"), "x").unwrap();
    site.json("copy --tls-verify=false oci:in/many:x docker://{registry}/many:1");
    let ran = place.ok(&site.line("pull --tls-verify=false --all-platforms {registry}/many:1 --json"));
    let told: Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
    assert_eq!((told["kind"].as_str().unwrap(), told["images"].as_array().unwrap().len()), ("pull-all", 2));
    for image in told["images"].as_array().unwrap() {
        assert_eq!(image["root"], bundle.digest(), "{image}");
    }
    let held = &place.json("store images")["images"][0];
    assert_eq!(held["images"].as_array().unwrap().len(), 2, "{held}");
    let text = place.ok(&site.line("pull --tls-verify=false --all-platforms {registry}/many:1")).text();
    assert_eq!(text.matches("is up to date").count(), 2, "{text}");
}
