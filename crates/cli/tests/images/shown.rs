//! What `copy` and `inspect` print: objects with the documented keys (`docs/cli/json.md`), text, codes.

use coracle_testkit::oci::{Compression, digest, image, index, layers};

use crate::json::check_keys;
use crate::place::Place;

fn place() -> Place {
    let place = Place::new();
    let amd64 = image("amd64", &layers(), Compression::Gzip).unwrap();
    let arm64 = image("arm64", &layers()[..1], Compression::None).unwrap();
    amd64.write_layout(&place.path("in/one"), "x").unwrap();
    index(&[("amd64", amd64), ("arm64", arm64)]).write_layout(&place.path("in/many"), "x").unwrap();
    place
}

#[test]
fn copy_object() {
    let place = place();
    let told = place.json("copy oci:in/one:x oci:out/one:y");
    let keys = [
        "kind",
        "source",
        "destination",
        "digest",
        "media_type",
        "source_digest",
        "digest_kept",
        "trust",
        "notes",
        "images",
        "blobs",
        "seconds",
        "cpu_seconds",
        "peak_rss_bytes",
    ];
    check_keys(&told, &keys);
    assert_eq!((&told["kind"], &told["source"]), (&"copy".into(), &"oci:in/one:x".into()));
    check_keys(&told["blobs"], &["copied", "existed", "mounted"]);
    for kind in ["copied", "existed", "mounted"] {
        check_keys(&told["blobs"][kind], &["count", "bytes"]);
    }
    assert_eq!((&told["blobs"]["copied"]["count"], &told["images"]), (&3.into(), &1.into()));
    let text = place.ok("copy oci:in/many:x docker-archive:out/a.tar:x:y").text();
    assert!(text.contains("note: ") && text.contains("linux/amd64") && text.contains("took "), "{text}");
    assert_eq!(place.ok("copy -q oci:in/many:x oci:out/b:x").text(), "");
}

#[test]
fn inspect_objects() {
    let place = place();
    let told = place.json("inspect oci:in/one:x");
    let descriptor = ["media_type", "digest", "bytes", "artifact_type", "platform", "annotations"];
    let keys = [
        "kind",
        "name",
        "digest",
        "media_type",
        "made_up",
        "platform",
        "created",
        "artifact_type",
        "config",
        "layers",
        "subject",
        "annotations",
        "subset",
    ];
    check_keys(&told, &keys);
    assert_eq!((&told["kind"], &told["platform"]), (&"image".into(), &"linux/amd64".into()));
    check_keys(&told["config"], &descriptor);
    assert_eq!(told["layers"].as_array().unwrap().len(), 2);
    check_keys(&told["layers"][0], &[&descriptor[..], &["diff_id"]].concat());
    let many = place.json("inspect oci:in/many:x");
    check_keys(&many, &["kind", "name", "digest", "media_type", "made_up", "manifests", "annotations"]);
    assert_eq!((&many["kind"], &many["manifests"][1]["platform"]), (&"index".into(), &"linux/arm64".into()));
    let one = place.json("inspect --platform linux/arm64 oci:in/many:x");
    assert_eq!((&one["kind"], &one["platform"]), (&"image".into(), &"linux/arm64".into()));
    let text = place.ok("inspect oci:in/many:x").text();
    assert!(text.contains("2 manifests:") && text.contains("linux/arm64"), "{text}");
    let text = place.ok("inspect oci:in/one:x").text();
    assert!(text.contains("2 layers, ") && text.contains("platform: linux/amd64"), "{text}");
}

#[test]
fn failures() {
    let place = place();
    for (line, code, message) in [
        ("copy nonsense: oci:out/x:y", 2, "no image name"),
        ("copy oci:in/none:x oci:out/x:y", 3, "No such file"),
        ("copy oci:in/one:nope oci:out/x:y", 3, "it has: x"),
        ("copy --platform linux/s390x oci:in/many:x oci:out/x:y", 3, "linux/arm64"),
        ("copy oci:in/one:x rootfs:in/one", 2, "no tree written by coracle"),
        ("copy oci:in/one:x docker-daemon:x", 10, "no such socket"),
        ("copy dir:in oci:out/x:y", 3, "manifest.json"),
        ("inspect oci:in/none:x", 3, "No such file"),
        ("inspect missing.tar", 3, "missing.tar"),
    ] {
        let mut command = place.command(&format!("coracle {line}"));
        let path = place.path("no.sock");
        command.env("DOCKER_HOST", format!("unix://{}", path.display()));
        let output = coracle_testkit::oracle::run_bounded(&mut command, crate::place::LIMIT).unwrap();
        place.check_failure(&crate::place::Ran::new(line, output), code, message);
    }
    let before = place.files();
    let mut program = place.command("coracle copy oci:in/one:x containers-storage:x");
    let output =
        coracle_testkit::oracle::run_bounded(program.env("PATH", "/nonexistent"), crate::place::LIMIT);
    place.check_failure(&crate::place::Ran::new("", output.unwrap()), 10, "skopeo is not installed");
    place.check_unchanged("a missing program", &before);
}

/// What is damaged or hostile: the kind, which image and layer, and what to do.
#[test]
fn hostile_images_are_explained() {
    let place = place();
    let bundle = image("amd64", &layers(), Compression::Gzip).unwrap();
    let layer = digest(&bundle.blobs[1]);
    let path = place.path("in/one/blobs/sha256").join(&layer[7..]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    for to in ["oci:out/x:y", "dir:out/d", "oci-archive:out/x.tar:y", "docker-archive:out/d.tar:x:y"] {
        let ran = place.run(&format!("copy oci:in/one:x {to}"));
        place.check_failure(&ran, 5, "oci:in/one:x: layer 1");
        assert!(ran.stderr.contains(&layer) && ran.stderr.contains("hint: "), "{ran:?}");
        for made in ["out/x/index.json", "out/d/manifest.json", "out/x.tar", "out/d.tar"] {
            assert!(!place.path(made).exists(), "{made}");
        }
    }
    let (manifest, index) = ("in/hostile/manifest.json", "in/hostile/version");
    std::fs::create_dir(place.path("in/hostile")).unwrap();
    place.put(index, "Directory Transport Version: 1.1\n");
    let text = String::from_utf8(bundle.root.1).unwrap();
    let large = text.replacen("\"size\":", "\"size\":9999999999999", 1);
    let deep = text.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(99), "]".repeat(99)), 1);
    let both = text.replacen('{', "{\"manifests\":[],", 1);
    for (bad, code, message) in [(large, 6, "size"), (deep, 6, "nested"), (both, 4, "members of a manifest")]
    {
        place.put(manifest, bad);
        let told = place.fails("copy dir:in/hostile oci-archive:out/y.tar", code, message);
        assert!(told.contains("dir:in/hostile") && told.contains("do not trust"), "{told}");
    }
}
