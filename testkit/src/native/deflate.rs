//! Section 8.3: deflate streams as zlib and gzip make them.

use std::collections::HashMap;

/// A literal, or a match: distance and length.
#[derive(Clone, Copy)]
pub(super) enum Token {
    Literal(u8),
    Match(usize, usize),
}

/// good, lazy, nice, chain and whether it is slow, for levels 1 to 9.
const LEVELS: [(usize, usize, usize, u32, bool); 9] = [
    (4, 4, 8, 4, false),
    (4, 5, 16, 8, false),
    (4, 6, 32, 32, false),
    (4, 4, 16, 16, true),
    (8, 16, 32, 32, true),
    (8, 16, 128, 128, true),
    (8, 32, 128, 256, true),
    (32, 128, 258, 1024, true),
    (32, 258, 258, 4096, true),
];

/// What an encoder, by its number, makes of `content`.
pub(super) fn encode(content: &[u8], encoder: u64) -> Result<Vec<u8>, String> {
    let (gzip, level, memory) = match (encoder >> 8, encoder >> 4 & 15, encoder & 15) {
        (0 | 4, level @ 1..=9, memory @ 1..=9) => (false, level, memory),
        (1, level @ 1..=9, 9) => (true, level, 9),
        _ => return Err(format!("encoder {encoder}")),
    };
    let mut e = Encoder {
        b: content,
        gzip,
        filtered: encoder >> 8 == 4,
        level: level as usize,
        k: if gzip { 15 } else { memory as u32 + 7 },
        full: (1 << (memory + 6)) - 1,
        latest: HashMap::new(),
        links: vec![0; content.len()],
        tokens: Vec::new(),
        start: 0,
        bits: Vec::new(),
    };
    if LEVELS[e.level - 1].4 {
        e.slow()
    } else {
        e.fast()
    }
    e.block(content.len(), true);
    Ok(e.bits.chunks(8).map(|c| c.iter().rev().fold(0, |x, &b| x << 1 | u8::from(b))).collect())
}

struct Encoder<'a> {
    b: &'a [u8],
    gzip: bool,
    filtered: bool,
    level: usize,
    k: u32,
    full: usize,
    latest: HashMap<u64, usize>,
    links: Vec<usize>,
    tokens: Vec<Token>,
    start: usize,
    bits: Vec<bool>,
}

impl Encoder<'_> {
    /// Section 8.3.1.
    fn enter(&mut self, i: usize) -> usize {
        if !self.gzip && self.b.len() - i < 3 {
            return 0;
        }
        let h = self.k.div_ceil(3);
        let byte = |j: usize| self.b.get(j).copied().map_or(0, u64::from);
        let hash = (byte(i) << (2 * h) ^ byte(i + 1) << h ^ byte(i + 2)) % (1 << self.k);
        let before = self.latest.insert(hash, i).unwrap_or(0);
        self.links[i] = before;
        before
    }

    /// Position and length of the best match of more than `least` bytes.
    fn search(&self, at: usize, first: usize, least: usize) -> Option<(usize, usize)> {
        let (good, _, nice, chain, _) = LEVELS[self.level - 1];
        let left = self.b.len() - at;
        let nice = if self.gzip { nice } else { nice.min(left) };
        let steps = if least >= good { chain / 4 } else { chain };
        let (mut best, mut len, mut candidate) = (None, least, first);
        for _ in 0..steps {
            let agree = (0..left.min(258)).take_while(|&i| self.b[candidate + i] == self.b[at + i]).count();
            if agree > len {
                (best, len) = (Some((candidate, agree)), agree);
                if agree >= nice {
                    break;
                }
            }
            candidate = self.links[candidate];
            if candidate == 0 || at - candidate > 32506 {
                break;
            }
        }
        best
    }

    /// Adds a token; whether the block is full at `at`.
    fn emit(&mut self, token: Token, at: usize) -> bool {
        self.tokens.push(token);
        let n = self.tokens.len();
        if self.gzip && self.level >= 3 && n.is_multiple_of(4096) {
            let matches = self.tokens.iter().filter_map(|t| match t {
                Token::Match(distance, _) => Some(5 + distance_code(*distance).1 as usize),
                Token::Literal(_) => None,
            });
            let (count, bits) = matches.fold((0, 0), |(c, b), x| (c + 1, b + x));
            if count < n / 2 && (8 * n + bits) >> 3 < (at - self.start) / 2 {
                return true;
            }
        }
        n == self.full
    }

    fn fast(&mut self) {
        let lazy = LEVELS[self.level - 1].1;
        let mut at = 0;
        while at < self.b.len() {
            let candidate = self.enter(at);
            let usable = candidate != 0 && at - candidate <= 32506;
            let full = match usable.then(|| self.search(at, candidate, 2)).flatten() {
                Some((from, len)) => {
                    let full = self.emit(Token::Match(at - from, len), at);
                    if len <= lazy && (self.gzip || self.b.len() - at - len >= 3) {
                        (at + 1..at + len).for_each(|i| {
                            self.enter(i);
                        });
                    }
                    at += len;
                    full
                }
                None => {
                    at += 1;
                    self.emit(Token::Literal(self.b[at - 1]), at - 1)
                }
            };
            if full {
                self.block(at, false);
            }
        }
    }

    fn slow(&mut self) {
        let lazy = LEVELS[self.level - 1].1;
        let (mut at, mut len, mut from, mut waits) = (0, 2, 0, false);
        while at < self.b.len() {
            let candidate = self.enter(at);
            let (before, source) = (len, from);
            len = 2;
            if candidate != 0 && at - candidate <= 32506 && before < lazy {
                match self.search(at, candidate, before) {
                    Some(found) => (from, len) = found,
                    None => len = before.min(self.b.len() - at),
                }
                if len == 3 && at - from > 4096 || self.filtered && len <= 5 {
                    len = 2;
                }
            }
            if before >= 3 && len <= before {
                let full = self.emit(Token::Match(at - 1 - source, before), at);
                for i in at + 1..=at + before - 2 {
                    self.enter(i);
                }
                at += before - 1;
                (waits, len) = (false, 2);
                if full {
                    self.block(at, false);
                }
            } else {
                if waits && self.emit(Token::Literal(self.b[at - 1]), at) {
                    self.block(at, false);
                }
                waits = true;
                at += 1;
            }
        }
        if waits {
            self.emit(Token::Literal(self.b[at - 1]), at);
        }
    }

    fn put(&mut self, value: u64, bits: u32) {
        (0..bits).for_each(|i| self.bits.push(value >> i & 1 == 1));
    }

    /// Section 8.3.3.
    fn block(&mut self, end: usize, last: bool) {
        let content = &self.b[self.start..end];
        let tokens = std::mem::take(&mut self.tokens);
        let (mut literals, mut distances) = (vec![0u32; 286], vec![0u32; 30]);
        literals[256] = 1;
        for token in &tokens {
            match *token {
                Token::Literal(byte) => literals[usize::from(byte)] += 1,
                Token::Match(distance, len) => {
                    literals[length_code(len).0] += 1;
                    distances[distance_code(distance).0] += 1;
                }
            }
        }
        let (l, l_most) = lengths(&literals, 15);
        let (d, d_most) = lengths(&distances, 15);
        let runs = [runs(&l[..=l_most]), runs(&d[..=d_most])].concat();
        let mut codes = vec![0u32; 19];
        runs.iter().for_each(|r| codes[r.0] += 1);
        let (c, _) = lengths(&codes, 7);
        let sent = (3..19).rev().find(|&i| c[ORDER[i]] != 0).unwrap_or(2) + 1;
        let fixed_l = fixed_lengths();
        let body = |l: &[u8], d: &[u8]| -> u64 {
            let extra = |i: usize| if i < 257 { 0 } else { u64::from(LENGTHS[i - 257].1) };
            let a: u64 =
                literals.iter().enumerate().map(|(i, &n)| u64::from(n) * (u64::from(l[i]) + extra(i))).sum();
            let b = distances
                .iter()
                .enumerate()
                .map(|(i, &n)| u64::from(n) * (u64::from(d[i]) + (i as u64 / 2).saturating_sub(1)));
            a + b.sum::<u64>()
        };
        let coded: u64 = runs.iter().map(|r| u64::from(c[r.0]) + u64::from(r.1)).sum();
        let dynamic = (body(&l, &d) + coded + 3 * sent as u64 + 14 + 10) >> 3;
        let fixed = (body(&fixed_l, &[5; 30]) + 10) >> 3;
        let stored = content.len() as u64 + 4;
        let last_bit = u64::from(last);
        if stored <= dynamic.min(fixed) && content.len() <= 65_535 {
            self.put(last_bit, 3);
            self.align();
            self.put(content.len() as u64, 16);
            self.put(!(content.len() as u64) & 0xffff, 16);
            content.iter().for_each(|&b| self.put(b.into(), 8));
        } else if fixed <= dynamic {
            self.put(2 | last_bit, 3);
            self.body(&tokens, &canonical(&fixed_l), &canonical(&[5; 30]));
        } else {
            self.put(4 | last_bit, 3);
            self.put(l_most as u64 - 256, 5);
            self.put(d_most as u64, 5);
            self.put(sent as u64 - 4, 4);
            ORDER[..sent].iter().for_each(|&i| self.put(c[i].into(), 3));
            let of = canonical(&c);
            for (code, bits, value) in runs {
                self.code(of[code]);
                self.put(value, bits);
            }
            self.body(&tokens, &canonical(&l), &canonical(&d));
        }
        if last {
            self.align();
        }
        self.start = end;
    }

    fn align(&mut self) {
        let len = self.bits.len().next_multiple_of(8);
        self.bits.resize(len, false);
    }

    /// Huffman codes go highest bit first.
    fn code(&mut self, (code, len): (u64, u8)) {
        (0..len).rev().for_each(|i| self.bits.push(code >> i & 1 == 1));
    }

    fn body(&mut self, tokens: &[Token], l: &[(u64, u8)], d: &[(u64, u8)]) {
        for token in tokens {
            match *token {
                Token::Literal(byte) => self.code(l[usize::from(byte)]),
                Token::Match(distance, len) => {
                    let (code, bits, value) = length_code(len);
                    self.code(l[code]);
                    self.put(value, bits);
                    let (code, bits, value) = distance_code(distance);
                    self.code(d[code]);
                    self.put(value, bits);
                }
            }
        }
        self.code(l[256]);
    }
}

/// In which order lengths of the codes of lengths are sent (RFC 1951, section 3.2.7).
pub(super) const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// Lengths of the fixed codes of literals and lengths (RFC 1951, section 3.2.6).
pub(super) fn fixed_lengths() -> Vec<u8> {
    let len = |i| match i {
        0..144 | 280.. => 8,
        144..256 => 9,
        _ => 7,
    };
    (0..288).map(len).collect()
}

/// Smallest length and extra bits of codes 257 to 285 (RFC 1951, section 3.2.5).
const LENGTHS: [(usize, u32); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

pub(super) fn length_code(len: usize) -> (usize, u32, u64) {
    let i = LENGTHS.iter().rposition(|l| l.0 <= len).unwrap_or(0);
    (257 + i, LENGTHS[i].1, (len - LENGTHS[i].0) as u64)
}

pub(super) fn distance_code(distance: usize) -> (usize, u32, u64) {
    let base = |i: usize| if i < 4 { i + 1 } else { ((2 + i % 2) << (i / 2 - 1)) + 1 };
    let i = (0..30).rev().find(|&i| base(i) <= distance).unwrap_or(0);
    (i, (i as u32 / 2).saturating_sub(1), (distance - base(i)) as u64)
}

/// Code lengths by the rules of section 8.3.3, and the largest symbol with a code.
pub(super) fn lengths(counts: &[u32], most: usize) -> (Vec<u8>, usize) {
    let n = counts.len();
    let mut nodes: Vec<(u32, u32)> = counts.iter().map(|&c| (c, 0)).collect();
    let mut heap: Vec<usize> = vec![usize::MAX];
    heap.extend((0..n).filter(|&i| counts[i] > 0));
    let mut largest = (0..n).rev().find(|&i| counts[i] > 0);
    while heap.len() < 3 {
        let symbol = match largest {
            None => 0,
            Some(l) if l < 2 => l + 1,
            Some(_) => 0,
        };
        if largest.is_none_or(|l| l < 2) {
            largest = Some(symbol);
        }
        nodes[symbol] = (1, 0);
        heap.push(symbol);
    }
    fn before(nodes: &[(u32, u32)], a: usize, b: usize) -> bool {
        nodes[a] <= nodes[b]
    }
    fn sift(heap: &mut [usize], nodes: &[(u32, u32)], mut at: usize) {
        let node = heap[at];
        while 2 * at < heap.len() {
            let mut child = 2 * at;
            if child + 1 < heap.len() && before(nodes, heap[child + 1], heap[child]) {
                child += 1;
            }
            if before(nodes, node, heap[child]) {
                break;
            }
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = node;
    }
    (1..=(heap.len() - 1) / 2).rev().for_each(|i| sift(&mut heap, &nodes, i));
    let (mut taken, mut parents) = (Vec::new(), vec![0; 2 * n + 2]);
    while heap.len() > 2 {
        let a = heap[1];
        heap[1] = heap[heap.len() - 1];
        heap.pop();
        sift(&mut heap, &nodes, 1);
        let b = heap[1];
        let joined = nodes.len();
        nodes.push((nodes[a].0 + nodes[b].0, nodes[a].1.max(nodes[b].1) + 1));
        (parents[a], parents[b]) = (joined, joined);
        taken.extend([a, b]);
        heap[1] = joined;
        sift(&mut heap, &nodes, 1);
    }
    let mut lens = vec![0usize; nodes.len()];
    let (mut in_use, mut too_long) = (vec![0i64; most + 1], 0i64);
    for &i in taken.iter().rev() {
        lens[i] = lens[parents[i]] + 1;
        if lens[i] > most {
            lens[i] = most;
            too_long += 1;
        }
        if i < n {
            in_use[lens[i]] += 1;
        }
    }
    if too_long > 0 {
        while too_long > 0 {
            let len = (1..most).rev().find(|&l| in_use[l] > 0).unwrap_or(1);
            in_use[len] -= 1;
            in_use[len + 1] += 2;
            in_use[most] -= 1;
            too_long -= 2;
        }
        let mut symbols = taken.iter().filter(|&&i| i < n);
        for len in (1..=most).rev() {
            for _ in 0..in_use[len] {
                if let Some(&i) = symbols.next() {
                    lens[i] = len;
                }
            }
        }
    }
    (lens[..n].iter().map(|&l| l as u8).collect(), largest.unwrap_or(0))
}

/// Runs of code lengths: code, extra bits and their value.
pub(super) fn runs(lens: &[u8]) -> Vec<(usize, u32, u64)> {
    let mut out = Vec::new();
    let (mut at, mut before) = (0, None);
    while at < lens.len() {
        let len = lens[at];
        let repeats = before == Some(len) && len != 0;
        let most = if len == 0 {
            138
        } else if repeats {
            6
        } else {
            7
        };
        let run = lens[at..].iter().take(most).take_while(|&&l| l == len).count();
        match (len, repeats) {
            (0, _) if run >= 11 => out.push((18, 7, run as u64 - 11)),
            (0, _) if run >= 3 => out.push((17, 3, run as u64 - 3)),
            (1.., true) if run >= 3 => out.push((16, 2, run as u64 - 3)),
            (1.., false) if run >= 4 => out.extend([(len.into(), 0, 0), (16, 2, run as u64 - 4)]),
            _ => out.extend((0..run).map(|_| (usize::from(len), 0, 0))),
        }
        (at, before) = (at + run, Some(len));
    }
    out
}

/// Canonical codes (RFC 1951, section 3.2.2).
pub(super) fn canonical(lens: &[u8]) -> Vec<(u64, u8)> {
    let mut next = 0;
    let mut out = vec![(0, 0); lens.len()];
    for len in 1..=15 {
        next <<= 1;
        for (i, _) in lens.iter().enumerate().filter(|(_, l)| **l == len) {
            out[i] = (next, len);
            next += 1;
        }
    }
    out
}
