//! Deterministic content that looks like what images hold, and edits of it.
//!
//! The same arguments give the same bytes on every machine and for ever: sizes of deltas made from them may be
//! written down in tests.

/// A small random number generator (splitmix64 by Sebastiano Vigna): not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, nearly uniform; 0 if `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The high half of the product; the tiny bias does not matter for test data.
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// As [`Rng::below`], but small numbers come far more often, like the words of a language.
    pub fn skewed(&mut self, bound: usize) -> usize {
        let upper = self.below(bound) + 1;
        let upper = self.below(upper) + 1;
        self.below(upper)
    }

    /// `len` random bytes, which no compressor shortens.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(len + 8);
        while out.len() < len {
            out.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        out.truncate(len);
        out
    }
}

/// `len` bytes like those of a program: functions of common short instructions, calls with relative addresses
/// to other functions, a table of absolute addresses, and strings. Compresses to about a half.
pub fn binary(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed ^ 0x62_69_6e);
    let vocabulary: Vec<Vec<u8>> = (0..600)
        .map(|_| {
            let len = 1 + rng.below(6);
            rng.bytes(len)
        })
        .collect();
    let code_len = len - len / 4;
    let mut out = Vec::with_capacity(len + 64);
    let mut functions = vec![0u32];
    while out.len() < code_len {
        for _ in 0..20 + rng.below(60) {
            if rng.below(9) == 0 {
                // x86 call: the operand counts from the end of the instruction.
                let target = functions[rng.skewed(functions.len())];
                out.push(0xe8);
                out.extend_from_slice(&target.wrapping_sub(out.len() as u32 + 4).to_le_bytes());
            } else {
                out.extend_from_slice(&vocabulary[rng.skewed(vocabulary.len())]);
            }
        }
        // ret, and padding to the next 16 bytes, as compilers do.
        out.push(0xc3);
        out.resize(out.len().next_multiple_of(16), 0x90);
        functions.push(out.len() as u32);
    }
    while out.len() < len - len / 8 {
        let address = 0x40_0000 + u64::from(functions[rng.below(functions.len())]);
        out.extend_from_slice(&address.to_le_bytes());
    }
    if out.len() < len {
        out.extend_from_slice(&text(rng.next_u64(), len - out.len()));
    }
    out.truncate(len);
    out
}

/// `len` bytes of lines of made-up words. Compresses to about a third, without long repetitions.
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed ^ 0x74_65_78_74);
    let words: Vec<Vec<u8>> = (0..800)
        .map(|_| (0..2 + rng.below(8)).map(|_| b"etaoinshrdlucmfwypvbgkqjxz"[rng.skewed(26)]).collect())
        .collect();
    let mut out = Vec::with_capacity(len + 16);
    while out.len() < len {
        for _ in 0..4 + rng.below(9) {
            out.extend_from_slice(&words[rng.skewed(words.len())]);
            out.push(b' ');
        }
        out.pop();
        out.push(b'\n');
    }
    out.truncate(len);
    out
}

/// A copy of `content` after `edits` small edits at random places, in turn: some bytes overwritten, up to 64
/// bytes inserted, up to 64 bytes removed.
pub fn mutate(content: &[u8], seed: u64, edits: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed ^ 0x65_64_69_74);
    let mut out = content.to_vec();
    for edit in 0..edits {
        let at = rng.below(out.len() + 1);
        let len = 1 + rng.below(64);
        match edit % 3 {
            0 => {
                let end = out.len().min(at + 1 + len / 8);
                for byte in &mut out[at..end] {
                    // Never the same byte again: every edit is one.
                    *byte = byte.wrapping_add(1 + rng.below(255) as u8);
                }
            }
            1 => {
                let new = rng.bytes(len);
                out.splice(at..at, new);
            }
            _ => {
                let end = out.len().min(at + len);
                out.drain(at..end);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::sha256_hex;

    fn compressed_share(content: &[u8]) -> f64 {
        let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        zstd_safe::compress(&mut out, content, 9).unwrap();
        out.len() as f64 / content.len() as f64
    }

    // Sizes of deltas in other tests may rely on this.
    #[test]
    fn bytes_never_change() {
        let all = [binary(1, 50_000), text(2, 20_000), mutate(&text(3, 9000), 4, 12), Rng::new(5).bytes(99)];
        assert_eq!(
            sha256_hex(&all.concat()),
            "a45c95ec305e48c07aa4e6bae6908569cbf5a49f6a243a9648d5048f35dd3e70"
        );
    }

    #[test]
    fn lengths_are_exact() {
        for len in [0, 1, 7, 100, 4096, 100_001] {
            assert_eq!(binary(9, len).len(), len);
            assert_eq!(text(9, len).len(), len);
            assert_eq!(Rng::new(9).bytes(len).len(), len);
        }
    }

    #[test]
    fn content_compresses_like_the_real_thing() {
        let program = compressed_share(&binary(1, 400_000));
        assert!((0.35..0.65).contains(&program), "{program}");
        let words = compressed_share(&text(1, 400_000));
        assert!((0.2..0.45).contains(&words), "{words}");
        assert!(compressed_share(&Rng::new(1).bytes(100_000)) > 0.99);
    }

    #[test]
    fn edits_change_little_and_differ_by_seed() {
        let old = binary(1, 100_000);
        let new = mutate(&old, 2, 10);
        assert_ne!(old, new);
        assert_ne!(new, mutate(&old, 3, 10));
        assert!(old.len().abs_diff(new.len()) <= 64 * 7);
        assert_eq!(mutate(&old, 2, 0), old);
        assert!(mutate(b"", 1, 5).len() <= 128);
        let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
        assert!(same > 100);
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut rng = Rng::new(7);
        assert_eq!((rng.below(0), rng.below(1), rng.skewed(1)), (0, 0, 0));
        assert!((0..1000).all(|_| rng.below(10) < 10 && rng.skewed(10) < 10));
    }
}
