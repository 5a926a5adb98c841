//! What each effort means. `docs/design/0004-matching-by-price.md` has the measurements.

use crate::compress::Tuning;

/// The work that goes into a smaller delta: 1 is the least, 3 little, 5 the default, 9 the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effort(u8);

impl Effort {
    /// Where bytes and work are in balance.
    pub const DEFAULT: Effort = Effort(5);

    /// The effort of that number, if it is 1 to 9.
    pub fn new(number: u8) -> Option<Self> {
        (1..=9).contains(&number).then_some(Effort(number))
    }

    /// 1 to 9.
    pub fn number(self) -> u8 {
        self.0
    }

    pub(super) fn means(self) -> &'static Means {
        &MEANS[usize::from(self.0) - 1]
    }
}

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

const fn means(finding: Finding, stride: usize, candidates: usize, joins: u32) -> Means {
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
        means(Blocks(32), 1, 1, 10).level(3, 3),
        means(Blocks(16), 1, 2, 10).level(6, 6),
        means(Blocks(8), 1, 2, 10).level(9, 9),
        means(Suffixes, 4, 2, 10).level(16, 9).tuned(false, 3, 256),
        means(Suffixes, 1, 4, 20).level(19, 15).tuned(false, 5, 999),
        means(Suffixes, 1, 4, 20).level(19, 17).tuned(false, 7, 2048),
        means(Suffixes, 1, 6, 30).level(19, 18).tuned(true, 7, 999),
        means(Suffixes, 1, 8, 40).level(22, 19).tuned(true, 8, 2048),
        means(Suffixes, 1, 8, 40).level(22, 22).tuned(true, 9, 4095),
    ]
};
