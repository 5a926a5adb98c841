//! Signatures of either form, held against keys.

use super::bundle::{self, Content};
use super::key::PublicKey;
use super::{members, simple};
use crate::digest::Digest;

/// A signature as it was found. Nothing of it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signature {
    /// A payload with its signature in base64.
    Simple {
        /// The payload.
        payload: Vec<u8>,
        /// What the annotation says; `None` if there is none.
        signature: Option<String>,
        /// Whether a certificate stands beside it.
        certificate: bool,
    },
    /// A bundle.
    Bundle(Vec<u8>),
}

/// What the owner of a key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The name that the signer gave the image, if any.
    pub name: Option<String>,
    /// Which of the keys verified.
    pub key: usize,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// It is not written as signatures are.
    #[error("malformed: {0}")]
    Malformed(String),
    /// None of the keys verifies it.
    #[error("{}", match .certificate {
        true => "no key verifies it; it comes with a certificate, which this build cannot check",
        false => "no key verifies it",
    })]
    Unverified {
        /// Whether it comes with a certificate.
        certificate: bool,
    },
    /// It was signed by one of the keys, and is not a signature of this image.
    #[error("it signs another image: {0}")]
    OtherImage(String),
    /// It is good, and gives the image another name.
    #[error("it names the image {signed}; the policy wants {wanted}")]
    Identity {
        /// The name in it.
        signed: String,
        /// What would be accepted.
        wanted: String,
    },
    /// It is good, and gives the image no name.
    #[error("it does not name the image; the policy wants {wanted}")]
    Unnamed {
        /// What would be accepted.
        wanted: String,
    },
}

impl Signature {
    /// What form it has.
    pub fn form(&self) -> &'static str {
        match self {
            Signature::Simple { .. } => "simple signing",
            Signature::Bundle(_) => "sigstore bundle",
        }
    }

    /// Verifies it as one of the image whose manifest has these bytes.
    ///
    /// # Errors
    /// [`Fault`]: all but the last two, which are for [`super::judge`] to find.
    pub fn verify(&self, keys: &[PublicKey], manifest: &[u8]) -> Result<Signed, Fault> {
        match self {
            Signature::Simple { payload, signature, certificate } => {
                let missing = || Fault::Malformed(format!("annotation {} is missing", simple::SIGNATURE));
                let signature = signature.as_deref().ok_or_else(missing)?;
                let signature = members::base64(signature)
                    .ok_or_else(|| Fault::Malformed("the signature is not base64".into()))?;
                let key = verified_by(keys, payload, &signature, *certificate)?;
                // Only now: nobody has to read what strangers sign.
                let payload = simple::read(payload).map_err(Fault::Malformed)?;
                if payload.digest != Digest::of(manifest) {
                    return Err(Fault::OtherImage(payload.digest.to_string()));
                }
                Ok(Signed { name: Some(payload.reference), key })
            }
            Signature::Bundle(bytes) => {
                let bundle = bundle::read(bytes).map_err(Fault::Malformed)?;
                let verified =
                    |message: &[u8]| verified_by(keys, message, &bundle.signature, bundle.certificate);
                let digest = Digest::of(manifest);
                match &bundle.content {
                    Content::Envelope { signed, payload } => {
                        let key = verified(signed)?;
                        let statement = bundle::read_statement(payload).map_err(Fault::Malformed)?;
                        let mut subjects = statement.subjects.into_iter();
                        match subjects.find(|(subject, _)| *subject == digest) {
                            Some((_, name)) => Ok(Signed { name, key }),
                            None => Err(Fault::OtherImage("its statement is about others".into())),
                        }
                    }
                    Content::Message { digest: said } => {
                        if let Some(said) = said.filter(|said| *said != digest) {
                            return Err(Fault::OtherImage(said.to_string()));
                        }
                        Ok(Signed { name: None, key: verified(manifest)? })
                    }
                }
            }
        }
    }
}

fn verified_by(
    keys: &[PublicKey],
    message: &[u8],
    signature: &[u8],
    certificate: bool,
) -> Result<usize, Fault> {
    let verifies = |key: &PublicKey| key.verifies(message, signature);
    keys.iter().position(verifies).ok_or(Fault::Unverified { certificate })
}
