//! Which old content each new file is matched against.

use std::collections::HashMap;
use std::ops::Range;

use super::effort::means;
use super::scan::{Scan, Target};
use super::{DiffError, Method, Options};
use crate::delta::likeness::{self, SMALL, Segment};
use crate::matching::pairing::{Names, OldName};
use crate::matching::sample::SampleIndex;
use crate::observe::Observer;
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
            && (!options.utf8_names || std::str::from_utf8(path).is_ok())
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

/// Knows all old files by content, by name and by likeness.
pub(super) struct Planner<'a> {
    pub sources: &'a [OldSource<'a>],
    targets: &'a [Target],
    by_hash: HashMap<([u8; 32], u64), Vec<usize>>,
    names: Names<'a>,
    samples: SampleIndex,
    /// Samples of the targets that are searched for, each under its number, where there is a choice between operations
    /// and patches.
    new_samples: SampleIndex,
    /// Bytes of old text for one search.
    max_text: u64,
    /// Old files that make up one text, at most.
    candidates: usize,
    /// See [`super::effort::Means::joins`].
    joins: u32,
    /// A plan for each target.
    pub plans: Vec<Plan>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(
        sources: &'a [OldSource<'a>],
        new: &dyn ReadAt,
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
            new_samples: SampleIndex::default(),
            max_text: text_budget(options.memory),
            candidates: means(options.effort).candidates,
            joins: means(options.effort).joins,
            plans: Vec::new(),
        };
        planner.plans = planner.targets.iter().map(|t| planner.plan(t)).collect();
        if planner.plans.contains(&Plan::Search) {
            let files: Vec<Section<'_>> = sources.iter().map(|s| s.content).collect();
            planner.samples = likeness::sample_all(&files, options.threads, observer)?;
            if options.method == Method::Smallest {
                let searched = |(t, plan): (&Target, &Plan)| match plan {
                    Plan::Search => Section::new(new, t.offset, t.size),
                    _ => Section::new(new, t.offset, 0),
                };
                let files: Vec<Section<'_>> =
                    planner.targets.iter().zip(&planner.plans).map(searched).collect();
                planner.new_samples = likeness::sample_all(&files, options.threads, observer)?;
            }
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

    /// Of the samples of a target that lie outside of the `known` stretches of its content: how many there are, and how
    /// many of them other changed files have, too.
    pub(super) fn shared(
        &self,
        target: usize,
        content: &[u8],
        known: impl IntoIterator<Item = Range<usize>>,
    ) -> (u32, u32) {
        self.new_samples.elsewhere(content, known, target as u32)
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
        let wanted = offset..offset + content.len() as u64;
        let windows = |source: usize, left| match voted(source) {
            Some(votes) => likeness::windows(votes, &wanted, self.sources[source].size, left),
            None => Vec::new(),
        };
        let sizes = chosen.iter().map(|&source| (source, self.sources[source].size));
        likeness::fit(sizes, content.len() as u64, self.max_text, windows)
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
