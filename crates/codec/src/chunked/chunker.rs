//! Where a content is cut into chunks: exactly where podman cuts it, since chunks are found again by their digests
//! (`docs/formats/chunked.md`, section 4).

/// Bytes that the rolling sum looks at.
const WINDOW: usize = 64;
/// Added to each byte.
const CHAR_OFFSET: u32 = 31;
/// A cut is made where so many low bits of the sum are all ones: chunks of 64 KiB on average, without a bound.
const BITS: u32 = 16;
/// Runs of so many zeros, or more, are chunks of their own.
pub const HOLE: u64 = 1024;

const ZEROS: [u8; HOLE as usize] = [0; HOLE as usize];

/// What comes out of a [`Chunker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The next bytes of the chunk at hand.
    Data(&'a [u8]),
    /// So many zeros, which are a chunk of their own.
    Hole(u64),
    /// The chunk at hand, of data, ends here.
    Cut,
}

/// The rolling sum of bup.
#[derive(Debug, Clone)]
struct Sum {
    ring: [u8; WINDOW],
    at: usize,
    first: u32,
    second: u32,
}

impl Sum {
    fn new() -> Self {
        let first = WINDOW as u32 * CHAR_OFFSET;
        let second = WINDOW as u32 * (WINDOW as u32 - 1) * CHAR_OFFSET;
        Sum { ring: [0; WINDOW], at: 0, first, second }
    }

    /// Takes a byte in; whether a chunk ends behind it.
    #[inline]
    fn roll(&mut self, byte: u8) -> bool {
        let dropped = u32::from(std::mem::replace(&mut self.ring[self.at], byte));
        self.at = (self.at + 1) % WINDOW;
        self.first = self.first.wrapping_add(u32::from(byte)).wrapping_sub(dropped);
        self.second =
            self.second.wrapping_add(self.first).wrapping_sub(WINDOW as u32 * (dropped + CHAR_OFFSET));
        let mask = (1 << BITS) - 1;
        self.second & mask == mask
    }

    fn roll_zeros(&mut self, count: u64) {
        // Once the window holds zeros alone, another one changes nothing but the place in it, which then does not matter.
        for _ in 0..count.min(WINDOW as u64) {
            self.roll(0);
        }
    }
}

/// Cuts one content, given in pieces of any size.
#[derive(Debug, Clone)]
pub struct Chunker {
    sum: Sum,
    /// Zeros at the end of what was given, which may be the start of a hole.
    zeros: u64,
    /// Whether the chunk at hand has bytes.
    open: bool,
}

impl Default for Chunker {
    fn default() -> Self {
        Chunker { sum: Sum::new(), zeros: 0, open: false }
    }
}

impl Chunker {
    /// Takes more of the content; `emit` gets what is known by then, and its error ends the work.
    pub fn push<E>(
        &mut self,
        mut bytes: &[u8],
        emit: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(first) = bytes.first() {
            if *first == 0 {
                let run = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                self.zeros += run as u64;
                bytes = &bytes[run..];
            } else {
                self.end_run(emit)?;
                let data = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                self.data(&bytes[..data], emit)?;
                bytes = &bytes[data..];
            }
        }
        Ok(())
    }

    /// Ends the content.
    pub fn finish<E>(mut self, emit: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        self.end_run(emit)?;
        if self.open { emit(Event::Cut) } else { Ok(()) }
    }

    fn end_run<E>(&mut self, emit: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        let zeros = std::mem::take(&mut self.zeros);
        if zeros < HOLE {
            return self.data(&ZEROS[..zeros as usize], emit);
        }
        if std::mem::take(&mut self.open) {
            emit(Event::Cut)?;
        }
        self.sum.roll_zeros(zeros);
        emit(Event::Hole(zeros))
    }

    fn data<E>(&mut self, bytes: &[u8], emit: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if self.sum.roll(*byte) {
                emit(Event::Data(&bytes[from..=at]))?;
                emit(Event::Cut)?;
                self.open = false;
                from = at + 1;
            }
        }
        if from < bytes.len() {
            self.open = true;
            emit(Event::Data(&bytes[from..]))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of the chunks of a content given in pieces of `piece` bytes; holes are negative.
    fn lengths(content: &[u8], piece: usize) -> Vec<i64> {
        let (mut out, mut open, mut all) = (Vec::new(), 0, Vec::new());
        let mut chunker = Chunker::default();
        let mut emit = |event: Event<'_>| {
            match event {
                Event::Data(bytes) => {
                    open += bytes.len() as i64;
                    all.extend_from_slice(bytes);
                }
                Event::Cut => out.push(std::mem::take(&mut open)),
                Event::Hole(zeros) => {
                    assert_eq!(open, 0, "a hole inside of a chunk");
                    out.push(-(zeros as i64));
                    all.resize(all.len() + zeros as usize, 0);
                }
            }
            Ok::<(), ()>(())
        };
        for piece in content.chunks(piece) {
            chunker.push(piece, &mut emit).unwrap();
        }
        chunker.finish(&mut emit).unwrap();
        assert_eq!(open, 0, "the last chunk has no end");
        assert!(all == content, "bytes are lost");
        out
    }

    #[test]
    fn holes_stand_alone_wherever_they_are() {
        let hole = |n: usize| vec![0u8; n];
        for (content, want) in [
            (Vec::new(), vec![]),
            (hole(1023), vec![1023]),
            (hole(1024), vec![-1024]),
            ([b"ab".to_vec(), hole(1024), b"c".to_vec()].concat(), vec![2, -1024, 1]),
            ([b"ab".to_vec(), hole(1023), b"c".to_vec()].concat(), vec![1026]),
            ([hole(5000), b"c".to_vec(), hole(3000)].concat(), vec![-5000, 1, -3000]),
        ] {
            for piece in [1, 3, 1000, 100_000] {
                assert_eq!(lengths(&content, piece), want, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn pieces_change_nothing() {
        let mut state = 7u32;
        let content: Vec<u8> = (0..700_000)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at / 4000 % 40 == 3 { 0 } else { (state >> 24) as u8 }
            })
            .collect();
        let whole = lengths(&content, content.len());
        assert!(whole.len() > 8, "{whole:?}");
        assert_eq!(lengths(&content, 1), whole);
        assert_eq!(lengths(&content, 4097), whole);
    }
}
