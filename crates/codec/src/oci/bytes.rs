//! Bytes before and after their digest was compared.

use std::sync::Arc;

use crate::digest::{Digest, Hasher};

/// Bytes as they came, compared with nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Unverified(Vec<u8>);

/// Bytes with their digest. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    bytes: Arc<[u8]>,
    digest: Digest,
}

/// Why bytes are not those that were announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another digest.
    #[error("digest is {actual}, expected {expected}")]
    Digest {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Another number of bytes. Counting stops at the first byte too many.
    #[error("{}", size_text(*expected, *actual))]
    Size {
        /// What was announced.
        expected: u64,
        /// What came, as far as it was counted.
        actual: u64,
    },
}

fn size_text(expected: u64, actual: u64) -> String {
    if actual > expected {
        format!("more than the expected {expected} bytes")
    } else {
        format!("{actual} bytes, expected {expected}")
    }
}

impl Unverified {
    /// Bytes from anywhere.
    pub fn new(bytes: Vec<u8>) -> Self {
        Unverified(bytes)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares the digest.
    ///
    /// # Errors
    /// [`Mismatch::Digest`].
    pub fn verify(self, expected: &Digest) -> Result<Verified, Mismatch> {
        let verified = self.identify();
        if verified.digest == *expected {
            Ok(verified)
        } else {
            Err(Mismatch::Digest { expected: *expected, actual: verified.digest })
        }
    }

    /// Compares digest and size.
    ///
    /// # Errors
    /// [`Mismatch`]; the size comes first.
    pub fn verify_sized(self, expected: &Digest, size: u64) -> Result<Verified, Mismatch> {
        if self.0.len() as u64 != size {
            return Err(Mismatch::Size { expected: size, actual: self.0.len() as u64 });
        }
        self.verify(expected)
    }

    /// Takes the bytes for what they are: their own digest is their identity from here on. For what a tag or a path
    /// names, where no digest is known beforehand.
    pub fn identify(self) -> Verified {
        let digest = Digest::of(&self.0);
        Verified { bytes: self.0.into(), digest }
    }
}

impl std::fmt::Debug for Unverified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unverified({} bytes)", self.0.len())
    }
}

impl Verified {
    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified({}, {} bytes)", self.digest, self.bytes.len())
    }
}

/// Compares a stream with an announced digest and size while it passes.
///
/// Keeps its state at some offsets, so that a stream that has to be read again from an earlier offset needs no reading
/// from its start.
#[derive(Debug, Clone)]
pub struct Verifier {
    expected: Digest,
    size: u64,
    hasher: Hasher,
    passed: u64,
    marks: Vec<(u64, Hasher)>,
}

/// Bytes between two states that are kept.
const MARK: u64 = 8 << 20;

impl Verifier {
    /// A verifier for `size` bytes with the digest `expected`.
    pub fn new(expected: Digest, size: u64) -> Self {
        Verifier { expected, size, hasher: Hasher::new(), passed: 0, marks: Vec::new() }
    }

    /// Bytes seen so far.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Mismatch::Size`] as soon as there are too many.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        let passed = self.passed + bytes.len() as u64;
        if passed > self.size {
            return Err(Mismatch::Size { expected: self.size, actual: passed });
        }
        self.hasher.update(bytes);
        self.passed = passed;
        if passed - self.marks.last().map_or(0, |mark| mark.0) >= MARK {
            self.marks.push((passed, self.hasher.clone()));
        }
        Ok(())
    }

    /// Goes back to the last kept state at or before `offset`, and says where that is: the next bytes to give.
    pub fn rewind(&mut self, offset: u64) -> u64 {
        while self.marks.last().is_some_and(|mark| mark.0 > offset) {
            self.marks.pop();
        }
        if offset < self.passed {
            let (passed, hasher) = self.marks.last().cloned().unwrap_or((0, Hasher::new()));
            self.passed = passed;
            self.hasher = hasher;
        }
        self.passed
    }

    /// Compares what passed with what was announced.
    ///
    /// # Errors
    /// [`Mismatch`].
    pub fn finish(&self) -> Result<(), Mismatch> {
        if self.passed != self.size {
            return Err(Mismatch::Size { expected: self.size, actual: self.passed });
        }
        let actual = self.hasher.clone().finish();
        if actual == self.expected {
            Ok(())
        } else {
            Err(Mismatch::Digest { expected: self.expected, actual })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_bytes_become_verified() {
        let right = Digest::of(b"right");
        assert_eq!(Unverified::new(b"right".to_vec()).verify(&right).unwrap().digest(), right);
        let actual = Digest::of(b"wrong");
        let wrong = Unverified::new(b"wrong".to_vec());
        assert_eq!(wrong.clone().verify(&right), Err(Mismatch::Digest { expected: right, actual }));
        assert_eq!(wrong.verify_sized(&right, 4), Err(Mismatch::Size { expected: 4, actual: 5 }));
    }

    #[test]
    fn a_stream_is_compared_to_its_last_byte() {
        let data: Vec<u8> = (0..100_000u32).map(|i| (i >> 3) as u8).collect();
        let check = |bytes: &[u8], size: u64| {
            let mut verifier = Verifier::new(Digest::of(&data), size);
            for piece in bytes.chunks(777) {
                verifier.update(piece)?;
            }
            verifier.finish()
        };
        let size = data.len() as u64;
        assert_eq!(check(&data, size), Ok(()));
        let short = Mismatch::Size { expected: size, actual: size - 1 };
        assert_eq!(check(&data[1..], size), Err(short));
        assert!(matches!(check(&data, size - 1), Err(Mismatch::Size { .. })));
        let mut other = data.clone();
        other[50_000] ^= 1;
        assert!(matches!(check(&other, size), Err(Mismatch::Digest { .. })));
    }

    #[test]
    fn going_back_gives_the_same_digest() {
        let data: Vec<u8> = (0..(MARK as u32 * 2 + 12345)).map(|i| (i.wrapping_mul(i) >> 9) as u8).collect();
        let mut verifier = Verifier::new(Digest::of(&data), data.len() as u64);
        let feed = |verifier: &mut Verifier, to: usize| {
            let from = verifier.passed() as usize;
            data[from..to].chunks(100_000).for_each(|piece| verifier.update(piece).unwrap());
        };
        feed(&mut verifier, data.len());
        // To what is behind the last mark, to one before it, to the start, and to where it stands.
        for back in [data.len() - 5, MARK as usize + 200_000, 17, 0, data.len()] {
            let at = verifier.rewind(back as u64);
            assert!(at <= back as u64 && back as u64 - at <= MARK + 100_000, "{back}: {at}");
            feed(&mut verifier, data.len());
            assert_eq!(verifier.finish(), Ok(()), "{back}");
        }
    }
}
