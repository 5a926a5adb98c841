//! Container engines run what we have copied.

use coracle_testkit::oci::{Compression, image, index, layers};
use coracle_testkit::oracle::run_ok;
use coracle_testkit::service::Engine;

use super::site::{LIMIT, PODMAN_RUN, Site, docker, podman, program, runnable, storage_conf};

/// Pushed by skopeo, copied by us through all of these, and still what skopeo pushed.
#[test]
fn skopeo_finds_what_it_pushed() {
    let site = Site::new();
    let digest = site.push_with_skopeo("a/b:v1");
    let chain = [
        "docker://{registry}/a/b:v1",
        "oci:out/layout:v1",
        "oci-archive:out/oci.tar:v1",
        "dir:out/dir",
        "docker://{registry}/c/d:v1",
    ];
    for pair in chain.windows(2) {
        let told = site.json(&format!("copy --tls-verify=false {} {}", pair[0], pair[1]));
        assert_eq!(
            (&told["digest"], &told["digest_kept"]),
            (&digest.as_str().into(), &true.into()),
            "{pair:?}"
        );
        assert_eq!(site.digest_by_skopeo(pair[1]), digest, "{}", pair[1]);
    }
    // And reads all of it: copying compares every blob.
    for (i, name) in chain.iter().enumerate() {
        site.program(&format!("skopeo copy --quiet --src-tls-verify=false {name} oci:out/skopeo{i}:x"));
    }
    let told = site.json("copy oci:out/layout:v1 docker-archive:out/docker.tar:x:y");
    assert_eq!(told["digest_kept"], false);
    assert!(told["notes"][0].as_str().unwrap().contains("not kept"), "{told}");
    site.program("skopeo copy --quiet docker-archive:out/docker.tar:x:y dir:out/from-docker");
}

#[test]
fn umoci_unpacks() {
    let site = Site::new();
    site.push_with_skopeo("x:v1");
    site.json("copy --tls-verify=false docker://{registry}/x:v1 oci:out/layout:v1");
    site.program("umoci unpack --rootless --image out/layout:v1 out/bundle");
    let version = std::fs::read_to_string(site.place.path("out/bundle/rootfs/version")).unwrap();
    assert_eq!(version, "7\n");
    assert!(!site.place.path("out/bundle/rootfs/etc/removed").exists());
    assert!(site.place.path("out/bundle/rootfs/bin/busybox").is_file());
}

/// podman runs what lies in its storage and what it pulls from where we pushed to.
#[test]
fn podman_runs() {
    let site = Site::new();
    site.push_with_skopeo("x:v1");
    let conf = storage_conf(&site.place.path("storage"));
    let podman = |args: &str| podman(&conf, args);
    let source = site.line("docker://{registry}/x:v1");
    let line = format!("coracle copy --tls-verify=false {source} containers-storage:localhost/ours:1");
    let mut command = site.place.command(&line);
    run_ok(command.env("CONTAINERS_STORAGE_CONF", &conf), LIMIT).unwrap();
    assert_eq!(podman(&format!("{PODMAN_RUN} localhost/ours:1")), "7\n");
    // Out of the storage again, and by way of the registry.
    let line =
        site.line("coracle copy --tls-verify=false containers-storage:localhost/ours:1 {registry}/y:v1");
    let mut command = site.place.command(&line);
    run_ok(command.env("CONTAINERS_STORAGE_CONF", &conf), LIMIT).unwrap();
    let pulled = site.line("{registry}/y:v1");
    podman(&format!("pull -q --tls-verify=false {pulled}"));
    assert_eq!(podman(&format!("{PODMAN_RUN} {pulled}")), "7\n");
    // And an archive as docker save writes it.
    site.json("copy --tls-verify=false {registry}/y:v1 docker-archive:out/a.tar:localhost/loaded:1");
    podman(&format!("load -q -i {}", site.place.path("out/a.tar").display()));
    assert_eq!(podman(&format!("{PODMAN_RUN} localhost/loaded:1")), "7\n");
    podman("rmi -a -f");
}

/// dockerd runs what it is given over its socket, what it loads, and what it pulls.
#[test]
fn docker_runs() {
    let site = Site::new();
    site.push_with_skopeo("x:v1");
    let engine = Engine::dockerd(&site.place.path("docker"), &[site.registry.host()]).unwrap();
    let socket = format!("unix://{}", engine.socket().display());
    let docker = |args: &str| docker(&socket, args);
    let ours = |line: &str| {
        let mut command = site.place.command(&format!("coracle {}", site.line(line)));
        run_ok(command.env("DOCKER_HOST", &socket), LIMIT).unwrap();
    };
    ours("copy --tls-verify=false {registry}/x:v1 docker-daemon:ours:1");
    assert_eq!(docker("run --rm --network=none ours:1"), "7\n");
    ours("copy --tls-verify=false docker-daemon:ours:1 {registry}/y:v1");
    let pulled = site.line("{registry}/y:v1");
    docker(&format!("pull -q {pulled}"));
    assert_eq!(docker(&format!("run --rm --network=none {pulled}")), "7\n");
    ours("copy docker-daemon:ours:1 docker-archive:out/a.tar:loaded:1");
    docker(&format!("load -q -i {}", site.place.path("out/a.tar").display()));
    assert_eq!(docker("run --rm --network=none loaded:1"), "7\n");
    // What docker saves, we read.
    docker(&format!("save -o {} ours:1", site.place.path("out/saved.tar").display()));
    ours("copy docker-archive:out/saved.tar oci:out/saved:x");
    program("umoci stat --image out/saved:x", &site.place.path(""));
    let message = site.place.fails("copy docker-daemon:no/such:image oci:out/none:x", 10, "no such socket");
    assert!(message.contains("hint"), "{message}");
}

#[test]
fn containerd_imports() {
    let site = Site::new();
    let digest = site.push_with_skopeo("x:v1");
    let engine = Engine::containerd(&site.place.path("containerd")).unwrap();
    site.json("copy --tls-verify=false {registry}/x:v1 oci-archive:out/oci.tar:example.com/x:v1");
    site.json("copy --tls-verify=false {registry}/x:v1 docker-archive:out/docker.tar:example.com/y:v1");
    let ctr = |args: &str| {
        let socket = engine.socket().display();
        program(&format!("ctr -a {socket} {args}"), &site.place.path(""))
    };
    ctr("images import out/oci.tar");
    ctr("images import out/docker.tar");
    let list = ctr("images ls");
    assert!(list.contains(&digest) && list.contains("example.com/y:v1"), "{list}");
    ctr(&format!("images pull --plain-http {}", site.line("{registry}/x:v1")));
}

/// An index goes through everything that can hold one, and each of its images stays itself.
#[test]
fn indexes_survive() {
    let site = Site::new();
    let bundle =
        index(&[("amd64", runnable()), ("arm64", image("arm64", &layers(), Compression::Zstd).unwrap())]);
    bundle.write_layout(&site.place.path("in/multi"), "all").unwrap();
    site.program(
        "skopeo copy --quiet --all --dest-tls-verify=false oci:in/multi:all docker://{registry}/m:1",
    );
    let chain = [
        "docker://{registry}/m:1",
        "oci:out/l:m",
        "oci-archive:out/m.tar:m",
        "dir:out/m",
        "docker://{registry}/n:1",
    ];
    for pair in chain.windows(2) {
        let told = site.json(&format!("copy --tls-verify=false {} {}", pair[0], pair[1]));
        assert_eq!(
            (told["digest"].as_str(), told["images"].as_u64()),
            (Some(bundle.digest().as_str()), Some(2))
        );
    }
    let raw = site.program("skopeo inspect --raw --tls-verify=false docker://{registry}/n:1");
    assert_eq!(raw.as_bytes(), bundle.root.1);
    site.program(
        "skopeo copy --quiet --all --src-tls-verify=false docker://{registry}/n:1 oci:out/by-skopeo:x",
    );
    let one = site.json("copy --tls-verify=false --platform linux/arm64 {registry}/n:1 oci:out/arm:x");
    assert_eq!(one["images"], 1);
    let shown = site.json("inspect --tls-verify=false docker://{registry}/n:1");
    assert_eq!((&shown["kind"], shown["manifests"].as_array().unwrap().len()), (&"index".into(), 2));
}
