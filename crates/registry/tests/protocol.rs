//! What the protocol promises, without anything going wrong.

use coracle_codec::digest::Digest;
use coracle_codec::oci::Version;
use coracle_registry::{Error, RangeAnswer, Settings};
use coracle_testkit::registry::{Behaviour, MultiRange};

use crate::place::{blob, bytes, double, each, pull, push, push_image, settings};

#[test]
fn what_is_pushed_comes_back_bit_for_bit() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("a/b"));
        for content in [bytes(1, 3_000_000), bytes(2, 1), Vec::new()] {
            push(&client, &repository, &content).await.unwrap();
            assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
            if content.len() > 2 {
                let end = content.len() - 1;
                assert!(pull(&client, &repository, &blob(&content), 1000).await.unwrap() == content[1000..]);
                assert_eq!(
                    pull(&client, &repository, &blob(&content), end as u64).await.unwrap(),
                    content[end..]
                );
            }
        }
    });
}

#[test]
fn manifests_are_raw_bytes() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("img"));
        let document = push_image(&client, &repository, "v1", &bytes(3, 5000)).await;
        let by_tag = client.manifest(&repository.with_tag("v1").unwrap()).await.unwrap();
        let by_digest = client.manifest(&repository.with_digest(document.digest())).await.unwrap();
        for fetched in [by_tag, by_digest] {
            assert_eq!(fetched.raw.as_bytes(), document.raw().as_bytes());
            assert_eq!(fetched.media_type.as_deref(), Some(document.media_type()));
        }
        let tag = repository.with_tag("v1").unwrap();
        assert_eq!(client.manifest_digest(&tag).await.unwrap(), Some(document.digest()));
        assert!(client.delete_manifest(&repository, &document.digest()).await.unwrap());
        assert!(!client.delete_manifest(&repository, &document.digest()).await.unwrap());
    });
}

#[test]
fn absent_is_what_the_registry_says_and_nothing_else() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("none"));
        let absent = bytes(4, 10);
        assert!(!client.blob_exists(&repository, &Digest::of(&absent)).await.unwrap());
        let error = pull(&client, &repository, &blob(&absent), 0).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
        let tag = repository.with_tag("x").unwrap();
        assert!(matches!(client.manifest(&tag).await, Err(Error::NotFound { .. })));
        assert_eq!(client.manifest_digest(&tag).await.unwrap(), None);
        assert!(matches!(client.tags(&repository).await, Err(Error::NotFound { .. })));
        // And when it cannot be asked, no such thing is said.
        for status in [403, 500] {
            place.faults().add("HEAD", "/v2/none/", coracle_testkit::http::Fault::Status(status, vec![]), 8);
            assert!(client.blob_exists(&repository, &Digest::of(&absent)).await.is_err(), "{status}");
            assert!(client.manifest_digest(&tag).await.is_err(), "{status}");
            // Not every one is asked as often.
            place.faults().clear();
        }
    });
}

#[test]
fn tags_come_page_by_page() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("tags"));
        let document = push_image(&client, &repository, "t00", &bytes(5, 100)).await;
        let mut want = vec!["t00".to_owned()];
        for i in 1..12 {
            let tag = format!("t{i:02}");
            client.push_manifest(&repository, &Version::Tag(tag.clone()), &document).await.unwrap();
            want.push(tag);
        }
        if let Some(double) = &place.double {
            double.behave(|behaviour| behaviour.page = 5);
        }
        let mut found = client.tags(&repository).await.unwrap();
        // docker-registry has no order.
        found.sort();
        assert_eq!(found, want);
        if place.double.is_some() {
            assert_eq!(place.faults().count("GET", "/tags/list"), 3);
        }
    });
}

#[test]
fn pages_are_bounded() {
    double(Behaviour { page: 1, ..Behaviour::default() }, |place| async move {
        let client = coracle_registry::Client::new(Settings { max_pages: 3, ..settings() });
        for i in 0..5 {
            place.double.as_ref().unwrap().put_manifest("x", &format!("t{i}"), "a/b", b"{}");
        }
        let error = client.tags(&place.repository("x")).await.unwrap_err();
        assert!(matches!(&error, Error::Protocol { reason, .. } if reason.contains("pages")), "{error}");
    });
}

/// Whatever a registry does with several ranges in one request: we ask for one.
#[test]
fn one_closed_range_works_everywhere() {
    for multi_range in
        [MultiRange::Parts, MultiRange::NotImplemented, MultiRange::NotSatisfiable, MultiRange::Whole]
    {
        let behaviour = Behaviour { multi_range, closed_ranges_only: true, ..Behaviour::default() };
        double(behaviour, |place| async move {
            let (client, repository) = (place.client(), place.repository("r"));
            let content = bytes(6, 100_000);
            push(&client, &repository, &content).await.unwrap();
            match client.blob_range(&repository, &blob(&content), 500..70_000).await.unwrap() {
                RangeAnswer::Part(part) => assert!(part == content[500..70_000]),
                RangeAnswer::Whole(_) => panic!("{multi_range:?}: the range was not used"),
            }
            assert!(pull(&client, &repository, &blob(&content), 99_000).await.unwrap() == content[99_000..]);
        });
    }
}

#[test]
fn ranges_on_a_real_registry() {
    each(|place| async move {
        let (client, repository) = (place.client(), place.repository("r"));
        let content = bytes(7, 50_000);
        push(&client, &repository, &content).await.unwrap();
        for range in [0..1, 49_999..50_000, 0..50_000, 100..200] {
            match client.blob_range(&repository, &blob(&content), range.clone()).await.unwrap() {
                RangeAnswer::Part(part) => assert!(part == content[range.start as usize..range.end as usize]),
                RangeAnswer::Whole(_) => panic!("the range was not used"),
            }
        }
        assert!(client.blob_range(&repository, &blob(&content), 1..50_001).await.is_err());
    });
}

/// A server without ranges: what it sends instead is used, and not asked for a second time.
#[test]
fn the_whole_instead_of_a_range_is_used() {
    double(Behaviour { ranges: false, ..Behaviour::default() }, |place| async move {
        let (client, repository) = (place.client(), place.repository("r"));
        let content = bytes(8, 300_000);
        push(&client, &repository, &content).await.unwrap();
        place.faults().forget();
        let RangeAnswer::Whole(mut stream) =
            client.blob_range(&repository, &blob(&content), 500..700).await.unwrap()
        else {
            panic!("there are no ranges")
        };
        let mut all = Vec::new();
        while let Some(bytes) = stream.next().await.unwrap() {
            all.extend_from_slice(&bytes);
        }
        assert!(all == content);
        assert_eq!(place.faults().count("GET", "/blobs/"), 1);
        assert!(pull(&client, &repository, &blob(&content), 1000).await.unwrap() == content[1000..]);
    });
}

#[test]
fn the_rate_is_kept() {
    each(|place| async move {
        let repository = place.repository("slow");
        let content = bytes(9, 600_000);
        push(&place.client(), &repository, &content).await.unwrap();
        let client = coracle_registry::Client::new(Settings { limit_rate: Some(1_000_000), ..settings() });
        let start = std::time::Instant::now();
        pull(&client, &repository, &blob(&content), 0).await.unwrap();
        let more = bytes(10, 600_000);
        push(&client, &repository, &more).await.unwrap();
        // 1.2 MB, less what the last piece of each does not wait for.
        assert!(start.elapsed().as_millis() > 600, "{:?}", start.elapsed());
    });
}
