//! Where signatures are looked for, and how much of it is looked at.

use coracle_codec::observe::Quiet;
use coracle_engine::trust::verify::{self, Kind as What, State};
use coracle_engine::{Context, Error};
use coracle_testkit::http::Fault;
use coracle_testkit::oci::{Compression, image, index, layers};
use coracle_testkit::signing::{self, Kind, statement};
use serde_json::json;

use super::{IMAGE, Signed, digest_of, repository};
use crate::pulls::pull;

#[test]
fn thousands_of_signatures_are_not_looked_at() {
    let mut signed = Signed::new(Kind::P256);
    let (of, name) = (signed.image.digest(), signed.name());
    signed.demand(json!({}));
    let good = signed.key.simple(&of, &name).unwrap();
    let bad = |n: u32| (format!("{{\"n\":{n}}}").into_bytes(), "AAAA".to_owned());
    let mut many: Vec<_> = (0..3000).map(bad).collect();
    many.push(good.clone());
    signed.tag(&of, &many);
    let before = signed.site.faults().requests().len();
    signed.rejected("only 256 signatures and their manifests were looked at");
    assert!(signed.site.faults().requests().len() - before < 300);
    many.insert(200, good);
    signed.tag(&of, &many);
    signed.accepted();
    // One that is too large is passed over.
    let mut payload = signing::payload(&of, &name);
    payload.resize(300 << 10, b' ');
    let large = signed.key.simple_over(payload).unwrap();
    signed.tag(&of, &[large]);
    assert!(
        matches!(pull(&signed.site, IMAGE), Err(Error::Rejected { reason, .. }) if reason.contains("more than 262144"))
    );
}

#[test]
fn an_image_is_signed_itself_and_not_by_its_index() {
    let mut signed = Signed::new(Kind::P256);
    let arm = image("arm64", &layers()[..1], Compression::Gzip).unwrap();
    let list = index(&[("amd64", signed.image.clone()), ("arm64", arm.clone())]);
    for bundle in [&signed.image, &arm] {
        signed.put(&digest_of(bundle)[7..20], bundle);
    }
    signed.put("1", &list);
    let name = signed.name();
    signed.demand(repository());
    signed.tag(&list.digest(), &[signed.key.simple(&list.digest(), &name).unwrap()]);
    signed.rejected("there is no signature");
    let of = signed.image.digest();
    signed.tag(&of, &[signed.key.simple(&of, &name).unwrap()]);
    signed.accepted();
    // The whole index needs all of its images signed.
    let copied = signed.site.copy(IMAGE, "oci:{}/whole:x");
    let Err(Error::Rejected { digest, .. }) = copied else { panic!("{copied:?}") };
    assert_eq!(digest.to_string(), arm.digest());
    assert!(!signed.site.path("whole/index.json").exists());
    signed.tag(&arm.digest(), &[signed.key.simple(&arm.digest(), &name).unwrap()]);
    signed.site.copy(IMAGE, "oci:{}/whole:x").unwrap();
    assert!(signed.site.path("whole/index.json").exists());
}

#[test]
fn a_registry_that_does_not_answer_is_no_unsigned_image() {
    let mut signed = Signed::new(Kind::P256);
    signed.demand(json!({}));
    signed.site.faults().add("GET", "/referrers/", Fault::Status(503, Vec::new()), 100);
    let result = pull(&signed.site, IMAGE);
    assert!(matches!(result, Err(Error::Registry { .. })), "{result:?}");
    // A good signature elsewhere is enough.
    let of = signed.image.digest();
    signed.tag(&of, &[signed.key.simple(&of, &signed.name()).unwrap()]);
    signed.accepted();
}

#[test]
fn without_a_list_of_referrers_the_fallback_tag_is_read() {
    let mut signed = Signed::new(Kind::P256);
    signed.site.double.behave(|behaviour| behaviour.referrers = false);
    signed.demand(json!({}));
    let of = signed.image.digest();
    let bundle = signed.key.bundle(&statement(&of, Some(&signed.name()))).unwrap();
    signed.refer(&bundle);
    signed.rejected("there is no signature");
    let root = signing::bundled(&bundle, signed.subject());
    let mut entry = coracle_testkit::oci::descriptor(&root.root.0, &root.root.1);
    entry["artifactType"] = json!(signing::BUNDLE);
    let list = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [entry] });
    let kind = "application/vnd.oci.image.index.v1+json";
    signed.site.double.put_manifest("app", &of.replace(':', "-"), kind, list.to_string().as_bytes());
    signed.accepted();
}

#[test]
fn a_look_shows_what_there_is_and_whether_it_holds() {
    let mut signed = Signed::new(Kind::P384);
    let (of, name) = (signed.image.digest(), signed.name());
    let stranger = signed.stranger();
    let look = |signed: &Signed, keys: &[std::path::PathBuf]| {
        let request = verify::Request { image: signed.site.name(IMAGE), platform: None, keys: keys.to_vec() };
        let context = Context { observer: &Quiet, temp_dir: signed.site.path("tmp") };
        verify::run(&request, &signed.site.environment(), &context).unwrap()
    };
    let ours = [signed.key.public.clone()];
    assert_eq!(look(&signed, &ours).holds, Some(false));
    signed.tag(&of, &[stranger.simple(&of, &name).unwrap(), signed.key.simple(&of, &name).unwrap()]);
    signed.refer(&signed.key.bundle(&statement(&of, None)).unwrap());
    let checked = look(&signed, &ours);
    assert_eq!((checked.holds, checked.verdict), (Some(true), None));
    let document = &checked.documents[0];
    assert_eq!((document.kind, document.digest.to_string()), (What::Image, of.clone()));
    let key = signed.key.public.display().to_string();
    let states: Vec<State> = document.found.iter().map(|found| found.state.clone()).collect();
    assert_eq!(
        states,
        [
            State::Bad("no key verifies it".into()),
            State::Good { key: key.clone(), name: Some(name) },
            State::Good { key, name: None },
        ]
    );
    // Without keys and policy nothing can be said; with a policy, its keys count and its verdict is told.
    let checked = look(&signed, &[]);
    assert!(checked.holds.is_none());
    assert!(checked.documents[0].found.iter().all(|found| found.state == State::Unchecked));
    signed.demand(json!({ "signedIdentity": { "type": "exactRepository", "dockerRepository": "h.io/x" } }));
    let checked = look(&signed, &[]);
    assert_eq!(checked.holds, Some(true));
    assert!(checked.verdict.unwrap().unwrap_err().contains("the policy wants a name in h.io/x"));
}
