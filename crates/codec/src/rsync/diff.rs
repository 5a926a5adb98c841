//! Copies of any length from anywhere, chosen by price (section 5.2).

use std::io::{self, BufReader, Write};
use std::ops::Range;

use super::price::{BYTE, LiteralPrices};
use super::way::{Matches, Step, Ways};
use super::{Error, OpCounts, OpWriter};
use crate::matching::suffix::SuffixFinder;
use crate::observe::{Observer, Stage};
use crate::{ReadAt, Section};

/// Largest part of a basis that is held in memory, in bytes.
pub const MAX_WINDOW: u64 = 512 << 20;

/// New content is looked at in pieces of so many bytes.
const PIECE: u64 = 128 << 10;

/// Gaps shorter than this are left literal when further windows of a basis are searched.
const SHORT_GAP: u64 = 16;

/// What operations cost, in 256ths of a byte of the compressed delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    /// A copy. Besides its bytes this is what a device pays: it opens a file and seeks for each.
    pub copy: u32,
    /// A copy that goes on where an earlier one broke off: its offset has much in common with that one's.
    pub resumed: u32,
    /// Beginning a literal.
    pub literal: u32,
}

impl Default for Prices {
    /// Found by search on pairs of every kind (`docs/design/0016-balena.md`).
    fn default() -> Self {
        Prices { copy: 12 * BYTE, resumed: 11 * BYTE, literal: BYTE * 3 / 4 }
    }
}

/// How a delta is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What operations cost.
    pub prices: Prices,
    /// Bytes of the basis that are searched at a time; at most [`MAX_WINDOW`] count. Memory is six times as much.
    pub window: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { prices: Prices::default(), window: MAX_WINDOW }
    }
}

/// A part of the new content that the basis has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// Offset in the new content.
    pub new: u64,
    /// Offset in the basis.
    pub old: u64,
    /// Bytes.
    pub len: u64,
}

/// The copies that make up one new content, in its order, not overlapping; the rest is literal.
pub type Copies = Vec<Copy>;

/// Finds the copies for each of `news`, all from one basis.
///
/// Memory: six times the window, 24 bytes for each copy, and a few megabytes.
///
/// # Errors
/// [`Error::ReadBasis`] when the basis or a new content cannot be read; [`Error::Cancelled`].
pub fn diff(
    basis: &dyn ReadAt,
    news: &[&dyn ReadAt],
    options: &Options,
    observer: &dyn Observer,
) -> Result<Vec<Copies>, Error> {
    let window = options.window.clamp(1, MAX_WINDOW);
    let windows = basis.size().div_ceil(window);
    let total = news.iter().map(|new| new.size()).sum::<u64>() * windows.max(1);
    let mut copies: Vec<Copies> = vec![Vec::new(); news.len()];
    let mut done = 0;
    for number in 0..windows {
        let start = number * window;
        let text = Section::new(basis, start, window).to_vec().map_err(Error::ReadBasis)?;
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        let finder = SuffixFinder::new(&text);
        for (new, copies) in news.iter().zip(&mut copies) {
            let mut search =
                Search { finder: &finder, text: &text, start, new: *new, prices: options.prices, observer };
            *copies = search.run(copies, &mut done, total)?;
        }
    }
    Ok(copies)
}

/// Writes a delta: copies, and what lies between them as literals.
///
/// # Errors
/// Those of `out` and of reading `new`.
pub fn write_delta(copies: &[Copy], new: &dyn ReadAt, out: impl Write) -> io::Result<(OpCounts, u64)> {
    let mut writer = OpWriter::new(out)?;
    let mut content = BufReader::with_capacity(1 << 17, Section::whole(new).reader());
    let mut at = 0;
    let end = Copy { new: new.size(), old: 0, len: 0 };
    for copy in copies.iter().chain([&end]) {
        writer.literal_from(&mut content, copy.new - at)?;
        writer.copy(copy.old, copy.len)?;
        content.seek_relative(i64::try_from(copy.len).map_err(io::Error::other)?)?;
        at = copy.new + copy.len;
    }
    let (mut out, counts, bytes) = writer.finish()?;
    out.flush()?;
    Ok((counts, bytes))
}

/// The search of one new content in one window.
struct Search<'a> {
    finder: &'a SuffixFinder<'a>,
    text: &'a [u8],
    /// Where the window begins in the basis.
    start: u64,
    new: &'a dyn ReadAt,
    prices: Prices,
    observer: &'a dyn Observer,
}

impl Search<'_> {
    /// Fills the gaps between copies that are known.
    fn run(&mut self, known: &[Copy], done: &mut u64, total: u64) -> Result<Copies, Error> {
        let mut found = Found { copies: Vec::with_capacity(known.len()) };
        let mut state = State {
            matches: Matches::default(),
            ways: Ways::default(),
            literals: LiteralPrices::new(),
            prices: Vec::new(),
            literal: Vec::new(),
            settled: Vec::new(),
            steps: Vec::new(),
            piece: Vec::new(),
        };
        let mut at = 0;
        let end = Copy { new: self.new.size(), old: 0, len: 0 };
        for copy in known.iter().chain([&end]) {
            if known.is_empty() || copy.new - at >= SHORT_GAP {
                self.gap(at..copy.new, &mut found, &mut state, (&mut *done, total))?;
            } else {
                *done += copy.new - at;
            }
            *done += copy.len;
            found.add(*copy);
            at = copy.new + copy.len;
        }
        Ok(found.copies)
    }

    fn gap(
        &mut self,
        gap: Range<u64>,
        found: &mut Found,
        state: &mut State,
        (done, total): (&mut u64, u64),
    ) -> Result<(), Error> {
        let mut at = gap.start;
        while at < gap.end {
            if self.observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let len = (gap.end - at).min(PIECE) as usize;
            state.piece.resize(len, 0);
            self.new.read_exact_at(at, &mut state.piece).map_err(Error::ReadBasis)?;
            self.piece(at, found, state);
            at += len as u64;
            *done += len as u64;
            self.observer.progress(Stage::Diff, *done, total);
        }
        Ok(())
    }

    /// Copies for one piece, whose bytes are there.
    fn piece(&self, at: u64, found: &mut Found, state: &mut State) {
        let expected = found.expected(at, self.start, self.text.len());
        let piece = &state.piece[..];
        // What goes on as before needs no search.
        if let Some(old) = expected
            && self.text[old as usize..].starts_with(piece)
        {
            found.add(Copy { new: at, old: self.start + u64::from(old), len: piece.len() as u64 });
            return;
        }
        state.matches.find(self.finder, piece, expected);
        // Prices depend on what is literal, and that on prices: a guess, and one correction.
        state.matches.presume(32, &mut state.literal);
        state.matches.settle(&mut state.settled);
        for _ in 0..2 {
            state.literals.price(piece, &state.literal, &state.settled, &mut state.prices);
            state.steps.clear();
            state.ways.best(&state.matches, &state.prices, &self.prices, &mut state.steps);
            state.literal.fill(true);
            for step in &state.steps {
                state.literal[step.new as usize..][..step.len as usize].fill(false);
            }
        }
        state.literals.write(piece, &state.literal);
        for step in &state.steps {
            let Step { new, old, len } = *step;
            let (new, len) = (at + u64::from(new), u64::from(len));
            // Of equal places the one that follows the last copy: devices read on, and offsets are alike.
            let follows = found.expected(new, self.start, self.text.len()).filter(|&follows| {
                let bytes = &self.text[old as usize..][..len as usize];
                self.text[follows as usize..].starts_with(bytes)
            });
            let old = self.start + u64::from(follows.unwrap_or(old));
            found.add(Copy { new, old, len });
        }
    }
}

/// Room for the work on one piece.
struct State {
    matches: Matches,
    ways: Ways,
    literals: LiteralPrices,
    prices: Vec<u32>,
    literal: Vec<bool>,
    settled: Vec<bool>,
    steps: Vec<Step>,
    piece: Vec<u8>,
}

/// Copies so far.
struct Found {
    copies: Copies,
}

impl Found {
    /// Where in the window the last copy goes on at `new`, if there.
    fn expected(&self, new: u64, start: u64, len: usize) -> Option<u32> {
        let last = self.copies.last()?;
        let old = (last.old + (new - last.new)).checked_sub(start)?;
        (old < len as u64).then_some(old as u32)
    }

    fn add(&mut self, copy: Copy) {
        match self.copies.last_mut() {
            Some(last) if last.new + last.len == copy.new && last.old + last.len == copy.old => {
                last.len += copy.len;
            }
            _ if copy.len > 0 => self.copies.push(copy),
            _ => {}
        }
    }
}
