//! Who vouches for an image: policies, keys and signatures, read and judged without fetching anything
//! (`docs/trust.md`, `docs/design/0018-trust.md`).
//!
//! | module | what it reads or does | source |
//! |---|---|---|
//! | [`policy`] | policy.json | containers-policy.json(5) |
//! | [`identity`] | which name a signature may give an image | the same, `signedIdentity` |
//! | [`key`] | public keys in PEM, and whether they verify | RFC 5280, RFC 8410, RFC 7468 |
//! | [`simple`] | the payload of the signatures under `sha256-HEX.sig` | cosign, SIGNATURE_SPEC |
//! | [`bundle`] | Sigstore bundles with an envelope or a message signature | sigstore protobuf-specs, DSSE, in-toto |
//! | [`signature`] | either of them with keys: what was signed | |
//! | [`judge`] | requirements of a policy, held against signatures | containers-policy.json(5) |
//!
//! Nothing that a signature says counts before its cryptographic part has been verified with a key that the policy
//! names; and then it counts only for the image whose manifest digest it signs.

pub mod bundle;
pub mod identity;
pub mod judge;
pub mod key;
mod members;
pub mod policy;
pub mod signature;
pub mod simple;

pub use identity::{Identity, IdentityRule};
pub use judge::{Accepted, Judge, Rejection};
pub use key::PublicKey;
pub use policy::{KeySource, Policy, Requirement, SigstoreSigned};
pub use signature::{Fault, Signature, Signed};

/// What reading may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a policy.json.
    pub policy_bytes: u64,
    /// Bytes of a file with a key.
    pub key_bytes: u64,
    /// Bytes of the payload of a signature, or of a bundle.
    pub signature_bytes: u64,
    /// Signatures of one image that are looked at, and lists of them that are fetched.
    pub signatures: usize,
    /// Bytes that are fetched to look at the signatures of one image.
    pub all_bytes: u64,
}

impl Default for Limits {
    /// Policies of 1 MiB, keys of 64 KiB, 256 KiB for a payload or bundle, 256 signatures, 16 MiB for all of them.
    fn default() -> Self {
        Limits {
            policy_bytes: 1 << 20,
            key_bytes: 64 << 10,
            signature_bytes: 256 << 10,
            signatures: 256,
            all_bytes: 16 << 20,
        }
    }
}

/// Enough of a text for a message.
fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}
