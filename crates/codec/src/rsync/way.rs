//! The cheapest way through a piece of new content: which bytes are copied, from where, and which are literal.

use super::diff::Prices;
use crate::matching::Finder;
use crate::matching::suffix::SuffixFinder;

/// A match of this length is followed to near its end without looking for others.
const LONG: usize = 256;
/// So close to its end others are looked for.
const NEAR_END: usize = 48;
/// Shortest match that is looked for: the finder knows no shorter ones.
const GRAM: usize = 8;
/// A match that goes on where one of this length broke off may be shorter than others.
const FOLLOWED: usize = 32;
/// Shortest of those.
const SHORTEST: usize = 4;

/// A copy within a piece: `new` counts from its start, `old` from the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) new: u32,
    pub(super) old: u32,
    pub(super) len: u32,
}

/// For each position of a piece the best match that begins there.
#[derive(Debug, Default)]
pub(super) struct Matches {
    /// Where in the text; of no meaning where `reach` is the position itself.
    old: Vec<u32>,
    /// Where in the piece the match ends. Never falls from one position to the next.
    reach: Vec<u32>,
    /// A match that goes on where a longer one before it broke off: its length, and its position in the text.
    resumed: Vec<(u32, u32)>,
}

impl Matches {
    /// Looks for them. `expected` is where the text goes on if the copy before the piece goes on.
    pub(super) fn find(&mut self, finder: &SuffixFinder<'_>, new: &[u8], expected: Option<u32>) {
        let text = finder.text();
        self.old.clear();
        self.reach.clear();
        self.resumed.clear();
        self.resumed.resize(new.len(), (0, 0));
        let same = |old: usize, at: usize| crate::matching::common_prefix(&text[old..], &new[at..]);
        let (mut old, mut reach) = (0, 0);
        if let Some(expected) = expected {
            old = expected as usize;
            reach = same(old, 0);
        }
        // Where the last match that was worth following has position 0 of the piece in the text.
        let mut shift = expected.map(i64::from);
        let (mut hopeless, mut resumed_to) = (0, 0);
        for at in 0..new.len() {
            let len = reach.saturating_sub(at);
            if (len < LONG || len <= NEAR_END) && at >= hopeless {
                // A longer match has the eight bytes that end behind this one.
                let needed = (reach + 1).checked_sub(GRAM).filter(|needed| *needed > at);
                match needed {
                    Some(needed) if reach == new.len() || !finder.may_contain(&new[needed..]) => {
                        hopeless = needed + 1;
                    }
                    _ => {
                        if let Some((found, found_len)) = finder.find(&new[at..], len.max(GRAM)) {
                            (old, reach) = (found, at + found_len);
                        }
                    }
                }
            }
            reach = reach.max(at);
            let len = reach - at;
            let here = old as i64 - at as i64;
            if len >= FOLLOWED {
                shift = Some(here);
            } else if at >= resumed_to
                && let Some(known) = shift.filter(|known| len < GRAM || *known != here)
                && let Ok(again) = usize::try_from(known + at as i64)
                && again < text.len()
            {
                let len = same(again, at);
                if len >= SHORTEST {
                    self.resumed[at] = (len as u32, again as u32);
                    resumed_to = at + len;
                }
            }
            self.old.push(old as u32);
            self.reach.push(reach as u32);
            old += 1;
        }
    }

    /// Marks what a long match covers: it is copied, whatever else there is.
    pub(super) fn settle(&self, settled: &mut Vec<bool>) {
        self.cover(LONG, settled);
    }

    /// Marks what is presumably literal: what no match of `least` bytes covers.
    pub(super) fn presume(&self, least: usize, literal: &mut Vec<bool>) {
        self.cover(least, literal);
        literal.iter_mut().for_each(|literal| *literal = !*literal);
    }

    fn cover(&self, least: usize, covered: &mut Vec<bool>) {
        covered.clear();
        let mut end = 0;
        for (at, reach) in self.reach.iter().enumerate() {
            let reach = *reach as usize;
            if reach - at >= least {
                end = end.max(reach);
            }
            covered.push(at < end);
        }
    }
}

/// Room for looking for a way.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// What the cheapest way costs that has come to a position and ends in a literal, or in a copy.
    literal: Vec<u32>,
    copied: Vec<u32>,
    /// Whether the literal began just before.
    opened: Vec<bool>,
    /// Where the copy began, and whether it resumes one.
    began: Vec<(u32, bool)>,
    /// Beginnings of copies that may be the cheapest for some end, and their prices, both ascending.
    open: std::collections::VecDeque<(u32, u32)>,
}

/// No way.
const NO_WAY: u32 = u32::MAX / 2;

impl Ways {
    /// The copies of the cheapest way, in order.
    pub(super) fn best(
        &mut self,
        matches: &Matches,
        literals: &[u32],
        prices: &Prices,
        steps: &mut Vec<Step>,
    ) {
        let n = literals.len();
        for (costs, first) in [(&mut self.literal, NO_WAY), (&mut self.copied, 0)] {
            costs.clear();
            costs.resize(n + 1, NO_WAY);
            costs[0] = first;
        }
        self.opened.clear();
        self.opened.resize(n + 1, false);
        self.began.clear();
        self.began.resize(n + 1, (0, false));
        self.open.clear();
        for (at, &price) in literals.iter().enumerate() {
            let here = self.literal[at].min(self.copied[at]);
            let reach = matches.reach[at] as usize;
            if reach > at {
                let cost = here.saturating_add(prices.copy);
                while self.open.back().is_some_and(|(_, other)| *other >= cost) {
                    self.open.pop_back();
                }
                self.open.push_back((at as u32, cost));
            }
            let (len, _) = matches.resumed[at];
            if len > 0 {
                let (end, cost) = (at + len as usize, here.saturating_add(prices.resumed));
                if cost < self.copied[end] {
                    self.copied[end] = cost;
                    self.began[end] = (at as u32, true);
                }
            }
            let opened = self.copied[at].saturating_add(prices.literal);
            self.opened[at + 1] = opened < self.literal[at];
            self.literal[at + 1] = opened.min(self.literal[at]).saturating_add(price);
            while self.open.front().is_some_and(|(start, _)| matches.reach[*start as usize] as usize <= at) {
                self.open.pop_front();
            }
            if let Some(&(start, cost)) = self.open.front()
                && cost < self.copied[at + 1]
            {
                self.copied[at + 1] = cost;
                self.began[at + 1] = (start, false);
            }
        }
        let first = steps.len();
        let (mut at, mut in_copy) = (n, self.copied[n] <= self.literal[n]);
        while at > 0 {
            if in_copy {
                let (start, resumes) = self.began[at];
                let begin = start as usize;
                let old = if resumes { matches.resumed[begin].1 } else { matches.old[begin] };
                steps.push(Step { new: start, old, len: at as u32 - start });
                at = begin;
                in_copy = self.copied[at] <= self.literal[at];
            } else {
                in_copy = self.opened[at];
                at -= 1;
            }
        }
        steps[first..].reverse();
    }
}
