//! TLS and passwords on the real registry.

use std::fs;

use coracle_registry::config::{AuthFiles, CertFolders, Registries};
use coracle_registry::{Client, Error, Settings};
use coracle_testkit::registry::base64;
use coracle_testkit::service::{Authority, Registry, RegistryOptions};

use crate::place::{blob, bytes, pull, push, run, settings};

#[test]
fn a_private_authority_and_htpasswd() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(&dir.path().join("ca")).unwrap();
    let options = RegistryOptions {
        tls: Some(authority.certify("server").unwrap()),
        basic: Some(("alice".into(), "s3cret".into())),
        token: None,
    };
    let registry = Registry::start(&dir.path().join("registry"), &options).unwrap();
    let host = registry.host();
    let repository = coracle_codec::oci::Repository::new(&host, "a/b").unwrap();
    let auth = dir.path().join("auth.json");
    fs::write(&auth, format!(r#"{{"auths":{{"{host}":{{"auth":"{}"}}}}}}"#, base64(b"alice:s3cret")))
        .unwrap();
    let certs = dir.path().join("certs.d");
    fs::create_dir_all(certs.join(&host)).unwrap();
    fs::copy(authority.certificate(), certs.join(&host).join("ca.crt")).unwrap();
    let auth = AuthFiles { files: vec![auth], only: None };
    let secure = Settings { registries: Registries::default(), ..settings() };
    let trusted = CertFolders { by_host: vec![certs], always: None };
    let content = bytes(1, 2_000_000);
    run(async {
        let client = Client::new(Settings { certs: trusted.clone(), auth: auth.clone(), ..secure.clone() });
        push(&client, &repository, &content).await.unwrap();
        assert!(pull(&client, &repository, &blob(&content), 0).await.unwrap() == content);
        // Without the authority nothing is sent, not even a name.
        let strict = Client::new(Settings { auth: auth.clone(), ..secure.clone() });
        let error = pull(&strict, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(error, Error::Connect { tls: true, .. }), "{error:?}");
        // Whoever does not care about certificates says so.
        let lax = Client::new(Settings { auth: auth.clone(), ..settings() });
        assert!(pull(&lax, &repository, &blob(&content), 0).await.unwrap() == content);
        let nobody = Client::new(Settings { certs: trusted, ..secure });
        let error = pull(&nobody, &repository, &blob(&content), 0).await.unwrap_err();
        assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    });
}

/// Plain HTTP is not spoken unless somebody said that it may be.
#[test]
fn no_plain_http_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::start(dir.path(), &RegistryOptions::default()).unwrap();
    let repository = coracle_codec::oci::Repository::new(&registry.host(), "x").unwrap();
    run(async {
        let client = Client::new(Settings { registries: Registries::default(), ..settings() });
        let error = pull(&client, &repository, &blob(b"x"), 0).await.unwrap_err();
        assert!(matches!(error, Error::Connect { tls: true, .. }), "{error:?}");
    });
}
