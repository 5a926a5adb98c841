//! Where old addresses went, as the copies of a part tell (`docs/formats/native-delta.md`, section 9.7).

use std::collections::BinaryHeap;

use super::elf::Layout;

/// A copy, or what is left of it when it is cut where addresses do not go on as places do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Place in the new text.
    pub new: u64,
    /// Place in the view.
    pub old: u64,
    pub len: u64,
    /// The address that each has.
    pub new_address: u64,
    pub old_address: u64,
}

/// Cuts a copy of `len` bytes from `old` to `new` to pieces.
pub(crate) fn cut(new: u64, old: u64, len: u64, before: &Layout, after: &Layout, out: &mut Vec<Piece>) {
    let mut done = 0;
    while done < len {
        let (at_new, at_old) = (new + done, old + done);
        let most = (before.stretch_end(at_old) - at_old).min(after.stretch_end(at_new) - at_new);
        let len = most.min(len - done);
        let (new_address, old_address) = (after.address(at_new), before.address(at_old));
        out.push(Piece { new: at_new, old: at_old, len, new_address, old_address });
        done += len;
    }
}

/// Old addresses and the new ones that they became.
#[derive(Debug, Default)]
pub(crate) struct Map {
    /// Ascending and not overlapping: where each block starts.
    starts: Vec<u64>,
    /// Behind its last byte, and the new address of its start.
    blocks: Vec<(u64, u64)>,
}

impl Map {
    /// Each old address belongs to the longest piece that holds it; of several to the first in the new text.
    pub(crate) fn new(pieces: &[Piece]) -> Self {
        let mut order: Vec<u32> = (0..pieces.len() as u32).collect();
        order.sort_by_key(|&i| (pieces[i as usize].old_address, i));
        let end = |p: &Piece| p.old_address + p.len;
        let mut map = Map::default();
        // Pieces that hold the present address, the one to prefer on top; some that have ended may be among them.
        let mut open: BinaryHeap<(u64, std::cmp::Reverse<u32>)> = BinaryHeap::new();
        let mut next = order.iter().copied().peekable();
        let mut at = 0;
        loop {
            while let Some(&i) =
                next.peek().filter(|&&i| open.is_empty() || pieces[i as usize].old_address <= at)
            {
                at = at.max(pieces[i as usize].old_address);
                open.push((pieces[i as usize].len, std::cmp::Reverse(i)));
                next.next();
            }
            let Some(&(_, std::cmp::Reverse(top))) = open.peek() else { break };
            let piece = &pieces[top as usize];
            if end(piece) <= at {
                open.pop();
                continue;
            }
            let until = next.peek().map_or(u64::MAX, |&i| pieces[i as usize].old_address).min(end(piece));
            map.push(at, until, piece.new_address + (at - piece.old_address));
            at = until;
        }
        map
    }

    fn push(&mut self, start: u64, end: u64, new: u64) {
        if let (Some(&first), Some(last)) = (self.starts.last(), self.blocks.last_mut())
            && last.0 == start
            && last.1 + (start - first) == new
        {
            last.0 = end;
            return;
        }
        self.starts.push(start);
        self.blocks.push((end, new));
    }

    /// The new address of an old one: by the block that holds it, else by the nearest, of two equally near the one
    /// before. Without any block it stays.
    pub(crate) fn get(&self, old: u64) -> u64 {
        let i = self.starts.partition_point(|&start| start <= old);
        let before = i.checked_sub(1);
        let block = match (before, self.starts.get(i)) {
            (None, None) => return old,
            (None, Some(_)) => i,
            (Some(before), None) => before,
            (Some(before), Some(&start)) => {
                let end = self.blocks[before].0;
                if old < end || old - end < start - old { before } else { i }
            }
        };
        self.blocks[block].1.wrapping_add(old.wrapping_sub(self.starts[block]))
    }
}
