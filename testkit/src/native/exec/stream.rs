//! Sections 9.8 and 9.9: what is known of targets, and the arithmetic code.

use std::collections::BTreeMap;

use super::super::arithmetic::{Code, Mixed, Steps};

struct Slot {
    key: u64,
    target: u64,
    trust: u64,
}

pub(super) struct Reader<'a> {
    code: Code<'a>,
    slots: Vec<Slot>,
    shift: u32,
    history: u64,
    own: [u8; 23],
    /// Section 9.8.1: for kinds 21 and 22, by range.
    moved: [BTreeMap<u64, u64>; 2],
    first: Mixed,
    second: Mixed,
    steps: Steps,
}

impl<'a> Reader<'a> {
    pub(super) fn new(input: &'a [u8], bytes: u64) -> Self {
        let mut s = 8;
        while s < 22 && 1 << s < bytes / 32 {
            s += 1;
        }
        let slots = (0..1u64 << s).map(|_| Slot { key: 0, target: 0, trust: 0 }).collect();
        Reader {
            code: Code::new(input),
            slots,
            shift: 64 - s,
            history: 0,
            own: [0; 23],
            moved: Default::default(),
            first: Mixed::new(4),
            second: Mixed::new(2),
            steps: Steps::default(),
        }
    }

    fn slot(&self, program: usize, address: u64, is_end: bool) -> (usize, u64) {
        let key = (((program as u64 + 1) << 50) | (address % (1 << 49))) * 2 + u64::from(is_end);
        ((key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize, key)
    }

    pub(super) fn known(&self, program: usize, address: u64, is_end: bool) -> Option<u64> {
        let (slot, key) = self.slot(program, address, is_end);
        Some(&self.slots[slot]).filter(|s| s.key == key).map(|s| s.target)
    }

    /// `t` of section 9.9.2.
    fn t(&self, program: usize, address: u64, is_end: bool) -> usize {
        let (slot, key) = self.slot(program, address, is_end);
        let slot = &self.slots[slot];
        if slot.key == key { 1 + slot.trust as usize } else { 0 }
    }

    pub(super) fn first(&mut self, kind: u64, program: usize, address: u64, is_end: bool) -> bool {
        let (k, t) = (kind as usize, self.t(program, address, is_end));
        let (h, own) = (self.history as usize, usize::from(self.own[k]));
        let at = [k * 16 + t, t * 64 + h % 64, k * 256 + own, (t * 16 + h % 16) * 4 + own % 4];
        self.first.read(&mut self.code, &at, k)
    }

    pub(super) fn second(&mut self, kind: u64, program: usize, address: u64, is_end: bool) -> bool {
        let (k, t) = (kind as usize, self.t(program, address, is_end));
        let at = [k * 4 + t.min(3), usize::from(self.own[k])];
        self.second.read(&mut self.code, &at, 0)
    }

    /// Section 9.9.4; modulo 2^64.
    pub(super) fn step(&mut self, kind: u64) -> u64 {
        self.steps.read(&mut self.code, kind as usize) as u64
    }

    fn range(kind: u64, number: u64) -> u64 {
        (number >> if kind == 21 { 5 } else { 8 }).min(8191)
    }

    /// Section 9.8.1: what an old number is taken to have become, modulo 2^32.
    pub(super) fn number(&self, kind: u64, old: u64) -> u64 {
        let (moved, range) = (&self.moved[kind as usize - 21], Self::range(kind, old));
        let near = moved.range(..=range).next_back().or_else(|| moved.range(range..).next());
        old.wrapping_add(near.map_or(0, |(_, shift)| *shift)) % (1 << 32)
    }

    pub(super) fn moved(&mut self, kind: u64, old: u64, new: u64) {
        self.moved[kind as usize - 21].insert(Self::range(kind, old), new.wrapping_sub(old));
    }

    /// Section 9.8, step 6, and the histories of 9.9.1.
    pub(super) fn learn(
        &mut self,
        kind: u64,
        program: usize,
        address: u64,
        is_end: bool,
        target: u64,
        right: bool,
    ) {
        let (slot, key) = self.slot(program, address, is_end);
        let slot = &mut self.slots[slot];
        slot.trust = match (slot.key == key, right, slot.trust) {
            (true, true, t) => (t + 1).min(7),
            (true, false, t) if t < 8 => 8,
            (true, false, t) => (t + 1).min(13),
            (false, true, _) => 0,
            (false, false, _) => 8,
        };
        (slot.key, slot.target) = (key, target);
        self.history = self.history << 1 | u64::from(!right);
        self.own[kind as usize] = self.own[kind as usize] << 1 | u8::from(!right);
    }
}
