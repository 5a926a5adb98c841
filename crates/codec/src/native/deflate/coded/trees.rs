//! The codes of dynamic blocks, predicted by the symbols used (`docs/formats/native-delta.md`, section 8.8.5).

use super::Settings;
use super::parse::{Codes, Run};
use crate::native::deflate::Stop;
use crate::native::deflate::blocks::{
    BL_CODES, BL_ORDER, D_CODES, L_CODES, MAX_BITS, MAX_BL_BITS, Tree, code_lengths, two_queues,
};
use crate::native::entropy::decisions::{Coder, Plain, Tables, Trees};

/// Predictions of codes.
#[derive(Debug, Clone)]
pub(super) struct CodesModel {
    /// Whether all is as predicted: literals, distances, runs, lengths of lengths, and three numbers.
    agrees: Plain,
    /// A code length, by what it is for, the one predicted and how the one before differed.
    lens: Trees,
    /// Numbers of codes.
    numbers: Trees,
    /// Whether a run is as predicted, and if not, its code and value.
    usual: Plain,
    codes: Trees,
    values: Trees,
}

impl CodesModel {
    pub(super) fn new() -> Self {
        CodesModel {
            agrees: Plain::new(7),
            lens: Trees::new(3 * 16 * 3, 4),
            numbers: Trees::new(3, 5),
            usual: Plain::new(19),
            codes: Trees::new(19, 5),
            values: Trees::new(3, 7),
        }
    }

    /// Codes the codes of a block with these counts of symbols.
    ///
    /// # Errors
    /// They cannot be.
    pub(super) fn code(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        settings: Settings,
        literals: &[u32],
        distances: &[u32],
        want: Option<&Codes>,
    ) -> Result<Codes, Stop> {
        let build = |counts: &[u32], most| match settings.queues {
            true => two_queues(counts, most),
            false => Tree::new(counts, most, |_| 0).lens,
        };
        let mut sent = Codes::default();
        let wanted = want.map(|c| [&c.literals, &c.distances]);
        for (part, counts, n, least) in [(0, literals, L_CODES, 257), (1, distances, D_CODES, 1)] {
            let predicted = build(counts, MAX_BITS);
            let want = wanted.map(|w| padded(w[part], n));
            let mut lens = self.lengths(t, coder, part, &predicted, want.as_deref());
            let used = lens.iter().rposition(|&l| l > 0).map_or(0, |i| i + 1).max(least);
            let len = self.number(t, coder, part, used - least, wanted.map(|w| w[part].len() - least));
            if least + len > n {
                return Err(Stop::Differs);
            }
            lens.resize(least + len, 0);
            if part == 0 { sent.literals = lens } else { sent.distances = lens }
        }
        self.runs(t, coder, settings, want, &mut sent)?;
        let mut counts = [0; BL_CODES];
        sent.runs.iter().for_each(|r| counts[usize::from(r.0)] += 1);
        let predicted = build(&counts, MAX_BL_BITS);
        let lens = self.lengths(t, coder, 2, &predicted, want.map(|c| &c.lengths[..]));
        // They are sent in three bits.
        if lens.iter().any(|&l| usize::from(l) > MAX_BL_BITS) {
            return Err(Stop::Differs);
        }
        sent.lengths.copy_from_slice(&lens);
        let used = (4..BL_CODES).rev().find(|&i| lens[BL_ORDER[i]] > 0).map_or(4, |i| i + 1);
        let len = self.number(t, coder, 2, used - 4, want.map(|c| c.sent - 4));
        if len > BL_CODES - 4 {
            return Err(Stop::Differs);
        }
        sent.sent = 4 + len;
        BL_ORDER[sent.sent..].iter().for_each(|&i| sent.lengths[i] = 0);
        Ok(sent)
    }

    /// Codes whether something is as predicted.
    fn agree(&mut self, t: &Tables, coder: &mut impl Coder, what: usize, agrees: bool) -> bool {
        self.agrees.code(t, coder, what, u32::from(agrees)) == 1
    }

    /// Codes the lengths of one code.
    fn lengths(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        part: usize,
        predicted: &[u8],
        want: Option<&[u8]>,
    ) -> Vec<u8> {
        if self.agree(t, coder, part, want == Some(predicted)) {
            return predicted.to_vec();
        }
        let (mut lens, mut before) = (Vec::with_capacity(predicted.len()), 0);
        for (i, &p) in predicted.iter().enumerate() {
            let context = (part * 16 + usize::from(p)) * 3 + before;
            let len = self.lens.code(t, coder, context, want.map_or(0, |w| w[i].into())) as u8;
            before = match len.cmp(&p) {
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Greater => 2,
            };
            lens.push(len);
        }
        lens
    }

    /// Codes how many lengths are sent.
    fn number(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        part: usize,
        predicted: usize,
        want: Option<usize>,
    ) -> usize {
        if self.agree(t, coder, 4 + part, want == Some(predicted)) {
            return predicted;
        }
        self.numbers.code(t, coder, part, want.unwrap_or(0))
    }

    /// Codes how the lengths are told.
    fn runs(
        &mut self,
        t: &Tables,
        coder: &mut impl Coder,
        settings: Settings,
        want: Option<&Codes>,
        sent: &mut Codes,
    ) -> Result<(), Stop> {
        let predicted = runs(&sent.literals, &sent.distances, settings.joined);
        if self.agree(t, coder, 3, want.is_some_and(|c| c.runs == predicted)) {
            sent.runs = predicted;
            return Ok(());
        }
        let lens = [&sent.literals[..], &sent.distances].concat();
        let mut at = 0;
        while at < lens.len() {
            // From any place on, runs are predicted as if they started there.
            let before = at.checked_sub(1).map(|i| lens[i]);
            let (code, value) = next_run(&lens[at..], before);
            let want = want.map(|c| c.runs.get(sent.runs.len()).copied().ok_or(Stop::Differs)).transpose()?;
            let usual = u32::from(want == Some((code, value)));
            let run = if self.usual.code(t, coder, code.into(), usual) == 1 {
                (code, value)
            } else {
                let other = self.codes.code(t, coder, code.into(), want.map_or(0, |w| w.0.into()));
                let value = match other {
                    16..19 => self.values.code(t, coder, other - 16, want.map_or(0, |w| w.1.into())),
                    _ => 0,
                };
                (other as u8, value as u8)
            };
            at += match run.0 {
                ..16 => 1,
                16 if run.1 < 4 => 3 + usize::from(run.1),
                17 if run.1 < 8 => 3 + usize::from(run.1),
                18 => 11 + usize::from(run.1),
                _ => return Err(Stop::Differs),
            };
            sent.runs.push(run);
        }
        if at == lens.len() { Ok(()) } else { Err(Stop::Differs) }
    }
}

/// As many lengths as a code can have, zeros behind those that there are.
fn padded(lens: &[u8], n: usize) -> Vec<u8> {
    let mut all = lens.to_vec();
    all.resize(n, 0);
    all
}

/// The runs of all lengths.
fn runs(literals: &[u8], distances: &[u8], joined: bool) -> Vec<Run> {
    let mut out = Vec::new();
    let mut push = |lens: &[u8]| code_lengths(lens, |code, _, value| out.push((code as u8, value as u8)));
    if joined {
        push(&[literals, distances].concat());
    } else {
        push(literals);
        push(distances);
    }
    out
}

/// The run that the rules of section 8.3.3 have for the first lengths, behind one that is `before`.
fn next_run(lens: &[u8], before: Option<u8>) -> Run {
    let same = |most: usize| lens.iter().take(most).take_while(|&&l| l == lens[0]).count();
    match lens[0] {
        0 => match same(138) {
            n @ 3..11 => (17, n as u8 - 3),
            n @ 11.. => (18, n as u8 - 11),
            _ => (0, 0),
        },
        len if before == Some(len) && same(6) >= 3 => (16, same(6) as u8 - 3),
        len => (len, 0),
    }
}

/// Whether runs of a block go on from literals to distances; nothing if both ways give the same, or neither.
pub(super) fn are_joined(codes: &Codes) -> Option<bool> {
    let [apart, joined] = [false, true].map(|j| runs(&codes.literals, &codes.distances, j) == codes.runs);
    (apart != joined).then_some(joined)
}

/// How many lengths two ways to build the codes of a block predict wrongly: by a heap, and from two queues.
pub(super) fn misses(codes: &Codes, literals: &[u32], distances: &[u32]) -> [usize; 2] {
    let wrong = |lens: &[u8], sent: &[u8]| {
        (0..lens.len()).filter(|&i| lens[i] != sent.get(i).copied().unwrap_or(0)).count()
    };
    let both = |build: &dyn Fn(&[u32]) -> Vec<u8>| {
        wrong(&build(literals), &codes.literals) + wrong(&build(distances), &codes.distances)
    };
    [both(&|counts| Tree::new(counts, MAX_BITS, |_| 0).lens), both(&|counts| two_queues(counts, MAX_BITS))]
}

/// Writes the description of codes (RFC 1951, section 3.2.7).
pub(super) fn describe(sent: &Codes, mut put: impl FnMut(u32, u32)) -> Result<(), Stop> {
    put(sent.literals.len() as u32 - 257, 5);
    put(sent.distances.len() as u32 - 1, 5);
    put(sent.sent as u32 - 4, 4);
    for &code in &BL_ORDER[..sent.sent] {
        put(sent.lengths[code].into(), 3);
    }
    let of = crate::native::deflate::blocks::codes(&sent.lengths);
    for &(code, value) in &sent.runs {
        let (bits, len) = of[usize::from(code)];
        if len == 0 {
            return Err(Stop::Differs);
        }
        put(bits.into(), len.into());
        let extra = [2, 3, 7].get(usize::from(code).wrapping_sub(16)).copied().unwrap_or(0);
        put(value.into(), extra);
    }
    Ok(())
}
