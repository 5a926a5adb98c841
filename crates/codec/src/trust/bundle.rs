//! Sigstore bundles in JSON (sigstore protobuf-specs, `sigstore_bundle.proto`; cosign, BUNDLE_SPEC).
//!
//! A bundle holds a DSSE envelope (secure-systems-lab/dsse, version 1.0) around an in-toto statement, or a signature over
//! the image's manifest itself. Certificates, entries of logs and timestamps in it are not looked at: what counts is
//! whether a key that is known here verifies.

use serde_json::Value;

use super::members::{Members, any_base64, parse};
use super::shortened;
use crate::digest::Digest;

/// Media type of a bundle of version 0.3, and artifact type of its manifest.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The annotation of the manifest that tells the predicate of the statement in it.
pub const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// What cosign signs images with.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
/// Payload of envelopes.
const IN_TOTO: &str = "application/vnd.in-toto+json";
/// Versions of statements (in-toto attestation framework).
const STATEMENTS: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];
/// Earlier ways to write the media type.
const OLDER: [&str; 3] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
];

/// A bundle as far as it is needed. Nothing in it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// What was signed.
    pub content: Content,
    /// The signature.
    pub signature: Vec<u8>,
    /// Whether it comes with a certificate instead of the name of a key.
    pub certificate: bool,
}

/// What a bundle signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A statement in an envelope.
    Envelope {
        /// The bytes that the signature is over.
        signed: Vec<u8>,
        /// The statement.
        payload: Vec<u8>,
    },
    /// The image's manifest.
    Message {
        /// Its sha256, if the bundle says.
        digest: Option<Digest>,
    },
}

/// Reads a bundle.
///
/// # Errors
/// What is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Bundle, String> {
    let mut whole = Members::new(parse(bytes, "bundle")?, "the bundle")?;
    let kind = whole.required_text("mediaType")?;
    if kind != MEDIA_TYPE && !OLDER.contains(&kind.as_str()) {
        return Err(format!("a bundle of type {:?}", shortened(&kind)));
    }
    let material = whole.required("verificationMaterial")?;
    let certificate = ["certificate", "x509CertificateChain"].iter().any(|key| material.get(key).is_some());
    let (envelope, message) = (whole.take("dsseEnvelope"), whole.take("messageSignature"));
    let (content, signature) = match (envelope, message) {
        (Some(envelope), None) => read_envelope(envelope)?,
        (None, Some(message)) => read_message(message)?,
        (Some(_), Some(_)) => return Err("it holds both an envelope and a message signature".into()),
        (None, None) => return Err("it holds neither an envelope nor a message signature".into()),
    };
    Ok(Bundle { content, signature, certificate })
}

fn read_envelope(value: Value) -> Result<(Content, Vec<u8>), String> {
    let mut envelope = Members::new(value, "dsseEnvelope")?;
    let kind = envelope.required_text("payloadType")?;
    if kind != IN_TOTO {
        return Err(format!("an envelope around {:?}", shortened(&kind)));
    }
    let payload = envelope.required_text("payload")?;
    let payload = any_base64(&payload).ok_or("payload is not base64")?;
    let Value::Array(mut signatures) = envelope.required("signatures")? else {
        return Err("signatures is no list".into());
    };
    // A bundle's envelope has one (sigstore_bundle.proto).
    let count = signatures.len();
    let (1, Some(signature)) = (count, signatures.pop()) else {
        return Err(format!("an envelope with {count} signatures"));
    };
    let signature = Members::new(signature, "signatures")?.required_text("sig")?;
    let signature = any_base64(&signature).ok_or("sig is not base64")?;
    let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    signed.extend_from_slice(&payload);
    Ok((Content::Envelope { signed, payload }, signature))
}

fn read_message(value: Value) -> Result<(Content, Vec<u8>), String> {
    let mut message = Members::new(value, "messageSignature")?;
    let signature = message.required_text("signature")?;
    let signature = any_base64(&signature).ok_or("signature is not base64")?;
    let digest = match message.take("messageDigest") {
        None => None,
        Some(value) => {
            let mut digest = Members::new(value, "messageDigest")?;
            let (algorithm, bytes) = (digest.required_text("algorithm")?, digest.required_text("digest")?);
            if algorithm != "SHA2_256" {
                return Err(format!("a digest of type {:?}", shortened(&algorithm)));
            }
            let bytes = any_base64(&bytes).ok_or("digest is not base64")?;
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let digest = format!("sha256:{hex}").parse();
            Some(digest.map_err(|_| format!("a digest of {} bytes", bytes.len()))?)
        }
    };
    Ok((Content::Message { digest }, signature))
}

/// A statement that an image is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What it is about: digests, each with the name that the signer gave it, if any.
    pub subjects: Vec<(Digest, Option<String>)>,
}

/// Reads the statement of a signature. One with another predicate says something about an image, and not that it is
/// approved.
///
/// # Errors
/// What is wrong with it.
pub fn read_statement(bytes: &[u8]) -> Result<Statement, String> {
    let mut statement = Members::new(parse(bytes, "statement")?, "the statement")?;
    let kind = statement.required_text("_type")?;
    if !STATEMENTS.contains(&kind.as_str()) {
        return Err(format!("a statement of type {:?}", shortened(&kind)));
    }
    let predicate = statement.required_text("predicateType")?;
    if predicate != SIGN {
        return Err(format!("no signature but a statement of kind {:?}", shortened(&predicate)));
    }
    let Value::Array(subjects) = statement.required("subject")? else {
        return Err("subject is no list".into());
    };
    let mut found = Vec::new();
    for subject in subjects {
        let mut subject = Members::new(subject, "subject")?;
        let name = subject.text("name")?.filter(|name| !name.is_empty());
        let mut digests = Members::new(subject.required("digest")?, "digest")?;
        let Some(hex) = digests.text("sha256")? else { continue };
        let digest = format!("sha256:{hex}").parse();
        let digest = digest.map_err(|_| format!("{:?} is no sha256", shortened(&hex)))?;
        found.push((digest, name));
    }
    if found.is_empty() {
        return Err("a statement about nothing".into());
    }
    Ok(Statement { subjects: found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bundle() -> Value {
        json!({
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": { "publicKey": { "hint": "x" }, "tlogEntries": [] },
            "dsseEnvelope": {
                "payload": "e30=", "payloadType": IN_TOTO, "signatures": [{ "sig": "AAEC", "keyid": "" }],
            },
        })
    }

    #[test]
    fn an_envelope_signs_its_type_as_well() {
        let read = read(bundle().to_string().as_bytes()).unwrap();
        let signed = b"DSSEv1 28 application/vnd.in-toto+json 2 {}".to_vec();
        assert_eq!(read.content, Content::Envelope { signed, payload: b"{}".to_vec() });
        assert_eq!((read.signature.as_slice(), read.certificate), (&[0, 1, 2][..], false));
    }

    #[test]
    fn a_message_signature_may_tell_the_digest() {
        let mut value = bundle();
        value.as_object_mut().unwrap().remove("dsseEnvelope");
        value["verificationMaterial"] = json!({ "certificate": {} });
        let digest = Digest::of(b"");
        let said =
            json!({ "algorithm": "SHA2_256", "digest": "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU" });
        value["messageSignature"] = json!({ "signature": "AAEC", "messageDigest": said });
        let read = read(value.to_string().as_bytes()).unwrap();
        assert_eq!(read.content, Content::Message { digest: Some(digest) });
        assert!(read.certificate);
    }

    #[test]
    fn everything_else_is_refused_with_the_reason() {
        let cases: [(&str, &str, Value); 12] = [
            ("/mediaType", "type \"application/x\"", json!("application/x")),
            ("/mediaType", "mediaType is no text", json!(1)),
            ("/verificationMaterial", "verificationMaterial is missing", Value::Null),
            ("/dsseEnvelope", "neither an envelope", Value::Null),
            ("/messageSignature", "both an envelope", json!({})),
            ("/dsseEnvelope/payload", "payload is not base64", json!("*")),
            ("/dsseEnvelope/payload", "payload is missing", Value::Null),
            ("/dsseEnvelope/payloadType", "around \"text/plain\"", json!("text/plain")),
            ("/dsseEnvelope/signatures", "with 0 signatures", json!([])),
            ("/dsseEnvelope/signatures", "signatures is no list", json!({})),
            ("/dsseEnvelope/signatures", "with 2 signatures", json!([{ "sig": "" }, { "sig": "" }])),
            ("/dsseEnvelope/signatures/0", "sig is missing", json!({})),
        ];
        for (place, wanted, new) in cases {
            let mut value = bundle();
            let (parent, key) = place.rsplit_once('/').unwrap();
            let parent = value.pointer_mut(parent).unwrap();
            match (parent, new) {
                (Value::Object(map), Value::Null) => drop(map.remove(key)),
                (Value::Object(map), new) => drop(map.insert(key.into(), new)),
                (parent, new) => parent[key.parse::<usize>().unwrap()] = new,
            }
            let error = read(value.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn statements_of_other_kinds_are_no_signatures() {
        let digest = Digest::of(b"");
        let good = json!({ "_type": STATEMENTS[0], "predicateType": SIGN, "predicate": {},
            "subject": [{ "digest": { "sha512": "00" } }, { "digest": { "sha256": digest.hex() } }] });
        let statement = read_statement(good.to_string().as_bytes()).unwrap();
        assert_eq!(statement.subjects, [(digest, None)]);
        for (key, wanted, new) in [
            ("_type", "statement of type", json!("x")),
            (
                "predicateType",
                "kind \"https://slsa.dev/provenance/v1\"",
                json!("https://slsa.dev/provenance/v1"),
            ),
            ("subject", "about nothing", json!([])),
            ("subject", "is no list", json!({})),
            ("subject", "is no sha256", json!([{ "digest": { "sha256": "XX" } }])),
            ("subject", "digest is missing", json!([{ "name": "x" }])),
        ] {
            let mut value = good.clone();
            value[key] = new;
            let error = read_statement(value.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
