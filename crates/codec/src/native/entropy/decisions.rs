//! Decisions of one bit, each predicted by what is known before it (`docs/formats/native-delta.md`, sections 9.9.1 and
//! 9.9.4): references of executables and tokens of deflate streams are made of them.
//!
//! Reader and writer run the same code: a writer passes what it wants, a reader what it likes, and both get what is.

use super::logistic::{FRESH, WEIGHT, adapt, dot, rates, squash, stretch, stretch_table, train};

/// Either side of the arithmetic coder (section 7.4.5).
pub(crate) trait Coder {
    /// Codes a bit that is 1 with a probability of `q / 65536`. A writer passes it; a reader returns it.
    fn bit(&mut self, q: u32, bit: u32) -> u32;
}

/// Where the interval is cut: up to here the bit is 1.
fn split(low: u32, high: u32, q: u32) -> u32 {
    low + ((u64::from(high - low) * u64::from(q)) >> 16) as u32
}

/// Writes.
#[derive(Debug)]
pub(crate) struct Writer {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Writer { low: 0, high: u32::MAX, out: Vec::new() }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The bytes, without zeros at the end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.low > 0 {
            self.out.push((self.low >> 24) as u8 + 1);
        }
        while self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out
    }
}

impl Coder for Writer {
    fn bit(&mut self, q: u32, bit: u32) -> u32 {
        let middle = split(self.low, self.high, q);
        if bit == 1 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = self.high << 8 | 255;
        }
        bit
    }
}

/// Reads; beyond the end there are zeros.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    low: u32,
    high: u32,
    code: u32,
    rest: std::slice::Iter<'a, u8>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Reader { low: 0, high: u32::MAX, code: 0, rest: bytes.iter() };
        for _ in 0..4 {
            reader.code = reader.code << 8 | reader.next();
        }
        reader
    }

    fn next(&mut self) -> u32 {
        self.rest.next().map_or(0, |&b| u32::from(b))
    }
}

impl Coder for Reader<'_> {
    fn bit(&mut self, q: u32, _: u32) -> u32 {
        let middle = split(self.low, self.high, q);
        let bit = u32::from(self.code <= middle);
        if bit == 1 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.code = self.code << 8 | self.next();
        }
        bit
    }
}

/// Tables that all models share.
#[derive(Debug)]
pub(crate) struct Tables {
    stretch: Vec<i16>,
    rates: Vec<u32>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        Tables { stretch: stretch_table(), rates: rates() }
    }
}

/// A decision that `N` predictions are mixed for.
#[derive(Debug, Clone)]
pub(crate) struct Mixed<const N: usize> {
    predictions: [Vec<u32>; N],
    weights: Vec<[i32; N]>,
}

impl<const N: usize> Mixed<N> {
    /// `sizes` of the tables of predictions, and how many sets of weights.
    pub(crate) fn new(sizes: [usize; N], sets: usize) -> Self {
        Mixed { predictions: sizes.map(|n| vec![FRESH; n]), weights: vec![[WEIGHT * 4 / N as i32; N]; sets] }
    }

    /// Codes a bit in these contexts, one for each table, with this set of weights.
    pub(crate) fn code(
        &mut self,
        tables: &Tables,
        coder: &mut impl Coder,
        contexts: [usize; N],
        set: usize,
        bit: u32,
    ) -> u32 {
        let inputs: [i32; N] =
            std::array::from_fn(|i| stretch(&tables.stretch, self.predictions[i][contexts[i]]));
        let output = dot(&inputs, &self.weights[set]);
        let bit = coder.bit(squash(output).clamp(1, 65535) as u32, bit);
        train(&mut self.weights[set], &inputs, output, bit);
        for (predictions, context) in self.predictions.iter_mut().zip(contexts) {
            adapt(&mut predictions[context], bit, &tables.rates);
        }
        bit
    }
}

/// Decisions with one prediction each.
#[derive(Debug, Clone)]
pub(crate) struct Plain(Vec<u32>);

impl Plain {
    pub(crate) fn new(contexts: usize) -> Self {
        Plain(vec![FRESH; contexts])
    }

    pub(crate) fn code(&mut self, tables: &Tables, coder: &mut impl Coder, context: usize, bit: u32) -> u32 {
        let prediction = &mut self.0[context];
        let bit = coder.bit((*prediction >> 16).clamp(1, 65535), bit);
        adapt(prediction, bit, &tables.rates);
        bit
    }
}

/// Small numbers of a fixed number of bits, highest first, each bit by context and by those before it.
#[derive(Debug, Clone)]
pub(crate) struct Trees {
    bits: u32,
    nodes: Plain,
}

impl Trees {
    pub(crate) fn new(contexts: usize, bits: u32) -> Self {
        Trees { bits, nodes: Plain::new(contexts << bits) }
    }

    pub(crate) fn code(&mut self, t: &Tables, coder: &mut impl Coder, context: usize, value: usize) -> usize {
        let mut node = 1;
        for i in (0..self.bits).rev() {
            let bit = self.nodes.code(t, coder, (context << self.bits) + node, (value >> i & 1) as u32);
            node = node << 1 | bit as usize;
        }
        node - (1 << self.bits)
    }
}

/// Signed numbers: sign and number of bits by context, then the bits below the highest.
#[derive(Debug, Clone)]
pub(crate) struct Numbers {
    /// For each context a tree of 6 + 1 bits.
    sizes: Plain,
    signs: Plain,
    /// The three bits below the highest, by number of bits.
    tops: Plain,
    /// Others, by number of bits and place.
    rest: Plain,
}

impl Numbers {
    pub(crate) fn new(contexts: usize) -> Self {
        Numbers {
            sizes: Plain::new(contexts * 128),
            signs: Plain::new(contexts),
            tops: Plain::new(64 * 8),
            rest: Plain::new(64 * 64),
        }
    }

    pub(crate) fn code(&mut self, t: &Tables, coder: &mut impl Coder, context: usize, value: i64) -> i64 {
        let magnitude = value.unsigned_abs();
        let bits = (u64::BITS - magnitude.leading_zeros()) as usize;
        let mut node = 1;
        for i in (0..7).rev() {
            let bit = self.sizes.code(t, coder, context * 128 + node, (bits >> i & 1) as u32);
            node = node << 1 | bit as usize;
        }
        let bits = (node & 127).min(63);
        if bits == 0 {
            return 0;
        }
        let negative = self.signs.code(t, coder, context, u32::from(value < 0)) == 1;
        let mut read = 1u64;
        for i in (0..bits - 1).rev() {
            let bit = (magnitude >> i & 1) as u32;
            let known = bits - 2 - i;
            let bit = if known < 3 {
                let prefix = (read as usize & ((1 << known) - 1)) | 1 << known;
                self.tops.code(t, coder, bits * 8 + prefix, bit)
            } else {
                self.rest.code(t, coder, bits * 64 + i, bit)
            };
            read = read << 1 | u64::from(bit);
        }
        if negative { -(read as i64) } else { read as i64 }
    }
}
