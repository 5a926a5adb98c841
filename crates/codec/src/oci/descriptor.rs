//! Descriptors, checked.

use std::collections::BTreeMap;

use super::{Error, Limits, Platform, shortened};
use crate::digest::Digest;

/// Media types of image-spec 1.1 ("media-types") and of Docker's schema 2.
pub mod media_type {
    /// OCI manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 1, unsigned and signed.
    pub const DOCKER_SCHEMA_ONE: [&str; 2] = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ];
    /// OCI config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// Docker config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// OCI layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer that is to be fetched from elsewhere.
    pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    /// Prefix of OCI layers that are to be fetched from elsewhere.
    pub const OCI_FOREIGN_PREFIX: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";
    /// Content that says nothing: `{}`.
    pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
}

/// What a media type says about how a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCompression {
    /// A plain tar.
    None,
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// It does not say: look at the bytes.
    Unknown,
}

/// A checked descriptor: its digest is one, its size is within bounds (image-spec 1.1, "descriptor").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// Further places to fetch it from. Never followed; see `docs/threat-model.md`.
    pub urls: Vec<String>,
    /// Free texts.
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    pub platform: Option<Platform>,
    /// What kind of artifact the manifest behind it is.
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor without annotations.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }

    /// Checks what oci-spec has read. `what` names it in errors.
    pub(super) fn check(
        read: &oci_spec::image::Descriptor,
        what: &str,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let text = read.digest().to_string();
        let digest =
            text.parse().map_err(|_| Error::Digest { what: what.to_owned(), digest: shortened(&text) })?;
        if read.size() > limits.blob_bytes {
            return Err(Error::Size { what: what.to_owned(), size: read.size(), limit: limits.blob_bytes });
        }
        Ok(Descriptor {
            media_type: read.media_type().to_string(),
            digest,
            size: read.size(),
            urls: read.urls().clone().unwrap_or_default(),
            annotations: read.annotations().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect(),
            platform: read.platform().as_ref().map(Platform::of_spec),
            artifact_type: read.artifact_type().as_ref().map(ToString::to_string),
        })
    }

    /// Reads a single descriptor, such as an entry of `index.json` or of a list of referrers.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(value: &serde_json::Value, limits: &Limits) -> Result<Self, Error> {
        let invalid = |e: serde_json::Error| Error::Invalid { what: "descriptor", reason: e.to_string() };
        let mut value = value.clone();
        super::document::drop_nulls(&mut value);
        let read = serde_json::from_value(value).map_err(invalid)?;
        Self::check(&read, "descriptor", limits)
    }

    /// The descriptor as JSON, members in a fixed order.
    pub fn to_json(&self) -> serde_json::Value {
        let mut out = serde_json::json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.size,
        });
        if !self.urls.is_empty() {
            out["urls"] = serde_json::json!(self.urls);
        }
        if !self.annotations.is_empty() {
            out["annotations"] = serde_json::json!(self.annotations);
        }
        if let Some(platform) = &self.platform {
            out["platform"] = platform.to_json();
        }
        if let Some(artifact_type) = &self.artifact_type {
            out["artifactType"] = serde_json::json!(artifact_type);
        }
        out
    }

    /// Whether the content is a layer that its author wants to be fetched from elsewhere.
    pub fn is_foreign(&self) -> bool {
        self.media_type == media_type::DOCKER_FOREIGN_LAYER
            || self.media_type.starts_with(media_type::OCI_FOREIGN_PREFIX)
    }

    /// How the layer is compressed, as far as the media type tells.
    pub fn layer_compression(&self) -> LayerCompression {
        match self.media_type.as_str() {
            media_type::OCI_LAYER | media_type::DOCKER_LAYER => LayerCompression::None,
            media_type::DOCKER_LAYER_GZIP | media_type::DOCKER_FOREIGN_LAYER => LayerCompression::Gzip,
            other if other.ends_with("+gzip") => LayerCompression::Gzip,
            other if other.ends_with("+zstd") => LayerCompression::Zstd,
            media_type::OCI_FOREIGN_PREFIX => LayerCompression::None,
            _ => LayerCompression::Unknown,
        }
    }
}
