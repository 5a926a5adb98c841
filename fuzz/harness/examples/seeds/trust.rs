//! Seeds of `trust`.

use coracle_testkit::golden::Golden;
use serde_json::json;

use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let root = Golden::built_in().root().join("trust");
    let read = |name: &str| std::fs::read(root.join(name));
    let (payload, signature) = (read("skopeo-1.13/payload.json")?, read("skopeo-1.13/signature")?);
    seeds.insert("signed".into(), [payload.clone(), signature].join(&0x1e));
    seeds.insert("payload".into(), payload);
    seeds.insert("bundle".into(), read("securesystemslib-1.6/bundle.json")?);
    seeds.insert("key".into(), read("skopeo-1.13/key.pub")?);
    let statement = json!({ "_type": "https://in-toto.io/Statement/v1", "predicate": {},
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "subject": [{ "name": "h.io/a", "digest": { "sha256": "0".repeat(64) } }] });
    seeds.insert("statement".into(), statement.to_string().into_bytes());
    let message = json!({ "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "certificate": {} },
        "messageSignature": { "signature": "AAEC", "messageDigest": { "algorithm": "SHA2_256", "digest": "AA==" } } });
    seeds.insert("message".into(), message.to_string().into_bytes());
    for (name, text) in
        [("name", "h.io/a"), ("tag", "h.io/a:1"), ("short", "busybox"), ("port", "h.io:1/a:b")]
    {
        seeds.insert(name.into(), text.into());
    }
    let pinned = format!("h.io/a@sha256:{}", "0".repeat(64));
    seeds.insert("pinned".into(), pinned.into_bytes());
    // A key on P-256 as DER, and one of RSA that is too short.
    seeds.insert(
        "short-rsa".into(),
        b"-----BEGIN RSA PUBLIC KEY-----MAcCAn//AgED-----END RSA PUBLIC KEY-----".to_vec(),
    );
    let signed = |more: serde_json::Value| {
        let mut requirement = json!({ "type": "sigstoreSigned" });
        for (key, value) in more.as_object().into_iter().flatten() {
            requirement[key] = value.clone();
        }
        requirement
    };
    let requirements = [
        json!({ "type": "reject" }),
        json!({ "type": "insecureAcceptAnything" }),
        json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"] }),
        json!({ "type": "signedBaseLayer", "baseLayerIdentity": { "type": "matchExact" } }),
        signed(json!({ "keyPath": "/a" })),
        signed(json!({ "keyData": "AA==", "signedIdentity": { "type": "matchRepository" } })),
        signed(
            json!({ "keyDatas": ["AA=="], "signedIdentity": { "type": "exactReference", "dockerReference": "a:1" } }),
        ),
        signed(json!({ "keyPaths": ["/a"],
            "signedIdentity": { "type": "remapIdentity", "prefix": "h.io", "signedPrefix": "up.io/x" } })),
        signed(
            json!({ "fulcio": { "caPath": "/c", "oidcIssuer": "x", "subjectEmail": "y" }, "rekorPublicKeyPath": "/r" }),
        ),
        signed(json!({ "pki": { "caRootsPath": "/c", "subjectHostname": "x" } })),
    ];
    for (number, requirement) in requirements.iter().enumerate() {
        let policy = json!({ "default": [requirement], "transports": {
            "docker": { "h.io/a": [requirement], "": [requirement] },
            "dir": { "/a/b": [requirement] }, "containers-storage": { "[overlay@/x]h.io/a": [requirement] } } });
        seeds.insert(format!("policy-{number}"), policy.to_string().into_bytes());
    }
    Ok(seeds)
}
