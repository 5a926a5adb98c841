//! Section 7.4, formula by formula.

use std::collections::HashMap;
use std::sync::OnceLock;

const T: [i64; 33] = [
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793,
    47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
];

pub(super) fn squash(x: i64) -> i64 {
    let x = x.clamp(-2047, 2047) + 2048;
    let (i, f) = ((x >> 7) as usize, x & 127);
    (T[i] * (128 - f) + T[i + 1] * f) >> 7
}

fn stretch(q: i64) -> i64 {
    (-2047..=2047).find(|&x| squash(x) >> 4 >= q).unwrap_or(2047)
}

/// The logit of a probability of 22 bits; the table is the same for all streams.
pub(super) fn logit(probability: i64) -> i64 {
    static LOGITS: OnceLock<Vec<i64>> = OnceLock::new();
    LOGITS.get_or_init(|| (0..4096).map(stretch).collect())[(probability >> 10) as usize]
}

/// Section 7.4.1.
#[derive(Clone, Copy)]
struct Prediction {
    probability: i64,
    count: i64,
}

const FRESH: Prediction = Prediction { probability: 1 << 21, count: 0 };

impl Prediction {
    fn learn(&mut self, y: i64) {
        let target = if y == 1 { (1 << 22) - 1 } else { 0 };
        self.probability += ((target - self.probability) * (131_072 / (2 * self.count + 3))) >> 16;
        self.count = (self.count + 1).min(255);
    }
}

/// A bucket: what it belongs to and its predictions.
struct Bucket {
    check: u32,
    predictions: [Prediction; 16],
}

/// Decodes `n` bytes.
pub(super) fn decode(encoded: &[u8], n: usize) -> Vec<u8> {
    let s = (4 * n.max(1)).next_power_of_two().ilog2().clamp(12, 20);
    let m = n.max(1).next_power_of_two().ilog2().clamp(8, 18);
    let mut simple: HashMap<(usize, u64, usize), Prediction> = HashMap::new();
    let mut tables: [HashMap<u32, Bucket>; 5] = Default::default();
    let mut places = vec![0usize; 1 << m];
    let (mut position, mut length, mut w) = (0usize, 0usize, 0u32);
    let mut weights = [vec![[20_000i64; 8]; 256], vec![[20_000i64; 8]; 256]];
    let (mut low, mut high) = (0u32, u32::MAX);
    let byte_at = |i: usize| u32::from(encoded.get(i).copied().unwrap_or(0));
    let mut code = (0..4).fold(0u32, |c, i| c << 8 | byte_at(i));
    let mut read = 4;
    let mut out: Vec<u8> = Vec::new();
    while out.len() < n {
        let last = |k: usize| -> u64 {
            (1..=k)
                .rev()
                .map(|i| out.len().checked_sub(i).map_or(0, |j| u64::from(out[j])))
                .fold(0, |x, b| x << 8 | b)
        };
        let contexts = [last(2), last(3), last(4), last(6), u64::from(w) * 256 + last(1)];
        let mut hashes = [0u32; 5];
        for (i, x) in contexts.into_iter().enumerate() {
            let h = (x.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64;
            hashes[i] = (h.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32;
        }
        let c1 = last(1);
        let (mut p, mut half) = (1usize, 1usize);
        let mut turned = hashes;
        for b in 0..8usize {
            if b == 4 {
                turned = hashes.map(|h| h.wrapping_add(p as u32).wrapping_mul(0x9e37_79b1));
                half = 1;
            }
            if b % 4 == 0 {
                for (table, h) in tables.iter_mut().zip(turned) {
                    let bucket = table
                        .entry(h >> (32 - (s - 4)))
                        .or_insert(Bucket { check: 0, predictions: [FRESH; 16] });
                    if bucket.check != h | 1 {
                        *bucket = Bucket { check: h | 1, predictions: [FRESH; 16] };
                    }
                }
            }
            let mut inputs = [0i64; 8];
            let logit = |p: Prediction| logit(p.probability);
            inputs[0] = logit(*simple.entry((0, 0, p)).or_insert(FRESH));
            inputs[1] = logit(*simple.entry((1, c1, p)).or_insert(FRESH));
            for (i, h) in turned.into_iter().enumerate() {
                inputs[2 + i] = logit(tables[i][&(h >> (32 - (s - 4)))].predictions[half]);
            }
            let predicted =
                (length > 0).then(|| usize::from(out[position])).filter(|v| (v | 256) >> (8 - b) == p);
            let e = predicted.map(|v| v >> (7 - b) & 1);
            if let Some(e) = e {
                inputs[7] = logit(*simple.entry((7, length.min(31) as u64, e)).or_insert(FRESH));
            }
            let sets = [p, length.min(31) * 8 + b];
            let outputs = [0, 1].map(|k| {
                let sum: i64 = inputs.iter().zip(weights[k][sets[k]]).map(|(x, w)| x * w).sum();
                (sum >> 16).clamp(-2047, 2047)
            });
            let q = squash((outputs[0] + outputs[1]) >> 1).clamp(1, 65535) as u64;
            let middle = low + ((u64::from(high - low) * q) >> 16) as u32;
            let y = i64::from(code <= middle);
            if y == 1 {
                high = middle;
            } else {
                low = middle + 1;
            }
            for k in 0..2 {
                let error = y * 65536 - squash(outputs[k]);
                for (weight, x) in weights[k][sets[k]].iter_mut().zip(inputs) {
                    *weight = (*weight + ((x * (error >> 2) + 16384) >> 15)).clamp(-(1 << 20), 1 << 20);
                }
            }
            let mut learn = |key| simple.entry(key).or_insert(FRESH).learn(y);
            learn((0, 0, p));
            learn((1, c1, p));
            if let Some(e) = e {
                learn((7, length.min(31) as u64, e));
                if e as i64 != y {
                    length = 0;
                }
            }
            for (table, h) in tables.iter_mut().zip(turned) {
                if let Some(bucket) = table.get_mut(&(h >> (32 - (s - 4)))) {
                    bucket.predictions[half].learn(y);
                }
            }
            p = p * 2 + y as usize;
            half = half * 2 + y as usize;
            while low >> 24 == high >> 24 {
                low <<= 8;
                high = high << 8 | 255;
                code = code << 8 | byte_at(read);
                read += 1;
            }
        }
        let byte = (p & 255) as u8;
        out.push(byte);
        w = if byte.is_ascii_alphabetic() || byte >= 128 {
            w.wrapping_add(u32::from(byte.to_ascii_lowercase()) + 1).wrapping_mul(0x2f0b_4f35)
        } else {
            0
        };
        if length > 0 {
            position += 1;
            length = (length + 1).min(65_535);
        }
        let t = out.len();
        if t >= 5 {
            let five = out[t - 5..].iter().fold(0u64, |x, &b| x << 8 | u64::from(b));
            let z = ((five.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 >> (32 - m)) as usize;
            if length == 0 {
                position = places[z];
                while position > 0
                    && length < 32.min(position)
                    && out[position - 1 - length] == out[t - 1 - length]
                {
                    length += 1;
                }
            }
            places[z] = t;
        }
    }
    out
}
