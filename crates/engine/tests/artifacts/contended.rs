//! Many publishers, no lock: nobody's delta gets lost, whatever goes wrong on the way.

use std::num::NonZeroUsize;
use std::sync::Arc;

use coracle_codec::artifact::Dialect;
use coracle_codec::observe::Quiet;
use coracle_engine::Context;
use coracle_engine::artifact::create::To;
use coracle_engine::artifact::{list, push};
use coracle_testkit::http::Fault;
use coracle_testkit::image::text;
use coracle_testkit::oci::{Compression, image};
use coracle_testkit::tar_builder::TarBuilder;

use super::journey::{create, request};
use crate::images::site::Site;

const PUBLISHERS: usize = 8;

/// A site with a target and so many deltas to it, in archives.
fn prepared() -> Arc<Site> {
    let site = Site::new();
    site.double.behave(|behaviour| behaviour.referrers = false);
    let layer = |n: u64| TarBuilder::new().file("data", [text(1, 3_000), text(n, 200)].concat()).finish();
    let target = image("amd64", &[layer(99)], Compression::Gzip).unwrap();
    let new = site.put("new", &target);
    site.put_registry("app", "new", &target);
    for n in 0..PUBLISHERS {
        let old =
            site.put(&format!("old{n}"), &image("amd64", &[layer(n as u64)], Compression::Gzip).unwrap());
        let to = To::Image(site.name(&format!("oci-archive:{{}}/{n}.tar")));
        create(&site, &request(&site, &[&old], &new, to, &[Dialect::OciDelta])).unwrap();
    }
    Arc::new(site)
}

fn publish(site: &Site, n: usize, to: &str) -> Result<(), coracle_engine::Error> {
    let request = push::Request {
        delta: site.name(&format!("oci-archive:{{}}/{n}.tar")),
        to: site.name(to),
        tagged: false,
        jobs: NonZeroUsize::MIN,
    };
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    push::run(&request, &site.environment(), &context).map(|_| ())
}

fn count(site: &Site, repair: bool) -> (usize, usize) {
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    let name = site.name("docker://{double}/app:new");
    let listed = list::run(&name, None, repair, &site.environment(), &context).unwrap();
    (listed.targets[0].deltas.len(), listed.repaired.len())
}

/// All publish at once; `faults` says what goes wrong in round `n`. Returns how many succeeded.
fn round(site: &Arc<Site>, fault: Option<(&str, &str, Fault)>) -> usize {
    if let Some((method, part, fault)) = fault {
        site.faults().add(method, part, fault, 3);
    }
    let threads: Vec<_> = (0..PUBLISHERS)
        .map(|n| {
            let site = Arc::clone(site);
            std::thread::spawn(move || publish(&site, n, "docker://{double}/app"))
        })
        .collect();
    let done = threads
        .into_iter()
        .filter(|_| true)
        .map(|thread| thread.join().unwrap())
        .filter(Result::is_ok)
        .count();
    site.faults().clear();
    done
}

#[test]
fn eight_publishers_in_fifty_rounds() {
    let site = prepared();
    let layer = TarBuilder::new().file("data", [text(1, 3_000), text(99, 200)].concat()).finish();
    let target = image("amd64", &[layer], Compression::Gzip).unwrap();
    let (mut lost, mut failed) = (0, 0);
    for n in 0..50 {
        // A new beginning: no list, no markers.
        site.double.forget_repository("app");
        site.put_registry("app", "new", &target);
        let fault = match n % 5 {
            0 | 1 => None,
            2 => Some(("PUT", "manifests/sha256-", Fault::Status(503, Vec::new()))),
            3 => Some(("PUT", "manifests/sha256-", Fault::LoseAnswer)),
            _ => Some(("GET", "manifests/sha256-", Fault::Status(500, Vec::new()))),
        };
        let done = round(&site, fault);
        failed += PUBLISHERS - done;
        let (listed, _) = count(&site, false);
        // Whoever was told that it worked is in the list.
        if listed < done {
            lost += 1;
        }
        // And the others are, as soon as somebody looks after it: their markers are there.
        let (all, _) = count(&site, true);
        assert!(all >= listed && all >= done, "round {n}: {all} after repair, {listed} before, {done} done");
        if done == PUBLISHERS {
            assert_eq!(all, PUBLISHERS, "round {n}");
        }
    }
    assert_eq!(lost, 0, "lists that lacked a published delta");
    assert!(failed < 50 * PUBLISHERS / 2, "{failed} publishers gave up");
}

#[test]
fn a_read_that_fails_never_empties_the_list() {
    let site = prepared();
    publish(&site, 0, "docker://{double}/app").unwrap();
    publish(&site, 1, "docker://{double}/app").unwrap();
    assert_eq!(count(&site, false).0, 2);
    for status in [401, 403, 429, 500, 503] {
        site.faults().add("GET", "manifests/sha256-", Fault::Status(status, Vec::new()), 50);
        assert!(publish(&site, 2, "docker://{double}/app").is_err(), "{status}");
        site.faults().clear();
        assert_eq!(count(&site, false).0, 2, "{status}");
    }
    // The marker was pushed before: the next one who publishes lists it too.
    publish(&site, 3, "docker://{double}/app").unwrap();
    assert_eq!(count(&site, false).0, 4);
}

#[test]
fn repair_lists_what_a_crash_left_out() {
    let site = prepared();
    publish(&site, 0, "docker://{double}/app").unwrap();
    site.faults().add("PUT", "manifests/sha256-", Fault::Status(403, Vec::new()), 50);
    assert!(publish(&site, 1, "docker://{double}/app").is_err());
    site.faults().clear();
    assert_eq!(count(&site, false).0, 1);
    assert_eq!(count(&site, true), (2, 1));
    assert_eq!(count(&site, true), (2, 0));
}
