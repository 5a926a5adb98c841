//! Deflate streams of any encoder: what it chose is coded, predicted by what could be chosen
//! (`docs/formats/native-delta.md`, section 8.8).

mod choose;
mod model;
mod parse;
mod search;
mod trees;

use super::Stop;
use super::blocks::{Bits, END, codes, distance_code, fixed_len, length_code};
use crate::native::Error;
use crate::native::entropy::decisions::{Coder, Numbers, Plain, Reader, Tables, Trees, Writer};
pub use choose::choose;
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
        given: Option<&[Block]>,
        most: usize,
    ) -> Result<Vec<u8>, Stop> {
        let mut out = Output { bits: Bits::default() };
        let hashed = if settings.four { 4 } else { 3 };
        let work = super::work_limit(content.len());
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
                    let token = self.model.token(t, coder, &mut chains, at, [&here, &next], want)?;
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
        let Encoder { tables, state, writer } = self;
        let made = state.stream(tables, writer, content, settings, Some(&blocks), usize::MAX)?;
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
        self.state.stream(&self.tables, &mut self.reader, content, settings, None, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::deflate;
    use coracle_testkit::image::{binary, mutate, text};
    use coracle_testkit::native::token_stream;

    fn all_settings() -> impl Iterator<Item = Settings> {
        (0..8 * 16).filter_map(|low| Settings::of(FAMILY << 8 | low).ok())
    }

    fn contents() -> Vec<Vec<u8>> {
        let (noise, words) = (binary(1, 9000), text(2, 20_000));
        let mixed = [&noise[..], &words, &mutate(&noise, 2, 40), &[0; 9000]].concat();
        vec![Vec::new(), b"a".to_vec(), b"abcabcabcabc".to_vec(), noise, mixed, vec![7; 70_000]]
    }

    #[test]
    fn settings_have_one_number_each() {
        let numbers: Vec<u64> = all_settings().map(Settings::number).collect();
        assert_eq!(numbers.len(), 8 * DEPTHS.len());
        assert!(numbers.iter().all(|&n| Settings::of(n).unwrap().number() == n));
        for bad in [0x506, 0x580, 0x603, 0x403] {
            assert!(Settings::of(bad).is_err(), "{bad:#x}");
        }
    }

    #[test]
    fn streams_come_back_whatever_the_settings() {
        for (i, content) in contents().iter().enumerate() {
            let made_by = [0x011, 0x038, 0x069, 0x098, 0x169, 0x498][i];
            let stream = deflate::rebuild(content, deflate::Encoder::of(made_by).unwrap()).unwrap();
            for settings in all_settings() {
                let mut encoder = Encoder::new();
                encoder.stream(content, settings, &stream).unwrap();
                let code = encoder.finish();
                let made = Decoder::new(&code).stream(content, settings, stream.len());
                assert!(made.as_ref() == Ok(&stream), "{settings:?}, {} bytes", content.len());
                let short = Decoder::new(&code).stream(content, settings, stream.len() / 2);
                assert!(short.is_err() || stream.len() < 10, "{settings:?}");
            }
        }
    }

    #[test]
    fn streams_of_one_part_learn_from_one_another() {
        let content = text(3, 6000);
        let stream = deflate::rebuild(&content, deflate::Encoder::of(0x098).unwrap()).unwrap();
        let settings = Settings::of(0x503).unwrap();
        let code_of = |n: usize| {
            let mut encoder = Encoder::new();
            (0..n).for_each(|_| encoder.stream(&content, settings, &stream).unwrap());
            encoder.finish()
        };
        let (one, four) = (code_of(1), code_of(4));
        assert!(four.len() < 2 * one.len(), "{} and {} bytes", one.len(), four.len());
        let mut decoder = Decoder::new(&four);
        assert!((0..4).all(|_| decoder.stream(&content, settings, stream.len()).unwrap() == stream));
    }

    #[test]
    fn any_code_makes_something_or_nothing_in_both_decoders() {
        for (seed, settings) in (0..).zip(all_settings()) {
            let content = text(seed, 600);
            for code in [binary(seed, 400), Vec::new(), vec![255; 50]] {
                let made = Decoder::new(&code).stream(&content, settings, 4096);
                let other = token_stream(&content, settings.number(), &code, 4096);
                assert!(made.ok() == other.ok(), "{settings:?}");
            }
        }
    }

    /// RFC 1951, section 3.2.7: lengths of codes have three bits, and those that are not sent are 0.
    #[test]
    fn a_length_of_a_code_that_cannot_be_sent_is_refused() {
        let (content, settings) = (text(3, 500), Settings::of(0x503).unwrap());
        let code = binary(48, 14);
        assert_eq!(Decoder::new(&code).stream(&content, settings, 4096), Err(Stop::Differs));
        let other = token_stream(&content, settings.number(), &code, 4096);
        assert_eq!(other, Err("a length of a code is too long".into()));
    }

    #[test]
    fn what_is_no_stream_is_not_coded() {
        let content = text(1, 3000);
        let stream = deflate::rebuild(&content, deflate::Encoder::of(0x068).unwrap()).unwrap();
        assert!(choose(&content, &stream, None).is_some());
        let settings = Settings::of(0x503).unwrap();
        let fails = |content: &[u8], stream: &[u8]| {
            Encoder::new().stream(content, settings, stream) == Err(Stop::Differs)
                && choose(content, stream, Some(settings)).is_none()
        };
        // Cut, of another content, a distance beyond the start, bits that fill up and are not 0, 258 bytes in a long way.
        assert!(fails(&content, &stream[..stream.len() - 1]));
        assert!(fails(&content[..2999], &stream));
        assert!(fails(b"aaaa", &[0x03, 0x02, 0, 0]));
        assert!(fails(b"a", &[0x4b, 0x04, 0xf0]));
        assert!(fails(b"", &[0x07]));
        assert!(fails(&[0; 259], &[0x63, 0x18, 0x05, 0xfc]));
    }
}
