//! How the encoders choose literals and matches (`docs/formats/native-delta.md`, section 8.3).

use super::blocks::Blocks;
use super::{Encoder, Family, Stop};

const WINDOW: usize = 1 << 15;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;
/// Farthest match: what lies behind may be gone when the window slides.
const MAX_DISTANCE: usize = WINDOW - MAX_MATCH - MIN_MATCH - 1;
/// A match of three bytes from farther away costs more than the literals.
const TOO_FAR: usize = 4096;

/// Longest match that filtered data are not given.
const FILTERED_MIN: usize = 5;

/// What a level means.
struct Level {
    /// From this length of the match before on, a quarter of the chain is enough.
    good: usize,
    /// Matches from this length on are taken at once (lazy), or not entered into the chains (fast).
    lazy: usize,
    /// A match of this length ends the search.
    nice: usize,
    /// Steps of one search.
    chain: u32,
    /// Whether a match must be no worse than the one a byte later.
    slow: bool,
}

/// Levels 1 to 9.
const LEVELS: [Level; 9] = [
    Level { good: 4, lazy: 4, nice: 8, chain: 4, slow: false },
    Level { good: 4, lazy: 5, nice: 16, chain: 8, slow: false },
    Level { good: 4, lazy: 6, nice: 32, chain: 32, slow: false },
    Level { good: 4, lazy: 4, nice: 16, chain: 16, slow: true },
    Level { good: 8, lazy: 16, nice: 32, chain: 32, slow: true },
    Level { good: 8, lazy: 16, nice: 128, chain: 128, slow: true },
    Level { good: 8, lazy: 32, nice: 128, chain: 256, slow: true },
    Level { good: 32, lazy: 128, nice: 258, chain: 1024, slow: true },
    Level { good: 32, lazy: 258, nice: 258, chain: 4096, slow: true },
];

/// Makes a deflate stream. `agrees` sees what there is after each block and may stop it.
pub(super) fn deflate(
    content: &[u8],
    encoder: Encoder,
    work: u64,
    agrees: impl FnMut(&[u8]) -> bool,
) -> Result<Vec<u8>, Stop> {
    let hash_bits = match encoder.family {
        Family::Zlib | Family::Filtered => u32::from(encoder.mem_level) + 7,
        Family::Gzip => 15,
    };
    let level = &LEVELS[usize::from(encoder.level) - 1];
    let mut matcher = Matcher {
        content,
        level,
        gzip: encoder.family == Family::Gzip,
        filtered: encoder.family == Family::Filtered,
        hash_shift: hash_bits.div_ceil(MIN_MATCH as u32),
        hash_mask: (1 << hash_bits) - 1,
        head: vec![0; 1 << hash_bits],
        older: vec![0; WINDOW],
        work,
        blocks: Blocks::new(encoder),
        agrees,
        block_start: 0,
    };
    if level.slow {
        matcher.lazy()?
    } else {
        matcher.fast()?
    }
    matcher.flush(content.len(), true)?;
    Ok(matcher.blocks.finish())
}

struct Matcher<'c, F> {
    content: &'c [u8],
    level: &'static Level,
    gzip: bool,
    /// Matches of up to `FILTERED_MIN` bytes are not worth it.
    filtered: bool,
    hash_shift: u32,
    hash_mask: u32,
    /// Latest position of each hash. 0 is none: a match never starts at the first byte.
    head: Vec<u32>,
    /// The position before, of the same hash, by position modulo the window.
    older: Vec<u32>,
    work: u64,
    blocks: Blocks,
    agrees: F,
    block_start: usize,
}

impl<F: FnMut(&[u8]) -> bool> Matcher<'_, F> {
    /// Levels 1 to 3: takes what it finds.
    fn fast(&mut self) -> Result<(), Stop> {
        let mut at = 0;
        while at < self.content.len() {
            let candidate = self.insert(at);
            let found = match candidate {
                0 => None,
                c if at - c > MAX_DISTANCE => None,
                c => self.longest(at, c, MIN_MATCH - 1)?,
            };
            let full;
            match found.filter(|m| m.1 >= MIN_MATCH) {
                Some((from, len)) => {
                    full = self.blocks.copy(at - from, len, at - self.block_start);
                    // The position of the next look-up enters the chains there.
                    let enter =
                        len <= self.level.lazy && (self.gzip || self.content.len() - at - len >= MIN_MATCH);
                    if enter {
                        for i in at + 1..at + len {
                            self.insert(i);
                        }
                    }
                    at += len;
                }
                None => {
                    full = self.blocks.literal(self.content[at], at - self.block_start);
                    at += 1;
                }
            }
            if full {
                self.flush(at, false)?;
            }
        }
        Ok(())
    }

    /// Levels 4 to 9: a match waits for the one a byte later.
    fn lazy(&mut self) -> Result<(), Stop> {
        let mut at = 0;
        let (mut len, mut from) = (MIN_MATCH - 1, 0);
        let mut waiting = false;
        while at < self.content.len() {
            let candidate = self.insert(at);
            let (before_len, before_from) = (len, from);
            len = MIN_MATCH - 1;
            if candidate != 0 && before_len < self.level.lazy && at - candidate <= MAX_DISTANCE {
                if let Some(found) = self.longest(at, candidate, before_len)? {
                    (from, len) = found;
                } else {
                    len = before_len.min(self.content.len() - at);
                }
                if len == MIN_MATCH && at - from > TOO_FAR || self.filtered && len <= FILTERED_MIN {
                    len = MIN_MATCH - 1;
                }
            }
            if before_len >= MIN_MATCH && len <= before_len {
                let full = self.blocks.copy(at - 1 - before_from, before_len, at - self.block_start);
                for i in at + 1..at - 1 + before_len {
                    self.insert(i);
                }
                at += before_len - 1;
                waiting = false;
                len = MIN_MATCH - 1;
                if full {
                    self.flush(at, false)?;
                }
            } else {
                if waiting && self.blocks.literal(self.content[at - 1], at - self.block_start) {
                    self.flush(at, false)?;
                }
                waiting = true;
                at += 1;
            }
        }
        if waiting {
            self.blocks.literal(self.content[at - 1], at - self.block_start);
        }
        Ok(())
    }

    /// Enters a position into the chains; the one that was latest before, or 0.
    fn insert(&mut self, at: usize) -> usize {
        let byte = |i: usize| self.content.get(at + i).copied().map_or(0, u32::from);
        if !self.gzip && self.content.len() - at < MIN_MATCH {
            return 0;
        }
        let hash = byte(0) << (2 * self.hash_shift) ^ byte(1) << self.hash_shift ^ byte(2);
        let slot = &mut self.head[(hash & self.hash_mask) as usize];
        let before = *slot;
        self.older[at % WINDOW] = before;
        *slot = at as u32;
        before as usize
    }

    /// The longest match of more than `least` bytes along a chain.
    fn longest(&mut self, at: usize, first: usize, least: usize) -> Result<Option<(usize, usize)>, Stop> {
        let content = self.content;
        let left = content.len() - at;
        let most = left.min(MAX_MATCH);
        let limit = at.saturating_sub(MAX_DISTANCE);
        let mut steps = if least >= self.level.good { self.level.chain >> 2 } else { self.level.chain };
        let nice = if self.gzip { self.level.nice } else { self.level.nice.min(left) };
        let (mut best, mut candidate) = (None, first);
        let mut len = least;
        let mut spent = 0;
        loop {
            spent += 1;
            // Bytes beyond the end never agree, so no match is longer than what is left.
            if len < most
                && content[candidate + len] == content[at + len]
                && content[candidate..candidate + 2] == content[at..at + 2]
            {
                let here = crate::matching::common_prefix(&content[candidate..], &content[at..at + most]);
                spent += here as u64 / 32;
                if here > len {
                    best = Some((candidate, here));
                    len = here;
                    if here >= nice {
                        break;
                    }
                }
            }
            candidate = self.older[candidate % WINDOW] as usize;
            steps -= 1;
            if candidate <= limit || steps == 0 {
                break;
            }
        }
        self.work = self.work.checked_sub(spent).ok_or(Stop::TooMuchWork)?;
        Ok(best)
    }

    fn flush(&mut self, at: usize, last: bool) -> Result<(), Stop> {
        self.blocks.flush(&self.content[self.block_start..at], last);
        self.block_start = at;
        if (self.agrees)(self.blocks.complete()) { Ok(()) } else { Err(Stop::Differs) }
    }
}
