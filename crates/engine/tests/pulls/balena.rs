//! Delta images of balenaEngine: made, pulled, refused.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use coracle_codec::artifact::balena::{DraftImage, PLACEHOLDER, around};
use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::digest::Digest;
use coracle_engine::Error;
use coracle_engine::artifact::apply::{Base, How};
use coracle_engine::artifact::create::{Created, To};
use coracle_engine::pull::plan::Way;
use coracle_engine::pull::{From, Pulled, Request};
use coracle_testkit::golden::Golden;
use coracle_testkit::oci::{Bundle, descriptor, digest};
use serde_json::{Value, json};

use super::{NEW, OLD, check, from, nothing_over, published, pull, pull_as, request, store};
use crate::artifacts::journey::{apply, create, request as delta_request};
use crate::images::site::Site;

const DELTA: &str = "docker://{double}/app:delta";
const RSYNC: From = From::Delta(Payload::Rsync);

fn make(site: &Site, to: To, classic: bool) -> Created {
    let mut request = delta_request(site, &[OLD], NEW, to, &[Dialect::Balena]);
    request.classic = classic;
    create(site, &request).unwrap()
}

/// Versions `old` and `new` of `app` in the registry, and the delta image between them beside them.
fn beside(site: &Site) -> (Bundle, Bundle) {
    let pair = published(site, &[]);
    make(site, To::Registry(Some("delta".into())), false);
    pair
}

/// The same in a folder, where nothing tells of the target's manifest.
fn alone(site: &Site) -> (Bundle, Bundle) {
    let pair = published(site, &[]);
    make(site, To::Image(site.name("oci:{}/delta:d")), false);
    pair
}

const ALONE: &str = "oci:{}/delta:d";

fn alone_request(site: &Site) -> Request {
    Request { name: Some("registry.example/app:new".parse().unwrap()), ..request(site, ALONE) }
}

fn document(bundle: &Bundle, wanted: &str) -> Value {
    let all = bundle.blobs.iter().chain([&bundle.root.1]);
    let bytes = all.into_iter().find(|blob| digest(blob) == wanted).unwrap();
    serde_json::from_slice(bytes).unwrap()
}

fn config(bundle: &Bundle) -> (String, Value) {
    let name = document(bundle, &bundle.digest())["config"]["digest"].as_str().unwrap().to_owned();
    (name.clone(), document(bundle, &name))
}

/// That the store has the target with all its bytes, whatever its manifest.
fn has_target(site: &Site, pulled: &Pulled, new: &Bundle) {
    let store = store(site);
    let (id, config) = config(new);
    assert_eq!(pulled.config.to_string(), id);
    assert_eq!(digest(store.document(&pulled.config).unwrap().unwrap().as_bytes()), id);
    for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
        let diff_id: Digest = diff_id.as_str().unwrap().parse().unwrap();
        let mut tar = Vec::new();
        store.layer(&diff_id).unwrap().unwrap().reader().read_to_end(&mut tar).unwrap();
        assert_eq!(Digest::of(&tar), diff_id);
    }
}

#[test]
fn a_delta_image_is_what_the_engine_expects() {
    for classic in [false, true] {
        let site = Site::new();
        let (old, new) = published(&site, &[]);
        let made = make(&site, To::Registry(Some("delta".into())), classic);
        let [delta] = made.deltas.as_slice() else { panic!("{made:?}") };
        assert_eq!(delta.dialect, Dialect::Balena);
        let raw = site.double.manifest("app", "delta").unwrap();
        assert_eq!(digest(&raw), delta.digest.to_string());
        let manifest: Value = serde_json::from_slice(&raw).unwrap();
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
        let blob = |descriptor: &Value| {
            let bytes = site.double.blob("app", descriptor["digest"].as_str().unwrap()).unwrap();
            assert_eq!(bytes.len() as u64, descriptor["size"]);
            bytes
        };
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let members: Vec<&String> = config.as_object().unwrap().keys().collect();
        assert_eq!(members, ["config", "container_config", "created", "rootfs"]);
        let labels = &config["config"]["Labels"];
        assert_eq!(labels["io.resin.delta.base"], crate::pulls::balena::config(&old).0);
        let target = labels["io.resin.delta.config"].as_str().unwrap();
        assert_eq!(digest(target.as_bytes()), crate::pulls::balena::config(&new).0);
        assert_eq!(labels["dev.coracle.delta.target"], new.digest());
        // As many layers as the target, the first of which both images have.
        let layers = manifest["layers"].as_array().unwrap();
        assert_eq!(
            layers.len(),
            crate::pulls::balena::config(&new).1["rootfs"]["diff_ids"].as_array().unwrap().len()
        );
        for (number, layer) in layers.iter().enumerate() {
            assert_eq!(layer["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
            let bytes = blob(layer);
            let mut tar = Vec::new();
            coracle_codec::compress::decoder(&bytes[..], Default::default())
                .unwrap()
                .1
                .read_to_end(&mut tar)
                .unwrap();
            assert_eq!(config["rootfs"]["diff_ids"][number], digest(&tar));
            if number == 0 {
                assert!(tar == PLACEHOLDER);
                continue;
            }
            assert_eq!(
                (&tar[..6], &tar[257..263], &tar[100..108]),
                (&b"delta\0"[..], &b"ustar\0"[..], &b"0000600\0"[..])
            );
            assert_eq!(&tar[136..148], b"00000000000\0", "no time");
            assert_eq!(tar[512..516], [0x72, 0x73, 0x02, 0x36]);
        }
        // It can be used.
        pull(&site, OLD).unwrap();
        let pulled = pull(&site, DELTA).unwrap();
        // The last layer is an archive of nothing: whole it is smaller than any delta.
        assert_eq!(from(&pulled), [From::Store, RSYNC, RSYNC, From::Full], "{pulled:?}");
        check(&site, &pulled, &new);
        nothing_over(&site);
    }
}

#[test]
fn ours_is_smaller_than_the_engines() {
    let site = Site::new();
    published(&site, &[]);
    let [ours, classic] = [false, true].map(|classic| make(&site, To::Nowhere, classic).deltas.remove(0));
    assert!(ours.bytes() < classic.bytes() * 85 / 100, "{} and {}", ours.bytes(), classic.bytes());
    // Again, the same bytes.
    assert_eq!(make(&site, To::Nowhere, false).deltas[0].digest, ours.digest);
}

#[test]
fn beside_its_target_it_gives_the_original_manifest() {
    let site = Site::new();
    let (_, new) = beside(&site);
    pull(&site, OLD).unwrap();
    let pulled = pull(&site, DELTA).unwrap();
    check(&site, &pulled, &new);
    assert!(pulled.notes.iter().any(|note| note.contains("is a delta image")), "{:?}", pulled.notes);
    assert!(!pulled.notes.iter().any(|note| note.contains("could not be compared")), "{:?}", pulled.notes);
    assert!(pull(&site, DELTA).unwrap().up_to_date);
    nothing_over(&site);
}

#[test]
fn alone_it_says_what_it_could_not_compare() {
    let site = Site::new();
    let (_, new) = alone(&site);
    let request = Request { sources: vec![site.name(OLD)], ..alone_request(&site) };
    let pulled = pull_as(&site, &request).0.unwrap();
    assert_eq!(from(&pulled)[1..], [RSYNC; 3], "{pulled:?}");
    has_target(&site, &pulled, &new);
    let unknown = |pulled: &Pulled| pulled.notes.iter().any(|note| note.contains("could not be compared"));
    assert!(unknown(&pulled), "{:?}", pulled.notes);
    // Nothing is fetched again, and the image can be read from the store.
    let again = pull_as(&site, &request).0.unwrap();
    assert!(again.up_to_date && unknown(&again), "{again:?}");
    assert_eq!(again.root, pulled.root);
    site.copy("store:registry.example/app:new", "oci:{}/out:x").unwrap();
    let report = store(&site)
        .fsck(
            &coracle_store::FsckOptions {
                deep: true,
                ..coracle_store::FsckOptions::new(std::num::NonZeroUsize::MIN)
            },
            &coracle_codec::observe::Quiet,
        )
        .unwrap();
    assert!(report.damages.is_empty());
}

#[test]
fn without_its_basis_it_needs_the_image_itself() {
    let site = Site::new();
    let (_, new) = alone(&site);
    let error = pull_as(&site, &alone_request(&site)).0.unwrap_err();
    assert!(matches!(error, Error::NoBasis { .. }), "{error}");
    assert!(error.to_string().contains("which is not here"), "{error}");
    let full = Request { full: Some(site.name(NEW)), ..alone_request(&site) };
    let pulled = pull_as(&site, &full).0.unwrap();
    assert_eq!(from(&pulled), [From::Full; 4]);
    check(&site, &pulled, &new);
    nothing_over(&site);
}

#[test]
fn the_image_that_is_named_as_full_has_to_be_the_target() {
    let site = Site::new();
    alone(&site);
    let wrong = Request { full: Some(site.name(OLD)), ..alone_request(&site) };
    let error = pull_as(&site, &wrong).0.unwrap_err();
    assert!(matches!(error, Error::WrongBase { .. }), "{error}");
    let none = Request { full: Some(site.name(NEW)), ..request(&site, OLD) };
    assert!(matches!(pull_as(&site, &none).0.unwrap_err(), Error::Unsupported { .. }));
}

#[test]
fn without_deltas_it_is_not_used() {
    let site = Site::new();
    let (_, new) = beside(&site);
    pull(&site, OLD).unwrap();
    let pulled = pull_as(&site, &Request { deltas: false, ..request(&site, DELTA) }).0.unwrap();
    assert_eq!(from(&pulled)[1..], [From::Full; 3]);
    check(&site, &pulled, &new);
}

#[test]
fn applied_to_a_folder_it_gives_the_image() {
    let site = Site::new();
    let (_, new) = alone(&site);
    site.copy(OLD, "oci:{}/old:x").unwrap();
    let applied =
        apply(&site, ALONE, Base::Image(site.name("oci:{}/old:x")), "oci:{}/out:x", |_| {}).unwrap();
    assert_eq!((applied.target, applied.digest_kept), (None, false));
    assert_eq!(applied.config.to_string(), config(&new).0);
    let hows: Vec<How> = applied.layers.iter().map(|layer| layer.how).collect();
    assert_eq!(
        hows,
        [How::Source, How::Delta(Payload::Rsync), How::Delta(Payload::Rsync), How::Delta(Payload::Rsync)]
    );
    for layer in &applied.layers[1..] {
        assert_eq!(layer.digest, layer.diff_id, "layers are not compressed");
    }
    assert!(applied.notes.iter().any(|note| note.contains("could not be compared")), "{:?}", applied.notes);
    let wrong = apply(&site, ALONE, Base::Image(site.name(NEW)), "oci:{}/wrong:x", |_| {});
    assert!(matches!(wrong, Err(Error::WrongBase { .. })), "{wrong:?}");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let site = Site::new();
    published(&site, &[]);
    let make = |old: &[&str], to, dialects: &[Dialect]| {
        create(&site, &delta_request(&site, old, NEW, to, dialects)).unwrap_err()
    };
    let nowhere = || To::Nowhere;
    for error in [
        make(&[OLD, OLD], nowhere(), &[Dialect::Balena]),
        make(&[OLD], To::Registry(None), &[Dialect::Balena]),
        make(&[OLD], nowhere(), &[Dialect::OciDelta, Dialect::Balena]),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

/// A delta image with these layers, uncompressed, and a declared size of each if any.
fn hostile(old: &Bundle, new: &Bundle, layers: &[Vec<u8>], change: impl FnOnce(&mut Value)) -> Bundle {
    let (id, target) = config(new);
    let raw = new.blobs.iter().find(|blob| digest(blob) == id).unwrap();
    let sizes = vec![0; target["rootfs"]["diff_ids"].as_array().unwrap().len()];
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let draft = DraftImage {
        base: config(old).0.parse().unwrap(),
        target: std::str::from_utf8(raw).unwrap(),
        target_manifest: new.digest().parse().unwrap(),
        sizes: &sizes,
        diff_ids: &diff_ids,
    };
    let mut value: Value = serde_json::from_slice(&draft.config()).unwrap();
    change(&mut value);
    let config = value.to_string().into_bytes();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor(kind, layer)).collect::<Vec<_>>(),
    });
    let mut blobs = layers.to_vec();
    blobs.push(config);
    let root = manifest.to_string().into_bytes();
    Bundle { blobs, root: ("application/vnd.oci.image.manifest.v1+json".into(), root) }
}

/// A layer with a delta of these operations.
fn layer(operations: &[u8]) -> Vec<u8> {
    let delta = [&[0x72, 0x73, 0x02, 0x36], operations].concat();
    let (before, behind) = around(delta.len() as u64);
    [before, delta, behind].concat()
}

/// Copies the whole basis, which is some hundred kilobytes, so many times.
fn bomb(times: usize) -> Vec<u8> {
    let copy = [&[0x4f][..], &0u32.to_be_bytes(), &200_000u32.to_be_bytes()].concat();
    [copy.repeat(times), vec![0]].concat()
}

#[test]
fn hostile_delta_images_are_refused() {
    let layers = |bad: Vec<u8>| vec![PLACEHOLDER.to_vec(), bad.clone(), bad.clone(), bad];
    let cases: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        (
            "a copy beyond the basis",
            layers(layer(&[0x4d, 0xff, 0, 0, 0, 9, 0])),
            "copies 9 bytes at offset 4278190080",
        ),
        ("reserved", layers(layer(&[0x55, 0])), "reserved operation 0x55 at byte 4"),
        ("cut short", layers(layer(&[0x40, 1, 2])), "delta ends inside operation 0x40"),
        ("no end", layers(layer(&[1, 1])), "without an end"),
        ("junk", layers(layer(&[0, 1])), "bytes behind the end"),
        ("other bytes", layers(layer(&[2, b'n', b'o', 0])), "uncompressed it is sha256:"),
        ("a bomb", layers(layer(&bomb(600))), "output exceeds the limit"),
        ("operations without output", layers(layer(&[0x45, 0, 0].repeat(70_000))), "too many operations"),
        ("a placeholder", layers(PLACEHOLDER.to_vec()), "the layer is empty"),
        ("no tar", layers(vec![7; 2000]), "invalid tar header"),
        ("a tar-diff", layers([around(9).0, b"tardf1\n\0x".to_vec()].concat()), "not a librsync delta"),
    ];
    for (what, layers, expected) in cases {
        let site = Site::new();
        let (old, new) = published(&site, &[]);
        let bundle = hostile(&old, &new, &layers, |_| {});
        let name = site.put_registry("app", "delta", &bundle);
        pull(&site, OLD).unwrap();
        // Beside the target the pull does without.
        let mut small = request(&site, &name);
        small.limits.max_output = 1 << 30;
        let pulled = pull_as(&site, &small).0.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(from(&pulled)[1..], [From::Full; 3], "{what}");
        // Deltas that are no smaller than their layer are not even tried.
        let planned = pulled.planned.layers.iter().filter(|layer| matches!(layer.way, Way::Delta(_)));
        assert_eq!(pulled.fallbacks.len(), planned.count(), "{what}");
        check(&site, &pulled, &new);
        // Alone it fails, and leaves nothing behind.
        let site = Site::new();
        published(&site, &[]);
        pull(&site, OLD).unwrap();
        bundle.write_layout(&site.path("delta"), "d").unwrap();
        let mut alone = alone_request(&site);
        alone.limits.max_output = 1 << 24;
        let error = pull_as(&site, &alone).0.unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        let name = "registry.example/app:new".parse().unwrap();
        assert!(store(&site).reference(&name).unwrap().is_none(), "{what}");
        nothing_over(&site);
    }
}

#[test]
fn labels_that_contradict_themselves_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 4] = [
        ("io.resin.delta.base is missing", |config| {
            config["config"]["Labels"].as_object_mut().unwrap().remove("io.resin.delta.base");
        }),
        ("io.resin.delta.config is missing", |config| {
            config["config"]["Labels"].as_object_mut().unwrap().remove("io.resin.delta.config");
        }),
        ("io.resin.delta.base", |config| config["config"]["Labels"]["io.resin.delta.base"] = json!("latest")),
        ("layers", |config| {
            let empty = r#"{"rootfs":{"type":"layers","diff_ids":[]}}"#;
            config["config"]["Labels"]["io.resin.delta.config"] = json!(empty);
        }),
    ];
    for (expected, change) in cases {
        let site = Site::new();
        let (old, new) = published(&site, &[]);
        let name =
            site.put_registry("app", "delta", &hostile(&old, &new, &vec![PLACEHOLDER.to_vec(); 4], change));
        let error = pull(&site, &name).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

/// The vectors of other programs, if they are here: they are no part of this project.
fn vectors() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    let path = Golden::external().map_or(path, |root| root.root().to_owned()).join("balena");
    if path.is_dir() {
        return Some(path);
    }
    let _ = writeln!(
        std::io::stderr(),
        "note: no vectors at {}: no delta image of the engine itself was applied",
        path.display()
    );
    None
}

#[test]
fn the_engines_own_delta_image() {
    let Some(folder) = vectors() else { return };
    let site = Site::new();
    for name in ["base-image", "delta-image", "delta-truncated-image"] {
        let file = std::fs::File::open(folder.join(format!("fixture/{name}.tar.zst"))).unwrap();
        let mut tar = coracle_codec::compress::decoder(file, Default::default()).unwrap().1;
        std::io::copy(&mut tar, &mut std::fs::File::create(site.path(&format!("{name}.tar"))).unwrap())
            .unwrap();
    }
    let case: Value =
        serde_json::from_slice(&std::fs::read(folder.join("fixture/case.json")).unwrap()).unwrap();
    let pull = |name: &str| {
        let request = Request {
            name: Some("registry.example/busybox:delta".parse().unwrap()),
            sources: vec![site.name("docker-archive:{}/base-image.tar")],
            ..request(&site, &format!("docker-archive:{{}}/{name}.tar"))
        };
        pull_as(&site, &request).0
    };
    let error = pull("delta-truncated-image").unwrap_err().to_string();
    // It is not even the layer that its config says.
    assert!(error.contains("digest is sha256:"), "{error}");
    let pulled = pull("delta-image").unwrap();
    assert_eq!(from(&pulled), [RSYNC]);
    let expected = &case["expect"];
    assert_eq!(pulled.config.hex(), expected["target_config"]["sha256"].as_str().unwrap());
    assert_eq!(pulled.layers[0].diff_id.hex(), expected["target_layer"]["sha256"].as_str().unwrap());
    let held = store(&site).layer(&pulled.layers[0].diff_id).unwrap().unwrap();
    let mut tar = Vec::new();
    held.reader().read_to_end(&mut tar).unwrap();
    assert_eq!(Digest::of(&tar), pulled.layers[0].diff_id);
}

#[test]
fn a_delta_image_with_layers_of_rdiff() {
    let Some(folder) = vectors() else { return };
    let site = Site::new();
    let layout = |name: &str| format!("oci:{}", folder.join("small-image").join(name).display());
    let case: Value =
        serde_json::from_slice(&std::fs::read(folder.join("small-image/case.json")).unwrap()).unwrap();
    let request = Request {
        name: Some("registry.example/app:new".parse().unwrap()),
        sources: vec![site.name(&layout("base"))],
        ..request(&site, &layout("delta"))
    };
    let pulled = pull_as(&site, &request).0.unwrap();
    assert_eq!(from(&pulled)[1..], [RSYNC; 2]);
    let expected = &case["expect"];
    assert_eq!(pulled.config.hex(), expected["target_config"]["sha256"].as_str().unwrap());
    let diff_ids: Vec<String> = pulled.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    assert_eq!(json!(diff_ids), expected["target_diff_ids"]);
}
