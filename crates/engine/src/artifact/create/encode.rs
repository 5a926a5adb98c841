//! Deltas for the changed layers of an image, several at a time.

use std::io::{self, BufReader, Read};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::artifact::flatpak::{self, DraftDelta};
use coracle_codec::artifact::{Dialect, DraftLayer, Payload};
use coracle_codec::delta::DiffError;
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::observe::{Observer, Stage};
use coracle_codec::oci::LayerCompression;
use coracle_codec::source::{Source, TarSource, Tree};
use coracle_codec::{native, tardiff};

use super::{Layer, Request};
use crate::artifact::held::{Held, Holder};
use crate::artifact::layers::{Image, Layers, bytes, layer_compression, merge};
use crate::image::copy::in_parallel;
use crate::image::stop::Stop;
use crate::input::Archive;
use crate::{Context, Error};

/// What deltas start from: the layers of the old image.
pub(super) struct Base<'a> {
    pub(super) layers: Vec<Arc<Archive>>,
    pub(super) diff_ids: &'a [Digest],
}

/// Content for one layer.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) layer: DraftLayer,
    /// The old layer it starts from, for dialects that name one, and the diff_id of the layer that it makes.
    pub(super) between: Option<(Digest, Digest)>,
    /// The delta; `None` if the content is the layer itself, which is where the new image is.
    pub(super) held: Option<Held>,
}

/// How layers are encoded.
pub(super) struct Encoding<'a> {
    pub(super) request: &'a Request,
    pub(super) context: &'a Context<'a>,
    pub(super) stop: &'a Stop,
}

/// A delta that was made and proved.
struct Proved {
    held: Held,
    digest: Digest,
    size: u64,
    payload: Payload,
}

/// Old files that some readers cannot find: deployments of ostree, and what is emptied when a tree is composed
/// (`docs/formats/delta-artifacts.md`, section 3.4).
const UNSEEN: [&[u8]; 2] = [b"sysroot/ostree", b"run"];

impl Encoding<'_> {
    /// Content for all layers of `plan` that have to have some, in its order.
    pub(super) fn encode(
        &self,
        dialect: Dialect,
        base: &Base<'_>,
        new: &Layers,
        plan: &[Layer],
    ) -> Result<Vec<Content>, Error> {
        let mut work: Vec<(usize, &Layer, &Arc<Archive>)> = plan
            .iter()
            .filter(|layer| layer.payload.is_some())
            .filter_map(|layer| Some((layer, new.0.get(&layer.diff_id)?)))
            .enumerate()
            .map(|(i, (layer, archive))| (i, layer, archive))
            .collect();
        let count = work.len();
        let total = work.iter().map(|(_, _, archive)| archive.bytes().size()).sum();
        // The largest first: it is what the others would wait for in the end.
        work.sort_by_key(|(_, _, archive)| std::cmp::Reverse(archive.bytes().size()));
        let merged = match dialect {
            Dialect::OciDelta if count > 0 => Some(merge(&base.layers, true, self.context.observer)?),
            _ => None,
        };
        let workers = self.request.threads.get().min(count).max(1);
        let threads = NonZeroUsize::new(self.request.threads.get() / workers).unwrap_or(NonZeroUsize::MIN);
        let budget = Budget { free: Mutex::new(2 * self.request.memory), more: Condvar::new() };
        let done = AtomicU64::new(0);
        let made = Mutex::new(Vec::new());
        in_parallel(&work, workers, self.stop, |(i, layer, archive)| {
            let need = budget.take(self.request.memory.min((64 << 20) + 8 * archive.bytes().size()));
            let observer =
                Share { context: self.context, stop: self.stop, done: &done, mine: AtomicU64::new(0), total };
            let content = match dialect {
                Dialect::OciDelta => {
                    let proved = self.tar_diff(base, merged.as_ref(), archive, layer, threads, &observer);
                    proved.map(|proved| Some(content(layer, archive, proved)))
                }
                Dialect::Coracle => {
                    let proved = self.native(base, archive, layer, threads, &observer);
                    proved.map(|proved| Some(content(layer, archive, proved)))
                }
                Dialect::Flatpak | Dialect::Skopeo => {
                    self.layer_delta(base, archive, layer, threads, &observer)
                }
                // Made alone, and elsewhere.
                Dialect::Balena => Ok(None),
            };
            budget.give(need);
            if let Some(content) = content? {
                made.lock().unwrap_or_else(PoisonError::into_inner).push((*i, content));
            }
            Ok(())
        })?;
        let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.sort_by_key(|(i, _)| *i);
        Ok(made.into_iter().map(|(_, content)| content).collect())
    }

    fn options(&self, threads: NonZeroUsize) -> tardiff::Options {
        tardiff::Options {
            version: self.request.version,
            method: match self.request.version {
                tardiff::Version::V1 => tardiff::Method::Bsdiff,
                tardiff::Version::V2 => tardiff::Method::Smallest,
            },
            memory: self.request.memory,
            threads,
            apply_whiteouts: true,
            any_mode: self.request.any_mode,
            ignore_prefixes: UNSEEN.map(<[u8]>::to_vec).to_vec(),
            utf8_names: true,
            ..tardiff::Options::at(self.request.effort)
        }
    }

    fn tar_diff(
        &self,
        base: &Base<'_>,
        merged: Option<&Tree>,
        new: &Arc<Archive>,
        layer: &Layer,
        threads: NonZeroUsize,
        observer: &Share<'_>,
    ) -> Result<Proved, Error> {
        let options = self.options(threads);
        let old = bytes(&base.layers);
        let Some(tree) = merged else { return Err(Error::SelfCheck("no merged tree".into())) };
        self.made(
            Payload::TarDiff(options.version),
            base,
            new,
            layer,
            |out| {
                tardiff::diff_from(tree, &old, new.bytes(), out, &options, observer)
                    .map(|report| report.digest)
            },
            |file| self.prove(file, &TarSource::merged(bytes(&base.layers), tree), new, observer),
        )
    }

    /// A tar-diff that starts from one layer: the one at the same place. `None` if it is not worth it.
    fn layer_delta(
        &self,
        base: &Base<'_>,
        new: &Arc<Archive>,
        layer: &Layer,
        threads: NonZeroUsize,
        observer: &Share<'_>,
    ) -> Result<Option<Content>, Error> {
        let Some(old) = base.layers.get(layer.number) else { return Ok(None) };
        let options = tardiff::Options { apply_whiteouts: false, ..self.options(threads) };
        let proved = self.made(
            Payload::TarDiff(options.version),
            base,
            new,
            layer,
            |out| {
                tardiff::diff(&[old.bytes()], new.bytes(), out, &options, observer)
                    .map(|report| report.digest)
            },
            |file| {
                let source = TarSource::new(vec![old.bytes()], Default::default(), observer)
                    .map_err(|error| Error::SelfCheck(error.to_string()))?;
                self.prove(file, &source, new, observer)
            },
        )?;
        if proved.size >= layer.full {
            return Ok(None);
        }
        let mut content = content(layer, new, proved);
        content.between = Some((base.diff_ids[layer.number], layer.diff_id));
        Ok(Some(content))
    }

    fn native(
        &self,
        base: &Base<'_>,
        new: &Arc<Archive>,
        layer: &Layer,
        threads: NonZeroUsize,
        observer: &Share<'_>,
    ) -> Result<Proved, Error> {
        let options = native::Options {
            effort: self.request.effort,
            memory: self.request.memory,
            threads,
            ..native::Options::default()
        };
        let old = bytes(&base.layers);
        let known: Vec<(Digest, &dyn ReadAt)> =
            base.diff_ids.iter().copied().zip(bytes(&base.layers)).collect();
        self.made(
            Payload::Native,
            base,
            new,
            layer,
            |out| native::diff(&old, new.bytes(), out, &options, observer).map(|report| report.digest()),
            |file| {
                let limits = native::Limits {
                    max_output: new.bytes().size(),
                    max_memory: u64::MAX,
                    ..native::Limits::default()
                };
                let sources = native::Sources::Known(&known);
                let delta = BufReader::with_capacity(1 << 16, file);
                match native::apply(delta, sources, &mut io::sink(), &limits, threads, observer) {
                    Ok(applied) => Ok(applied.digest),
                    Err(native::Error::Cancelled) => Err(Error::Cancelled),
                    Err(error) => Err(Error::SelfCheck(error.to_string())),
                }
            },
        )
    }

    /// Applies a tar-diff to what it will be applied to, and says what comes out.
    fn prove(
        &self,
        delta: impl Read,
        source: &dyn Source,
        new: &Arc<Archive>,
        observer: &Share<'_>,
    ) -> Result<Digest, Error> {
        let limits = tardiff::Limits { max_output: new.bytes().size(), ..tardiff::Limits::default() };
        let mut out = Hashing::new(io::sink());
        let delta = BufReader::with_capacity(1 << 16, delta);
        match tardiff::apply(delta, source, &mut out, &limits, observer) {
            Ok(_) => Ok(out.digest()),
            Err(tardiff::Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => Err(Error::SelfCheck(error.to_string())),
        }
    }

    /// Writes a delta and proves it: both the writer and a reader must say that it makes the layer.
    fn made(
        &self,
        payload: Payload,
        base: &Base<'_>,
        new: &Arc<Archive>,
        layer: &Layer,
        write: impl FnOnce(&mut Hashing<Holder>) -> Result<Digest, DiffError>,
        prove: impl FnOnce(Box<dyn Read + Send>) -> Result<Digest, Error>,
    ) -> Result<Proved, Error> {
        let temporary = |error| Error::Temporary { dir: self.context.temp_dir.clone(), error };
        let mut out = Hashing::new(Holder::new(&self.context.temp_dir));
        let written = write(&mut out).map_err(|error| match error {
            DiffError::Write(error) => temporary(error),
            DiffError::Old { layer, error } => Error::tar(&base.layers[layer].path, error),
            DiffError::New(error) => Error::tar(&new.path, error),
            DiffError::Read(error) => Error::ReadAgain(error),
            DiffError::Cancelled => Error::Cancelled,
            other => Error::SelfCheck(other.to_string()),
        })?;
        let (out, digest, size) = out.finish();
        let held = out.finish().map_err(temporary)?;
        let proved = prove(held.read(0).map_err(temporary)?)?;
        for actual in [written, proved] {
            if actual != layer.diff_id {
                let what =
                    format!("the delta for layer {} gives {actual}, not {}", layer.number, layer.diff_id);
                return Err(Error::SelfCheck(what));
            }
        }
        Ok(Proved { held, digest, size, payload })
    }
}

/// A delta as content, or the layer itself if that is not larger.
fn content(layer: &Layer, new: &Arc<Archive>, proved: Proved) -> Content {
    let uncompressed_size = new.bytes().size();
    if proved.size >= layer.full {
        let compression = layer_compression(new.compression);
        return Content {
            layer: DraftLayer {
                to: layer.to,
                digest: layer.to,
                size: layer.full,
                payload: Payload::Layer,
                compression,
                uncompressed_size,
            },
            between: None,
            held: None,
        };
    }
    Content {
        layer: DraftLayer {
            to: layer.to,
            digest: proved.digest,
            size: proved.size,
            payload: proved.payload,
            compression: LayerCompression::Unknown,
            uncompressed_size,
        },
        between: None,
        held: Some(proved.held),
    }
}

/// The manifest of the `flatpak` dialect with these deltas.
pub(super) fn flatpak_manifest(dialect: Dialect, new: &Image, contents: &[Content]) -> Vec<u8> {
    let deltas: Vec<_> = contents
        .iter()
        .filter_map(|content| {
            let (from, to) = content.between?;
            Some(DraftDelta { from, to, layer: content.layer.clone() }.descriptor())
        })
        .collect();
    flatpak::manifest(dialect, &new.manifest.digest(), &deltas)
}

/// Memory that layers share: small ones side by side, of the largest two at a time.
struct Budget {
    free: Mutex<u64>,
    more: Condvar,
}

impl Budget {
    fn take(&self, need: u64) -> u64 {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < need {
            free = self.more.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= need;
        need
    }

    fn give(&self, need: u64) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += need;
        self.more.notify_all();
    }
}

/// One layer's part of the progress.
pub(super) struct Share<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) stop: &'a Stop,
    pub(super) done: &'a AtomicU64,
    pub(super) mine: AtomicU64,
    pub(super) total: u64,
}

impl Observer for Share<'_> {
    fn progress(&self, stage: Stage, done: u64, _: u64) {
        if stage == Stage::Diff {
            let before = self.mine.swap(done, Ordering::Relaxed);
            let more = done.saturating_sub(before);
            let all = self.done.fetch_add(more, Ordering::Relaxed) + more;
            self.context.observer.progress(Stage::Diff, all.min(self.total), self.total);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.raised() || self.context.observer.cancelled()
    }
}
