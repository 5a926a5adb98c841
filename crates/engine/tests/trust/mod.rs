//! Whether images are accepted: policies, keys and signatures made by openssl, in a registry in memory.

mod deltas;
mod lookups;
mod verdicts;

use std::path::Path;

use coracle_engine::Error;
use coracle_engine::pull::Pulled;
use coracle_engine::trust::Trust;
use coracle_testkit::oci::{Bundle, Compression, digest, image, layers};
use coracle_testkit::signing::{self, Key, Kind};
use serde_json::{Value, json};

use crate::images::site::Site;
use crate::pulls::pull;

/// A folder with a registry, and an image in it as `app:1`.
pub struct Signed {
    pub site: Site,
    pub image: Bundle,
    pub key: Key,
}

pub const IMAGE: &str = "docker://{double}/app:1";

impl Signed {
    pub fn new(kind: Kind) -> Self {
        let site = Site::new();
        let image = image("amd64", &layers(), Compression::Gzip).unwrap();
        site.put_registry("app", "1", &image);
        let key = Key::new(&site.path("keys"), "ours", kind).unwrap();
        Signed { site, image, key }
    }

    /// Another key.
    pub fn stranger(&self) -> Key {
        Key::new(&self.site.path("keys"), "theirs", Kind::P256).unwrap()
    }

    /// `app:1` with its registry.
    pub fn name(&self) -> String {
        format!("{}/app:1", self.site.server.host())
    }

    /// The policy: images of the registry need a signature with our key and what `more` says.
    pub fn demand(&mut self, more: Value) {
        let mut requirement = json!({ "type": "sigstoreSigned", "keyPath": self.key.public });
        for (key, value) in more.as_object().unwrap() {
            requirement[key] = value.clone();
        }
        self.policy(json!({ "default": [{ "type": "reject" }],
            "transports": { "docker": { self.site.server.host(): [requirement] } } }));
    }

    /// Any policy.
    pub fn policy(&mut self, policy: Value) {
        self.site.trust = trust(&self.site.path("policy.json"), &policy).unwrap();
    }

    /// Puts signatures under the tag of the image with this digest.
    pub fn tag(&self, of: &str, signatures: &[(Vec<u8>, String)]) {
        self.put(&signing::tag(of), &signing::tagged(signatures));
    }

    /// Puts a referrer of the image.
    pub fn refer(&self, bundle: &[u8]) {
        self.put("referrer", &signing::bundled(bundle, self.subject()));
    }

    pub fn subject(&self) -> (&str, &[u8]) {
        (&self.image.root.0, &self.image.root.1)
    }

    pub fn put(&self, tag: &str, bundle: &Bundle) {
        self.site.put_registry("app", tag, bundle);
    }

    /// Pulls, and wants it accepted as signed.
    pub fn accepted(&self) -> Pulled {
        let pulled = pull(&self.site, IMAGE).unwrap();
        assert!(matches!(pulled.trust, coracle_engine::trust::Verdict::Signed(..)), "{:?}", pulled.trust);
        pulled
    }

    /// Pulls, and wants it rejected with a reason; nothing may be there then.
    pub fn rejected(&self, wanted: &str) {
        match pull(&self.site, IMAGE) {
            Err(Error::Rejected { reason, .. }) => assert!(reason.contains(wanted), "{wanted}: {reason}"),
            other => panic!("{wanted}: {other:?}"),
        }
        let store = crate::pulls::store(&self.site);
        assert!(store.reference(&self.name().parse().unwrap()).unwrap().is_none());
        assert_eq!(store.usage().unwrap().partial, 0);
    }
}

pub fn trust(path: &Path, policy: &Value) -> Result<Trust, Error> {
    std::fs::write(path, policy.to_string()).unwrap();
    Trust::load(path)
}

pub fn repository() -> Value {
    json!({ "signedIdentity": { "type": "matchRepository" } })
}

/// The digest of a bundle's root.
pub fn digest_of(bundle: &Bundle) -> String {
    digest(&bundle.root.1)
}
