//! Policies, keys and signatures.

use coracle_codec::trust::identity::Named;
use coracle_codec::trust::policy::Scopes;
use coracle_codec::trust::{Fault, Identity, IdentityRule, Policy, PublicKey, Signature, bundle, simple};

/// A signature that skopeo made, with its key and the manifest that it signs.
const KEY: &[u8] = include_bytes!("../../../testkit/golden/trust/skopeo-1.13/key.pub");
const MANIFEST: &[u8] = include_bytes!("../../../testkit/golden/trust/skopeo-1.13/manifest.json");
const PAYLOAD: &[u8] = include_bytes!("../../../testkit/golden/trust/skopeo-1.13/payload.json");
/// Between a payload and a signature.
const BREAK: u8 = 0x1e;

/// Reads `data` as everything there is, and as a payload with a signature behind a separator.
///
/// * A policy says something for every image, the same each time it is read.
/// * Nothing is verified but what the owner of the key has signed.
/// * A key that is read verifies no empty signature.
/// * A name is the same when it is read again, and a rule accepts no other repository than it says.
pub fn trust(data: &[u8]) {
    if let Ok(policy) = Policy::parse(data) {
        let image = Scopes { transport: "docker", scopes: vec!["h.io/a:1".into(), "h.io".into()] };
        assert!(!policy.requirements(&image).0.is_empty());
        assert_eq!(Policy::parse(data).as_ref(), Ok(&policy));
    }
    if let Ok(key) = PublicKey::from_pem(data) {
        assert!(!key.verifies(MANIFEST, b""));
    }
    let _ = PublicKey::from_der(data);
    let _ = simple::read(data);
    let _ = bundle::read_statement(data);
    let _ = bundle::read(data);
    if let Ok(text) = std::str::from_utf8(data) {
        names(text);
    }
    let Ok(key) = PublicKey::from_pem(KEY) else { panic!("the key cannot be read") };
    let keys = [key];
    let refused = Signature::Bundle(data.to_vec()).verify(&keys, MANIFEST);
    assert!(refused.is_err(), "a bundle by nobody");
    let mut parts = data.splitn(2, |byte| *byte == BREAK);
    let payload = parts.next().unwrap_or_default().to_vec();
    let signature = parts.next().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let other = payload != PAYLOAD;
    match (Signature::Simple { payload, signature, certificate: false }).verify(&keys, MANIFEST) {
        Ok(_) => assert!(!other, "another payload was verified"),
        Err(Fault::Malformed(_) | Fault::Unverified { .. }) => {}
        Err(fault) => panic!("{fault}"),
    }
}

fn names(text: &str) {
    let Some(named) = Named::parse(text) else { return };
    let shown = named.to_string();
    assert_eq!(Named::parse(&shown).map(|again| again.to_string()), Some(shown.clone()));
    let Ok(image) = "h.io/a:1".parse() else { panic!("no name") };
    let image = Identity::Named(image);
    if IdentityRule::MatchRepository.accepts(&image, text) {
        assert!(shown.starts_with("h.io/a"), "{shown}");
    }
    if IdentityRule::MatchExact.accepts(&image, text) {
        assert_eq!(shown, "h.io/a:1");
    }
    assert!(IdentityRule::ExactRepository(named).accepts(&image, text));
}
