//! The format page once more, as plainly as possible: what the reader is judged by.
//!
//! It works on an operation stream that lies decoded in memory, follows `docs/formats/tar-diff.md` sections 4 to 7
//! and shares no code with the reader. The budget of section 7.3 is left out: a stream that fits into memory here is
//! too short for it.

use coracle_codec::tardiff::Limits;

use crate::frame;
use crate::tree::{Fixed, Node};

/// An operation by section 4.4 with its payload, which may have been cut off by the end of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The operation byte.
    pub code: u8,
    /// The operand.
    pub size: u64,
    /// For OPEN the path of section 6.2; empty for operations without payload.
    pub payload: std::borrow::Cow<'a, [u8]>,
    /// Whether all of the payload is there.
    pub complete: bool,
}

/// Splits a stream into operations. False if something is wrong after the last of them, or with its payload.
pub fn parse(mut stream: &[u8], version: u8) -> (Vec<Operation<'_>>, bool) {
    let mut operations = Vec::new();
    while !stream.is_empty() {
        let Some((operation, rest)) = operation(stream, version) else { return (operations, false) };
        stream = rest;
        operations.push(operation);
    }
    let complete = operations.iter().all(|o| o.complete);
    (operations, complete)
}

fn operation(stream: &[u8], version: u8) -> Option<(Operation<'_>, &[u8])> {
    let (&code, rest) = stream.split_first()?;
    if code > 5 || (code == 5 && version < 2) {
        return None;
    }
    let (size, rest) = varint(rest)?;
    let most = match code {
        1 => 4096,
        3 => 104_857_600,
        _ => u64::MAX >> 1,
    };
    if size > most {
        return None;
    }
    if code == 2 || code == 4 {
        return Some((Operation { code, size, payload: Default::default(), complete: true }, rest));
    }
    let there = rest.len().min(usize::try_from(size).unwrap_or(usize::MAX));
    let (payload, rest) = rest.split_at(there);
    let complete = there as u64 == size;
    if code != 1 {
        return Some((Operation { code, size, payload: payload.into(), complete }, rest));
    }
    let path = if complete { path(payload)? } else { return None };
    Some((Operation { code, size, payload: path.into(), complete }, rest))
}

/// Section 4.2.
fn varint(stream: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u128;
    for (i, &byte) in stream.iter().enumerate().take(10) {
        value |= u128::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((u64::try_from(value).ok()?, &stream[i + 1..]));
        }
    }
    None
}

/// Section 6.2.
fn path(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.is_empty() || raw.contains(&0) || raw[0] == b'/' {
        return None;
    }
    let parts: Vec<&[u8]> = raw.split(|&b| b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    (!parts.is_empty() && !parts.contains(&&b".."[..])).then(|| parts.join(&b'/'))
}

/// What carrying out a stream comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Output of the operations up to the first that fails; that one may give a part of its own.
    pub output: Vec<u8>,
    /// Whether the stream ended well.
    pub good: bool,
    /// Whether a dictionary frame was decoded: a reader may refuse it where it reaches back beyond its window.
    pub frames: bool,
}

/// Carries out a stream of version 2 by section 5.
pub fn apply(stream: &[u8], tree: &Fixed, limits: &Limits) -> Outcome {
    let (operations, good) = parse(stream, 2);
    let mut outcome = Outcome { output: Vec::new(), good, frames: false };
    let mut state = State { source: None, cursor: 0 };
    for operation in &operations {
        let room = limits.max_output as usize - outcome.output.len();
        match state.perform(operation, tree, room, limits) {
            Some(made) => outcome.output.extend_from_slice(&made),
            None => return Outcome { good: false, ..outcome },
        }
        outcome.frames |= operation.code == 5 && operation.size > 0;
    }
    outcome
}

/// Section 4.3.
struct State<'t> {
    source: Option<&'t Node>,
    cursor: u64,
}

impl<'t> State<'t> {
    /// What one operation appends; `None` if it fails.
    fn perform(
        &mut self,
        o: &Operation<'_>,
        tree: &'t Fixed,
        room: usize,
        limits: &Limits,
    ) -> Option<Vec<u8>> {
        if !o.complete {
            return None;
        }
        let fits = usize::try_from(o.size).is_ok_and(|n| n <= room);
        match o.code {
            0 => fits.then(|| o.payload.to_vec()),
            1 => {
                let node = tree.get(&o.payload)?;
                if matches!(node, Node::Directory | Node::Broken) {
                    return None;
                }
                (self.source, self.cursor) = (Some(node), 0);
                Some(Vec::new())
            }
            2 | 3 if o.size == 0 => Some(Vec::new()),
            2 => self.read(o.size).filter(|_| fits).map(<[u8]>::to_vec),
            3 => {
                let old = self.read(o.size).filter(|_| fits)?;
                Some(old.iter().zip(o.payload.iter()).map(|(a, b)| a.wrapping_add(*b)).collect())
            }
            4 => {
                self.source?;
                self.cursor = o.size;
                Some(Vec::new())
            }
            _ => {
                let made = match (self.source?, o.size) {
                    (_, 0) => Vec::new(),
                    (Node::File(all), _) if all.len() as u64 <= limits.max_dictionary => {
                        decode(&o.payload, all, room, limits.max_window_log)?
                    }
                    _ => return None,
                };
                self.cursor = match self.source? {
                    Node::File(all) => all.len() as u64,
                    Node::Shrinks { size, .. } | Node::Unreadable(size) => *size,
                    Node::Directory | Node::Broken => return None,
                };
                Some(made)
            }
        }
    }

    fn read(&mut self, size: u64) -> Option<&'t [u8]> {
        let (Node::File(all) | Node::Shrinks { content: all, .. }) = self.source? else { return None };
        let from = usize::try_from(self.cursor).ok()?;
        let to = from.checked_add(usize::try_from(size).ok()?)?;
        self.cursor = to as u64;
        all.get(from..to)
    }
}

/// Section 5.5: exactly one frame. It is decoded in one go, so that nothing depends on how input arrives; but that way
/// all of the content and the dictionary can be reached, also beyond the window.
fn decode(payload: &[u8], dictionary: &[u8], room: usize, max_window_log: u32) -> Option<Vec<u8>> {
    if frame::window(payload)? > 1 << max_window_log
        || zstd_safe::find_frame_compressed_size(payload) != Ok(payload.len())
    {
        return None;
    }
    let mut out = Vec::with_capacity(room);
    zstd_safe::DCtx::create().decompress_using_dict(&mut out, payload, dictionary).ok()?;
    Some(out)
}
