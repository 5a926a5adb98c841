//! Which old content each new file is matched against.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::scan::{Scan, Target};
use super::{DiffError, Options};
use crate::matching::pairing::{Names, OldName};
use crate::matching::sample::{self, SampleIndex, Sampler, Votes};
use crate::observe::{Observer, Stage};
use crate::source::Tree;
use crate::tardiff::MAX_PATH;
use crate::{ReadAt, Section};

/// An old file that a delta may open.
pub(super) struct OldSource<'a> {
    /// Trusted paths that are allowed by the options; at least one.
    pub paths: Vec<&'a [u8]>,
    pub size: u64,
    pub hash: [u8; 32],
    pub content: Section<'a>,
}

/// The old files that options and the format allow as sources.
pub(super) fn sources<'a>(tree: &'a Tree, old: &[&'a dyn ReadAt], options: &Options) -> Vec<OldSource<'a>> {
    const WORLD_READ: i64 = 0o004;
    let below = |path: &[u8], prefix: &[u8]| {
        path.strip_prefix(prefix).is_some_and(|rest| {
            prefix.is_empty() || prefix.ends_with(b"/") || rest.is_empty() || rest.starts_with(b"/")
        })
    };
    let allowed = |path: &[u8]| {
        path.len() as u64 <= MAX_PATH
            && !options.ignore_prefixes.iter().any(|p| below(path, p))
            && (options.source_prefixes.is_empty() || options.source_prefixes.iter().any(|p| below(path, p)))
    };
    tree.files()
        .iter()
        .enumerate()
        .filter(|(_, f)| f.size > 0 && (options.any_mode || f.mode & WORLD_READ != 0))
        .filter_map(|(i, f)| {
            let paths: Vec<&[u8]> = tree.trusted_paths(i).filter(|p| allowed(p)).collect();
            let content = Section::new(old[f.layer], f.offset, f.size);
            (!paths.is_empty()).then_some(OldSource { paths, size: f.size, hash: f.hash, content })
        })
        .collect()
}

/// What becomes of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    /// Copy of source `source`, opened by its path number `path`.
    Identical { source: usize, path: usize },
    /// Worth a search for old content.
    Search,
    /// Literal bytes.
    Literal,
}

/// A run of old bytes that is part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub source: usize,
    pub offset: u64,
    pub len: usize,
}

/// Knows all old files by content, by name and by likeness.
pub(super) struct Planner<'a> {
    pub sources: &'a [OldSource<'a>],
    targets: &'a [Target],
    by_hash: HashMap<([u8; 32], u64), Vec<usize>>,
    names: Names<'a>,
    samples: SampleIndex,
    /// Bytes of old text for one search.
    max_text: u64,
    /// Old files that make up one text, at most.
    candidates: usize,
    /// See [`super::effort::Means::joins`].
    joins: u32,
    /// A plan for each target.
    pub plans: Vec<Plan>,
}

/// Old files below this size may join a text by name alone.
const SMALL: u64 = 1 << 20;

impl<'a> Planner<'a> {
    pub(super) fn new(
        sources: &'a [OldSource<'a>],
        scan: &'a Scan,
        options: &Options,
        observer: &dyn Observer,
    ) -> Result<Self, DiffError> {
        let mut by_hash: HashMap<_, Vec<usize>> = HashMap::new();
        for (i, s) in sources.iter().enumerate() {
            by_hash.entry((s.hash, s.size)).or_default().push(i);
        }
        let names: Vec<OldName<'a>> =
            sources.iter().map(|s| OldName { paths: s.paths.clone(), size: s.size }).collect();
        let mut planner = Planner {
            sources,
            targets: &scan.targets,
            by_hash,
            names: Names::new(&names),
            samples: SampleIndex::default(),
            max_text: text_budget(options.memory),
            candidates: options.effort.means().candidates,
            joins: options.effort.means().joins,
            plans: Vec::new(),
        };
        planner.plans = planner.targets.iter().map(|t| planner.plan(t)).collect();
        if planner.plans.contains(&Plan::Search) {
            planner.samples = sample_all(sources, options, observer)?;
        }
        Ok(planner)
    }

    fn plan(&self, target: &Target) -> Plan {
        let identical = target.hash.and_then(|h| self.by_hash.get(&(h, target.size)));
        if let Some(same) = identical {
            // The target's own path was just written in its header: the cheapest path to open.
            let own = same.iter().find_map(|&source| {
                let path =
                    self.sources[source].paths.iter().position(|p| target.paths.iter().any(|t| t == p))?;
                Some(Plan::Identical { source, path })
            });
            let plan = own.unwrap_or(Plan::Identical { source: same[0], path: 0 });
            if let Plan::Identical { source, path } = plan
                && target.size > open_cost(self.sources[source].paths[path], own.is_some())
            {
                return plan;
            }
            return Plan::Literal;
        }
        if target.size <= 32 || self.sources.is_empty() { Plan::Literal } else { Plan::Search }
    }

    /// Which path of a source to open for a target: the target's own if it is one of them.
    pub(super) fn open_path(&self, source: usize, target: usize) -> usize {
        let wanted = &self.targets[target].paths;
        self.sources[source].paths.iter().position(|p| wanted.iter().any(|t| t == p)).unwrap_or(0)
    }

    /// The old text for `content`, a piece of target `target` that starts at `offset` in it.
    pub(super) fn text(&self, target: usize, offset: u64, content: &[u8]) -> Vec<Segment> {
        let target = &self.targets[target];
        let paths: Vec<&[u8]> = target.paths.iter().map(Vec::as_slice).collect();
        let named = self.names.candidates(&paths, target.size, 2);
        let first = named.first().map(|&s| s as u32);
        let (votes, _) =
            self.samples.cover(content, first, self.candidates, |samples| (samples / self.joins).max(2));
        let voted = |source: usize| votes.iter().find(|v| v.file as usize == source);
        let mut chosen: Vec<usize> = votes.iter().map(|v| v.file as usize).collect();
        // Small files may be too short for samples: a second name costs little.
        if votes.iter().all(|v| v.votes == 0) {
            chosen.extend(named.iter().skip(1).filter(|&&s| self.sources[s].size < SMALL));
        }
        self.fit(&chosen, offset..offset + content.len() as u64, voted)
    }

    /// Cuts candidates down to the text budget: whole files while they fit, else the windows with most votes.
    fn fit<'v>(
        &self,
        chosen: &[usize],
        wanted: Range<u64>,
        voted: impl Fn(usize) -> Option<&'v Votes>,
    ) -> Vec<Segment> {
        // Sorting a large text for a small piece would cost more than it can save.
        let mut left = self.max_text.min((4 << 20) + (wanted.end - wanted.start) * 8);
        let mut text = Vec::new();
        for &source in chosen {
            let size = self.sources[source].size;
            if size <= left {
                text.push(Segment { source, offset: 0, len: size as usize });
                left -= size;
            } else if let Some(votes) = voted(source) {
                let windows = best_windows(votes, &wanted, size, left);
                left -= windows.iter().map(|w| w.end - w.start).sum::<u64>();
                text.extend(windows.into_iter().map(|w| Segment {
                    source,
                    offset: w.start,
                    len: (w.end - w.start) as usize,
                }));
            }
        }
        text
    }
}

/// Bytes of old text that one search may use: a suffix array takes seven times that.
pub(super) fn text_budget(memory: u64) -> u64 {
    (memory / 10).clamp(1 << 20, i32::MAX as u64 - 64)
}

/// About what OPEN and COPY cost in the delta, in bytes.
fn open_cost(path: &[u8], just_written: bool) -> u64 {
    if just_written { 12 } else { path.len() as u64 + 4 }
}

/// Windows of a file, ascending, joined, at most `budget` bytes: those with most votes and their neighbours, but from
/// half the budget on first those at the place that the new content has in its own file.
fn best_windows(votes: &Votes, wanted: &Range<u64>, size: u64, budget: u64) -> Vec<Range<u64>> {
    let margin = budget / 16;
    let near = wanted.start.saturating_sub(margin)..(wanted.end + margin).min(size);
    let near = SampleIndex::place(near.start)..SampleIndex::place(near.end) + 1;
    let mut order: Vec<(u32, u32)> = votes.places.iter().map(|&(place, n)| (n, place)).collect();
    order.sort_by_key(|&(n, place)| (std::cmp::Reverse(n), place));
    let voted = order.iter().flat_map(|&(_, p)| [p, p.saturating_add(1), p.saturating_sub(1)]);
    let half = ((budget / 2) >> SampleIndex::PLACE_LOG) as usize;
    let mut first = std::collections::HashSet::new();
    let around = voted.clone().filter(|&p| first.insert(p)).take(half).chain(near).chain(voted);
    let mut taken = std::collections::BTreeSet::new();
    let mut left = budget;
    for place in around {
        let range = SampleIndex::place_range(place);
        let len = range.end.min(size).saturating_sub(range.start);
        if len > left {
            break;
        }
        if len > 0 && taken.insert(place) {
            left -= len;
        }
    }
    let mut out: Vec<Range<u64>> = Vec::new();
    for place in taken {
        let range = SampleIndex::place_range(place);
        match out.last_mut().filter(|w| w.end == range.start) {
            Some(w) => w.end = range.end.min(size),
            None => out.push(range.start..range.end.min(size)),
        }
    }
    out
}

/// Samples every source, on all threads.
fn sample_all(
    sources: &[OldSource<'_>],
    options: &Options,
    observer: &dyn Observer,
) -> Result<SampleIndex, DiffError> {
    let total: u64 = sources.iter().map(|s| s.size).sum();
    let density = sample::density(total);
    let next = AtomicUsize::new(0);
    let shared = Mutex::new((Vec::new(), 0u64, None));
    let work = || {
        let mut buf = vec![0; 1 << 17];
        while let Some((i, source)) = take(sources, &next) {
            let mut sampler = Sampler::new(i as u32, density);
            let mut at = 0;
            let mut failed = None;
            while at < source.size && failed.is_none() {
                let n = (source.size - at).min(buf.len() as u64) as usize;
                match source.content.read_exact_at(at, &mut buf[..n]) {
                    Ok(()) => sampler.update(&buf[..n]),
                    Err(e) => failed = Some(DiffError::Read(e)),
                }
                at += n as u64;
                if observer.cancelled() {
                    failed = Some(DiffError::Cancelled);
                }
            }
            let mut state = shared.lock().unwrap_or_else(|e| e.into_inner());
            state.0.extend(sampler.finish());
            state.1 += source.size;
            observer.progress(Stage::Index, state.1, total);
            if failed.is_some() {
                state.2 = failed;
                next.store(usize::MAX / 2, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.threads.get() {
            scope.spawn(work);
        }
        work();
    });
    let (samples, _, failed) = shared.into_inner().unwrap_or_else(|e| e.into_inner());
    match failed {
        Some(e) => Err(e),
        // Sorted, so the order in which threads delivered does not matter.
        None => Ok(SampleIndex::new(samples, density)),
    }
}

fn take<'s, T>(items: &'s [T], next: &AtomicUsize) -> Option<(usize, &'s T)> {
    let i = next.fetch_add(1, Ordering::Relaxed);
    Some((i, items.get(i)?))
}
