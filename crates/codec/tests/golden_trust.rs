//! Signatures that other programs made, and what is left of them when something in them is another.

use coracle_codec::trust::{Fault, PublicKey, Signature, Signed};
use coracle_testkit::golden::Golden;

fn read(name: &str) -> Vec<u8> {
    std::fs::read(Golden::built_in().root().join("trust").join(name)).unwrap()
}

fn skopeo() -> (Vec<PublicKey>, Vec<u8>, String, Vec<u8>) {
    let key = PublicKey::from_pem(&read("skopeo-1.13/key.pub")).unwrap();
    let signature = String::from_utf8(read("skopeo-1.13/signature")).unwrap();
    (vec![key], read("skopeo-1.13/payload.json"), signature, read("skopeo-1.13/manifest.json"))
}

fn simple(payload: &[u8], signature: &str) -> Signature {
    Signature::Simple { payload: payload.to_vec(), signature: Some(signature.to_owned()), certificate: false }
}

#[test]
fn what_skopeo_signed_holds_and_nothing_else_does() {
    let (keys, payload, signature, manifest) = skopeo();
    let signed = simple(&payload, &signature).verify(&keys, &manifest).unwrap();
    assert_eq!(signed, Signed { name: Some("127.0.0.1:5777/app:signed".into()), key: 0 });
    for at in 0..payload.len() {
        let mut other = payload.clone();
        other[at] ^= 1;
        assert_eq!(
            simple(&other, &signature).verify(&keys, &manifest),
            Err(Fault::Unverified { certificate: false })
        );
    }
    for at in 0..signature.len() {
        let mut other = signature.clone().into_bytes();
        other[at] = if other[at] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        assert!(simple(&payload, &other).verify(&keys, &manifest).is_err(), "{at}");
    }
    let mut other = manifest;
    other.push(b' ');
    let fault = simple(&payload, &signature).verify(&keys, &other).unwrap_err();
    assert!(matches!(fault, Fault::OtherImage(_)), "{fault}");
    // Without a key there is nobody to believe.
    assert!(simple(&payload, &signature).verify(&[], &other).is_err());
}

#[test]
fn what_securesystemslib_signed_holds_and_nothing_else_does() {
    let manifest = read("skopeo-1.13/manifest.json");
    let key = PublicKey::from_pem(&read("securesystemslib-1.6/key.pub")).unwrap();
    let stranger = skopeo().0.remove(0);
    let bundle = read("securesystemslib-1.6/bundle.json");
    let keys = [stranger.clone(), key];
    let signed = Signature::Bundle(bundle.clone()).verify(&keys, &manifest).unwrap();
    assert_eq!(signed, Signed { name: Some("h.io/app".into()), key: 1 });
    let fault = Signature::Bundle(bundle.clone()).verify(&[stranger], &manifest).unwrap_err();
    assert_eq!(fault, Fault::Unverified { certificate: false });
    let mut held = 0;
    for at in 0..bundle.len() {
        let mut other = bundle.clone();
        other[at] ^= 1;
        // Some bytes mean nothing: the hint of the key, and the bits that pad base64. What is signed stays what it was.
        if let Ok(other) = Signature::Bundle(other).verify(&keys, &manifest) {
            assert_eq!(other, signed, "{at}");
            held += 1;
        }
    }
    assert!(held < 60, "{held}");
}
