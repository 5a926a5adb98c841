//! Method 3, `mixing`: a byte model that mixes the predictions of several contexts, bit by bit, for an arithmetic coder
//! (`docs/formats/native-delta.md`, section 7.4).
//!
//! It codes some megabytes a second both ways, so the writer gives it small streams only. All arithmetic is on integers:
//! reader and writer must agree to the last bit on every machine.

use super::logistic::{FRESH, WEIGHT, adapt, dot, rates, squash, stretch_table, train};

/// Hashed contexts: the last 2, 3, 4 and 6 bytes, and the letters since the last other byte (section 7.4.2).
const HASHED: usize = 5;
/// Inputs of the mixer: order 0, order 1, the hashed contexts, the match (section 7.4.4).
const INPUTS: usize = 8;
/// Slots of a bucket: a check and 15 predictions (section 7.4.2).
const BUCKET: usize = 16;
/// Bytes whose hash finds the last place where they stood (section 7.4.3).
const MATCH_MIN: usize = 5;
/// Longest match length that is told apart (section 7.4.3).
const MATCH_MAX: usize = 31;
/// Bytes of memory that coding a stream of `len` bytes takes besides the stream.
pub(crate) fn memory(len: usize) -> u64 {
    let slots = 1u64 << table_log(len);
    slots * 4 * HASHED as u64 + (4 << match_log(len)) + (1 << 19)
}

/// log2 of the slots of one hashed context (section 7.4.2).
fn table_log(len: usize) -> u32 {
    (len.max(1) as u64 * 4).next_power_of_two().ilog2().clamp(12, 20)
}

/// log2 of the entries that find matches (section 7.4.3).
fn match_log(len: usize) -> u32 {
    (len.max(1) as u64).next_power_of_two().ilog2().clamp(8, 18)
}

/// A check and 15 predictions. They lie in one line of the cache: turning to a bucket is what takes most of the time.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket([u32; BUCKET]);

struct Model {
    stretch: Vec<i16>,
    /// 65536 / (n + 1.5), by number of observations.
    rate: Vec<u32>,
    order0: Vec<u32>,
    order1: Vec<u32>,
    tables: [Vec<Bucket>; HASHED],
    table_shift: u32,
    /// The present bucket of each hashed context.
    buckets: [usize; HASHED],
    hashes: [u32; HASHED],
    /// Bits of the present byte behind a leading one, 1..=255.
    partial: usize,
    /// Bits of the present half byte behind a leading one, 1..=15.
    nibble: usize,
    bits: u32,
    last8: u64,
    word: u32,
    places: Vec<u32>,
    match_shift: u32,
    match_at: usize,
    match_len: usize,
    match_hits: Vec<u32>,
    inputs: [i32; INPUTS],
    weights_by_byte: Vec<[i32; INPUTS]>,
    weights_by_match: Vec<[i32; INPUTS]>,
    outputs: [i32; 2],
}

impl Model {
    fn new(len: usize) -> Self {
        let log = table_log(len);
        let mut model = Model {
            stretch: stretch_table(),
            rate: rates(),
            order0: vec![FRESH; 256],
            order1: vec![FRESH; 1 << 16],
            tables: std::array::from_fn(|_| vec![Bucket([0; BUCKET]); (1 << log) / BUCKET]),
            table_shift: 32 - (log - 4),
            buckets: [0; HASHED],
            hashes: [0; HASHED],
            partial: 1,
            nibble: 1,
            bits: 0,
            last8: 0,
            word: 0,
            places: vec![0; 1 << match_log(len)],
            match_shift: 32 - match_log(len),
            match_at: 0,
            match_len: 0,
            match_hits: vec![FRESH; 2 * (MATCH_MAX + 1)],
            inputs: [0; INPUTS],
            weights_by_byte: vec![[WEIGHT; INPUTS]; 256],
            weights_by_match: vec![[WEIGHT; INPUTS]; (MATCH_MAX + 1) * 8],
            outputs: [0; 2],
        };
        model.begin_byte();
        model
    }

    /// Whether the byte that the match predicts agrees with the bits known of this one; its next bit if so.
    fn expected_bit(&self, history: &[u8]) -> Option<u32> {
        if self.match_len == 0 {
            return None;
        }
        let byte = u32::from(history[self.match_at]) | 256;
        (byte >> (8 - self.bits) == self.partial as u32).then_some(byte >> (7 - self.bits) & 1)
    }

    fn match_slot(&self, expected: u32) -> usize {
        self.match_len.min(MATCH_MAX) * 2 + expected as usize
    }

    /// Probability out of 65536 that the next bit is 1.
    fn predict(&mut self, history: &[u8]) -> u32 {
        let logit = |stretch: &[i16], slot: u32| i32::from(stretch[(slot >> 20) as usize]);
        self.inputs[0] = logit(&self.stretch, self.order0[self.partial]);
        let order1 = (self.last8 as usize & 255) << 8 | self.partial;
        self.inputs[1] = logit(&self.stretch, self.order1[order1]);
        for i in 0..HASHED {
            let slot = self.tables[i][self.buckets[i]].0[self.nibble & (BUCKET - 1)];
            self.inputs[2 + i] = logit(&self.stretch, slot);
        }
        self.inputs[7] = match self.expected_bit(history) {
            Some(bit) => logit(&self.stretch, self.match_hits[self.match_slot(bit)]),
            None => 0,
        };
        let set = self.match_set();
        self.outputs[0] = dot(&self.inputs, &self.weights_by_byte[self.partial]);
        self.outputs[1] = dot(&self.inputs, &self.weights_by_match[set]);
        squash((self.outputs[0] + self.outputs[1]) >> 1).clamp(1, 65535) as u32
    }

    fn match_set(&self) -> usize {
        self.match_len.min(MATCH_MAX) * 8 + self.bits as usize
    }

    /// Learns the bit that was predicted.
    fn update(&mut self, bit: u32, history: &[u8]) {
        let set = self.match_set();
        train(&mut self.weights_by_byte[self.partial], &self.inputs, self.outputs[0], bit);
        train(&mut self.weights_by_match[set], &self.inputs, self.outputs[1], bit);
        adapt(&mut self.order0[self.partial], bit, &self.rate);
        adapt(&mut self.order1[(self.last8 as usize & 255) << 8 | self.partial], bit, &self.rate);
        for i in 0..HASHED {
            let bucket = &mut self.tables[i][self.buckets[i]].0;
            adapt(&mut bucket[self.nibble & (BUCKET - 1)], bit, &self.rate);
        }
        if let Some(expected) = self.expected_bit(history) {
            let slot = self.match_slot(expected);
            adapt(&mut self.match_hits[slot], bit, &self.rate);
            if expected != bit {
                self.match_len = 0;
            }
        }
        self.partial = self.partial << 1 | bit as usize;
        self.nibble = self.nibble << 1 | bit as usize;
        self.bits += 1;
        if self.bits == 4 {
            let partial = self.partial as u32;
            self.turn(self.hashes.map(|hash| hash.wrapping_add(partial).wrapping_mul(0x9e37_79b1)));
            self.nibble = 1;
        }
    }

    /// Takes in the byte just completed, the last of `history`.
    fn end_byte(&mut self, history: &[u8]) {
        let byte = self.partial as u8;
        self.last8 = self.last8 << 8 | u64::from(byte);
        self.word = if byte.is_ascii_alphabetic() || byte >= 128 {
            self.word.wrapping_add(u32::from(byte.to_ascii_lowercase()) + 1).wrapping_mul(0x2f0b_4f35)
        } else {
            0
        };
        self.partial = 1;
        self.bits = 0;
        if self.match_len > 0 {
            self.match_at += 1;
            self.match_len = (self.match_len + 1).min(65_535);
        }
        if history.len() >= MATCH_MIN {
            let five = self.last8 & 0xff_ffff_ffff;
            let place = (five.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 >> self.match_shift;
            if self.match_len == 0 {
                self.match_at = self.places[place as usize] as usize;
                if self.match_at > 0 {
                    let older = history[..self.match_at].iter().rev();
                    let run = older.zip(history.iter().rev()).take(MATCH_MAX + 1);
                    self.match_len = run.take_while(|(a, b)| a == b).count();
                }
            }
            self.places[place as usize] = history.len() as u32;
        }
        self.begin_byte();
    }

    /// Finds the buckets for the first half of the next byte.
    fn begin_byte(&mut self) {
        self.nibble = 1;
        let last = |n: u32| self.last8 & ((1u64 << (8 * n)) - 1);
        let contexts = [last(2), last(3), last(4), last(6), u64::from(self.word) << 8 | self.last8 & 255];
        for (i, context) in contexts.into_iter().enumerate() {
            let key = (context.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i as u64;
            self.hashes[i] = (key.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32;
        }
        self.turn(self.hashes);
    }

    /// Turns to the buckets of some hashes, and empties those that were others'.
    fn turn(&mut self, hashes: [u32; HASHED]) {
        self.buckets = hashes.map(|hash| (hash >> self.table_shift) as usize);
        // All are fetched before one is looked at.
        let checks: [u32; HASHED] = std::array::from_fn(|i| self.tables[i][self.buckets[i]].0[0]);
        for i in 0..HASHED {
            let check = hashes[i] | 1;
            if checks[i] != check {
                let bucket = &mut self.tables[i][self.buckets[i]].0;
                bucket.fill(FRESH);
                bucket[0] = check;
            }
        }
    }
}

/// Encodes `data`.
pub(crate) fn encode(data: &[u8]) -> Vec<u8> {
    let mut model = Model::new(data.len());
    let mut out = Vec::with_capacity(data.len() / 3);
    let (mut low, mut high) = (0u32, u32::MAX);
    for (i, &byte) in data.iter().enumerate() {
        for shift in (0..8).rev() {
            let bit = u32::from(byte >> shift) & 1;
            let middle = split(low, high, model.predict(&data[..i]));
            if bit == 1 {
                high = middle;
            } else {
                low = middle + 1;
            }
            model.update(bit, &data[..i]);
            while (low ^ high) >> 24 == 0 {
                out.push((high >> 24) as u8);
                low <<= 8;
                high = high << 8 | 255;
            }
        }
        model.end_byte(&data[..=i]);
    }
    // The first bytes of low and high differ, so one byte names a point between them: a reader takes zeros for what
    // is missing.
    if low > 0 {
        out.push((low >> 24) as u8 + 1);
    }
    while out.last() == Some(&0) {
        out.pop();
    }
    out
}

/// Decodes `len` bytes; any input decodes to something.
pub(crate) fn decode(encoded: &[u8], len: usize) -> Vec<u8> {
    let mut model = Model::new(len);
    let mut out = Vec::with_capacity(len);
    let mut input = encoded.iter().copied().chain(std::iter::repeat(0));
    let mut next = move || u32::from(input.next().unwrap_or(0));
    let (mut low, mut high) = (0u32, u32::MAX);
    let mut code = (0..4).fold(0, |code, _| code << 8 | next());
    for _ in 0..len {
        let mut byte = 0;
        for _ in 0..8 {
            let middle = split(low, high, model.predict(&out));
            let bit = u32::from(code <= middle);
            if bit == 1 {
                high = middle;
            } else {
                low = middle + 1;
            }
            model.update(bit, &out);
            byte = byte << 1 | bit as u8;
            while (low ^ high) >> 24 == 0 {
                low <<= 8;
                high = high << 8 | 255;
                code = code << 8 | next();
            }
        }
        out.push(byte);
        model.end_byte(&out);
    }
    out
}

/// Where the interval is cut: up to here the bit is 1.
fn split(low: u32, high: u32, probability: u32) -> u32 {
    let range = u64::from(high - low);
    low + ((range * u64::from(probability)) >> 16) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, mutate};

    #[test]
    fn streams_come_back() {
        let text = b"the lightest boat there is, and the lightest boat there was. ".repeat(40);
        let noise = binary(3, 20_000);
        let mixed = [&text[..], &mutate(&noise, 4, 30), &text, &noise].concat();
        for data in [&b""[..], b"a", b"\0", b"\xff\xff", &[0; 5000], &[255; 5000], &text, &mixed] {
            let encoded = encode(data);
            assert!(decode(&encoded, data.len()) == data, "{} bytes", data.len());
        }
        assert!(encode(&text).len() < 90, "{}", encode(&text).len());
        assert!(encode(&[0; 100_000]).len() < 60);
    }

    #[test]
    fn any_input_decodes_to_the_length_asked_for() {
        for len in [0, 1, 100, 5000] {
            assert_eq!(decode(&[0xa5; 64], len).len(), len);
            assert_eq!(decode(&[], len).len(), len);
        }
    }
}
