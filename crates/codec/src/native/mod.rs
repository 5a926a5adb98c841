//! The native delta: Coracle's own format (`docs/formats/native-delta.md`).
//!
//! A delta knows that source and target are tars: headers are predicted from the old ones, unchanged files cost next to
//! nothing, and compressed members are compared by what is in them. It names its sources and its result by digest,
//! says how much memory it takes, and consists of blocks that can be decoded apart.
//!
//! | module | what it is | section |
//! |---|---|---|
//! | [`container`] | magic, head, blocks, sections | 4 |
//! | [`entropy`] | how streams are compressed | 7 |
//! | `streams` | the streams of a block | 5 |
//! | `framing` | tar headers predicted from others | 6.2 |
//! | [`packed`] | packed streams: found, expanded, and rebuilt exactly | 8 |
//! | [`exec`] | references of executables, found and predicted | 9 |
//! | [`deflate`] | those of deflate, by models of their encoders | 8.3 |
//! | `old` | the members of old archives | 6.1 |
//! | [`decode`] | from delta and sources to the target | 6 |
//! | [`encode`] | from sources and target to a delta | |

pub mod container;
pub mod decode;
pub mod deflate;
pub mod encode;
pub mod entropy;
mod error;
pub mod exec;
mod explain;
mod framing;
mod items;
mod numbers;
mod old;
pub mod packed;
mod streams;
mod work;

pub use container::{Archive, Block, Head, MAGIC, MAGIC_LEN, Origin, Tree, TreeFile};
pub use decode::{Applied, Sources, apply};
pub use encode::{Base, Options, Parts, Report, diff};
pub use error::Error;
pub use explain::{ExplainError, Explanation, MemberCost, explain};
pub use streams::{StreamId, StreamSize, inspect};

/// What reading or applying one delta may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of the target.
    pub max_output: u64,
    /// Bytes of memory that a delta may declare (section 4.3).
    pub max_memory: u64,
    /// Bounds for the old archives.
    pub tar: crate::tar::Limits,
}

impl Default for Limits {
    /// 64 GiB of output, 1 GiB of memory.
    fn default() -> Self {
        Limits { max_output: 64 << 30, max_memory: 1 << 30, tar: crate::tar::Limits::default() }
    }
}
