//! Referrers, with the registry's own list and with the fallback tag.

use std::time::Duration;

use coracle_codec::oci::{Descriptor, Document, Limits, Repository, Unverified, Version, media_type};
use coracle_registry::{Client, Error, ReferrersSource, Retry, Settings};
use coracle_testkit::http::Fault;
use coracle_testkit::registry::Behaviour;

use crate::place::{Place, blob, double, each, push, push_image, run, settings};

const KIND: &str = "application/vnd.example.delta";

/// An artifact about `subject`.
async fn artifact(
    client: &Client,
    repository: &Repository,
    subject: &Document,
    kind: &str,
    note: &str,
) -> Document {
    push(client, repository, b"{}").await.unwrap();
    let empty = Descriptor { media_type: media_type::OCI_EMPTY.into(), ..blob(b"{}") };
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
        "config": empty.to_json(), "layers": [empty.to_json()],
        "subject": Descriptor::new(subject.media_type(), subject.digest(), subject.raw().size()).to_json(),
        "annotations": { "note": note },
    });
    let raw = Unverified::new(text.to_string().into_bytes()).identify();
    Document::parse(raw, None, &Limits::default()).unwrap()
}

#[test]
fn what_is_pushed_is_listed() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let image = push_image(&client, &repository, "t", b"layer").await;
        let has_api = place.double.is_some();
        let none = client.referrers(&repository, &image.digest(), None).await.unwrap();
        assert!(none.descriptors.is_empty());
        assert_eq!(none.source, if has_api { ReferrersSource::Api } else { ReferrersSource::Neither });
        let mut pushed = Vec::new();
        for (kind, note) in [(KIND, "one"), ("application/vnd.example.other", "two"), (KIND, "three")] {
            let document = artifact(&client, &repository, &image, kind, note).await;
            let version = Version::Digest(document.digest());
            let told = client.push_referrer(&repository, &version, &document).await.unwrap();
            assert_eq!(told.subject_indexed, has_api);
            pushed.push(document);
        }
        // Twice is once.
        client.push_referrer(&repository, &Version::Digest(pushed[0].digest()), &pushed[0]).await.unwrap();
        let all = client.referrers(&repository, &image.digest(), None).await.unwrap();
        assert_eq!(all.descriptors.len(), 3);
        assert_eq!(all.source, if has_api { ReferrersSource::Api } else { ReferrersSource::Tag });
        let mut some = client.referrers(&repository, &image.digest(), Some(KIND)).await.unwrap().descriptors;
        some.sort_by_key(|entry| entry.annotations["note"].clone());
        let notes: Vec<_> = some.iter().map(|entry| entry.annotations["note"].as_str()).collect();
        assert_eq!(notes, ["one", "three"]);
        assert_eq!((some[0].digest, some[0].size), (pushed[0].digest(), pushed[0].raw().size()));
        // And taken out again.
        client.delete_manifest(&repository, &pushed[0].digest()).await.unwrap();
        client.forget_referrer(&repository, &image.digest(), &pushed[0].digest()).await.unwrap();
        assert_eq!(client.referrers(&repository, &image.digest(), None).await.unwrap().descriptors.len(), 2);
    });
}

#[test]
fn pages() {
    double(Behaviour { page: 2, ..Behaviour::default() }, |place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let image = push_image(&client, &repository, "t", b"layer").await;
        for i in 0..5 {
            let document = artifact(&client, &repository, &image, KIND, &i.to_string()).await;
            client.push_referrer(&repository, &Version::Digest(document.digest()), &document).await.unwrap();
        }
        for kind in [None, Some(KIND)] {
            let found = client.referrers(&repository, &image.digest(), kind).await.unwrap();
            assert_eq!(found.descriptors.len(), 5);
        }
    });
}

/// Not being able to ask is an error, and never an empty list.
#[test]
fn unknown_is_not_none() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let image = push_image(&client, &repository, "t", b"layer").await;
        for status in [400, 401, 403, 429, 500, 503] {
            let later = vec![("Retry-After".to_owned(), "1000".to_owned())];
            place.faults().add("GET", "/referrers/", Fault::Status(status, later), 1);
            assert!(client.referrers(&repository, &image.digest(), None).await.is_err(), "{status}");
        }
        place.faults().add("GET", "/referrers/", Fault::Status(404, vec![]), 1);
        let later = vec![("Retry-After".to_owned(), "1000".to_owned())];
        place.faults().add("GET", "/manifests/sha256-", Fault::Status(503, later), 1);
        assert!(client.referrers(&repository, &image.digest(), None).await.is_err());
    });
}

#[test]
fn a_fallback_tag_that_holds_something_else() {
    double(Behaviour { referrers: false, ..Behaviour::default() }, |place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let image = push_image(&client, &repository, "t", b"layer").await;
        let tag = image.digest().to_string().replace(':', "-");
        client.push_manifest(&repository, &Version::Tag(tag.clone()), &image).await.unwrap();
        let error = client.referrers(&repository, &image.digest(), None).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        let double = place.double.as_ref().unwrap();
        double.put_manifest("x", &tag, media_type::OCI_INDEX, b"{\"schemaVersion\":2,\"manifests\":{}}");
        assert!(client.referrers(&repository, &image.digest(), None).await.is_err());
        // What others wrote stays, members that nobody here knows included.
        let foreign = format!(
            r#"{{"schemaVersion":2,"mediaType":"{}","x":1,"manifests":[{{"mediaType":"{}","digest":"{}","size":{},"y":2}}]}}"#,
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            image.digest(),
            image.raw().size()
        );
        double.put_manifest("x", &tag, media_type::OCI_INDEX, foreign.as_bytes());
        let document = artifact(&client, &repository, &image, KIND, "n").await;
        client.push_referrer(&repository, &Version::Digest(document.digest()), &document).await.unwrap();
        let now: serde_json::Value = serde_json::from_slice(&double.manifest("x", &tag).unwrap()).unwrap();
        assert_eq!((&now["x"], &now["manifests"][0]["y"]), (&1.into(), &2.into()));
        assert_eq!(now["manifests"][1]["digest"], document.digest().to_string());
    });
}

/// Several writers at once: no update is lost.
#[test]
fn writers_of_the_fallback_tag_do_not_lose_updates() {
    run(async {
        let place =
            std::sync::Arc::new(Place::double(Behaviour { referrers: false, ..Behaviour::default() }));
        let (client, repository) = (place.client(), place.repository("x"));
        let image = push_image(&client, &repository, "t", b"layer").await;
        let mut tasks = Vec::new();
        for i in 0..4 {
            let document = artifact(&client, &repository, &image, KIND, &i.to_string()).await;
            let repository = repository.clone();
            tasks.push(tokio::spawn(async move {
                let version = Version::Digest(document.digest());
                let patient = Retry { first_wait: Duration::from_millis(100), ..settings().retry };
                let client = Client::new(Settings { retry: patient, ..settings() });
                client.push_referrer(&repository, &version, &document).await
            }));
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(client.referrers(&repository, &image.digest(), None).await.unwrap().descriptors.len(), 4);
    });
}
