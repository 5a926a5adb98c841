//! Pruning and choosing what to start from.

use std::time::{Duration, SystemTime};

use coracle_codec::artifact::Dialect;
use coracle_codec::observe::Quiet;
use coracle_engine::artifact::create::To;
use coracle_engine::artifact::list;
use coracle_engine::artifact::prune::{self, Pruned};
use coracle_engine::artifact::tags::{self, Choice};
use coracle_engine::{Context, Error};
use coracle_testkit::image::text;
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::tar_builder::TarBuilder;

use super::journey::{create, request};
use crate::images::site::Site;

/// Version `n` of an image, made on day `n` of a month.
fn version(n: u64) -> Bundle {
    let layer = TarBuilder::new().file("data", [text(1, 40_000), text(100 + n, 500)].concat()).finish();
    let bundle = image("amd64", &[layer], Compression::Gzip).unwrap();
    // The day stands in the config, so config and manifest are other ones.
    let config = bundle.blobs.last().unwrap();
    let dated = String::from_utf8(config.clone()).unwrap().replace("2026-01-02", &format!("2026-01-{n:02}"));
    let (old, new) = (coracle_testkit::oci::digest(config), coracle_testkit::oci::digest(dated.as_bytes()));
    let manifest = String::from_utf8(bundle.root.1.clone()).unwrap().replace(&old, &new);
    let mut dated_bundle = bundle.clone();
    *dated_bundle.blobs.last_mut().unwrap() = dated.into_bytes();
    dated_bundle.root.1 = manifest.into_bytes();
    dated_bundle
}

fn site() -> Site {
    let site = Site::new();
    for n in 1..=5 {
        site.put_registry("app", &format!("1.{n}"), &version(n));
    }
    site
}

fn context(site: &Site) -> Context<'static> {
    Context { observer: &Quiet, temp_dir: site.path("tmp") }
}

fn choose(site: &Site, name: &str, choice: Choice) -> Result<Vec<String>, Error> {
    let found = tags::sources(&site.name(name), &choice, None, &site.environment(), &context(site))?;
    Ok(found.iter().map(|name| name.to_string().rsplit(':').next().unwrap().to_owned()).collect())
}

#[test]
fn earlier_images_by_version_by_age_and_by_pattern() {
    let site = site();
    site.put_registry("app", "1.3-again", &version(3));
    site.put_registry("app", "latest", &version(5));
    site.put_registry(
        "app",
        "sha256-0123456789012345678901234567890123456789012345678901234567890123",
        &version(2),
    );
    let new = "docker://{double}/app:1.5";
    assert_eq!(choose(&site, new, Choice::Last(2)).unwrap(), ["1.4", "1.3"]);
    assert_eq!(choose(&site, new, Choice::Last(9)).unwrap(), ["1.4", "1.3", "1.2", "1.1"]);
    let newest = "docker://{double}/app:latest";
    assert_eq!(choose(&site, newest, Choice::Last(2)).unwrap(), ["1.4", "1.3-again"], "two tags, one image");
    assert_eq!(choose(&site, new, Choice::Matching("1.[".into())).unwrap(), [""; 0]);
    assert_eq!(choose(&site, new, Choice::Matching("1.?".into())).unwrap(), ["1.1", "1.2", "1.3", "1.4"]);
}

fn prune(site: &Site, change: impl FnOnce(&mut prune::Request)) -> Result<Pruned, Error> {
    let mut request = prune::Request {
        image: site.name("docker://{double}/app:1.5"),
        platform: None,
        keep_sources: None,
        older_than: None,
        // The sixth of January 2026.
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_657_600),
        dry_run: false,
    };
    change(&mut request);
    prune::run(&request, &site.environment(), &context(site))
}

fn listed(site: &Site) -> usize {
    let name = site.name("docker://{double}/app:1.5");
    let listed = list::run(&name, None, false, &site.environment(), &context(site)).unwrap();
    listed.targets[0].deltas.len()
}

#[test]
fn old_deltas_go_and_nothing_else() {
    for referrers in [true, false] {
        let site = site();
        site.double.behave(|behaviour| behaviour.referrers = referrers);
        let old: Vec<String> = (1..5).map(|n| format!("docker://{{double}}/app:1.{n}")).collect();
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        let new = "docker://{double}/app:1.5";
        create(&site, &request(&site, &old, new, To::Registry(None), &[Dialect::OciDelta, Dialect::Coracle]))
            .unwrap();
        assert_eq!(listed(&site), 8);
        let dry = prune(&site, |r| {
            r.keep_sources = Some(3);
            r.dry_run = true;
        })
        .unwrap();
        assert_eq!((dry.removed.len(), dry.kept.len(), listed(&site)), (2, 6, 8));
        // Both rules: the oldest source is out by both, the second by age alone.
        let both = prune(&site, |r| {
            r.keep_sources = Some(3);
            r.older_than = Some(Duration::from_secs(3 * 86_400));
        })
        .unwrap();
        assert_eq!((both.removed.len(), listed(&site)), (2, 6));
        let aged = prune(&site, |r| r.older_than = Some(Duration::from_secs(3 * 86_400))).unwrap();
        assert_eq!((aged.removed.len(), listed(&site)), (2, 4));
        let last = prune(&site, |r| r.keep_sources = Some(0)).unwrap();
        assert_eq!((last.removed.len(), listed(&site)), (4, 0));
        for n in 1..=5 {
            assert!(site.double.manifest("app", &format!("1.{n}")).is_some(), "image {n}");
        }
    }
}

#[test]
fn a_registry_without_delete_says_so() {
    let site = site();
    site.double.behave(|behaviour| behaviour.delete = false);
    let new = "docker://{double}/app:1.5";
    create(
        &site,
        &request(&site, &["docker://{double}/app:1.4"], new, To::Registry(None), &[Dialect::OciDelta]),
    )
    .unwrap();
    let error = prune(&site, |r| r.keep_sources = Some(0)).unwrap_err().to_string();
    assert!(error.contains("does not allow deleting"), "{error}");
    assert_eq!(listed(&site), 1);
}
