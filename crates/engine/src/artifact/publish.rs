//! Lists of deltas that several publishers write at once, though no registry can compare before it writes
//! (`docs/formats/delta-artifacts.md`, section 6; `docs/design/0012-publishing.md`).
//!
//! Where the registry lists referrers itself nothing is to be done. Else a publisher first pushes its delta under a tag
//! of its own, a marker. Then it reads all markers and the list, writes the list with all that the markers name, and
//! begins again, until it finds nothing missing. Whoever writes last therefore writes a list with everything that was
//! marked before; whoever is killed leaves a marker that the next one, or a repair, takes up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_codec::artifact::{Artifact, DELTA_INDEX, Dialect, flatpak};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Descriptor, Document, Limits, Platform, Reference, Repository, Unverified, Version, media_type,
};
use coracle_registry::{Error as WireError, Fetched, fallback_tag};
use serde_json::{Value, json};

use crate::image::Source;
use crate::image::blob::Progress;
use crate::image::copy::Sending;
use crate::image::registry::{RegistryDestination, Wire};
use crate::{Context, Error};

/// Rounds of reading and writing before a publisher gives up. Each round that loses was won by another publisher, who
/// wrote our entry too if it had seen the marker.
const ROUNDS: u32 = 64;
/// Waits between rounds.
const WAIT: Duration = Duration::from_millis(20);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Markers of referrers begin with this and the first digits of their subject.
const REFERRER: &str = "coracle-delta-";
/// Markers of the `flatpak` dialect.
const LAYERS: &str = "coracle-index-";
/// Digits of the subject in a marker.
const DIGITS: usize = 32;

/// Whether a tag is one that publishing made, and no image.
pub(super) fn is_bookkeeping(tag: &str) -> bool {
    tag == DELTA_INDEX
        || tag.starts_with(REFERRER)
        || tag.starts_with(LAYERS)
        || tag.strip_prefix("sha256-").is_some_and(|hex| hex.len() >= 64)
}

/// A repository to publish in.
pub(crate) struct Board<'a> {
    /// For messages.
    pub(crate) name: &'a str,
    pub(crate) wire: Wire,
    pub(crate) repository: &'a Repository,
    pub(crate) limits: &'a Limits,
}

/// How a list holds what markers name.
enum List<'a> {
    /// An index with an entry for each referrer of a subject.
    Referrers(&'a Digest),
    /// `_deltaindex`: an index with an entry for each target, whose manifest holds all its deltas. A new entry for the
    /// target given here gets this platform.
    Layers(Option<(Digest, Platform)>),
}

impl List<'_> {
    fn tag(&self) -> String {
        match self {
            List::Referrers(subject) => fallback_tag(subject),
            List::Layers(_) => DELTA_INDEX.to_owned(),
        }
    }

    fn prefix(&self) -> String {
        match self {
            List::Referrers(subject) => format!("{REFERRER}{}-", &subject.hex()[..DIGITS]),
            List::Layers(_) => LAYERS.to_owned(),
        }
    }

    /// The marker of a document about `target`.
    fn marker(target: &Digest, prefix: &str, digest: &Digest) -> String {
        format!("{prefix}{}-{}", &target.hex()[..DIGITS], digest.hex())
    }
}

impl Board<'_> {
    /// Pushes all blobs that a document leads to.
    pub(crate) fn push_blobs(
        &self,
        source: &Arc<dyn Source>,
        document: &Document,
        jobs: usize,
        context: &Context<'_>,
        progress: &Arc<Progress>,
    ) -> Result<(), Error> {
        let destination = RegistryDestination {
            name: self.name.to_owned(),
            wire: self.wire.clone(),
            reference: self.repository.with_digest(document.digest()),
        };
        let sending = Sending { jobs, context, progress };
        sending.send_blobs(source, document, &destination, self.limits)
    }

    /// Pushes a document that has a subject, under `version`, and makes sure that it is listed.
    pub(crate) fn refer(&self, version: &Version, document: &Document) -> Result<(), Error> {
        let client = &self.wire.client;
        let pushed = self.wait(client.push_manifest(self.repository, version, document))?;
        let Some(subject) = document.subject().map(|subject| subject.digest) else { return Ok(()) };
        if pushed.subject_indexed || self.wait(client.lists_referrers(self.repository, &subject))? {
            return Ok(());
        }
        let marker = List::marker(&subject, REFERRER, &document.digest());
        self.wait(client.push_manifest(self.repository, &Version::Tag(marker), document))?;
        self.settle(&List::Referrers(&subject), Some(document.digest())).map(|_| ())
    }

    /// Pushes a manifest of layer deltas and adds it to `_deltaindex`.
    pub(crate) fn index(
        &self,
        document: &Document,
        target: &Digest,
        platform: Option<&Platform>,
    ) -> Result<(), Error> {
        let marker = List::marker(target, LAYERS, &document.digest());
        self.wait(self.wire.client.push_manifest(self.repository, &Version::Tag(marker), document))?;
        let list = List::Layers(platform.map(|platform| (*target, platform.clone())));
        self.settle(&list, Some(document.digest())).map(|_| ())
    }

    /// Adds what publishers that were cut off have left out of the lists about `subject`, and of `_deltaindex`. Returns
    /// the digests of what was added.
    pub(crate) fn repair(&self, subject: &Digest) -> Result<Vec<Digest>, Error> {
        let mut added = Vec::new();
        if !self.wait(self.wire.client.lists_referrers(self.repository, subject))? {
            added.extend(self.settle(&List::Referrers(subject), None)?);
        }
        added.extend(self.settle(&List::Layers(None), None)?);
        Ok(added)
    }

    /// Takes a referrer that was deleted out of the list of its subject, if there is one; what others publish meanwhile
    /// stays.
    pub(crate) fn forget(&self, subject: &Digest, referrer: &Digest) -> Result<(), Error> {
        if self.wait(self.wire.client.stored_index(self.repository, &fallback_tag(subject)))?.is_none() {
            return Ok(());
        }
        self.settle_without(&List::Referrers(subject), Some(*referrer), Some(*referrer)).map(|_| ())
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, WireError>>) -> Result<T, Error> {
        self.wire.wait(self.name, call)
    }

    /// Reads markers and list and writes the list until nothing is missing in it. Every error ends it: what cannot be
    /// read is never taken for empty.
    fn settle(&self, list: &List<'_>, own: Option<Digest>) -> Result<Vec<Digest>, Error> {
        self.settle_without(list, own, None)
    }

    /// As [`Board::settle`], and takes `gone` out of the list.
    fn settle_without(
        &self,
        list: &List<'_>,
        own: Option<Digest>,
        gone: Option<Digest>,
    ) -> Result<Vec<Digest>, Error> {
        let (tag, prefix) = (list.tag(), list.prefix());
        let client = &self.wire.client;
        let mut known: HashMap<String, Option<Document>> = HashMap::new();
        let mut added = Vec::new();
        // Publishers must not all write at the same moments.
        let seed = own.map_or(0, |digest| u64::from(digest.as_bytes()[0]));
        for round in 0..ROUNDS {
            let tags = self.wait(client.tags(self.repository))?;
            let mut marked = Vec::new();
            for marker in tags.into_iter().filter(|other| other.starts_with(&prefix)) {
                if !known.contains_key(&marker) {
                    let document = self.marked(&marker)?;
                    known.insert(marker.clone(), document);
                }
                marked.extend(known.get(&marker).cloned().flatten());
            }
            marked.retain(|document| Some(document.digest()) != gone);
            let stored = self.wait(client.stored_index(self.repository, &tag))?;
            let mut index = stored.unwrap_or_else(
                || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
            );
            let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else {
                let reason = format!("the index {tag} has no list of manifests");
                return Err(Error::BadImage { image: self.name.to_owned(), reason });
            };
            let before = entries.len();
            if let Some(gone) = gone {
                entries.retain(|entry| entry["digest"] != gone.to_string());
            }
            let removed = entries.len() < before;
            let missing = match list {
                List::Referrers(subject) => add_referrers(entries, subject, &marked),
                List::Layers(platform) => self.add_layers(entries, &marked, platform.as_ref())?,
            };
            if missing.is_empty() && !removed {
                return Ok(added);
            }
            added.extend(
                missing
                    .into_iter()
                    .filter(|digest| Some(*digest) != own && !added.contains(digest))
                    .collect::<Vec<_>>(),
            );
            match self.wait(client.put_index(self.repository, &tag, &index)) {
                Ok(()) => {}
                // Some registries refuse an index that lists what is gone; a prune may have been here.
                Err(Error::Registry { error, .. }) if refuses_content(&error) => {
                    let gone = self.drop_gone(&mut index)?;
                    if gone == 0 {
                        return Err(Error::Registry { context: self.name.to_owned(), error });
                    }
                    self.wait(client.put_index(self.repository, &tag, &index))?;
                }
                Err(error) => return Err(error),
            }
            let share = (seed * 37 + u64::from(round) * 101) % 256;
            let wait = (WAIT * (round + 1)).min(LONGEST_WAIT);
            self.wait(async {
                tokio::time::sleep(wait.mul_f64(0.5 + share as f64 / 256.0)).await;
                Ok(())
            })?;
        }
        let error =
            WireError::Contended { what: format!("{}: index {tag}", self.repository), attempts: ROUNDS };
        Err(Error::Registry { context: self.name.to_owned(), error: Box::new(error) })
    }

    /// A manifest as the registry itself has it; `None` if it says that there is none.
    fn stored(&self, reference: &Reference) -> Result<Option<Fetched>, Error> {
        match self.wait(self.wire.client.manifest_of_target(reference)) {
            Err(Error::Registry { error, .. }) if matches!(*error, WireError::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// What a marker stands for; `None` if it is gone, or something else has its name.
    fn marked(&self, marker: &str) -> Result<Option<Document>, Error> {
        let Some(reference) = self.repository.with_tag(marker) else { return Ok(None) };
        let Some(fetched) = self.stored(&reference)? else { return Ok(None) };
        // A tag is no digest: the name says which document it was given to.
        if !marker.ends_with(&fetched.raw.digest().hex()) {
            return Ok(None);
        }
        Ok(Document::parse(fetched.raw, fetched.media_type.as_deref(), self.limits).ok())
    }

    /// Adds the layers of marked manifests to those of their targets. Returns the marked manifests that were missing.
    fn add_layers(
        &self,
        entries: &mut Vec<Value>,
        marked: &[Document],
        own: Option<&(Digest, Platform)>,
    ) -> Result<Vec<Digest>, Error> {
        let mut by_target: HashMap<Digest, Vec<&Document>> = HashMap::new();
        for document in marked {
            let Document::Manifest(manifest) = document else { continue };
            if let Some(target) = flatpak::target(manifest) {
                by_target.entry(target).or_default().push(document);
            }
        }
        let mut missing = Vec::new();
        for (target, documents) in by_target {
            let entry = entries.iter().position(|entry| flatpak::is_for(entry, &target));
            let listed = match entry {
                Some(at) => Some(self.listed(&entries[at], &target)?),
                None => None,
            };
            let (platform, mut layers) = listed.clone().unwrap_or_default();
            let platform = platform.or_else(|| own.filter(|own| own.0 == target).map(|own| own.1.clone()));
            let mut changed = false;
            let same =
                |a: &Descriptor, b: &Descriptor| a.digest == b.digest && a.annotations == b.annotations;
            let mut dialect = Dialect::Flatpak;
            for document in documents {
                let Document::Manifest(manifest) = document else { continue };
                if !manifest.config().media_type.starts_with("application/") {
                    dialect = Dialect::Skopeo;
                }
                let before = layers.len();
                for layer in manifest.layers() {
                    if !layers.iter().any(|other| same(other, layer)) {
                        layers.push(layer.clone());
                    }
                }
                if layers.len() > before || listed.is_none() {
                    missing.push(document.digest());
                    changed = true;
                }
            }
            if !changed {
                continue;
            }
            let bytes = flatpak::manifest(dialect, &target, &layers);
            let raw = Unverified::new(bytes.clone()).identify();
            let document = Document::parse(raw, Some(media_type::OCI_MANIFEST), self.limits)
                .map_err(|error| Error::Document { image: self.name.to_owned(), error })?;
            let version = Version::Digest(document.digest());
            self.wait(self.wire.client.push_manifest(self.repository, &version, &document))?;
            let entry_json = flatpak::index_entry(&bytes, &target, platform.as_ref()).to_json();
            match entry {
                Some(at) => entries[at] = entry_json,
                None => entries.push(entry_json),
            }
        }
        Ok(missing)
    }

    /// The deltas that an entry of `_deltaindex` leads to now, and its platform.
    fn listed(&self, entry: &Value, target: &Digest) -> Result<(Option<Platform>, Vec<Descriptor>), Error> {
        let document = |error| Error::Document { image: self.name.to_owned(), error };
        let entry = Descriptor::parse(entry, self.limits).map_err(document)?;
        let reference = self.repository.with_digest(entry.digest);
        // Provably gone: the entry is of no use to anybody.
        let Some(fetched) = self.stored(&reference)? else { return Ok((entry.platform, Vec::new())) };
        let deltas = flatpak::parse(&fetched.raw, target, self.limits)
            .map_err(|error| Error::Artifact { image: self.name.to_owned(), error: Box::new(error) })?;
        Ok((entry.platform, deltas.into_iter().map(|delta| delta.blob).collect()))
    }

    /// Drops entries whose manifest the registry says it does not have.
    fn drop_gone(&self, index: &mut Value) -> Result<usize, Error> {
        let Some(entries) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return Ok(0) };
        let mut gone = HashSet::new();
        for entry in entries.iter() {
            let Some(digest) = entry["digest"].as_str().and_then(|digest| digest.parse().ok()) else {
                continue;
            };
            if self.stored(&self.repository.with_digest(digest))?.is_none() {
                gone.insert(entry["digest"].clone());
            }
        }
        let before = entries.len();
        entries.retain(|entry| !gone.contains(&entry["digest"]));
        Ok(before - entries.len())
    }
}

/// Adds marked deltas about `subject` that are missing. Returns those.
fn add_referrers(entries: &mut Vec<Value>, subject: &Digest, marked: &[Document]) -> Vec<Digest> {
    let mut missing = Vec::new();
    for document in marked {
        let Document::Manifest(manifest) = document else { continue };
        let about = manifest.subject().is_some_and(|of| of.digest == *subject);
        if !about || Artifact::dialect_of(manifest).is_none() {
            continue;
        }
        let digest = json!(document.digest().to_string());
        if !entries.iter().any(|entry| entry["digest"] == digest) {
            entries.push(document.descriptor().to_json());
            missing.push(document.digest());
        }
    }
    missing
}

/// Whether a registry did not take a document because of what it names.
fn refuses_content(error: &WireError) -> bool {
    matches!(error, WireError::Status { status: 400 | 422, .. } | WireError::NotFound { .. })
}
