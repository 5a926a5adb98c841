//! What a position could be matched with (`docs/formats/native-delta.md`, section 8.8.2).

use crate::native::deflate::Stop;

const WINDOW: usize = 1 << 15;
const MAX_MATCH: usize = 258;
const MIN_MATCH: usize = 3;
const HASH_BITS: u32 = 16;

/// Steps of a search and the length that ends it, by number.
pub(super) const DEPTHS: [(u32, usize); 6] =
    [(4, 8), (16, 32), (32, 64), (128, 128), (1024, 258), (4096, 258)];

/// Positions of a content that were seen, by what stands there.
#[derive(Debug)]
pub(super) struct Chains<'c> {
    content: &'c [u8],
    /// Bytes that are hashed for chains, 3 or 4.
    hashed: usize,
    steps: u32,
    nice: usize,
    /// Latest position of each hash, plus 1; the one before with the same hash, by position modulo the window.
    head: Vec<u32>,
    older: Vec<u32>,
    /// Latest position of each hash of 3 bytes, plus 1, where chains are of 4.
    near: Vec<u32>,
    /// Positions before this one are entered.
    entered: usize,
    work: u64,
}

/// A match that could be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Offer {
    pub len: usize,
    pub distance: usize,
}

/// Matches at a position, the longest last, each with the shortest distance for more than the one before has.
#[derive(Debug, Default, Clone)]
pub(super) struct Offers {
    pub all: Vec<Offer>,
}

impl Offers {
    /// The longest, or nothing.
    pub(super) fn best(&self) -> Offer {
        self.all.last().copied().unwrap_or_default()
    }
}

impl<'c> Chains<'c> {
    pub(super) fn new(content: &'c [u8], hashed: usize, depth: usize, work: u64) -> Self {
        let (steps, nice) = DEPTHS[depth];
        Chains {
            content,
            hashed,
            steps,
            nice,
            head: vec![0; 1 << HASH_BITS],
            older: vec![0; WINDOW],
            near: vec![0; if hashed == 4 { 1 << HASH_BITS } else { 0 }],
            entered: 0,
            work,
        }
    }

    /// The content that positions are of.
    pub(super) fn content(&self) -> &'c [u8] {
        self.content
    }

    fn hash(&self, at: usize, n: usize) -> usize {
        let b = &self.content[at..at + n];
        let low = u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16;
        let value = if n == 4 { low | u32::from(b[3]) << 24 } else { low };
        (value.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
    }

    /// Enters all positions before `at`.
    fn enter(&mut self, at: usize) {
        while self.entered < at {
            let i = self.entered;
            self.entered += 1;
            if i + self.hashed <= self.content.len() {
                let hash = self.hash(i, self.hashed);
                self.older[i % WINDOW] = std::mem::replace(&mut self.head[hash], i as u32 + 1);
            }
            if self.hashed == 4 && i + MIN_MATCH <= self.content.len() {
                let hash = self.hash(i, MIN_MATCH);
                self.near[hash] = i as u32 + 1;
            }
        }
    }

    fn spend(&mut self, steps: u64) -> Result<(), Stop> {
        self.work = self.work.checked_sub(steps).ok_or(Stop::TooMuchWork)?;
        Ok(())
    }

    /// Bytes on which a position agrees with `at`.
    fn agree(&self, from: usize, at: usize) -> usize {
        let most = (self.content.len() - at).min(MAX_MATCH);
        crate::matching::common_prefix(&self.content[from..], &self.content[at..at + most])
    }

    /// The first position of the chain for `at`, and those behind it, by what was entered at last.
    fn first(&self, at: usize) -> usize {
        if at + self.hashed > self.content.len() { 0 } else { self.head[self.hash(at, self.hashed)] as usize }
    }

    /// What matches at `at`, which is the position behind the last one entered or later.
    pub(super) fn offers(&mut self, at: usize, out: &mut Offers) -> Result<(), Stop> {
        out.all.clear();
        self.enter(at);
        let most = (self.content.len() - at).min(MAX_MATCH);
        if most < MIN_MATCH {
            return Ok(());
        }
        let (mut best, mut spent) = (MIN_MATCH - 1, 0);
        if self.hashed == 4 {
            let near = self.near[self.hash(at, MIN_MATCH)] as usize;
            spent += 1;
            if near > 0 && at - (near - 1) <= WINDOW {
                let len = self.agree(near - 1, at);
                if len > best {
                    out.all.push(Offer { len, distance: at - (near - 1) });
                    best = len;
                }
            }
        }
        let mut candidate = self.first(at);
        let mut steps = self.steps;
        while candidate > 0 && at - (candidate - 1) <= WINDOW && steps > 0 && best < self.nice.min(most) {
            let from = candidate - 1;
            (steps, spent) = (steps - 1, spent + 1);
            if self.content[from + best] == self.content[at + best] {
                let len = self.agree(from, at);
                spent += len as u64 / 32;
                if len > best {
                    out.all.push(Offer { len, distance: at - from });
                    best = len;
                }
            }
            candidate = self.older[from % WINDOW] as usize;
        }
        self.spend(spent)
    }

    /// Positions of the chain for `at` that agree on at least `len` bytes, the nearest first: `visit` gets their
    /// distances until it returns true. The distance with which that was, if any.
    pub(super) fn walk(
        &mut self,
        at: usize,
        len: usize,
        mut visit: impl FnMut(usize) -> bool,
    ) -> Result<Option<usize>, Stop> {
        self.enter(at);
        let mut candidate = self.first(at);
        // `at` itself may have been entered.
        if candidate > at {
            candidate = self.older[at % WINDOW] as usize;
        }
        while candidate > 0 && at - (candidate - 1) <= WINDOW {
            let from = candidate - 1;
            let agree = self.agree(from, at);
            self.spend(1 + agree as u64 / 32)?;
            if agree >= len && visit(at - from) {
                return Ok(Some(at - from));
            }
            if at - from == WINDOW {
                break;
            }
            candidate = self.older[from % WINDOW] as usize;
        }
        Ok(None)
    }
}
