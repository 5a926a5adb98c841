//! What each member of the target costs in a delta.

use std::io::{self, BufReader, Read};
use std::num::NonZeroUsize;

use super::container::Head;
use super::decode::{ItemUse, Sources, follow};
use super::streams::{StreamId, StreamSize};
use super::{Error, Limits};
use crate::delta::Cost;
use crate::observe::Observer;
use crate::tar::{self, Kind};
use crate::{ReadAt, Section};

/// One member of the target and its part of the delta.
#[derive(Debug, Clone)]
pub struct MemberCost {
    /// Name as written in the tar.
    pub path: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// How it is made.
    pub cost: Cost,
    /// Bytes of the delta, estimated: each stream's bytes are shared out by what members take of it uncompressed.
    pub delta_bytes: u64,
    /// Bytes of each stream before compression, in the order of [`StreamId::ALL`].
    pub streams: [u64; StreamId::ALL.len()],
    /// Deflate streams that are rebuilt.
    pub rebuilt: u64,
}

/// The costs of one delta.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// What the delta says of itself.
    pub head: Head,
    /// Bytes of the delta.
    pub delta_bytes: u64,
    /// The streams of its blocks.
    pub streams: Vec<StreamSize>,
    /// Members in the order of the target; the trailer last.
    pub members: Vec<MemberCost>,
}

/// Why a delta could not be explained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExplainError {
    /// The delta cannot be read or applied.
    #[error(transparent)]
    Delta(#[from] Error),
    /// The target cannot be read.
    #[error("new archive: {0}")]
    New(#[from] tar::Error),
    /// The delta makes another target.
    #[error("delta makes a tar of {made} bytes, the new archive has {wanted}")]
    OtherArchive {
        /// Bytes that the delta makes.
        made: u64,
        /// Bytes of the archive.
        wanted: u64,
    },
}

/// Applies `delta`, throws the result away, and tells what each member of `new` took of it.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(
    delta: impl Read,
    sources: Sources<'_>,
    new: &dyn ReadAt,
    limits: &Limits,
    observer: &dyn Observer,
) -> Result<Explanation, ExplainError> {
    let (mut members, ends) = contents(new)?;
    let mut uses: Vec<ItemUse> = Vec::new();
    let mut see = |item| uses.push(item);
    let followed = follow(delta, sources, &mut io::sink(), limits, NonZeroUsize::MIN, observer, &mut see)?;
    let head = followed.head;
    if head.size != new.size() {
        return Err(ExplainError::OtherArchive { made: head.size, wanted: new.size() });
    }
    let mut costs = vec![0f64; members.len()];
    let mut used = vec![(false, false); members.len()];
    let rate = |block: usize, stream: usize| {
        let mut rows = followed.streams.iter().filter(|s| s.block == block + 1);
        let row = rows.find(|s| s.stream as usize == stream);
        row.map_or(0.0, |r| r.encoded as f64 / r.decoded.max(1) as f64)
    };
    let mut rates = (usize::MAX, [0f64; StreamId::ALL.len()]);
    for item in &uses {
        // An item belongs to the member where it ends: padding goes in front of a header.
        let i = ends.partition_point(|&end| end < item.end).min(members.len() - 1);
        if rates.0 != item.block {
            rates = (item.block, std::array::from_fn(|stream| rate(item.block, stream)));
        }
        for (stream, &bytes) in item.taken.iter().enumerate() {
            costs[i] += bytes as f64 * rates.1[stream];
            members[i].streams[stream] += bytes;
        }
        members[i].rebuilt += item.rebuilt;
        used[i].0 |= item.copies;
        used[i].1 |= item.codes;
    }
    for (member, (copies, codes)) in members.iter_mut().zip(used) {
        member.cost = match (member.cost, copies, codes) {
            (Cost::Metadata | Cost::Trailer, ..) => member.cost,
            (_, true, false) => Cost::Copied,
            (_, true, true) => Cost::Changed,
            _ => Cost::Literal,
        };
    }
    share(&mut members, &costs, followed.bytes);
    Ok(Explanation { head, delta_bytes: followed.bytes, streams: followed.streams, members })
}

/// Members with no cost yet, and where each ends; the trailer ends with the target.
fn contents(new: &dyn ReadAt) -> Result<(Vec<MemberCost>, Vec<u64>), tar::Error> {
    let input = BufReader::with_capacity(1 << 16, Section::whole(new).reader());
    let mut reader = tar::Reader::new(input, tar::Limits::default());
    let (mut members, mut ends) = (Vec::new(), Vec::new());
    let member = |path, size, cost| {
        let streams = [0; StreamId::ALL.len()];
        MemberCost { path, size, cost, delta_bytes: 0, streams, rebuilt: 0 }
    };
    while let Some(entry) = reader.next_entry()? {
        let file = entry.content_len > 0 && !matches!(entry.kind, Kind::GlobalHeader);
        let cost = if file { Cost::Literal } else { Cost::Metadata };
        members.push(member(entry.name, entry.content_len, cost));
        ends.push(entry.content_offset + entry.content_len);
    }
    let last = ends.last().copied().unwrap_or(0);
    members.push(member(Vec::new(), new.size().saturating_sub(last), Cost::Trailer));
    ends.push(new.size());
    Ok((members, ends))
}

/// Rounds costs so that they add up to `total`; what belongs to no stream is shared out likewise.
fn share(members: &mut [MemberCost], costs: &[f64], total: u64) {
    let sum: f64 = costs.iter().sum();
    let scale = if sum > 0.0 { total as f64 / sum } else { 0.0 };
    let (mut exact, mut given) = (0.0, 0);
    for (member, cost) in members.iter_mut().zip(costs) {
        exact += cost * scale;
        member.delta_bytes = (exact.round() as u64).min(total).saturating_sub(given);
        given += member.delta_bytes;
    }
    if let Some(last) = members.last_mut() {
        last.delta_bytes += total - given;
    }
}
