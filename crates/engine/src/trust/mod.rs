//! Whose image it is: the policy of this machine and its verdict on an image (`docs/trust.md`,
//! `docs/design/0018-trust.md`).
//!
//! What is judged is always the **target**: its manifest, by the bytes it has where it comes from. A delta needs no trust
//! of its own, since manifest and config reach the result unchanged and each layer is compared with the config.
//!
//! | module | what it does |
//! |---|---|
//! | `scope` | what a policy calls an image |
//! | `find` | where its signatures are |
//! | [`verify`] | which signatures there are, and whether they hold |
//!
//! Reading and judging themselves, which need neither files nor a network, are in `codec::trust`.

pub(crate) mod find;
mod scope;
pub mod verify;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coracle_codec::artifact::Artifact;
use coracle_codec::oci::{Document, Limits, Verified};
use coracle_codec::trust::judge::Wanted;
use coracle_codec::trust::{
    Accepted, Judge, KeySource, Limits as Bounds, Policy, PublicKey, Requirement, Signature, SigstoreSigned,
};

use crate::Error;
use crate::image::Source;
use find::{Next, Search, Visitor};

pub(crate) use scope::Subject;

/// What this machine accepts.
#[derive(Debug, Clone)]
pub struct Trust {
    state: State,
    unnamed: bool,
}

#[derive(Debug, Clone)]
enum State {
    /// Nobody has set up a policy.
    Absent,
    /// Somebody asked not to look at it.
    Insecure,
    /// A policy and its file.
    Policy(Arc<Policy>, PathBuf),
}

/// Why an image is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is no policy.
    NoPolicy,
    /// The policy was not to be looked at.
    Insecure,
    /// It is in the store, and was judged when it came there.
    InStore,
    /// The policy accepts everything from there.
    Anything(Rule),
    /// It has the signatures that the policy wants.
    Signed(Rule, Vec<Accepted>),
}

/// Which part of a policy was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The policy's file.
    pub policy: PathBuf,
    /// The transport.
    pub transport: String,
    /// The scope; `None` for the default of the policy.
    pub scope: Option<String>,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, ", self.policy.display())?;
        match &self.scope {
            None => f.write_str("default"),
            Some(scope) => write!(f, "{} {scope:?}", self.transport),
        }
    }
}

impl Trust {
    /// Accepts everything, since there is no policy.
    #[must_use]
    pub fn absent() -> Self {
        Trust { state: State::Absent, unnamed: false }
    }

    /// Accepts everything, since somebody wants it so.
    #[must_use]
    pub fn insecure() -> Self {
        Trust { state: State::Insecure, unnamed: false }
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// [`Error::Policy`]: it is never passed over.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read_bounded(path, Bounds::default().policy_bytes)?;
        let policy = Policy::parse(&bytes)
            .map_err(|error| Error::Policy { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Trust { state: State::Policy(Arc::new(policy), path.to_owned()), unnamed: false })
    }

    /// Takes a signature that gives the image no name, as those of cosign 3, for one that gives it the right name.
    #[must_use]
    pub fn with_unnamed(mut self, accepted: bool) -> Self {
        self.unnamed = accepted;
        self
    }

    /// The verdict on an image with this manifest. Signatures are looked for only if the policy wants some.
    ///
    /// # Errors
    /// [`Error::Rejected`]; [`Error::Policy`]: a key cannot be used; whatever keeps from knowing.
    pub(crate) fn judge(&self, case: &Case<'_>) -> Result<Verdict, Error> {
        let (policy, path) = match &self.state {
            State::Absent => return Ok(Verdict::NoPolicy),
            State::Insecure => return Ok(Verdict::Insecure),
            State::Policy(policy, path) => (policy, path),
        };
        let subject = case.subject;
        let transport = subject.scopes.transport;
        if transport == "store" && !policy.knows(transport) {
            return Ok(Verdict::InStore);
        }
        let (requirements, scope) = policy.requirements(&subject.scopes);
        let rule =
            Rule { policy: path.clone(), transport: transport.to_owned(), scope: scope.map(str::to_owned) };
        let rejected = |reason: String| Error::Rejected {
            image: subject.name.clone(),
            digest: case.manifest.digest(),
            rule: rule.to_string(),
            reason,
        };
        if let Some(reason) = subject.unclear
            && policy.has_closer_scopes(transport)
        {
            return Err(rejected(reason.to_owned()));
        }
        let mut wanted = Vec::new();
        for requirement in requirements {
            match requirement {
                Requirement::AcceptAnything => {}
                Requirement::Reject => return Err(rejected("the policy accepts no image from there".into())),
                Requirement::Unsupported(reason) => return Err(rejected((*reason).to_owned())),
                Requirement::SigstoreSigned(signed) => wanted.push(load(signed, path)?),
            }
        }
        if wanted.is_empty() {
            return Ok(Verdict::Anything(rule));
        }
        let bytes = case.manifest.as_bytes();
        let mut judge = Judge::new(wanted, &subject.identity, bytes, self.unnamed);
        if let Some(reason) = case.source.made_up() {
            judge.note(format!("its manifest is new: {reason}"));
        }
        let search = Search::new(case.source, case.limits);
        let ended = search.run(&case.manifest.digest(), case.artifact, &mut judge)?;
        let satisfied = judge.is_satisfied();
        match judge.finish(ended.unseen) {
            Ok(accepted) => Ok(Verdict::Signed(rule, accepted)),
            // Perhaps there is one, and it could not be fetched just now.
            Err(_) if !satisfied && ended.failed.is_some() => {
                Err(ended.failed.unwrap_or_else(|| rejected(String::new())))
            }
            Err(rejection) => Err(rejected(rejection.to_string())),
        }
    }

    /// The same for all images that a document of a source leads to, which are `below` if it is an index. As in
    /// containers/image each image is judged, and not the index.
    pub(crate) fn judge_all(
        &self,
        subject: &Subject,
        source: &dyn Source,
        root: &Document,
        below: &[Document],
        limits: &Limits,
    ) -> Result<Verdict, Error> {
        let mut verdict = None;
        for document in below.iter().chain([root]) {
            if let Document::Manifest(manifest) = document {
                let case = Case { subject, manifest: manifest.raw(), source, artifact: None, limits };
                let next = self.judge(&case)?;
                verdict = Some(match (verdict, next) {
                    (Some(Verdict::Signed(rule, mut all)), Verdict::Signed(_, more)) => {
                        all.extend(more);
                        Verdict::Signed(rule, all)
                    }
                    (_, next) => next,
                });
            }
        }
        match verdict {
            Some(verdict) => Ok(verdict),
            // An index of nothing stands for itself.
            None => self.judge(&Case { subject, manifest: root.raw(), source, artifact: None, limits }),
        }
    }
}

/// An image to be judged.
pub(crate) struct Case<'a> {
    pub(crate) subject: &'a Subject,
    /// The manifest, with the bytes that it has where it comes from.
    pub(crate) manifest: &'a Verified,
    /// Where signatures may be.
    pub(crate) source: &'a dyn Source,
    /// A delta artifact of `source` that leads to the image.
    pub(crate) artifact: Option<&'a Artifact>,
    pub(crate) limits: &'a Limits,
}

impl Visitor for Judge<'_> {
    fn see(&mut self, place: &str, signature: &Signature) -> Next {
        Judge::see(self, place, signature);
        if self.is_satisfied() { Next::Enough } else { Next::On }
    }

    fn note(&mut self, reason: String) {
        Judge::note(self, reason);
    }
}

/// Reads the keys that a requirement names. One that cannot be used makes the requirement useless: it would be missed on
/// the day it is needed.
fn load(signed: &SigstoreSigned, policy: &Path) -> Result<Wanted, Error> {
    let mut wanted = Wanted { keys: Vec::new(), names: Vec::new(), rule: signed.identity.clone() };
    for (number, source) in signed.keys.iter().enumerate() {
        let (path, name, bytes) = match source {
            KeySource::Path(path) => {
                (path.as_path(), path.display().to_string(), read_bounded(path, Bounds::default().key_bytes)?)
            }
            KeySource::Data(bytes) => (policy, format!("key {number} of the policy"), bytes.clone()),
        };
        let key = PublicKey::from_pem(&bytes).map_err(|error| Error::Policy {
            path: path.to_owned(),
            reason: format!("no usable key: {error}"),
        })?;
        wanted.keys.push(key);
        wanted.names.push(name);
    }
    Ok(wanted)
}

/// Reads a file of at most `limit` bytes.
fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    let bad = |reason: String| Error::Policy { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| bad(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| bad(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(bad(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}
