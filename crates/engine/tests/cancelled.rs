//! Work that is told to stop stops, wherever it is, and leaves nothing.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use coracle_codec::observe::{Observer, Stage};
use coracle_codec::tardiff::{Limits, Options, StreamOptions};
use coracle_codec::{compress, native};
use coracle_engine::{Error, diff, explain, inspect, patch};
use coracle_testkit::oracle::{run_fed, tool};
use coracle_testkit::pair::{Pair, pair};

use crate::place::{LIMIT, Place, bounded};

/// Says stop from the given question on, and every time after that.
#[derive(Debug)]
struct StopAt {
    question: u64,
    asked: AtomicU64,
}

impl StopAt {
    fn new(question: u64) -> Arc<Self> {
        Arc::new(StopAt { question, asked: AtomicU64::new(0) })
    }
}

impl Observer for StopAt {
    fn progress(&self, stage: Stage, done: u64, total: u64) {
        assert!(total == 0 || done <= total, "{stage:?}: {done} of {total}");
    }

    fn cancelled(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) >= self.question
    }
}

/// Does `work` once to its end, then stops it at up to 40 questions from the first to the last.
fn stopped_everywhere(what: &str, work: impl Fn(&Place, Arc<StopAt>) -> Result<(), Error>) {
    let place = Place::new();
    let all = StopAt::new(u64::MAX);
    work(&place, all.clone()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let questions = all.asked.load(Ordering::SeqCst);
    assert!(questions > 5, "{what}: asked {questions} times");
    for step in 0..40.min(questions) {
        let question = step * (questions - 1) / 39.min(questions - 1);
        let place = Place::new();
        let result = work(&place, StopAt::new(question));
        assert!(matches!(result, Err(Error::Cancelled)), "{what}, question {question}: {result:?}");
        assert!(place.left().is_empty(), "{what}, question {question}: {:?}", place.left());
    }
}

fn small() -> Pair {
    pair(11, 400_000)
}

fn gzip(content: Vec<u8>) -> Vec<u8> {
    let mut command = std::process::Command::new(tool("gzip").unwrap());
    run_fed(command.args(["-n", "-1"]), content, LIMIT).unwrap().stdout
}

fn diff_request(place: &Place, Pair { old, new }: &Pair) -> diff::Request {
    diff::Request {
        old: vec![place.put("old", old)],
        new: place.put("new", new),
        delta: place.out(),
        options: Options {
            stream: StreamOptions::level(1, 20),
            threads: NonZeroUsize::MIN,
            ..Options::default()
        },
        limits: compress::Limits::default(),
        verify: true,
    }
}

fn patch_request(place: &Place, delta: &[u8], old: &[u8]) -> patch::Request {
    patch::Request {
        delta: place.put("delta", delta),
        source: vec![place.put("old", old)],
        out: place.out(),
        expect: None,
        limits: Limits::default(),
        native_limits: native::Limits::default(),
        archive_limits: compress::Limits::default(),
        threads: NonZeroUsize::MIN,
    }
}

fn delta_of(pair: &Pair) -> Vec<u8> {
    let place = Place::new();
    let (request, context) = (diff_request(&place, pair), place.context(&coracle_codec::observe::Quiet));
    bounded("diff", move || diff::run(&request, &context)).unwrap();
    std::fs::read(place.out()).unwrap()
}

#[test]
fn diff_stops() {
    let plain = small();
    let packed = Pair { old: gzip(plain.old.clone()), new: gzip(plain.new.clone()) };
    for (what, pair) in [("diff", plain), ("diff of gzip", packed)] {
        stopped_everywhere(what, |place, observer| {
            let request = diff_request(place, &pair);
            let temp_dir = place.temp_dir();
            bounded(what, move || {
                let context = coracle_engine::Context { observer: &*observer, temp_dir };
                diff::run(&request, &context).map(drop)
            })
        });
    }
}

#[test]
fn patch_stops() {
    let pair = small();
    let delta = delta_of(&pair);
    for threads in [1, 2] {
        stopped_everywhere("patch", |place, observer| {
            let threads = NonZeroUsize::new(threads).unwrap();
            let request = patch::Request { threads, ..patch_request(place, &delta, &pair.old) };
            let temp_dir = place.temp_dir();
            bounded("patch", move || {
                let context = coracle_engine::Context { observer: &*observer, temp_dir };
                patch::run(&request, &context).map(drop)
            })
        });
    }
}

#[test]
fn explain_and_inspect_stop() {
    let pair = small();
    let delta = delta_of(&pair);
    stopped_everywhere("explain", |place, observer| {
        let request = explain::Request {
            source: vec![place.put("old", &pair.old)],
            new: place.put("new", &pair.new),
            delta: place.put("delta", &delta),
            limits: Limits::default(),
            native_limits: native::Limits::default(),
            archive_limits: compress::Limits::default(),
        };
        let temp_dir = place.temp_dir();
        bounded("explain", move || {
            let context = coracle_engine::Context { observer: &*observer, temp_dir };
            explain::run(&request, &context).map(drop)
        })
    });
    for (what, content) in [("inspect archive", &pair.old), ("inspect delta", &delta)] {
        stopped_everywhere(what, |place, observer| {
            let (path, temp_dir) = (place.put("x", content), place.temp_dir());
            bounded(what, move || {
                let context = coracle_engine::Context { observer: &*observer, temp_dir };
                inspect::run(
                    &path,
                    &Limits::default(),
                    &native::Limits::default(),
                    compress::Limits::default(),
                    &context,
                )
                .map(drop)
            })
        });
    }
}
