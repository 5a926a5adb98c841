//! Pulling into the store, from a registry in memory whose answers can be spoiled.

mod balena;
mod chunked;
mod faults;
mod journey;
mod predicted;
mod routes;
mod stargz;
mod subset;

use std::num::NonZeroUsize;
use std::sync::Mutex;

use coracle_codec::artifact::Dialect;
use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_engine::artifact::create::To;
use coracle_engine::pull::plan::Prices;
use coracle_engine::pull::{Event, From, Pulled, Request, run};
use coracle_engine::{Context, Error};
use coracle_store::{FsckOptions, GcOptions, Store};
use coracle_testkit::oci::Bundle;

use crate::artifacts::journey::{create, pair, request as delta_request};
use crate::images::site::Site;

pub fn request(site: &Site, image: &str) -> Request {
    Request {
        full: None,
        image: site.name(image),
        bundle: None,
        origin: None,
        name: None,
        sources: Vec::new(),
        trees: Vec::new(),
        platform: None,
        to: None,
        keep: false,
        private: false,
        deltas: true,
        dry_run: false,
        jobs: NonZeroUsize::new(2).unwrap(),
        threads: NonZeroUsize::new(2).unwrap(),
        limits: Default::default(),
        native_limits: Default::default(),
        // Images here are so small that requests would cost more than bytes.
        prices: Prices { request: 0, full_mib: 0, tar_diff_mib: 0, native_mib: 0 },
    }
}

pub fn pull(site: &Site, image: &str) -> Result<Pulled, Error> {
    pull_as(site, &request(site, image)).0
}

/// Pulls, and gives the kinds of events besides.
pub fn pull_as(site: &Site, request: &Request) -> (Result<Pulled, Error>, Vec<&'static str>) {
    let events = Mutex::new(Vec::new());
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    let result = run(request, &site.environment(), &context, &|event| {
        events.lock().unwrap().push(match event {
            Event::Planned(_) => "planned",
            Event::Layer(_) => "layer",
            Event::FellBack(_) => "fell-back",
            _ => "other",
        });
    });
    (result, events.into_inner().unwrap())
}

/// Versions `old` and `new` of `app` in the registry, with deltas between them in these dialects.
pub fn published(site: &Site, dialects: &[Dialect]) -> (Bundle, Bundle) {
    let (old, new) = pair("amd64");
    let from = site.put_registry("app", "old", &old);
    let to = site.put_registry("app", "new", &new);
    if !dialects.is_empty() {
        create(site, &delta_request(site, &[&from], &to, To::Registry(None), dialects)).unwrap();
    }
    (old, new)
}

pub const OLD: &str = "docker://{double}/app:old";
pub const NEW: &str = "docker://{double}/app:new";

pub fn store(site: &Site) -> Store {
    Store::open(&site.path("store")).unwrap()
}

/// That the store has exactly this image under its name, bit for bit, and that nothing in it is damaged.
pub fn check(site: &Site, pulled: &Pulled, bundle: &Bundle) {
    let store = store(site);
    assert_eq!(pulled.root.to_string(), bundle.digest());
    let held = store.reference(&pulled.name).unwrap().unwrap();
    assert_eq!(held.root.digest, pulled.root);
    let manifest = store.document(&pulled.digest).unwrap().unwrap();
    assert!(
        bundle.blobs.iter().any(|blob| blob == manifest.as_bytes()) || bundle.root.1 == manifest.as_bytes()
    );
    let value: serde_json::Value = serde_json::from_slice(manifest.as_bytes()).unwrap();
    let config: Digest = value["config"]["digest"].as_str().unwrap().parse().unwrap();
    assert_eq!(config, pulled.config);
    let config: serde_json::Value =
        serde_json::from_slice(store.document(&config).unwrap().unwrap().as_bytes()).unwrap();
    for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
        let diff_id: Digest = diff_id.as_str().unwrap().parse().unwrap();
        let mut tar = Vec::new();
        std::io::Read::read_to_end(&mut store.layer(&diff_id).unwrap().unwrap().reader(), &mut tar).unwrap();
        assert_eq!(Digest::of(&tar), diff_id);
    }
    let report =
        store.fsck(&FsckOptions { deep: true, ..FsckOptions::new(NonZeroUsize::MIN) }, &Quiet).unwrap();
    assert!(report.damages.is_empty(), "{:?}", report.damages);
}

/// That nothing but what names need is in the store, and nothing in the folder for temporary files.
pub fn nothing_over(site: &Site) {
    let store = store(site);
    let options =
        GcOptions { partial_age: std::time::Duration::ZERO, ..GcOptions::new(std::time::SystemTime::now()) };
    store.gc(&options, &Quiet).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.unused, usage.partial, usage.leases), (0, 0, 0), "{usage:?}");
    assert_eq!(site.left(), Vec::<std::path::PathBuf>::new());
}

pub fn from(pulled: &Pulled) -> Vec<From> {
    pulled.layers.iter().map(|layer| layer.from).collect()
}
