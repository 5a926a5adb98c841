//! Inputs that somebody changes while a delta is made of them.

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;

use coracle_codec::compress;
use coracle_codec::observe::{Observer, Stage};
use coracle_codec::tardiff::{Options, StreamOptions};
use coracle_engine::{Context, Error, diff};
use coracle_testkit::image::text;
use coracle_testkit::tar_builder::TarBuilder;

use crate::place::{Place, bounded};

/// Changes a byte of a file as soon as matching is over.
struct Meddler {
    file: PathBuf,
    at: u64,
    stages: Mutex<Vec<Stage>>,
}

impl Observer for Meddler {
    fn progress(&self, stage: Stage, done: u64, total: u64) {
        let mut stages = self.stages.lock().unwrap();
        if stages.last() != Some(&stage) {
            stages.push(stage);
        }
        if stage == Stage::Diff && done == total {
            fs::File::options().write(true).open(&self.file).unwrap().write_all_at(b"\0", self.at).unwrap();
        }
    }
}

#[test]
fn a_delta_that_does_not_work_is_not_published() {
    let old = TarBuilder::new().file("a", text(1, 9000)).finish();
    let new = TarBuilder::new().file("b", text(1, 9000)).file("c", text(2, 100)).finish();
    for verify in [true, false] {
        let place = Place::new();
        let request = diff::Request {
            old: vec![place.put("old", &old)],
            new: place.put("new", &new),
            delta: place.out(),
            options: Options {
                stream: StreamOptions::level(1, 20),
                threads: NonZeroUsize::MIN,
                ..Options::default()
            },
            limits: compress::Limits::default(),
            verify,
        };
        let meddler = Meddler { file: request.old[0].clone(), at: 5000, stages: Mutex::default() };
        let temp_dir = place.temp_dir();
        let (result, stages) = bounded("diff", move || {
            let result = diff::run(&request, &Context { observer: &meddler, temp_dir });
            (result, meddler.stages.into_inner().unwrap())
        });
        assert!(stages.contains(&Stage::Diff), "{stages:?}");
        if verify {
            assert!(stages.contains(&Stage::Verify), "{stages:?}");
            match result {
                Err(Error::SelfCheck(text)) => assert!(text.contains("the delta gives sha256:"), "{text}"),
                other => panic!("{other:?}"),
            }
            assert!(place.left().is_empty(), "{:?}", place.left());
        } else {
            assert!(!result.unwrap().verified);
            assert_eq!(place.left(), [place.out()]);
        }
    }
}
