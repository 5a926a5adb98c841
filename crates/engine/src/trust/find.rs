//! Where signatures of an image are: in a delta artifact, under the tag `sha256-HEX.sig`, and among what refers to the
//! image's manifest.

use coracle_codec::artifact::{Artifact, Dialect, Embedded};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Limits, Manifest, Verified, media_type};
use coracle_codec::trust::{Limits as Bounds, Signature, bundle, simple};

use crate::Error;
use crate::image::{Source, small_blob};

/// Artifact type of simple signing among referrers (cosign with OCI 1.1 registries).
const SIMPLE_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// What becomes of each signature.
pub(crate) enum Next {
    /// More are wanted.
    On,
    /// Enough.
    Enough,
}

/// Tells about signatures while they are found.
pub(crate) trait Visitor {
    /// A signature at a place.
    fn see(&mut self, place: &str, signature: &Signature) -> Next;
    /// Something that may have been one, and why it is not looked at.
    fn note(&mut self, reason: String);
}

/// How a search ended.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Why not all were looked at, if a bound was reached.
    pub(crate) unseen: Option<String>,
    /// What kept from knowing whether there are more.
    pub(crate) failed: Option<Error>,
}

/// The tag that cosign keeps signatures of a manifest under (SIGNATURE_SPEC, "Tag-based Discovery").
pub(crate) fn tag(digest: &Digest) -> String {
    format!("{}.sig", digest.to_string().replace(':', "-"))
}

/// A search for signatures of one manifest.
pub(crate) struct Search<'a> {
    source: &'a dyn Source,
    limits: &'a Limits,
    bounds: Bounds,
    /// Signatures and documents that were looked at.
    looked_at: usize,
    bytes: u64,
    ended: Ended,
}

impl<'a> Search<'a> {
    pub(crate) fn new(source: &'a dyn Source, limits: &'a Limits) -> Self {
        let bounds = Bounds::default();
        Search { source, limits, bounds, looked_at: 0, bytes: 0, ended: Ended::default() }
    }

    /// Looks at all there are until the visitor has seen enough.
    pub(crate) fn run(
        mut self,
        digest: &Digest,
        artifact: Option<&Artifact>,
        visitor: &mut dyn Visitor,
    ) -> Result<Ended, Error> {
        if let Some(artifact) = artifact
            && matches!(self.embedded(artifact, visitor)?, Next::Enough)
        {
            return Ok(self.ended);
        }
        if matches!(self.tagged(digest, visitor)?, Next::On) {
            self.referring(digest, visitor)?;
        }
        Ok(self.ended)
    }

    /// Signatures that a delta artifact carries.
    fn embedded(&mut self, artifact: &Artifact, visitor: &mut dyn Visitor) -> Result<Next, Error> {
        let Embedded { manifests, contents } = artifact.signatures();
        for entry in manifests {
            if !self.may_go_on(entry.size) {
                return Ok(Next::Enough);
            }
            let place = format!("in the delta, {}", entry.digest);
            let raw = small_blob(self.source, entry, "signature manifest", self.limits.manifest_bytes);
            let manifest = raw.and_then(|raw| self.manifest_of(raw));
            let Some(manifest) = self.usable(manifest, &place, visitor)? else { continue };
            let there = |blob: &Descriptor| contents.iter().any(|content| content.digest == blob.digest);
            if matches!(self.signatures_of(&manifest, &place, &there, visitor)?, Next::Enough) {
                return Ok(Next::Enough);
            }
        }
        Ok(Next::On)
    }

    /// Signatures under the tag.
    fn tagged(&mut self, digest: &Digest, visitor: &mut dyn Visitor) -> Result<Next, Error> {
        let tag = tag(digest);
        match self.source.tagged(&tag) {
            Ok(None) => Ok(Next::On),
            Ok(Some(Document::Manifest(manifest))) => {
                self.bytes += manifest.raw().size();
                self.signatures_of(&manifest, &format!("tag {tag}"), &|_| true, visitor)
            }
            Ok(Some(Document::Index(_))) => {
                visitor.note(format!("tag {tag}: it holds an index"));
                Ok(Next::On)
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                visitor.note(format!("tag {tag}: {error}"));
                self.failed(error);
                Ok(Next::On)
            }
        }
    }

    /// Signatures that refer to the manifest.
    fn referring(&mut self, digest: &Digest, visitor: &mut dyn Visitor) -> Result<Next, Error> {
        let entries = match self.source.referrers(digest, None) {
            Ok(entries) => entries,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => {
                visitor.note(format!("what refers to it could not be listed: {error}"));
                self.failed(error);
                return Ok(Next::On);
            }
        };
        // Deltas to the image come last: they carry copies of the same signatures, for where there is nothing else.
        let (signing, others): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| may_sign(entry));
        let deltas = others.into_iter().filter(|entry| is_delta(entry));
        for entry in signing.into_iter().chain(deltas) {
            if !self.may_go_on(entry.size) {
                return Ok(Next::Enough);
            }
            let place = format!("referrer {}", entry.digest);
            let document = match self.source.document(entry) {
                Ok(Document::Manifest(manifest)) => Ok(manifest),
                Ok(Document::Index(_)) => Err(self.bad("it is an index")),
                Err(error) => Err(error),
            };
            let Some(manifest) = self.usable(document, &place, visitor)? else { continue };
            let next = match Artifact::parse(&manifest) {
                Ok(artifact) => self.embedded(&artifact, visitor)?,
                Err(_) => self.signatures_of(&manifest, &place, &|_| true, visitor)?,
            };
            if matches!(next, Next::Enough) {
                return Ok(Next::Enough);
            }
        }
        Ok(Next::On)
    }

    /// The signatures that a manifest lists.
    fn signatures_of(
        &mut self,
        manifest: &Manifest,
        place: &str,
        there: &dyn Fn(&Descriptor) -> bool,
        visitor: &mut dyn Visitor,
    ) -> Result<Next, Error> {
        for layer in manifest.layers() {
            let kind = layer.media_type.as_str();
            if kind != simple::MEDIA_TYPE && kind != bundle::MEDIA_TYPE {
                continue;
            }
            if !there(layer) {
                visitor.note(format!("{place}: {} is not there", layer.digest));
                continue;
            }
            if !self.may_go_on(layer.size) {
                return Ok(Next::Enough);
            }
            let raw = small_blob(self.source, layer, "signature", self.bounds.signature_bytes);
            let Some(raw) = self.usable(raw, place, visitor)? else { continue };
            let bytes = raw.as_bytes().to_vec();
            let signature = if kind == bundle::MEDIA_TYPE {
                Signature::Bundle(bytes)
            } else {
                Signature::Simple {
                    payload: bytes,
                    signature: layer.annotations.get(simple::SIGNATURE).cloned(),
                    certificate: layer.annotations.contains_key(simple::CERTIFICATE),
                }
            };
            if matches!(visitor.see(place, &signature), Next::Enough) {
                return Ok(Next::Enough);
            }
        }
        Ok(Next::On)
    }

    /// Counts something that is going to be looked at; `false` when a bound is reached.
    fn may_go_on(&mut self, bytes: u64) -> bool {
        let unseen = if self.looked_at >= self.bounds.signatures {
            Some(format!("only {} signatures and their manifests were looked at", self.bounds.signatures))
        } else if self.bytes.saturating_add(bytes) > self.bounds.all_bytes {
            Some(format!("only {} bytes of signatures were looked at", self.bounds.all_bytes))
        } else {
            None
        };
        let go_on = unseen.is_none();
        if let Some(unseen) = unseen {
            self.ended.unseen.get_or_insert(unseen);
        }
        self.looked_at += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        go_on
    }

    /// Passes over what is damaged: anybody may put anything there, and it must not hide a good signature.
    fn usable<T>(
        &mut self,
        result: Result<T, Error>,
        place: &str,
        visitor: &mut dyn Visitor,
    ) -> Result<Option<T>, Error> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                visitor.note(format!("{place}: {error}"));
                self.failed(error);
                Ok(None)
            }
        }
    }

    /// Remembers what might have worked another time.
    fn failed(&mut self, error: Error) {
        use coracle_registry::Error as E;
        if let Error::Registry { error: inner, .. } = &error
            && matches!(
                **inner,
                E::Connect { .. }
                    | E::Broken { .. }
                    | E::Status { .. }
                    | E::RateLimited { .. }
                    | E::Denied { .. }
                    | E::Unauthorized { .. }
            )
        {
            self.ended.failed.get_or_insert(error);
        }
    }

    fn manifest_of(&self, raw: Verified) -> Result<Manifest, Error> {
        match Document::parse(raw, Some(media_type::OCI_MANIFEST), self.limits) {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => Err(self.bad("it is an index")),
            Err(error) => Err(Error::Document { image: self.source.name().to_owned(), error }),
        }
    }

    fn bad(&self, reason: &str) -> Error {
        Error::BadImage { image: self.source.name().to_owned(), reason: reason.to_owned() }
    }
}

/// Whether an entry may be a signature; statements of other kinds are not fetched.
fn may_sign(entry: &Descriptor) -> bool {
    match entry.artifact_type.as_deref() {
        Some(bundle::MEDIA_TYPE) => {
            entry.annotations.get(bundle::PREDICATE).is_none_or(|kind| kind == bundle::SIGN)
        }
        Some(SIMPLE_ARTIFACT) => true,
        _ => false,
    }
}

fn is_delta(entry: &Descriptor) -> bool {
    entry.artifact_type.as_deref().is_some_and(|kind| Dialect::of_artifact_type(kind).is_some())
}

/// Bytes of signatures that are put into a delta, and manifests of them.
const MAX_KEPT: u64 = 1 << 20;
const MAX_KEPT_MANIFESTS: usize = 16;

/// A signature to be kept beside a delta.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) manifest: Manifest,
    /// Config and layers.
    pub(crate) blobs: Vec<(Descriptor, Verified)>,
}

impl Kept {
    /// Whether it is of the older form, which readers of `oci-delta` know.
    pub(crate) fn is_simple(&self) -> bool {
        self.manifest.layers().iter().all(|layer| layer.media_type == simple::MEDIA_TYPE)
    }
}

/// Fetches the signatures of a manifest as they are. What is too much or damaged is left away, with a note.
pub(crate) fn keep(
    source: &dyn Source,
    digest: &Digest,
    notes: &mut Vec<String>,
) -> Result<Vec<Kept>, Error> {
    let mut manifests = Vec::new();
    let mut take = |found: Result<Document, Error>| match found {
        Ok(Document::Manifest(manifest)) => {
            manifests.push(manifest);
            Ok(None)
        }
        Ok(Document::Index(_)) => Ok(None),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => Ok(Some(format!("a signature is left away: {error}"))),
    };
    if let Some(found) = source.tagged(&tag(digest)).transpose() {
        notes.extend(take(found)?);
    }
    match source.referrers(digest, None) {
        Ok(entries) => {
            for entry in entries.iter().filter(|entry| may_sign(entry)).take(MAX_KEPT_MANIFESTS) {
                notes.extend(take(source.document(entry))?);
            }
        }
        Err(Error::Cancelled) => return Err(Error::Cancelled),
        Err(error) => notes.push(format!("signatures could not be looked for: {error}")),
    }
    manifests.sort_by_key(Manifest::digest);
    manifests.dedup_by_key(|manifest| manifest.digest());
    let (mut kept, mut bytes) = (Vec::new(), 0);
    for manifest in manifests {
        let blobs: Vec<&Descriptor> = std::iter::once(manifest.config()).chain(manifest.layers()).collect();
        bytes += manifest.raw().size() + blobs.iter().map(|blob| blob.size).fold(0, u64::saturating_add);
        if bytes > MAX_KEPT {
            notes.push(format!("signatures beyond {MAX_KEPT} bytes are left away"));
            break;
        }
        let fetched: Result<Vec<_>, Error> = blobs
            .into_iter()
            .map(|blob| Ok((blob.clone(), small_blob(source, blob, "signature", MAX_KEPT)?)))
            .collect();
        match fetched {
            Ok(blobs) => kept.push(Kept { manifest, blobs }),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => notes.push(format!("a signature is left away: {error}")),
        }
    }
    Ok(kept)
}
