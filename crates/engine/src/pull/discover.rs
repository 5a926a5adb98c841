//! What deltas there are for an image. Nothing that goes wrong here is a reason to fail: there is always the whole layer.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use coracle_codec::artifact::{DELTA_INDEX, Dialect, annotation, flatpak};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Limits};

use crate::artifact::list::layer_deltas;
use crate::image::Source;
use crate::image::stop::Stop;

/// What a look for deltas may take, all repetitions included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Entries of a list that are looked at; the smallest of them are used.
const MAX_ENTRIES: usize = 4096;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Deltas between images, smallest first, those of unknown size last.
    pub(super) pairs: Vec<Pair>,
    /// Deltas between layers.
    pub(super) layers: Vec<flatpak::LayerDelta>,
    /// Why something could not be looked at.
    pub(super) problems: Vec<String>,
}

/// A delta between images, as a list has it.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) entry: Descriptor,
    /// Digest of the source's manifest, if the list says.
    pub(super) source: Option<Digest>,
    /// Digest of the source's config, if the list says.
    pub(super) source_config: Option<Digest>,
    /// Bytes of its content, if the list says.
    pub(super) bytes: Option<u64>,
}

impl Pair {
    fn of(entry: Descriptor) -> Option<Self> {
        let dialect = Dialect::of_artifact_type(entry.artifact_type.as_deref()?)?;
        let said = |name: &str| dialect.said(&entry, name).and_then(|digest| digest.parse().ok());
        let bytes = entry.annotations.get(annotation::SIZE).and_then(|size| size.parse().ok());
        Some(Pair { source: said("source"), source_config: said("source-config"), bytes, entry })
    }
}

/// Looks for deltas to `target`: in the list of referrers, which is the registry's own or the one under the fallback tag,
/// and under `_deltaindex`, at the same time. Takes at most three requests if there is nothing.
pub(super) fn discover(source: &Arc<dyn Source>, target: &Digest, limits: &Limits) -> Found {
    std::thread::scope(|scope| {
        let layers = scope.spawn(|| layer_deltas(source.as_ref(), target, limits));
        let mut found = Found::default();
        match source.referrers(target, None) {
            Ok(entries) => {
                found.pairs = entries.into_iter().take(MAX_ENTRIES).filter_map(Pair::of).collect();
            }
            Err(error) => found.problems.push(format!("deltas could not be looked for: {error}")),
        }
        match layers.join() {
            Ok(Ok(layers)) => found.layers = layers,
            Ok(Err(error)) => found.problems.push(format!("{DELTA_INDEX} could not be read: {error}")),
            Err(_) => found.problems.push(format!("{DELTA_INDEX} could not be read")),
        }
        found.pairs.sort_by_key(|pair| pair.bytes.unwrap_or(u64::MAX));
        found
    })
}

/// Does `work`, and raises `own` when it has taken too long or `stop` is raised.
pub(super) fn patiently<R>(stop: &Stop, own: &Stop, work: impl FnOnce() -> R) -> R {
    let (over, ended) = mpsc::channel::<()>();
    let deadline = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while ended.recv_timeout(Duration::from_millis(40)) == Err(RecvTimeoutError::Timeout) {
                if stop.raised() || Instant::now() > deadline {
                    own.raise();
                }
            }
        });
        let result = work();
        drop(over);
        result
    })
}
