//! Applying a delta.

use std::io::{self, Read, Write};

use super::{Error, Limits, Op, OpCounts, OpReader};
use crate::ReadAt;
use crate::observe::{Observer, Stage};

const CHUNK: u64 = 128 << 10;

/// What applying a delta came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Operations carried out; what they make is what was written.
    pub ops: OpCounts,
    /// Bytes of the delta.
    pub delta: u64,
}

/// Makes the new content: reads `delta` once, front to back, and `basis` wherever it says, and writes to `out`.
///
/// What is written is unverified: nothing in a delta ties it to its basis or its result. Compare the digest before use.
/// Memory: 256 KiB.
///
/// # Errors
/// See [`Error`]; `out` has then received a part of the content, and nothing of the operation that was wrong unless that is a
/// literal cut short.
pub fn apply(
    delta: impl Read,
    basis: &dyn ReadAt,
    out: &mut impl Write,
    limits: &Limits,
    observer: &dyn Observer,
) -> Result<Applied, Error> {
    let mut ops = OpReader::new(delta, *limits)?;
    let mut counts = OpCounts::default();
    let mut buf = vec![0; CHUNK as usize];
    let mut written = 0;
    let mut write = |bytes: &[u8]| {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        out.write_all(bytes).map_err(Error::Write)?;
        written += bytes.len() as u64;
        observer.progress(Stage::Apply, written, 0);
        Ok(())
    };
    while let Some(op) = ops.next_op()? {
        counts.count(op);
        match op {
            Op::Literal(_) => loop {
                let chunk = ops.fill_literal()?;
                let n = chunk.len();
                if n == 0 {
                    break;
                }
                write(chunk)?;
                ops.consume_literal(n);
            },
            Op::Copy { offset, len } => {
                let beyond = || Error::BeyondBasis { at: ops.began(), offset, len, basis: basis.size() };
                if offset.checked_add(len).is_none_or(|end| end > basis.size()) {
                    return Err(beyond());
                }
                let mut done = 0;
                while done < len {
                    let n = (len - done).min(CHUNK) as usize;
                    basis.read_exact_at(offset + done, &mut buf[..n]).map_err(|error| {
                        match error.kind() {
                            // It shrank after it was opened.
                            io::ErrorKind::UnexpectedEof => beyond(),
                            _ => Error::ReadBasis(error),
                        }
                    })?;
                    write(&buf[..n])?;
                    done += n as u64;
                }
            }
        }
    }
    out.flush().map_err(Error::Write)?;
    Ok(Applied { ops: counts, delta: ops.position() })
}
