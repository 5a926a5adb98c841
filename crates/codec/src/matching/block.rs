//! Exact matches by rolling hash over fixed blocks (as rsync, Tridgell 1996): a fraction of the time and
//! memory of a suffix array.

use super::{Finder, common_prefix};

/// A table of the aligned blocks of one old text.
#[derive(Debug)]
pub struct BlockFinder<'t> {
    text: &'t [u8],
    /// Bytes of a block.
    block: usize,
    /// Block number + 1 by hash, open addressing; 0 is empty. Above it 32 more bits of the hash: most blocks that are
    /// not the wanted one are told without a look at the text. The first block of a hash wins.
    table: Vec<u64>,
    shift: u32,
    /// Two bits of one word for each hash that a block has, in a table small enough to stay in the processor's cache.
    /// Nearly all that is looked for is not there, and what this says is not there needs no look into the table above,
    /// which in large texts is a wait for main memory.
    filter: Vec<u64>,
}

const MAX_PROBES: usize = 8;
/// Positions that are looked at together for whether a block may begin there.
const LOOKAHEAD: usize = 64;
/// Bits of the filter for each place of the table, as log2: four, so eight or more for each block.
const FILTER_LOG: u32 = 2;
/// The bits of an entry that are of the hash.
const TAG: u64 = !0 << 32;

/// Where the block of an entry is in the text.
fn position(entry: u64, block: usize) -> usize {
    ((entry & !TAG) as usize - 1) * block
}

impl<'t> BlockFinder<'t> {
    /// Bytes of memory for a text of `len` bytes in blocks of `block`, the text not counted.
    pub fn memory(len: u64, block: usize) -> u64 {
        let places = (len / block as u64 + 1).next_power_of_two() * 2;
        places * 8 + (places << FILTER_LOG) / 8
    }

    /// Indexes the aligned blocks of `text`, of `block` bytes each. No shorter match is found, and every match of twice
    /// that is, unless its blocks occur more than once.
    ///
    /// # Panics
    /// When `block` is no multiple of 8, or 0.
    pub fn new(text: &'t [u8], block: usize) -> Self {
        assert!(block > 0 && block.is_multiple_of(8), "block of {block} bytes");
        let blocks = text.len() / block;
        let log = (blocks + 1).next_power_of_two().ilog2() + 1;
        let filter = vec![0; 1 << (log + FILTER_LOG).saturating_sub(6)];
        let mut finder = BlockFinder { text, block, table: vec![0; 1 << log], shift: 64 - log, filter };
        let mask = finder.table.len() - 1;
        for (i, block) in text.chunks_exact(block).enumerate() {
            let hash = hash(block);
            let (start, tag) = finder.slot(hash);
            let (word, bits) = finder.filter_bits(hash);
            finder.filter[word] |= bits;
            for slot in (0..MAX_PROBES).map(|p| (start + p) & mask) {
                let known = finder.table[slot];
                if known == 0 {
                    finder.table[slot] = tag | (i as u64 + 1);
                }
                if known == 0 || (known & TAG == tag && finder.at(known) == block) {
                    break;
                }
            }
        }
        finder
    }

    /// Where to look for a block with that hash, and its tag.
    fn slot(&self, hash: u64) -> (usize, u64) {
        ((hash >> self.shift) as usize, hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) & TAG)
    }

    /// The word of the filter, and the bits in it.
    #[inline(always)]
    fn filter_bits(&self, hash: u64) -> (usize, u64) {
        let word = (hash >> (self.shift - FILTER_LOG)) as usize / 64;
        (word, 1 << (hash >> 20 & 63) | 1 << (hash >> 26 & 63))
    }

    /// Whether a block with that hash may be in the text.
    #[inline(always)]
    fn possible(&self, hash: u64) -> bool {
        let (word, bits) = self.filter_bits(hash);
        self.filter[word] & bits == bits
    }

    /// [`Finder::barren`] with the length of a block known beforehand, which lets the compiler lay out the steps.
    #[inline(always)]
    fn barren_blocks<const N: usize>(&self, new: &[u8]) -> usize {
        let windows = new.windows(N).take(LOOKAHEAD);
        let count = windows.len();
        windows.into_iter().position(|w| self.possible(hash(w))).unwrap_or(count)
    }

    fn at(&self, entry: u64) -> &[u8] {
        let at = position(entry, self.block);
        &self.text[at..at + self.block]
    }
}

/// A hash of a block, whose upper bits depend on all of it. The multiplications do not wait for each other.
#[inline(always)]
fn hash(block: &[u8]) -> u64 {
    let mut sum = 0u64;
    let mut factor = 0x9e37_79b9_7f4a_7c15_u64;
    for eight in block.chunks_exact(8) {
        sum = sum.wrapping_add(super::load(eight).wrapping_mul(factor));
        // Odd: an even factor would forget upper bits.
        factor = factor.rotate_left(23) | 1;
    }
    (sum ^ (sum >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

impl Finder for BlockFinder<'_> {
    fn text(&self) -> &[u8] {
        self.text
    }

    /// One look at each of the next positions: none waits for the one before, as it would between the steps of a scan.
    fn barren(&self, new: &[u8]) -> usize {
        match self.block {
            8 => self.barren_blocks::<8>(new),
            16 => self.barren_blocks::<16>(new),
            32 => self.barren_blocks::<32>(new),
            _ => 0,
        }
    }

    fn find(&self, new: &[u8], floor: usize) -> Option<(usize, usize)> {
        let wanted = new.get(..self.block)?;
        let hash = hash(wanted);
        if !self.possible(hash) {
            return None;
        }
        let (start, tag) = self.slot(hash);
        let mask = self.table.len() - 1;
        for slot in (0..MAX_PROBES).map(|p| (start + p) & mask) {
            let known = self.table[slot];
            if known == 0 {
                return None;
            }
            if known & TAG == tag && self.at(known) == wanted {
                let at = position(known, self.block);
                let len = common_prefix(&self.text[at..], new);
                return (len > floor).then_some((at, len));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, mutate};

    #[test]
    fn what_is_called_barren_holds_no_block() {
        let text = binary(3, 100_000);
        let new = mutate(&text, 4, 300);
        for block in [8, 16, 24, 32] {
            let finder = BlockFinder::new(&text, block);
            let (mut at, mut skipped) = (0, 0);
            while at < new.len() {
                let barren = finder.barren(&new[at..]);
                assert!((at..at + barren).all(|i| finder.find(&new[i..], 0).is_none()), "{block} at {at}");
                skipped += barren;
                at += barren.max(1);
            }
            assert!(block == 24 || skipped > new.len() / 2, "{skipped} by blocks of {block}");
        }
    }

    #[test]
    fn finds_moved_blocks_and_nothing_else() {
        let text = binary(1, 40_000);
        let finder = BlockFinder::new(&text, 32);
        let (at, len) = finder.find(&text[320..5000], 8).unwrap();
        assert!(len >= 32 && text[at..at + len] == text[320..320 + len]);
        assert_eq!(finder.find(&binary(2, 100), 8), None);
        assert_eq!(finder.find(&text[..31], 8), None);
    }
}
