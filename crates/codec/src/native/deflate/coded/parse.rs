//! A deflate stream taken apart (RFC 1951): blocks, tokens and the descriptions of codes.

use crate::native::deflate::blocks::{
    BL_CODES, BL_ORDER, D_CODES, END, L_CODES, L_EXTRA, d_extra, fixed_len,
};

/// A literal, or a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// How far back the match starts; 0 for a literal.
    pub distance: u16,
    /// Bytes of the match; 1 for a literal.
    pub len: u16,
}

impl Token {
    pub(super) const LITERAL: Token = Token { distance: 0, len: 1 };
}

/// How a block is coded; the numbers are those of RFC 1951.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stored = 0,
    Fixed = 1,
    Dynamic = 2,
}

/// One entry of a description of code lengths: code and the value of its extra bits.
pub(super) type Run = (u8, u8);

/// The codes of a dynamic block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Codes {
    /// Lengths of literal and length codes, and of distance codes, as many as are sent.
    pub literals: Vec<u8>,
    pub distances: Vec<u8>,
    /// Lengths of the codes of lengths, by code, and how many are sent.
    pub lengths: [u8; BL_CODES],
    pub sent: usize,
    pub runs: Vec<Run>,
}

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub kind: Kind,
    pub last: bool,
    /// Bytes of content.
    pub bytes: usize,
    /// None if stored.
    pub tokens: Vec<Token>,
    /// If dynamic.
    pub codes: Option<Codes>,
}

/// The blocks of a stream; `None` if it is no deflate stream, or one that is written in a way no encoder has.
pub(super) fn blocks(stream: &[u8]) -> Option<Vec<Block>> {
    let mut bits = Reader { bytes: stream, at: 0, held: 0, count: 0 };
    let mut blocks = Vec::new();
    let mut made = 0usize;
    loop {
        let last = bits.take(1)? == 1;
        let kind = match bits.take(2)? {
            0 => Kind::Stored,
            1 => Kind::Fixed,
            2 => Kind::Dynamic,
            _ => return None,
        };
        let mut block = Block { kind, last, bytes: 0, tokens: Vec::new(), codes: None };
        if kind == Kind::Stored {
            bits.align();
            block.bytes = bits.take(16)? as usize;
            bits.take(16).filter(|&n| n as usize == !block.bytes & 0xffff)?;
            bits.skip(block.bytes)?;
        } else {
            let (literals, distances);
            if kind == Kind::Fixed {
                literals = Decoder::new(&(0..288).map(fixed_len).collect::<Vec<_>>());
                distances = Decoder::new(&[5; D_CODES]);
            } else {
                let codes = codes(&mut bits)?;
                (literals, distances) = (Decoder::new(&codes.literals), Decoder::new(&codes.distances));
                block.codes = Some(codes);
            }
            (block.tokens, block.bytes) = tokens(&mut bits, &literals, &distances, made)?;
        }
        made += block.bytes;
        blocks.push(block);
        if last {
            return Some(blocks);
        }
    }
}

fn codes(bits: &mut Reader<'_>) -> Option<Codes> {
    let (literals, distances) = (257 + bits.take(5)? as usize, 1 + bits.take(5)? as usize);
    if literals > L_CODES || distances > D_CODES {
        return None;
    }
    let mut codes = Codes { sent: 4 + bits.take(4)? as usize, ..Codes::default() };
    for &code in &BL_ORDER[..codes.sent] {
        codes.lengths[code] = bits.take(3)? as u8;
    }
    let decoder = Decoder::new(&codes.lengths);
    let mut lens: Vec<u8> = Vec::new();
    while lens.len() < literals + distances {
        let code = decoder.read(bits)? as u8;
        let (len, extra, least) = match code {
            0..16 => (code, 0, 1),
            16 => (*lens.last()?, 2, 3),
            17 => (0, 3, 3),
            _ => (0, 7, 11),
        };
        let value = bits.take(extra)?;
        lens.extend(std::iter::repeat_n(len, least + value as usize));
        codes.runs.push((code, value as u8));
    }
    (lens.len() == literals + distances).then_some(())?;
    codes.distances = lens.split_off(literals);
    codes.literals = lens;
    Some(codes)
}

/// Tokens up to the end of a block in front of which `before` bytes are known, and the bytes that they stand for.
fn tokens(
    bits: &mut Reader<'_>,
    literals: &Decoder,
    distances: &Decoder,
    before: usize,
) -> Option<(Vec<Token>, usize)> {
    let (mut tokens, mut bytes) = (Vec::new(), 0);
    loop {
        let symbol = literals.read(bits)?;
        let token = match symbol {
            ..END => Token::LITERAL,
            END => return Some((tokens, bytes)),
            _ => {
                let (base, extra) = length_base(symbol)?;
                let len = base + bits.take(extra)? as usize;
                // 258 has a code of its own.
                (len != 258 || symbol == 285).then_some(())?;
                let code = distances.read(bits).filter(|&c| c < D_CODES)?;
                let extra = d_extra(code);
                let base = if code < 4 { code + 1 } else { ((2 + (code & 1)) << extra) + 1 };
                let distance = base + bits.take(extra)? as usize;
                (distance <= before + bytes).then_some(())?;
                Token { distance: distance as u16, len: len as u16 }
            }
        };
        bytes += usize::from(token.len);
        tokens.push(token);
    }
}

/// Shortest match of a symbol, and its extra bits.
fn length_base(symbol: usize) -> Option<(usize, u32)> {
    let code = symbol - 257;
    let extra = u32::from(*L_EXTRA.get(code)?);
    let base = match code {
        28 => 258,
        0..8 => 3 + code,
        _ => 3 + ((4 + (code & 3)) << extra),
    };
    Some((base, extra))
}

/// Decodes symbols of one code.
struct Decoder {
    /// Numbers of codes by length, and the symbols in the order of their codes.
    per_len: [u16; 16],
    symbols: Vec<u16>,
}

impl Decoder {
    fn new(lens: &[u8]) -> Self {
        let mut per_len = [0; 16];
        let mut symbols: Vec<u16> = (0..lens.len() as u16).filter(|&i| lens[usize::from(i)] > 0).collect();
        symbols.sort_by_key(|&i| lens[usize::from(i)]);
        symbols.iter().for_each(|&i| per_len[usize::from(lens[usize::from(i)])] += 1);
        Decoder { per_len, symbols }
    }

    fn read(&self, bits: &mut Reader<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for &count in &self.per_len[1..] {
            code |= bits.take(1)?;
            if code < first + u32::from(count) {
                let at = index + code.checked_sub(first)?;
                return self.symbols.get(at as usize).map(|&s| usize::from(s));
            }
            index += u32::from(count);
            first = (first + u32::from(count)) << 1;
            code <<= 1;
        }
        None
    }
}

/// Bits, lowest first.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl Reader<'_> {
    fn take(&mut self, n: u32) -> Option<u32> {
        while self.count < n {
            self.held |= u32::from(*self.bytes.get(self.at)?) << self.count;
            self.at += 1;
            self.count += 8;
        }
        let value = self.held & ((1 << n) - 1);
        self.held >>= n;
        self.count -= n;
        Some(value)
    }

    /// Goes on at the next byte.
    fn align(&mut self) {
        (self.held, self.count) = (0, 0);
    }

    /// Passes over bytes; at the start of a byte.
    fn skip(&mut self, n: usize) -> Option<()> {
        self.at += n;
        (self.at <= self.bytes.len()).then_some(())
    }
}
