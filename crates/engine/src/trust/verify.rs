//! Which signatures an image or the target of a delta has, and whether they hold.

use std::path::PathBuf;

use coracle_codec::artifact::Artifact;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, Index, Manifest, Platform, Verified, is_document};
use coracle_codec::trust::{Limits as Bounds, PublicKey, Requirement, Signature};

use super::find::{Next, Search, Visitor};
use super::{Case, State as TrustState, Subject, Trust, Verdict, load, read_bounded};
use crate::image::copy::{choose, stoppable};
use crate::image::{Environment, ImageName, Source, small_blob};
use crate::{Context, Error};

/// Deltas of a list that are looked at.
const MAX_DELTAS: usize = 16;

/// What to look at.
#[derive(Debug, Clone)]
pub struct Request {
    /// An image, an index, a delta artifact, or a list of those.
    pub image: ImageName,
    /// Of an index the image for this platform; by default for this machine.
    pub platform: Option<Platform>,
    /// Files with public keys; without any, those that the policy names for the image.
    pub keys: Vec<PathBuf>,
}

/// What was found.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The documents that may be signed.
    pub documents: Vec<Signatures>,
    /// What the policy says of the image; not asked if there were keys. With the reason if it is rejected.
    pub verdict: Option<Result<Verdict, String>>,
    /// Whether every image has a signature that holds, itself or through its index; `None` without keys.
    pub holds: Option<bool>,
}

/// The signatures of a document.
#[derive(Debug, Clone)]
pub struct Signatures {
    /// What it is.
    pub kind: Kind,
    /// Its digest.
    pub digest: Digest,
    /// What was found.
    pub found: Vec<Found>,
    /// What could not be looked at, and why.
    pub notes: Vec<String>,
}

/// What is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An index.
    Index,
    /// The manifest of an image.
    Image,
    /// The manifest of the image that a delta leads to.
    Target,
}

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Index => "index",
            Kind::Image => "image",
            Kind::Target => "target",
        }
    }
}

/// A signature.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where.
    pub place: String,
    /// Its form.
    pub form: &'static str,
    /// Whether it holds.
    pub state: State,
}

/// Whether a signature holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It does.
    Good {
        /// The key.
        key: String,
        /// The name that it gives the image, if any.
        name: Option<String>,
    },
    /// It does not, and why.
    Bad(String),
    /// There is no key to check it with.
    Unchecked,
}

/// Looks at signatures. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. A signature that does not hold is none, and neither is an image that the policy rejects.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Checked, Error> {
    stoppable(context, |stop| {
        let source = environment.source(&request.image, stop, context)?;
        let source = source.as_ref();
        let root = source.root()?;
        let limits = &environment.limits;
        let mut images: Vec<Image> = Vec::new();
        let mut index = None;
        match &root {
            Document::Manifest(manifest) => images.push(Image::of(request, source, manifest, limits)?),
            Document::Index(list) if lists_deltas(list) => {
                for entry in list.manifests().iter().take(MAX_DELTAS) {
                    if is_document(&entry.media_type)
                        && let Document::Manifest(manifest) = source.document(entry)?
                    {
                        images.push(Image::of(request, source, &manifest, limits)?);
                    }
                }
            }
            Document::Index(_) => {
                let platform = request.platform.as_ref().unwrap_or(&environment.host);
                let (document, _) = choose(source, root.clone(), platform, limits)?;
                if let Document::Manifest(manifest) = &document {
                    images.push(Image::of(request, source, manifest, limits)?);
                }
                index = Some(root.raw().clone());
            }
        }
        let trust = &environment.trust;
        let mut checked = Checked { documents: Vec::new(), verdict: None, holds: None };
        let subject = Subject::of(&request.image);
        let keys = Keys::of(request, trust, images.first().map_or(&subject, |image| &image.subject))?;
        let mut by_index = false;
        if let Some(raw) = &index {
            let found = keys.look(Kind::Index, raw, None, source, limits)?;
            by_index = found.hold();
            checked.documents.push(found);
        }
        for image in &images {
            let artifact = image.artifact.as_ref();
            let found = keys.look(image.kind, &image.manifest, artifact, source, limits)?;
            if !keys.keys.is_empty() {
                let holds = by_index || found.hold();
                checked.holds = Some(checked.holds.unwrap_or(true) && holds);
            }
            checked.documents.push(found);
            if request.keys.is_empty() && !matches!(checked.verdict, Some(Err(_))) {
                let case =
                    Case { subject: &image.subject, manifest: &image.manifest, source, artifact, limits };
                checked.verdict = Some(match trust.judge(&case) {
                    Ok(verdict) => Ok(verdict),
                    Err(error @ Error::Rejected { .. }) => Err(error.to_string()),
                    Err(error) => return Err(error),
                });
            }
        }
        Ok(checked)
    })
}

fn lists_deltas(index: &Index) -> bool {
    let is_delta = |kind: &str| coracle_codec::artifact::Dialect::of_artifact_type(kind).is_some();
    index.manifests().iter().any(|entry| entry.artifact_type.as_deref().is_some_and(is_delta))
}

/// An image whose signatures are wanted.
struct Image {
    kind: Kind,
    subject: Subject,
    manifest: Verified,
    artifact: Option<Artifact>,
}

impl Image {
    /// The image that a manifest is of, or that a delta leads to.
    fn of(
        request: &Request,
        source: &dyn Source,
        manifest: &Manifest,
        limits: &coracle_codec::oci::Limits,
    ) -> Result<Self, Error> {
        if Artifact::dialect_of(manifest).is_none() {
            let subject = Subject::of(&request.image);
            return Ok(Image {
                kind: Kind::Image,
                subject,
                manifest: manifest.raw().clone(),
                artifact: None,
            });
        }
        let bad = |error| Error::Artifact { image: source.name().to_owned(), error: Box::new(error) };
        let artifact = Artifact::parse(manifest).map_err(bad)?;
        let target = &artifact.target_manifest;
        let manifest = small_blob(source, target, "target manifest", limits.manifest_bytes)?;
        let subject = Subject::target_of(&request.image, manifest.digest());
        Ok(Image { kind: Kind::Target, subject, manifest, artifact: Some(artifact) })
    }
}

/// Keys with their names.
#[derive(Default)]
struct Keys {
    keys: Vec<PublicKey>,
    names: Vec<String>,
}

impl Keys {
    /// Those that were given, or those of the policy.
    fn of(request: &Request, trust: &Trust, subject: &Subject) -> Result<Self, Error> {
        let mut keys = Keys::default();
        for path in &request.keys {
            let bytes = read_bounded(path, Bounds::default().key_bytes)?;
            let key = PublicKey::from_pem(&bytes).map_err(|error| Error::Policy {
                path: path.clone(),
                reason: format!("no usable key: {error}"),
            })?;
            keys.keys.push(key);
            keys.names.push(path.display().to_string());
        }
        if keys.keys.is_empty()
            && let TrustState::Policy(policy, path) = &trust.state
        {
            for requirement in policy.requirements(&subject.scopes).0 {
                if let Requirement::SigstoreSigned(signed) = requirement {
                    let wanted = load(signed, path)?;
                    keys.keys.extend(wanted.keys);
                    keys.names.extend(wanted.names);
                }
            }
        }
        Ok(keys)
    }

    /// The signatures of a document, all of them.
    fn look(
        &self,
        kind: Kind,
        document: &Verified,
        artifact: Option<&Artifact>,
        source: &dyn Source,
        limits: &coracle_codec::oci::Limits,
    ) -> Result<Signatures, Error> {
        let digest = document.digest();
        let found = Signatures { kind, digest, found: Vec::new(), notes: Vec::new() };
        let mut collector = Collector { keys: self, document: document.as_bytes(), found };
        let ended = Search::new(source, limits).run(&digest, artifact, &mut collector)?;
        let mut found = collector.found;
        found.notes.extend(ended.unseen);
        Ok(found)
    }
}

impl Signatures {
    fn hold(&self) -> bool {
        self.found.iter().any(|found| matches!(found.state, State::Good { .. }))
    }
}

struct Collector<'a> {
    keys: &'a Keys,
    document: &'a [u8],
    found: Signatures,
}

impl Visitor for Collector<'_> {
    fn see(&mut self, place: &str, signature: &Signature) -> Next {
        let state = if self.keys.keys.is_empty() {
            State::Unchecked
        } else {
            match signature.verify(&self.keys.keys, self.document) {
                Ok(signed) => State::Good {
                    key: self.keys.names.get(signed.key).cloned().unwrap_or_default(),
                    name: signed.name,
                },
                Err(fault) => State::Bad(fault.to_string()),
            }
        };
        self.found.found.push(Found { place: place.to_owned(), form: signature.form(), state });
        Next::On
    }

    fn note(&mut self, reason: String) {
        self.found.notes.push(reason);
    }
}
