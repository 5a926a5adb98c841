//! Runs that are cut short, and the ones after them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use coracle_codec::observe::{Observer, Stage};
use coracle_engine::Error;
use coracle_testkit::http::Fault;
use coracle_testkit::image::Rng;
use coracle_testkit::oci::{Compression, digest, image};

use super::site::{LIMIT, Site, files};

/// Stops once some bytes have come.
struct StopAfter {
    bytes: u64,
    reached: AtomicBool,
}

impl Observer for StopAfter {
    fn progress(&self, stage: Stage, done: u64, total: u64) {
        assert!(stage == Stage::Copy && done <= total);
        if done >= self.bytes {
            self.reached.store(true, Ordering::SeqCst);
        }
    }

    fn cancelled(&self) -> bool {
        self.reached.load(Ordering::SeqCst)
    }
}

/// 8 MB that nobody can compress, in a registry that gives them slowly.
fn slow_image(site: &Site) -> (String, coracle_testkit::oci::Bundle) {
    let bundle = image("amd64", &[Rng::new(1).bytes(8 << 20)], Compression::None).unwrap();
    let source = site.put_registry("slow", "t", &bundle);
    (source, bundle)
}

#[test]
fn the_next_run_goes_on() {
    for destination in ["oci:{}/out:x", "dir:{}/out"] {
        let site = Site::new();
        let (source, bundle) = slow_image(&site);
        let layer = digest(&bundle.blobs[0]);
        site.faults().add("GET", &layer, Fault::Slow(100_000, Duration::from_millis(10)), 1);
        let stop = StopAfter { bytes: 2_000_000, reached: AtomicBool::new(false) };
        let start = Instant::now();
        let error = site.copy_as(&source, destination, None, &stop).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(start.elapsed() < LIMIT);
        let half = files(&site.path("out"));
        assert!(half.keys().any(|name| name.starts_with(b".coracle-partial/")), "{:?}", half.keys());
        site.faults().forget();
        let copied = site.copy(&source, destination).unwrap();
        assert_eq!(copied.digest.to_string(), bundle.digest());
        let asked: Vec<_> = site
            .faults()
            .requests()
            .into_iter()
            .filter(|r| r.method == "GET" && r.path.contains(&layer))
            .collect();
        let range = asked[0].header("range").unwrap_or_default();
        let from: u64 = range.trim_start_matches("bytes=").split('-').next().unwrap().parse().unwrap();
        assert!(from >= 1_000_000, "{range}");
        assert!(site.faults().sent() < 7_500_000, "{}", site.faults().sent());
        assert!(files(&site.path("out")).keys().all(|name| !name.starts_with(b".coracle")));
    }
}

/// What an earlier run left is compared like everything else: damaged, it is fetched again from its start.
#[test]
fn a_damaged_half_is_not_used() {
    let site = Site::new();
    let (source, bundle) = slow_image(&site);
    let name = digest(&bundle.blobs[0]).replace(':', "-");
    for junk in [vec![7; 3_000_000], vec![7; 9 << 20]] {
        let folder = site.path("out/.coracle-partial");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(&name), junk).unwrap();
        let copied = site.copy(&source, "oci:{}/out:x").unwrap();
        assert_eq!(copied.digest.to_string(), bundle.digest());
        let digits = name.replace("sha256-", "");
        assert!(std::fs::read(site.path("out/blobs/sha256").join(digits)).unwrap() == bundle.blobs[0]);
        std::fs::remove_dir_all(site.path("out")).unwrap();
    }
}

/// Interrupted while it pushes, and while nothing comes at all.
#[test]
fn stopping_does_not_take_long() {
    let site = Site::new();
    let (source, _) = slow_image(&site);
    site.copy(&source, "oci:{}/here:x").unwrap();
    for (from, to, method) in
        [("oci:{}/here:x", "docker://{double}/to:x", "PUT"), (&source, "oci-archive:{}/a.tar:x", "GET")]
    {
        site.faults().add(method, "/blobs/", Fault::Silent(Duration::from_secs(8)), 2);
        let stop = StopAfter { bytes: 0, reached: AtomicBool::new(false) };
        let start = Instant::now();
        let error = site.copy_as(from, to, None, &stop).unwrap_err();
        assert!(matches!(error, Error::Cancelled), "{error}");
        assert!(start.elapsed() < Duration::from_secs(4), "{from} -> {to}: {:?}", start.elapsed());
        site.faults().clear();
        assert!(!site.path("a.tar").exists() && site.double.manifest("to", "x").is_none());
        assert_eq!(site.left(), Vec::<std::path::PathBuf>::new());
    }
    // And the next run does what the first was to do.
    site.copy("oci:{}/here:x", "docker://{double}/to:x").unwrap();
}

/// Wrong bytes from a mirror: fetched again from the registry itself, in the same run.
#[test]
fn a_lying_mirror_costs_bandwidth_only() {
    let site = Site::new();
    let (source, bundle) = slow_image(&site);
    // The registry is its own mirror here: one flipped bit, then the truth.
    site.faults().add("GET", &digest(&bundle.blobs[0]), Fault::Flip, 1);
    let copied = site.copy(&source, "oci:{}/out:x").unwrap();
    assert_eq!(copied.digest.to_string(), bundle.digest());
    assert_eq!(site.faults().count("GET", &digest(&bundle.blobs[0])), 2);
}
