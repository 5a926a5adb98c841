//! Layers are pulled in parts: only what is missing, and never anything that is not what the config says.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_engine::Context;
use coracle_engine::convert::{Done, Format, Request, run};
use coracle_engine::pull::From;
use coracle_testkit::http::Fault;
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, digest, image};
use coracle_testkit::registry::MultiRange;
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use crate::images::site::Site;

use super::{NEW, OLD, check, from, nothing_over, pull, pull_as, request, store};

/// Two versions of an image: most files stay, one large one changes a little, one is new, and one of another layer moves.
fn versions() -> (Bundle, Bundle) {
    let mut base = TarBuilder::new();
    base.dir("usr");
    for number in 0..40 {
        base.file(format!("usr/kept{number}"), binary(number, 20_000 + 911 * number as usize));
    }
    let large = binary(99, 900_000);
    let zeros = vec![0; 50_000];
    let old = base.clone().file("usr/large", &large).file("usr/small", text(1, 900)).finish();
    let other = TarBuilder::new().dir("srv").file("srv/moves", binary(77, 120_000)).finish();
    let new = base
        .file("usr/large", mutate(&large, 5, 3))
        .file("usr/new", binary(55, 30_000))
        .file("usr/holes", [text(3, 5000), zeros, text(4, 5000)].concat())
        .file("usr/moved-small", text(1, 900))
        .file("usr/moved", binary(77, 120_000))
        .finish();
    let bundle = |layers: &[Vec<u8>]| image("amd64", layers, Compression::Gzip).unwrap();
    (bundle(&[old, other.clone()]), bundle(&[new, other]))
}

fn convert(site: &Site, from: &str, to: &str, format: Format, legacy: bool) -> Done {
    let request = Request {
        source: site.name(from),
        destination: site.name(to),
        platform: None,
        format,
        level: None,
        legacy,
        jobs: NonZeroUsize::new(2).unwrap(),
    };
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    run(&request, &site.environment(), &context).unwrap()
}

/// Both versions in the registry, in this format.
pub fn published(site: &Site, format: Format) -> (Bundle, Bundle) {
    let (old, new) = versions();
    let old = converted(site, "old", &old, format);
    (old, converted(site, "new", &new, format))
}

pub fn converted(site: &Site, tag: &str, bundle: &Bundle, format: Format) -> Bundle {
    let from = site.put(&format!("in-{tag}"), bundle);
    convert(site, &from, &format!("docker://{{double}}/app:{tag}"), format, false);
    bundle_of(site, tag)
}

/// What the registry has under a tag.
fn bundle_of(site: &Site, tag: &str) -> Bundle {
    let root = site.double.manifest("app", tag).unwrap();
    let value: Value = serde_json::from_slice(&root).unwrap();
    let all = value["layers"].as_array().unwrap().iter().chain([&value["config"]]);
    let blobs = all.map(|blob| site.double.blob("app", blob["digest"].as_str().unwrap()).unwrap().to_vec());
    let mut bundle = Bundle { blobs: blobs.collect(), ..Bundle::default() };
    bundle.root = (value["mediaType"].as_str().unwrap().to_owned(), root.to_vec());
    bundle
}

pub fn manifest(bundle: &Bundle) -> Value {
    serde_json::from_slice(&bundle.root.1).unwrap()
}

pub fn layer(bundle: &Bundle, number: usize) -> (String, u64) {
    let layer = &manifest(bundle)["layers"][number];
    (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap())
}

/// The ranges of a blob that were asked for.
pub fn ranges(site: &Site, blob: &str) -> Vec<(u64, u64)> {
    let requests = site.faults().requests();
    let asked = requests.iter().filter(|request| request.path.ends_with(blob));
    let one = |range: &str| {
        let (start, last) = range.split_once('-').unwrap();
        (start.parse().unwrap(), last.parse::<u64>().expect("a closed range") + 1)
    };
    asked
        .flat_map(|request| {
            let ranges = request.header("range").expect("a range").strip_prefix("bytes=").unwrap();
            ranges.split(',').map(one).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn only_what_is_missing_is_fetched() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    let first = pull(&site, OLD).unwrap();
    assert_eq!(from(&first), [From::Full; 2], "nothing is here that could be of use");
    site.faults().forget();
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Chunks, From::Store], "{:?}", pulled.notes);
    check(&site, &pulled, &new);
    nothing_over(&site);
    let (blob, size) = layer(&new, 0);
    let ranges = ranges(&site, &blob);
    let bytes: u64 = ranges.iter().map(|(start, end)| end - start).sum();
    assert!(ranges.len() >= 2 && bytes < size / 4, "{bytes} of {size} in {ranges:?}");
    // The TOC and the tar-split, then each byte at most once.
    let mut sorted = ranges.clone();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{sorted:?}");
    assert_eq!(pulled.layers[0].bytes, ranges[1..].iter().map(|(start, end)| end - start).sum::<u64>());
    // Again, from nothing but that image: all is here.
    assert!(pull(&site, NEW).unwrap().up_to_date);
}

/// What a table of contents made is remembered. If it is known to make another layer than the config says, the layer is
/// not read in parts; where that is a lie it costs bytes, and what comes out is right.
#[test]
fn what_a_table_of_contents_makes_is_remembered() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    let first = pull(&site, OLD).unwrap();
    let said = &manifest(&new)["layers"][0]["annotations"];
    let toc: Digest =
        said["io.github.containers.zstd-chunked.manifest-checksum"].as_str().unwrap().parse().unwrap();
    assert_eq!(store(&site).made_of_toc(&toc).unwrap(), None);
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Chunks, From::Store], "{:?}", pulled.notes);
    assert_eq!(store(&site).made_of_toc(&toc).unwrap(), Some(pulled.layers[0].diff_id));

    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    pull(&site, OLD).unwrap();
    store(&site).lease().unwrap().remember_toc(&toc, &first.layers[0].diff_id).unwrap();
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Full, From::Store]);
    assert!(pulled.notes.iter().any(|note| note.contains("makes another layer")), "{:?}", pulled.notes);
    check(&site, &pulled, &new);
}

/// What stands in podman's layers before 2024: no tar-split, but frames of their own for what is between contents.
#[test]
fn layers_without_a_tar_split_come_in_parts_too() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    pull(&site, OLD).unwrap();
    // The annotations alone make a layer what it is.
    let mut value = manifest(&new);
    for layer in value["layers"].as_array_mut().unwrap() {
        let said: BTreeMap<String, String> = serde_json::from_value(layer["annotations"].take()).unwrap();
        let legacy = said.into_iter().filter(|(name, _)| !name.contains("tarsplit"));
        let legacy = legacy.map(|(name, value)| (name.replace("io.github.", "io."), value));
        layer["annotations"] = serde_json::to_value(legacy.collect::<BTreeMap<_, _>>()).unwrap();
    }
    let bytes = value.to_string().into_bytes();
    site.double.put_manifest("app", "new", &new.root.0, &bytes);
    let legacy = Bundle { root: (new.root.0.clone(), bytes), blobs: new.blobs.clone() };
    site.faults().forget();
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Chunks, From::Store], "{:?}", pulled.notes);
    check(&site, &pulled, &legacy);
    let (blob, size) = layer(&legacy, 0);
    assert!(ranges(&site, &blob).iter().map(|(start, end)| end - start).sum::<u64>() < size / 4);
}

/// A registry that knows no ranges may say so in many ways; the layer comes whole then, and only once.
#[test]
fn a_registry_without_ranges_sends_the_layer_once() {
    let faults = [
        Fault::IgnoreRange,
        Fault::Status(416, vec![]),
        Fault::Status(501, vec![]),
        Fault::Status(400, vec![]),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let site = Site::new();
        let (_, new) = published(&site, Format::Chunked);
        pull(&site, OLD).unwrap();
        let (blob, size) = layer(&new, 0);
        site.faults().forget();
        // The second answer is wrong as well where the first had been right: in the midst of the layer.
        site.faults().add("GET", &blob, fault.clone(), 1);
        let pulled = pull(&site, NEW).unwrap();
        assert_eq!(from(&pulled), [From::Full, From::Store], "{fault:?}: {:?}", pulled.notes);
        check(&site, &pulled, &new);
        let asked = site.faults().count("GET", &blob);
        assert_eq!(asked, if number == 0 { 1 } else { 2 }, "{fault:?}");
        assert!(site.faults().sent() < size + 20_000, "{fault:?}: {} of {size}", site.faults().sent());
        nothing_over(&site);
    }
}

#[test]
fn ranges_that_fail_in_the_midst_of_a_layer() {
    for fault in [Fault::Flip, Fault::WrongPart, Fault::Status(404, vec![]), Fault::Cut(100)] {
        let site = Site::new();
        let (_, new) = published(&site, Format::Chunked);
        pull(&site, OLD).unwrap();
        let (blob, _) = layer(&new, 0);
        // Whatever is asked for after the documents, and after the question for several ranges.
        site.double.behave(|behaviour| behaviour.multi_range = MultiRange::NotImplemented);
        site.faults().add("GET", &blob, Fault::Slow(1 << 20, std::time::Duration::ZERO), 2);
        site.faults().add("GET", &blob, fault.clone(), 1);
        let (pulled, events) = pull_as(&site, &request(&site, NEW));
        let pulled = pulled.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        check(&site, &pulled, &new);
        nothing_over(&site);
        let fell_back = events.contains(&"fell-back");
        let whole = from(&pulled)[0] == From::Full;
        assert_eq!((fell_back, whole), (!matches!(fault, Fault::Cut(_)), fell_back), "{fault:?}");
    }
}

/// The TOC says one thing and the tar another; whatever it is, the image is the one that the config says.
#[test]
fn lies_lead_to_whole_layers() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    // The layer of another image: its diff_id is wrong.
    let foreign = TarBuilder::new().file("usr/evil", binary(5, 800_000)).finish();
    let foreign = image("amd64", &[foreign], Compression::Gzip).unwrap();
    let from_layout = site.put("in-evil", &foreign);
    convert(&site, &from_layout, "docker://{double}/app:evil", Format::Chunked, false);
    let other = bundle_of(&site, "evil");
    pull(&site, OLD).unwrap();
    let mut value = manifest(&new);
    value["layers"][0] = manifest(&other)["layers"][0].clone();
    let bytes = value.to_string().into_bytes();
    site.double.put_manifest("app", "new", &new.root.0, &bytes);
    let before = store(&site).refs().unwrap().len();
    assert!(pull(&site, NEW).is_err(), "the whole layer is wrong as well");
    assert_eq!(store(&site).refs().unwrap().len(), before, "nothing was published");
    nothing_over(&site);
    // A TOC that is not the one of the annotation.
    let mut value = manifest(&new);
    let said = value["layers"][0]["annotations"].as_object_mut().unwrap();
    let name = said.keys().find(|name| name.ends_with("manifest-checksum")).unwrap().clone();
    said.insert(name, digest(b"another").into());
    let bytes = value.to_string().into_bytes();
    site.double.put_manifest("app", "new", &new.root.0, &bytes);
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(from(&pulled), [From::Full, From::Store]);
    assert!(pulled.notes.iter().any(|note| note.contains("cannot be read in parts")), "{:?}", pulled.notes);
}

#[test]
fn conversions_keep_tars_and_are_the_same_each_time() {
    let site = Site::new();
    let (old, _) = versions();
    let from = site.put("in", &old);
    for format in [Format::Gzip, Format::Zstd, Format::Chunked, Format::Stargz] {
        let done = convert(&site, &from, "oci:{}/a:x", format, false);
        let again = convert(&site, &from, "docker://{double}/b:x", format, false);
        assert_eq!(done.digest, again.digest, "{format:?}");
        assert_eq!(done.config_kept, format != Format::Stargz);
        assert!(done.layers.iter().all(|layer| layer.fell_back.is_none() && layer.format == format));
        let kept = done.layers.iter().all(|layer| layer.diff_id == layer.new_diff_id);
        assert_eq!(kept, done.config_kept, "{format:?}");
        // Reading it compares each layer with the config.
        site.copy("oci:{}/a:x", "store:localhost/x:1").unwrap();
    }
    // What a TOC cannot say is had as plain zstd.
    let odd = TarBuilder::new().file("a", b"1").file("./a", b"2").finish();
    let from = site.put("odd", &image("amd64", &[odd], Compression::None).unwrap());
    let done = convert(&site, &from, "oci:{}/odd-out:x", Format::Chunked, true);
    assert_eq!(done.layers[0].format, Format::Zstd);
    assert!(done.layers[0].fell_back.as_ref().unwrap().contains("twice"), "{:?}", done.notes);
    assert_eq!(site.left(), Vec::<std::path::PathBuf>::new());
}
