//! Who asks, and who must not learn it.

use coracle_registry::config::AuthFiles;
use coracle_registry::{Client, Error, Settings};
use coracle_testkit::http::Fault;
use coracle_testkit::registry::{Access, Behaviour, base64};
use tempfile::TempDir;

use crate::place::{Place, blob, bytes, double, pull, push, push_image, run, settings};

/// A client that knows `entry` for the registry of `place`.
fn client(place: &Place, entry: &str) -> (Client, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("auth.json");
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{entry}}}}}"#, place.server.host())).unwrap();
    let auth = AuthFiles { files: vec![file], only: None };
    (Client::new(Settings { auth, ..settings() }), dir)
}

fn password(user: &str, password: &str) -> String {
    format!(r#"{{"auth":"{}"}}"#, base64(format!("{user}:{password}").as_bytes()))
}

#[test]
fn basic() {
    let access = Access::Basic("alice".into(), "s3cret".into());
    double(Behaviour { access, ..Behaviour::default() }, |place| async move {
        let repository = place.repository("a/b");
        let content = bytes(1, 300_000);
        let (known, _dir) = client(&place, &password("alice", "s3cret"));
        push(&known, &repository, &content).await.unwrap();
        assert!(pull(&known, &repository, &blob(&content), 0).await.unwrap() == content);
        let (wrong, _dir) = client(&place, &password("alice", "guess"));
        for client in [wrong, place.client()] {
            let error = pull(&client, &repository, &blob(&content), 0).await.unwrap_err();
            assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
            assert!(!error.to_string().contains("guess"));
        }
    });
}

#[test]
fn tokens() {
    let access = Access::Token("alice".into(), "s3cret".into());
    double(Behaviour { access, ..Behaviour::default() }, |place| async move {
        let repository = place.repository("a/b");
        let content = bytes(2, 300_000);
        for entry in [password("alice", "s3cret"), r#"{"identitytoken":"identity"}"#.to_owned()] {
            let (known, _dir) = client(&place, &entry);
            place.faults().forget();
            push_image(&known, &repository, "t", &content).await;
            // One for reading and writing, and it is kept.
            let asked = place.faults().requests();
            assert_eq!(asked.iter().filter(|r| r.path == "/token").count(), 1);
            assert!(asked.iter().any(|r| r.path == "/token"
                && (r.parameter("scope").as_deref() == Some("repository:a/b:pull,push")
                    || r.method == "POST")));
        }
        // Everybody may read.
        assert!(pull(&place.client(), &repository, &blob(&content), 0).await.unwrap() == content);
        let error = push(&place.client(), &repository, &bytes(3, 10)).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
        let (wrong, _dir) = client(&place, &password("alice", "guess"));
        let error = push(&wrong, &repository, &bytes(3, 10)).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    });
}

/// Tokens end, also while a blob is on its way.
#[test]
fn a_token_that_ends_is_renewed() {
    let access = Access::Token("alice".into(), "s3cret".into());
    double(Behaviour { access, token_uses: Some(2), ..Behaviour::default() }, |place| async move {
        let (known, _dir) = client(&place, &password("alice", "s3cret"));
        let repository = place.repository("x");
        for seed in 10..16 {
            let content = bytes(seed, 200_000);
            push(&known, &repository, &content).await.unwrap();
            place.faults().add("GET", "/blobs/", Fault::Cut(50_000), 1);
            assert!(pull(&known, &repository, &blob(&content), 0).await.unwrap() == content);
        }
    });
}

/// Credentials do not follow a redirect to another host, nor a body that is asked for again.
#[test]
fn credentials_stay_at_home() {
    run(async {
        let access = Access::Basic("alice".into(), "s3cret".into());
        let place = Place::double(Behaviour { access, ..Behaviour::default() });
        let other = Place::double(Behaviour::default());
        let content = bytes(4, 400_000);
        let (known, _dir) = client(&place, &password("alice", "s3cret"));
        push(&known, &place.repository("x"), &content).await.unwrap();
        other.double.as_ref().unwrap().put_blob("x", content.clone());
        let at = format!("http://{}", other.server.host());
        place.double.as_ref().unwrap().behave(|behaviour| behaviour.blobs_at = Some(at));
        other.faults().add("GET", "/blobs/", Fault::Cut(100_000), 2);
        assert!(pull(&known, &place.repository("x"), &blob(&content), 0).await.unwrap() == content);
        let asked = other.faults().requests();
        assert_eq!(asked.len(), 3);
        for request in asked {
            assert_eq!(request.header("authorization"), None);
            assert_eq!(request.header("cookie"), None);
        }
        // Each time by way of the registry, which got them.
        let home = place.faults().requests();
        // All but the first, which did not know yet that they are wanted for reading, too.
        assert!(
            home.iter().filter(|r| r.method == "GET").skip(1).all(|r| r.header("authorization").is_some())
        );
    });
}

/// The host that a redirect leads to asks for credentials: it gets none, and so gives nothing.
#[test]
fn a_redirect_does_not_ask_for_credentials() {
    run(async {
        let access = Access::Basic("alice".into(), "s3cret".into());
        let place = Place::double(Behaviour { access: access.clone(), ..Behaviour::default() });
        let thief = Place::double(Behaviour { access, ..Behaviour::default() });
        let content = bytes(5, 1000);
        let (known, _dir) = client(&place, &password("alice", "s3cret"));
        push(&known, &place.repository("x"), &content).await.unwrap();
        thief.double.as_ref().unwrap().put_blob("x", content.clone());
        let at = format!("http://{}", thief.server.host());
        place.double.as_ref().unwrap().behave(|behaviour| behaviour.blobs_at = Some(at));
        assert!(pull(&known, &place.repository("x"), &blob(&content), 0).await.is_err());
        assert!(!thief.faults().requests().is_empty());
        for request in thief.faults().requests() {
            assert_eq!(request.header("authorization"), None);
        }
    });
}

#[test]
fn redirects_end() {
    run(async {
        let place = Place::double(Behaviour::default());
        let content = bytes(6, 1000);
        push(&place.client(), &place.repository("x"), &content).await.unwrap();
        let home = format!("http://{}", place.server.host());
        place.faults().add("GET", "/blobs/", Fault::Redirect(home), 100);
        let error = pull(&place.client(), &place.repository("x"), &blob(&content), 0).await.unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{error}");
        assert_eq!(place.faults().count("GET", "/blobs/"), 11);
        for target in ["ftp://127.0.0.1", "file:///etc/passwd?", "gopher://x"] {
            place.faults().clear();
            place.faults().add("GET", "/blobs/", Fault::Redirect(target.into()), 1);
            let error = pull(&place.client(), &place.repository("x"), &blob(&content), 0).await.unwrap_err();
            assert!(matches!(error, Error::Redirect { .. }), "{target}: {error}");
        }
    });
}
