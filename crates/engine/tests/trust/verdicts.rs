//! Signatures of every kind, good and bad, and what becomes of the pull.

use coracle_codec::trust::Policy;
use coracle_engine::Error;
use coracle_engine::trust::{Trust, Verdict};
use coracle_testkit::oci::{Compression, digest, image, layers};
use coracle_testkit::signing::{self, Key, Kind, SIGN, statement};
use serde_json::json;

use super::{IMAGE, Signed, repository};
use crate::pulls::{check, pull};

#[test]
fn every_kind_of_key_signs_in_every_form() {
    for kind in Kind::ALL {
        let mut signed = Signed::new(kind);
        let (of, name) = (signed.image.digest(), signed.name());
        signed.demand(json!({}));
        signed.rejected("there is no signature");

        signed.tag(&of, &[signed.key.simple(&of, &name).unwrap()]);
        let pulled = signed.accepted();
        check(&signed.site, &pulled, &signed.image);

        for form in ["simple", "bundle", "message"] {
            let mut again = Signed::new(Kind::P256);
            again.key = Key::new(&again.site.path("keys"), "other", kind).unwrap();
            let (of, name) = (again.image.digest(), again.name());
            again.demand(json!({}));
            match form {
                "simple" => {
                    let simple = again.key.simple(&of, &name).unwrap();
                    again.put("referrer", &signing::referring(&[simple], again.subject()));
                }
                "bundle" => again.refer(&again.key.bundle(&statement(&of, Some(&name))).unwrap()),
                _ => {
                    again.refer(&again.key.message_bundle(&again.image.root.1).unwrap());
                    again.site.trust = again.site.trust.clone().with_unnamed(true);
                }
            }
            again.accepted();
            // The same with a key that nobody knows.
            let stranger = again.stranger();
            again.key = stranger;
            again.demand(json!({}));
            // It is here already: the policy is asked all the same.
            match pull(&again.site, IMAGE) {
                Err(Error::Rejected { reason, .. }) => {
                    assert!(reason.contains("no key verifies it"), "{reason}")
                }
                other => panic!("{kind:?} {form}: {other:?}"),
            }
        }
    }
}

#[test]
fn what_does_not_hold_is_rejected_with_the_reason() {
    let mut signed = Signed::new(Kind::P256);
    let (of, name) = (signed.image.digest(), signed.name());
    let other = image("amd64", &layers()[..1], Compression::Gzip).unwrap();
    let stranger = signed.stranger();
    let key = &signed.key;
    let good = key.simple(&of, &name).unwrap();
    let payload = |from: &str, to: &str| {
        let text = String::from_utf8(signing::payload(&of, &name)).unwrap();
        assert!(text.contains(from));
        vec![key.simple_over(text.replace(from, to).into_bytes()).unwrap()]
    };
    let cases = [
        ("no key verifies it", vec![stranger.simple(&of, &name).unwrap()]),
        // A signature of another image, put where ours would be.
        ("it signs another image", vec![key.simple(&other.digest(), &name).unwrap()]),
        // Another payload under a good signature.
        ("no key verifies it", vec![(signing::payload(&of, "h.io/other:1"), good.1.clone())]),
        ("names the image h.io/other:1", vec![key.simple(&of, "h.io/other:1").unwrap()]),
        ("the policy wants", vec![key.simple(&of, &name.replace(":1", ":2")).unwrap()]),
        (
            "none of 2 signatures is accepted",
            vec![stranger.simple(&of, &name).unwrap(), (b"{}".to_vec(), "*".into())],
        ),
        ("the signature is not base64", vec![(good.0.clone(), "*".into())]),
        ("malformed: ", vec![key.simple_over(b"{".to_vec()).unwrap()]),
        ("stands twice", payload("\"critical\":{", "\"critical\":{\"type\":\"x\",")),
        ("\"more\" is not known", payload("\"critical\":{", "\"critical\":{\"more\":1,")),
        ("type is \"atomic container signature\"", payload("cosign container image", "atomic container")),
        ("is no sha256 digest", payload("sha256:", "md5:")),
    ];
    let site_tag = signing::tag(&of);
    let bundles: Vec<_> =
        cases.into_iter().map(|(wanted, signatures)| (wanted, signing::tagged(&signatures))).collect();
    signed.demand(json!({}));
    for (wanted, bundle) in bundles {
        signed.put(&site_tag, &bundle);
        signed.rejected(wanted);
    }
    // Without the annotation; of another media type; an index.
    let text = String::from_utf8(signing::tagged(std::slice::from_ref(&good)).root.1).unwrap();
    for (wanted, from, to) in [
        ("signature is missing", "dev.cosignproject.cosign/signature", "x"),
        ("there is no signature", signing::SIMPLE, "application/x"),
    ] {
        let mut bundle = signing::tagged(std::slice::from_ref(&good));
        bundle.root.1 = text.replace(from, to).into_bytes();
        signed.put(&site_tag, &bundle);
        signed.rejected(wanted);
    }
    let index = coracle_testkit::oci::index(&[("amd64", other)]);
    signed.put(&site_tag, &index);
    signed.rejected("it holds an index");
    // All that was bad is no reason to refuse once a good one is there, too.
    let bad = signed.stranger().simple(&of, &name).unwrap();
    signed.tag(&of, &[bad, (b"{}".to_vec(), "AAAA".into()), good]);
    signed.accepted();
}

#[test]
fn bundles_that_do_not_hold_are_rejected_with_the_reason() {
    let mut signed = Signed::new(Kind::P256);
    let (of, name) = (signed.image.digest(), signed.name());
    let other = digest(b"another");
    signed.demand(repository());
    let good = statement(&of, Some(&name));
    let with = |key: &str, value: serde_json::Value| {
        let mut statement = good.clone();
        statement[key] = value;
        signed.key.bundle(&statement).unwrap()
    };
    let cases = [
        ("it does not name the image", signed.key.bundle(&statement(&of, None)).unwrap()),
        ("names the image h.io/x", signed.key.bundle(&statement(&of, Some("h.io/x"))).unwrap()),
        ("its statement is about others", signed.key.bundle(&statement(&other, Some(&name))).unwrap()),
        ("no key verifies it", signed.stranger().bundle(&good).unwrap()),
        ("no signature but a statement", with("predicateType", json!("https://slsa.dev/provenance/v1"))),
        ("a statement of type", with("_type", json!("x"))),
        ("malformed", b"{}".to_vec()),
        ("it signs another image", signed.key.message_bundle(b"another").unwrap()),
        ("it does not name the image", signed.key.message_bundle(&signed.image.root.1).unwrap()),
    ];
    for (wanted, bundle) in &cases {
        let root = signing::bundled(bundle, signed.subject());
        signed.put("referrer", &root);
        signed.rejected(wanted);
        signed.site.double.forget_manifest("app", &root.digest());
    }
    // Nobody said that statements of other kinds are signatures: they are not even fetched.
    let provenance = signing::bundled(&with("predicateType", json!("https://x")), signed.subject());
    let text = String::from_utf8(provenance.root.1).unwrap();
    let text = text.replace(
        "\"dev.sigstore.bundle.content\":\"dsse-envelope\"",
        "\"dev.sigstore.bundle.predicateType\":\"https://x\"",
    );
    signed.site.double.put_manifest("app", "x", &provenance.root.0, text.as_bytes());
    signed.rejected("there is no signature");
    assert_ne!(SIGN, "https://x");
    // What cosign 3 makes is accepted by whoever wants it so.
    signed.refer(&signed.key.bundle(&statement(&of, None)).unwrap());
    signed.rejected("it does not name the image");
    signed.site.trust = signed.site.trust.clone().with_unnamed(true);
    signed.accepted();
}

#[test]
fn an_old_signature_does_not_do_for_a_new_image() {
    let mut signed = Signed::new(Kind::Ed25519);
    signed.demand(json!({}));
    let (old, name) = (signed.image.digest(), signed.name());
    let replayed = signed.key.simple(&old, &name).unwrap();
    signed.tag(&old, std::slice::from_ref(&replayed));
    signed.refer(&signed.key.bundle(&statement(&old, Some(&name))).unwrap());
    let evil = image("amd64", &layers()[1..], Compression::Gzip).unwrap();
    signed.put("1", &evil);
    signed.rejected("there is no signature");
    signed.tag(&evil.digest(), &[replayed]);
    let text = String::from_utf8(
        signing::bundled(
            &signed.key.bundle(&statement(&old, Some(&name))).unwrap(),
            (&evil.root.0, &evil.root.1),
        )
        .root
        .1,
    );
    signed.site.double.put_manifest(
        "app",
        "x",
        "application/vnd.oci.image.manifest.v1+json",
        text.unwrap().as_bytes(),
    );
    signed.rejected("it signs another image");
}

/// The old version of an image, with its own good signature, under the tag of the new one: policies that look at names
/// alone cannot tell, and neither can containers/image. Written down so that nobody believes otherwise.
#[test]
fn a_tag_that_goes_back_is_not_noticed() {
    let mut signed = Signed::new(Kind::P256);
    signed.demand(json!({}));
    let (old, name) = (signed.image.digest(), signed.name());
    let new = image("amd64", &layers()[1..], Compression::Gzip).unwrap();
    for of in [&old, &new.digest()] {
        signed.tag(of, &[signed.key.simple(of, &name).unwrap()]);
    }
    signed.put("1", &new);
    assert_eq!(signed.accepted().root.to_string(), new.digest());
    signed.put("1", &signed.image);
    assert_eq!(signed.accepted().root.to_string(), old);
}

#[test]
fn a_swapped_config_is_another_blob() {
    let mut signed = Signed::new(Kind::P256);
    signed.demand(json!({}));
    let of = signed.image.digest();
    signed.tag(&of, &[signed.key.simple(&of, &signed.name()).unwrap()]);
    let manifest: serde_json::Value = serde_json::from_slice(&signed.image.root.1).unwrap();
    let config = manifest["config"]["digest"].as_str().unwrap();
    let mut swapped = signed.image.blobs.last().unwrap().clone();
    let at = swapped.windows(5).position(|w| w == b"amd64").unwrap();
    swapped[at..at + 5].copy_from_slice(b"arm64");
    signed.site.double.put_blob_as("app", config, swapped);
    assert!(matches!(pull(&signed.site, IMAGE), Err(Error::WrongBlob { .. })));
}

#[test]
fn names_in_a_signature_are_held_against_the_policy() {
    let mut signed = Signed::new(Kind::P256);
    let (of, name) = (signed.image.digest(), signed.name());
    let repository_name = name.trim_end_matches(":1").to_owned();
    let host = signed.site.server.host();
    let exact = |reference: &str| json!({ "signedIdentity": { "type": "exactReference", "dockerReference": reference } });
    let remap =
        json!({ "signedIdentity": { "type": "remapIdentity", "prefix": host, "signedPrefix": "up.io/x" } });
    for (identity, said, accepted) in [
        (json!({}), name.as_str(), true),
        // What cosign 2 writes: the repository alone.
        (json!({}), repository_name.as_str(), false),
        (repository(), repository_name.as_str(), true),
        (repository(), "h.io/app:1", false),
        (exact("up.io/app:1"), "up.io/app:1", true),
        (exact("up.io/app:1"), name.as_str(), false),
        (remap.clone(), "up.io/x/app:1", true),
        (remap.clone(), name.as_str(), false),
    ] {
        signed.demand(identity.clone());
        signed.tag(&of, &[signed.key.simple(&of, said).unwrap()]);
        let result = pull(&signed.site, IMAGE);
        assert_eq!(result.is_ok(), accepted, "{identity} {said}: {result:?}");
    }
    // By its digest any tag of the repository will do.
    signed.demand(json!({}));
    signed.tag(&of, &[signed.key.simple(&of, &format!("{repository_name}:9")).unwrap()]);
    let pinned = format!("docker://{repository_name}@{of}");
    assert!(matches!(pull(&signed.site, &pinned).unwrap().trust, Verdict::Signed(..)));
    assert!(pull(&signed.site, IMAGE).is_err());
}

#[test]
fn all_requirements_have_to_be_met() {
    let mut signed = Signed::new(Kind::P256);
    let (of, name) = (signed.image.digest(), signed.name());
    let reviewer = signed.stranger();
    let requirement = |key: &Key| json!({ "type": "sigstoreSigned", "keyPath": key.public });
    let both = json!({ "default": [requirement(&signed.key), { "type": "insecureAcceptAnything" }, requirement(&reviewer)] });
    signed.policy(both);
    signed.tag(&of, &[signed.key.simple(&of, &name).unwrap()]);
    signed.rejected("only 1 of 2 requirements are met");
    signed.tag(&of, &[reviewer.simple(&of, &name).unwrap(), signed.key.simple(&of, &name).unwrap()]);
    let Verdict::Signed(_, accepted) = signed.accepted().trust else { panic!() };
    assert_eq!(accepted.len(), 2);
    // Either of two keys.
    let either = json!({ "default": [{ "type": "sigstoreSigned", "keyPaths": [reviewer.public, signed.key.public] }] });
    signed.policy(either);
    signed.tag(&of, &[signed.key.simple(&of, &name).unwrap()]);
    signed.accepted();
}

#[test]
fn policies_without_signatures() {
    let mut signed = Signed::new(Kind::P256);
    let host = signed.site.server.host();
    for (policy, wanted) in [
        (json!({ "default": [{ "type": "reject" }] }), "accepts no image"),
        (
            json!({ "default": [{ "type": "insecureAcceptAnything" }, { "type": "reject" }] }),
            "accepts no image",
        ),
        (
            json!({ "default": [{ "type": "insecureAcceptAnything" }],
                "transports": { "docker": { host.clone(): [{ "type": "reject" }] } } }),
            "accepts no image",
        ),
        (
            json!({ "default": [{ "type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k" }] }),
            "GnuPG (signedBy) cannot be checked",
        ),
        (
            json!({ "default": [{ "type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r" }] }),
            "Rekor",
        ),
    ] {
        signed.policy(policy);
        signed.rejected(wanted);
    }
    for policy in [
        json!({ "default": [{ "type": "insecureAcceptAnything" }] }),
        json!({ "default": [{ "type": "reject" }],
            "transports": { "docker": { format!("{host}/app"): [{ "type": "insecureAcceptAnything" }] } } }),
    ] {
        signed.policy(policy);
        assert!(matches!(pull(&signed.site, IMAGE).unwrap().trust, Verdict::Anything(_)));
    }
    signed.site.trust = Trust::absent();
    assert_eq!(pull(&signed.site, IMAGE).unwrap().trust, Verdict::NoPolicy);
    signed.site.trust = Trust::insecure();
    assert_eq!(pull(&signed.site, IMAGE).unwrap().trust, Verdict::Insecure);
}

#[test]
fn keys_and_policies_that_cannot_be_used_are_errors() {
    let mut signed = Signed::new(Kind::P256);
    let path = signed.site.path("keys/bad.pub");
    let policy =
        |path: &std::path::Path| json!({ "default": [{ "type": "sigstoreSigned", "keyPath": path }] });
    signed.policy(policy(&path));
    assert!(matches!(pull(&signed.site, IMAGE), Err(Error::Policy { .. })));
    std::fs::write(&path, "no key").unwrap();
    let Err(Error::Policy { reason, .. }) = pull(&signed.site, IMAGE) else { panic!() };
    assert!(reason.contains("0 PEM blocks"), "{reason}");
    std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    let Err(Error::Policy { reason, .. }) = pull(&signed.site, IMAGE) else { panic!() };
    assert!(reason.contains("more than 65536 bytes"), "{reason}");

    let file = signed.site.path("policy.json");
    for text in ["", "{}", r#"{"default":[{"type":"unknown"}]}"#] {
        std::fs::write(&file, text).unwrap();
        assert!(matches!(Trust::load(&file), Err(Error::Policy { .. })), "{text}");
        assert!(Policy::parse(text.as_bytes()).is_err());
    }
    assert!(matches!(Trust::load(&signed.site.path("none")), Err(Error::Policy { .. })));
}
