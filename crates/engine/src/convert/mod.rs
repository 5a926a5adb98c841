//! The same image with its layers compressed otherwise: gzip, zstd, zstd:chunked or eStargz.
//!
//! The tars stay what they are, and with them diff_ids and config, but for eStargz, which puts its table of contents into
//! the tar. The same image and request give the same bytes.

mod converted;
mod layer;

use std::num::NonZeroUsize;
use std::sync::Arc;

use coracle_codec::chunked;
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, Platform};

use crate::image::blob::Progress;
use crate::image::copy::{self, Sending, Tally, choose, watched, working};
use crate::image::{Environment, ImageName, Source};
use crate::trust::Verdict;
use crate::{Context, Error};

use converted::{Converted as Outcome, Converter};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// gzip.
    Gzip,
    /// zstd.
    Zstd,
    /// zstd that can be read in parts.
    Chunked,
    /// gzip that can be read in parts.
    Stargz,
}

impl Format {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gzip => "gzip",
            Format::Zstd => "zstd",
            Format::Chunked => "zstd:chunked",
            Format::Stargz => "estargz",
        }
    }

    /// The levels there are, and the one that is taken if none is asked for.
    pub fn levels(self) -> (std::ops::RangeInclusive<i32>, i32) {
        match self {
            Format::Gzip | Format::Stargz => (1..=9, 6),
            // About 30 MB of tar for each second of processor time (docs/design/0017-chunked.md), spent once.
            Format::Zstd | Format::Chunked => (1..=22, 9),
        }
    }

    /// What is written in place of a layer that cannot be had in this format.
    fn plain(self) -> Format {
        match self {
            Format::Gzip | Format::Stargz => Format::Gzip,
            Format::Zstd | Format::Chunked => Format::Zstd,
        }
    }
}

/// What to convert.
#[derive(Debug, Clone)]
pub struct Request {
    /// From here.
    pub source: ImageName,
    /// To there.
    pub destination: ImageName,
    /// Of an index only the image for this platform.
    pub platform: Option<Platform>,
    /// How layers are compressed.
    pub format: Format,
    /// How hard; `None` for the usual level.
    pub level: Option<i32>,
    /// Whether podman before 2024 is told, too, where the table of contents is.
    pub legacy: bool,
    /// Layers at a time.
    pub jobs: NonZeroUsize,
}

/// A layer that was converted.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Digest of the config of the first image that has it.
    pub image: Digest,
    /// Its number there.
    pub number: usize,
    /// Its diff_id before.
    pub diff_id: Digest,
    /// Its diff_id now; another one with eStargz alone.
    pub new_diff_id: Digest,
    /// Its blob before.
    pub old: Digest,
    /// Bytes of that.
    pub old_bytes: u64,
    /// Its blob now.
    pub new: Digest,
    /// Bytes of that.
    pub new_bytes: u64,
    /// Bytes of its tar.
    pub tar_bytes: u64,
    /// How it is compressed.
    pub format: Format,
    /// Why that is not what was asked for.
    pub fell_back: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Done {
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Digest of the source's.
    pub source_digest: Digest,
    /// Whether all configs, and so all image IDs, stayed.
    pub config_kept: bool,
    /// Images.
    pub images: u64,
    /// The layers, each once.
    pub layers: Vec<Layer>,
    /// Blobs by what became of them.
    pub blobs: Tally,
    /// Why it was accepted.
    pub trust: Verdict,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Converts. Blocks, and must not be called on a thread of the runtime.
///
/// # Errors
/// See [`Error`]. The destination's name then leads to what it led to before.
pub fn run(request: &Request, environment: &Environment, context: &Context<'_>) -> Result<Done, Error> {
    working(context, |progress| Work { request, environment, context, progress }.run())
}

struct Work<'a> {
    request: &'a Request,
    environment: &'a Environment,
    context: &'a Context<'a>,
    progress: &'a Arc<Progress>,
}

impl Work<'_> {
    fn run(&self) -> Result<Done, Error> {
        let stop = &self.progress.stop;
        let source = self.environment.source(&self.request.source, stop, self.context)?;
        let original = source.root()?;
        // Asked before anything is fetched: what cannot be written need not be made.
        let destination = self.environment.destination(&self.request.destination, stop, self.context)?;
        let mut notes = Vec::new();
        if let Some(reason) = destination.takes().loses {
            let image = self.request.destination.to_string();
            let reason = format!("it does not keep how layers are compressed: {reason}");
            return Err(Error::Unsupported { image, reason });
        }
        let mut root = original.clone();
        if self.request.platform.is_some() || !destination.takes().index {
            let platform = self.request.platform.as_ref().unwrap_or(&self.environment.host);
            root = choose(source.as_ref(), root, platform, &self.environment.limits)?.0;
        }
        let trust = copy::trust(self.environment, &self.request.source, source.as_ref(), &root)?;
        let converter = Converter {
            source: Arc::clone(&source),
            format: self.request.format,
            options: chunked::Options { level: self.level()?, legacy: self.request.legacy },
            jobs: self.request.jobs.get(),
            temp_dir: &self.context.temp_dir,
            environment: self.environment,
            progress: self.progress,
        };
        let total = converter.total(&root)?;
        let outcome: Outcome = watched(self.context, self.progress, total, || converter.run(&root))?;
        notes.extend(outcome.layers.iter().filter_map(|layer| {
            let reason = layer.fell_back.as_ref()?;
            Some(format!("layer {} is {}: {reason}", layer.number, layer.format.name()))
        }));
        if !outcome.config_kept {
            notes.push(
                "diff_ids and config are new: the table of contents of eStargz is part of the tar".into(),
            );
        }
        let (layers, config_kept, images) = (outcome.layers.clone(), outcome.config_kept, outcome.images);
        let source: Arc<dyn Source> = Arc::new(outcome);
        let root = source.root()?;
        let sending =
            Sending { jobs: self.request.jobs.get(), context: self.context, progress: self.progress };
        self.progress.done.store(0, std::sync::atomic::Ordering::Relaxed);
        let blobs = sending.send_all(&source, &root, destination, &self.environment.limits)?;
        let (digest, source_digest) = (root.digest(), original.digest());
        Ok(Done { digest, source_digest, config_kept, images, layers, blobs, trust, notes })
    }

    fn level(&self) -> Result<i32, Error> {
        let (levels, usual) = self.request.format.levels();
        match self.request.level {
            None => Ok(usual),
            Some(level) if levels.contains(&level) => Ok(level),
            Some(level) => Err(Error::Unsupported {
                image: self.request.format.name().to_owned(),
                reason: format!("there is no level {level}, only {} to {}", levels.start(), levels.end()),
            }),
        }
    }
}

/// Whether a document is an image, and so has layers to convert.
fn is_image(document: &Document) -> bool {
    matches!(document, Document::Manifest(manifest) if manifest.is_image())
}
