//! Approximate matches: long stretches of old content that agree with new content but for some bytes.
//!
//! The scan is bsdiff's: an exact match starts a new stretch only when it is longer, by more than 8 bytes, than what the
//! present stretch would give over the same span; stretches then grow both ways as long as at least half the bytes
//! agree. Two changes keep it fast: positions that continue the present stretch are skipped at once, and a finder
//! may refuse a search without looking when nothing long enough can be there.

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

/// An exact match must beat the present stretch by this many bytes.
const ADVANTAGE: usize = 8;
/// An exact continuation of this length is taken without searching for something better.
const SKIP: usize = 32;

/// Covers `new` with stretches of the finder's text, ascending, not overlapping. `borders` are the ends of the pieces
/// the text is made of, ascending, the last one being its length: no stretch crosses a border.
pub fn matches(finder: &dyn Finder, borders: &[usize], new: &[u8]) -> Vec<Match> {
    let mut scan =
        Scan { finder, text: finder.text(), new, borders, out: Vec::new(), start: 0, old: 0, active: false };
    scan.run();
    scan.out
}

struct Scan<'a> {
    finder: &'a dyn Finder,
    text: &'a [u8],
    new: &'a [u8],
    borders: &'a [usize],
    out: Vec<Match>,
    /// The present stretch: `new[start..]` goes with `text[old..]`; only if `active`.
    start: usize,
    old: usize,
    active: bool,
}

impl Scan<'_> {
    fn run(&mut self) {
        let mut at = 0;
        // Bytes of new[at..counted] that the present stretch gets right.
        let (mut score, mut counted) = (0, 0);
        while at < self.new.len() {
            let run = self.continuation(at);
            if run >= SKIP {
                at += run;
                (score, counted) = (0, at);
                continue;
            }
            let found = self.finder.find(&self.new[at..], ADVANTAGE);
            if let Some((pos, len)) = found {
                let len = len.min(self.border_after(pos) - pos);
                if counted < at {
                    (score, counted) = (0, at);
                }
                while counted < at + len {
                    score += usize::from(self.agrees(counted));
                    counted += 1;
                }
                // An earlier, longer match may have counted further: like bsdiff, let the present stretch keep that.
                if len > score + ADVANTAGE {
                    self.switch(at, pos);
                    at += len;
                    (score, counted) = (0, at);
                    continue;
                }
            }
            if at < counted {
                score -= usize::from(self.agrees(at));
            }
            at += 1;
        }
        self.end_stretch(self.new.len(), None);
    }

    /// Whether the present stretch gets `new[i]` right.
    fn agrees(&self, i: usize) -> bool {
        self.active && self.text.get(self.old + (i - self.start)) == Some(&self.new[i])
    }

    /// How many bytes from `new[at]` on continue the present stretch exactly.
    fn continuation(&self, at: usize) -> usize {
        if !self.active {
            return 0;
        }
        let from = self.old + (at - self.start);
        let border = self.border_after(self.old);
        if from >= border { 0 } else { common_prefix(&self.text[from..border], &self.new[at..]) }
    }

    fn border_after(&self, pos: usize) -> usize {
        self.borders[self.borders.partition_point(|&b| b <= pos)]
    }

    fn border_before(&self, pos: usize) -> usize {
        match self.borders.partition_point(|&b| b <= pos) {
            0 => 0,
            i => self.borders[i - 1],
        }
    }

    /// Ends the present stretch in front of a match at `new[at]`, `text[pos]`, and makes that the present one.
    fn switch(&mut self, at: usize, pos: usize) {
        let back = self.end_stretch(at, Some(pos));
        self.start = at - back;
        self.old = pos - back;
        self.active = true;
    }

    /// Emits the present stretch, grown forward up to `at`; returns how far the match at `next` grows backward.
    fn end_stretch(&mut self, at: usize, next: Option<usize>) -> usize {
        let gap = &self.new[self.start..at];
        let mut forward = 0;
        if self.active {
            let border = self.border_after(self.old);
            let old = &self.text[self.old..border.min(self.old + gap.len())];
            forward = best_growth(gap.iter().zip(old).map(|(a, b)| a == b));
        }
        let mut back = 0;
        if let Some(pos) = next {
            let old = &self.text[self.border_before(pos)..pos];
            back = best_growth(gap.iter().rev().zip(old.iter().rev()).map(|(a, b)| a == b));
            if self.active && forward + back > gap.len() {
                let overlap = forward + back - gap.len();
                let split = self.best_split(at - back, overlap, pos - back);
                forward = forward - overlap + split;
                back -= split;
            }
        }
        if self.active && forward > 0 {
            self.out.push(Match { new: self.start, old: self.old, len: forward });
        }
        back
    }

    /// How many of the `overlap` bytes from `new[from]` on the present stretch keeps; `rival` is where the next
    /// stretch has them.
    fn best_split(&self, from: usize, overlap: usize, rival: usize) -> usize {
        let (mut balance, mut best, mut split) = (0i64, 0i64, 0);
        for i in 0..overlap {
            balance += i64::from(self.agrees(from + i));
            balance -= i64::from(self.text[rival + i] == self.new[from + i]);
            if balance > best {
                best = balance;
                split = i + 1;
            }
        }
        split
    }
}

/// The length at which agreeing bytes outweigh the others most: maximises `2 x agreeing - length`.
fn best_growth(agree: impl Iterator<Item = bool>) -> usize {
    let (mut balance, mut best, mut len) = (0i64, 0i64, 0);
    for (i, yes) in agree.enumerate() {
        balance += if yes { 1 } else { -1 };
        if balance > best {
            best = balance;
            len = i + 1;
        } else if balance < best - 4096 {
            // So far behind that only thousands of agreeing bytes could make up for it: they will be found as a match
            // of their own. Keeps the growth linear overall.
            break;
        }
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::block::BlockFinder;
    use crate::matching::suffix::SuffixFinder;
    use coracle_testkit::image::{binary, mutate};
    use proptest::prelude::*;

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
        for finder in [&SuffixFinder::new(&old) as &dyn Finder, &BlockFinder::new(&old)] {
            let found = matches(finder, &[old.len()], &new);
            let equal = check(&found, &old, &[old.len()], &new);
            assert!(equal * 100 > new.len() * 95, "{equal} of {}", new.len());
        }
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
            check(&matches(&BlockFinder::new(&text), &borders, &new), &text, &borders, &new);
        }
    }
}
