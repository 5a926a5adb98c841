//! What literal bytes cost once the delta went through gzip: an LZ77 parse of what would be literal, with the window of deflate.

/// Window of deflate (RFC 1951).
const DISTANCE: usize = 1 << 15;
/// Shortest match that is looked for. Those of three bytes hardly pay.
const SHORTEST: usize = 4;
/// Longest match of deflate (RFC 1951).
const LONGEST: usize = 258;
const HASH_LOG: u32 = 15;
/// Earlier places that are compared.
const DEPTH: usize = 24;
/// Nothing.
const NONE: u32 = u32::MAX;

/// One byte, in the unit of all prices.
pub(super) const BYTE: u32 = 256;
const BIT: u32 = BYTE / 8;

/// The literal bytes that were last written, and prices for those that may follow.
#[derive(Debug)]
pub(super) struct LiteralPrices {
    /// The end of the stream, and behind it what may follow.
    stream: Vec<u8>,
    /// How much of it is the stream.
    written: usize,
    heads: Vec<u32>,
    chain: Vec<u32>,
    /// How often each byte was one that no match covers, halved from time to time.
    counts: [u32; 256],
    bits: [u32; 256],
}

impl LiteralPrices {
    pub(super) fn new() -> Self {
        LiteralPrices {
            stream: Vec::new(),
            written: 0,
            heads: Vec::new(),
            chain: Vec::new(),
            counts: [0; 256],
            bits: [0; 256],
        }
    }

    /// Prices for each byte of `new`, were it literal, when those are that `literal` says. What is `settled` is no
    /// literal, whatever it costs.
    pub(super) fn price(&mut self, new: &[u8], literal: &[bool], settled: &[bool], prices: &mut Vec<u32>) {
        self.stream.truncate(self.written);
        self.stream.extend(new.iter().zip(literal).filter(|(_, literal)| **literal).map(|(byte, _)| *byte));
        self.heads.clear();
        self.heads.resize(1 << HASH_LOG, NONE);
        self.chain.clear();
        self.chain.resize(self.stream.len(), NONE);
        prices.clear();
        prices.resize(new.len(), 0);
        let mut inserted = 0;
        let mut place = self.written;
        let mut counts = self.counts.map(|count| count / 2);
        // 0 marks a byte that no match covers.
        let mut covered = 0;
        for at in 0..new.len() {
            if settled[at] {
                prices[at] = BYTE;
                continue;
            }
            self.insert(&mut inserted, place);
            if at >= covered {
                let (len, distance) = self.longest(&new[at..], place);
                let price = match_price(distance);
                // Against what literals of five bits cost.
                if len >= SHORTEST && price < len as u32 * 5 * BIT {
                    let share = (price / len as u32).max(1);
                    prices[at..at + len].fill(share);
                    covered = at + len;
                } else if literal[at] {
                    counts[usize::from(new[at])] += 1;
                }
            }
            place += usize::from(literal[at]);
        }
        self.weigh(&counts);
        for (price, byte) in prices.iter_mut().zip(new) {
            if *price == 0 {
                *price = self.bits[usize::from(*byte)];
            }
        }
        self.counts = counts;
    }

    /// Appends literal bytes to the stream.
    pub(super) fn write(&mut self, new: &[u8], literal: &[bool]) {
        self.stream.truncate(self.written);
        self.stream.extend(new.iter().zip(literal).filter(|(_, literal)| **literal).map(|(byte, _)| *byte));
        let gone = self.stream.len().saturating_sub(DISTANCE);
        self.stream.drain(..gone);
        self.written = self.stream.len();
    }

    /// Enters all places before `end` into the chains.
    fn insert(&mut self, inserted: &mut usize, end: usize) {
        while *inserted < end && *inserted + SHORTEST <= self.stream.len() {
            let slot = hash(&self.stream[*inserted..]);
            self.chain[*inserted] = self.heads[slot];
            self.heads[slot] = *inserted as u32;
            *inserted += 1;
        }
    }

    /// The longest match for the start of `new`, were it to stand at `place`: its length and distance.
    fn longest(&self, new: &[u8], place: usize) -> (usize, usize) {
        if new.len() < SHORTEST {
            return (0, 0);
        }
        let new = &new[..new.len().min(LONGEST)];
        let mut best = (0, 0);
        let mut candidate = self.heads[hash(new)];
        for _ in 0..DEPTH {
            let start = candidate as usize;
            if candidate == NONE || place - start > DISTANCE {
                break;
            }
            let len = crate::matching::common_prefix(&self.stream[start..], new);
            if len > best.0 {
                best = (len, place - start);
                if len == new.len() {
                    break;
                }
            }
            candidate = self.chain[start];
        }
        best
    }

    /// Bits of a code for bytes that come that often, among symbols of matches.
    fn weigh(&mut self, counts: &[u32; 256]) {
        let total: u32 = counts.iter().sum::<u32>() + 256;
        for (bits, count) in self.bits.iter_mut().zip(counts) {
            let share = f64::from(*count + 1) / (f64::from(total) * 1.15);
            *bits = ((-share.log2()).clamp(1.0, 13.0) * f64::from(BIT)) as u32;
        }
    }
}

/// A length code, a distance code, and the extra bits of the distance.
fn match_price(distance: usize) -> u32 {
    let extra = distance.max(1).ilog2().saturating_sub(1);
    (11 + extra) * BIT
}

fn hash(bytes: &[u8]) -> usize {
    let four = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    (four.wrapping_mul(0x9e37_79b1) >> (32 - HASH_LOG)) as usize
}
