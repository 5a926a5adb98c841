//! Deltas of our own: from every place to every place, in every dialect, with the sizes and digests that they promise.

use std::fs;
use std::num::NonZeroUsize;

use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_codec::oci::LayerCompression;
use coracle_engine::artifact::apply::{self, Applied, Base, How};
use coracle_engine::artifact::create::{self, Created, To};
use coracle_engine::artifact::{list, push};
use coracle_engine::{Context, Error};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, image, index};
use coracle_testkit::tar_builder::TarBuilder;

use crate::images::site::Site;

/// Two images: a layer that stays, one that changes, one with whiteouts, and an empty one, of which no delta is smaller
/// than its gzip.
pub fn pair(architecture: &str) -> (Bundle, Bundle) {
    let seed = architecture.len() as u64;
    let base = TarBuilder::new().dir("etc").file("etc/base", text(seed, 60_000)).finish();
    let program = binary(seed + 1, 150_000);
    let one = |program: Vec<u8>, notes: Vec<u8>| {
        TarBuilder::new()
            .dir("usr")
            .file_mode("usr/program", 0o755, program)
            .file("usr/notes", notes)
            .hardlink("usr/again", "usr/program")
            .finish()
    };
    let old = one(program.clone(), text(seed + 2, 30_000));
    let new = one(mutate(&program, 3, 12), mutate(&text(seed + 2, 30_000), 4, 5));
    let old_top = TarBuilder::new().file("usr/.wh.notes", "").file("etc/top", text(9, 5_000)).finish();
    let new_top = TarBuilder::new().file("etc/top", mutate(&text(9, 5_000), 1, 3)).finish();
    let empty = TarBuilder::new().finish();
    (
        image(architecture, &[base.clone(), old, old_top], Compression::Gzip).unwrap(),
        image(architecture, &[base, new, new_top, empty], Compression::Gzip).unwrap(),
    )
}

pub fn request(site: &Site, old: &[&str], new: &str, to: To, dialects: &[Dialect]) -> create::Request {
    create::Request {
        old: old.iter().map(|name| site.name(name)).collect(),
        new: site.name(new),
        platform: None,
        dialects: dialects.to_vec(),
        to,
        effort: Default::default(),
        version: coracle_codec::tardiff::Version::V1,
        memory: 1 << 28,
        threads: NonZeroUsize::new(2).unwrap(),
        any_mode: false,
        again: false,
        with_image: false,
        classic: false,
    }
}

pub fn create(site: &Site, request: &create::Request) -> Result<Created, Error> {
    create::run(request, &site.environment(), &Context { observer: &Quiet, temp_dir: site.path("tmp") })
}

pub fn apply(
    site: &Site,
    delta: &str,
    base: Base,
    to: &str,
    change: impl FnOnce(&mut apply::Request),
) -> Result<Applied, Error> {
    let mut request = apply::Request {
        delta: site.name(delta),
        base,
        destination: site.name(to),
        compression: None,
        platform: None,
        partial: false,
        jobs: NonZeroUsize::new(2).unwrap(),
        limits: Default::default(),
        native_limits: Default::default(),
    };
    change(&mut request);
    apply::run(&request, &site.environment(), &Context { observer: &Quiet, temp_dir: site.path("tmp") })
}

fn both(site: &Site) -> (String, String, Bundle) {
    let (old, new) = pair("amd64");
    (site.put("old", &old), site.put("new", &new), new)
}

/// The layers of an image in a layout, uncompressed.
fn layers(site: &Site, folder: &str, applied: &Applied) -> Vec<Digest> {
    applied
        .layers
        .iter()
        .map(|layer| {
            let path = site.path(folder).join("blobs").join(layer.digest.to_string().replace(':', "/"));
            let (_, mut tar) =
                coracle_codec::compress::decoder(fs::File::open(path).unwrap(), Default::default()).unwrap();
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut tar, &mut plain).unwrap();
            Digest::of(&plain)
        })
        .collect()
}

#[test]
fn an_archive_in_each_dialect_gives_the_target() {
    let site = Site::new();
    let (old, new, bundle) = both(&site);
    for dialect in [Dialect::OciDelta, Dialect::Coracle] {
        let archive = format!("oci-archive:{{}}/{dialect}.tar");
        let made = create(&site, &request(&site, &[&old], &new, To::Image(site.name(&archive)), &[dialect]))
            .unwrap();
        let [delta] = made.deltas.as_slice() else { panic!("{made:?}") };
        assert_eq!(delta.layers[0].payload, None, "the same layer");
        assert!(!matches!(delta.layers[1].payload, None | Some(Payload::Layer)), "{:?}", delta.layers);
        assert_eq!(delta.layers[3].payload, Some(Payload::Layer), "it goes as it is");
        assert_eq!(delta.layers[3].bytes, delta.layers[3].full);
        assert!(delta.bytes() < delta.changed / 2, "{} of {}", delta.bytes(), delta.changed);
        for (compression, kept) in [
            (LayerCompression::None, false),
            (LayerCompression::Zstd, false),
            (LayerCompression::Gzip, false),
        ] {
            let to = format!("{dialect}-{compression:?}");
            let applied =
                apply(&site, &archive, Base::Image(site.name(&old)), &format!("oci:{{}}/{to}"), |request| {
                    request.compression = Some(compression);
                })
                .unwrap();
            assert_eq!(applied.target.unwrap().to_string(), bundle.digest());
            assert_eq!(applied.digest_kept, kept);
            assert_eq!(applied.layers[0].how, How::Source);
            assert_eq!(applied.layers[3].how, How::Whole);
            let expected: Vec<Digest> = applied.layers.iter().map(|layer| layer.diff_id).collect();
            assert_eq!(layers(&site, &to, &applied), expected);
        }
    }
    assert!(site.left().is_empty());
}

#[test]
fn the_same_request_gives_the_same_bytes() {
    let site = Site::new();
    let (old, new, _) = both(&site);
    let mut seen = Vec::new();
    for threads in [1, 2, 5] {
        let archive = format!("oci-archive:{{}}/{threads}.tar");
        let mut request = request(
            &site,
            &[&old],
            &new,
            To::Image(site.name(&archive)),
            &[Dialect::OciDelta, Dialect::Coracle],
        );
        request.threads = NonZeroUsize::new(threads).unwrap();
        create(&site, &request).unwrap();
        seen.push(fs::read(site.path(&format!("{threads}.tar"))).unwrap());
    }
    assert!(seen.iter().all(|other| *other == seen[0]));
}

#[test]
fn index_and_manifest_stand_in_front_of_the_contents() {
    let site = Site::new();
    let (old, new, _) = both(&site);
    let to = To::Image(site.name("oci-archive:{}/delta.tar"));
    create(&site, &request(&site, &[&old], &new, to, &[Dialect::OciDelta])).unwrap();
    let mut names = Vec::new();
    let mut reader =
        coracle_codec::tar::Reader::new(fs::File::open(site.path("delta.tar")).unwrap(), Default::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push((String::from_utf8(entry.name.clone()).unwrap(), entry.content_len));
    }
    let files: Vec<&(String, u64)> = names.iter().filter(|(name, _)| !name.ends_with('/')).collect();
    assert_eq!(files[0].0, "oci-layout");
    assert_eq!(files[1].0, "index.json");
    let index: serde_json::Value = {
        let mut archive = fs::read(site.path("delta.tar")).unwrap();
        let at = archive.windows(13).position(|w| w == b"\"manifests\":[").unwrap();
        archive.drain(..at - 1);
        let end = archive.iter().position(|b| *b == 0).unwrap();
        serde_json::from_slice(&archive[..end]).unwrap()
    };
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    assert_eq!(files[2].0, format!("blobs/{digest}"));
}

#[test]
fn through_a_registry_with_and_without_its_own_lists() {
    for referrers in [true, false] {
        let site = Site::new();
        site.double.behave(|behaviour| behaviour.referrers = referrers);
        let (old, new) = pair("amd64");
        let old = site.put_registry("app", "1", &old);
        let target = new.digest();
        let new = site.put_registry("app", "2", &new);
        let dialects = [Dialect::Coracle, Dialect::OciDelta];
        let made = create(&site, &request(&site, &[&old], &new, To::Registry(None), &dialects)).unwrap();
        assert_eq!(made.deltas.len(), 2);
        let gets = |part: &str| site.faults().count("GET", part);
        // Every layer of the pair that has to be read was read once.
        for delta in &made.deltas {
            for layer in delta.layers.iter().filter(|layer| layer.payload.is_some()) {
                assert_eq!(gets(&format!("/blobs/{}", layer.to)), 1, "layer {}", layer.number);
            }
        }
        let listed = list::run(
            &site.name(&new),
            None,
            false,
            &site.environment(),
            &Context { observer: &Quiet, temp_dir: site.path("tmp") },
        )
        .unwrap();
        assert_eq!(listed.targets[0].digest.to_string(), target);
        let dialects: Vec<Dialect> = listed.targets[0].deltas.iter().map(|entry| entry.dialect).collect();
        assert_eq!(dialects, [Dialect::OciDelta, Dialect::Coracle]);
        for (entry, delta) in listed.targets[0].deltas.iter().rev().zip(&made.deltas) {
            assert_eq!((entry.digest, entry.bytes), (delta.digest, delta.bytes()));
            assert_eq!(entry.source_created.as_deref(), Some("2026-01-02T03:04:05Z"));
        }
        // Again: they are there, and nothing is read for them.
        site.faults().forget();
        let again = create(
            &site,
            &request(&site, &[&old], &new, To::Registry(None), &[Dialect::Coracle, Dialect::OciDelta]),
        )
        .unwrap();
        assert!(again.deltas.iter().all(|delta| delta.existed));
        assert_eq!(site.faults().count("PUT", ""), 0);
        // The target's name is enough to find the smaller one.
        let applied = apply(&site, &new, Base::Image(site.name(&old)), "oci:{}/got", |_| {}).unwrap();
        assert_eq!(applied.dialect, Dialect::Coracle);
        assert_eq!(applied.target.unwrap().to_string(), target);
    }
}

#[test]
fn a_delta_for_each_platform() {
    let site = Site::new();
    let ((old_amd, new_amd), (old_arm, new_arm)) = (pair("amd64"), pair("arm64"));
    let old = site.put("old", &index(&[("amd64", old_amd), ("arm64", old_arm)]));
    let new = site.put("new", &index(&[("amd64", new_amd.clone()), ("arm64", new_arm.clone())]));
    let to = To::Image(site.name("oci-archive:{}/all.tar"));
    let made =
        create(&site, &request(&site, &[&old], &new, to, &[Dialect::OciDelta, Dialect::Coracle])).unwrap();
    assert_eq!(made.deltas.len(), 4);
    for (platform, bundle) in [("linux/amd64", new_amd), ("linux/arm64", new_arm)] {
        let folder = platform.replace('/', "-");
        let applied = apply(
            &site,
            "oci-archive:{}/all.tar",
            Base::Image(site.name(&old)),
            &format!("oci:{{}}/{folder}"),
            |r| {
                r.platform = Some(platform.parse().unwrap());
            },
        )
        .unwrap();
        assert_eq!(applied.target.unwrap().to_string(), bundle.digest(), "{platform}");
    }
    // Into a registry, each beside its own target.
    site.put_registry("app", "new", &Bundle::default_index(&site, "new"));
    let pushed = push::run(
        &push::Request {
            delta: site.name("oci-archive:{}/all.tar"),
            to: site.name("docker://{double}/app"),
            tagged: false,
            jobs: NonZeroUsize::new(2).unwrap(),
        },
        &site.environment(),
        &Context { observer: &Quiet, temp_dir: site.path("tmp") },
    )
    .unwrap();
    assert_eq!(pushed.len(), 4);
    let targets: std::collections::BTreeSet<_> = pushed.iter().map(|delta| delta.target).collect();
    assert_eq!(targets.len(), 2);
}

/// What a test needs of a layout again.
trait FromLayout {
    fn default_index(site: &Site, folder: &str) -> Bundle;
}

impl FromLayout for Bundle {
    fn default_index(site: &Site, folder: &str) -> Bundle {
        let mut bundle = Bundle::default();
        for entry in fs::read_dir(site.path(folder).join("blobs/sha256")).unwrap() {
            bundle.blobs.push(fs::read(entry.unwrap().path()).unwrap());
        }
        bundle.root = (
            "application/vnd.oci.image.index.v1+json".into(),
            br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
                .to_vec(),
        );
        bundle
    }
}

#[test]
fn files_are_enough_for_tar_diffs() {
    let site = Site::new();
    let (old, new, bundle) = both(&site);
    let to = To::Image(site.name("oci:{}/delta:d"));
    create(&site, &request(&site, &[&old], &new, to, &[Dialect::OciDelta])).unwrap();
    let tree = site.path("tree");
    fs::create_dir_all(tree.join("usr")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    let seed = "amd64".len() as u64;
    fs::write(tree.join("usr/program"), binary(seed + 1, 150_000)).unwrap();
    fs::write(tree.join("usr/again"), binary(seed + 1, 150_000)).unwrap();
    fs::write(tree.join("etc/base"), text(seed, 60_000)).unwrap();
    fs::write(tree.join("etc/top"), text(9, 5_000)).unwrap();
    // A whole image cannot come of files: the layer that stays is no layer there.
    let error = apply(&site, "oci:{}/delta:d", Base::Tree(tree.clone()), "oci:{}/got", |_| {}).unwrap_err();
    assert!(matches!(error, Error::MissingLayer { layer: 0, .. }), "{error}");
    let applied =
        apply(&site, "oci:{}/delta:d", Base::Tree(tree), "oci:{}/got", |r| r.partial = true).unwrap();
    assert_eq!(applied.target.unwrap().to_string(), bundle.digest());
    assert_eq!(applied.layers[0].how, How::Left);
    assert!(matches!(applied.layers[1].how, How::Delta(_)));
}

#[test]
fn what_does_not_fit_is_told() {
    let site = Site::new();
    let (old, new, _) = both(&site);
    let to = To::Image(site.name("oci-archive:{}/d.tar"));
    create(&site, &request(&site, &[&old], &new, to, &[Dialect::OciDelta])).unwrap();
    let wrong =
        apply(&site, "oci-archive:{}/d.tar", Base::Image(site.name(&new)), "oci:{}/got", |_| {}).unwrap_err();
    assert!(matches!(wrong, Error::WrongBase { .. }), "{wrong}");
    let platform = apply(&site, "oci-archive:{}/d.tar", Base::Image(site.name(&old)), "oci:{}/got", |r| {
        r.platform = Some("linux/s390x".parse().unwrap());
    });
    assert!(matches!(platform, Err(Error::NoPlatform { .. })), "{platform:?}");
    let none = apply(&site, &new, Base::Image(site.name(&old)), "oci:{}/got", |_| {}).unwrap_err();
    assert!(matches!(none, Error::NoDelta { .. }), "{none}");
    let image = apply(&site, &old, Base::Image(site.name(&old)), "oci:{}/got", |_| {}).unwrap_err();
    assert!(matches!(image, Error::NoDelta { .. }), "{image}");
    assert!(!site.path("got").exists());
}

#[test]
fn a_delta_that_makes_too_much_is_stopped() {
    let site = Site::new();
    let (old, new, _) = both(&site);
    for dialect in [Dialect::OciDelta, Dialect::Coracle] {
        let to = To::Image(site.name("oci-archive:{}/d.tar"));
        create(&site, &request(&site, &[&old], &new, to, &[dialect])).unwrap();
        let error = apply(&site, "oci-archive:{}/d.tar", Base::Image(site.name(&old)), "oci:{}/got", |r| {
            r.limits.max_output = 1000;
            r.native_limits.max_output = 1000;
        })
        .unwrap_err();
        assert!(matches!(error, Error::ApplyTarDiff { .. } | Error::ApplyNative { .. }), "{error}");
    }
}

#[test]
fn the_delta_index_of_flatpak() {
    let site = Site::new();
    site.double.behave(|behaviour| behaviour.referrers = false);
    let (old, new) = pair("amd64");
    let old = site.put_registry("app", "1", &old);
    let target = new.digest();
    let new = site.put_registry("app", "2", &new);
    for dialect in [Dialect::Flatpak, Dialect::Skopeo] {
        let made = create(&site, &request(&site, &[&old], &new, To::Registry(None), &[dialect])).unwrap();
        assert_eq!(made.deltas[0].dialect, dialect);
    }
    let applied = apply(&site, &new, Base::Image(site.name(&old)), "oci:{}/got", |_| {}).unwrap();
    assert_eq!(applied.dialect, Dialect::Flatpak);
    assert_eq!(applied.target.unwrap().to_string(), target);
    assert!(applied.layers.iter().any(|layer| matches!(layer.how, How::Delta(_))));
    assert_eq!(applied.layers[3].how, How::Fetched);
}

/// Anybody who may push can list a delta to another image: named by the target, it must not be taken.
#[test]
fn a_listed_delta_to_another_image_is_passed_over() {
    for referrers in [true, false] {
        let site = Site::new();
        site.double.behave(|behaviour| behaviour.referrers = referrers);
        let (old, new) = pair("amd64");
        let old = site.put_registry("app", "1", &old);
        let target = new.digest();
        let new = site.put_registry("app", "2", &new);
        // A smaller image that the same source leads to.
        let small = TarBuilder::new().file("etc/base", text(5, 60_000)).finish();
        let other = site.put_registry("app", "3", &image("amd64", &[small], Compression::Gzip).unwrap());
        create(&site, &request(&site, &[&old], &other, To::Registry(None), &[Dialect::OciDelta])).unwrap();
        let made =
            create(&site, &request(&site, &[&old], &new, To::Registry(None), &[Dialect::OciDelta])).unwrap();
        // The other's delta with the subject of this one: its own documents say what it is for.
        let listed = |name: &str| {
            let name = site.name(name);
            let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
            list::run(&name, None, false, &site.environment(), &context).unwrap().targets[0].deltas.clone()
        };
        let stray = listed(&other)[0].digest;
        let bytes = site.double.manifest("app", &stray.to_string()).unwrap();
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["subject"]["digest"] = target.clone().into();
        value["annotations"]["dev.coracle.delta.size"] = "1".into();
        let lying = value.to_string().into_bytes();
        let media = "application/vnd.oci.image.manifest.v1+json";
        let digest = site.double.put_manifest("app", "lying", media, &lying);
        if !referrers {
            // Where there are no lists, it is written into the index by hand.
            let tag = target.replace(':', "-");
            let index = site.double.manifest("app", &tag).unwrap();
            let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
            let mut entry = index["manifests"][0].clone();
            entry["digest"] = digest.clone().into();
            entry["size"] = lying.len().into();
            entry["annotations"]["dev.coracle.delta.size"] = "1".into();
            index["manifests"].as_array_mut().unwrap().insert(0, entry);
            let index = index.to_string().into_bytes();
            site.double.put_manifest("app", &tag, "application/vnd.oci.image.index.v1+json", &index);
        }
        assert_eq!(listed(&new).len(), 2);
        let applied = apply(&site, &new, Base::Image(site.name(&old)), "oci:{}/got", |_| {}).unwrap();
        assert_eq!(applied.target.unwrap().to_string(), target);
        assert_eq!(applied.delta_bytes, made.deltas[0].bytes());
        assert!(applied.notes[0].starts_with("passed over: "), "{:?}", applied.notes);
    }
}
