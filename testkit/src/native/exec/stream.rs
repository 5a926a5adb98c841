//! Sections 9.8 and 9.9: what is known of targets, and the arithmetic code.

use super::super::mixing::{squash, stretch};

/// A prediction: probability in 22 bits, and count.
type Prediction = (i64, i64);

struct Slot {
    key: u64,
    target: u64,
    trust: u64,
}

pub(super) struct Reader<'a> {
    code: u32,
    low: u32,
    high: u32,
    input: &'a [u8],
    logits: Vec<i64>,
    slots: Vec<Slot>,
    shift: u32,
    history: u64,
    own: [u8; 21],
    first: [Vec<Prediction>; 4],
    first_weights: Vec<Vec<i64>>,
    second: [Vec<Prediction>; 2],
    second_weights: Vec<i64>,
    sizes: Vec<Prediction>,
    signs: Vec<Prediction>,
    tops: Vec<Prediction>,
    rest: Vec<Prediction>,
}

fn fresh(n: usize) -> Vec<Prediction> {
    vec![(1 << 21, 0); n]
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8], bytes: u64) -> Self {
        let mut s = 8;
        while s < 22 && 1 << s < bytes / 32 {
            s += 1;
        }
        let slots = (0..1u64 << s).map(|_| Slot { key: 0, target: 0, trust: 0 }).collect();
        let mut reader = Reader {
            code: 0,
            low: 0,
            high: u32::MAX,
            input,
            logits: (0..4096).map(stretch).collect(),
            slots,
            shift: 64 - s,
            history: 0,
            own: [0; 21],
            first: [fresh(21 * 16), fresh(64 * 16), fresh(21 * 256), fresh(16 * 16 * 4)],
            first_weights: vec![vec![20_000; 4]; 21],
            second: [fresh(21 * 4), fresh(256)],
            second_weights: vec![40_000; 2],
            sizes: fresh(21 * 128),
            signs: fresh(21),
            tops: fresh(64 * 8),
            rest: fresh(64 * 64),
        };
        for _ in 0..4 {
            reader.shift_in();
        }
        reader
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

    fn plain(&mut self, prediction: Prediction) -> (bool, Prediction) {
        let bit = self.bit((prediction.0 >> 6).clamp(1, 65535));
        (bit, learn(prediction, bit))
    }

    fn slot(&self, program: usize, address: u64, is_end: bool) -> (usize, u64) {
        let key = (((program as u64 + 1) << 50) | (address % (1 << 49))) * 2 + u64::from(is_end);
        ((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize, key)
    }

    pub(super) fn known(&self, program: usize, address: u64, is_end: bool) -> Option<u64> {
        let (slot, key) = self.slot(program, address, is_end);
        Some(&self.slots[slot]).filter(|s| s.key == key).map(|s| s.target)
    }

    /// `t` of section 9.9.2.
    fn t(&self, program: usize, address: u64, is_end: bool) -> usize {
        let (slot, key) = self.slot(program, address, is_end);
        let slot = &self.slots[slot];
        if slot.key == key { 1 + slot.trust as usize } else { 0 }
    }

    pub(super) fn first(&mut self, kind: u64, program: usize, address: u64, is_end: bool) -> bool {
        let (k, t) = (kind as usize, self.t(program, address, is_end));
        let (h, own) = (self.history as usize, usize::from(self.own[k]));
        let at = [k * 16 + t, t * 64 + h % 64, k * 256 + own, (t * 16 + h % 16) * 4 + own % 4];
        let mut predictions: Vec<Prediction> = (0..4).map(|i| self.first[i][at[i]]).collect();
        let mut weights = self.first_weights[k].clone();
        let bit = self.mixed(&mut predictions, &mut weights);
        (0..4).for_each(|i| self.first[i][at[i]] = predictions[i]);
        self.first_weights[k] = weights;
        bit
    }

    pub(super) fn second(&mut self, kind: u64, program: usize, address: u64, is_end: bool) -> bool {
        let (k, t) = (kind as usize, self.t(program, address, is_end));
        let at = [k * 4 + t.min(3), usize::from(self.own[k])];
        let mut predictions = vec![self.second[0][at[0]], self.second[1][at[1]]];
        let mut weights = self.second_weights.clone();
        let bit = self.mixed(&mut predictions, &mut weights);
        (0..2).for_each(|i| self.second[i][at[i]] = predictions[i]);
        self.second_weights = weights;
        bit
    }

    /// Section 9.9.1.
    fn mixed(&mut self, predictions: &mut [Prediction], weights: &mut [i64]) -> bool {
        let logits: Vec<i64> = predictions.iter().map(|p| self.logits[(p.0 >> 10) as usize]).collect();
        let sum: i64 = logits.iter().zip(&*weights).map(|(l, w)| l * w).sum();
        let output = (sum >> 16).clamp(-2047, 2047);
        let bit = self.bit(squash(output).clamp(1, 65535));
        let error = i64::from(bit) * 65536 - squash(output);
        for (w, l) in weights.iter_mut().zip(logits) {
            *w = (*w + ((l * (error >> 2) + 16384) >> 15)).clamp(-(1 << 20), 1 << 20);
        }
        predictions.iter_mut().for_each(|p| *p = learn(*p, bit));
        bit
    }

    /// Section 9.9.4; modulo 2^64.
    pub(super) fn step(&mut self, kind: u64) -> u64 {
        let k = kind as usize;
        let mut known = 1;
        for _ in 0..7 {
            let (bit, p) = self.plain(self.sizes[k * 128 + known]);
            self.sizes[k * 128 + known] = p;
            known = known * 2 + usize::from(bit);
        }
        let bits = (known - 128).min(63);
        if bits == 0 {
            return 0;
        }
        let (negative, p) = self.plain(self.signs[k]);
        self.signs[k] = p;
        let mut magnitude = 1u64;
        for n in 1..bits {
            let bit;
            if n <= 3 {
                let at = bits * 8 + (1 << (n - 1)) + magnitude as usize % (1 << (n - 1));
                (bit, self.tops[at]) = self.plain(self.tops[at]);
            } else {
                let at = bits * 64 + bits - 1 - n;
                (bit, self.rest[at]) = self.plain(self.rest[at]);
            }
            magnitude = magnitude * 2 + u64::from(bit);
        }
        if negative { magnitude.wrapping_neg() } else { magnitude }
    }

    /// Section 9.8, step 6, and the histories of 9.9.1.
    pub(super) fn learn(
        &mut self,
        kind: u64,
        program: usize,
        address: u64,
        is_end: bool,
        target: u64,
        right: bool,
    ) {
        let (slot, key) = self.slot(program, address, is_end);
        let slot = &mut self.slots[slot];
        slot.trust = match (slot.key == key, right, slot.trust) {
            (true, true, t) => (t + 1).min(7),
            (true, false, t) if t < 8 => 8,
            (true, false, t) => (t + 1).min(13),
            (false, true, _) => 0,
            (false, false, _) => 8,
        };
        (slot.key, slot.target) = (key, target);
        self.history = self.history << 1 | u64::from(!right);
        self.own[kind as usize] = self.own[kind as usize] << 1 | u8::from(!right);
    }
}

/// Section 7.4.1.
fn learn((probability, count): Prediction, bit: bool) -> Prediction {
    let wanted = if bit { (1 << 22) - 1 } else { 0 };
    let step = ((wanted - probability) * (131_072 / (2 * count + 3))) >> 16;
    (probability + step, (count + 1).min(255))
}
