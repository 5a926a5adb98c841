//! Section 8.8: deflate streams whose tokens are sent.

use std::collections::HashMap;

use super::arithmetic::{Code, Mixed, Plain, Steps};
use super::deflate::{ORDER, Token, canonical, distance_code, fixed_lengths, length_code, lengths, runs};

/// Section 8.8.3: steps, and the length that ends a search.
const DEPTHS: [(usize, usize); 6] = [(4, 8), (16, 32), (32, 64), (128, 128), (1024, 258), (4096, 258)];

/// The codes of a dynamic block: lengths for literals and for distances, runs, lengths for these and how many are sent.
struct Codes {
    literals: Vec<u8>,
    distances: Vec<u8>,
    runs: Vec<(usize, usize)>,
    lengths: Vec<u8>,
    sent: usize,
}

/// All streams of a part.
pub(super) struct Tokens<'a> {
    code: Code<'a>,
    kind: usize,
    count: usize,
    history: usize,
    literal: usize,
    kinds: Plain,
    rests: Plain,
    lasts: Plain,
    sames: Plain,
    counts: Steps,
    matches: Mixed,
    ranks: Mixed,
    differences: Steps,
    nearest: Mixed,
    chained: Plain,
    hops: Steps,
    distances: Steps,
    agrees: Plain,
    code_lengths: Plain,
    numbers: Plain,
    usual: Plain,
    other_codes: Plain,
    values: Plain,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(code: &'a [u8]) -> Self {
        Tokens {
            code: Code::new(code),
            kind: 3,
            count: 0,
            history: 0,
            literal: 1,
            kinds: Plain::default(),
            rests: Plain::default(),
            lasts: Plain::default(),
            sames: Plain::default(),
            counts: Steps::default(),
            matches: Mixed::new(6),
            ranks: Mixed::new(5),
            differences: Steps::default(),
            nearest: Mixed::new(2),
            chained: Plain::default(),
            hops: Steps::default(),
            distances: Steps::default(),
            agrees: Plain::default(),
            code_lengths: Plain::default(),
            numbers: Plain::default(),
            usual: Plain::default(),
            other_codes: Plain::default(),
            values: Plain::default(),
        }
    }

    /// Section 8.8.2: the next stream, of this content and at most `most` bytes.
    pub(super) fn stream(&mut self, content: &[u8], encoder: u64, most: usize) -> Result<Vec<u8>, String> {
        let (flags, depth) = (encoder / 16 % 16, (encoder % 16) as usize);
        if encoder / 256 != 5 || flags > 7 || depth >= DEPTHS.len() {
            return Err(format!("encoder {encoder}"));
        }
        let search = Search::new(content, if flags & 1 == 1 { 4 } else { 3 }, depth);
        let mut bits: Vec<bool> = Vec::new();
        let mut at = 0;
        loop {
            let k = self.kinds.tree(&mut self.code, self.kind, 2);
            self.kind = k;
            let rest = self.rests.read(&mut self.code, (k, 0));
            let last = rest && self.lasts.read(&mut self.code, (k, 0));
            if !rest && !self.sames.read(&mut self.code, (k, 0)) {
                self.count =
                    usize::try_from(self.counts.read(&mut self.code, k)).map_err(|e| e.to_string())?;
            }
            let start = at;
            put(&mut bits, usize::from(last) + 2 * k, 3);
            match k {
                0 => {
                    let len = if rest { content.len() - at } else { self.count };
                    let bytes = content[at..].get(..len).filter(|_| len <= 65_535).ok_or("a stored block")?;
                    align(&mut bits);
                    put(&mut bits, len, 16);
                    put(&mut bits, 65_535 - len, 16);
                    bytes.iter().for_each(|&b| put(&mut bits, b.into(), 8));
                    at += len;
                }
                1 | 2 => {
                    let mut tokens = Vec::new();
                    while if rest { at < content.len() } else { tokens.len() < self.count } {
                        if at == content.len() || tokens.len() == 1 << 20 {
                            return Err("too many tokens".into());
                        }
                        let token = self.token(&search, at)?;
                        at += if let Token::Match(_, len) = token { len } else { 1 };
                        tokens.push(token);
                    }
                    let (l, d) = if k == 2 {
                        let codes = self.codes(flags, &tokens)?;
                        describe(&mut bits, &codes)?;
                        (codes.literals, codes.distances)
                    } else {
                        (fixed_lengths(), vec![5; 30])
                    };
                    body(&mut bits, &tokens, &l, &d)?;
                }
                _ => return Err("a block of kind 3".into()),
            }
            debug_assert!(at >= start);
            if bits.len() / 8 > most {
                return Err("a stream is too long".into());
            }
            if last {
                align(&mut bits);
                return Ok(bits
                    .chunks(8)
                    .map(|c| c.iter().rev().fold(0, |x, &b| x << 1 | u8::from(b)))
                    .collect());
            }
        }
    }

    /// Section 8.8.4.
    fn token(&mut self, search: &Search<'_>, at: usize) -> Result<Token, String> {
        let (offers, next) = (search.offers(at), search.offers(at + 1));
        let (best, then) = (longest(&offers), longest(&next));
        let relation = match (best.0, then.0) {
            (_, 0) => 0,
            (a, b) if b + 1 < a => 1,
            (a, b) if b + 1 == a => 2,
            (a, b) if a == b => 3,
            (a, b) if b == a + 1 => 4,
            _ => 5,
        };
        let s = size(best.0);
        let is_match = self.matches.read(
            &mut self.code,
            &[
                (s * 6 + relation) * 2 + self.literal,
                (s * 16 + reach(best.1)) * 2 + self.literal,
                (relation * 16 + reach(best.1)) * 16 + reach(then.1),
                self.history % 256 * 6 + relation,
                s.min(7) * 256 + usize::from(search.b[at]),
                (s * 20 + size(then.0)) * 2 + self.literal,
            ],
            s,
        );
        let expected = best.0 > 0 && then.0 <= best.0;
        self.literal = usize::from(!is_match);
        let (token, usual) = if is_match {
            let (token, first) = self.copy(search, at, &offers, relation)?;
            (token, expected && first)
        } else {
            (Token::Literal(search.b[at]), !expected)
        };
        self.history = self.history % (1 << 32) * 2 + usize::from(!usual);
        Ok(token)
    }

    fn copy(
        &mut self,
        search: &Search<'_>,
        at: usize,
        offers: &[(usize, usize)],
        relation: usize,
    ) -> Result<(Token, bool), String> {
        let mut chosen = None;
        for (rank, &(len, distance)) in offers.iter().rev().enumerate() {
            let less = offers.iter().rev().nth(rank + 1).copied().unwrap_or((0, 0));
            let r = rank.min(3);
            let contexts = [
                r * 20 + size(len),
                (r * 20 + size(len)) * 20 + size(less.0),
                reach(distance) * 16 + reach(less.1),
                self.history % 64 * 4 + r,
                size(len) * 6 + relation,
            ];
            if self.ranks.read(&mut self.code, &contexts, r) {
                chosen = Some((rank, len));
                break;
            }
        }
        let (len, how) = match chosen {
            Some((rank, len)) => (len, usize::from(rank > 0)),
            None => {
                let longest = longest(offers).0;
                let difference = self.differences.read(&mut self.code, size(longest));
                let len = longest as i128 - i128::from(difference);
                let most = (search.b.len() - at).min(258) as i128;
                if !(3..=most).contains(&len) {
                    return Err("an impossible length".into());
                }
                (len as usize, 2)
            }
        };
        if let Some(near) = offers.iter().find(|o| o.0 >= len)
            && self.nearest.read(&mut self.code, &[how * 20 + size(len), self.history % 64], how)
        {
            return Ok((Token::Match(near.1, len), chosen.is_some_and(|c| c.0 == 0)));
        }
        let distance = if self.chained.read(&mut self.code, (0, 0)) {
            let hops = usize::try_from(self.hops.read(&mut self.code, 0)).map_err(|e| e.to_string())?;
            let mut chain = search.earlier(at, search.n).filter(|&q| search.agree(q, at) >= len);
            hops.checked_sub(1).and_then(|n| chain.nth(n)).map(|q| at - q)
        } else {
            let distance = self.distances.read(&mut self.code, 0);
            usize::try_from(distance).ok().filter(|d| (1..=at.min(1 << 15)).contains(d))
        };
        Ok((Token::Match(distance.ok_or("an impossible distance")?, len), false))
    }

    /// Section 8.8.5.
    fn codes(&mut self, flags: u64, tokens: &[Token]) -> Result<Codes, String> {
        let (mut literals, mut distances) = (vec![0; 286], vec![0; 30]);
        literals[256] = 1;
        for token in tokens {
            match *token {
                Token::Literal(byte) => literals[usize::from(byte)] += 1,
                Token::Match(distance, len) => {
                    literals[length_code(len).0] += 1;
                    distances[distance_code(distance).0] += 1;
                }
            }
        }
        let build = |counts: &[u32], most| match flags & 2 {
            2 => two_queues(counts, most),
            _ => lengths(counts, most).0,
        };
        let mut sent = Vec::new();
        for (part, counts, least) in [(0, literals, 257), (1, distances, 1)] {
            let mut lens = self.lengths(part, &build(&counts, 15));
            let used = lens.iter().rposition(|&l| l > 0).map_or(0, |i| i + 1).max(least);
            let n = least + self.number(part, used - least);
            if n > lens.len() {
                return Err("too many codes".into());
            }
            lens.truncate(n);
            sent.push(lens);
        }
        let distances = sent.pop().unwrap_or_default();
        let literals = sent.pop().unwrap_or_default();
        let all = [&literals[..], &distances].concat();
        let as_pairs = |lens: &[u8]| runs(lens).into_iter().map(|r| (r.0, r.2 as usize));
        let mut list: Vec<(usize, usize)> = match flags & 4 {
            4 => as_pairs(&all).collect(),
            _ => as_pairs(&literals).chain(as_pairs(&distances)).collect(),
        };
        if !self.agrees.read(&mut self.code, (3, 0)) {
            list = Vec::new();
            let mut at = 0;
            while at < all.len() {
                let same = |most: usize| all[at..].iter().take(most).take_while(|&&l| l == all[at]).count();
                let usual = match all[at] {
                    0 if same(138) >= 11 => (18, same(138) - 11),
                    0 if same(138) >= 3 => (17, same(138) - 3),
                    l if l > 0 && at > 0 && all[at - 1] == l && same(6) >= 3 => (16, same(6) - 3),
                    l => (usize::from(l), 0),
                };
                let run = if self.usual.read(&mut self.code, (usual.0, 0)) {
                    usual
                } else {
                    match self.other_codes.tree(&mut self.code, usual.0, 5) {
                        code @ 16..=18 => (code, self.values.tree(&mut self.code, code - 16, 7)),
                        code => (code, 0),
                    }
                };
                at += match run {
                    (..16, _) => 1,
                    (16, v) if v < 4 => 3 + v,
                    (17, v) if v < 8 => 3 + v,
                    (18, v) => 11 + v,
                    _ => return Err("an impossible run".into()),
                };
                list.push(run);
            }
            if at > all.len() {
                return Err("runs of too many lengths".into());
            }
        }
        let mut counts = vec![0; 19];
        list.iter().for_each(|r| counts[r.0] += 1);
        let mut lens = self.lengths(2, &build(&counts, 7));
        if lens.iter().any(|&l| l > 7) {
            return Err("a length of a code is too long".into());
        }
        let used = (4..19).rev().find(|&i| lens[ORDER[i]] > 0).map_or(4, |i| i + 1);
        let sent = 4 + self.number(2, used - 4);
        if sent > 19 {
            return Err("too many code lengths".into());
        }
        ORDER[sent..].iter().for_each(|&i| lens[i] = 0);
        Ok(Codes { literals, distances, runs: list, lengths: lens, sent })
    }

    fn lengths(&mut self, part: usize, predicted: &[u8]) -> Vec<u8> {
        if self.agrees.read(&mut self.code, (part, 0)) {
            return predicted.to_vec();
        }
        let mut before = 0;
        let mut out = Vec::new();
        for &p in predicted {
            let len =
                self.code_lengths.tree(&mut self.code, (part * 16 + usize::from(p)) * 3 + before, 4) as u8;
            before = if len == p { 0 } else { 1 + usize::from(len > p) };
            out.push(len);
        }
        out
    }

    fn number(&mut self, part: usize, predicted: usize) -> usize {
        if self.agrees.read(&mut self.code, (4 + part, 0)) {
            return predicted;
        }
        self.numbers.tree(&mut self.code, part, 5)
    }
}

/// Section 8.8.3.
struct Search<'a> {
    b: &'a [u8],
    n: usize,
    depth: usize,
    /// Positions by number of bytes and their hash.
    places: HashMap<(usize, u32), Vec<usize>>,
}

impl<'a> Search<'a> {
    fn new(b: &'a [u8], n: usize, depth: usize) -> Self {
        let mut search = Search { b, n, depth, places: HashMap::new() };
        for n in 3..=n {
            for at in 0..b.len() {
                if let Some(hash) = search.hash(at, n) {
                    search.places.entry((n, hash)).or_default().push(at);
                }
            }
        }
        search
    }

    fn hash(&self, at: usize, n: usize) -> Option<u32> {
        let bytes = self.b.get(at..at + n)?;
        let value = bytes.iter().rev().fold(0u32, |v, &b| v << 8 | u32::from(b));
        Some(value.wrapping_mul(0x9e37_79b1) >> 16)
    }

    fn agree(&self, q: usize, at: usize) -> usize {
        let most = (self.b.len() - at).min(258);
        (0..most).take_while(|&i| self.b[q + i] == self.b[at + i]).count()
    }

    /// Earlier positions with the same hash of `n` bytes, at most 32768 back, the nearest first.
    fn earlier(&self, at: usize, n: usize) -> impl Iterator<Item = usize> + '_ {
        let places = self.hash(at, n).and_then(|hash| self.places.get(&(n, hash)));
        let before = places.map_or(&[][..], |p| &p[..p.partition_point(|&q| q < at)]);
        before.iter().rev().copied().take_while(move |&q| at - q <= 1 << 15)
    }

    /// Lengths and distances, the longest last.
    fn offers(&self, at: usize) -> Vec<(usize, usize)> {
        let (steps, nice) = DEPTHS[self.depth];
        let left = (self.b.len() - at).min(258);
        let mut out: Vec<(usize, usize)> = Vec::new();
        if left < 3 {
            return out;
        }
        let mut best = 2;
        let mut look = |q: usize, best: &mut usize| {
            let len = self.agree(q, at);
            if len > *best {
                out.push((len, at - q));
                *best = len;
            }
        };
        if self.n == 4 {
            self.earlier(at, 3).take(1).for_each(|q| look(q, &mut best));
        }
        for q in self.earlier(at, self.n).take(steps) {
            if best >= nice.min(left) {
                break;
            }
            look(q, &mut best);
        }
        out
    }
}

fn longest(offers: &[(usize, usize)]) -> (usize, usize) {
    offers.last().copied().unwrap_or((0, 0))
}

fn size(len: usize) -> usize {
    match len {
        0..=2 => 0,
        3..=16 => len - 2,
        17..=31 => 15,
        32..=63 => 16,
        64..=127 => 17,
        128..=257 => 18,
        _ => 19,
    }
}

/// How many bits the distance less one has.
fn reach(distance: usize) -> usize {
    (0..).find(|&bits| distance.saturating_sub(1) >> bits == 0).unwrap_or(0)
}

/// Section 8.8.5: lengths of a code that is built from two queues.
fn two_queues(counts: &[u32], most: usize) -> Vec<u8> {
    let mut symbols: Vec<usize> = (0..counts.len()).filter(|&i| counts[i] > 0).collect();
    symbols.sort_by_key(|&i| counts[i]);
    let mut out = vec![0; counts.len()];
    if symbols.len() < 2 {
        symbols.iter().for_each(|&i| out[i] = 1);
        return out;
    }
    // Each node: its count and its two children.
    let n = symbols.len();
    let mut nodes: Vec<(u32, Option<(usize, usize)>)> = symbols.iter().map(|&i| (counts[i], None)).collect();
    let (mut leaf, mut joined) = (0, n);
    while nodes.len() < 2 * n - 1 {
        let mut take = || {
            let take_leaf = leaf < n && (joined >= nodes.len() || nodes[leaf].0 <= nodes[joined].0);
            let next = if take_leaf { &mut leaf } else { &mut joined };
            *next += 1;
            *next - 1
        };
        let (a, b) = (take(), take());
        nodes.push((nodes[a].0 + nodes[b].0, Some((a, b))));
    }
    let mut depth = vec![0; nodes.len()];
    let (mut in_use, mut too_long) = (vec![0i64; most + 1], 0);
    for i in (0..nodes.len()).rev() {
        if let Some((a, b)) = nodes[i].1 {
            for child in [a, b] {
                depth[child] = depth[i] + 1;
                if depth[child] > most {
                    depth[child] = most;
                    too_long += 1;
                }
            }
        } else {
            in_use[depth[i]] += 1;
        }
    }
    while too_long > 0 {
        let len = (1..most).rev().find(|&l| in_use[l] > 0).unwrap_or(1);
        in_use[len] -= 1;
        in_use[len + 1] += 2;
        in_use[most] -= 1;
        too_long -= 2;
    }
    let mut symbols = symbols.into_iter();
    for len in (1..=most).rev() {
        for i in symbols.by_ref().take(in_use[len] as usize) {
            out[i] = len as u8;
        }
    }
    out
}

fn put(bits: &mut Vec<bool>, value: usize, n: u32) {
    (0..n).for_each(|i| bits.push(value >> i & 1 == 1));
}

fn align(bits: &mut Vec<bool>) {
    bits.resize(bits.len().next_multiple_of(8), false);
}

/// Puts a code, highest bit first; modulo its number of bits.
fn put_code(bits: &mut Vec<bool>, of: &[(u64, u8)], symbol: usize) -> Result<(), String> {
    let &(code, len) = of.get(symbol).filter(|c| c.1 > 0).ok_or("a symbol without a code")?;
    (0..len).rev().for_each(|i| bits.push(code >> i & 1 == 1));
    Ok(())
}

fn describe(bits: &mut Vec<bool>, codes: &Codes) -> Result<(), String> {
    put(bits, codes.literals.len() - 257, 5);
    put(bits, codes.distances.len() - 1, 5);
    put(bits, codes.sent - 4, 4);
    ORDER[..codes.sent].iter().for_each(|&i| put(bits, codes.lengths[i].into(), 3));
    let of = canonical(&codes.lengths);
    for &(code, value) in &codes.runs {
        put_code(bits, &of, code)?;
        put(bits, value, [2, 3, 7].get(code.wrapping_sub(16)).copied().unwrap_or(0));
    }
    Ok(())
}

fn body(bits: &mut Vec<bool>, tokens: &[Token], l: &[u8], d: &[u8]) -> Result<(), String> {
    let (l, d) = (canonical(l), canonical(d));
    for token in tokens {
        match *token {
            Token::Literal(byte) => put_code(bits, &l, byte.into())?,
            Token::Match(distance, len) => {
                let (code, extra, value) = length_code(len);
                put_code(bits, &l, code)?;
                put(bits, value as usize, extra);
                let (code, extra, value) = distance_code(distance);
                put_code(bits, &d, code)?;
                put(bits, value as usize, extra);
            }
        }
    }
    put_code(bits, &l, 256)
}
