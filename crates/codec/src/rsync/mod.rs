//! librsync: signatures and deltas as rdiff, librsync-go and balenaEngine read them (`docs/formats/rsync.md`).
//!
//! A delta turns one old byte string, the *basis*, into one new one with two kinds of operations: literal bytes, and copies
//! from anywhere in the basis. Nothing in it says which basis it wants or what comes out.
//!
//! | module | what it does |
//! |---|---|
//! | `read` | operations of a delta, one by one |
//! | `apply` | the new bytes from a delta and the basis |
//! | `write` | operations into a delta |
//! | `signature` | sums of the blocks of a basis |
//! | `classic` | the algorithm of rdiff and the engine: whole blocks, found by their sums |
//! | `diff` | ours: copies of any length from anywhere, chosen by price |
//! | `explain` | what each member of a new archive costs |

mod apply;
mod classic;
mod diff;
mod explain;
mod joined;
mod md4;
mod price;
mod read;
mod signature;
mod way;
mod write;

use std::io;

pub use apply::{Applied, apply};
pub use classic::classic;
pub use diff::{Copies, Copy, MAX_WINDOW, Options, Prices, diff, write_delta};
pub use explain::{ExplainError, Explanation, MemberCost, explain};
pub use joined::Joined;
pub use read::OpReader;
pub use signature::{Block, Signature, SignatureError, SignatureLimits, Strong, Weak};
pub use write::OpWriter;

/// First bytes of a delta (section 2).
pub const MAGIC: [u8; 4] = [0x72, 0x73, 0x02, 0x36];

/// Block length of signatures that the engine makes, in bytes (section 5).
pub const ENGINE_BLOCK: u32 = 512;

/// Longest literal operation that our writers make, in bytes (section 4).
pub const MAX_LITERAL: u64 = 16 << 20;

/// One operation (section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// So many bytes of the new content, which follow in the delta.
    Literal(u64),
    /// Bytes of the basis.
    Copy {
        /// Where they begin.
        offset: u64,
        /// How many.
        len: u64,
    },
}

/// How many operations of a kind, and the bytes that they make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Operations.
    pub ops: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The operations of a delta, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// Literals.
    pub literal: Count,
    /// Copies.
    pub copy: Count,
}

impl OpCounts {
    /// Counts one more.
    pub fn count(&mut self, op: Op) {
        let (count, bytes) = match op {
            Op::Literal(len) => (&mut self.literal, len),
            Op::Copy { len, .. } => (&mut self.copy, len),
        };
        count.ops += 1;
        count.bytes = count.bytes.saturating_add(bytes);
    }

    /// Bytes that all operations make.
    pub fn output(&self) -> u64 {
        self.literal.bytes.saturating_add(self.copy.bytes)
    }
}

/// What reading or applying one delta may cost (section 3.2).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the new content.
    pub max_output: u64,
    /// Operations besides one for every four bytes of output.
    pub spare_ops: u64,
}

impl Default for Limits {
    /// 64 GiB of output, 65536 operations to spare.
    fn default() -> Self {
        Limits { max_output: 64 << 30, spare_ops: 1 << 16 }
    }
}

/// Why a delta cannot be read or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shorter than its magic.
    #[error("delta ends inside its magic")]
    NoMagic,
    /// The first four bytes are not those of a delta.
    #[error("not a librsync delta: it begins with {}", hex(.0))]
    BadMagic([u8; 4]),
    /// The delta ends where an operation should begin: there is an operation for the end.
    #[error("delta ends at byte {at} without an end")]
    NoEnd {
        /// Offset in the delta.
        at: u64,
    },
    /// The delta ends inside an operation.
    #[error("delta ends inside operation 0x{op:02x} at byte {at}")]
    Truncated {
        /// The opcode.
        op: u8,
        /// Offset of the operation in the delta.
        at: u64,
    },
    /// A reserved opcode.
    #[error("reserved operation 0x{op:02x} at byte {at}")]
    Reserved {
        /// The opcode.
        op: u8,
        /// Its offset in the delta.
        at: u64,
    },
    /// A length or offset of 2^63 or more.
    #[error("operation 0x{op:02x} at byte {at} has an impossible size")]
    BadSize {
        /// The opcode.
        op: u8,
        /// Its offset in the delta.
        at: u64,
    },
    /// A copy that ends beyond the basis.
    #[error("operation at byte {at} copies {len} bytes at offset {offset} of a basis of {basis}")]
    BeyondBasis {
        /// Offset of the operation in the delta.
        at: u64,
        /// Offset in the basis.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Bytes of the basis.
        basis: u64,
    },
    /// Bytes behind the end.
    #[error("bytes behind the end of the delta at byte {at}")]
    Trailing {
        /// Where they begin.
        at: u64,
    },
    /// The output would be larger than allowed.
    #[error("output exceeds the limit of {0} bytes")]
    OutputTooLarge(u64),
    /// Too many operations that make little.
    #[error("delta holds too many operations for the output they give")]
    TooManyOps,
    /// The delta cannot be read.
    #[error("reading the delta: {0}")]
    ReadDelta(io::Error),
    /// The basis cannot be read.
    #[error("reading the basis: {0}")]
    ReadBasis(io::Error),
    /// The output cannot be written.
    #[error("writing the output: {0}")]
    Write(io::Error),
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
