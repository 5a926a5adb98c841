//! Sources that are not here: their layers may be, or deltas may lead to them.

use coracle_codec::artifact::{Dialect, Payload};
use coracle_engine::artifact::create::To;
use coracle_engine::pull::From;
use coracle_engine::pull::plan::Way;
use coracle_testkit::image::{binary, mutate};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::tar_builder::TarBuilder;

use crate::artifacts::journey::{create, request as delta_request};
use crate::images::site::Site;

use super::{check, from, nothing_over, pull, store};

/// Versions 1 to `count` of an image with a base that stays and a program that changes a little each time.
fn versions(site: &Site, count: usize) -> Vec<(String, Bundle)> {
    let base = TarBuilder::new().dir("etc").file("etc/base", binary(1, 40_000)).finish();
    let mut program = binary(2, 1_500_000);
    (1..=count)
        .map(|number| {
            program = mutate(&program, number as u64, 20);
            let top = TarBuilder::new().file_mode("program", 0o755, program.clone()).finish();
            let bundle = image("amd64", &[base.clone(), top], Compression::Gzip).unwrap();
            (site.put_registry("app", &number.to_string(), &bundle), bundle)
        })
        .collect()
}

fn delta(site: &Site, old: &str, new: &str) {
    create(site, &delta_request(site, &[old], new, To::Registry(None), &[Dialect::Coracle])).unwrap();
}

#[test]
fn a_chain_of_deltas_is_cheaper_than_the_whole() {
    let site = Site::new();
    let images = versions(&site, 4);
    for pair in images.windows(2) {
        delta(&site, &pair[0].0, &pair[1].0);
    }
    pull(&site, &images[0].0).unwrap();
    let pulled = pull(&site, &images[3].0).unwrap();
    assert_eq!(from(&pulled), [From::Store, From::Delta(Payload::Native)]);
    let layer = &pulled.planned.layers[1];
    assert_eq!((layer.way, layer.through.len()), (Way::Delta(0), 2), "{layer:?}");
    assert!(pulled.received_bytes * 5 < pulled.planned.full_bytes, "{pulled:?}");
    check(&site, &pulled, &images[3].1);
    // The images on the way are nobody's.
    assert_eq!(store(&site).refs().unwrap().len(), 2);
    nothing_over(&site);
}

#[test]
fn a_chain_that_breaks_is_no_reason_to_fail() {
    let site = Site::new();
    let images = versions(&site, 3);
    for pair in images.windows(2) {
        delta(&site, &pair[0].0, &pair[1].0);
    }
    pull(&site, &images[0].0).unwrap();
    // The middle image's delta is gone from the registry, though it is listed.
    let artifact = site.double.about("app", &images[1].1.digest()).remove(0);
    let manifest = site.double.manifest("app", &artifact).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let content =
        manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    site.faults().add("GET", &content, coracle_testkit::http::Fault::Flip, usize::MAX);
    let pulled = pull(&site, &images[2].0).unwrap();
    assert_eq!(from(&pulled), [From::Store, From::Full]);
    assert_eq!(pulled.fallbacks.len(), 1);
    check(&site, &pulled, &images[2].1);
    nothing_over(&site);
}

#[test]
fn a_source_fits_if_its_layers_are_here() {
    let site = Site::new();
    let images = versions(&site, 2);
    delta(&site, &images[0].0, &images[1].0);
    // The same layers under another config.
    let twin = twin(&images[0].1);
    let name = site.put_registry("twin", "1", &twin);
    pull(&site, &name).unwrap();
    let pulled = pull(&site, &images[1].0).unwrap();
    assert_eq!(from(&pulled), [From::Store, From::Delta(Payload::Native)], "{:?}", pulled.notes);
    check(&site, &pulled, &images[1].1);
}

/// An image with the same layers and another config.
fn twin(of: &Bundle) -> Bundle {
    let digest = coracle_testkit::oci::digest;
    let mut manifest: serde_json::Value = serde_json::from_slice(&of.root.1).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let mut blobs = of.blobs.clone();
    let old = blobs.iter().position(|blob| digest(blob) == config).unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&blobs[old]).unwrap();
    value["author"] = "somebody else".into();
    blobs[old] = value.to_string().into_bytes();
    manifest["config"]["digest"] = digest(&blobs[old]).into();
    manifest["config"]["size"] = blobs[old].len().into();
    Bundle { blobs, root: (of.root.0.clone(), manifest.to_string().into_bytes()) }
}
