//! Sparse members: old GNU maps and the PAX forms 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files").

use std::io::{self, Read};

use super::block::{self, Block};
use super::pax::{Records, decimal};

/// One stored run of bytes of a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Offset in the expanded file.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The stored runs of a sparse file, in order; what lies between them is zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SparseMap {
    /// The runs, ascending, not overlapping.
    pub fragments: Vec<Fragment>,
    /// Size of the expanded file in bytes.
    pub size: u64,
}

impl SparseMap {
    /// Checks order, overlap and overflow as Go and BSD tar do.
    pub(super) fn new(raw: Vec<RawFragment>, size: i64) -> Option<Self> {
        let size = u64::try_from(size).ok()?;
        let mut end = 0;
        let mut fragments = Vec::with_capacity(raw.len());
        for (offset, len) in raw {
            let (offset, len) = (u64::try_from(offset).ok()?, u64::try_from(len).ok()?);
            let next = offset.checked_add(len).filter(|&n| n <= size && offset >= end)?;
            fragments.push(Fragment { offset, len });
            end = next;
        }
        Some(SparseMap { fragments, size })
    }
}

/// Offset and length as written.
pub(super) type RawFragment = (i64, i64);

/// The entries of an old GNU map that one block holds, and whether an extension block follows. `first` is the member's
/// own header (4 entries), else an extension block (21 entries).
pub(super) fn gnu_entries(b: &Block, first: bool) -> Result<(Vec<RawFragment>, bool), &'static str> {
    let (area, extended) = if first { (&b[386..482], b[482]) } else { (&b[..504], b[504]) };
    let mut out = Vec::new();
    for entry in area.chunks_exact(24) {
        if entry[0] == 0 {
            break;
        }
        out.push((block::number(&entry[..12])?, block::number(&entry[12..])?));
    }
    Ok((out, extended > 0))
}

/// The map of PAX formats 0.0 and 0.1, from the records.
pub(super) fn pax_0_map(records: &Records) -> Option<Vec<RawFragment>> {
    let count = decimal(records.get(&b"GNU.sparse.numblocks"[..])?)?;
    let map = records.get(&b"GNU.sparse.map"[..]).map(Vec::as_slice).unwrap_or_default();
    let numbers: Vec<i64> = match map {
        b"" => Vec::new(),
        _ => map.split(|&b| b == b',').map(decimal).collect::<Option<_>>()?,
    };
    let pairs = usize::try_from(count).ok()?.checked_mul(2)?;
    (numbers.len() == pairs).then(|| numbers.chunks_exact(2).map(|p| (p[0], p[1])).collect())
}

/// Writes the expanded file: `stored` holds the fragments' bytes back to back.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when `stored` ends early, [`io::ErrorKind::InvalidData`] when it goes on after the
/// last fragment.
pub fn expand(map: &SparseMap, stored: &mut impl Read, out: &mut impl io::Write) -> io::Result<()> {
    let mut pos = 0;
    for f in &map.fragments {
        io::copy(&mut io::repeat(0).take(f.offset - pos), out)?;
        if io::copy(&mut stored.by_ref().take(f.len), out)? != f.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        pos = f.offset + f.len;
    }
    io::copy(&mut io::repeat(0).take(map.size - pos), out)?;
    if stored.read(&mut [0])? != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "sparse member holds more data than its map"));
    }
    Ok(())
}
