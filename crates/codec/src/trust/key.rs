//! Public keys: PEM in, verified or not out.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA256_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    VerificationAlgorithm,
};

use super::{members, shortened};
use crate::digest::Digest;

/// `id-ecPublicKey` (RFC 5480, section 2.1.1).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// `secp256r1`, `secp384r1`, `secp521r1` (RFC 5480, section 2.1.1.1).
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
/// `id-Ed25519` (RFC 8410, section 3).
const ED: &[u8] = &[0x2b, 0x65, 0x70];
/// `rsaEncryption` (RFC 8017, appendix C).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// Sizes of RSA keys in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Tags of DER (X.690, section 8).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OID: u8 = 0x06;

/// Why bytes are no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There is no PEM block, or something else than one.
    #[error("{0} PEM blocks, expected one with a public key")]
    Blocks(usize),
    /// A PEM block of another kind.
    #[error("it holds {0:?}, not a public key")]
    Label(String),
    /// A PEM block that is cut off, or whose content is not base64.
    #[error("the PEM block is damaged")]
    Pem,
    /// What is in it is not the DER of a public key.
    #[error("its DER is not that of a public key")]
    Der,
    /// A key of a kind that is not known.
    #[error("a key of a kind that is not known; ECDSA on P-256, P-384 and P-521, Ed25519 and RSA are")]
    Kind,
    /// An RSA key of another size than is taken.
    #[error("an RSA key of {0} bits; 2048 to 8192 are taken")]
    RsaBits(usize),
    /// The numbers in it are no key.
    #[error("the {0} key in it is invalid")]
    Invalid(&'static str),
}

/// What kind of key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA, with either padding.
    Rsa,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::P256 => "ECDSA P-256",
            Kind::P384 => "ECDSA P-384",
            Kind::P521 => "ECDSA P-521",
            Kind::Ed25519 => "Ed25519",
            Kind::Rsa => "RSA",
        }
    }

    /// The algorithms that signers use with it. Signatures do not say which: cosign takes SHA-256 for payloads with every
    /// curve, and for bundles the hash as long as the curve.
    fn algorithms(self) -> &'static [&'static dyn VerificationAlgorithm] {
        match self {
            Kind::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&ECDSA_P384_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1],
            Kind::P521 => &[&ECDSA_P521_SHA256_ASN1, &ECDSA_P521_SHA512_ASN1],
            Kind::Ed25519 => &[&ED25519],
            Kind::Rsa => &[&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256],
        }
    }
}

/// A public key.
#[derive(Clone)]
pub struct PublicKey {
    kind: Kind,
    /// One for each algorithm of the kind.
    keys: Vec<ParsedPublicKey>,
    fingerprint: Digest,
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, {})", self.kind.name(), self.fingerprint)
    }
}

impl PublicKey {
    /// Reads the one key of a PEM file: a `PUBLIC KEY`, or an `RSA PUBLIC KEY`. Text around the block is passed over.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(bytes: &[u8]) -> Result<Self, KeyError> {
        let text = String::from_utf8_lossy(bytes);
        let blocks: Vec<&str> = text.split("-----BEGIN ").skip(1).collect();
        let [block] = blocks.as_slice() else { return Err(KeyError::Blocks(blocks.len())) };
        let (label, rest) = block.split_once("-----").ok_or(KeyError::Pem)?;
        if label != "PUBLIC KEY" && label != "RSA PUBLIC KEY" {
            return Err(KeyError::Label(shortened(label)));
        }
        let (content, _) = rest.split_once(&format!("-----END {label}-----")).ok_or(KeyError::Pem)?;
        let content: String = content.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = members::base64(&content).ok_or(KeyError::Pem)?;
        if label == "RSA PUBLIC KEY" { Self::new(Kind::Rsa, &der, &der) } else { Self::from_der(&der) }
    }

    /// Reads a SubjectPublicKeyInfo (RFC 5280, section 4.1).
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let mut outer = Der(der);
        let mut info = Der(outer.only(SEQUENCE)?);
        let mut algorithm = Der(info.next(SEQUENCE)?);
        let bits = info.only(BIT_STRING)?;
        // The first byte tells how many bits of the last one do not count.
        let Some((0, content)) = bits.split_first() else { return Err(KeyError::Der) };
        let kind = match algorithm.next(OID)? {
            EC => match algorithm.only(OID)? {
                P256 => Kind::P256,
                P384 => Kind::P384,
                P521 => Kind::P521,
                _ => return Err(KeyError::Kind),
            },
            ED => Kind::Ed25519,
            RSA => Kind::Rsa,
            _ => return Err(KeyError::Kind),
        };
        Self::new(kind, content, der)
    }

    fn new(kind: Kind, content: &[u8], whole: &[u8]) -> Result<Self, KeyError> {
        if kind == Kind::Rsa {
            let mut outer = Der(content);
            let modulus = Der(outer.only(SEQUENCE)?).next(INTEGER)?;
            let skipped = modulus.iter().take_while(|byte| **byte == 0).count();
            let first = modulus.get(skipped).ok_or(KeyError::Der)?;
            let bits = (modulus.len() - skipped) * 8 - first.leading_zeros() as usize;
            if !RSA_BITS.contains(&bits) {
                return Err(KeyError::RsaBits(bits));
            }
        }
        let parse = |algorithm: &&'static dyn VerificationAlgorithm| {
            ParsedPublicKey::new(*algorithm, content).map_err(|_| KeyError::Invalid(kind.name()))
        };
        let keys = kind.algorithms().iter().map(parse).collect::<Result<_, _>>()?;
        Ok(PublicKey { kind, keys, fingerprint: Digest::of(whole) })
    }

    /// What kind of key it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// sha256 of its DER.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Whether its owner made `signature` over `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.keys.iter().any(|key| key.verify_sig(message, signature).is_ok())
    }
}

/// DER values one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The content of the next value, which must have this tag.
    fn next(&mut self, tag: u8) -> Result<&'a [u8], KeyError> {
        let (&first, rest) = self.0.split_first().ok_or(KeyError::Der)?;
        let (&length, mut rest) = rest.split_first().ok_or(KeyError::Der)?;
        let length = match length {
            0..=0x7f => usize::from(length),
            0x81..=0x83 => {
                let (bytes, after) =
                    rest.split_at_checked(usize::from(length & 0x7f)).ok_or(KeyError::Der)?;
                rest = after;
                bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
            }
            _ => return Err(KeyError::Der),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(KeyError::Der)?;
        self.0 = rest;
        if first == tag { Ok(content) } else { Err(KeyError::Der) }
    }

    /// The same, if nothing follows.
    fn only(&mut self, tag: u8) -> Result<&'a [u8], KeyError> {
        let content = self.next(tag)?;
        if self.0.is_empty() { Ok(content) } else { Err(KeyError::Der) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -name prime256v1 -genkey -noout | openssl ec -pubout`.
    const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEac+QX3qge+sJ1mrDYtZhqAw5cXej\n\
        MV6xY6TEaG2F80RV3AZtqkmYkN6oZCRve4kKVL33vL8KDrV6azvSl43ynQ==\n\
        -----END PUBLIC KEY-----\n";

    #[test]
    fn a_key_is_read_whatever_stands_around_it() {
        let key = PublicKey::from_pem(PEM.as_bytes()).unwrap();
        assert_eq!(key.kind(), Kind::P256);
        let around = format!("a comment\n{}more\n", PEM.replace('\n', "\r\n"));
        let again = PublicKey::from_pem(around.as_bytes()).unwrap();
        assert_eq!(again.fingerprint(), key.fingerprint());
        assert!(!key.verifies(b"", b""));
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        let cases: [(&str, String); 12] = [
            ("0 PEM blocks", String::new()),
            ("2 PEM blocks", format!("{PEM}{PEM}")),
            ("\"EC PRIVATE KEY\"", PEM.replace("PUBLIC KEY", "EC PRIVATE KEY")),
            ("\"CERTIFICATE\"", PEM.replace("PUBLIC KEY", "CERTIFICATE")),
            ("damaged", PEM.replace("-----END PUBLIC KEY-----", "")),
            ("damaged", PEM.replace("MFkw", "*Fkw")),
            ("not that of a public key", PEM.replace("MFkw", "MFgw")),
            ("not that of a public key", PEM.replace("MFkw", "MFow")),
            // Another object identifier for the kind, and for the curve.
            ("kind that is not known", PEM.replace("zj0CAQYI", "zj0CAgYI")),
            ("kind that is not known", PEM.replace("AQcDQgAE", "AQgDQgAE")),
            // A point that is not on the curve.
            ("the ECDSA P-256 key in it is invalid", PEM.replace("l43ynQ==", "l43ynA==")),
            // An RSA key whose modulus is 15 bits long.
            (
                "an RSA key of 15 bits",
                "-----BEGIN RSA PUBLIC KEY-----MAcCAn//AgED-----END RSA PUBLIC KEY-----".into(),
            ),
        ];
        for (wanted, pem) in &cases {
            let error = PublicKey::from_pem(pem.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }
}
