//! A source whose layers were made anew, and the documents that go with them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::chunked;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Descriptor, Document, LayerCompression, Manifest, Unverified, Verified, is_document, media_type,
};
use serde_json::{Value, json};

use super::layer::{How, Made, make};
use super::{Format, Layer, is_image};
use crate::Error;
use crate::image::blob::{Blob, Progress};
use crate::image::copy::in_parallel;
use crate::image::rootfs::{FileFrom, reopen};
use crate::image::{Environment, Source, bytes_from, config_of};

/// Documents below one root.
const MAX_DOCUMENTS: usize = 4096;

/// What converting needs.
pub(super) struct Converter<'a> {
    pub(super) source: Arc<dyn Source>,
    pub(super) format: Format,
    pub(super) options: chunked::Options,
    pub(super) jobs: usize,
    pub(super) temp_dir: &'a Path,
    pub(super) environment: &'a Environment,
    pub(super) progress: &'a Arc<Progress>,
}

/// The same image with other layers.
pub(super) struct Converted {
    inner: Arc<dyn Source>,
    root: Document,
    documents: HashMap<Digest, Document>,
    configs: HashMap<Digest, Verified>,
    files: HashMap<Digest, File>,
    pub(super) layers: Vec<Layer>,
    pub(super) config_kept: bool,
    pub(super) images: u64,
}

/// A layer to make: of several images that have it, the first.
struct Task {
    image: Digest,
    number: usize,
    descriptor: Descriptor,
    diff_id: Digest,
}

/// Whether a layer is a tar at all.
fn is_tar(layer: &Descriptor) -> bool {
    layer.layer_compression() != LayerCompression::Unknown && !layer.is_foreign()
}

impl Converter<'_> {
    /// Documents below `root`, and itself, each after all that it lists.
    fn documents(&self, root: &Document) -> Result<Vec<Document>, Error> {
        let mut all = Vec::new();
        self.add(root, &mut all, &mut HashSet::new(), 0)?;
        Ok(all)
    }

    fn add(
        &self,
        document: &Document,
        all: &mut Vec<Document>,
        seen: &mut HashSet<Digest>,
        depth: u32,
    ) -> Result<(), Error> {
        let bad = |reason: &str| {
            let (image, reason) = (self.source.name().to_owned(), reason.to_owned());
            Err(Error::BadImage { image, reason })
        };
        if !seen.insert(document.digest()) {
            return Ok(());
        }
        if seen.len() > MAX_DOCUMENTS || depth > self.environment.limits.nesting {
            return bad("too many documents, or too deep in each other");
        }
        if let Document::Index(index) = document {
            for entry in index.manifests().iter().filter(|entry| is_document(&entry.media_type)) {
                self.add(&self.source.document(entry)?, all, seen, depth + 1)?;
            }
        }
        all.push(document.clone());
        Ok(())
    }

    /// Bytes that will be read.
    pub(super) fn total(&self, root: &Document) -> Result<u64, Error> {
        let mut seen = HashSet::new();
        let documents = self.documents(root)?;
        let layers = documents.iter().filter_map(|document| match document {
            Document::Manifest(manifest) => Some(manifest.layers()),
            Document::Index(_) => None,
        });
        let layers = layers.flatten().filter(|layer| is_tar(layer) && seen.insert(layer.digest));
        Ok(layers.map(|layer| layer.size).fold(0, u64::saturating_add))
    }

    pub(super) fn run(&self, root: &Document) -> Result<Converted, Error> {
        let documents = self.documents(root)?;
        let (mut tasks, mut configs, mut seen) = (Vec::new(), HashMap::new(), HashSet::new());
        for document in documents.iter().filter(|document| is_image(document)) {
            let Document::Manifest(manifest) = document else { continue };
            if !manifest.layers().iter().any(is_tar) {
                continue;
            }
            let config = config_of(self.source.as_ref(), manifest, &self.environment.limits)?;
            for (number, layer) in manifest.layers().iter().enumerate() {
                if is_tar(layer) && seen.insert(layer.digest) {
                    let (image, diff_id) = (config.raw().digest(), config.diff_ids()[number]);
                    tasks.push(Task { image, number, descriptor: layer.clone(), diff_id });
                }
            }
            configs.insert(manifest.digest(), config);
        }
        let made = self.layers(&tasks)?;
        let mut out = Converted {
            inner: Arc::clone(&self.source),
            root: root.clone(),
            documents: HashMap::new(),
            configs: HashMap::new(),
            files: HashMap::new(),
            layers: Vec::new(),
            config_kept: true,
            images: configs.len() as u64,
        };
        // Each document after all that it lists: what became of those is known.
        let mut new: HashMap<Digest, Document> = HashMap::new();
        for document in &documents {
            let changed = match document {
                Document::Manifest(manifest) => match configs.get(&manifest.digest()) {
                    Some(config) => Some(self.manifest(manifest, config, &made, &mut out)?),
                    None => None,
                },
                Document::Index(_) => self.index(document, &new)?,
            };
            let changed = changed.unwrap_or_else(|| document.clone());
            new.insert(document.digest(), changed.clone());
            out.documents.insert(changed.digest(), changed);
        }
        out.root = new.remove(&root.digest()).unwrap_or_else(|| root.clone());
        for task in &tasks {
            if let Some(made) = made.get(&task.descriptor.digest) {
                out.layers.push(Layer {
                    image: task.image,
                    number: task.number,
                    diff_id: task.diff_id,
                    new_diff_id: made.diff_id,
                    old: task.descriptor.digest,
                    old_bytes: task.descriptor.size,
                    new: made.descriptor.digest,
                    new_bytes: made.descriptor.size,
                    tar_bytes: made.tar,
                    format: made.format,
                    fell_back: made.fell_back.clone(),
                });
            }
        }
        out.files.extend(made.into_values().map(|made| (made.descriptor.digest, made.file)));
        Ok(out)
    }

    /// Makes all layers, several at a time.
    fn layers(&self, tasks: &[Task]) -> Result<HashMap<Digest, Made>, Error> {
        let how =
            How { options: self.options, temp_dir: self.temp_dir, limits: self.environment.archive_limits };
        let made = Mutex::new(HashMap::new());
        in_parallel(tasks, self.jobs, &self.progress.stop, |task| {
            let blob = Blob {
                source: Arc::clone(&self.source),
                descriptor: task.descriptor.clone(),
                what: format!("layer {}", task.number),
                progress: Arc::clone(self.progress),
            };
            let layer = make(&blob, &task.diff_id, self.format, &how)?;
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(task.descriptor.digest, layer);
            Ok(())
        })?;
        Ok(made.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// A manifest with the new layers, and, if their diff_ids are others, its config.
    fn manifest(
        &self,
        manifest: &Manifest,
        config: &coracle_codec::oci::ImageConfig,
        made: &HashMap<Digest, Made>,
        out: &mut Converted,
    ) -> Result<Document, Error> {
        let mut value = self.json(manifest.raw())?;
        let mut diff_ids = config.diff_ids().to_vec();
        for (number, layer) in manifest.layers().iter().enumerate() {
            if let Some(made) = made.get(&layer.digest).filter(|_| is_tar(layer)) {
                value["layers"][number] = made.descriptor.to_json();
                diff_ids[number] = made.diff_id;
            }
        }
        value["mediaType"] = json!(media_type::OCI_MANIFEST);
        if value["config"]["mediaType"] == media_type::DOCKER_CONFIG {
            value["config"]["mediaType"] = json!(media_type::OCI_CONFIG);
        }
        if diff_ids != config.diff_ids() {
            let mut changed = self.json(config.raw())?;
            let diff_ids: Vec<String> = diff_ids.iter().map(ToString::to_string).collect();
            changed["rootfs"]["diff_ids"] = json!(diff_ids);
            let raw = Unverified::new(changed.to_string().into_bytes()).identify();
            value["config"]["digest"] = json!(raw.digest().to_string());
            value["config"]["size"] = json!(raw.size());
            out.configs.insert(raw.digest(), raw);
            out.config_kept = false;
        }
        self.document(&value, media_type::OCI_MANIFEST)
    }

    /// An index of which something has changed.
    fn index(&self, document: &Document, new: &HashMap<Digest, Document>) -> Result<Option<Document>, Error> {
        let Document::Index(index) = document else { return Ok(None) };
        if index
            .manifests()
            .iter()
            .all(|entry| new.get(&entry.digest).is_none_or(|n| n.digest() == entry.digest))
        {
            return Ok(None);
        }
        let renamed: HashMap<String, String> =
            new.iter().map(|(old, new)| (old.to_string(), new.digest().to_string())).collect();
        let mut value = self.json(document.raw())?;
        value["mediaType"] = json!(media_type::OCI_INDEX);
        let entries = value["manifests"].as_array_mut().into_iter().flatten();
        for (entry, said) in entries.zip(index.manifests()) {
            if let Some(new) = new.get(&said.digest) {
                entry["mediaType"] = json!(new.media_type());
                entry["digest"] = json!(new.digest().to_string());
                entry["size"] = json!(new.raw().size());
            }
            // Attestations say by an annotation which image they are about.
            for value in entry["annotations"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
                if let Some(new) = value.as_str().and_then(|text| renamed.get(text)) {
                    *value = json!(new);
                }
            }
        }
        self.document(&value, media_type::OCI_INDEX).map(Some)
    }

    fn json(&self, raw: &Verified) -> Result<Value, Error> {
        serde_json::from_slice(raw.as_bytes()).map_err(|error| Error::BadImage {
            image: self.source.name().to_owned(),
            reason: error.to_string(),
        })
    }

    fn document(&self, value: &Value, kind: &str) -> Result<Document, Error> {
        let raw = Unverified::new(value.to_string().into_bytes()).identify();
        Document::parse(raw, Some(kind), &self.environment.limits)
            .map_err(|error| Error::Document { image: self.source.name().to_owned(), error })
    }
}

impl Source for Converted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn root(&self) -> Result<Document, Error> {
        Ok(self.root.clone())
    }

    fn document(&self, wanted: &Descriptor) -> Result<Document, Error> {
        match self.documents.get(&wanted.digest) {
            Some(document) => Ok(document.clone()),
            None => self.inner.document(wanted),
        }
    }

    fn open_blob(&self, wanted: &Descriptor, offset: u64) -> Result<Box<dyn Read + Send>, Error> {
        if let Some(file) = self.files.get(&wanted.digest) {
            return Ok(Box::new(FileFrom { file: reopen(file, self.name())?, offset }));
        }
        if let Some(config) = self.configs.get(&wanted.digest) {
            return Ok(bytes_from(config.as_bytes(), offset));
        }
        self.inner.open_blob(wanted, offset)
    }

    fn distrust(&self, wanted: &Descriptor) -> bool {
        self.inner.distrust(wanted)
    }
}
