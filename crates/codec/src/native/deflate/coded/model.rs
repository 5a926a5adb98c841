//! What is chosen at each position, predicted by what could be chosen (`docs/formats/native-delta.md`, section 8.8.3).

use super::parse::Token;
use super::search::{Chains, Offer, Offers};
use crate::native::deflate::Stop;
use crate::native::entropy::decisions::{Coder, Mixed, Numbers, Plain, Tables};

/// Sizes of lengths in [`size`].
const SIZES: usize = 20;
/// Relations of two lengths in [`relation`].
const RELATIONS: usize = 6;
/// Numbers of bits of a distance.
const REACHES: usize = 16;
/// Offers that are told apart.
const RANKS: usize = 4;

/// A length in classes.
fn size(len: usize) -> usize {
    match len {
        0..3 => 0,
        3..17 => len - 2,
        17..32 => 15,
        32..64 => 16,
        64..128 => 17,
        128..258 => 18,
        _ => 19,
    }
}

/// How the longest match at the next position compares with that at this one.
fn relation(here: usize, next: usize) -> usize {
    match next {
        0 => 0,
        _ if next + 1 < here => 1,
        _ if next + 1 == here => 2,
        _ if next == here => 3,
        _ if next == here + 1 => 4,
        _ => 5,
    }
}

/// Bits of a distance less one.
fn reach(distance: usize) -> usize {
    (distance.saturating_sub(1)).checked_ilog2().map_or(0, |n| n as usize + 1)
}

/// Where a match is coded.
struct Place<'o> {
    at: usize,
    here: &'o Offers,
    /// That of the longest offers here and at the next position.
    relation: usize,
}

/// Predictions of tokens.
#[derive(Debug, Clone)]
pub(super) struct Model {
    matches: Mixed<6>,
    ranks: Mixed<5>,
    lengths: Numbers,
    nearest: Mixed<2>,
    chained: Plain,
    hops: Numbers,
    distances: Numbers,
    /// The last choices, a bit for each: whether it was another than expected.
    history: usize,
    /// Whether the last token was a literal.
    literal: usize,
}

impl Model {
    pub(super) fn new() -> Self {
        let matches = [
            SIZES * RELATIONS * 2,
            SIZES * REACHES * 2,
            RELATIONS * 16 * 16,
            256 * RELATIONS,
            8 * 256,
            SIZES * SIZES * 2,
        ];
        let ranks = [RANKS * SIZES, RANKS * SIZES * SIZES, 16 * 17, 64 * RANKS, SIZES * RELATIONS];
        Model {
            matches: Mixed::new(matches, SIZES),
            ranks: Mixed::new(ranks, RANKS),
            lengths: Numbers::new(SIZES),
            nearest: Mixed::new([3 * SIZES, 64], 3),
            chained: Plain::new(1),
            hops: Numbers::new(1),
            distances: Numbers::new(1),
            history: 0,
            literal: 1,
        }
    }

    /// Codes the token at `at`, with what is offered there and at the next position.
    ///
    /// # Errors
    /// It cannot be, or its search takes too much work.
    pub(super) fn token(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        chains: &mut Chains<'_>,
        at: usize,
        [here, next]: [&Offers; 2],
        want: Token,
    ) -> Result<Token, Stop> {
        let (best, then) = (here.best(), next.best());
        let (class, relation) = (size(best.len), relation(best.len, then.len));
        let contexts = [
            (class * RELATIONS + relation) * 2 + self.literal,
            (class * REACHES + reach(best.distance).min(15)) * 2 + self.literal,
            (relation * 16 + reach(best.distance)) * 16 + reach(then.distance),
            (self.history & 255) * RELATIONS + relation,
            class.min(7) * 256 + usize::from(chains.content()[at]),
            (class * SIZES + size(then.len)) * 2 + self.literal,
        ];
        let is_match = self.matches.code(t, coder, contexts, class, u32::from(want.distance > 0)) == 1;
        let expected = best.len > 0 && then.len <= best.len;
        self.literal = usize::from(!is_match);
        if !is_match {
            self.history = self.history << 1 | usize::from(expected);
            return Ok(Token::LITERAL);
        }
        let (token, usual) = self.copy(t, coder, chains, Place { at, here, relation }, want)?;
        self.history = self.history << 1 | usize::from(!(usual && expected));
        Ok(token)
    }

    /// Codes a match, and says whether it is the longest there is.
    fn copy(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        chains: &mut Chains<'_>,
        Place { at, here, relation }: Place<'_>,
        want: Token,
    ) -> Result<(Token, bool), Stop> {
        let left = chains.content().len() - at;
        let (wanted_len, wanted_distance) = (usize::from(want.len), usize::from(want.distance));
        let mut chosen = None;
        for (rank, offer) in here.all.iter().rev().enumerate() {
            let less = here.all.len().checked_sub(rank + 2).map_or(Offer::default(), |i| here.all[i]);
            let (place, class) = (rank.min(RANKS - 1), size(offer.len));
            let contexts = [
                place * SIZES + class,
                (place * SIZES + class) * SIZES + size(less.len),
                reach(offer.distance) * 16 + reach(less.distance).min(15),
                (self.history & 63) * RANKS + place,
                class * RELATIONS + relation,
            ];
            if self.ranks.code(t, coder, contexts, place, u32::from(offer.len == wanted_len)) == 1 {
                chosen = Some((rank, offer.len));
                break;
            }
        }
        let best = here.best().len;
        let (len, how) = match chosen {
            Some((rank, len)) => (len, usize::from(rank > 0)),
            None => {
                let step = self.lengths.code(t, coder, size(best), best as i64 - wanted_len as i64);
                let len = (best as i64).checked_sub(step).and_then(|l| usize::try_from(l).ok());
                (len.filter(|l| (3..=left.min(258)).contains(l)).ok_or(Stop::Differs)?, 2)
            }
        };
        // The nearest that is long enough is the first offer with that many bytes.
        let near = here.all.iter().find(|o| o.len >= len);
        if let Some(near) = near {
            let contexts = [how * SIZES + size(len), self.history & 63];
            let bit = u32::from(near.distance == wanted_distance);
            if self.nearest.code(t, coder, contexts, how, bit) == 1 {
                let usual = chosen.is_some_and(|c| c.0 == 0);
                return Ok((Token { distance: near.distance as u16, len: len as u16 }, usual));
            }
        }
        let (mut hops, found) = (0i64, {
            let mut hops = 0;
            let found = if wanted_distance > 0 {
                chains.walk(at, len, |distance| {
                    hops += 1;
                    distance == wanted_distance
                })?
            } else {
                None
            };
            found.map(|_| hops)
        });
        if let Some(n) = found {
            hops = n;
        }
        let distance = if self.chained.code(t, coder, 0, u32::from(found.is_some())) == 1 {
            let (hops, mut passed) = (self.hops.code(t, coder, 0, hops), 0);
            chains.walk(at, len, |_| {
                passed += 1;
                passed == hops
            })?
        } else {
            let distance = self.distances.code(t, coder, 0, wanted_distance as i64);
            usize::try_from(distance).ok().filter(|d| (1..=at.min(1 << 15)).contains(d))
        };
        let distance = distance.ok_or(Stop::Differs)?;
        Ok((Token { distance: distance as u16, len: len as u16 }, false))
    }
}
