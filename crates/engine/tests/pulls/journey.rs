//! One version, then the next: what is fetched, and what is there afterwards.

use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::tardiff::Version;
use coracle_engine::Error;
use coracle_engine::artifact::create::To;
use coracle_engine::pull::plan::Way;
use coracle_engine::pull::{From, Request};
use coracle_testkit::oci::index;

use crate::artifacts::journey::{create, pair, request as delta_request};
use crate::images::site::Site;

use super::{NEW, OLD, check, from, nothing_over, published, pull, pull_as, request, store};

const NATIVE: From = From::Delta(Payload::Native);

#[test]
fn the_next_version_comes_by_delta() {
    for (dialect, payload) in
        [(Dialect::Coracle, Payload::Native), (Dialect::OciDelta, Payload::TarDiff(Version::V1))]
    {
        let site = Site::new();
        let (old, new) = published(&site, &[dialect]);
        let first = pull(&site, OLD).unwrap();
        assert_eq!(from(&first), [From::Full; 3]);
        check(&site, &first, &old);
        site.faults().forget();
        let second = pull(&site, NEW).unwrap();
        // The last layer is so small that it goes as it is.
        assert_eq!(from(&second), [From::Store, From::Delta(payload), From::Delta(payload), From::Full]);
        check(&site, &second, &new);
        // Manifest, config, two lists, the delta's manifest, three blobs; https is tried first.
        let asked = site.faults().requests();
        assert_eq!(asked.len(), 8, "{:?}", asked.iter().map(|r| r.path.clone()).collect::<Vec<_>>());
        assert_eq!(site.faults().count("GET", "/referrers/"), 1);
        assert_eq!(second.received_bytes, site.faults().sent());
        let delta: u64 = second.layers.iter().map(|layer| layer.bytes).sum();
        assert!(delta * 5 < second.planned.full_bytes, "{delta} of {}", second.planned.full_bytes);
        nothing_over(&site);
    }
}

#[test]
fn what_is_there_is_not_asked_for_again() {
    let site = Site::new();
    published(&site, &[]);
    pull(&site, OLD).unwrap();
    site.faults().forget();
    let again = pull(&site, OLD).unwrap();
    assert!(again.up_to_date && again.layers.is_empty());
    assert_eq!(site.faults().requests().len(), 1, "one look at the tag");
}

#[test]
fn an_image_without_deltas_takes_three_requests_more() {
    for referrers in [true, false] {
        let site = Site::new();
        site.double.behave(|b| b.referrers = referrers);
        published(&site, &[]);
        site.faults().forget();
        let plain = Request { deltas: false, ..request(&site, OLD) };
        pull_as(&site, &plain).0.unwrap();
        let without = site.faults().requests().len();
        site.faults().forget();
        let pulled = pull(&site, NEW).unwrap();
        assert_eq!(from(&pulled)[0], From::Store);
        let with = site.faults().requests().len();
        // Three layers each: of the new image one is here, and it has one more.
        assert!(with <= without + 3, "{with} and {without}");
    }
}

#[test]
fn deltas_between_layers_are_used() {
    let site = Site::new();
    let (_, new) = published(&site, &[Dialect::Flatpak]);
    pull(&site, OLD).unwrap();
    let pulled = pull(&site, NEW).unwrap();
    assert!(matches!(from(&pulled)[1], From::Delta(Payload::TarDiff(_))), "{:?}", from(&pulled));
    check(&site, &pulled, &new);
}

#[test]
fn a_dry_run_fetches_no_layer() {
    let site = Site::new();
    published(&site, &[Dialect::Coracle]);
    pull(&site, OLD).unwrap();
    site.faults().forget();
    let (pulled, events) = pull_as(&site, &Request { dry_run: true, ..request(&site, NEW) });
    let pulled = pulled.unwrap();
    let ways: Vec<Way> = pulled.planned.layers.iter().map(|layer| layer.way).collect();
    assert_eq!(ways, [Way::Have, Way::Delta(0), Way::Delta(0), Way::Full]);
    assert_eq!(events, ["planned"]);
    assert!(pulled.layers.is_empty());
    assert!(store(&site).reference(&pulled.name).unwrap().is_none());
    // The plan says what the pull then does.
    let real = pull(&site, NEW).unwrap();
    assert_eq!(real.layers.iter().map(|layer| layer.bytes).sum::<u64>(), pulled.planned.bytes);
}

#[test]
fn another_place_gives_layers_and_sources_of_deltas() {
    let site = Site::new();
    let (old, new) = published(&site, &[Dialect::Coracle]);
    let here = site.put("here", &old);
    let pulled =
        pull_as(&site, &Request { sources: vec![site.name(&here)], ..request(&site, NEW) }).0.unwrap();
    assert_eq!(from(&pulled), [From::Store, NATIVE, NATIVE, From::Full], "imported, then used");
    check(&site, &pulled, &new);
    nothing_over(&site);
}

#[test]
fn a_name_in_the_store_can_be_chosen() {
    let site = Site::new();
    let (old, _) = published(&site, &[]);
    let layout = site.put("layout", &old);
    let (refused, _) = pull_as(&site, &request(&site, &layout));
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    let named = Request { name: Some("localhost/mine:1".parse().unwrap()), ..request(&site, &layout) };
    let pulled = pull_as(&site, &named).0.unwrap();
    check(&site, &pulled, &old);
    assert_eq!(store(&site).refs().unwrap()[0].name.to_string(), "localhost/mine:1");
}

#[test]
fn from_the_store_to_everywhere() {
    let site = Site::new();
    let (old, _) = published(&site, &[]);
    let to = Some(site.name("docker-archive:{}/out.tar:localhost/app:old"));
    let pulled = pull_as(&site, &Request { to, ..request(&site, OLD) }).0.unwrap();
    assert_eq!(pulled.copied.unwrap().digest, pulled.config);
    // And back into another store, from the archive.
    let copied = site.copy("docker-archive:{}/out.tar", "store:localhost/copy:1").unwrap();
    assert_eq!(copied.images, 1);
    let copied = site.copy("store:localhost/copy:1", "oci:{}/again:x").unwrap();
    assert!(!copied.digest_kept);
    let kept = site.copy(OLD, "store:localhost/straight:1").unwrap();
    assert!(kept.digest_kept);
    assert_eq!(kept.digest.to_string(), old.digest());
    let held = store(&site).reference(&"localhost/straight:1".parse().unwrap()).unwrap().unwrap();
    assert_eq!((held.root.digest, held.tracked), (kept.digest, false));
}

#[test]
fn of_an_index_the_image_for_the_platform() {
    let site = Site::new();
    let (arm_old, arm_new) = pair("arm64");
    let (amd_old, amd_new) = pair("amd64");
    let old = index(&[("amd64", amd_old), ("arm64", arm_old)]);
    let new = index(&[("amd64", amd_new), ("arm64", arm_new.clone())]);
    for (bundle, name) in [(&old, OLD), (&new, NEW)] {
        site.copy(&site.put(&bundle.digest()[7..], bundle), name).unwrap();
    }
    create(&site, &delta_request(&site, &[OLD], NEW, To::Registry(None), &[Dialect::Coracle])).unwrap();
    let arm =
        |image: &str| Request { platform: Some("linux/arm64".parse().unwrap()), ..request(&site, image) };
    pull_as(&site, &arm(OLD)).0.unwrap();
    let pulled = pull_as(&site, &arm(NEW)).0.unwrap();
    assert_eq!(from(&pulled)[1], NATIVE);
    assert_eq!((pulled.root.to_string(), pulled.digest.to_string()), (new.digest(), arm_new.digest()));
    // The other platform of the same index joins it under the name.
    pull(&site, NEW).unwrap();
    let held = store(&site).reference(&pulled.name).unwrap().unwrap();
    assert_eq!(held.images.len(), 2);
    // An update looks after both.
    let like = request(&site, OLD);
    let context =
        coracle_engine::Context { observer: &coracle_codec::observe::Quiet, temp_dir: site.path("tmp") };
    let updated =
        coracle_engine::pull::update::update(&like, &site.environment(), &context, &|_, _| {}).unwrap();
    assert_eq!(updated.len(), 2);
    let results: Vec<_> = updated.iter().flat_map(|image| image.result.as_ref().unwrap()).collect();
    assert_eq!(results.len(), 3, "two platforms of one");
    assert!(results.iter().all(|pulled| pulled.up_to_date));
}
