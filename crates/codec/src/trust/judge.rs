//! Requirements of a policy, held against signatures one after the other.

use super::identity::{Identity, IdentityRule};
use super::key::PublicKey;
use super::signature::{Fault, Signature};

/// Reasons that are kept for a message.
const MAX_REASONS: usize = 8;

/// One requirement that takes a signature.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Any of these keys.
    pub keys: Vec<PublicKey>,
    /// What the keys are called, in the same order.
    pub names: Vec<String>,
    /// Which names are accepted.
    pub rule: IdentityRule,
}

/// A signature that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Where it was found.
    pub place: String,
    /// Its form.
    pub form: &'static str,
    /// The key that verified it.
    pub key: String,
    /// The name that it gives the image, if any.
    pub name: Option<String>,
}

/// Why no signature was accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0)]
pub struct Rejection(String);

/// Holds all requirements of an image against its signatures. Each takes one good signature; the same may do for several.
#[derive(Debug)]
pub struct Judge<'a> {
    wanted: Vec<(Wanted, Option<Accepted>)>,
    identity: &'a Identity,
    manifest: &'a [u8],
    /// Whether a signature without a name is taken for one that has the right name.
    unnamed: bool,
    seen: usize,
    reasons: Vec<String>,
}

impl<'a> Judge<'a> {
    /// For the image with these manifest bytes, known as `identity`.
    pub fn new(wanted: Vec<Wanted>, identity: &'a Identity, manifest: &'a [u8], unnamed: bool) -> Self {
        let wanted = wanted.into_iter().map(|wanted| (wanted, None)).collect();
        Judge { wanted, identity, manifest, unnamed, seen: 0, reasons: Vec::new() }
    }

    /// Whether nothing is left to be shown.
    pub fn is_satisfied(&self) -> bool {
        self.wanted.iter().all(|(_, accepted)| accepted.is_some())
    }

    /// Looks at a signature that was found at `place`.
    pub fn see(&mut self, place: &str, signature: &Signature) {
        self.seen += 1;
        let mut faults: Vec<Fault> = Vec::new();
        let (identity, manifest, unnamed) = (self.identity, self.manifest, self.unnamed);
        for (wanted, accepted) in self.wanted.iter_mut().filter(|(_, accepted)| accepted.is_none()) {
            match hold(wanted, signature, identity, manifest, unnamed) {
                Ok((key, name)) => {
                    let key = wanted.names.get(key).cloned().unwrap_or_default();
                    let place = place.to_owned();
                    *accepted = Some(Accepted { place, form: signature.form(), key, name });
                }
                Err(fault) => faults.push(fault),
            }
        }
        for fault in faults {
            self.note(format!("{place}: {fault}"));
        }
    }

    /// Remembers why something that may have been a signature could not be looked at.
    pub fn note(&mut self, reason: String) {
        if !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// The verdict: a signature for each requirement, or why there is none. `unseen` tells why not all were looked at.
    ///
    /// # Errors
    /// [`Rejection`].
    pub fn finish(mut self, unseen: Option<String>) -> Result<Vec<Accepted>, Rejection> {
        if self.is_satisfied() {
            return Ok(self.wanted.into_iter().filter_map(|(_, accepted)| accepted).collect());
        }
        let more = self.reasons.len().saturating_sub(MAX_REASONS);
        self.reasons.truncate(MAX_REASONS);
        if more > 0 {
            self.reasons.push(format!("and {more} more"));
        }
        self.reasons.extend(unseen);
        let met = self.wanted.iter().filter(|(_, accepted)| accepted.is_some()).count();
        let mut text = match (self.seen, met) {
            (0, _) => "it has to be signed, and there is no signature".to_owned(),
            (1, 0) => "the only signature is not accepted".to_owned(),
            (seen, 0) => format!("none of {seen} signatures is accepted"),
            (_, met) => format!("only {met} of {} requirements are met", self.wanted.len()),
        };
        if !self.reasons.is_empty() {
            text = format!("{text}: {}", self.reasons.join("; "));
        }
        Err(Rejection(text))
    }
}

fn hold(
    wanted: &Wanted,
    signature: &Signature,
    identity: &Identity,
    manifest: &[u8],
    unnamed: bool,
) -> Result<(usize, Option<String>), Fault> {
    let signed = signature.verify(&wanted.keys, manifest)?;
    match &signed.name {
        Some(name) if wanted.rule.accepts(identity, name) => {}
        Some(name) => {
            let signed = super::shortened(name);
            return Err(Fault::Identity { signed, wanted: wanted.rule.wants(identity) });
        }
        None if unnamed => {}
        None => return Err(Fault::Unnamed { wanted: wanted.rule.wants(identity) }),
    }
    Ok((signed.key, signed.name))
}
