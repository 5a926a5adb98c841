//! Everything that goes wrong on the way: on the registry in memory and on the real one.

use std::time::{Duration, Instant};

use coracle_codec::oci::Mismatch;
use coracle_registry::{Client, Error, RangeAnswer, Settings};
use coracle_testkit::http::Fault;

use crate::place::{blob, bytes, each, pull, push, push_image, settings};

#[test]
fn a_pull_goes_on_where_it_broke_off() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(1, 1_000_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().forget();
        for at in [300_000, 10, 0] {
            place.faults().add("GET", "/blobs/", Fault::Cut(at), 1);
        }
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        let asked: Vec<_> = place.faults().requests();
        let ranges: Vec<_> = asked
            .iter()
            .filter(|r| r.method == "GET")
            .map(|r| r.header("range").map(str::to_owned))
            .collect();
        let closed = |from: u32| Some(format!("bytes={from}-999999"));
        assert_eq!(ranges, [None, closed(300_000), closed(300_010), closed(300_010)]);
        // No byte came twice.
        assert_eq!(place.faults().sent(), 1_000_000);
    });
}

#[test]
fn a_pull_gives_up_in_the_end() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(2, 100_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().add("GET", "/blobs/", Fault::Cut(100), 4);
        let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(error, Error::Broken { done: 400, .. }), "{error:?}");
    });
}

/// 200 where 206 was asked for: what is there already is dropped.
#[test]
fn everything_instead_of_the_rest() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(3, 500_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().add("GET", "/blobs/", Fault::Cut(200_000), 1);
        place.faults().add("GET", "/blobs/", Fault::IgnoreRange, 1);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
    });
}

#[test]
fn the_answer_416() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(4, 500_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().add("GET", "/blobs/", Fault::Cut(200_000), 1);
        place.faults().add("GET", "/blobs/", Fault::Status(416, vec![]), 1);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        place.faults().add("GET", "/blobs/", Fault::Status(416, vec![]), 1);
        match client.blob_range(&repository, &blob(&content), 10..20).await.unwrap() {
            RangeAnswer::Whole(stream) => assert_eq!(stream.offset(), 0),
            RangeAnswer::Part(_) => panic!("416 has no part"),
        }
    });
}

#[test]
fn another_part_than_was_asked_for() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(5, 500_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().add("GET", "/blobs/", Fault::Cut(200_000), 1);
        place.faults().add("GET", "/blobs/", Fault::WrongPart, 1);
        let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(&error, Error::Protocol { reason, .. } if reason.contains("200000")), "{error}");
    });
}

#[test]
fn overload_is_waited_for() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(6, 1000);
        push(&client, &repository, &content).await.unwrap();
        let start = Instant::now();
        let again = vec![("Retry-After".to_owned(), "1".to_owned())];
        place.faults().add("GET", "/blobs/", Fault::Status(429, again), 1);
        for status in [500, 502, 503] {
            place.faults().add("GET", "/blobs/", Fault::Status(status, vec![]), 1);
        }
        // Four answers are all there is patience for.
        let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(error, Error::Status { status: 503, .. }), "{error}");
        assert!(start.elapsed() >= Duration::from_secs(1));
        place.faults().add("GET", "/blobs/", Fault::Status(504, vec![]), 3);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        // Longer than anybody would wait.
        let later = vec![("Retry-After".to_owned(), "86400".to_owned())];
        place.faults().add("GET", "/blobs/", Fault::Status(429, later), 1);
        let start = Instant::now();
        let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(&error, Error::RateLimited { reason, .. } if reason.contains("86400")), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn what_is_no_overload_is_not_repeated() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        for status in [400, 403, 405, 451] {
            place.faults().forget();
            place.faults().add("GET", "/manifests/", Fault::Status(status, vec![]), 1);
            let error = client.manifest(&repository.with_tag("t").unwrap()).await.unwrap_err();
            assert!(error.to_string().contains("TEST: as told"), "{error}");
            assert_eq!(place.faults().count("GET", "/manifests/"), 1, "{status}");
        }
    });
}

#[test]
fn wrong_bytes_of_a_manifest_are_not_seen() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let document = push_image(&client, &repository, "t", &bytes(7, 100)).await;
        let names = [repository.with_tag("t").unwrap(), repository.with_digest(document.digest())];
        for name in &names {
            place.faults().add("GET", "/manifests/", Fault::Flip, 1);
            let error = client.manifest(name).await.unwrap_err();
            assert!(
                matches!(error, Error::Mismatch { mismatch: Mismatch::Digest { .. }, .. }),
                "{name}: {error}"
            );
        }
        // A cut is tried again.
        place.faults().add("GET", "/manifests/", Fault::Cut(20), 2);
        assert_eq!(client.manifest(&names[0]).await.unwrap().raw.digest(), document.digest());
    });
}

#[test]
fn a_body_longer_than_announced_in_the_manifest() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(8, 1000);
        push(&client, &repository, &content).await.unwrap();
        for fault in [Fault::Longer(1), Fault::LieMore(7)] {
            place.faults().add("GET", "/blobs/", fault, 1);
            let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
            assert!(matches!(error, Error::Mismatch { mismatch: Mismatch::Size { .. }, .. }), "{error}");
        }
    });
}

#[test]
fn slow_bodies() {
    each(|place| async move {
        let repository = place.repository("x");
        let content = bytes(9, 40_000);
        push(&place.client(), &repository, &content).await.unwrap();
        let settings = Settings { idle_timeout: Duration::from_millis(300), slowest: 1024, ..settings() };
        let client = Client::new(settings);
        // Slow, but not too slow.
        place.faults().add("GET", "/blobs/", Fault::Slow(4000, Duration::from_millis(60)), 1);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        // Always something, never enough: it is asked again for the rest.
        place.faults().forget();
        place.faults().add("GET", "/blobs/", Fault::Slow(10, Duration::from_millis(20)), 1);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        assert_eq!(place.faults().count("GET", "/blobs/"), 2);
        // Nothing at all.
        place.faults().add("GET", "/blobs/", Fault::Silent(Duration::from_secs(2)), 1);
        let start = Instant::now();
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    });
}

#[test]
fn a_connection_that_is_refused_is_tried_again() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("x"));
        let content = bytes(10, 1000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().add("GET", "/blobs/", Fault::Refuse, 2);
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
    });
}

#[test]
fn a_manifest_without_end_is_refused() {
    each(|place| async move {
        let repository = place.repository("x");
        push_image(&place.client(), &repository, "t", &bytes(11, 100)).await;
        let name = repository.with_tag("t").unwrap();
        place.faults().add("GET", "/manifests/", Fault::Longer(5 << 20), 1);
        let error = place.client().manifest(&name).await.unwrap_err();
        let large =
            |error: &coracle_codec::oci::Error| matches!(error, coracle_codec::oci::Error::TooLarge { .. });
        assert!(matches!(&error, Error::Document { error, .. } if large(error)), "{error}");
    });
}
