//! What stands between the contents of a chunked layer is predicted from an old layer. Where that is wrong it is fetched, and
//! nothing is fetched twice.

use std::collections::BTreeMap;

use coracle_codec::compress::{ZstdWriter, ZstdWriterOptions, decoder};
use coracle_engine::convert::Format;
use coracle_engine::pull::{From, Headers, Pulled};
use coracle_testkit::http::{Fault, Request};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, digest, image};
use coracle_testkit::registry::MultiRange;
use coracle_testkit::tar_builder::{Header, Magic, TarBuilder};
use serde_json::Value;

use crate::images::site::Site;

use super::chunked::{converted, layer, manifest, ranges};
use super::{NEW, OLD, check, from, nothing_over, pull, store};

/// A layer of many files, the last of which are different in each version; with names of owners if asked for.
fn version(number: u64, named: bool) -> Bundle {
    let mut tar = TarBuilder::new();
    for name in 0..40 {
        tar.file(format!("usr/kept{name}"), binary(name, 20_000 + 911 * name as usize));
        if name % 8 == 0 {
            tar.file(format!("usr/changes{name}"), mutate(&binary(500 + name, 60_000), number, 3));
            tar.file(format!("usr/only-in{number}-{name}"), text(name + number, 3000));
        }
    }
    if named {
        let header =
            Header { size: 5, uname: b"daemon".into(), magic: Magic::Gnu, ..Header::new("usr/named") };
        tar.entry(&header, b"named");
    }
    image("amd64", &[tar.finish()], Compression::Gzip).unwrap()
}

/// Both versions in the registry; the old one in the store.
fn published(site: &Site, named: bool) -> Bundle {
    converted(site, "old", &version(1, false), Format::Chunked);
    let new = converted(site, "new", &version(2, named), Format::Chunked);
    pull(site, OLD).unwrap();
    site.faults().forget();
    new
}

/// Where a part of a layer is, as its annotation says: offset, bytes.
fn part(bundle: &Bundle, name: &str) -> (u64, u64) {
    let said = manifest(bundle)["layers"][0]["annotations"].clone();
    let said: BTreeMap<String, String> = serde_json::from_value(said).unwrap();
    let text = said.iter().find(|(key, _)| key.ends_with(name)).unwrap().1;
    let numbers: Vec<u64> = text.split(':').map(|number| number.parse().unwrap()).collect();
    (numbers[0], numbers[0] + numbers[1])
}

/// The ranges that were asked for in the order of the blob, each byte once.
fn asked_once(site: &Site, bundle: &Bundle) -> Vec<(u64, u64)> {
    let mut asked = ranges(site, &layer(bundle, 0).0);
    asked.sort_unstable();
    assert!(asked.windows(2).all(|pair| pair[0].1 <= pair[1].0), "a byte was asked for twice: {asked:?}");
    asked
}

fn headers(pulled: &Pulled) -> Option<Headers> {
    assert_eq!(from(pulled), [From::Chunks], "{:?} {:?}", pulled.notes, pulled.fallbacks);
    assert!(pulled.fallbacks.is_empty());
    pulled.layers[0].headers
}

/// The manifest of the new image changed, in place of the one in the registry.
fn changed(site: &Site, bundle: &Bundle, change: impl FnOnce(&mut Value)) -> Bundle {
    let mut value = manifest(bundle);
    change(&mut value);
    let bytes = value.to_string().into_bytes();
    site.double.put_manifest("app", "new", &bundle.root.0, &bytes);
    Bundle { root: (bundle.root.0.clone(), bytes), blobs: bundle.blobs.clone() }
}

/// As podman before 2024 writes it: without a tar-split.
fn legacy(value: &mut Value) {
    let said: BTreeMap<String, String> =
        serde_json::from_value(value["layers"][0]["annotations"].take()).unwrap();
    let said = said.into_iter().filter(|(name, _)| !name.contains("tarsplit"));
    let said = said.map(|(name, value)| (name.replace("io.github.", "io."), value));
    value["layers"][0]["annotations"] = serde_json::to_value(said.collect::<BTreeMap<_, _>>()).unwrap();
}

#[test]
fn a_layer_like_the_old_one_needs_no_tar_split() {
    let site = Site::new();
    let new = published(&site, false);
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(headers(&pulled), Some(Headers::Predicted));
    check(&site, &pulled, &new);
    nothing_over(&site);
    let (split, _) = part(&new, "tarsplit-position");
    let asked = asked_once(&site, &new);
    assert!(asked.iter().all(|(_, end)| *end < split), "{asked:?} reach into the tar-split at {split}");
    let toc = part(&new, "manifest-position");
    let fetched: u64 = asked.iter().filter(|range| **range != toc).map(|(start, end)| end - start).sum();
    assert_eq!(pulled.layers[0].bytes, fetched);
}

#[test]
fn a_wrong_guess_costs_the_tar_split_and_nothing_else() {
    let site = Site::new();
    let new = published(&site, true);
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(headers(&pulled), Some(Headers::Corrected));
    check(&site, &pulled, &new);
    nothing_over(&site);
    let asked = asked_once(&site, &new);
    assert!(asked.contains(&part(&new, "tarsplit-position")), "{asked:?}");
    let (_, size) = layer(&new, 0);
    assert!(asked.iter().map(|(start, end)| end - start).sum::<u64>() < size / 2, "{asked:?} of {size}");
}

#[test]
fn layers_without_a_tar_split_need_no_bytes_between_files() {
    for named in [false, true] {
        let site = Site::new();
        let new = published(&site, named);
        let new = changed(&site, &new, legacy);
        let pulled = pull(&site, NEW).unwrap();
        let expected = if named { Headers::Corrected } else { Headers::Predicted };
        assert_eq!(headers(&pulled), Some(expected));
        check(&site, &pulled, &new);
        nothing_over(&site);
        let first = asked_once(&site, &new)[0];
        // The first header is at the start of the blob.
        assert_eq!(first.0 == 0, named, "{first:?}");
    }
}

/// As stargz-snapshotter writes it: nobody says where contents end, so that only a prediction spares the rest.
#[test]
fn layers_that_do_not_say_where_contents_end() {
    for named in [false, true] {
        let site = Site::new();
        let new = published(&site, named);
        let (from_toc, to_toc) = part(&new, "manifest-position");
        let blob = site.double.blob("app", &layer(&new, 0).0).unwrap();
        let stored = &blob[from_toc as usize..to_toc as usize];
        let mut json = Vec::new();
        let mut reader = decoder(stored, Default::default()).unwrap().1;
        std::io::Read::read_to_end(&mut reader, &mut json).unwrap();
        let mut toc: Value = serde_json::from_slice(&json).unwrap();
        for entry in toc["entries"].as_array_mut().unwrap() {
            entry.as_object_mut().unwrap().remove("endOffset");
        }
        let json = toc.to_string().into_bytes();
        let mut writer = ZstdWriter::new(Vec::new(), ZstdWriterOptions::default()).unwrap();
        std::io::Write::write_all(&mut writer, &json).unwrap();
        let toc = writer.finish().unwrap();
        let mut odd = blob[..from_toc as usize - 4].to_vec();
        odd.extend((toc.len() as u32).to_le_bytes());
        odd.extend(&toc);
        let name = site.double.put_blob("app", odd.clone());
        let mut new = changed(&site, &new, |value| {
            legacy(value);
            value["layers"][0]["digest"] = name.into();
            value["layers"][0]["size"] = odd.len().into();
            let said = &mut value["layers"][0]["annotations"];
            said["io.containers.zstd-chunked.manifest-checksum"] = digest(&toc).into();
            said["io.containers.zstd-chunked.manifest-position"] =
                format!("{from_toc}:{}:{}:1", toc.len(), json.len()).into();
        });
        new.blobs.push(odd);
        let pulled = pull(&site, NEW).unwrap();
        let expected = if named { Headers::Corrected } else { Headers::Predicted };
        assert_eq!(headers(&pulled), Some(expected));
        check(&site, &pulled, &new);
        nothing_over(&site);
        let bytes: u64 = asked_once(&site, &new).iter().map(|(start, end)| end - start).sum();
        let (_, size) = layer(&new, 0);
        // All of it where the guess was wrong, but once.
        assert_eq!(bytes < size / 2, !named, "{bytes} of {size}");
        assert!(bytes <= size);
    }
}

/// What came before the line broke is not asked for again by the next run.
#[test]
fn a_layer_that_was_cut_off_is_gone_on_with() {
    let site = Site::new();
    let new = published(&site, false);
    let (blob, _) = layer(&new, 0);
    site.double.behave(|behaviour| behaviour.multi_range = MultiRange::NotSatisfiable);
    // The table of contents, the question for several ranges, and two ranges.
    site.faults().add("GET", &blob, Fault::Slow(1 << 20, std::time::Duration::ZERO), 4);
    site.faults().add("GET", &blob, Fault::Status(404, vec![]), 2_000_000);
    pull(&site, NEW).unwrap_err();
    let before = site.faults().requests().len();
    site.faults().clear();
    let kept = store(&site).partial_ranges(&blob.parse().unwrap());
    assert!(std::fs::metadata(&kept).unwrap().len() > 1000);
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(headers(&pulled), Some(Headers::Predicted));
    check(&site, &pulled, &new);
    nothing_over(&site);
    assert!(pulled.resumed_bytes > 1000, "{}", pulled.resumed_bytes);
    let (start, end) = part(&new, "manifest-position");
    assert!(pulled.resumed_bytes > end - start, "{}", pulled.resumed_bytes);
    // One that was answered is in none of the later requests, and neither is the table of contents.
    let requests = site.faults().requests();
    let asked = |requests: &[Request]| -> Vec<String> {
        let blobs = requests.iter().filter(|request| request.path.ends_with(&blob));
        blobs.filter_map(|request| request.header("range").map(str::to_owned)).collect()
    };
    let (first, second) = (asked(&requests[..before]), asked(&requests[before..]));
    let again = first.iter().filter(|range| second.contains(range)).count();
    assert!(!second.contains(&format!("bytes={start}-{}", end - 1)));
    assert!(again + 3 <= first.len(), "{first:?}, and again {second:?}");
}

/// Whatever a registry says to several ranges in one request, it is asked once, and the image is the same.
#[test]
fn several_ranges_are_asked_for_where_they_are_served() {
    for behaviour in
        [MultiRange::Parts, MultiRange::NotImplemented, MultiRange::NotSatisfiable, MultiRange::Whole]
    {
        let site = Site::new();
        let new = published(&site, false);
        site.double.behave(|all| all.multi_range = behaviour);
        let pulled = pull(&site, NEW).unwrap();
        assert_eq!(headers(&pulled), Some(Headers::Predicted), "{behaviour:?}");
        check(&site, &pulled, &new);
        nothing_over(&site);
        let (blob, _) = layer(&new, 0);
        let requests = site.faults().requests();
        let blobs: Vec<&Request> = requests.iter().filter(|r| r.path.ends_with(&blob)).collect();
        let several = blobs.iter().filter(|r| r.header("range").unwrap().contains(',')).count();
        assert_eq!(several, 1, "{behaviour:?}");
        // The table of contents, and all contents in one; or each range by itself.
        assert_eq!(blobs.len() == 2, behaviour == MultiRange::Parts, "{behaviour:?}: {}", blobs.len());
        if behaviour == MultiRange::Parts {
            asked_once(&site, &new);
        }
    }
}

#[test]
fn what_stands_twice_in_a_layer_is_fetched_once() {
    let site = Site::new();
    let layer_with = |twins: &[&str]| {
        let mut tar = TarBuilder::new();
        (0..10).for_each(|name| _ = tar.file(format!("kept{name}"), binary(name, 30_000)));
        twins.iter().for_each(|name| _ = tar.file(name, binary(99, 200_000)));
        image("amd64", &[tar.finish()], Compression::Gzip).unwrap()
    };
    converted(&site, "old", &layer_with(&[]), Format::Chunked);
    let new = converted(&site, "new", &layer_with(&["a", "b", "sub/c"]), Format::Chunked);
    pull(&site, OLD).unwrap();
    site.faults().forget();
    let pulled = pull(&site, NEW).unwrap();
    assert_eq!(headers(&pulled), Some(Headers::Predicted));
    check(&site, &pulled, &new);
    asked_once(&site, &new);
    // Compressed, one of them has nearly 100 kB.
    let bytes = pulled.layers[0].bytes;
    assert!((80_000..120_000).contains(&bytes), "{bytes}");
}
