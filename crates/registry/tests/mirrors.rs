//! Mirrors: used when they serve, passed over when they do not.

use coracle_registry::config::Registries;
use coracle_registry::{Client, Error, Settings};
use coracle_testkit::http::Fault;
use coracle_testkit::registry::Behaviour;
use coracle_testkit::service::free_port;
use tempfile::TempDir;

use crate::place::{Place, blob, bytes, pull, push_image, run, settings};

/// A client for which `registry` has the mirrors `mirrors`, in order.
fn client(registry: &str, mirrors: &[String]) -> (Client, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("registries.conf");
    let mirrors: String = mirrors
        .iter()
        .map(|mirror| format!("[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n"))
        .collect();
    let text = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n{mirrors}");
    std::fs::write(&file, text).unwrap();
    let registries = Registries::load(Some(&file), &[]).unwrap();
    (Client::new(Settings { registries, ..settings() }), dir)
}

#[test]
fn a_mirror_serves_pulls_and_gets_no_pushes() {
    run(async {
        let (home, mirror) = (Place::double(Behaviour::default()), Place::double(Behaviour::default()));
        let layer = bytes(1, 100_000);
        let (known, _dir) = client(&home.server.host(), &[format!("{}/copy", mirror.server.host())]);
        let document = push_image(&known, &home.repository("x"), "t", &layer).await;
        assert!(mirror.faults().requests().is_empty());
        push_image(&mirror.client(), &mirror.repository("copy/x"), "t", &layer).await;
        home.faults().forget();
        let fetched = known.manifest(&home.repository("x").with_tag("t").unwrap()).await.unwrap();
        assert_eq!((fetched.raw.digest(), fetched.host), (document.digest(), mirror.server.host()));
        assert!(pull(&known, &home.repository("x"), &blob(&layer), 0).await.unwrap() == layer);
        assert!(home.faults().requests().is_empty());
    });
}

/// Down, empty, broken in mid-body, asking for credentials: the registry itself serves.
#[test]
fn a_mirror_that_does_not_serve_is_passed_over() {
    run(async {
        let (home, mirror) = (Place::double(Behaviour::default()), Place::double(Behaviour::default()));
        let layer = bytes(2, 800_000);
        push_image(&home.client(), &home.repository("x"), "t", &layer).await;
        let tag = home.repository("x").with_tag("t").unwrap();
        let down = format!("127.0.0.1:{}", free_port().unwrap());
        let (known, _dir) = client(&home.server.host(), &[down, mirror.server.host()]);
        assert_eq!(known.manifest(&tag).await.unwrap().host, home.server.host());
        assert!(pull(&known, &home.repository("x"), &blob(&layer), 0).await.unwrap() == layer);
        // It has the image, but its transfers break off: what came is not fetched again.
        push_image(&mirror.client(), &mirror.repository("x"), "t", &layer).await;
        home.faults().forget();
        mirror.faults().add("GET", "/blobs/", Fault::Cut(200_000), 1);
        mirror.faults().add("GET", "/blobs/", Fault::Cut(0), 10);
        assert!(pull(&known, &home.repository("x"), &blob(&layer), 0).await.unwrap() == layer);
        assert_eq!(home.faults().sent(), 600_000);
        // What the registry says counts, not what the mirror says.
        let absent = home.repository("x").with_tag("absent").unwrap();
        assert!(
            matches!(known.manifest(&absent).await, Err(Error::NotFound { host, .. }) if host == home.server.host())
        );
    });
}

/// A mirror with wrong bytes: the manifest is refused at once, a blob when it is compared, and from then on the mirror
/// comes last for it.
#[test]
fn a_mirror_that_lies() {
    run(async {
        let (home, mirror) = (Place::double(Behaviour::default()), Place::double(Behaviour::default()));
        let layer = bytes(3, 100_000);
        let document = push_image(&home.client(), &home.repository("x"), "t", &layer).await;
        push_image(&mirror.client(), &mirror.repository("x"), "t", &layer).await;
        let (known, _dir) = client(&home.server.host(), &[mirror.server.host()]);
        let name = home.repository("x").with_digest(document.digest());
        mirror.faults().add("GET", "/manifests/", Fault::Flip, 1);
        assert_eq!(known.manifest(&name).await.unwrap().host, home.server.host());
        let descriptor = blob(&layer);
        mirror.faults().add("GET", "/blobs/", Fault::Flip, 1);
        assert!(pull(&known, &home.repository("x"), &descriptor, 0).await.unwrap() != layer);
        known.distrust(&mirror.server.host(), descriptor.digest);
        assert!(pull(&known, &home.repository("x"), &descriptor, 0).await.unwrap() == layer);
        assert_eq!(home.faults().count("GET", "/blobs/"), 1);
    });
}
