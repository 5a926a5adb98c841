//! Signatures hold through a delta, which carries them along.

use coracle_codec::artifact::Dialect;
use coracle_engine::Error;
use coracle_engine::artifact::apply::Base;
use coracle_engine::artifact::create::To;
use coracle_engine::trust::{Trust, Verdict};
use coracle_testkit::oci::digest;
use coracle_testkit::signing::{self, Key, Kind, statement};
use serde_json::json;

use super::trust;
use crate::artifacts::journey::{apply, create, pair, request};
use crate::images::site::Site;
use crate::pulls::{NEW, OLD, check, published, pull};

/// Versions `old` and `new` of `app` with deltas, the new one signed in both forms.
fn signed(dialects: &[Dialect]) -> (Site, Key) {
    let site = Site::new();
    let key = Key::new(&site.path("keys"), "ours", Kind::P256).unwrap();
    let (_, new) = pair("amd64");
    let of = new.digest();
    let name = format!("{}/app", site.server.host());
    site.put_registry("app", &signing::tag(&of), &signing::tagged(&[key.simple(&of, &name).unwrap()]));
    let bundle = key.bundle(&statement(&of, Some(&name))).unwrap();
    site.put_registry("app", "x", &signing::bundled(&bundle, (&new.root.0, &new.root.1)));
    published(&site, dialects);
    (site, key)
}

fn demand(site: &mut Site, key: &Key, transport: &str, scope: &str, identity: &serde_json::Value) {
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": key.public, "signedIdentity": identity });
    let policy =
        json!({ "default": [{ "type": "reject" }], "transports": { transport: { scope: [requirement] } } });
    site.trust = trust(&site.path("policy.json"), &policy).unwrap();
}

#[test]
fn a_signature_holds_through_a_delta() {
    for dialect in [Dialect::OciDelta, Dialect::Coracle] {
        let (mut site, key) = signed(&[dialect]);
        let (_, new) = pair("amd64");
        pull(&site, OLD).unwrap();
        demand(&mut site, &key, "docker", "", &json!({ "type": "matchRepository" }));
        let pulled = pull(&site, NEW).unwrap();
        assert!(matches!(pulled.trust, Verdict::Signed(..)), "{:?}", pulled.trust);
        assert!(pulled.layers.iter().any(|layer| matches!(layer.from, coracle_engine::pull::From::Delta(_))));
        check(&site, &pulled, &new);
        // Where the signatures themselves are gone, those in the delta are there.
        let tag = signing::tag(&new.digest());
        for name in [tag.as_str(), "x"] {
            let manifest = site.double.manifest("app", name).unwrap();
            site.double.forget_manifest("app", &digest(&manifest));
        }
        let Verdict::Signed(_, accepted) = pull(&site, NEW).unwrap().trust else { panic!() };
        assert!(accepted[0].place.starts_with("in the delta"), "{accepted:?}");
    }
}

#[test]
fn a_delta_carries_signatures_and_is_checked_offline() {
    for dialect in [Dialect::OciDelta, Dialect::Coracle] {
        let (mut site, key) = signed(&[]);
        let made = create(
            &site,
            &request(&site, &[OLD], NEW, To::Image(site.name("oci-archive:{}/delta.tar")), &[dialect]),
        );
        assert!(made.unwrap().notes.is_empty());
        // The source is on this machine, and the registry is gone.
        site.copy(OLD, "oci:{}/old:x").unwrap();
        let name = format!("{}/app", site.server.host());
        site.double.forget_repository("app");
        let delta = "oci-archive:{}/delta.tar";
        let applied =
            |site: &Site, to: &str| apply(site, delta, Base::Image(site.name("oci:{}/old:x")), to, |_| {});
        let identity = json!({ "type": "exactRepository", "dockerRepository": name });
        demand(&mut site, &key, "oci-archive", "", &identity);
        let result = applied(&site, "oci:{}/new:x").unwrap();
        let Verdict::Signed(_, accepted) = result.trust else { panic!("{:?}", result.trust) };
        assert!(accepted[0].place.starts_with("in the delta"), "{accepted:?}");

        let stranger = Key::new(&site.path("keys"), "theirs", Kind::P256).unwrap();
        demand(&mut site, &stranger, "oci-archive", "", &identity);
        let rejected = applied(&site, "oci:{}/other:x");
        let Err(Error::Rejected { reason, .. }) = rejected else { panic!("{rejected:?}") };
        assert!(reason.contains("no key verifies it"), "{reason}");
        assert!(!site.path("other").exists());
        // A place has no name of its own.
        demand(&mut site, &key, "oci-archive", "", &json!({ "type": "matchRepository" }));
        let Err(Error::Rejected { reason, .. }) = applied(&site, "oci:{}/other:x") else { panic!() };
        assert!(reason.contains("it is in none"), "{reason}");
        // How many signatures each dialect carries: bundles are for readers that know them.
        let manifest = manifest_of(&site);
        let kinds = manifest["layers"].as_array().unwrap().iter().filter(|layer| {
            layer["annotations"].as_object().unwrap().values().any(|kind| kind == "cosign-signature")
        });
        assert_eq!(kinds.count(), if dialect == Dialect::Coracle { 2 } else { 1 });
    }
}

/// The manifest of the one delta in the archive.
fn manifest_of(site: &Site) -> serde_json::Value {
    let mut untrusting = Site::new();
    untrusting.trust = Trust::insecure();
    untrusting
        .copy(&format!("oci-archive:{}/delta.tar", site.dir.path().display()), "oci:{}/delta:x")
        .unwrap();
    let read = |path: &str| std::fs::read(untrusting.path(path)).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&read("delta/index.json")).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    serde_json::from_slice(&read(&format!("delta/blobs/sha256/{}", &digest[7..]))).unwrap()
}

#[test]
fn nothing_is_made_of_images_that_are_rejected() {
    let (mut site, key) = signed(&[]);
    // The old version is not signed.
    demand(&mut site, &key, "docker", "", &json!({ "type": "matchRepository" }));
    let result = create(&site, &request(&site, &[OLD], NEW, To::Registry(None), &[Dialect::Coracle]));
    let Err(Error::Rejected { image, .. }) = result else { panic!("{result:?}") };
    assert!(image.ends_with("app:old"), "{image}");
    let (old, _) = pair("amd64");
    let of = digest(&old.root.1);
    let name = format!("{}/app", site.server.host());
    site.put_registry("app", &signing::tag(&of), &signing::tagged(&[key.simple(&of, &name).unwrap()]));
    let made = create(&site, &request(&site, &[OLD], NEW, To::Registry(None), &[Dialect::Coracle])).unwrap();
    assert_eq!(made.trust.len(), 2);
    assert!(made.trust.iter().all(|(_, verdict)| matches!(verdict, Verdict::Signed(..))));

    // Applied by the artifact's own name: the target is an image of that repository, known by its digest.
    site.copy(OLD, "oci:{}/old:x").unwrap();
    let delta = format!("docker://{name}@{}", made.deltas[0].digest);
    let applied =
        apply(&site, &delta, Base::Image(site.name("oci:{}/old:x")), "oci:{}/new:x", |_| {}).unwrap();
    assert!(matches!(applied.trust, Verdict::Signed(..)));
}
