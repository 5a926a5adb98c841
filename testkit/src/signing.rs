//! Keys and signatures made by openssl, in the public formats of cosign: so that nothing here is our own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Error;
use crate::golden::sha256_hex;
use crate::oci::{Bundle, descriptor};
use crate::oracle::{run_ok, tool};
use crate::registry::base64;

const LIMIT: Duration = Duration::from_secs(120);
/// Media type of the payloads of simple signing.
pub const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Media type of bundles, and artifact type of their manifests.
pub const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// Artifact type of simple signing among referrers.
pub const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Predicate of statements that an image is signed.
pub const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Kinds of keys, with the way they sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// ECDSA on P-384 with SHA-256, as cosign signs payloads.
    P384,
    /// ECDSA on P-384 with SHA-384, as cosign signs bundles.
    P384Long,
    /// ECDSA on P-521 with SHA-256.
    P521,
    /// ECDSA on P-521 with SHA-512.
    P521Long,
    /// Ed25519.
    Ed25519,
    /// RSA, PKCS #1 v1.5 with SHA-256.
    Rsa,
    /// RSA, PSS with SHA-256.
    RsaPss,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] = [
        Kind::P256,
        Kind::P384,
        Kind::P384Long,
        Kind::P521,
        Kind::P521Long,
        Kind::Ed25519,
        Kind::Rsa,
        Kind::RsaPss,
    ];

    fn generate(self) -> &'static str {
        match self {
            Kind::P256 => "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
            Kind::P384 | Kind::P384Long => "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
            Kind::P521 | Kind::P521Long => "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
            Kind::Ed25519 => "-algorithm ED25519",
            Kind::Rsa | Kind::RsaPss => "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Kind::P256 | Kind::P384 | Kind::P521 | Kind::Rsa => "-digest sha256",
            Kind::P384Long => "-digest sha384",
            Kind::P521Long => "-digest sha512",
            Kind::Ed25519 => "",
            Kind::RsaPss => "-digest sha256 -pkeyopt rsa_padding_mode:pss -pkeyopt rsa_pss_saltlen:32",
        }
    }
}

/// A pair of keys in a folder.
#[derive(Debug)]
pub struct Key {
    kind: Kind,
    secret: PathBuf,
    /// The public key, in PEM.
    pub public: PathBuf,
    scratch: PathBuf,
}

fn openssl(args: &str, paths: &[(&str, &Path)]) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(tool("openssl")?);
    command.args(args.split_ascii_whitespace());
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    run_ok(&mut command, LIMIT)
}

impl Key {
    /// Makes one with its files in `dir`, called `name`.
    ///
    /// # Errors
    /// openssl is missing or fails.
    pub fn new(dir: &Path, name: &str, kind: Kind) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let path = |suffix: &str| dir.join(format!("{name}.{suffix}"));
        let key = Key { kind, secret: path("key"), public: path("pub"), scratch: path("message") };
        openssl(&format!("genpkey -quiet {}", kind.generate()), &[("-out", &key.secret)])
            .or_else(|_| openssl(&format!("genpkey {}", kind.generate()), &[("-out", &key.secret)]))?;
        openssl("pkey -pubout", &[("-in", &key.secret), ("-out", &key.public)])?;
        Ok(key)
    }

    /// The public key.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn pem(&self) -> Result<Vec<u8>, Error> {
        std::fs::read(&self.public).map_err(|e| Error::io(&self.public, e))
    }

    /// Signs.
    ///
    /// # Errors
    /// openssl fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        std::fs::write(&self.scratch, message).map_err(|e| Error::io(&self.scratch, e))?;
        let args = format!("pkeyutl -sign -rawin {}", self.kind.sign());
        openssl(&args, &[("-inkey", &self.secret), ("-in", &self.scratch)])
    }

    /// A payload of simple signing with its signature.
    ///
    /// # Errors
    /// openssl fails.
    pub fn simple(&self, digest: &str, reference: &str) -> Result<(Vec<u8>, String), Error> {
        self.simple_over(payload(digest, reference))
    }

    /// A payload of any kind with its signature.
    ///
    /// # Errors
    /// openssl fails.
    pub fn simple_over(&self, payload: Vec<u8>) -> Result<(Vec<u8>, String), Error> {
        let signature = base64(&self.sign(&payload)?);
        Ok((payload, signature))
    }

    /// A bundle with an envelope around a statement.
    ///
    /// # Errors
    /// openssl fails.
    pub fn bundle(&self, statement: &Value) -> Result<Vec<u8>, Error> {
        let payload = statement.to_string().into_bytes();
        let kind = "application/vnd.in-toto+json";
        let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        signed.extend_from_slice(&payload);
        let envelope = json!({ "payload": base64(&payload), "payloadType": kind,
            "signatures": [{ "sig": base64(&self.sign(&signed)?) }] });
        Ok(around("dsseEnvelope", &envelope))
    }

    /// A bundle with a signature over `message` itself.
    ///
    /// # Errors
    /// openssl fails.
    pub fn message_bundle(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let digest: Vec<u8> = (0..32)
            .filter_map(|i| u8::from_str_radix(&sha256_hex(message)[2 * i..2 * i + 2], 16).ok())
            .collect();
        let signature = json!({ "signature": base64(&self.sign(message)?),
            "messageDigest": { "algorithm": "SHA2_256", "digest": base64(&digest) } });
        Ok(around("messageSignature", &signature))
    }
}

fn around(member: &str, content: &Value) -> Vec<u8> {
    json!({ "mediaType": BUNDLE, "verificationMaterial": { "publicKey": { "hint": "test" }, "tlogEntries": [] },
        member: content })
    .to_string()
    .into_bytes()
}

/// What cosign signs: an image and its name.
pub fn payload(digest: &str, reference: &str) -> Vec<u8> {
    let critical = json!({ "identity": { "docker-reference": reference },
        "image": { "docker-manifest-digest": digest }, "type": "cosign container image signature" });
    json!({ "critical": critical, "optional": null }).to_string().into_bytes()
}

/// The statement that cosign 3 signs, with a name if given.
pub fn statement(digest: &str, name: Option<&str>) -> Value {
    let hex = digest.trim_start_matches("sha256:");
    let mut subject = json!({ "digest": { "sha256": hex } });
    if let Some(name) = name {
        subject["name"] = json!(name);
    }
    json!({ "_type": "https://in-toto.io/Statement/v1", "predicateType": SIGN, "predicate": {},
        "subject": [subject] })
}

/// The tag that signatures of a manifest lie under.
pub fn tag(digest: &str) -> String {
    format!("{}.sig", digest.replace(':', "-"))
}

/// The manifest under that tag, with these payloads and signatures.
pub fn tagged(signatures: &[(Vec<u8>, String)]) -> Bundle {
    let config = json!({ "architecture": "", "os": "", "rootfs": { "type": "layers", "diff_ids": [] } });
    simple(signatures, "application/vnd.oci.image.config.v1+json", &config.to_string(), None)
}

/// The same as a referrer of `subject`, a media type and bytes.
pub fn referring(signatures: &[(Vec<u8>, String)], subject: (&str, &[u8])) -> Bundle {
    simple(signatures, SIMPLE_ARTIFACT, "{}", Some(subject))
}

fn simple(
    signatures: &[(Vec<u8>, String)],
    kind: &str,
    config: &str,
    subject: Option<(&str, &[u8])>,
) -> Bundle {
    let layers = signatures.iter().map(|(payload, signature)| {
        let mut layer = descriptor(SIMPLE, payload);
        layer["annotations"] = json!({ ANNOTATION: signature });
        layer
    });
    let mut manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST,
        "config": descriptor(kind, config.as_bytes()), "layers": layers.collect::<Vec<_>>() });
    if let Some((media_type, bytes)) = subject {
        manifest["subject"] = descriptor(media_type, bytes);
    }
    let mut blobs: Vec<Vec<u8>> = signatures.iter().map(|(payload, _)| payload.clone()).collect();
    blobs.push(config.as_bytes().to_vec());
    Bundle { blobs, root: (MANIFEST.to_owned(), manifest.to_string().into_bytes()) }
}

/// The manifest of a bundle, as a referrer of `subject`.
pub fn bundled(bundle: &[u8], subject: (&str, &[u8])) -> Bundle {
    let config = b"{}".to_vec();
    let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": BUNDLE,
        "config": descriptor("application/vnd.oci.empty.v1+json", &config),
        "layers": [descriptor(BUNDLE, bundle)], "subject": descriptor(subject.0, subject.1),
        "annotations": { "dev.sigstore.bundle.content": "dsse-envelope" } });
    Bundle {
        blobs: vec![bundle.to_vec(), config],
        root: (MANIFEST.to_owned(), manifest.to_string().into_bytes()),
    }
}
