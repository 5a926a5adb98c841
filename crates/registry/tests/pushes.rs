//! Pushing blobs, with everything that goes wrong.

use std::sync::Arc;
use std::time::Duration;

use coracle_codec::oci::{Descriptor, Mismatch};
use coracle_registry::{Client, Error, PushOptions, Pushed, Settings};
use coracle_testkit::http::Fault;
use coracle_testkit::registry::Behaviour;

use crate::place::{blob, bytes, double, each, pull, push, settings};

async fn chunked(
    client: &Client,
    repository: &coracle_codec::oci::Repository,
    content: &[u8],
    chunk: u64,
) -> Pushed {
    let options = PushOptions { chunk: Some(chunk), mount_from: None };
    client.push_blob(repository, &blob(content), Arc::new(content.to_vec()), &options).await.unwrap()
}

#[test]
fn what_is_there_is_not_sent() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(1, 100_000);
        assert_eq!(push(&client, &repository, &content).await.unwrap(), Pushed::Uploaded { resumed: 0 });
        place.faults().forget();
        assert_eq!(push(&client, &repository, &content).await.unwrap(), Pushed::Existed);
        assert_eq!(place.faults().requests().len(), 1);
    });
}

#[test]
fn mounts() {
    each(|place| async move {
        let client = place.client();
        let (from, to) = (place.repository("from"), place.repository("to"));
        let content = bytes(2, 10_000);
        push(&client, &from, &content).await.unwrap();
        let options = PushOptions { mount_from: Some(from.clone()), chunk: None };
        let pushed =
            client.push_blob(&to, &blob(&content), Arc::new(content.clone()), &options).await.unwrap();
        assert_eq!(pushed, Pushed::Mounted);
        assert!(pull(&client, &to, &blob(&content), 0).await.unwrap() == content);
        // A blob that is not there is uploaded, in the upload that the registry offers instead.
        let other = bytes(3, 10_000);
        place.faults().forget();
        let pushed = client.push_blob(&to, &blob(&other), Arc::new(other.clone()), &options).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded { resumed: 0 });
        assert_eq!(place.faults().count("POST", "/uploads/"), 1);
        assert!(pull(&client, &to, &blob(&other), 0).await.unwrap() == other);
    });
}

#[test]
fn chunks() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        for (seed, len, chunk) in [(4, 100_000, 30_000), (5, 90_000, 30_000), (6, 1, 1), (7, 0, 10)] {
            let content = bytes(seed, len);
            place.faults().forget();
            assert_eq!(chunked(&client, &repository, &content, chunk).await, Pushed::Uploaded { resumed: 0 });
            assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
            if len > chunk as usize {
                assert_eq!(place.faults().count("PATCH", ""), len.div_ceil(chunk as usize), "{len}");
            }
        }
    });
}

#[test]
fn a_registry_with_small_hands() {
    let behaviour = Behaviour { max_chunk: Some(17 << 20), min_chunk: Some(1000), ..Behaviour::default() };
    double(behaviour, |place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(8, 40 << 20);
        assert_eq!(push(&client, &repository, &content).await.unwrap(), Pushed::Uploaded { resumed: 1 });
        assert!(
            place.double.as_ref().unwrap().blob("x", &blob(&content).digest.to_string()) == Some(content)
        );
        // Chunks below the registry's minimum are made larger.
        let small = bytes(9, 10_000);
        place.faults().forget();
        chunked(&client, &repository, &small, 10).await;
        assert_eq!(place.faults().count("PATCH", ""), 10);
    });
}

/// The connection breaks while the body goes out. A registry that tells its state gets the rest; the others, of which
/// docker-registry is one, everything again.
#[test]
fn a_push_goes_on_where_it_broke_off() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(10, 2_000_000);
        place.faults().add("PUT", "/uploads/", Fault::CutRequest(700_000), 1);
        let pushed = push(&client, &repository, &content).await.unwrap();
        assert!(matches!(pushed, Pushed::Uploaded { resumed: 1.. }), "{pushed:?}");
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        if place.double.is_some() {
            let asked = place.faults().requests();
            let patch = asked.iter().find(|r| r.method == "PATCH").unwrap();
            assert_eq!(patch.header("content-range"), Some("700000-1999999"));
        }
    });
}

#[test]
fn a_chunk_that_is_lost_is_sent_again() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(11, 500_000);
        place.faults().add("PATCH", "/uploads/", Fault::Status(503, vec![]), 1);
        let pushed = chunked(&client, &repository, &content, 200_000).await;
        assert!(matches!(pushed, Pushed::Uploaded { resumed: 1.. }), "{pushed:?}");
        place.faults().add("PATCH", "/uploads/", Fault::Refuse, 1);
        let other = bytes(12, 500_000);
        chunked(&client, &repository, &other, 200_000).await;
        for content in [content, other] {
            assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        }
    });
}

/// The registry has it all, but the answer is lost.
#[test]
fn the_last_answer_is_lost() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        for (seed, method) in [(13, "PUT"), (14, "POST")] {
            let content = bytes(seed, 300_000);
            place.faults().add(method, "/uploads/", Fault::LoseAnswer, 1);
            push(&client, &repository, &content).await.unwrap();
            assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        }
    });
}

/// A registry that has forgotten the upload.
#[test]
fn a_forgotten_upload_is_begun_again() {
    double(Behaviour { upload_state: false, ..Behaviour::default() }, |place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(15, 600_000);
        place.faults().add("PUT", "/uploads/", Fault::CutRequest(1000), 1);
        place.faults().add("PUT", "/uploads/", Fault::Status(404, vec![]), 1);
        let pushed = push(&client, &repository, &content).await.unwrap();
        assert_eq!(pushed, Pushed::Uploaded { resumed: 2 });
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
    });
}

#[test]
fn a_push_gives_up_in_the_end() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(16, 50_000);
        place.faults().add("PUT", "/uploads/", Fault::Status(500, vec![]), 4);
        let error = push(&client, &repository, &content).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: 500, .. }), "{error}");
        assert!(!client.blob_exists(&repository, &blob(&content).digest).await.unwrap());
    });
}

/// Content that is not what its descriptor says never becomes a blob, neither under the wrong nor the right name.
#[test]
fn wrong_content_is_not_published() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let (right, mut wrong) = (bytes(17, 400_000), bytes(17, 400_000));
        wrong[399_999] ^= 1;
        let cases: [(Vec<u8>, Descriptor); 3] = [
            (wrong.clone(), blob(&right)),
            (right[..300_000].to_vec(), blob(&right)),
            (right.clone(), Descriptor { size: 300_000, ..blob(&wrong) }),
        ];
        for (content, descriptor) in cases {
            for chunk in [None, Some(150_000)] {
                let options = PushOptions { chunk, mount_from: None };
                let content = Arc::new(content.clone());
                let error = client.push_blob(&repository, &descriptor, content, &options).await.unwrap_err();
                assert!(
                    matches!(
                        error,
                        Error::ContentMismatch {
                            mismatch: Mismatch::Digest { .. } | Mismatch::Size { .. },
                            ..
                        }
                    ),
                    "{error}"
                );
                assert!(!client.blob_exists(&repository, &descriptor.digest).await.unwrap());
            }
        }
    });
}

/// A registry that takes nothing.
#[test]
fn a_push_does_not_wait_for_ever() {
    each(|place| async move {
        let settings = Settings { idle_timeout: Duration::from_millis(200), ..settings() };
        let client = Client::new(settings);
        let repository = place.repository("x");
        place.faults().add("PUT", "/uploads/", Fault::Silent(Duration::from_secs(4)), 1);
        let content = bytes(18, 10_000);
        push(&client, &repository, &content).await.unwrap();
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
    });
}
