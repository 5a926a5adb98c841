//! Manifests and indexes.

use std::collections::BTreeMap;

use oci_spec::image::{ImageIndex, ImageManifest};
use serde_json::Value;

use super::{Descriptor, Error, Limits, Platform, Verified, json, media_type, shortened};
use crate::digest::Digest;

/// What a name in a registry leads to.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and most are manifests")]
pub enum Document {
    /// One image, or an artifact in the form of one.
    Manifest(Manifest),
    /// A list of documents.
    Index(Index),
}

/// The manifest of an image (image-spec 1.1, "manifest"; Docker schema 2), with the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Manifest {
    raw: Verified,
    media_type: String,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

/// An index (image-spec 1.1, "image-index"; Docker manifest list), with the bytes it was read from.
#[derive(Debug, Clone)]
pub struct Index {
    raw: Verified,
    media_type: String,
    artifact_type: Option<String>,
    manifests: Vec<Descriptor>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

/// Whether content of this media type is a [`Document`].
pub fn is_document(name: &str) -> bool {
    matches!(
        name,
        media_type::OCI_MANIFEST
            | media_type::OCI_INDEX
            | media_type::DOCKER_MANIFEST
            | media_type::DOCKER_LIST
    )
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// `given` is the media type it came with, from a header or a descriptor; without parameters such as `charset`.
    /// Unknown or missing, the document itself must tell.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(raw: Verified, given: Option<&str>, limits: &Limits) -> Result<Self, Error> {
        if raw.size() > limits.manifest_bytes {
            let limit = limits.manifest_bytes;
            return Err(Error::TooLarge { what: "manifest", actual: raw.size(), limit });
        }
        json::check(raw.as_bytes(), "manifest", limits)?;
        let invalid = |e: serde_json::Error| Error::Invalid { what: "manifest", reason: e.to_string() };
        let mut value: Value = serde_json::from_slice(raw.as_bytes()).map_err(invalid)?;
        drop_nulls(&mut value);
        let Value::Object(members) = &mut value else {
            return Err(Error::Invalid { what: "manifest", reason: "not an object".into() });
        };
        if members.get("schemaVersion").and_then(Value::as_u64) == Some(1) {
            return Err(Error::SchemaOne);
        }
        let has = |names: &[&str]| names.iter().any(|name| members.contains_key(*name));
        let (manifest_like, index_like) = (has(&["config", "layers", "fsLayers"]), has(&["manifests"]));
        if manifest_like && index_like {
            return Err(Error::Ambiguous);
        }
        let inside = members.get("mediaType").and_then(Value::as_str).map(str::to_owned);
        // A Content-Type that says nothing in particular is none.
        let given = given.filter(|given| is_document(given) || given.contains("vnd."));
        if let (Some(inside), Some(given)) = (&inside, given)
            && inside != given
        {
            return Err(Error::MediaType { inside: shortened(inside), outside: shortened(given) });
        }
        let name = match inside.as_deref().or(given) {
            Some(name) => name.to_owned(),
            // image-spec 1.0 leaves the member away; what is in it tells the two apart.
            None if index_like => media_type::OCI_INDEX.into(),
            None => media_type::OCI_MANIFEST.into(),
        };
        match name.as_str() {
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                members.entry("layers").or_insert_with(|| Value::Array(Vec::new()));
                let read = serde_json::from_value(value).map_err(invalid)?;
                Manifest::check(raw, name, &read, limits).map(Document::Manifest)
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                members.entry("manifests").or_insert_with(|| Value::Array(Vec::new()));
                let invalid = |e: serde_json::Error| Error::Invalid { what: "index", reason: e.to_string() };
                let read = serde_json::from_value(value).map_err(invalid)?;
                Index::check(raw, name, &read, limits).map(Document::Index)
            }
            name if media_type::DOCKER_SCHEMA_ONE.contains(&name) => Err(Error::SchemaOne),
            name => Err(Error::UnknownMediaType(shortened(name))),
        }
    }

    /// The bytes it was read from.
    pub fn raw(&self) -> &Verified {
        match self {
            Document::Manifest(m) => &m.raw,
            Document::Index(i) => &i.raw,
        }
    }

    /// The digest of those bytes.
    pub fn digest(&self) -> Digest {
        self.raw().digest()
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(m) => &m.media_type,
            Document::Index(i) => &i.media_type,
        }
    }

    /// The document that it is about, if it says so.
    pub fn subject(&self) -> Option<&Descriptor> {
        match self {
            Document::Manifest(m) => m.subject.as_ref(),
            Document::Index(i) => i.subject.as_ref(),
        }
    }

    /// A descriptor of it, as the referrers API gives one: with artifact type and annotations
    /// (distribution-spec 1.1, "Listing Referrers").
    pub fn descriptor(&self) -> Descriptor {
        let (artifact_type, annotations) = match self {
            Document::Manifest(m) => {
                (m.artifact_type.clone().or_else(|| Some(m.config.media_type.clone())), &m.annotations)
            }
            Document::Index(i) => (i.artifact_type.clone(), &i.annotations),
        };
        Descriptor {
            artifact_type,
            annotations: annotations.clone(),
            ..Descriptor::new(self.media_type(), self.digest(), self.raw().size())
        }
    }
}

impl Manifest {
    fn check(
        raw: Verified,
        media_type: String,
        read: &ImageManifest,
        limits: &Limits,
    ) -> Result<Self, Error> {
        version("manifest", read.schema_version())?;
        entries(read.layers().len(), limits)?;
        let layers = read.layers().iter().enumerate();
        Ok(Manifest {
            raw,
            media_type,
            artifact_type: read.artifact_type().as_ref().map(ToString::to_string),
            config: Descriptor::check(read.config(), "config", limits)?,
            layers: layers
                .map(|(i, layer)| Descriptor::check(layer, &format!("layer {i}"), limits))
                .collect::<Result<_, _>>()?,
            subject: subject(read.subject().as_ref(), limits)?,
            annotations: read.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    /// The bytes it was read from.
    pub fn raw(&self) -> &Verified {
        &self.raw
    }

    /// The digest of those bytes.
    pub fn digest(&self) -> Digest {
        self.raw.digest()
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What kind of artifact it is, if it says so.
    pub fn artifact_type(&self) -> Option<&str> {
        self.artifact_type.as_deref()
    }

    /// The config.
    pub fn config(&self) -> &Descriptor {
        &self.config
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Descriptor] {
        &self.layers
    }

    /// The document that it is about, if it says so.
    pub fn subject(&self) -> Option<&Descriptor> {
        self.subject.as_ref()
    }

    /// Free texts.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// Whether it is an image that can be run, and no other artifact: its config is an image's.
    pub fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
    }
}

impl Index {
    fn check(raw: Verified, media_type: String, read: &ImageIndex, limits: &Limits) -> Result<Self, Error> {
        version("index", read.schema_version())?;
        entries(read.manifests().len(), limits)?;
        let manifests = read.manifests().iter().enumerate();
        Ok(Index {
            raw,
            media_type,
            artifact_type: read.artifact_type().as_ref().map(ToString::to_string),
            manifests: manifests
                .map(|(i, entry)| Descriptor::check(entry, &format!("entry {i}"), limits))
                .collect::<Result<_, _>>()?,
            subject: subject(read.subject().as_ref(), limits)?,
            annotations: read.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
        })
    }

    /// The bytes it was read from.
    pub fn raw(&self) -> &Verified {
        &self.raw
    }

    /// The digest of those bytes.
    pub fn digest(&self) -> Digest {
        self.raw.digest()
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// What it lists.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// Free texts.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.annotations
    }

    /// The entry that runs best on `host`: the closest variant, the first among equals. Entries without a platform, and
    /// those that say `unknown/unknown` (attestations), never fit.
    pub fn choose(&self, host: &Platform) -> Option<&Descriptor> {
        let mut best: Option<(u32, &Descriptor)> = None;
        for entry in &self.manifests {
            let Some(score) = entry.platform.as_ref().and_then(|platform| platform.fits(host)) else {
                continue;
            };
            if best.is_none_or(|(other, _)| score > other) {
                best = Some((score, entry));
            }
        }
        best.map(|(_, entry)| entry)
    }
}

fn version(what: &'static str, version: u32) -> Result<(), Error> {
    if version == 2 {
        return Ok(());
    }
    Err(Error::Invalid { what, reason: format!("schemaVersion is {version}, not 2") })
}

fn entries(count: usize, limits: &Limits) -> Result<(), Error> {
    if count > limits.entries as usize { Err(Error::TooManyEntries(limits.entries)) } else { Ok(()) }
}

fn subject(read: Option<&oci_spec::image::Descriptor>, limits: &Limits) -> Result<Option<Descriptor>, Error> {
    read.map(|read| Descriptor::check(read, "subject", limits)).transpose()
}

/// Removes members whose value is null: writers in Go mean "nothing" by it.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
