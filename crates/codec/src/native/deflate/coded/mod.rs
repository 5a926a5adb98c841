//! Deflate streams of any encoder: what it chose is coded, predicted by what could be chosen
//! (`docs/formats/native-delta.md`, section 8.8).

mod model;
mod parse;
mod search;
mod trees;

use super::Stop;
use super::blocks::{Bits, END, codes, distance_code, fixed_len, length_code};
use crate::native::Error;
use crate::native::entropy::decisions::{Coder, Numbers, Plain, Reader, Tables, Trees, Writer};
use model::Model;
use parse::{Block, Codes, Kind, Token};
use search::{Chains, DEPTHS, Offers};
use trees::CodesModel;

/// Number of the family (section 8.2), and its name (section 8.7).
pub(crate) const FAMILY: u64 = 5;
pub(crate) const NAME: &str = "deflate-tokens-1";

/// What is looked for at each position, and how codes are predicted (section 8.8.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Settings {
    /// Steps of a search, by number.
    pub depth: u8,
    /// Chains are of four bytes, not of three.
    pub four: bool,
    /// Codes are built from two queues, not by a heap.
    pub queues: bool,
    /// Runs of code lengths go on from literals to distances.
    pub joined: bool,
}

impl Settings {
    /// The number in a delta.
    pub fn number(self) -> u64 {
        let flags = u64::from(self.four) | u64::from(self.queues) << 1 | u64::from(self.joined) << 2;
        FAMILY << 8 | flags << 4 | u64::from(self.depth)
    }

    /// The settings with a number.
    ///
    /// # Errors
    /// [`Error::Unknown`].
    pub fn of(number: u64) -> Result<Self, Error> {
        let (flags, depth) = (number >> 4 & 15, (number & 15) as u8);
        if number >> 8 != FAMILY || flags > 7 || usize::from(depth) >= DEPTHS.len() {
            return Err(Error::Unknown { what: "deflate encoder", value: number });
        }
        Ok(Settings { depth, four: flags & 1 != 0, queues: flags & 2 != 0, joined: flags & 4 != 0 })
    }
}

/// Most tokens of a block (section 8.8.2).
const MAX_TOKENS: usize = 1 << 20;

/// Bytes of memory that rebuilding takes for `content` bytes, those and the stream not counted (section 4.3).
pub(crate) fn memory(content: u64) -> u64 {
    content.min(MAX_TOKENS as u64) * 8 + (2 << 20)
}

/// What is carried over from stream to stream of a part (section 8.8.1).
#[derive(Debug, Clone)]
struct State {
    model: Model,
    codes: CodesModel,
    kinds: Trees,
    rests: Plain,
    lasts: Plain,
    sames: Plain,
    counts: Numbers,
    /// Kind of the block before, and the latest number of tokens or bytes of a block before the last.
    kind: usize,
    count: usize,
}

impl State {
    fn new() -> Self {
        State {
            model: Model::new(),
            codes: CodesModel::new(),
            kinds: Trees::new(4, 2),
            rests: Plain::new(4),
            lasts: Plain::new(4),
            sames: Plain::new(4),
            counts: Numbers::new(4),
            kind: 3,
            count: 0,
        }
    }

    /// Codes a stream; `given` are its blocks for a writer. Stops where more than `most` bytes are made.
    fn stream(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        content: &[u8],
        settings: Settings,
        work: u64,
        given: Option<&[Block]>,
        most: usize,
    ) -> Result<Vec<u8>, Stop> {
        let mut out = Output { bits: Bits::default() };
        let hashed = if settings.four { 4 } else { 3 };
        let mut chains = Chains::new(content, hashed, settings.depth.into(), work);
        let (mut here, mut next) = (Offers::default(), Offers::default());
        // Where `here` belongs to.
        let mut looked = usize::MAX;
        let (mut at, mut number) = (0, 0);
        loop {
            let want = given.map(|blocks| blocks.get(number).ok_or(Stop::Differs)).transpose()?;
            number += 1;
            let kind = self.kinds.code(t, coder, self.kind, want.map_or(0, |b| b.kind as usize));
            let kind = [Kind::Stored, Kind::Fixed, Kind::Dynamic].get(kind).copied().ok_or(Stop::Differs)?;
            let k = kind as usize;
            self.kind = k;
            let rest = want.map_or(0, |b| u32::from(at + b.bytes == content.len()));
            let rest = self.rests.code(t, coder, k, rest) == 1;
            let last = rest && self.lasts.code(t, coder, k, want.map_or(0, |b| u32::from(b.last))) == 1;
            let count = if rest {
                None
            } else {
                let count = want.map_or(0, |b| if kind == Kind::Stored { b.bytes } else { b.tokens.len() });
                if self.sames.code(t, coder, k, u32::from(count == self.count)) == 0 {
                    let count = self.counts.code(t, coder, k, count as i64);
                    self.count = usize::try_from(count).map_err(|_| Stop::Differs)?;
                }
                Some(self.count)
            };
            if kind == Kind::Stored {
                let len = count.unwrap_or(content.len() - at);
                let bytes = content[at..].get(..len).filter(|b| b.len() <= 0xffff).ok_or(Stop::Differs)?;
                out.stored(bytes, last);
                at += len;
            } else {
                let start = at;
                let mut tokens = Vec::new();
                while count.map_or(at < content.len(), |n| tokens.len() < n) {
                    if at == content.len() || tokens.len() == MAX_TOKENS {
                        return Err(Stop::Differs);
                    }
                    if looked != at {
                        chains.offers(at, &mut here)?;
                    }
                    chains.offers(at + 1, &mut next)?;
                    let want = want.map_or(Token::LITERAL, |b| b.tokens[tokens.len()]);
                    let token = self.model.token(t, coder, &mut chains, content, at, &here, &next, want)?;
                    at += usize::from(token.len);
                    tokens.push(token);
                    if token.distance == 0 {
                        std::mem::swap(&mut here, &mut next);
                        looked = at;
                    }
                }
                let codes = match kind {
                    Kind::Dynamic => {
                        let (literals, distances) = counts(&content[start..at], &tokens);
                        let want = want.and_then(|b| b.codes.as_ref());
                        Some(self.codes.code(t, coder, settings, &literals, &distances, want)?)
                    }
                    _ => None,
                };
                out.block(&content[start..at], &tokens, codes.as_ref(), last)?;
            }
            if out.bits.out.len() > most {
                return Err(Stop::Differs);
            }
            if last {
                out.bits.align();
                return Ok(out.bits.out);
            }
        }
    }
}

/// How often each symbol is used.
fn counts(content: &[u8], tokens: &[Token]) -> (Vec<u32>, Vec<u32>) {
    let (mut literals, mut distances) = (vec![0; 286], vec![0; 30]);
    literals[END] = 1;
    let mut at = 0;
    for token in tokens {
        if token.distance == 0 {
            literals[usize::from(content[at])] += 1;
        } else {
            literals[length_code(token.len.into()).0] += 1;
            distances[distance_code(token.distance.into()).0] += 1;
        }
        at += usize::from(token.len);
    }
    (literals, distances)
}

/// The stream.
struct Output {
    bits: Bits,
}

impl Output {
    fn stored(&mut self, bytes: &[u8], last: bool) {
        self.bits.put(u32::from(last), 3);
        self.bits.align();
        let len = bytes.len() as u32;
        self.bits.put(len, 16);
        self.bits.put(!len & 0xffff, 16);
        self.bits.out.extend_from_slice(bytes);
    }

    fn block(
        &mut self,
        content: &[u8],
        tokens: &[Token],
        sent: Option<&Codes>,
        last: bool,
    ) -> Result<(), Stop> {
        let (literals, distances) = match sent {
            None => {
                self.bits.put(1 << 1 | u32::from(last), 3);
                (codes(&(0..288).map(fixed_len).collect::<Vec<_>>()), codes(&[5; 30]))
            }
            Some(sent) => {
                self.bits.put(2 << 1 | u32::from(last), 3);
                trees::describe(sent, |value, bits| self.bits.put(value, bits))?;
                (codes(&sent.literals), codes(&sent.distances))
            }
        };
        let mut at = 0;
        for token in tokens {
            if token.distance == 0 {
                self.symbol(&literals, content[at].into())?;
            } else {
                let (symbol, extra, value) = length_code(token.len.into());
                self.symbol(&literals, symbol)?;
                self.bits.put(value, extra);
                let (symbol, extra, value) = distance_code(token.distance.into());
                self.symbol(&distances, symbol)?;
                self.bits.put(value, extra);
            }
            at += usize::from(token.len);
        }
        self.symbol(&literals, END)
    }

    fn symbol(&mut self, of: &[(u16, u8)], symbol: usize) -> Result<(), Stop> {
        let &(code, len) = of.get(symbol).filter(|c| c.1 > 0).ok_or(Stop::Differs)?;
        self.bits.put(code.into(), len.into());
        Ok(())
    }
}

/// Streams of one part being written.
#[derive(Debug)]
pub struct Encoder {
    tables: Tables,
    state: State,
    writer: Writer,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Encoder {
    /// Nothing coded yet.
    pub fn new() -> Self {
        Encoder { tables: Tables::new(), state: State::new(), writer: Writer::new() }
    }

    /// Codes one more stream, and proves it. If it fails, nothing more can be coded.
    ///
    /// # Errors
    /// The stream cannot be coded, or not within the work allowed.
    pub fn stream(&mut self, content: &[u8], settings: Settings, stream: &[u8]) -> Result<(), Stop> {
        let blocks = parse::blocks(stream).ok_or(Stop::Differs)?;
        let work = super::work_limit(content.len());
        let Encoder { tables, state, writer } = self;
        let made = state.stream(tables, writer, content, settings, work, Some(&blocks), usize::MAX)?;
        if made == stream { Ok(()) } else { Err(Stop::Differs) }
    }

    /// The code of all streams.
    pub fn finish(self) -> Vec<u8> {
        self.writer.finish()
    }
}

/// Streams of one part being read.
#[derive(Debug)]
pub struct Decoder<'c> {
    tables: Tables,
    state: State,
    reader: Reader<'c>,
}

impl<'c> Decoder<'c> {
    /// Reads a code.
    pub fn new(code: &'c [u8]) -> Self {
        Decoder { tables: Tables::new(), state: State::new(), reader: Reader::new(code) }
    }

    /// The next stream, if it is no longer than `most` bytes.
    ///
    /// # Errors
    /// The code makes no stream of this content, or not within the work allowed.
    pub fn stream(&mut self, content: &[u8], settings: Settings, most: usize) -> Result<Vec<u8>, Stop> {
        let work = super::work_limit(content.len());
        self.state.stream(&self.tables, &mut self.reader, content, settings, work, None, most)
    }
}

/// Bytes of content that settings are tried with.
const TRIAL: usize = 1 << 18;
/// Content up to this size gets the settings of the stream before without a look at others.
const ALIKE: usize = 1 << 16;
/// A stream's tokens may take one byte in so many of the stream, and this in any case.
const WORTH: usize = 6;
const SMALL: usize = 16;

/// The settings with which a stream takes the fewest bytes, if it is worth coding at all; `likely` are those of a stream
/// of the same file. A stream with these settings was coded and proved.
pub fn choose(content: &[u8], stream: &[u8], likely: Option<Settings>) -> Option<Settings> {
    let worth = |settings| {
        let mut coder = Encoder::new();
        coder.stream(content, settings, stream).ok()?;
        (coder.finish().len() <= stream.len() / WORTH + SMALL).then_some(settings)
    };
    if content.len() <= ALIKE
        && let Some(settings) = likely.and_then(worth)
    {
        return Some(settings);
    }
    let blocks = parse::blocks(stream)?;
    let trial = Trial::new(content, &blocks);
    let base = trial.codes();
    let mut best: Option<(usize, Settings)> = None;
    let mut consider = |settings: Settings| {
        if let Some(size) = trial.size(settings)
            && best.is_none_or(|b| size < b.0)
        {
            best = Some((size, settings));
        }
        best.map(|b| b.1)
    };
    consider(base);
    let four = consider(Settings { four: true, ..base })?.four;
    for depth in [5, 1, 4, 2, 0] {
        consider(Settings { depth, four, ..base });
    }
    consider(base).and_then(worth)
}

/// The start of a stream that settings are tried with.
struct Trial<'s> {
    content: &'s [u8],
    blocks: &'s [Block],
    whole: bool,
    tables: Tables,
}

impl<'s> Trial<'s> {
    fn new(content: &'s [u8], blocks: &'s [Block]) -> Self {
        let (mut count, mut len) = (0, 0);
        while count < blocks.len() && (len < TRIAL || content.len() <= TRIAL) {
            len += blocks[count].bytes;
            count += 1;
        }
        let len = len.min(content.len());
        let whole = count == blocks.len();
        Trial { content: &content[..len], blocks: &blocks[..count], whole, tables: Tables::new() }
    }

    /// Settings with what predicts most of the codes.
    fn codes(&self) -> Settings {
        let (mut misses, mut joined, mut at) = ([0, 0], [0, 0], 0);
        for block in self.blocks {
            if let Some(codes) = &block.codes {
                let (literals, distances) = counts(&self.content[at..at + block.bytes], &block.tokens);
                let here = trees::misses(codes, &literals, &distances);
                (0..2).for_each(|i| misses[i] += here[i]);
                if let Some(is) = trees::are_joined(codes) {
                    joined[usize::from(is)] += 1;
                }
            }
            at += block.bytes;
        }
        Settings { depth: 3, four: false, queues: misses[1] < misses[0], joined: joined[1] > joined[0] }
    }

    /// Bytes that the tokens take; nothing if it is too much work.
    fn size(&self, settings: Settings) -> Option<usize> {
        let mut writer = Writer::new();
        let work = super::work_limit(self.content.len());
        let given = Some(self.blocks);
        let done =
            State::new().stream(&self.tables, &mut writer, self.content, settings, work, given, usize::MAX);
        match done {
            Ok(_) => Some(writer.len()),
            // Only the last block of all is marked as such.
            Err(Stop::Differs) if !self.whole => Some(writer.len()),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiment() {
        let dir = std::env::var("DEFLS").unwrap();
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        names.sort();
        for path in names {
            let bytes = std::fs::read(&path).unwrap();
            let Some(s) = crate::native::packed::locate(&bytes).into_iter().next() else { continue };
            let start = s.start as usize;
            let (content, len) = crate::native::deflate::inflate(&bytes, s.start, 1 << 28).unwrap();
            let stream = &bytes[start..start + len as usize];
            let known = std::time::Instant::now();
            let g = crate::native::deflate::guess(&content, stream, None);
            let known = known.elapsed();
            let t = std::time::Instant::now();
            let Some(settings) = choose(&content, stream, None) else {
                println!(
                    "{:40} {} {} none",
                    path.file_name().unwrap().to_str().unwrap(),
                    content.len(),
                    stream.len()
                );
                continue;
            };
            let t = t.elapsed();
            let t2 = std::time::Instant::now();
            let mut e = Encoder::new();
            e.stream(&content, settings, stream).unwrap();
            let code = e.finish();
            let t2 = t2.elapsed();
            let t3 = std::time::Instant::now();
            let mut d = Decoder::new(&code);
            assert!(d.stream(&content, settings, stream.len()).unwrap() == stream);
            let t3 = t3.elapsed();
            let blocks = parse::blocks(stream).unwrap();
            let tokens: usize = blocks.iter().map(|b| b.tokens.len()).sum();
            println!(
                "{:40} {} {} -> {} ({:.2} %, {:.3} b/token, {} blocks) {:?} known {} {:.2}s choose {:.2}s code {:.2}s decode {:.2}s",
                path.file_name().unwrap().to_str().unwrap(),
                content.len(),
                stream.len(),
                code.len(),
                code.len() as f64 * 100.0 / stream.len() as f64,
                code.len() as f64 * 8.0 / tokens as f64,
                blocks.len(),
                (settings.depth, settings.four, settings.queues, settings.joined),
                g.is_some(),
                known.as_secs_f64(),
                t.as_secs_f64(),
                t2.as_secs_f64(),
                t3.as_secs_f64()
            );
        }
    }
}
