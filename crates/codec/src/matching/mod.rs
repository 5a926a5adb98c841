//! Finding new content in old content.
//!
//! Three steps, each its own module: [`pairing`] and [`sample`] choose which old bytes may help one new file
//! (its *candidates*), [`suffix`] or [`block`] find exact matches in them, and [`approx`] grows those into
//! approximate matches the way bsdiff does (Colin Percival, "Naive differences of executable code", 2003).

pub mod approx;
pub mod block;
pub mod pairing;
pub mod sample;
pub mod suffix;

/// Finds exact matches of new content in one old text.
pub trait Finder {
    /// The old text.
    fn text(&self) -> &[u8];

    /// So many positions from the start of `new` on have no match, and need no search; 0 says nothing.
    fn barren(&self, new: &[u8]) -> usize {
        let _ = new;
        0
    }

    /// The best match for the start of `new` that is longer than `floor` bytes: its position in the text and its
    /// length. `None` when there is none worth having; a finder may miss matches, it never makes one up.
    fn find(&self, new: &[u8], floor: usize) -> Option<(usize, usize)>;

    /// Whether the longest match is always found. Then it pays to look again for one that lost to a nearer one before its end.
    fn is_exact(&self) -> bool {
        false
    }

    /// Adds what [`Finder::find`] gives, and behind it a few others longer than `floor`, where the finder has them.
    fn find_several(&self, new: &[u8], floor: usize, found: &mut Vec<(usize, usize)>) {
        found.extend(self.find(new, floor));
    }
}

/// Length of the common prefix of two slices.
pub(crate) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let (a, b) = (&a[..n], &b[..n]);
    let mut i = 0;
    for (x, y) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        let diff = load(x) ^ load(y);
        if diff != 0 {
            return i + diff.trailing_zeros() as usize / 8;
        }
        i += 8;
    }
    i + a[i..].iter().zip(&b[i..]).take_while(|(x, y)| x == y).count()
}

/// Eight bytes as a little-endian number.
pub(crate) fn load(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_prefixes() {
        let a: Vec<u8> = (0..100).collect();
        for n in 0..100 {
            let mut b = a.clone();
            b[n] ^= 1;
            assert_eq!(common_prefix(&a, &b), n);
            assert_eq!(common_prefix(&a, &a[..n]), n);
        }
    }
}
