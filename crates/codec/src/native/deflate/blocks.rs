//! How the encoders cut a stream into blocks and code them (`docs/formats/native-delta.md`, section 8.3.3).

use super::{Encoder, Family};

/// Literal and length codes, distance codes, code length codes (RFC 1951, section 3.2).
pub(super) const L_CODES: usize = 286;
pub(super) const D_CODES: usize = 30;
pub(super) const BL_CODES: usize = 19;
pub(super) const END: usize = 256;
pub(super) const MAX_BITS: usize = 15;
pub(super) const MAX_BL_BITS: usize = 7;
/// Nodes of the largest tree.
const HEAP: usize = 2 * L_CODES + 1;

/// Order in which code lengths of code lengths are sent (RFC 1951, section 3.2.7).
pub(super) const BL_ORDER: [usize; BL_CODES] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
pub(super) const L_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const BL_EXTRA: [u8; BL_CODES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 7];

pub(super) fn d_extra(code: usize) -> u32 {
    (code as u32 / 2).saturating_sub(1)
}

/// Code, extra bits and their value for a match length.
pub(super) fn length_code(len: usize) -> (usize, u32, u32) {
    if len == 258 {
        return (285, 0, 0);
    }
    let mut base = 3;
    for (i, &extra) in L_EXTRA[..28].iter().enumerate() {
        let span = 1usize << extra;
        if len < base + span {
            return (257 + i, u32::from(extra), (len - base) as u32);
        }
        base += span;
    }
    unreachable!("a match of {len} bytes")
}

/// Code, extra bits and their value for a distance.
pub(super) fn distance_code(distance: usize) -> (usize, u32, u32) {
    let d = distance as u32 - 1;
    if d < 4 {
        return (d as usize, 0, 0);
    }
    let extra = d.ilog2() - 1;
    ((2 * extra + 2 + (d >> extra & 1)) as usize, extra, d & ((1 << extra) - 1))
}

/// Code lengths of fixed blocks (RFC 1951, section 3.2.6).
pub(super) fn fixed_len(code: usize) -> u8 {
    match code {
        0..=143 | 280.. => 8,
        144..=255 => 9,
        256..=279 => 7,
    }
}

/// Collects literals and matches, and writes blocks.
pub(super) struct Blocks {
    gzip: bool,
    level: u8,
    /// A block is full with this many literals and matches.
    full: usize,
    /// Literals and matches of the block: distance (0: literal), and byte or length.
    tokens: Vec<(u16, u16)>,
    matches: usize,
    l_count: [u32; L_CODES],
    d_count: [u32; D_CODES],
    length_codes: [(u16, u8, u8); 259],
    bits: Bits,
}

impl Blocks {
    pub(super) fn new(encoder: Encoder) -> Self {
        let mut blocks = Blocks {
            gzip: encoder.family == Family::Gzip,
            level: encoder.level,
            full: (1usize << (encoder.mem_level + 6)) - 1,
            tokens: Vec::new(),
            matches: 0,
            l_count: [0; L_CODES],
            d_count: [0; D_CODES],
            length_codes: std::array::from_fn(|len| match len {
                0..3 => (0, 0, 0),
                _ => {
                    let (code, extra, value) = length_code(len);
                    (code as u16, extra as u8, value as u8)
                }
            }),
            bits: Bits::default(),
        };
        blocks.l_count[END] = 1;
        blocks
    }

    /// Adds a literal; `covered` bytes of the block lie before the encoder's position. Whether the block is full.
    pub(super) fn literal(&mut self, byte: u8, covered: usize) -> bool {
        self.tokens.push((0, u16::from(byte)));
        self.l_count[usize::from(byte)] += 1;
        self.is_full(covered)
    }

    /// Adds a match.
    pub(super) fn copy(&mut self, distance: usize, len: usize, covered: usize) -> bool {
        self.tokens.push((distance as u16, len as u16));
        self.matches += 1;
        self.l_count[usize::from(self.length_codes[len].0)] += 1;
        self.d_count[distance_code(distance).0] += 1;
        self.is_full(covered)
    }

    fn is_full(&self, covered: usize) -> bool {
        // gzip looks every 4096 tokens whether the block compresses well and ends it if so.
        if self.gzip && self.level > 2 && self.tokens.len().is_multiple_of(4096) {
            let distances: usize =
                self.d_count.iter().enumerate().map(|(i, &n)| n as usize * (5 + d_extra(i) as usize)).sum();
            let bytes = (self.tokens.len() * 8 + distances) >> 3;
            if self.matches < self.tokens.len() / 2 && bytes < covered / 2 {
                return true;
            }
        }
        self.tokens.len() == self.full
    }

    /// Ends the block, which stands for `content`.
    pub(super) fn flush(&mut self, content: &[u8], last: bool) {
        let mut literals =
            Tree::new(&self.l_count, MAX_BITS, |i| if i < 257 { 0 } else { u32::from(L_EXTRA[i - 257]) });
        let mut distances = Tree::new(&self.d_count, MAX_BITS, d_extra);
        let mut bl_count = [0; BL_CODES];
        for tree in [&literals, &distances] {
            code_lengths(&tree.lens[..=tree.max_code], |code, _, _| bl_count[code] += 1);
        }
        let runs = Tree::new(&bl_count, MAX_BL_BITS, |i| u32::from(BL_EXTRA[i]));
        let sent = (3..BL_CODES).rev().find(|&i| runs.lens[BL_ORDER[i]] != 0).unwrap_or(2) + 1;
        let optimal = literals.bits + distances.bits + runs.bits + 3 * sent as u64 + 14;
        let fixed: u64 = (0..L_CODES)
            .map(|i| u64::from(self.l_count[i]) * (u64::from(fixed_len(i)) + u64::from(literals.extra[i])))
            .sum::<u64>()
            + (0..D_CODES).map(|i| u64::from(self.d_count[i]) * u64::from(5 + d_extra(i))).sum::<u64>();
        let (optimal, fixed) = ((optimal + 3 + 7) >> 3, (fixed + 3 + 7) >> 3);
        let best = optimal.min(fixed);
        let last = u32::from(last);
        if content.len() as u64 + 4 <= best && content.len() <= 0xffff {
            self.bits.put(last, 3);
            self.bits.align();
            let len = content.len() as u32;
            self.bits.put(len, 16);
            self.bits.put(!len & 0xffff, 16);
            self.bits.out.extend_from_slice(content);
        } else if fixed == best {
            self.bits.put(1 << 1 | last, 3);
            literals.lens = (0..L_CODES + 2).map(fixed_len).collect();
            distances.lens = vec![5; D_CODES];
            self.body(&codes(&literals.lens), &codes(&distances.lens));
        } else {
            self.bits.put(2 << 1 | last, 3);
            self.bits.put(literals.max_code as u32 + 1 - 257, 5);
            self.bits.put(distances.max_code as u32 + 1 - 1, 5);
            self.bits.put(sent as u32 - 4, 4);
            for &code in &BL_ORDER[..sent] {
                self.bits.put(u32::from(runs.lens[code]), 3);
            }
            let of = codes(&runs.lens);
            for tree in [&literals, &distances] {
                let bits = &mut self.bits;
                code_lengths(&tree.lens[..=tree.max_code], |code, extra, value| {
                    bits.put(u32::from(of[code].0), of[code].1.into());
                    bits.put(value, extra);
                });
            }
            self.body(&codes(&literals.lens), &codes(&distances.lens));
        }
        if last == 1 {
            self.bits.align();
        }
        self.tokens.clear();
        self.matches = 0;
        self.l_count = [0; L_CODES];
        self.d_count = [0; D_CODES];
        self.l_count[END] = 1;
    }

    fn body(&mut self, literals: &[(u16, u8)], distances: &[(u16, u8)]) {
        let put = |bits: &mut Bits, (code, len): (u16, u8)| bits.put(code.into(), len.into());
        for &(distance, value) in &self.tokens {
            if distance == 0 {
                put(&mut self.bits, literals[usize::from(value)]);
                continue;
            }
            let (code, extra, value) = self.length_codes[usize::from(value)];
            put(&mut self.bits, literals[usize::from(code)]);
            self.bits.put(value.into(), extra.into());
            let (code, extra, value) = distance_code(usize::from(distance));
            put(&mut self.bits, distances[code]);
            self.bits.put(value, extra);
        }
        put(&mut self.bits, literals[END]);
    }

    /// The bytes that are complete.
    pub(super) fn complete(&self) -> &[u8] {
        &self.bits.out
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bits.out
    }
}

/// A Huffman code as zlib builds it: ties are broken by depth, and what is too long is moved up its way.
pub(super) struct Tree {
    pub(super) lens: Vec<u8>,
    extra: Vec<u8>,
    max_code: usize,
    /// Bits that all symbols take with their extra bits.
    bits: u64,
}

impl Tree {
    pub(super) fn new(counts: &[u32], max_len: usize, extra: impl Fn(usize) -> u32) -> Self {
        let n = counts.len();
        let extra: Vec<u8> = (0..n).map(|i| extra(i) as u8).collect();
        let real: Vec<u32> = counts.to_vec();
        let mut freq = [0u32; HEAP];
        freq[..n].copy_from_slice(counts);
        let mut depth = [0u8; HEAP];
        let mut parent = [0usize; HEAP];
        let mut heap = Heap { nodes: Vec::with_capacity(n + 1) };
        heap.nodes.push(0);
        let mut max_code = None;
        for (i, _) in freq[..n].iter().enumerate().filter(|(_, f)| **f != 0) {
            heap.nodes.push(i);
            max_code = Some(i);
        }
        // A code has at least two symbols; the ones added are those with the lowest numbers.
        while heap.nodes.len() < 3 {
            let node = match max_code {
                None => 0,
                Some(m) if m < 2 => m + 1,
                Some(_) => 0,
            };
            if max_code.is_none_or(|m| m < 2) {
                max_code = Some(node);
            }
            heap.nodes.push(node);
            freq[node] = 1;
        }
        let max_code = max_code.unwrap_or(0);
        for i in (1..=(heap.nodes.len() - 1) / 2).rev() {
            heap.sift(i, &freq, &depth);
        }
        // Nodes in order of removal; the lengths are handed down from the last.
        let mut removed = Vec::with_capacity(HEAP);
        let mut node = n;
        loop {
            let a = heap.pop(&freq, &depth);
            let b = heap.nodes[1];
            removed.push(a);
            removed.push(b);
            freq[node] = freq[a] + freq[b];
            depth[node] = depth[a].max(depth[b]) + 1;
            parent[a] = node;
            parent[b] = node;
            heap.nodes[1] = node;
            node += 1;
            heap.sift(1, &freq, &depth);
            if heap.nodes.len() < 3 {
                break;
            }
        }
        let mut lens = [0u8; HEAP];
        let mut per_len = [0u32; MAX_BITS + 1];
        let mut overflow = 0;
        let root = node - 1;
        for &i in removed.iter().rev() {
            let mut len = if parent[i] == root { 1 } else { usize::from(lens[parent[i]]) + 1 };
            if len > max_len {
                len = max_len;
                overflow += 1;
            }
            lens[i] = len as u8;
            if i < n {
                per_len[len] += 1;
            }
        }
        if overflow > 0 {
            shorten(&mut per_len, overflow, max_len);
            let mut order = removed.iter().filter(|&&i| i < n);
            for len in (1..=max_len).rev() {
                for _ in 0..per_len[len] {
                    if let Some(&i) = order.next() {
                        lens[i] = len as u8;
                    }
                }
            }
        }
        let bits = (0..n).map(|i| u64::from(real[i]) * (u64::from(lens[i]) + u64::from(extra[i]))).sum();
        Tree { lens: lens[..n].to_vec(), extra, max_code, bits }
    }
}

/// Makes the numbers of codes of each length those of a code, where `overflow` nodes were cut to `most` bits.
fn shorten(per_len: &mut [u32; MAX_BITS + 1], mut overflow: i32, most: usize) {
    while overflow > 0 {
        let mut len = most - 1;
        while per_len[len] == 0 {
            len -= 1;
        }
        per_len[len] -= 1;
        per_len[len + 1] += 2;
        per_len[most] -= 1;
        overflow -= 2;
    }
}

/// Code lengths of a code that is built from two queues: symbols by count and number, and joined nodes (section 8.8.5).
pub(super) fn two_queues(counts: &[u32], most: usize) -> Vec<u8> {
    let mut lens = vec![0; counts.len()];
    let mut symbols: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] > 0).collect();
    symbols.sort_by_key(|&i| (counts[i], i));
    if symbols.len() < 2 {
        symbols.iter().for_each(|&i| lens[i] = 1);
        return lens;
    }
    // Leaves, then joined nodes: their counts and parents.
    let n = symbols.len();
    let mut count: Vec<u64> = symbols.iter().map(|&i| u64::from(counts[i])).collect();
    let mut parent = vec![0; 2 * n - 1];
    let (mut leaf, mut inner) = (0, n);
    while count.len() < 2 * n - 1 {
        let mut sum = 0;
        for _ in 0..2 {
            let node = if leaf < n && (inner >= count.len() || count[leaf] <= count[inner]) {
                leaf += 1;
                leaf - 1
            } else {
                inner += 1;
                inner - 1
            };
            parent[node] = count.len();
            sum += count[node];
        }
        count.push(sum);
    }
    let mut depth = vec![0usize; 2 * n - 1];
    let (mut per_len, mut overflow) = ([0u32; MAX_BITS + 1], 0);
    for node in (0..2 * n - 2).rev() {
        depth[node] = depth[parent[node]] + 1;
        if depth[node] > most {
            depth[node] = most;
            overflow += 1;
        }
        if node < n {
            per_len[depth[node]] += 1;
        }
    }
    shorten(&mut per_len, overflow, most);
    let mut symbols = symbols.iter();
    for len in (1..=most).rev() {
        (0..per_len[len]).filter_map(|_| symbols.next()).for_each(|&i| lens[i] = len as u8);
    }
    lens
}

/// Canonical codes (RFC 1951, section 3.2.2), first bit lowest, with their lengths; modulo their number of bits.
pub(super) fn codes(lens: &[u8]) -> Vec<(u16, u8)> {
    let mut per_len = [0u32; MAX_BITS + 1];
    for &len in lens {
        per_len[usize::from(len)] += 1;
    }
    per_len[0] = 0;
    let mut next = [0u32; MAX_BITS + 1];
    for len in 1..=MAX_BITS {
        next[len] = (next[len - 1] + per_len[len - 1]) << 1;
    }
    let mut code = |&len: &u8| match len {
        0 => (0, 0),
        _ => {
            let code = next[usize::from(len)];
            next[usize::from(len)] += 1;
            ((code as u16).reverse_bits() >> (16 - len), len)
        }
    };
    lens.iter().map(&mut code).collect()
}

/// A heap whose first element is at 1.
struct Heap {
    nodes: Vec<usize>,
}

impl Heap {
    fn sift(&mut self, mut at: usize, freq: &[u32; HEAP], depth: &[u8; HEAP]) {
        let smaller = |a: usize, b: usize| freq[a] < freq[b] || (freq[a] == freq[b] && depth[a] <= depth[b]);
        let node = self.nodes[at];
        let mut child = 2 * at;
        while child < self.nodes.len() {
            if child + 1 < self.nodes.len() && smaller(self.nodes[child + 1], self.nodes[child]) {
                child += 1;
            }
            if smaller(node, self.nodes[child]) {
                break;
            }
            self.nodes[at] = self.nodes[child];
            at = child;
            child *= 2;
        }
        self.nodes[at] = node;
    }

    /// Takes the smallest.
    fn pop(&mut self, freq: &[u32; HEAP], depth: &[u8; HEAP]) -> usize {
        let smallest = self.nodes[1];
        self.nodes[1] = self.nodes[self.nodes.len() - 1];
        self.nodes.pop();
        self.sift(1, freq, depth);
        smallest
    }
}

/// Runs of code lengths as they are sent (RFC 1951, section 3.2.7): code, extra bits and their value.
pub(super) fn code_lengths(lens: &[u8], mut emit: impl FnMut(usize, u32, u32)) {
    let mut before = None;
    let mut at = 0;
    while at < lens.len() {
        let len = lens[at];
        // The longest run depends on what came before; a shorter one is sent length by length.
        let (most, least) = match (len, before) {
            (0, _) => (138, 3),
            (_, Some(b)) if b == len => (6, 3),
            _ => (7, 4),
        };
        let run = lens[at..].iter().take(most).take_while(|&&l| l == len).count();
        at += run;
        let code = usize::from(len);
        if run < least {
            (0..run).for_each(|_| emit(code, 0, 0));
        } else if len != 0 {
            let mut run = run;
            if before != Some(len) {
                emit(code, 0, 0);
                run -= 1;
            }
            emit(16, 2, run as u32 - 3);
        } else if run <= 10 {
            emit(17, 3, run as u32 - 3);
        } else {
            emit(18, 7, run as u32 - 11);
        }
        before = Some(len);
    }
}

/// Bits, lowest first.
#[derive(Default)]
pub(super) struct Bits {
    pub(super) out: Vec<u8>,
    held: u64,
    count: u32,
}

impl Bits {
    pub(super) fn put(&mut self, value: u32, bits: u32) {
        self.held |= u64::from(value) << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.out.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    pub(super) fn align(&mut self) {
        if self.count > 0 {
            self.out.push(self.held as u8);
        }
        (self.held, self.count) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_lengths_and_distances() {
        for (len, want) in [(3, (257, 0, 0)), (10, (264, 0, 0)), (11, (265, 1, 0)), (12, (265, 1, 1))] {
            assert_eq!(length_code(len), want, "{len}");
        }
        assert_eq!(length_code(257), (284, 5, 30));
        assert_eq!(length_code(258), (285, 0, 0));
        for (distance, want) in
            [(1, (0, 0, 0)), (4, (3, 0, 0)), (5, (4, 1, 0)), (6, (4, 1, 1)), (7, (5, 1, 0))]
        {
            assert_eq!(distance_code(distance), want, "{distance}");
        }
        assert_eq!(distance_code(32768), (29, 13, 8191));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 29].map(d_extra), [0, 0, 0, 0, 1, 1, 2, 13]);
    }

    #[test]
    fn code_lengths_are_complete() {
        for counts in [vec![1, 1], vec![0; 30], vec![5], vec![1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233]]
        {
            for max in [4, 7, 15] {
                let tree = Tree::new(&counts, max, |_| 0);
                let used = tree.lens.iter().filter(|&&l| l > 0);
                let sum: u32 = used.map(|&l| 1u32 << (15 - l)).sum();
                assert!(sum == 1 << 15 || counts.len() == 1, "{counts:?}: {:?}", tree.lens);
                assert!(tree.lens.iter().all(|&l| usize::from(l) <= max));
                let lens = two_queues(&counts, max);
                let sum: u32 = lens.iter().filter(|&&l| l > 0).map(|&l| 1u32 << (15 - l)).sum();
                assert!(sum == 1 << 15 || counts.len() == 1 || counts[0] == 0, "{counts:?}: {lens:?}");
                assert!(lens.iter().all(|&l| usize::from(l) <= max));
            }
        }
    }
}
