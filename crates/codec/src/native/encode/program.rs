//! Coding a program from old programs: matching without references, and references predicted
//! (`docs/formats/native-delta.md`, section 9).
//!
//! Bytes of references differ wherever anything moved, so matching by bytes sees gaps in code that did not change. The
//! first pass matches with all references blanked. It tells where old addresses went; so the second pass puts in place of
//! each reference a mark for its target, the same for an old target and the new one that it became.

use super::expand::Expanded;
use super::part::{OldText, ViewKind};
use crate::delta::Effort;
use crate::matching::approx::{Match, Prices};
use crate::native::entropy::decisions::Writer;
use crate::native::exec::elf::{HEAD, Layout};
use crate::native::exec::field::{Reference, load, store};
use crate::native::exec::predict::{self, Copy, Old, Predictor};
use crate::native::exec::{Machine, Program};
use crate::native::numbers::{put, put_signed};
use crate::native::streams::{StreamId, Streams};

/// What things cost where references are blanks or marks: a difference costs more than among bytes, since it makes wrong
/// what is predicted by the copy. Found by search (`docs/design/0022-matching-again.md`).
pub(super) const PRICES: Prices = Prices {
    agree: 4,
    differ: 280,
    foreseen: 60,
    begin_literal: 250,
    begin_stretch: 1000,
    distance_byte: 240,
    change_file: 1200,
};
/// Programs up to this size are matched with marks twice at the efforts that match others so once.
const QUICK: usize = 4 << 20;
/// From this effort on all are.
const THOROUGH: u8 = 7;

/// An old program within an old text.
struct View {
    /// Its number among the views, and where it starts and ends in the text.
    number: usize,
    start: usize,
    end: usize,
    program: Program,
}

/// Both sides of a program, ready to be matched.
pub(super) struct Task<'t> {
    machine: Machine,
    new: &'t [u8],
    old: &'t OldText,
    program: Program,
    after: Layout,
    views: Vec<View>,
}

/// What coding a program came to.
pub(super) struct Coded {
    pub matches: Vec<Match>,
    pub streams: Streams,
    pub corrections: u64,
    /// Bytes of the stream of references.
    pub references: u64,
    /// Pieces that the copies were cut to.
    pub pieces: u64,
}

impl<'t> Task<'t> {
    /// A task, if the new text is a program and one of the old ones is for the same machine.
    pub(super) fn new(new: &'t Expanded, old: &'t OldText) -> Option<Self> {
        let new = &new.text[..];
        let machine = Machine::of(new)?;
        let mut views = Vec::new();
        for (number, view) in old.views.iter().enumerate() {
            let start = if number == 0 { 0 } else { old.ends[number - 1] };
            let bytes = &old.bytes[start..old.ends[number]];
            if !matches!(view.kind, ViewKind::Range { .. }) && Machine::of(bytes) == Some(machine) {
                views.push(View {
                    number,
                    start,
                    end: old.ends[number],
                    program: Program::read(bytes, machine),
                });
            }
        }
        if views.is_empty() {
            return None;
        }
        let after = predict::layout(&new[..new.len().min(HEAD)], new.len() as u64, machine);
        Some(Task { machine, new, old, program: Program::read(new, machine), after, views })
    }

    /// Matches in passes; `find` matches a new text with an old one of the same form as the real ones.
    pub(super) fn matches(&self, effort: Effort, find: impl Fn(&[u8], &[u8]) -> Vec<Match>) -> Vec<Match> {
        let quick = effort.number() >= 5 && self.new.len().max(self.old.bytes.len()) <= QUICK;
        let marked = if quick || effort.number() >= THOROUGH { 2 } else { 1 };
        let (mut new, mut old) = (self.new.to_vec(), self.old.bytes.clone());
        mark(&mut new, &self.program.references, |_| 0);
        for view in &self.views {
            mark(&mut old[view.start..view.end], &view.program.references, |_| 0);
        }
        let mut matches = find(&new, &old);
        for _ in 0..marked {
            mark(&mut new, &self.program.references, |r| match r.kind().numbers() {
                Some(_) => 0,
                None => hash(self.program.target(self.new, r).address),
            });
            for (view, known) in self.views.iter().zip(self.olds(&matches)) {
                let program = &view.program;
                mark(&mut old[view.start..view.end], &program.references, |r| {
                    if r.kind().numbers().is_some() {
                        return 0;
                    }
                    let target = program.target(known.file, r).address;
                    hash(known.map(target, r.kind().is_end()))
                });
            }
            matches = find(&new, &old);
        }
        matches
    }

    /// What matches tell of the addresses of each view.
    fn olds(&self, matches: &[Match]) -> Vec<Old<'_>> {
        self.views
            .iter()
            .filter_map(|view| {
                let inside = matches.iter().filter(|m| m.old >= view.start && m.old < view.end);
                let copies: Vec<Copy> = inside
                    .map(|m| Copy { new: m.new as u64, old: (m.old - view.start) as u64, len: m.len as u64 })
                    .collect();
                Old::new(
                    0,
                    &self.old.bytes[view.start..view.end],
                    &view.program,
                    &copies,
                    &self.after,
                    u64::MAX,
                )
            })
            .collect()
    }

    /// Writes literals, copies, references and corrections; literals go to the stream of class binary.
    pub(super) fn code(&self, matches: Vec<Match>, used: &[Option<usize>]) -> Coded {
        let mut out = Streams::default();
        let mut olds = self.olds(&matches);
        // Programs are numbered among those that the part uses.
        let used_views = self.views.iter().zip(&mut olds).filter(|(v, _)| used[v.number].is_some());
        used_views.enumerate().for_each(|(number, (_, old))| old.number = number);
        let bytes =
            self.views.iter().filter(|v| used[v.number].is_some()).map(|v| (v.end - v.start) as u64).sum();
        let mut predictor = Predictor::new(self.after.clone(), bytes);
        let mut writer = Writer::new();
        let mut next = vec![0; olds.len()];
        let (mut at, mut expected, mut gap, mut corrections) = (0, 0i64, 0u64, 0);
        let mut copied = Vec::new();
        for m in &matches {
            let view = self.old.ends.partition_point(|&end| end <= m.old);
            let start = if view == 0 { 0 } else { self.old.ends[view - 1] };
            let address = (used[view].unwrap_or(0) + m.old - start) as i64;
            put(out.get(StreamId::LiteralLengths), (m.new - at) as u64);
            out.get(StreamId::Binary).extend_from_slice(&self.new[at..m.new]);
            put_signed(out.get(StreamId::Addresses), address - expected);
            put(out.get(StreamId::CopyLengths), m.len as u64);
            copied.clear();
            copied.extend_from_slice(&self.old.bytes[m.old..m.old + m.len]);
            if let Some(i) = self.views.iter().position(|v| v.number == view) {
                let old = &olds[i];
                while let Some(piece) = old.pieces.get(next[i]).filter(|p| p.new < (m.new + m.len) as u64) {
                    next[i] += 1;
                    for &reference in old.references(piece) {
                        let at = (piece.new + u64::from(reference.place()) - piece.old) as usize;
                        let len = reference.kind().len();
                        let field = &mut copied[at - m.new..][..len];
                        let actual = Some(&self.new[at..at + len]);
                        predictor.code(old, piece, reference, field, actual, &mut writer);
                    }
                }
            }
            for (a, b) in self.new[m.new..m.new + m.len].iter().zip(&copied) {
                if a == b {
                    gap += 1;
                } else {
                    put(out.get(StreamId::Gaps), gap);
                    out.get(StreamId::Corrections).push(a.wrapping_sub(*b));
                    corrections += 1;
                    gap = 0;
                }
            }
            at = m.new + m.len;
            expected = address + m.len as i64;
        }
        if at < self.new.len() {
            put(out.get(StreamId::LiteralLengths), (self.new.len() - at) as u64);
            out.get(StreamId::Binary).extend_from_slice(&self.new[at..]);
        }
        let pieces = olds.iter().map(|o| o.pieces.len() as u64).sum();
        let references = writer.finish();
        let coded = references.len() as u64;
        *out.get(StreamId::References) = references;
        Coded { matches, streams: out, corrections, references: coded, pieces }
    }

    /// The memory that a reader needs for predicting (section 4.3).
    pub(super) fn memory(&self, coded: &Coded, used: &[Option<usize>]) -> u64 {
        let views = self.views.iter().filter(|v| used[v.number].is_some());
        let (bytes, programs) = views.fold((0, 0), |(bytes, programs), v| {
            (bytes + (v.end - v.start) as u64, programs + v.program.memory())
        });
        let copies = coded.matches.len() as u64 + coded.pieces;
        bytes + programs + predict::memory(bytes) + copies * predict::PER_COPY
    }

    /// Which views are programs.
    pub(super) fn is_program(&self, view: usize) -> bool {
        self.views.iter().any(|v| v.number == view)
    }

    pub(super) fn machine(&self) -> Machine {
        self.machine
    }
}

/// Puts a mark in place of each reference.
fn mark(bytes: &mut [u8], references: &[Reference], value: impl Fn(Reference) -> u64) {
    for &reference in references {
        let field = &mut bytes[reference.place() as usize..];
        let kind = reference.kind();
        let marked = kind.put(load(kind, field), value(reference));
        store(kind, marked, field);
    }
}

/// A mark for a target, never 0 but by chance.
fn hash(target: u64) -> u64 {
    let hash = (target + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}
