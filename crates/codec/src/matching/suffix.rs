//! Longest exact matches by suffix array (libsais).

use super::{Finder, common_prefix, load};

/// Shortest match worth reporting: an approximate match must beat its rival by 8 bytes.
const GRAM: usize = 8;

/// Texts below this size do without the table of two-byte prefixes: filling it would cost more than it saves.
const SMALL: usize = 1 << 14;

/// How many suffixes in front of new content, and how many behind it, are matches besides the longest.
const NEIGHBOURS: usize = 2;

/// A suffix array over one old text, with a first-two-bytes table and a filter of the 8-byte strings that occur.
///
/// Memory: text x (4 + 2) bytes besides the text itself.
#[derive(Debug)]
pub struct SuffixFinder<'t> {
    text: &'t [u8],
    order: Vec<i32>,
    /// First and last + 1 place in `order` of the suffixes that start with two given bytes.
    buckets: Vec<(u32, u32)>,
    filter: Filter,
}

impl<'t> SuffixFinder<'t> {
    /// Longest text in bytes: suffix positions are 32-bit.
    pub const MAX_TEXT: usize = i32::MAX as usize - 16;

    /// Bytes of memory for a text of `len` bytes, the text not counted.
    pub fn memory(len: u64) -> u64 {
        len * 6 + (1 << 20)
    }

    /// Sorts the suffixes of `text`.
    ///
    /// # Panics
    /// When `text` is longer than [`SuffixFinder::MAX_TEXT`].
    pub fn new(text: &'t [u8]) -> Self {
        assert!(text.len() <= Self::MAX_TEXT, "text of {} bytes", text.len());
        let order = if text.len() < 2 {
            (0..text.len() as i32).collect()
        } else {
            libsais::SuffixArrayConstruction::for_text(text)
                .in_owned_buffer32()
                .single_threaded()
                .run()
                .unwrap_or_else(|e| unreachable!("suffix array of {} bytes: {e:?}", text.len()))
                .into_vec()
        };
        if text.len() < SMALL {
            return SuffixFinder { text, order, buckets: Vec::new(), filter: Filter::new(text) };
        }
        let mut buckets = vec![(0u32, 0u32); 1 << 16];
        for pair in text.windows(2) {
            buckets[bucket(pair)].1 += 1;
        }
        // The suffix of one byte sorts in front of all others of its first byte and is in no bucket.
        let alone = text.last().map(|&last| usize::from(last) << 8);
        let mut next = 0;
        for (b, range) in buckets.iter_mut().enumerate() {
            next += u32::from(alone == Some(b));
            *range = (next, next + range.1);
            next = range.1;
        }
        SuffixFinder { text, order, buckets, filter: Filter::new(text) }
    }
}

impl SuffixFinder<'_> {
    /// Whether the first eight bytes of `new` may occur in the text; false is certain. `new` has as many.
    pub(crate) fn may_contain(&self, new: &[u8]) -> bool {
        self.filter.may_contain(new)
    }
}

fn bucket(two: &[u8]) -> usize {
    usize::from(two[0]) << 8 | usize::from(two[1])
}

impl Finder for SuffixFinder<'_> {
    fn text(&self) -> &[u8] {
        self.text
    }

    fn find(&self, new: &[u8], floor: usize) -> Option<(usize, usize)> {
        self.search(new, floor).map(|(best, _)| best)
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn find_several(&self, new: &[u8], floor: usize, found: &mut Vec<(usize, usize)>) {
        let Some((best, place)) = self.search(new, floor) else { return };
        found.push(best);
        let mut add = |i: usize| {
            let pos = self.order[i] as usize;
            // Its length is known, and may be long to find.
            if pos == best.0 {
                return true;
            }
            let len = common_prefix(&self.text[pos..], new);
            if len > floor {
                found.push((pos, len));
            }
            len > floor
        };
        let _ = (place..self.order.len().min(place + NEIGHBOURS)).all(&mut add);
        let _ = (place.saturating_sub(NEIGHBOURS)..place).rev().all(&mut add);
    }
}

impl SuffixFinder<'_> {
    /// The longest match for the start of `new`, if it is longer than `floor`, and the place of `new` in the order.
    fn search(&self, new: &[u8], floor: usize) -> Option<((usize, usize), usize)> {
        if new.len() <= floor.max(GRAM) || !self.filter.may_contain(new) {
            return None;
        }
        let (low, high) = self.buckets.get(bucket(new)).copied().unwrap_or((0, self.order.len() as u32));
        let shared = if self.buckets.is_empty() { 0 } else { 2 };
        let (mut low, mut high) = (low as usize, high as usize);
        // Binary search that remembers how much of `new` both borders share with it, so that no byte of a long match
        // is compared again at every step.
        let suffix = |i: usize| &self.text[self.order[i] as usize..];
        let (mut low_len, mut high_len) = (shared, shared);
        let mut best = (0, 0);
        while low < high {
            let mid = low + (high - low) / 2;
            let candidate = suffix(mid);
            let skip = low_len.min(high_len);
            let len = skip + common_prefix(&candidate[skip..], &new[skip..]);
            if len > best.1 {
                best = (self.order[mid] as usize, len);
            }
            if len == new.len() {
                low = mid;
                break;
            }
            if len == candidate.len() || candidate[len] < new[len] {
                low = mid + 1;
                low_len = len;
            } else {
                high = mid;
                high_len = len;
            }
        }
        (best.1 > floor).then_some((best, low))
    }
}

/// One hashed bit for each 8-byte string of a text: most searches in new content end here.
#[derive(Debug)]
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    fn new(text: &[u8]) -> Self {
        let log = (text.len().max(64) * 8).next_power_of_two().ilog2();
        let log = if (1usize << log) > text.len() * 12 { log - 1 } else { log };
        let mut filter = Filter { bits: vec![0; 1 << (log - 6)], shift: 64 - log };
        for gram in text.windows(GRAM) {
            let (word, bit) = filter.place(gram);
            filter.bits[word] |= bit;
        }
        filter
    }

    fn place(&self, gram: &[u8]) -> (usize, u64) {
        let hash = load(gram).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift;
        ((hash >> 6) as usize, 1 << (hash & 63))
    }

    fn may_contain(&self, new: &[u8]) -> bool {
        let (word, bit) = self.place(new);
        self.bits[word] & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn longest(text: &[u8], new: &[u8]) -> usize {
        (0..text.len()).map(|i| common_prefix(&text[i..], new)).max().unwrap_or(0)
    }

    proptest! {
        #[test]
        fn finds_the_longest_match(
            text in proptest::collection::vec(0u8..3, 0..300),
            new in proptest::collection::vec(0u8..3, 0..60),
        ) {
            let finder = SuffixFinder::new(&text);
            let want = longest(&text, &new);
            match finder.find(&new, GRAM) {
                Some((pos, len)) => {
                    prop_assert_eq!(len, want);
                    prop_assert_eq!(&text[pos..pos + len], &new[..len]);
                }
                None => prop_assert!(want <= GRAM, "missed a match of {}", want),
            }
            let mut several = Vec::new();
            finder.find_several(&new, GRAM, &mut several);
            prop_assert_eq!(several.first().copied(), finder.find(&new, GRAM));
            for (i, &(pos, len)) in several.iter().enumerate() {
                prop_assert_eq!(common_prefix(&text[pos..], &new), len);
                prop_assert!(len > GRAM && several[..i].iter().all(|s| s.0 != pos));
            }
        }
    }

    #[test]
    fn the_prefix_table_changes_nothing() {
        let text = coracle_testkit::image::binary(5, 3 * SMALL);
        let finder = SuffixFinder::new(&text);
        let mut plain = SuffixFinder::new(&text);
        plain.buckets = Vec::new();
        let new = coracle_testkit::image::mutate(&text, 6, 400);
        for at in (0..new.len()).step_by(11) {
            let length = |f: &SuffixFinder<'_>| f.find(&new[at..], GRAM).map(|m| m.1);
            assert_eq!(length(&finder), length(&plain), "at {at}");
        }
    }

    #[test]
    fn edge_texts() {
        for text in [&b""[..], b"a", b"ab", &[0xff; 3], &[0xff; 40]] {
            let f = SuffixFinder::new(text);
            assert_eq!(f.find(&[0xff; 20], 8).map(|m| m.1), (text.len() > 8).then_some(20), "{text:?}");
        }
    }
}
