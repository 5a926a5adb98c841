//! The arithmetic code of section 7.4.5, and bits in contexts (sections 9.9.1 and 9.9.4).

use std::collections::HashMap;

use super::mixing::{logit, squash};

/// A prediction: probability in 22 bits, and count.
type Prediction = (i64, i64);

const FRESH: Prediction = (1 << 21, 0);

/// A code that is read.
pub(super) struct Code<'a> {
    code: u32,
    low: u32,
    high: u32,
    input: &'a [u8],
}

impl<'a> Code<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        let mut code = Code { code: 0, low: 0, high: u32::MAX, input };
        (0..4).for_each(|_| code.shift_in());
        code
    }

    fn shift_in(&mut self) {
        let (byte, rest) =
            self.input.split_first().map_or((0, self.input), |(b, rest)| (u32::from(*b), rest));
        (self.code, self.input) = (self.code << 8 | byte, rest);
    }

    /// Section 7.4.5.
    fn bit(&mut self, q: i64) -> bool {
        let middle = self.low + ((u64::from(self.high - self.low) * q as u64) >> 16) as u32;
        let bit = self.code <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while self.low >> 24 == self.high >> 24 {
            self.low <<= 8;
            self.high = self.high << 8 | 255;
            self.shift_in();
        }
        bit
    }
}

/// Plain bits, with a prediction for each context.
#[derive(Default)]
pub(super) struct Plain(HashMap<(usize, usize), Prediction>);

impl Plain {
    pub(super) fn read(&mut self, code: &mut Code<'_>, context: (usize, usize)) -> bool {
        let prediction = self.0.entry(context).or_insert(FRESH);
        let bit = code.bit((prediction.0 >> 6).clamp(1, 65535));
        *prediction = learn(*prediction, bit);
        bit
    }

    /// `n` bits, highest first, each with the bits known as context.
    pub(super) fn tree(&mut self, code: &mut Code<'_>, context: usize, n: u32) -> usize {
        let mut known = 1;
        for _ in 0..n {
            known = known * 2 + usize::from(self.read(code, (context, known)));
        }
        known - (1 << n)
    }
}

/// Mixed bits of several predictions.
pub(super) struct Mixed {
    predictions: Vec<HashMap<usize, Prediction>>,
    weights: HashMap<usize, Vec<i64>>,
}

impl Mixed {
    pub(super) fn new(inputs: usize) -> Self {
        Mixed { predictions: vec![HashMap::new(); inputs], weights: HashMap::new() }
    }

    pub(super) fn read(&mut self, code: &mut Code<'_>, at: &[usize], set: usize) -> bool {
        let n = self.predictions.len();
        let mut predictions: Vec<&mut Prediction> =
            self.predictions.iter_mut().zip(at).map(|(p, &at)| p.entry(at).or_insert(FRESH)).collect();
        let weights = self.weights.entry(set).or_insert_with(|| vec![80_000 / n as i64; n]);
        let logits: Vec<i64> = predictions.iter().map(|p| logit(p.0)).collect();
        let sum: i64 = logits.iter().zip(&*weights).map(|(l, w)| l * w).sum();
        let output = (sum >> 16).clamp(-2047, 2047);
        let bit = code.bit(squash(output).clamp(1, 65535));
        let error = i64::from(bit) * 65536 - squash(output);
        for (w, l) in weights.iter_mut().zip(logits) {
            *w = (*w + ((l * (error >> 2) + 16384) >> 15)).clamp(-(1 << 20), 1 << 20);
        }
        predictions.iter_mut().for_each(|p| **p = learn(**p, bit));
        bit
    }
}

/// Section 9.9.4, with contexts in place of kinds.
#[derive(Default)]
pub(super) struct Steps {
    sizes: Plain,
    signs: Plain,
    tops: Plain,
    rest: Plain,
}

impl Steps {
    pub(super) fn read(&mut self, code: &mut Code<'_>, context: usize) -> i64 {
        let bits = self.sizes.tree(code, context, 7).min(63);
        if bits == 0 {
            return 0;
        }
        let negative = self.signs.read(code, (context, 0));
        let mut magnitude = 1;
        for n in 1..bits {
            let bit = if n <= 3 {
                let known = (1 << (n - 1)) + magnitude as usize % (1 << (n - 1));
                self.tops.read(code, (bits, known))
            } else {
                self.rest.read(code, (bits, bits - 1 - n))
            };
            magnitude = magnitude * 2 + i64::from(bit);
        }
        if negative { -magnitude } else { magnitude }
    }
}

/// Section 7.4.1.
fn learn((probability, count): Prediction, bit: bool) -> Prediction {
    let wanted = if bit { (1 << 22) - 1 } else { 0 };
    let step = ((wanted - probability) * (131_072 / (2 * count + 3))) >> 16;
    (probability + step, (count + 1).min(255))
}
