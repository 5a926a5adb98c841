//! Doing what a plan says: layers side by side, whole ones where a delta fails.

use std::collections::HashMap;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use coracle_codec::ReadAt;
use coracle_codec::artifact::{Dialect, Payload};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::Descriptor;
use coracle_store::{LayerWriter, Lease, Store, WriterOptions};

use super::chunks::{Corrected, Parts};
use super::job::{At, Base, Content, Deltas, Job, Layer, Route};
use super::plan::Way;
use super::{Event, FellBack, From, Headers, Made, Request};
use crate::Error;
use crate::artifact::layers::{self, Image};
use crate::artifact::making::{Maker, Making, OldFiles, OldLayers, Watch};
use crate::chunked::{self, Assembled, assemble};
use crate::image::blob::{Blob, Progress};
use crate::image::copy::in_parallel;
use crate::image::spooled::Spooled;
use crate::image::stop::Stop;
use crate::image::store::{claimed, ingest};
use crate::image::{Environment, Source};

/// What making layers needs.
pub(super) struct Work<'a> {
    pub(super) request: &'a Request,
    pub(super) environment: &'a Environment,
    pub(super) progress: &'a Arc<Progress>,
    pub(super) store: &'a Store,
    pub(super) lease: &'a Lease,
    pub(super) source: &'a Arc<Spooled>,
    /// Other places with layers.
    pub(super) others: &'a [Image],
    pub(super) events: &'a (dyn Fn(&Event<'_>) + Sync),
    pub(super) fallbacks: Mutex<Vec<FellBack>>,
    /// Bytes of use that came from earlier runs.
    pub(super) resumed: AtomicU64,
}

/// What deltas start from, opened.
struct Ready {
    old: OldLayers,
    hints: Vec<coracle_store::Layer>,
}

/// Layers that are made from librsync deltas at a time: each reads all over the image that it starts from, so each takes
/// memory for that, and devices have little.
const RSYNC_JOBS: usize = 2;

/// What came of putting a layer together.
enum Outcome {
    /// It is in the store; so many bytes were fetched for it.
    Made(u64),
    /// It is another one; the same.
    Wrong(Error, u64),
    /// The source sends all of it instead.
    Whole(Box<dyn Read + Send>),
}

/// A source that could not be opened is the reason for all that would have started from it.
type Opened = Result<Arc<Ready>, String>;

impl Work<'_> {
    /// Makes all layers of an image. With `fall_back`, a layer whose delta fails is fetched whole.
    pub(super) fn run(&self, job: &Job, fall_back: bool) -> Result<Vec<Made>, Error> {
        let opened = self.open_sources(job)?;
        let made = Mutex::new(Vec::new());
        let numbers: Vec<usize> = (0..job.layers.len()).collect();
        // An image on the way that fails must not stop the others.
        let own = Stop::new();
        let stop = if fall_back { &self.progress.stop } else { &own };
        let by_rsync = job.used().any(|deltas| deltas.dialect == Dialect::Balena);
        let jobs = if by_rsync { self.request.jobs.get().min(RSYNC_JOBS) } else { self.request.jobs.get() };
        in_parallel(&numbers, jobs, stop, |&number| {
            let layer = self.layer(job, number, &opened, fall_back)?;
            // Images on the way are nobody's.
            if fall_back {
                (self.events)(&Event::Layer(&layer));
            }
            made.lock().unwrap_or_else(PoisonError::into_inner).push((number, layer));
            Ok(())
        })?;
        let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
        made.sort_by_key(|(number, _)| *number);
        Ok(made.into_iter().map(|(_, layer)| layer).collect())
    }

    /// Opens what the plan's deltas start from, by the number of the deltas.
    fn open_sources(&self, job: &Job) -> Result<HashMap<usize, Opened>, Error> {
        let mut opened = HashMap::new();
        for way in &job.plan.ways {
            if let Way::Delta(at) = *way
                && !opened.contains_key(&at)
            {
                let ready = match self.open_source(&job.deltas[at]) {
                    Ok(ready) => Ok(Arc::new(ready)),
                    Err(error) if is_ours(&error) || self.progress.stop.raised() => return Err(error),
                    Err(error) => Err(error.to_string()),
                };
                opened.insert(at, ready);
            }
        }
        Ok(opened)
    }

    fn open_source(&self, deltas: &Deltas) -> Result<Ready, Error> {
        match &deltas.route {
            Route::Here(base) => self.open_base(base, deltas.dialect),
            Route::Made(job) => {
                self.run(job, false)?;
                let diff_ids = job.config.diff_ids().to_vec();
                self.open_base(&Base { name: job.name.clone(), diff_ids }, deltas.dialect)
            }
            Route::Import(number) => {
                let other = &self.others[*number];
                let diff_ids = other.config.diff_ids();
                let missing: Vec<usize> =
                    (0..diff_ids.len()).filter(|&n| !self.store.has_layer(&diff_ids[n])).collect();
                in_parallel(&missing, self.request.jobs.get(), &Stop::new(), |&n| {
                    self.claimed(&diff_ids[n], || self.import(other, n)).map(|_| ())
                })?;
                let name = other.source.name().to_owned();
                self.open_base(&Base { name, diff_ids: diff_ids.to_vec() }, deltas.dialect)
            }
        }
    }

    fn open_base(&self, base: &Base, dialect: Dialect) -> Result<Ready, Error> {
        let bad = |reason: String| Error::BadImage { image: base.name.clone(), reason };
        let (mut hints, mut old) = (Vec::new(), Vec::new());
        for (number, diff_id) in base.diff_ids.iter().enumerate() {
            let kept = self.lease.keep_layer(diff_id).map_err(|e| bad(e.to_string()))?;
            let layer = self.store.layer(diff_id).map_err(|e| bad(e.to_string()))?;
            let Some(layer) = layer.filter(|_| kept) else {
                return Err(bad(format!("layer {number} ({diff_id}) is gone")));
            };
            let name = PathBuf::from(format!("{}: layer {number}", base.name));
            old.push((*diff_id, name, Arc::new(layer.clone()) as Arc<dyn ReadAt>));
            hints.push(layer);
        }
        let old = match dialect {
            Dialect::Balena => OldLayers::bare(old),
            _ => OldLayers::new(old, &Watch(&self.progress.stop))?,
        };
        Ok(Ready { old, hints })
    }

    fn layer(
        &self,
        job: &Job,
        number: usize,
        opened: &HashMap<usize, Opened>,
        fall_back: bool,
    ) -> Result<Made, Error> {
        let layer = &job.layers[number];
        let way = job.plan.ways[number];
        let made = |from, bytes| Made {
            number: layer.number,
            diff_id: layer.diff_id,
            blob: layer.blob.digest,
            from,
            bytes,
            headers: None,
        };
        let here = self.claimed(&layer.diff_id, || {
            let mut distrust = false;
            let alternative = fall_back && job.whole;
            if let Way::Delta(at) = way
                && let Some(content) = &job.deltas[at].contents[number]
            {
                match self.try_delta(job, layer, &job.deltas[at], content, &opened[&at]) {
                    Ok(payload) => return Ok(made(From::Delta(payload), content.blob.size)),
                    Err(error) if is_ours(&error) || self.progress.stop.raised() || !alternative => {
                        return Err(error);
                    }
                    Err(error) => {
                        self.fell_back(layer, &job.deltas[at].name, &error.to_string());
                        // Something here may be damaged: nothing old is taken on trust now.
                        distrust = true;
                    }
                }
            }
            if way == Way::Chunks
                && let Some(parts) = &layer.chunks
            {
                match self.parts(layer, parts) {
                    Ok(Some((headers, bytes))) => {
                        return Ok(Made { headers: Some(headers), ..made(From::Chunks, bytes) });
                    }
                    // The whole blob is on its way in place of a range.
                    Ok(None) => {}
                    Err(error) if is_ours(&error) || self.progress.stop.raised() => return Err(error),
                    Err(error) => {
                        // Ranges of a line that broke may be had by the next run; wrong ones are of no use to it.
                        if is_wrong(&error) || matches!(error, Error::Chunked { .. }) {
                            parts.forget();
                        }
                        self.fell_back(layer, "reading it in parts", &error.to_string());
                        distrust = true;
                    }
                }
            }
            if let At::Source(other) = layer.at {
                let found = self.others[other].config.diff_ids().iter().position(|d| *d == layer.diff_id);
                match found.map(|n| self.import(&self.others[other], n)) {
                    Some(Ok(())) => return Ok(made(From::Source, 0)),
                    Some(Err(error)) if is_ours(&error) || self.progress.stop.raised() || !job.whole => {
                        return Err(error);
                    }
                    Some(Err(error)) => {
                        self.fell_back(layer, self.others[other].source.name(), &error.to_string());
                    }
                    None => {}
                }
            }
            self.whole(layer, distrust)?;
            if let Some(parts) = &layer.chunks {
                parts.forget();
            }
            Ok(made(From::Full, layer.blob.size))
        })?;
        Ok(here.unwrap_or_else(|| made(From::Store, 0)))
    }

    fn fell_back(&self, layer: &Layer, from: &str, reason: &str) {
        let fell_back = FellBack {
            number: layer.number,
            diff_id: layer.diff_id,
            delta: from.to_owned(),
            reason: reason.to_owned(),
        };
        (self.events)(&Event::FellBack(&fell_back));
        self.fallbacks.lock().unwrap_or_else(PoisonError::into_inner).push(fell_back);
    }

    fn claimed<R>(
        &self,
        diff_id: &Digest,
        make: impl FnOnce() -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        claimed((self.store, self.lease), diff_id, &self.progress.stop, make)
    }

    fn blob(&self, source: &Arc<dyn Source>, descriptor: &Descriptor, what: String) -> Blob {
        let (source, progress) = (Arc::clone(source), Arc::clone(self.progress));
        Blob { source, descriptor: descriptor.clone(), what, progress }
    }

    fn spooled(&self) -> Arc<dyn Source> {
        Arc::clone(self.source) as Arc<dyn Source>
    }

    /// Puts a layer together from what is here and ranges of its blob: how, and the bytes that were fetched for it; `None` if
    /// the source sends all of it instead.
    fn parts(&self, layer: &Layer, parts: &Parts) -> Result<Option<(Headers, u64)>, Error> {
        let whole = |stream| {
            self.source.expect(&layer.blob.digest, stream);
            None
        };
        let parted = parts.parted(self.source.as_ref(), &layer.blob);
        parts.begin();
        let (bytes, headers) = match self.assembled(layer, parts, &parts.plan)? {
            Outcome::Made(bytes) if parts.predicted => (bytes, Headers::Predicted),
            Outcome::Made(bytes) => (bytes, Headers::Fetched),
            Outcome::Whole(stream) => return Ok(whole(stream)),
            Outcome::Wrong(_, fetched) if parts.predicted => {
                let plan = match parts.correct(&parted)? {
                    Corrected::Plan(plan) => plan,
                    Corrected::Whole(stream) => return Ok(whole(stream)),
                };
                match self.assembled(layer, parts, &plan)? {
                    Outcome::Made(more) => (fetched + more, Headers::Corrected),
                    Outcome::Whole(stream) => return Ok(whole(stream)),
                    Outcome::Wrong(error, _) => return Err(error),
                }
            }
            Outcome::Wrong(error, _) => return Err(error),
        };
        self.resumed.fetch_add(parts.forget(), Ordering::Relaxed);
        if let Some(toc) = parts.pins() {
            self.lease.remember_toc(&toc, &layer.diff_id)?;
        }
        Ok(Some((headers, bytes)))
    }

    fn assembled(&self, layer: &Layer, parts: &Parts, plan: &chunked::Plan) -> Result<Outcome, Error> {
        let mut out = Hashing::new(self.lease.layer_writer(&parts.hints, WriterOptions::default())?);
        let fail = |error| Error::Write { path: self.store.path().to_owned(), error };
        let parted = parts.parted(self.source.as_ref(), &layer.blob);
        match assemble(plan, self.store, parted, self.progress, &mut out, &fail)? {
            Assembled::Whole(stream) => Ok(Outcome::Whole(stream)),
            Assembled::Tar(fetched) => {
                let actual = out.digest();
                if actual != layer.diff_id {
                    let (image, name) = (self.source.name().to_owned(), format!("layer {}", layer.number));
                    let error = Error::WrongLayer { image, layer: name, expected: layer.diff_id, actual };
                    return Ok(Outcome::Wrong(error, fetched));
                }
                LayerWriter::publish(out, &layer.diff_id)?;
                Ok(Outcome::Made(fetched))
            }
        }
    }

    /// Fetches a layer whole.
    fn whole(&self, layer: &Layer, distrust: bool) -> Result<(), Error> {
        let source = self.spooled();
        let blob = self.blob(&source, &layer.blob, format!("layer {}", layer.number));
        self.persistently(&blob, || self.decode(&blob, &layer.diff_id, distrust))
    }

    /// Tries again what was wrong because an earlier run left something wrong, or if there is another place.
    fn persistently<R>(&self, blob: &Blob, try_it: impl Fn() -> Result<R, Error>) -> Result<R, Error> {
        let digest = &blob.descriptor.digest;
        let mut asked_elsewhere = false;
        loop {
            match try_it() {
                Ok(made) => {
                    self.resumed.fetch_add(self.source.forget(digest), Ordering::Relaxed);
                    return Ok(made);
                }
                // Half of the right bytes are of use to the next run; wrong ones are not.
                Err(error) if !is_wrong(&error) || self.progress.stop.raised() => return Err(error),
                Err(error) => {
                    if self.source.forget(digest) > 0 {
                        continue;
                    }
                    let bytes = matches!(error, Error::WrongBlob { .. });
                    if asked_elsewhere || !bytes || !self.source.distrust(&blob.descriptor) {
                        return Err(error);
                    }
                    asked_elsewhere = true;
                }
            }
        }
    }

    /// A blob that is a layer, into the store.
    fn decode(&self, blob: &Blob, diff_id: &Digest, distrust: bool) -> Result<(), Error> {
        let content = layers::Content::open(blob)?;
        self.decode_content(blob, content, diff_id, distrust)
    }

    fn decode_content(
        &self,
        blob: &Blob,
        content: layers::Content,
        diff_id: &Digest,
        distrust: bool,
    ) -> Result<(), Error> {
        let options = WriterOptions { distrust, ..WriterOptions::default() };
        ingest(self.lease, blob, content, diff_id, self.environment.archive_limits, options)
    }

    /// A layer of another image, into the store.
    fn import(&self, other: &Image, number: usize) -> Result<(), Error> {
        let blob = other.layer(number, self.progress);
        self.decode(&blob, &other.config.diff_ids()[number], false)
    }

    fn try_delta(
        &self,
        job: &Job,
        layer: &Layer,
        deltas: &Deltas,
        content: &Content,
        opened: &Opened,
    ) -> Result<Payload, Error> {
        let ready = opened
            .as_ref()
            .map_err(|reason| Error::BadImage { image: deltas.name.clone(), reason: reason.clone() })?;
        let source = self.spooled();
        let blob = self.blob(&source, &content.blob, format!("content for layer {}", layer.number));
        let made = self.persistently(&blob, || self.delta(job, layer, deltas, content, ready, &blob));
        if made.as_ref().is_err_and(|error| !is_ours(error)) {
            // The layer comes whole now, so nobody will go on with this.
            self.source.forget(&content.blob.digest);
        }
        made
    }

    fn delta(
        &self,
        job: &Job,
        layer: &Layer,
        deltas: &Deltas,
        content: &Content,
        ready: &Ready,
        blob: &Blob,
    ) -> Result<Payload, Error> {
        let opened = layers::Content::open(blob)?;
        let payload = if deltas.dialect == Dialect::Balena { Payload::Rsync } else { opened.payload() };
        if payload == Payload::Layer {
            self.decode_content(blob, opened, &layer.diff_id, false)?;
            return Ok(payload);
        }
        // Layers side by side share the threads.
        let made = job.plan.ways.iter().filter(|way| matches!(way, Way::Delta(_))).count();
        let threads = NonZeroUsize::new(self.request.threads.get() / made.max(1));
        let maker = Maker {
            delta: &deltas.name,
            old: OldFiles::Layers(&ready.old),
            threads: threads.unwrap_or(NonZeroUsize::MIN),
            stop: &self.progress.stop,
            limits: self.request.limits,
            native_limits: self.request.native_limits,
        };
        let making = Making {
            number: layer.number,
            layer: &layer.blob,
            blob,
            payload,
            size: content.size,
            from: content.from,
            diff_id: layer.diff_id,
        };
        let mut out = Hashing::new(self.lease.layer_writer(&ready.hints, WriterOptions::default())?);
        let fail = |error| Error::Write { path: self.store.path().to_owned(), error };
        maker.make(&making, opened, &mut out, &fail)?;
        LayerWriter::publish(out, &layer.diff_id)?;
        Ok(payload)
    }
}

/// Whether it is this machine that failed: no other way to the layer would help.
pub(super) fn is_ours(error: &Error) -> bool {
    matches!(error, Error::Cancelled | Error::Write { .. } | Error::Temporary { .. } | Error::Store(_))
}

/// Whether the bytes of a blob are the reason.
fn is_wrong(error: &Error) -> bool {
    matches!(error, Error::WrongBlob { .. } | Error::Layer { .. } | Error::WrongLayer { .. })
}
