//! Choosing settings for a stream: the writer's business alone.

use super::parse::{self, Block};
use super::{Encoder, Settings, State, counts, trees};
use crate::native::deflate::Stop;
use crate::native::entropy::decisions::{Tables, Writer};

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
    if blocks.iter().map(|b| b.bytes).sum::<usize>() != content.len() {
        return None;
    }
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
        let given = Some(self.blocks);
        let done = State::new().stream(&self.tables, &mut writer, self.content, settings, given, usize::MAX);
        match done {
            Ok(_) => Some(writer.len()),
            // Only the last block of all is marked as such.
            Err(Stop::Differs) if !self.whole => Some(writer.len()),
            Err(_) => None,
        }
    }
}
