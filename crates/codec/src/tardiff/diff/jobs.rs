//! Runs jobs on several threads, within a memory budget, and hands out their results in order.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Numbered jobs.
pub(super) trait Work: Sync {
    type Output: Send;
    fn len(&self) -> usize;
    /// Carries out one job. Large memory is asked for through `memory`, at most once at a time.
    fn run(&self, job: usize, memory: &dyn Memory) -> Self::Output;
    /// Bytes that a finished result keeps.
    fn weight(&self, output: &Self::Output) -> u64;
}

/// Where jobs ask for memory.
pub(super) trait Memory {
    /// Waits until `bytes` fit into the budget beside what others hold, or nobody holds any, then runs `job`.
    fn with(&self, bytes: u64, job: &mut dyn FnMut());
}

/// Results that may lie finished at once.
const AHEAD: usize = 1024;

/// Results by job number, taken in order.
pub(super) struct Results<'s, W: Work> {
    work: &'s W,
    budget: u64,
    state: Mutex<State<W::Output>>,
    changed: Condvar,
}

struct State<T> {
    /// The next job to start and the next result to be taken.
    next: usize,
    wanted: usize,
    /// Bytes lent by [`Memory::with`], and bytes of finished results.
    lent: u64,
    kept: u64,
    done: BTreeMap<usize, (T, u64)>,
    stop: bool,
}

/// Runs `consume` while `threads` threads carry out the work. `consume` takes results in ascending order and may
/// return early.
pub(super) fn run<W: Work, R>(
    work: &W,
    threads: NonZeroUsize,
    budget: u64,
    consume: impl FnOnce(&Results<'_, W>) -> R,
) -> R {
    let state = State { next: 0, wanted: 0, lent: 0, kept: 0, done: BTreeMap::new(), stop: false };
    let results = Results { work, budget, state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| {
        // Also when `consume` panics: the scope would wait for the workers for ever.
        let _stop = Stop(&results);
        for _ in 0..threads.get().min(work.len()) {
            scope.spawn(|| results.worker());
        }
        consume(&results)
    })
}

/// Stops all threads when dropped.
struct Stop<'r, 's, W: Work>(&'r Results<'s, W>);

impl<W: Work> Drop for Stop<'_, '_, W> {
    fn drop(&mut self) {
        self.0.lock().stop = true;
        self.0.changed.notify_all();
    }
}

impl<W: Work> Results<'_, W> {
    fn lock(&self) -> MutexGuard<'_, State<W::Output>> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn wait<'g>(&self, guard: MutexGuard<'g, State<W::Output>>) -> MutexGuard<'g, State<W::Output>> {
        self.changed.wait(guard).unwrap_or_else(|e| e.into_inner())
    }

    fn worker(&self) {
        loop {
            let mut state = self.lock();
            let job = loop {
                if state.stop || state.next >= self.work.len() {
                    return;
                }
                // The result that is waited for may always be made: nothing else can free what the others keep.
                let ahead = state.next - state.wanted;
                if ahead == 0 || (ahead < AHEAD && state.kept < self.budget / 4) {
                    state.next += 1;
                    break state.next - 1;
                }
                state = self.wait(state);
            };
            drop(state);
            let alarm = Stop(self);
            let output = self.work.run(job, self);
            std::mem::forget(alarm);
            let weight = self.work.weight(&output);
            let mut state = self.lock();
            state.kept += weight;
            state.done.insert(job, (output, weight));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits for the result of `job`.
    ///
    /// # Panics
    /// When a worker did.
    pub(super) fn take(&self, job: usize) -> W::Output {
        let mut state = self.lock();
        state.wanted = job;
        self.changed.notify_all();
        loop {
            if let Some((output, weight)) = state.done.remove(&job) {
                state.kept -= weight;
                state.wanted = job + 1;
                drop(state);
                self.changed.notify_all();
                return output;
            }
            assert!(!state.stop, "a matching thread panicked");
            state = self.wait(state);
        }
    }
}

impl<W: Work> Memory for Results<'_, W> {
    fn with(&self, bytes: u64, job: &mut dyn FnMut()) {
        let mut state = self.lock();
        while state.lent > 0 && state.lent + bytes > self.budget && !state.stop {
            state = self.wait(state);
        }
        state.lent += bytes;
        drop(state);
        job();
        self.lock().lent -= bytes;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Default)]
    struct Squares {
        running: AtomicU64,
        peak: AtomicU64,
    }

    impl Work for Squares {
        type Output = usize;
        fn len(&self) -> usize {
            200
        }
        fn run(&self, job: usize, memory: &dyn Memory) -> usize {
            let cost = 1 + job as u64 % 7;
            memory.with(cost, &mut || {
                let now = self.running.fetch_add(cost, Ordering::SeqCst) + cost;
                self.peak.fetch_max(now, Ordering::SeqCst);
                std::thread::yield_now();
                self.running.fetch_sub(cost, Ordering::SeqCst);
            });
            job * job
        }
        fn weight(&self, _: &usize) -> u64 {
            1
        }
    }

    fn threads(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    #[test]
    fn results_come_in_order_and_the_budget_holds() {
        for n in [1, 2, 8] {
            let work = Squares::default();
            let all: Vec<usize> = run(&work, threads(n), 10, |r| (0..200).map(|i| r.take(i)).collect());
            assert_eq!(all, (0..200).map(|i| i * i).collect::<Vec<_>>());
            assert!(work.peak.load(Ordering::SeqCst) <= 10);
        }
    }

    #[test]
    fn stopping_early_stops_the_workers() {
        assert_eq!(run(&Squares::default(), threads(2), 10, |r| r.take(0)), 0);
    }

    #[test]
    #[should_panic(expected = "panicked")]
    fn a_panic_in_a_worker_is_not_waited_for() {
        struct Bad;
        impl Work for Bad {
            type Output = ();
            fn len(&self) -> usize {
                1
            }
            fn run(&self, _: usize, _: &dyn Memory) {
                panic!("on purpose");
            }
            fn weight(&self, _: &()) -> u64 {
                0
            }
        }
        run(&Bad, threads(1), 10, |r| r.take(0));
    }
}
