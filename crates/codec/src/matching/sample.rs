//! Which old files hold content like a given new content, whatever their names: a sampled rolling hash.
//!
//! A gear hash (Xia et al., "Ddelta", 2014) runs over every old file; positions whose hash has its top bits clear are
//! remembered. Looking up the samples of a new file gives votes for old files and for places in them. The index covers
//! a whole image in a few megabytes because only a fixed number of samples is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

/// Positions that share one hash beyond this number say nothing about likeness (runs of zeros, padding).
const MAX_SAME: usize = 8;

/// Bytes that influence one hash: each step shifts a byte's influence up by one bit, out of 64.
const WINDOW: usize = 64;

/// A sampled position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sample {
    hash: u32,
    /// Number of the file, as the caller counts.
    file: u32,
    /// Voting window within the file.
    place: u32,
}

/// How many bits of the hash must be clear, so that about `2^22` samples cover `total` bytes: 48 MB at most.
pub fn density(total: u64) -> u32 {
    (total >> 22).max(1).next_power_of_two().ilog2().max(5)
}

/// Takes the samples of one file, fed piece by piece.
#[derive(Debug)]
pub struct Sampler {
    file: u32,
    mask_shift: u32,
    hash: u64,
    pos: u64,
    last: u32,
    samples: Vec<Sample>,
}

impl Sampler {
    /// A sampler for file number `file` that keeps one position in `2^density` on average.
    pub fn new(file: u32, density: u32) -> Self {
        Sampler { file, mask_shift: 64 - density, hash: 0, pos: 0, last: 0, samples: Vec::new() }
    }

    /// Feeds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let (file, mut samples) = (self.file, std::mem::take(&mut self.samples));
        self.each(bytes, |pos, hash| {
            let place = u32::try_from(pos >> SampleIndex::PLACE_LOG).unwrap_or(u32::MAX);
            samples.push(Sample { hash, file, place });
        });
        self.samples = samples;
    }

    /// Feeds the next bytes; `found` gets each sample as the position behind its bytes, and its hash.
    #[inline(always)]
    fn each(&mut self, bytes: &[u8], mut found: impl FnMut(u64, u32)) {
        for &byte in bytes {
            self.hash = (self.hash << 1).wrapping_add(GEAR[usize::from(byte)]);
            self.pos += 1;
            if self.hash >> self.mask_shift == 0 && self.pos >= WINDOW as u64 {
                let hash = (self.hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32;
                // A run of one byte gives one hash over and over.
                if hash != self.last {
                    self.last = hash;
                    found(self.pos, hash);
                }
            }
        }
    }

    /// The samples taken.
    pub fn finish(self) -> Vec<Sample> {
        self.samples
    }
}

/// The samples of all old files.
#[derive(Debug, Default)]
pub struct SampleIndex {
    /// Sorted.
    samples: Vec<Sample>,
    /// Where the samples begin whose hashes have these upper bits; one more entry for the end.
    begins: Vec<u32>,
    /// The upper bits of a hash are what is above this many lower ones.
    lower: u32,
    density: u32,
}

/// Votes for one old file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Votes {
    /// Number of the file.
    pub file: u32,
    /// How many of the new content's samples occur in it.
    pub votes: u32,
    /// The same by window of 256 KiB, ascending.
    pub places: Vec<(u32, u32)>,
}

impl Votes {
    /// Windows, those with most votes first, each followed by its neighbours; some come more than once.
    pub fn likeliest(&self) -> impl Iterator<Item = u32> + Clone {
        let mut order: Vec<(u32, u32)> = self.places.iter().map(|&(place, n)| (n, place)).collect();
        order.sort_by_key(|&(n, place)| (std::cmp::Reverse(n), place));
        order.into_iter().flat_map(|(_, p)| [p, p.saturating_add(1), p.saturating_sub(1)])
    }
}

impl SampleIndex {
    /// log2 of the bytes of one voting window within a file.
    pub const PLACE_LOG: u32 = 18;

    /// Sorts samples taken with one `density`.
    pub fn new(mut samples: Vec<Sample>, density: u32) -> Self {
        samples.sort_unstable_by_key(|s| (u64::from(s.hash) << 32 | u64::from(s.file), s.place));
        // About 16 samples for each value of the upper bits.
        let upper = (samples.len() / 16).next_power_of_two().ilog2().clamp(1, 20);
        let lower = u32::BITS - upper;
        let mut begins = vec![0; (1 << upper) + 1];
        for s in &samples {
            begins[(s.hash >> lower) as usize + 1] += 1;
        }
        for i in 1..begins.len() {
            begins[i] += begins[i - 1];
        }
        SampleIndex { samples, begins, lower, density }
    }

    /// The samples of one hash.
    fn of(&self, hash: u32) -> &[Sample] {
        let upper = (hash >> self.lower) as usize;
        let (Some(&begin), Some(&end)) = (self.begins.get(upper), self.begins.get(upper + 1)) else {
            return &[];
        };
        let near = &self.samples[begin as usize..end as usize];
        let from = near.partition_point(|s| s.hash < hash);
        let same = near[from..].iter().take(MAX_SAME + 1).take_while(|s| s.hash == hash).count();
        &near[from..from + same]
    }

    /// The voting window that an offset is in.
    pub fn place(offset: u64) -> u32 {
        u32::try_from(offset >> SampleIndex::PLACE_LOG).unwrap_or(u32::MAX)
    }

    /// Offset range of a voting window.
    pub fn place_range(place: u32) -> Range<u64> {
        u64::from(place) << SampleIndex::PLACE_LOG..(u64::from(place) + 1) << SampleIndex::PLACE_LOG
    }

    /// The first of `places` in a file of `size` bytes that take at most `budget` bytes: as offset ranges, ascending,
    /// joined.
    pub fn windows(places: impl Iterator<Item = u32>, size: u64, budget: u64) -> Vec<Range<u64>> {
        let mut taken = BTreeSet::new();
        let mut left = budget;
        for place in places {
            let range = Self::place_range(place);
            let len = range.end.min(size).saturating_sub(range.start);
            if len > left {
                break;
            }
            if len > 0 && taken.insert(place) {
                left -= len;
            }
        }
        let mut out: Vec<Range<u64>> = Vec::new();
        for place in taken {
            let range = Self::place_range(place);
            match out.last_mut().filter(|w| w.end == range.start) {
                Some(w) => w.end = range.end.min(size),
                None => out.push(range.start..range.end.min(size)),
            }
        }
        out
    }

    /// Of the samples of `content`, those that touch a byte outside of the `known` stretches, ascending: how many there
    /// are, and how many of them are also in other files than number `file`.
    pub fn elsewhere(
        &self,
        content: &[u8],
        known: impl IntoIterator<Item = Range<usize>>,
        file: u32,
    ) -> (u32, u32) {
        let mut known = known.into_iter().peekable();
        let (mut all, mut shared) = (0, 0);
        Sampler::new(file, self.density).each(content, |end, hash| {
            let start = end as usize - WINDOW;
            while known.next_if(|k| k.end <= start).is_some() {}
            if known.peek().is_some_and(|k| k.start <= start && end as usize <= k.end) {
                return;
            }
            all += 1;
            let same = self.of(hash);
            shared += u32::from(same.len() > MAX_SAME || same.iter().any(|s| s.file != file));
        });
        (all, shared)
    }

    /// Chooses up to `most` old files that have, together, most of `content`'s samples: each in its turn the one with most samples
    /// that none before it has. `first`, if given, is chosen in any case. A further file joins for `enough` samples.
    ///
    /// Returns them in the order of choice, with all their votes, not only new ones; and the number of samples taken.
    pub fn cover(
        &self,
        content: &[u8],
        first: Option<u32>,
        most: usize,
        enough: impl Fn(u32) -> u32,
    ) -> (Vec<Votes>, u32) {
        let mut sampler = Sampler::new(0, self.density);
        sampler.update(content);
        let mut wanted: Vec<u32> = sampler.finish().into_iter().map(|s| s.hash).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let enough = enough(wanted.len() as u32);
        let mut hits: Vec<&[Sample]> = Vec::new();
        for &hash in &wanted {
            let same = self.of(hash);
            if !same.is_empty() && same.len() <= MAX_SAME {
                hits.push(same);
            }
        }
        let mut chosen: Vec<Votes> = Vec::new();
        let mut open = hits.clone();
        while chosen.len() < most {
            let next = match first.filter(|_| chosen.is_empty()) {
                Some(file) => file,
                None => match leader(&open) {
                    Some((file, votes)) if votes >= enough => file,
                    _ => break,
                },
            };
            chosen.push(votes(next, &hits));
            open.retain(|same| same.iter().all(|s| s.file != next));
        }
        (chosen, wanted.len() as u32)
    }
}

/// The file with most votes, the first of several; a file has one vote for each hash it holds.
fn leader(hits: &[&[Sample]]) -> Option<(u32, u32)> {
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for same in hits {
        // Samples of one hash are sorted by file.
        let mut before = None;
        for s in same.iter().filter(|s| before.replace(s.file) != Some(s.file)) {
            *counts.entry(s.file).or_default() += 1;
        }
    }
    counts.into_iter().max_by_key(|&(file, n)| (n, std::cmp::Reverse(file)))
}

fn votes(file: u32, hits: &[&[Sample]]) -> Votes {
    let mut places: BTreeMap<u32, u32> = BTreeMap::new();
    let mut votes = 0;
    for same in hits {
        let mut here = same.iter().filter(|s| s.file == file).peekable();
        votes += u32::from(here.peek().is_some());
        here.for_each(|s| *places.entry(s.place).or_default() += 1);
    }
    Votes { file, votes, places: places.into_iter().collect() }
}

/// Random numbers, one for each byte value (splitmix64 from a fixed seed).
const GEAR: [u64; 256] = {
    let mut table = [0; 256];
    let mut state: u64 = 0x0c0f_fee0_c0ac_1e5e;
    let mut i = 0;
    while i < 256 {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[i] = z ^ (z >> 31);
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_testkit::image::{binary, mutate};

    #[test]
    fn the_likeliest_file_wins_whatever_its_name() {
        let density = density(0);
        let files: Vec<Vec<u8>> = (0..20).map(|i| binary(i, 50_000)).collect();
        let samples = files.iter().enumerate().flat_map(|(i, f)| {
            let mut s = Sampler::new(i as u32, density);
            f.chunks(777).for_each(|c| s.update(c));
            s.finish()
        });
        let index = SampleIndex::new(samples.collect(), density);
        let (votes, samples) = index.cover(&mutate(&files[13], 5, 20), None, 3, |_| 4);
        assert_eq!(votes.len(), 1);
        assert_eq!(votes[0].file, 13);
        assert!(votes[0].votes * 2 > samples, "{} of {samples}", votes[0].votes);
        assert_eq!(index.cover(&binary(99, 5000), None, 3, |_| 4).0, []);
        // Parts of three files, under the name of a fourth.
        let mixed = [&files[4][..20_000], &files[9][10_000..50_000], &files[2][..10_000]].concat();
        let (votes, _) = index.cover(&mixed, Some(17), 4, |_| 4);
        assert_eq!(votes.iter().map(|v| v.file).collect::<Vec<_>>(), [17, 9, 4, 2]);
        assert_eq!(votes[0].votes, 0);
        assert_eq!(index.cover(&mixed, None, 2, |_| 4).0.len(), 2);
    }

    #[test]
    fn runs_of_one_byte_do_not_flood_the_index() {
        let mut s = Sampler::new(0, 5);
        s.update(&vec![0; 1 << 20]);
        assert!(s.finish().len() <= 1);
    }

    #[test]
    fn density_keeps_the_index_small() {
        assert_eq!(density(0), 5);
        assert_eq!(density(170 << 20), 6);
        assert_eq!(density(4 << 30), 10);
        assert_eq!(density(1 << 40), 18);
    }

    #[test]
    fn what_files_share_is_told_apart_from_what_they_know() {
        let density = density(0);
        let common = binary(1, 40_000);
        let files: Vec<Vec<u8>> = (0..3).map(|i| [&binary(10 + i, 40_000)[..], &common].concat()).collect();
        let samples = files.iter().enumerate().flat_map(|(i, f)| {
            let mut s = Sampler::new(i as u32, density);
            s.update(f);
            s.finish()
        });
        let index = SampleIndex::new(samples.collect(), density);
        let (all, shared) = index.elsewhere(&files[0], [], 0);
        assert!(shared * 3 > all && shared * 3 < all * 2, "{shared} of {all}");
        let (own, shared) = index.elsewhere(&files[0], std::iter::once(40_000..80_000), 0);
        assert!(own * 3 > all && shared * 20 < own, "{shared} of {own}");
        assert_eq!(index.elsewhere(&files[0], [0..10_000, 10_000..80_000], 0).1, 0);
    }
}
