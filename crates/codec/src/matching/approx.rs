//! Approximate matches: long stretches of old content that agree with new content but for some bytes.
//!
//! bsdiff (Colin Percival, "Naive differences of executable code", 2003) decides greedily when to leave one stretch for
//! another. Here every decision has a price, an estimate of the bytes it adds to the compressed delta, and the
//! cheapest way through the new content wins. One pass keeps, for each position, the cheapest way to have come so
//! far, and the stretches that are worth following from there. An exact match opens a stretch, which may
//! begin earlier, where that makes the whole way cheaper.
//!
//! Differences that repeat are cheap: when code moves, the addresses in a table all grow by the same few numbers, and the compressor
//! sees a pattern. Without that in the price, alignments with fewer but irregular differences win and cost twice as
//! much (`docs/design/0004-matching-by-price.md`).

use std::ops::Range;

use super::{Finder, common_prefix};

/// A stretch of new content explained by old content; the bytes need not be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Offset in the new content.
    pub new: usize,
    /// Position in the old text.
    pub old: usize,
    /// Length in bytes.
    pub len: usize,
}

/// What things cost in a compressed delta, in 256ths of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// A byte that agrees with the old one: a share of a long run of zeros.
    pub agree: i64,
    /// A byte that differs.
    pub differ: i64,
    /// A byte that differs as the one before made expect.
    pub foreseen: i64,
    /// Beginning a run of literal bytes: an operation and its size.
    pub begin_literal: i64,
    /// Beginning a stretch: two operations and a size, the distance apart.
    pub begin_stretch: i64,
    /// Each byte of the distance from where the last stretch ended.
    pub distance_byte: i64,
    /// Leaving one old file for another.
    pub change_file: i64,
}

impl Default for Prices {
    /// Found by search, on pairs of every kind.
    fn default() -> Self {
        Prices {
            agree: 4,
            differ: 220,
            foreseen: 40,
            begin_literal: 400,
            begin_stretch: 1200,
            distance_byte: 240,
            change_file: 1200,
        }
    }
}

/// A part of the old text, up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Position behind its last byte.
    pub end: usize,
    /// Which file it is from; several parts may be from one.
    pub file: usize,
}

/// How to look for matches.
#[derive(Clone, Copy)]
pub struct Search<'a> {
    /// After a search that found nothing, go on by so many bytes. 1 finds most.
    pub stride: usize,
    /// What things cost.
    pub prices: Prices,
    /// What a literal byte of some new content costs, in 256ths of a byte. Asked once for each [`BLOCK`].
    pub literal: &'a dyn Fn(&[u8]) -> i64,
}

impl std::fmt::Debug for Search<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("stride", &self.stride).finish_non_exhaustive()
    }
}

/// New content is priced, as literal, in blocks of so many bytes.
pub const BLOCK: usize = 1 << 15;

/// An exact continuation of this length is taken without a look at anything else.
const SKIP: usize = 32;
/// Old stretches that are followed at the same time.
const MOST_ACTIVE: usize = 16;
/// How far a stretch may begin before the exact match that found it, in bytes. A power of two.
const WINDOW: usize = 1 << 13;
/// Exact matches must be longer than this.
const FLOOR: usize = 8;
/// The next search overlaps the match just found by this much: enough context to find what goes on behind its end.
const OVERLAP: usize = 16;
/// How much dearer than the present way a stretch may be while it is followed backward, besides the price of beginning it.
const SLACK: i64 = 8 << 8;
/// The search for the best beginning ends when so many bytes brought nothing.
const PATIENCE: usize = 256;
/// Bytes to go backward for each byte of new content, on average: keeps the scan linear on content that repeats itself.
const BACKWARD: usize = 64;
/// No stretch.
const NONE: u32 = u32::MAX;

/// Covers `new` with stretches of the finder's text, ascending, not overlapping. `parts` make up the text, in order:
/// no stretch goes from one to the next.
///
/// Both sides are shorter than 4 GiB. Memory: 16 bytes for each exact match that is found, about 150 KiB besides.
pub fn matches(finder: &dyn Finder, parts: &[Part], new: &[u8], search: Search<'_>) -> Vec<Match> {
    let start = Way { cost: 0, last: NONE, end: 0 };
    let mut scan = Scan {
        finder,
        text: finder.text(),
        new,
        parts,
        prices: search.prices,
        stretches: Vec::new(),
        active: Vec::with_capacity(MOST_ACTIVE),
        habits: vec![[0; 256]; MOST_ACTIVE],
        free: (0..MOST_ACTIVE as u32).collect(),
        literal: start,
        ways: vec![start; WINDOW],
        gone_back: 0,
        price_literal: search.literal,
        priced: 0..0,
        literal_price: 0,
    };
    scan.run(search.stride);
    scan.best_way()
}

/// A stretch that some way uses.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: u32,
    old: u32,
    /// The stretch before it, and where the way leaves that one. What lies between is literal.
    before: u32,
    before_end: u32,
}

/// The cheapest way to have covered the new content up to some position.
#[derive(Debug, Clone, Copy)]
struct Way {
    cost: i64,
    /// Its last stretch, and where it leaves that.
    last: u32,
    end: u32,
}

/// A stretch that is being followed, with the cheapest way that ends in it.
#[derive(Debug, Clone, Copy)]
struct Active {
    /// Position in the text minus position in the new content.
    shift: isize,
    /// Position in the new content at which a border of the text ends it.
    limit: usize,
    cost: i64,
    id: u32,
    /// The last difference, and the number of the table that knows what follows each difference.
    last: u8,
    habits: u32,
}

struct Scan<'a> {
    finder: &'a dyn Finder,
    text: &'a [u8],
    new: &'a [u8],
    parts: &'a [Part],
    prices: Prices,
    stretches: Vec<Stretch>,
    active: Vec<Active>,
    /// For each stretch in `active`: which difference followed each difference the last time. 0 is none.
    habits: Vec<[u8; 256]>,
    free: Vec<u32>,
    /// The cheapest way that ends in literal bytes.
    literal: Way,
    /// The cheapest ways to the last positions, by position modulo [`WINDOW`].
    ways: Vec<Way>,
    /// Bytes gone backward so far.
    gone_back: usize,
    price_literal: &'a dyn Fn(&[u8]) -> i64,
    /// The block at hand, and what its bytes cost as literals.
    priced: Range<usize>,
    literal_price: i64,
}

impl Scan<'_> {
    fn run(&mut self, stride: usize) {
        let mut at = 0;
        let mut next_search = 0;
        // The alignment of the longest match found last; up to its end no other is looked for.
        let mut awaited = 0;
        let mut found = Vec::new();
        let exact = self.finder.is_exact();
        while at < self.new.len() {
            if let Some(best) = self.active.iter().copied().min_by_key(|a| a.cost)
                && best.cost <= self.literal.cost
            {
                let from = position(at, best.shift);
                let to = position(best.limit, best.shift);
                let run = common_prefix(&self.text[from..to], &self.new[at..]);
                if run >= SKIP {
                    at = self.follow(best, at, run);
                    // Others are given up: one that was found, and would have gone on for longer, has to be found again.
                    next_search = next_search.min(at);
                    continue;
                }
            }
            if at >= next_search {
                let barren = self.finder.barren(&self.new[at..]);
                next_search = at + barren.next_multiple_of(stride).max(stride);
                found.clear();
                if barren == 0 {
                    self.finder.find_several(&self.new[at..], FLOOR, &mut found);
                }
                for &(pos, _) in &found {
                    self.open(at, pos);
                }
                if let Some(&(pos, len)) = found.first() {
                    let len = len.min(self.parts[self.part(pos)].end - pos);
                    next_search = next_search.max((at + len).saturating_sub(OVERLAP));
                    awaited = pos as isize - at as isize;
                }
            }
            self.step(at);
            at += 1;
            if exact && at < next_search && self.active.iter().all(|a| a.shift != awaited) {
                next_search = at;
            }
        }
    }

    /// Goes on by one byte on every way.
    fn step(&mut self, at: usize) {
        let p = self.prices;
        let end = at as u32 + 1;
        let byte = self.new[at];
        if !self.priced.contains(&at) {
            let start = at / BLOCK * BLOCK;
            self.priced = start..(start + BLOCK).min(self.new.len());
            self.literal_price = (self.price_literal)(&self.new[self.priced.clone()]);
        }
        let mut way = Way { cost: self.literal.cost + self.literal_price, ..self.literal };
        self.literal.cost = way.cost;
        for a in &mut self.active {
            let diff = byte.wrapping_sub(self.text[position(at, a.shift)]);
            a.cost += if diff == 0 {
                p.agree
            } else {
                let habit = &mut self.habits[a.habits as usize][usize::from(a.last)];
                let foreseen = *habit == diff;
                *habit = diff;
                a.last = diff;
                if foreseen { p.foreseen } else { p.differ }
            };
            if a.cost < way.cost {
                way = Way { cost: a.cost, last: a.id, end };
            }
            if a.cost + p.begin_literal < self.literal.cost {
                self.literal = Way { cost: a.cost + p.begin_literal, last: a.id, end };
            }
        }
        // A stretch that costs more than to begin it anew has lost.
        let bound = way.cost + p.begin_stretch + 4 * p.distance_byte;
        let free = &mut self.free;
        self.active.retain(|a| {
            let stays = a.limit > at + 1 && a.cost <= bound;
            if !stays {
                free.push(a.habits);
            }
            stays
        });
        self.ways[(at + 1) % WINDOW] = way;
    }

    /// Goes on by `run` bytes that `best` has exactly, on its way alone. Returns the position behind them.
    fn follow(&mut self, best: Active, at: usize, run: usize) -> usize {
        let p = self.prices;
        let end = at + run;
        let cost_at = |k: usize| best.cost + (k - at) as i64 * p.agree;
        for k in (at + 1).max((end + 1).saturating_sub(WINDOW))..=end {
            self.ways[k % WINDOW] = Way { cost: cost_at(k), last: best.id, end: k as u32 };
        }
        self.literal = Way { cost: cost_at(end) + p.begin_literal, last: best.id, end: end as u32 };
        let stays = best.limit > end;
        self.free.extend(self.active.iter().map(|a| a.habits).filter(|&h| !stays || h != best.habits));
        self.active.clear();
        if stays {
            self.active.push(Active { cost: cost_at(end), ..best });
        }
        end
    }

    /// The part that a text position is in.
    fn part(&self, pos: usize) -> usize {
        self.parts.partition_point(|part| part.end <= pos)
    }

    /// Price of beginning a stretch at text position `old` after `way`.
    fn price_to_open(&self, way: &Way, old: usize) -> i64 {
        let p = self.prices;
        let Some(last) = self.stretches.get(way.last as usize) else {
            return p.begin_stretch + 2 * p.distance_byte;
        };
        let cursor = last.old as usize + (way.end - last.start) as usize;
        let file = |pos: usize| self.parts[self.part(pos)].file;
        if self.parts.len() > 1 && file(last.old as usize) != file(old) {
            return p.begin_stretch + p.change_file + 2 * p.distance_byte;
        }
        // Sizes are written in groups of seven bits.
        let distance = cursor.abs_diff(old) as u64;
        let groups = i64::from((u64::BITS - distance.leading_zeros()) / 7 + 1);
        p.begin_stretch + groups * p.distance_byte
    }

    /// Follows from now on the stretch that has `new[at]` at `text[pos]`; it begins where that is cheapest.
    fn open(&mut self, at: usize, pos: usize) {
        let p = self.prices;
        let shift = pos as isize - at as isize;
        if self.active.iter().any(|a| a.shift == shift) {
            return;
        }
        let part = self.part(pos);
        let low = part.checked_sub(1).map_or(0, |before| self.parts[before].end);
        let here = self.ways[at % WINDOW];
        let mut best = (here.cost + self.price_to_open(&here, pos), 0);
        let mut cost = 0;
        // Differences come last to first here, so habits are learned both ways round.
        let mut backward = [0; 256];
        let mut habits = [0; 256];
        let (mut last, mut next) = (0, 0);
        let most = (BACKWARD * at).saturating_sub(self.gone_back).min(WINDOW - 1);
        for back in 1..=(pos - low).min(at).min(most) {
            self.gone_back += 1;
            let diff = self.new[at - back].wrapping_sub(self.text[pos - back]);
            if diff == 0 {
                cost += p.agree;
            } else {
                let habit = &mut backward[usize::from(next)];
                cost += if *habit == diff { p.foreseen } else { p.differ };
                *habit = diff;
                if habits[usize::from(diff)] == 0 {
                    habits[usize::from(diff)] = next;
                }
                next = diff;
                if last == 0 {
                    last = diff;
                }
            }
            let way = self.ways[(at - back) % WINDOW];
            let least = way.cost + cost + p.begin_stretch + p.distance_byte;
            if least > here.cost + p.begin_stretch + SLACK || back > best.1 + PATIENCE {
                break;
            }
            if diff == 0 && least < best.0 {
                let total = way.cost + cost + self.price_to_open(&way, pos - back);
                if total < best.0 {
                    best = (total, back);
                }
            }
        }
        let (cost, back) = best;
        let Some(table) = self.free.pop().or_else(|| self.evict(cost)) else { return };
        self.habits[table as usize] = habits;
        let way = self.ways[(at - back) % WINDOW];
        let limit = position(self.parts[part].end, -shift);
        self.active.push(Active { shift, limit, cost, id: self.stretches.len() as u32, last, habits: table });
        self.stretches.push(Stretch {
            start: (at - back) as u32,
            old: (pos - back) as u32,
            before: way.last,
            before_end: way.end,
        });
    }

    /// Gives up the dearest stretch for one that costs `cost`; returns its table.
    fn evict(&mut self, cost: i64) -> Option<u32> {
        let (i, worst) = self.active.iter().enumerate().max_by_key(|(_, a)| a.cost)?;
        (worst.cost > cost).then(|| self.active.swap_remove(i).habits)
    }

    /// The stretches of the cheapest way to the end, first to last.
    fn best_way(&self) -> Vec<Match> {
        let way = self.ways[self.new.len() % WINDOW];
        let mut out = Vec::new();
        let (mut id, mut end) = (way.last, way.end);
        while let Some(s) = self.stretches.get(id as usize) {
            if end > s.start {
                out.push(Match { new: s.start as usize, old: s.old as usize, len: (end - s.start) as usize });
            }
            (id, end) = (s.before, s.before_end);
        }
        out.reverse();
        out
    }
}

/// A position on one side as a position on the other.
fn position(at: usize, shift: isize) -> usize {
    at.wrapping_add_signed(shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::block::BlockFinder;
    use crate::matching::suffix::SuffixFinder;
    use coracle_testkit::image::{binary, mutate};
    use proptest::prelude::*;

    fn matches(finder: &dyn Finder, borders: &[usize], new: &[u8]) -> Vec<Match> {
        let part = |(file, &end)| Part { end, file };
        let parts: Vec<Part> = borders.iter().enumerate().map(part).collect();
        super::matches(
            finder,
            &parts,
            new,
            Search { stride: 1, prices: Prices::default(), literal: &|_| 200 },
        )
    }

    /// Checks the contract and returns how many new bytes are explained exactly.
    fn check(found: &[Match], text: &[u8], borders: &[usize], new: &[u8]) -> usize {
        let (mut end, mut equal) = (0, 0);
        for m in found {
            assert!(m.new >= end && m.len > 0, "ascending, no overlap, not empty: {m:?}");
            end = m.new + m.len;
            assert!(end <= new.len() && m.old + m.len <= text.len(), "in range: {m:?}");
            let border = borders[borders.partition_point(|&b| b <= m.old)];
            assert!(m.old + m.len <= border, "inside one piece: {m:?}");
            equal += (0..m.len).filter(|&i| text[m.old + i] == new[m.new + i]).count();
        }
        equal
    }

    #[test]
    fn scattered_changes_stay_one_stretch() {
        let old = binary(1, 100_000);
        let mut new = old.clone();
        for i in (500..99_000).step_by(700) {
            new[i] ^= 0x40;
        }
        let found = matches(&SuffixFinder::new(&old), &[old.len()], &new);
        assert_eq!(found, [Match { new: 0, old: 0, len: old.len() }]);
    }

    #[test]
    fn insertions_and_deletions_are_followed() {
        let old = binary(3, 200_000);
        let new = mutate(&old, 4, 60);
        for finder in [&SuffixFinder::new(&old) as &dyn Finder, &BlockFinder::new(&old, 32)] {
            let found = matches(finder, &[old.len()], &new);
            let equal = check(&found, &old, &[old.len()], &new);
            assert!(equal * 100 > new.len() * 95, "{equal} of {}", new.len());
        }
    }

    /// A table of addresses that all grew by one of two numbers, and whose entries look alike: any shift by whole
    /// entries has fewer differences than the right one has.
    #[test]
    fn differences_that_repeat_are_cheap() {
        let noise = binary(21, 4000 * 2);
        let entry = |i: usize, grown: u64| {
            let target = 0x4_0000 + u64::from(noise[2 * i]) * 0x301 + u64::from(noise[2 * i + 1]) + 3 * grown;
            [(0x10_0000 + 8 * i as u64 + grown).to_le_bytes(), 8u64.to_le_bytes(), target.to_le_bytes()]
                .concat()
        };
        let file = |grown| -> Vec<u8> {
            binary(22, 2000).into_iter().chain((0..4000).flat_map(|i| entry(i, grown))).collect()
        };
        let (old, new) = (file(0), file(0x1014));
        let found = matches(&SuffixFinder::new(&old), &[old.len()], &new);
        let right: usize = found.iter().filter(|m| m.new == m.old).map(|m| m.len).sum();
        assert!(right * 10 > new.len() * 9, "{right} of {}: {found:?}", new.len());
    }

    #[test]
    fn the_nearest_way_back_is_taken() {
        let block = binary(11, 4000);
        let old = [&block[..], &binary(12, 3000), &block[..]].concat();
        let new = [&binary(12, 3000)[..], &block[..]].concat();
        let found = matches(&SuffixFinder::new(&old), &[old.len()], &new);
        assert_eq!(found, [Match { new: 0, old: 4000, len: 7000 }]);
    }

    /// The long match is found while the stretch before it goes on for a while, exactly.
    #[test]
    fn a_long_match_is_not_lost_to_a_nearer_short_one() {
        let (start, shared, end) = (binary(13, 4000), binary(14, 100), binary(15, 20_000));
        let old = [&start[..], b"a", &shared, &binary(16, 3000), b"b", &shared, &end].concat();
        let new = [&start[..], b"b", &shared, &end].concat();
        let found = matches(&SuffixFinder::new(&old), &[old.len()], &new);
        let equal = check(&found, &old, &[old.len()], &new);
        assert!(equal + 1 >= new.len(), "{equal} of {}: {found:?}", new.len());
    }

    #[test]
    fn content_that_repeats_itself_takes_linear_time() {
        let old: Vec<u8> = (0..400_000u32).map(|i| (i % 3) as u8).collect();
        let mut new = old.clone();
        for i in (0..new.len()).step_by(19) {
            new[i] = 7;
        }
        let found = matches(&SuffixFinder::new(&old), &[old.len()], &new);
        check(&found, &old, &[old.len()], &new);
    }

    #[test]
    fn empty_sides() {
        assert!(matches(&SuffixFinder::new(b""), &[0], b"something new").is_empty());
        assert!(matches(&SuffixFinder::new(b"old"), &[3], b"").is_empty());
    }

    proptest! {
        #[test]
        fn always_in_range(
            text in proptest::collection::vec(0u8..4, 1..400),
            new in proptest::collection::vec(0u8..4, 0..400),
            cut in 0usize..400,
        ) {
            let mut borders = vec![cut.clamp(1, text.len()), text.len()];
            borders.dedup();
            check(&matches(&SuffixFinder::new(&text), &borders, &new), &text, &borders, &new);
            check(&matches(&BlockFinder::new(&text, 8), &borders, &new), &text, &borders, &new);
        }
    }
}
