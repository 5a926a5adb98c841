//! Signatures: sums of the blocks of a basis (section 5).

use std::io::{self, BufReader, Read, Write};

use super::md4::md4;
use crate::ReadAt;

/// A quick sum that rolls along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weak {
    /// librsync's variation on Adler-32; all that the engine knows.
    RollSum,
    /// Rabin-Karp, the default of C librsync since 2.2.
    RabinKarp,
}

/// A sum that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strong {
    /// MD4: anybody can make two blocks with one sum.
    Md4,
    /// BLAKE2b with 32 bytes.
    Blake2,
}

impl Strong {
    /// Bytes of a whole sum.
    fn size(self) -> u32 {
        match self {
            Strong::Md4 => 16,
            Strong::Blake2 => 32,
        }
    }

    fn sum(self, block: &[u8]) -> [u8; 32] {
        let mut sum = [0; 32];
        match self {
            Strong::Md4 => sum[..16].copy_from_slice(&md4(block)),
            Strong::Blake2 => {
                let hash = blake2b_simd::Params::new().hash_length(32).hash(block);
                sum.copy_from_slice(hash.as_bytes());
            }
        }
        sum
    }
}

/// The weak sum of a window that moves.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rolling {
    Roll {
        s1: u32,
        s2: u32,
        len: u32,
    },
    /// The last is the multiplier to the power of the window's length.
    Karp {
        sum: u32,
        power: u32,
    },
}

/// librsync adds this to every byte.
const OFFSET: u32 = 31;
const KARP_FACTOR: u32 = 0x0810_4225;

impl Rolling {
    pub(super) fn new(weak: Weak, block: &[u8]) -> Self {
        let len = block.len() as u32;
        match weak {
            Weak::RollSum => {
                let (mut s1, mut s2) = (0u32, 0u32);
                for byte in block {
                    s1 = s1.wrapping_add(u32::from(*byte) + OFFSET);
                    s2 = s2.wrapping_add(s1);
                }
                Rolling::Roll { s1, s2, len }
            }
            Weak::RabinKarp => {
                let next = |sum: u32, byte: &u8| sum.wrapping_mul(KARP_FACTOR).wrapping_add(u32::from(*byte));
                Rolling::Karp { sum: block.iter().fold(1, next), power: KARP_FACTOR.wrapping_pow(len) }
            }
        }
    }

    pub(super) fn sum(self) -> u32 {
        match self {
            Rolling::Roll { s1, s2, .. } => s2 << 16 | (s1 & 0xffff),
            Rolling::Karp { sum, .. } => sum,
        }
    }

    /// One byte on.
    pub(super) fn roll(&mut self, out: u8, into: u8) {
        let (out, into) = (u32::from(out), u32::from(into));
        match self {
            Rolling::Roll { s1, s2, len } => {
                *s1 = s1.wrapping_add(into).wrapping_sub(out);
                *s2 = s2.wrapping_add(*s1).wrapping_sub(len.wrapping_mul(out + OFFSET));
            }
            // The seed moves along with the first byte: it counts as 1 before the window.
            Rolling::Karp { sum, power } => {
                let gone = power.wrapping_mul(out.wrapping_add(KARP_FACTOR - 1));
                *sum = sum.wrapping_mul(KARP_FACTOR).wrapping_add(into).wrapping_sub(gone);
            }
        }
    }
}

/// The sums of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'s> {
    /// The weak one.
    pub weak: u32,
    /// As many bytes of the strong one as the signature keeps.
    pub strong: &'s [u8],
}

/// Bounds for a signature that is read.
#[derive(Debug, Clone, Copy)]
pub struct SignatureLimits {
    /// Blocks.
    pub max_blocks: u64,
    /// Bytes of a block.
    pub max_block_len: u32,
}

impl Default for SignatureLimits {
    /// 64 Mi blocks of at most 64 MiB.
    fn default() -> Self {
        SignatureLimits { max_blocks: 64 << 20, max_block_len: 64 << 20 }
    }
}

/// Why a signature cannot be read or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The signature ends early.
    #[error("signature ends inside {0}")]
    Truncated(&'static str),
    /// The first four bytes are those of no signature.
    #[error("not a librsync signature: it begins with {0:08x}")]
    BadMagic(u32),
    /// A block length of 0 or beyond the limit.
    #[error("signature with blocks of {0} bytes")]
    BlockLength(u32),
    /// More bytes of a strong sum than it has, or none.
    #[error("signature with strong sums of {0} bytes")]
    StrongLength(u32),
    /// More blocks than allowed.
    #[error("signature of more than {0} blocks")]
    TooManyBlocks(u64),
    /// It cannot be read, or the basis cannot.
    #[error("reading: {0}")]
    Read(io::Error),
}

/// The sums of all blocks of a basis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    weak: Weak,
    strong: Strong,
    block_len: u32,
    strong_len: u32,
    weak_sums: Vec<u32>,
    strong_sums: Vec<u8>,
}

impl Signature {
    /// Sums up a basis: the last block may be shorter than the others. `strong_len` bytes of each strong sum are kept.
    ///
    /// # Errors
    /// [`SignatureError::BlockLength`], [`SignatureError::StrongLength`], [`SignatureError::Read`].
    pub fn of(
        basis: &dyn ReadAt,
        (weak, strong): (Weak, Strong),
        block_len: u32,
        strong_len: u32,
    ) -> Result<Self, SignatureError> {
        let mut signature = Signature::empty(weak, strong, block_len, strong_len)?;
        // Some blocks at a time.
        let mut buf = vec![0; (block_len as usize) * ((256 << 10) / block_len as usize).max(1)];
        let mut at = 0;
        while at < basis.size() {
            let n = (basis.size() - at).min(buf.len() as u64) as usize;
            basis.read_exact_at(at, &mut buf[..n]).map_err(SignatureError::Read)?;
            for block in buf[..n].chunks(block_len as usize) {
                signature.weak_sums.push(Rolling::new(weak, block).sum());
                signature.strong_sums.extend_from_slice(&strong.sum(block)[..strong_len as usize]);
            }
            at += n as u64;
        }
        Ok(signature)
    }

    /// The signature that the engine makes: blocks of 512 bytes, whole BLAKE2 sums.
    ///
    /// # Errors
    /// [`SignatureError::Read`].
    pub fn of_engine(basis: &dyn ReadAt) -> Result<Self, SignatureError> {
        Signature::of(basis, (Weak::RollSum, Strong::Blake2), super::ENGINE_BLOCK, 32)
    }

    fn empty(weak: Weak, strong: Strong, block_len: u32, strong_len: u32) -> Result<Self, SignatureError> {
        if block_len == 0 {
            return Err(SignatureError::BlockLength(block_len));
        }
        if strong_len == 0 || strong_len > strong.size() {
            return Err(SignatureError::StrongLength(strong_len));
        }
        let (weak_sums, strong_sums) = (Vec::new(), Vec::new());
        Ok(Signature { weak, strong, block_len, strong_len, weak_sums, strong_sums })
    }

    /// Reads a signature.
    ///
    /// # Errors
    /// See [`SignatureError`].
    pub fn read(input: impl Read, limits: &SignatureLimits) -> Result<Self, SignatureError> {
        let mut input = BufReader::new(input);
        let mut word = |what| {
            let mut word = [0; 4];
            read_exact(&mut input, &mut word, what).map(|()| u32::from_be_bytes(word))
        };
        let magic = word("its magic")?;
        let kinds = MAGICS.iter().find(|(known, _, _)| *known == magic);
        let &(_, weak, strong) = kinds.ok_or(SignatureError::BadMagic(magic))?;
        let block_len = word("its head")?;
        if block_len > limits.max_block_len {
            return Err(SignatureError::BlockLength(block_len));
        }
        let mut signature = Signature::empty(weak, strong, block_len, word("its head")?)?;
        let mut sum = [0; 36];
        let sum = &mut sum[..4 + signature.strong_len as usize];
        loop {
            let n = read_some(&mut input, sum)?;
            if n == 0 {
                return Ok(signature);
            }
            if n < sum.len() {
                return Err(SignatureError::Truncated("a block"));
            }
            if signature.weak_sums.len() as u64 == limits.max_blocks {
                return Err(SignatureError::TooManyBlocks(limits.max_blocks));
            }
            signature.weak_sums.push(u32::from_be_bytes([sum[0], sum[1], sum[2], sum[3]]));
            signature.strong_sums.extend_from_slice(&sum[4..]);
        }
    }

    /// Writes the signature.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let known = MAGICS.iter().find(|(_, weak, strong)| (*weak, *strong) == (self.weak, self.strong));
        let magic = known.map_or(0, |(magic, _, _)| *magic);
        for word in [magic, self.block_len, self.strong_len] {
            out.write_all(&word.to_be_bytes())?;
        }
        for block in self.blocks() {
            out.write_all(&block.weak.to_be_bytes())?;
            out.write_all(block.strong)?;
        }
        Ok(())
    }

    /// The kinds of its sums.
    pub fn kinds(&self) -> (Weak, Strong) {
        (self.weak, self.strong)
    }

    /// Bytes of a block; the last may be shorter.
    pub fn block_len(&self) -> u32 {
        self.block_len
    }

    /// Bytes of each strong sum.
    pub fn strong_len(&self) -> u32 {
        self.strong_len
    }

    /// The blocks in order.
    pub fn blocks(&self) -> impl ExactSizeIterator<Item = Block<'_>> {
        let strong = self.strong_sums.chunks_exact(self.strong_len as usize);
        self.weak_sums.iter().zip(strong).map(|(weak, strong)| Block { weak: *weak, strong })
    }

    pub(super) fn weak_sums(&self) -> &[u32] {
        &self.weak_sums
    }

    /// Whether block `number` has the strong sum of `content`.
    pub(super) fn is_block(&self, number: usize, content: &[u8]) -> bool {
        let len = self.strong_len as usize;
        self.strong_sums[number * len..][..len] == self.strong.sum(content)[..len]
    }
}

/// Magics (section 5).
const MAGICS: [(u32, Weak, Strong); 4] = [
    (0x7273_0136, Weak::RollSum, Strong::Md4),
    (0x7273_0137, Weak::RollSum, Strong::Blake2),
    (0x7273_0146, Weak::RabinKarp, Strong::Md4),
    (0x7273_0147, Weak::RabinKarp, Strong::Blake2),
];

fn read_exact(input: &mut impl Read, buf: &mut [u8], what: &'static str) -> Result<(), SignatureError> {
    if read_some(input, buf)? < buf.len() { Err(SignatureError::Truncated(what)) } else { Ok(()) }
}

fn read_some(input: &mut impl Read, buf: &mut [u8]) -> Result<usize, SignatureError> {
    let mut filled = 0;
    while filled < buf.len() {
        match input.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SignatureError::Read(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_roll_as_they_are_computed() {
        let data = coracle_testkit::image::binary(3, 4000);
        for weak in [Weak::RollSum, Weak::RabinKarp] {
            for len in [1, 2, 64, 512] {
                let mut rolling = Rolling::new(weak, &data[..len]);
                for at in 1..data.len() - len {
                    rolling.roll(data[at - 1], data[at + len - 1]);
                    assert_eq!(
                        rolling.sum(),
                        Rolling::new(weak, &data[at..at + len]).sum(),
                        "{weak:?} {len} {at}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let data = coracle_testkit::image::binary(4, 5000);
        for (_, weak, strong) in MAGICS {
            for (block, len) in [(512, 16), (700, 1), (1, 8), (6000, 12)] {
                let signature = Signature::of(&data, (weak, strong), block, len).unwrap();
                let mut bytes = Vec::new();
                signature.write(&mut bytes).unwrap();
                let read = Signature::read(&bytes[..], &SignatureLimits::default()).unwrap();
                assert_eq!(read, signature);
                assert_eq!(read.blocks().len(), data.len().div_ceil(block as usize));
                for cut in 0..bytes.len().min(80) {
                    let read = Signature::read(&bytes[..cut], &SignatureLimits::default());
                    let whole = cut >= 12 && (cut - 12) % (4 + len as usize) == 0;
                    assert_eq!(read.is_ok(), whole, "cut at {cut}");
                }
            }
        }
    }

    #[test]
    fn bad_heads() {
        let head = |words: [u32; 3]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let limits = SignatureLimits { max_blocks: 1, max_block_len: 1000 };
        let read = |bytes: &[u8]| Signature::read(bytes, &limits).map(|_| ()).unwrap_err();
        assert!(matches!(read(&head([0x7273_0236, 512, 32])), SignatureError::BadMagic(0x7273_0236)));
        assert!(matches!(read(&head([0x7273_0137, 0, 32])), SignatureError::BlockLength(0)));
        assert!(matches!(read(&head([0x7273_0137, 1001, 32])), SignatureError::BlockLength(1001)));
        assert!(matches!(read(&head([0x7273_0137, 512, 33])), SignatureError::StrongLength(33)));
        assert!(matches!(read(&head([0x7273_0136, 512, 17])), SignatureError::StrongLength(17)));
        assert!(matches!(read(&head([0x7273_0136, 512, 0])), SignatureError::StrongLength(0)));
        let two = [head([0x7273_0136, 512, 1]), vec![0; 10]].concat();
        assert!(matches!(read(&two), SignatureError::TooManyBlocks(1)));
    }
}
