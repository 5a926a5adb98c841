//! What each effort means. `docs/design/0004-matching-by-price.md` has the measurements.

use crate::compress::Tuning;
use crate::delta::Effort;

/// How exact matches are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// By a table of blocks of so many bytes.
    Blocks(usize),
    /// By suffix array.
    Suffixes,
}

/// What an effort stands for.
#[derive(Debug)]
pub(super) struct Means {
    pub finding: Finding,
    /// Positions between two searches for an exact match.
    pub stride: usize,
    /// Old files that one new file is matched against, at most.
    pub candidates: usize,
    /// A further old file joins if it has one in so many of the samples of a new file that no other has.
    pub joins: u32,
    /// libzstd level of the operation stream, and details in its place.
    pub stream_level: i32,
    pub stream_tuning: Option<Tuning>,
    /// libzstd level of ZSTDDICT frames.
    pub patch_level: i32,
}

const fn row(finding: Finding, stride: usize, candidates: usize, joins: u32) -> Means {
    Means { finding, stride, candidates, joins, stream_level: 3, stream_tuning: None, patch_level: 3 }
}

impl Means {
    const fn level(self, stream: i32, patch: i32) -> Means {
        Means { stream_level: stream, patch_level: patch, ..self }
    }

    const fn tuned(self, two_passes: bool, search_log: u32, target_length: u32) -> Means {
        Means { stream_tuning: Some(Tuning { two_passes, search_log, target_length }), ..self }
    }
}

const MEANS: [Means; 9] = {
    use Finding::{Blocks, Suffixes};
    [
        row(Blocks(32), 1, 1, 10).level(3, 3),
        row(Blocks(16), 1, 2, 10).level(6, 6),
        row(Blocks(8), 1, 2, 10).level(9, 9),
        row(Suffixes, 4, 2, 10).level(16, 12).tuned(false, 3, 256),
        row(Suffixes, 1, 4, 20).level(19, 17).tuned(false, 5, 999),
        row(Suffixes, 1, 4, 20).level(19, 19).tuned(false, 7, 2048),
        row(Suffixes, 1, 6, 30).level(19, 19).tuned(true, 7, 999),
        row(Suffixes, 1, 8, 40).level(22, 22).tuned(true, 8, 2048),
        row(Suffixes, 1, 8, 40).level(22, 22).tuned(true, 9, 4095),
    ]
};

/// What `effort` stands for.
pub(super) fn means(effort: Effort) -> &'static Means {
    &MEANS[usize::from(effort.number()) - 1]
}
