//! Parts of images: whatever goes wrong on the way, the tree is the right one or the old one.

use std::collections::BTreeMap;
use std::time::Duration;

use coracle_codec::observe::Quiet;
use coracle_engine::convert::Format;
use coracle_engine::pull::{From, Pulled, run};
use coracle_engine::subset::{Patterns, Selection};
use coracle_engine::{Context, Error};
use coracle_testkit::http::Fault;
use coracle_testkit::oci::digest;
use coracle_testkit::registry::MultiRange;
use serde_json::Value;

use crate::images::site::{Site, files};

use super::chunked::{layer, manifest, published, ranges};
use super::{NEW, OLD, from, request};

/// Pulls what these patterns leave of an image into `tree`.
fn part(site: &Site, image: &str, exclude: &[&str]) -> Result<Pulled, Error> {
    let exclude = exclude.iter().map(|pattern| (*pattern).to_owned()).collect();
    let selection = Selection::new(&Patterns { only: Vec::new(), exclude }).unwrap();
    let environment = coracle_engine::image::Environment { selection: Some(selection), ..site.environment() };
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    let request =
        coracle_engine::pull::Request { to: Some(site.name("rootfs:{}/tree")), ..request(site, image) };
    run(&request, &environment, &context, &|_| {})
}

/// What the whole image has of it.
fn expected(site: &Site, image: &str, left_out: &[&str]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    site.copy(image, "rootfs:{}/whole").unwrap();
    let mut all = files(&site.path("whole"));
    all.retain(|path, _| !left_out.contains(&String::from_utf8_lossy(path).as_ref()));
    all
}

const LARGE: &[&str] = &["usr/large"];

#[test]
fn a_registry_without_ranges_sends_each_layer_once() {
    for fault in [Fault::IgnoreRange, Fault::Status(416, vec![]), Fault::Status(501, vec![])] {
        let site = Site::new();
        site.double.behave(|behaviour| behaviour.multi_range = MultiRange::NotImplemented);
        let (_, new) = published(&site, Format::Chunked);
        let want = expected(&site, NEW, LARGE);
        let (blob, _) = layer(&new, 0);
        for when in ["documents", "contents"] {
            site.faults().forget();
            if when == "contents" {
                // The table of contents, and a request that finds out whether several ranges are served.
                site.faults().add("GET", &blob, Fault::Slow(1 << 20, Duration::ZERO), 2);
            }
            site.faults().add("GET", &blob, fault.clone(), 1);
            let pulled = part(&site, NEW, LARGE).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(from(&pulled), [From::Full, From::Chunks], "{fault:?}: {:?}", pulled.fallbacks);
            assert_eq!(files(&site.path("tree")), want, "{fault:?}");
            // What comes in place of a range is the download; after an error there is one, and no more.
            let requests = site.faults().requests();
            let asked = requests.iter().filter(|request| request.path.ends_with(&blob));
            let whole = asked.filter(|request| request.header("range").is_none()).count();
            assert_eq!(whole, usize::from(!matches!(fault, Fault::IgnoreRange)), "{fault:?}, {when}");
            std::fs::remove_dir_all(site.path("tree")).unwrap();
        }
    }
}

#[test]
fn wrong_contents_never_reach_the_tree() {
    for fault in [Fault::Flip, Fault::WrongPart, Fault::Status(404, vec![])] {
        let site = Site::new();
        site.double.behave(|behaviour| behaviour.multi_range = MultiRange::NotImplemented);
        let (_, new) = published(&site, Format::Chunked);
        let want = expected(&site, NEW, LARGE);
        let (blob, _) = layer(&new, 0);
        site.faults().add("GET", &blob, Fault::Slow(1 << 20, Duration::ZERO), 2);
        site.faults().add("GET", &blob, fault.clone(), 1);
        let pulled = part(&site, NEW, LARGE).unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(from(&pulled)[0], From::Full, "{fault:?}");
        assert_eq!(pulled.fallbacks.len(), 1, "{fault:?}: {:?}", pulled.fallbacks);
        assert_eq!(files(&site.path("tree")), want, "{fault:?}");
        assert_eq!(site.left(), Vec::<std::path::PathBuf>::new());
    }
}

/// A table of contents that is not the one of the manifest is none; and what the whole layer is, is compared with the config.
#[test]
fn lies_lead_to_whole_layers_or_to_nothing() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    let want = expected(&site, NEW, LARGE);
    let spoiled = |change: &dyn Fn(&mut Value)| {
        let mut value = manifest(&new);
        change(&mut value);
        let bytes = value.to_string().into_bytes();
        site.double.put_manifest("app", "new", &new.root.0, &bytes);
    };
    spoiled(&|value| {
        let said = value["layers"][0]["annotations"].as_object_mut().unwrap();
        let name = said.keys().find(|name| name.ends_with("manifest-checksum")).unwrap().clone();
        said.insert(name, digest(b"another").into());
    });
    let pulled = part(&site, NEW, LARGE).unwrap();
    assert_eq!(from(&pulled), [From::Full, From::Chunks]);
    assert!(pulled.fallbacks[0].reason.contains("has the digest"), "{:?}", pulled.fallbacks);
    assert_eq!(files(&site.path("tree")), want);
    // Another layer in the place of the first: read whole, it is not what the config says.
    spoiled(&|value| {
        let mut other = value["layers"][1].clone();
        other.as_object_mut().unwrap().remove("annotations");
        value["layers"][0] = other;
    });
    std::fs::remove_dir_all(site.path(".tree.coracle/store")).ok();
    assert!(part(&site, NEW, &["usr/new"]).is_err());
    assert_eq!(files(&site.path("tree")), want, "what was there is there");
    assert_eq!(
        std::fs::read_dir(site.path(".tree.coracle"))
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().file_name() == "new" })
            .count(),
        0
    );
}

/// What the tree has is a source of the next version, if it is what it was.
#[test]
fn a_file_that_was_changed_in_place_is_no_source() {
    let site = Site::new();
    let (_, new) = published(&site, Format::Chunked);
    part(&site, OLD, LARGE).unwrap();
    let kept = site.path("tree/usr/kept7");
    let mut content = std::fs::read(&kept).unwrap();
    content[100] ^= 1;
    std::fs::write(&kept, &content).unwrap();
    site.faults().forget();
    let pulled = part(&site, NEW, LARGE).unwrap();
    assert_eq!(from(&pulled), [From::Chunks; 2], "{:?}", pulled.fallbacks);
    let asked: u64 = ranges(&site, &layer(&new, 0).0).iter().map(|(start, end)| end - start).sum();
    assert!(asked > content.len() as u64 / 2 && asked < 400_000, "{asked}");
    assert_eq!(files(&site.path("tree")), expected(&site, NEW, LARGE));
}
