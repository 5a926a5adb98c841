//! Ranges of a blob: which are asked for, and fetching them side by side.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Parted;
use crate::Error;
use crate::image::blob::Progress;
use crate::image::{Ranged, Source};

/// Requests under way at a time, for one layer.
pub(crate) const PARALLEL: u64 = 4;
/// Bytes that one request asks for at most: what is fetched and not yet used waits in memory.
const MAX_REQUEST: u64 = 4 << 20;
/// Answers that are ahead of what is used, at most.
const AHEAD: usize = 6;

/// Bytes around each answer, both ways: headers of HTTP as docker-registry sends them, and of TLS.
const OVERHEAD: u64 = 700;
/// Bytes around each part of an answer with several: a boundary, a range, a type.
const PART: u64 = 180;
/// Ranges in one request, where several are served, and their bytes.
const MAX_JOINT: usize = 128;
const JOINT_BYTES: u64 = 1 << 20;
/// Gaps that are fetched rather than asking once more: the candidates, in bytes.
const GAPS: [u64; 7] = [1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
/// Of choices that take about as long, by one part in so many, the one with the fewest bytes is taken.
const TOLERANCE: f64 = 20.0;

/// The line to a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Link {
    /// Seconds that a request without content takes.
    latency: f64,
    /// Bytes per second.
    rate: f64,
}

impl Link {
    /// As measured: a request without content takes `latency`, one with `bytes` takes `took`.
    fn measured(latency: Duration, took: Duration, bytes: u64) -> Self {
        // A latency that was measured with the making of connections says little about a request that was faster.
        let latency = latency.min(took / 2).max(Duration::from_micros(100));
        let moving = took.saturating_sub(latency).max(Duration::from_micros(100));
        Link { latency: latency.as_secs_f64(), rate: bytes.max(1) as f64 / moving.as_secs_f64() }
    }

    /// The line to a source: as [`Link::measured`], or none at all.
    pub(crate) fn to(source: &dyn Source, latency: Duration, took: Duration, bytes: u64) -> Self {
        match source.repository().is_some() {
            true => Link::measured(latency, took, bytes),
            false => Link { latency: 1e-5, rate: 1e9 },
        }
    }

    /// Seconds that ranges take. Several requests are under way: waiting for answers costs time only where it is longer
    /// than what else is coming meanwhile.
    fn seconds(&self, bytes: u64, requests: u64) -> f64 {
        let moving = (bytes + requests * OVERHEAD) as f64 / self.rate;
        let waiting = requests as f64 * self.latency / PARALLEL as f64;
        moving.max(waiting) + self.latency
    }

    /// What a request costs, in bytes, among so many for so many bytes.
    pub(crate) fn request(&self, bytes: u64, requests: u64) -> u64 {
        let idle = self.seconds(bytes, requests) - bytes as f64 / self.rate;
        (idle.max(0.0) * self.rate / requests.max(1) as f64) as u64
    }
}

fn sum(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Joins ranges, given in rising order, where fetching the gap is cheaper than another request, and cuts what is too long
/// for one. Each of the wanted ranges lies within neighbours that follow each other without a gap.
pub(crate) fn coalesce(wanted: &[Range<u64>], link: &Link) -> Vec<Range<u64>> {
    let choices: Vec<_> = GAPS.iter().map(|gap| cut(join(wanted, *gap))).collect();
    let seconds = |ranges: &Vec<Range<u64>>| link.seconds(sum(ranges), ranges.len() as u64);
    let best = choices.iter().map(seconds).fold(f64::INFINITY, f64::min);
    // The first is the one with the fewest bytes.
    choices.into_iter().find(|ranges| seconds(ranges) <= best * (1.0 + 1.0 / TOLERANCE)).unwrap_or_default()
}

fn join(wanted: &[Range<u64>], gap: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in wanted.iter().filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start.saturating_sub(last.end) <= gap => last.end = last.end.max(range.end),
            _ => joined.push(range.clone()),
        }
    }
    joined
}

fn cut(joined: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let cut = |range: Range<u64>| {
        let parts = (range.end - range.start).div_ceil(MAX_REQUEST).max(1);
        let size = (range.end - range.start).div_ceil(parts);
        (0..parts).map(move |part| {
            let start = range.start + part * size;
            start..range.end.min(start + size)
        })
    };
    joined.into_iter().flat_map(cut).collect()
}

/// How fetching ended early.
pub(crate) enum Ended {
    /// An answer was the whole blob.
    Whole(Box<dyn Read + Send>),
    /// A request failed.
    Failed(Error),
    /// What was done with the bytes failed.
    Other,
}

/// Which ranges are fetched, and which of them in one request.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// In rising order; each is wholly kept or wholly not.
    ranges: Vec<(Range<u64>, bool)>,
    /// Numbers of ranges.
    groups: Vec<Range<usize>>,
}

impl Requests {
    /// One for each range.
    fn single(parted: &Parted<'_>, ranges: &[Range<u64>]) -> Self {
        let ranges: Vec<_> = ranges.iter().flat_map(|range| parted.stretches(range)).collect();
        let groups = (0..ranges.len()).map(|number| number..number + 1).collect();
        Requests { ranges, groups }
    }

    /// One for as many ranges as go into a request.
    fn joint(parted: &Parted<'_>, ranges: &[Range<u64>]) -> Self {
        let ranges: Vec<_> = ranges.iter().flat_map(|range| parted.stretches(range)).collect();
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut bytes = 0;
        for (number, (range, here)) in ranges.iter().enumerate() {
            let len = range.end - range.start;
            match groups.last_mut() {
                Some(last)
                    if !here
                        && !ranges[last.start].1
                        && last.len() < MAX_JOINT
                        && bytes + len <= JOINT_BYTES =>
                {
                    last.end += 1;
                    bytes += len;
                }
                _ => {
                    groups.push(number..number + 1);
                    bytes = len;
                }
            }
        }
        Requests { ranges, groups }
    }

    /// What is best for `wanted`, as far as it is known what the source serves.
    pub(crate) fn known(parted: &Parted<'_>, wanted: &[Range<u64>], link: &Link) -> Self {
        match parted.source.serves_several(parted.blob) {
            Some(true) => Requests::joint(parted, &cut(join(wanted, PART))),
            _ => Requests::single(parted, &coalesce(wanted, link)),
        }
    }

    /// Bytes that have to be fetched, and requests for that.
    pub(crate) fn missing(&self) -> (u64, u64) {
        let away = self.ranges.iter().filter(|(_, here)| !here);
        let bytes = away.map(|(range, _)| range.end - range.start).sum();
        let requests = self.groups.iter().filter(|group| !self.ranges[group.start].1).count();
        (bytes, requests as u64)
    }
}

#[derive(Default)]
struct State {
    /// The next group to ask for.
    next: usize,
    /// The group of the next range to be used.
    used: usize,
    /// A group that is there already.
    tried: Option<usize>,
    /// By the numbers of the ranges.
    ready: HashMap<usize, Vec<u8>>,
    ended: Option<Ended>,
    /// Bytes that were fetched.
    fetched: u64,
}

/// Ranges on their way.
pub(crate) struct Fetching<'a> {
    parted: Parted<'a>,
    requests: Requests,
    progress: &'a Progress,
    state: Mutex<State>,
    changed: Condvar,
}

impl<'a> Fetching<'a> {
    /// Whatever `wanted` takes. Where nobody knows whether the source serves several ranges at once, the first ones are asked
    /// for in this way, if that may save anything.
    pub(crate) fn new(
        parted: Parted<'a>,
        wanted: &[Range<u64>],
        link: &Link,
        progress: &'a Progress,
    ) -> Result<Self, Error> {
        let mut state = State::default();
        let mut requests = Requests::known(&parted, wanted, link);
        if parted.source.serves_several(parted.blob).is_none() {
            let joint = Requests::joint(&parted, &cut(join(wanted, PART)));
            let first = joint.groups.iter().position(|group| group.len() > 1);
            if let Some(first) = first.filter(|_| joint.groups.len() < requests.groups.len()) {
                let group = joint.groups[first].clone();
                let ranges: Vec<_> =
                    joint.ranges[group.clone()].iter().map(|(range, _)| range.clone()).collect();
                state.tried = Some(first);
                for (number, bytes) in group.zip(parted.several(&ranges)?) {
                    bytes.into_iter().for_each(|bytes| state.take(number, bytes, progress));
                }
                requests = match parted.source.serves_several(parted.blob) {
                    Some(true) => joint,
                    // Single ranges; what has come nonetheless is kept.
                    _ => {
                        state.ready.clear();
                        state.tried = None;
                        Requests::known(&parted, wanted, link)
                    }
                };
            }
        }
        Ok(Fetching { parted, requests, progress, state: Mutex::new(state), changed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches all ranges while `work` uses their bytes. What ended it, if it was not `work` that came to its end, and the
    /// bytes that were fetched.
    pub(crate) fn run<R>(
        self,
        work: impl FnOnce(&mut Stream<'_, 'a>) -> Result<R, Error>,
    ) -> (Result<R, Error>, Option<Ended>, u64) {
        let result = std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(self.requests.groups.len() as u64) {
                scope.spawn(|| self.fetch());
            }
            let mut stream = Stream { fetching: &self, at: 0, piece: Vec::new(), taken: 0, number: 0 };
            let result = work(&mut stream);
            let mut state = self.lock();
            if state.ended.is_none() {
                state.ended = Some(Ended::Other);
            }
            drop(state);
            self.changed.notify_all();
            result
        });
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        (result, state.ended.filter(|ended| !matches!(ended, Ended::Other)), state.fetched)
    }

    /// One of the threads that fetch.
    fn fetch(&self) {
        loop {
            let mut state = self.lock();
            let number = loop {
                if state.ended.is_some() || state.next >= self.requests.groups.len() {
                    return;
                }
                if state.next < state.used + AHEAD {
                    break state.next;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            state.next += 1;
            if state.tried == Some(number) {
                continue;
            }
            drop(state);
            let group = self.requests.groups[number].clone();
            if let Err(ended) = self.group(group) {
                let mut state = self.lock();
                if state.ended.is_none() {
                    state.ended = Some(ended);
                }
            }
            self.changed.notify_all();
        }
    }

    /// Fetches the ranges of one group, together if that can be.
    fn group(&self, group: Range<usize>) -> Result<(), Ended> {
        let mut numbers: Vec<usize> = group.collect();
        if numbers.len() > 1 && !self.progress.stop.raised() {
            let range = |number: &usize| self.requests.ranges[*number].0.clone();
            let ranges: Vec<_> = numbers.iter().map(range).collect();
            let found = self.parted.several(&ranges).map_err(Ended::Failed)?;
            let mut state = self.lock();
            let mut left = Vec::new();
            for (number, bytes) in numbers.into_iter().zip(found) {
                match bytes {
                    Some(bytes) => state.take(number, bytes, self.progress),
                    None => left.push(number),
                }
            }
            numbers = left;
            drop(state);
            self.changed.notify_all();
        }
        for number in numbers {
            if self.progress.stop.raised() {
                return Err(Ended::Failed(Error::Cancelled));
            }
            let (range, here) = &self.requests.ranges[number];
            match self.parted.range(range.clone()).map_err(Ended::Failed)? {
                Ranged::Part(bytes) => {
                    let mut state = self.lock();
                    match here {
                        true => _ = state.ready.insert(number, bytes),
                        false => state.take(number, bytes, self.progress),
                    }
                    drop(state);
                    self.changed.notify_all();
                }
                Ranged::Whole(stream) => return Err(Ended::Whole(stream)),
            }
        }
        Ok(())
    }
}

impl State {
    /// Takes the bytes of a range that have come.
    fn take(&mut self, number: usize, bytes: Vec<u8>, progress: &Progress) {
        self.fetched += bytes.len() as u64;
        progress.done.fetch_add(bytes.len() as u64, std::sync::atomic::Ordering::Relaxed);
        self.ready.insert(number, bytes);
    }
}

/// The bytes of the ranges, in their order.
pub(crate) struct Stream<'f, 'a> {
    fetching: &'f Fetching<'a>,
    /// Place in the blob.
    at: u64,
    piece: Vec<u8>,
    taken: usize,
    /// Number of the range after the one at hand.
    number: usize,
}

impl<'f, 'a> Stream<'f, 'a> {
    /// The bytes of `range`, which lies behind all that were asked for before and within the ranges.
    pub(crate) fn range(&mut self, range: Range<u64>) -> io::Result<Part<'_, 'f, 'a>> {
        while self.at < range.start || self.taken == self.piece.len() {
            if self.taken == self.piece.len() {
                self.advance()?;
                continue;
            }
            let skipped = (range.start - self.at).min((self.piece.len() - self.taken) as u64);
            self.taken += skipped as usize;
            self.at += skipped;
        }
        if self.at != range.start {
            return Err(io::Error::other("bytes of a range that have passed"));
        }
        Ok(Part { stream: self, end: range.end })
    }

    /// Waits for the next range.
    fn advance(&mut self) -> io::Result<()> {
        let fetching = self.fetching;
        let Some((range, _)) = fetching.requests.ranges.get(self.number) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let mut state = fetching.lock();
        state.used = fetching.requests.groups.partition_point(|group| group.end <= self.number);
        fetching.changed.notify_all();
        let piece = loop {
            if let Some(piece) = state.ready.remove(&self.number) {
                break piece;
            }
            if state.ended.is_some() {
                return Err(io::Error::other("fetching has ended"));
            }
            state = fetching.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        (self.piece, self.taken, self.at) = (piece, 0, range.start);
        self.number += 1;
        Ok(())
    }
}

/// The bytes of one stretch.
pub(crate) struct Part<'s, 'f, 'a> {
    stream: &'s mut Stream<'f, 'a>,
    end: u64,
}

impl BufRead for Part<'_, '_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.stream.at >= self.end {
            return Ok(&[]);
        }
        while self.stream.taken == self.stream.piece.len() {
            let before = self.stream.at;
            self.stream.advance()?;
            if self.stream.at != before {
                return Err(io::Error::other("a range with a gap"));
            }
        }
        let most = usize::try_from(self.end - self.stream.at).unwrap_or(usize::MAX);
        let left = &self.stream.piece[self.stream.taken..];
        Ok(&left[..left.len().min(most)])
    }

    fn consume(&mut self, n: usize) {
        self.stream.taken += n;
        self.stream.at += n as u64;
    }
}

impl Read for Part<'_, '_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_gaps_are_fetched_and_large_ranges_cut() {
        let wanted = [10..20, 120..130, 231..240, 240..250, 5..5, 2000..2001];
        assert_eq!(join(&wanted, 100), [10..130, 231..250, 2000..2001]);
        let long = cut(Vec::from_iter(std::iter::once(3..3 + 3 * MAX_REQUEST)));
        assert_eq!(long.len(), 3);
        assert!(long.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((long[0].start, long[2].end), (3, 3 + 3 * MAX_REQUEST));
    }

    #[test]
    fn gaps_are_fetched_where_waiting_would_be_dearer() {
        let ms = Duration::from_millis;
        // A hundred ranges of 20 kB with gaps of 5 kB: 2 MB, or 2.5 MB in one.
        let wanted: Vec<Range<u64>> = (0..100).map(|n| n * 25_000..n * 25_000 + 20_000).collect();
        // 10 Mbit/s and 40 ms: 1.7 s for the bytes, 1 s of waiting beside it.
        let slow = Link::measured(ms(40), ms(40 + 800), 1_000_000);
        assert_eq!(coalesce(&wanted, &slow).len(), 100);
        // 1 Gbit/s and 40 ms: the waiting is all that counts.
        let fast = Link::measured(ms(40), ms(48), 1_000_000);
        let joined = coalesce(&wanted, &fast);
        assert_eq!((joined.len(), joined[0].end), (1, 99 * 25_000 + 20_000));
        assert!(fast.request(2_000_000, 100) > 100_000 && slow.request(2_000_000, 100) < 2_000);
    }
}
