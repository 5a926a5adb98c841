//! What the members of a new archive cost in a delta.

use std::io::{BufReader, Read};

use super::{Error, Limits, Op, OpCounts, OpReader};
use crate::delta::Cost;
use crate::observe::Observer;
use crate::tar::{self, Reader};
use crate::{ReadAt, Section};

/// The costs of a delta.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// Bytes of the delta.
    pub delta_bytes: u64,
    /// Its operations.
    pub ops: OpCounts,
    /// The members of the new archive, in its order, then what stands behind them. Their bytes and those of the magic and the end
    /// are the delta's.
    pub members: Vec<MemberCost>,
}

/// The cost of one member.
#[derive(Debug, Clone)]
pub struct MemberCost {
    /// Name in the archive; empty for the trailer.
    pub path: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// How it is made.
    pub cost: Cost,
    /// Bytes of the delta: literals, and the operations that begin in it.
    pub delta_bytes: u64,
    /// Literal bytes of it and of its headers.
    pub literal: u64,
    /// Bytes of it and of its headers that are copied.
    pub copied: u64,
    /// Operations that begin in it.
    pub operations: u64,
}

/// Why a delta cannot be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The delta cannot be read.
    #[error(transparent)]
    Delta(#[from] Error),
    /// The new archive cannot be read.
    #[error("new archive: {0}")]
    New(#[from] tar::Error),
    /// The delta makes something else than the new archive.
    #[error("the delta makes {made} bytes, the new archive has {wanted}")]
    OtherSize {
        /// What it makes.
        made: u64,
        /// What it should make.
        wanted: u64,
    },
}

/// A member while its cost is counted.
struct Place {
    member: MemberCost,
    /// Where its content lies, and where its last padding ends.
    content: std::ops::Range<u64>,
    end: u64,
    literal_content: u64,
}

/// Books each byte of a delta on the member of `new` that it helps to make.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(
    delta: impl Read,
    new: &dyn ReadAt,
    limits: &Limits,
    observer: &dyn Observer,
) -> Result<Explanation, ExplainError> {
    let mut places = places(new)?;
    let mut ops = OpReader::new(delta, *limits)?;
    let mut counts = OpCounts::default();
    let (mut at, mut number) = (0u64, 0);
    while let Some(op) = ops.next_op()? {
        if observer.cancelled() {
            return Err(Error::Cancelled.into());
        }
        counts.count(op);
        let is_literal = matches!(op, Op::Literal(_));
        let (Op::Literal(mut left) | Op::Copy { len: mut left, .. }) = op;
        let wanted = new.size();
        if left > wanted - at {
            return Err(ExplainError::OtherSize { made: at.saturating_add(left), wanted });
        }
        while places[number].end <= at && number + 1 < places.len() {
            number += 1;
        }
        places[number].member.operations += 1;
        places[number].member.delta_bytes += ops.position() - ops.began();
        while left > 0 {
            while places[number].end <= at && number + 1 < places.len() {
                number += 1;
            }
            let place = &mut places[number];
            let n = left.min(place.end - at);
            if is_literal {
                place.member.delta_bytes += n;
                place.member.literal += n;
                let content = at.max(place.content.start)..(at + n).min(place.content.end);
                place.literal_content += content.end.saturating_sub(content.start);
            } else {
                place.member.copied += n;
            }
            at += n;
            left -= n;
        }
    }
    if at != new.size() {
        return Err(ExplainError::OtherSize { made: at, wanted: new.size() });
    }
    let last = places.len() - 1;
    let members = places.into_iter().enumerate().map(|(number, place)| {
        let size = place.content.end - place.content.start;
        let cost = match place.literal_content {
            _ if number == last => Cost::Trailer,
            _ if size == 0 => Cost::Metadata,
            0 => Cost::Copied,
            all if all == size => Cost::Literal,
            _ => Cost::Changed,
        };
        MemberCost { cost, size, ..place.member }
    });
    Ok(Explanation { delta_bytes: ops.position(), ops: counts, members: members.collect() })
}

/// The members of an archive, and a last place for what stands behind them.
fn places(new: &dyn ReadAt) -> Result<Vec<Place>, tar::Error> {
    let input = BufReader::with_capacity(1 << 16, Section::whole(new).reader());
    let mut reader = Reader::new(input, tar::Limits::default());
    let mut places: Vec<Place> = Vec::new();
    let place = |path: Vec<u8>, content: std::ops::Range<u64>, end: u64| Place {
        member: MemberCost {
            path,
            size: 0,
            cost: Cost::Metadata,
            delta_bytes: 0,
            literal: 0,
            copied: 0,
            operations: 0,
        },
        content,
        end,
        literal_content: 0,
    };
    while let Some(entry) = reader.next_entry()? {
        let content = entry.content_offset..entry.content_offset + entry.content_len;
        let end = content.end.next_multiple_of(tar::BLOCK).min(new.size());
        places.push(place(entry.name, content, end));
    }
    places.push(place(Vec::new(), new.size()..new.size(), new.size()));
    Ok(places)
}
