//! The dialects `oci-delta` and `coracle`: one manifest carries what turns one image into another
//! (`docs/formats/delta-artifacts.md`, sections 3 and 4).

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{Dialect, Error, NATIVE, Payload, TAR_DIFF, annotation, digest};
use crate::digest::Digest;
use crate::oci::{Descriptor, ImageConfig, LayerCompression, Manifest, media_type};
use crate::tardiff::Version;

/// Version of section 2.2 that we write.
const RULES: &str = "1";
/// Content that is the manifest of a signature, and what such a manifest lists (section 2.3).
const SIGNATURE: &str = "cosign-signature";
const SIGNATURE_CONTENT: &str = "cosign-signature-content";
/// The content of the config.
pub const EMPTY: &[u8] = b"{}";

/// A delta artifact, checked as far as its own manifest goes.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// How it is laid out.
    pub dialect: Dialect,
    /// Where the target's manifest is among the artifact's content; its digest is the target's.
    pub target_manifest: Descriptor,
    /// Where the target's config is.
    pub target_config: Descriptor,
    /// Digest of the source's manifest, if it says so. The source may be there with another manifest.
    pub source: Option<Digest>,
    /// Digest of the source's config: what tells whether a source fits.
    pub source_config: Digest,
    /// When the source was made, if it says so.
    pub source_created: Option<String>,
    /// Content for layers, in the order of the artifact.
    pub layers: Vec<Changed>,
    /// Content of other kinds, such as signatures.
    pub others: Vec<Descriptor>,
}

/// Content for one layer of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Blob digest of the layer that it makes.
    pub to: Digest,
    /// Where the content is.
    pub blob: Descriptor,
    /// Bytes of the uncompressed layer, if declared.
    pub uncompressed_size: Option<u64>,
}

/// Signatures of the target that an artifact carries. Nothing of them was read.
#[derive(Debug, Clone)]
pub struct Embedded<'a> {
    /// Manifests of signatures.
    pub manifests: Vec<&'a Descriptor>,
    /// What those list.
    pub contents: Vec<&'a Descriptor>,
}

impl Artifact {
    /// Whether a manifest says that it is a delta of a dialect of this module.
    pub fn dialect_of(manifest: &Manifest) -> Option<Dialect> {
        manifest.artifact_type().and_then(Dialect::of_artifact_type)
    }

    /// Reads the manifest of an artifact (section 3.2).
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(manifest: &Manifest) -> Result<Self, Error> {
        let dialect = Self::dialect_of(manifest).ok_or_else(|| {
            Error::NotADelta(Some(
                manifest.artifact_type().unwrap_or(&manifest.config().media_type).to_owned(),
            ))
        })?;
        let prefix = dialect.prefix();
        let key = |name: &str| format!("{prefix}{name}");
        let said = |name: &str| match manifest.annotations().get(&key(name)) {
            Some(value) => digest(&key(name), value).map(Some),
            None => Ok(None),
        };
        let source_config =
            said("source-config")?.ok_or(Error::Missing("the digest of the source's config"))?;
        let (mut target_manifest, mut target_config) = (None, None);
        let (mut layers, mut others, mut made) = (Vec::new(), Vec::new(), HashSet::new());
        for blob in manifest.layers() {
            let content = blob.annotations.get(&key("content")).map(String::as_str).unwrap_or_default();
            let once = |place: &mut Option<Descriptor>| match place.replace(blob.clone()) {
                None => Ok(()),
                Some(_) => Err(Error::Twice(format!("content {content:?}"))),
            };
            match content {
                "image-manifest" => once(&mut target_manifest)?,
                "image-config" => once(&mut target_config)?,
                "image-layer" => {
                    let to = blob.annotations.get(&key("to"));
                    let to = digest(&key("to"), to.ok_or(Error::Missing("which layer a delta makes"))?)?;
                    if !made.insert(to) {
                        return Err(Error::Twice(format!("a delta for layer {to}")));
                    }
                    layers.push(Changed { to, uncompressed_size: declared_size(blob)?, blob: blob.clone() });
                }
                _ => others.push(blob.clone()),
            }
        }
        let target_manifest = target_manifest.ok_or(Error::Missing("the target's manifest"))?;
        let target_config = target_config.ok_or(Error::Missing("the target's config"))?;
        let actual = target_manifest.digest;
        let agree = |expected: Option<Digest>, by| match expected {
            Some(expected) if expected != actual => {
                Err(Error::Contradiction { what: "the target's manifest", actual, expected, by })
            }
            _ => Ok(()),
        };
        agree(manifest.subject().map(|subject| subject.digest), "is the artifact's subject")?;
        agree(said("target")?, "is its annotated target")?;
        Ok(Artifact {
            dialect,
            target_manifest,
            target_config,
            source: said("source")?,
            source_config,
            source_created: manifest.annotations().get(annotation::SOURCE_CREATED).cloned(),
            layers,
            others,
        })
    }

    /// Content that belongs to signatures of the target (section 2.3).
    pub fn signatures(&self) -> Embedded<'_> {
        let key = format!("{}content", self.dialect.prefix());
        let of_kind = |kind: &str| {
            let is = |blob: &&Descriptor| blob.annotations.get(&key).is_some_and(|found| found == kind);
            self.others.iter().filter(is).collect()
        };
        Embedded { manifests: of_kind(SIGNATURE), contents: of_kind(SIGNATURE_CONTENT) }
    }

    /// Bytes of all content for layers.
    pub fn layer_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.size).fold(0, u64::saturating_add)
    }
}

/// The declared size of the layer that content makes (section 2.2).
pub(super) fn declared_size(blob: &Descriptor) -> Result<Option<u64>, Error> {
    let key = annotation::UNCOMPRESSED_SIZE;
    let Some(value) = blob.annotations.get(key) else { return Ok(None) };
    match value.parse() {
        Ok(size) => Ok(Some(size)),
        Err(_) => Err(Error::Annotation { key: key.to_owned(), value: super::shortened(value) }),
    }
}

/// Where a layer of the target comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerSource {
    /// Content number `n` of the artifact.
    Artifact(usize),
    /// A layer of the source with the same diff_id.
    Source,
}

/// The target of an artifact: its manifest and config, which agree with each other and with the artifact.
#[derive(Debug, Clone)]
pub struct Target {
    /// The manifest, with the target's own bytes.
    pub manifest: Manifest,
    /// The config, with the target's own bytes.
    pub config: ImageConfig,
    /// For each layer of the manifest where it comes from.
    pub layers: Vec<LayerSource>,
}

impl Target {
    /// Puts an artifact and the documents in it together (section 3.3). Both have been compared with their descriptors.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(artifact: &Artifact, manifest: Manifest, config: ImageConfig) -> Result<Self, Error> {
        let (actual, expected) = (config.raw().digest(), manifest.config().digest);
        if actual != expected {
            let by = "is in the target's manifest";
            return Err(Error::Contradiction { what: "the target's config", actual, expected, by });
        }
        let (diff_ids, layers) = (config.diff_ids().len(), manifest.layers().len());
        if diff_ids != layers {
            return Err(crate::oci::Error::LayerCount { diff_ids, layers }.into());
        }
        let by_digest: HashMap<Digest, usize> =
            artifact.layers.iter().enumerate().map(|(i, layer)| (layer.to, i)).collect();
        let known: HashSet<Digest> = manifest.layers().iter().map(|layer| layer.digest).collect();
        if let Some(stray) = artifact.layers.iter().find(|layer| !known.contains(&layer.to)) {
            return Err(Error::NotInTarget(stray.to));
        }
        let layers = manifest
            .layers()
            .iter()
            .map(|layer| {
                by_digest.get(&layer.digest).map_or(LayerSource::Source, |i| LayerSource::Artifact(*i))
            })
            .collect();
        Ok(Target { manifest, config, layers })
    }
}

/// An artifact to be written.
#[derive(Debug, Clone)]
pub struct Draft<'a> {
    /// [`Dialect::OciDelta`] or [`Dialect::Coracle`].
    pub dialect: Dialect,
    /// The target.
    pub target: &'a Manifest,
    /// Bytes of the target's config.
    pub target_config: u64,
    /// Digest of the source's manifest.
    pub source: Digest,
    /// Digest of the source's config.
    pub source_config: Digest,
    /// When the source was made, as its config says.
    pub source_created: Option<&'a str>,
    /// Content for the changed layers, in the order of the target.
    pub layers: Vec<DraftLayer>,
    /// Signatures of the target: a manifest with what it lists, each blob once among all.
    pub signatures: Vec<DraftSignature>,
}

/// A signature of the target.
#[derive(Debug, Clone)]
pub struct DraftSignature {
    /// Its manifest.
    pub manifest: Descriptor,
    /// Config and layers of that manifest.
    pub contents: Vec<Descriptor>,
}

/// Content for one layer.
#[derive(Debug, Clone)]
pub struct DraftLayer {
    /// Blob digest of the layer that it makes.
    pub to: Digest,
    /// Digest of the content.
    pub digest: Digest,
    /// Bytes of the content.
    pub size: u64,
    /// What it is.
    pub payload: Payload,
    /// How the layer is compressed, if it is the content itself.
    pub compression: LayerCompression,
    /// Bytes of the uncompressed layer.
    pub uncompressed_size: u64,
}

impl DraftLayer {
    /// The descriptor of the content, without the annotations of a dialect. The media type is the true one: readers
    /// decode by it.
    pub(super) fn descriptor(&self) -> Descriptor {
        let media = match (self.payload, self.compression) {
            (Payload::TarDiff(_), _) => TAR_DIFF,
            (Payload::Native, _) => NATIVE,
            (Payload::Layer, LayerCompression::None) => media_type::OCI_LAYER,
            (Payload::Layer, LayerCompression::Zstd) => media_type::OCI_LAYER_ZSTD,
            (Payload::Layer | Payload::Rsync, _) => media_type::OCI_LAYER_GZIP,
        };
        let mut blob = Descriptor::new(media, self.digest, self.size);
        let mut add = |key: &str, value: String| blob.annotations.insert(key.to_owned(), value);
        if let Payload::TarDiff(version) = self.payload {
            let number = if version == Version::V1 { "1" } else { "2" };
            add(annotation::TARDIFF_VERSION, number.into());
        }
        add(annotation::UNCOMPRESSED_SIZE, self.uncompressed_size.to_string());
        blob
    }
}

impl Draft<'_> {
    /// The manifest of the artifact (section 3.1). The same draft gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let prefix = self.dialect.prefix();
        let key = |name: &str| format!("{prefix}{name}");
        let target = self.target.digest();
        let content = |mut blob: Descriptor, kind: &str| {
            blob.annotations.insert(key("content"), kind.to_owned());
            blob
        };
        let manifest = Descriptor::new(self.target.media_type(), target, self.target.raw().size());
        // Readers know the config by this type, whatever the target's manifest calls it.
        let config = Descriptor::new(media_type::OCI_CONFIG, self.target.config().digest, self.target_config);
        let mut layers = vec![content(manifest.clone(), "image-manifest"), content(config, "image-config")];
        layers.extend(self.layers.iter().map(|layer| {
            let mut blob = content(layer.descriptor(), "image-layer");
            blob.annotations.insert(key("to"), layer.to.to_string());
            blob
        }));
        for signature in &self.signatures {
            layers.push(content(plain(&signature.manifest), SIGNATURE));
            layers.extend(signature.contents.iter().map(|blob| content(plain(blob), SIGNATURE_CONTENT)));
        }
        // A registry copies these into every list of referrers: nothing that grows with the image.
        let mut annotations = BTreeMap::from([
            (key("target"), target.to_string()),
            (key("source"), self.source.to_string()),
            (key("source-config"), self.source_config.to_string()),
            (annotation::VERSION.to_owned(), RULES.to_owned()),
            (
                annotation::SIZE.to_owned(),
                self.layers.iter().map(|layer| layer.size).sum::<u64>().to_string(),
            ),
        ]);
        if let Some(created) = self.source_created {
            annotations.insert(annotation::SOURCE_CREATED.to_owned(), created.to_owned());
        }
        let config = Descriptor::new(media_type::OCI_EMPTY, Digest::of(EMPTY), EMPTY.len() as u64);
        let document = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": self.dialect.artifact_type(),
            "config": config.to_json(),
            "layers": layers.iter().map(Descriptor::to_json).collect::<Vec<_>>(),
            "subject": manifest.to_json(),
            "annotations": annotations.into_iter().map(|(k, v)| (k, Value::from(v))).collect::<Map<_, _>>(),
        });
        document.to_string().into_bytes()
    }
}

/// A descriptor without anything that it says besides what it is of.
fn plain(blob: &Descriptor) -> Descriptor {
    Descriptor::new(&blob.media_type, blob.digest, blob.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Document, Limits, Unverified};

    fn manifest(value: &Value) -> Manifest {
        let raw = Unverified::new(value.to_string().into_bytes()).identify();
        match Document::parse(raw, None, &Limits::default()).unwrap() {
            Document::Manifest(manifest) => manifest,
            Document::Index(_) => panic!("an index"),
        }
    }

    fn target() -> (Manifest, ImageConfig) {
        let config = json!({ "os": "linux", "architecture": "amd64",
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"a").to_string(), Digest::of(b"b").to_string()] } });
        let config = Unverified::new(config.to_string().into_bytes()).identify();
        let layer =
            |name: &[u8]| Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(name), 1000).to_json();
        let image = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::new(media_type::OCI_CONFIG, config.digest(), config.size()).to_json(),
            "layers": [layer(b"A"), layer(b"B")] });
        (manifest(&image), ImageConfig::parse(config, &Limits::default()).unwrap())
    }

    fn draft(target: &Manifest, dialect: Dialect) -> Draft<'_> {
        Draft {
            dialect,
            target,
            target_config: 10,
            source: Digest::of(b"source"),
            source_config: Digest::of(b"config"),
            source_created: Some("2026-01-01T00:00:00Z"),
            layers: vec![DraftLayer {
                to: Digest::of(b"B"),
                digest: Digest::of(b"delta"),
                size: 5,
                payload: Payload::TarDiff(Version::V2),
                compression: LayerCompression::Gzip,
                uncompressed_size: 4096,
            }],
            signatures: vec![DraftSignature {
                manifest: Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"signature"), 9),
                contents: vec![Descriptor::new("application/x", Digest::of(b"payload"), 7)],
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for dialect in [Dialect::OciDelta, Dialect::Coracle] {
            let (image, config) = target();
            let written: Value = serde_json::from_slice(&draft(&image, dialect).to_bytes()).unwrap();
            let artifact = Artifact::parse(&manifest(&written)).unwrap();
            assert_eq!(artifact.dialect, dialect);
            assert_eq!(
                (artifact.source, artifact.source_config),
                (Some(Digest::of(b"source")), Digest::of(b"config"))
            );
            assert_eq!(artifact.layers[0].uncompressed_size, Some(4096));
            assert_eq!(artifact.layer_bytes(), 5);
            let Embedded { manifests, contents } = artifact.signatures();
            assert_eq!((manifests[0].digest, manifests.len()), (Digest::of(b"signature"), 1));
            assert_eq!((contents[0].digest, contents.len()), (Digest::of(b"payload"), 1));
            let target = Target::new(&artifact, image, config).unwrap();
            assert_eq!(target.layers, [LayerSource::Source, LayerSource::Artifact(0)]);
        }
    }

    #[test]
    fn contradictions_are_errors() {
        let (image, _) = target();
        let good: Value = serde_json::from_slice(&draft(&image, Dialect::OciDelta).to_bytes()).unwrap();
        let key = |name: &str| format!("io.github.containers.delta.{name}");
        let other = Digest::of(b"other").to_string();
        type Change<'a> = Box<dyn Fn(&mut Value) + 'a>;
        let cases: [(&str, Change<'_>); 8] = [
            ("not a delta", Box::new(|v| v["artifactType"] = json!("application/x"))),
            ("subject", Box::new(|v| v["subject"]["digest"] = json!(other))),
            ("annotated target", Box::new(|v| v["annotations"][key("target")] = json!(other))),
            (
                "source's config is missing",
                Box::new(|v| {
                    v["annotations"].as_object_mut().unwrap().remove(&key("source-config"));
                }),
            ),
            ("\"xyz\"", Box::new(|v| v["layers"][2]["annotations"][key("to")] = json!("xyz"))),
            ("manifest is missing", Box::new(|v| v["layers"][0]["annotations"] = json!({}))),
            (
                "more than once",
                Box::new(|v| {
                    let again = v["layers"][2].clone();
                    v["layers"].as_array_mut().unwrap().push(again);
                }),
            ),
            (
                "uncompressed-size is",
                Box::new(|v| {
                    v["layers"][2]["annotations"][annotation::UNCOMPRESSED_SIZE] = json!("-1");
                }),
            ),
        ];
        for (wanted, change) in cases {
            let mut value = good.clone();
            change(&mut value);
            let error = Artifact::parse(&manifest(&value)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn a_layer_of_another_image_is_an_error() {
        let (image, config) = target();
        let mut draft = draft(&image, Dialect::OciDelta);
        draft.layers[0].to = Digest::of(b"C");
        let written: Value = serde_json::from_slice(&draft.to_bytes()).unwrap();
        let artifact = Artifact::parse(&manifest(&written)).unwrap();
        assert!(matches!(Target::new(&artifact, image.clone(), config), Err(Error::NotInTarget(_))));
    }
}
