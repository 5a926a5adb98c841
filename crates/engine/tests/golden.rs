//! Upstream's deltas rebuild their tar from real trees and from archives; every hostile one is refused and leaves
//! nothing.

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_codec::tardiff::Limits;
use coracle_codec::{compress, native};
use coracle_engine::Error;
use coracle_engine::patch::{Rebuilt, Request, run};
use coracle_testkit::golden::{FailsAt, Golden};

use crate::place::{Place, bounded};

fn patch(
    place: &Place,
    what: &str,
    delta: &[u8],
    source: &[PathBuf],
    change: impl FnOnce(&mut Request),
) -> Result<Rebuilt, Error> {
    let mut request = Request {
        delta: place.put("delta", delta),
        source: source.to_vec(),
        out: place.out(),
        expect: None,
        limits: Limits::default(),
        native_limits: native::Limits::default(),
        archive_limits: compress::Limits::default(),
        threads: NonZeroUsize::MIN,
    };
    change(&mut request);
    let context = place.context(&Quiet);
    bounded(what, move || run(&request, &context))
}

fn digest(sha256: &str) -> Digest {
    format!("sha256:{sha256}").parse().unwrap()
}

#[test]
fn good_deltas_rebuild_their_tar_from_trees_and_from_archives() {
    let cases = Golden::built_in().tardiff_good().unwrap();
    assert!(cases.len() >= 33, "{}", cases.len());
    for case in cases {
        let place = Place::new();
        let tree = case.tree().unwrap();
        let olds = case.olds().unwrap();
        let archives = place.put_all("old", &olds);
        for (kind, source) in [("tree", vec![tree.path().to_path_buf()]), ("archives", archives)] {
            for threads in [1, 2] {
                let what = format!("{} from {kind}, {threads} threads", case.name);
                let want = digest(&case.new_tar().sha256);
                let rebuilt = patch(&place, &what, &case.delta().unwrap(), &source, |request| {
                    request.expect = Some(want);
                    request.threads = NonZeroUsize::new(threads).unwrap();
                })
                .unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!((rebuilt.digest, rebuilt.verified), (want, true), "{what}");
                let out = fs::read(place.out()).unwrap();
                assert_eq!(Digest::of(&out), want, "{what}");
                assert_eq!(out.len() as u64, rebuilt.applied.output(), "{what}");
                assert_eq!(place.left(), [place.out()], "{what}");
                fs::remove_file(place.out()).unwrap();
            }
        }
    }
}

/// What the error says about each bad delta: which operation, which file, which bound. Cases are named in full, or by
/// what their names begin with.
const MESSAGES: &[(&str, &str)] = &[
    ("add-before-open", "operation ADD without an open source file"),
    ("add-huge", "operation ADD of 4611686018427387904 bytes exceeds the limit of 104857600"),
    ("add-over-limit", "operation ADD of 104857601 bytes exceeds the limit of 104857600"),
    ("copy-2-63", "operation COPY with an impossible size at byte 5 of"),
    ("copy-amplification", "output exceeds the limit of 67108864 bytes"),
    ("copy-before-open", "operation COPY without an open source file"),
    ("copy-max", "operation COPY with an impossible size at byte 5 of"),
    ("corrupt-", "operation stream: corrupt zstd stream"),
    ("data-2-63", "operation DATA with an impossible size at byte 0 of"),
    ("data-bomb", "output exceeds the limit of 67108864 bytes"),
    ("fifo-source", "source file \"x/a\": not a regular file but a fifo"),
    ("junk-after-frame", "operation stream: corrupt zstd stream"),
    ("magic-empty-file", "delta is empty"),
    ("magic-not-zstd", "operation stream: corrupt zstd stream"),
    ("magic-only", "delta is empty"),
    ("magic-", "not a tar-diff delta"),
    ("op5-bad-checksum", "patch of source file \"x/b\": corrupt zstd stream"),
    ("op5-before-open", "operation ZSTDDICT without an open source file"),
    ("op5-bomb", "output exceeds the limit of 67108864 bytes"),
    ("op5-in-v1", "operation ZSTDDICT needs a version 2 delta"),
    ("op5-junk-after-frame", "patch of source file \"x/b\": corrupt zstd stream: bytes after the frame"),
    ("op5-not-a-frame", "patch of source file \"x/b\": corrupt zstd stream"),
    (
        "op5-stale-cursor",
        "source file \"x/a\" is too short: 30000 bytes wanted at offset 30000, it has 30000",
    ),
    ("op5-truncated-frame", "patch of source file \"x/b\": zstd stream ends unexpectedly"),
    ("op5-truncated-op", "delta ends inside operation ZSTDDICT at byte 34 of"),
    ("op5-two-frames", "patch of source file \"x/b\": corrupt zstd stream: bytes after the frame"),
    ("op5-window-2-30", "patch of source file \"x/b\": zstd window is larger than 536870912 bytes"),
    ("op5-wrong-dictionary", "patch of source file \"x/a\": corrupt zstd stream"),
    ("open-4097", "operation OPEN of 4097 bytes exceeds the limit of 4096"),
    ("open-huge", "operation OPEN of 9223372036854775807 bytes exceeds the limit of 4096"),
    ("outer-window-2-30", "operation stream: zstd window is larger than 536870912 bytes"),
    ("path-absolute", "unsafe or empty source path \"/x/a\""),
    ("path-directory", "source file \"x\": not a regular file but a directory"),
    ("path-dotdot-only", "unsafe or empty source path \"..\""),
    ("path-empty", "unsafe or empty source path \"\""),
    ("path-missing", "source file \"x/nope\": not found"),
    ("path-nul", "unsafe or empty source path \"x/a\\x00.txt\""),
    ("path-root", "unsafe or empty source path \"/\""),
    ("path-traversal", "unsafe or empty source path \"../../x/a\""),
    ("path-traversal-inner", "unsafe or empty source path \"x/../../x/a\""),
    ("seek-2-63", "operation SEEK with an impossible size at byte 5 of"),
    ("seek-before-open", "operation SEEK without an open source file"),
    ("short-source-add", "source file \"x/a\" is too short: 2 bytes wanted at offset 19999, it has 20000"),
    ("short-source-copy", "source file \"x/a\" is too short: 20001 bytes wanted at offset 0, it has 20000"),
    ("short-source-seek", "source file \"x/a\" is too short: 1 bytes wanted at offset 20001, it has 20000"),
    ("stale-source", "result has digest sha256:"),
    ("symlink-escape-", "source file \"x/a\": not found"),
    ("trunc-add", "delta ends inside operation ADD at byte 10 of"),
    ("trunc-block", "operation stream: zstd stream ends unexpectedly"),
    ("trunc-checksum", "operation stream: zstd stream ends unexpectedly"),
    ("trunc-data", "delta ends inside operation DATA at byte 5 of"),
    ("trunc-frame-header", "operation stream: zstd stream ends unexpectedly"),
    ("trunc-op-no-size", "delta ends inside operation DATA at byte 6 of"),
    ("trunc-open", "delta ends inside operation OPEN at byte 5 of"),
    ("trunc-varint", "delta ends inside operation DATA at byte 3 of"),
    ("unknown-op-255", "unknown operation 255 at byte 0 of"),
    ("unknown-op-6", "unknown operation 6 at byte 5 of"),
    ("varint-", "operation DATA with an impossible size at byte 0 of"),
    ("wrong-source-content", "result has digest sha256:"),
];

#[test]
fn bad_deltas_are_refused_and_leave_nothing() {
    let cases = Golden::built_in().tardiff_bad().unwrap();
    assert!(cases.len() >= 66, "{}", cases.len());
    for case in &cases {
        // The longest beginning of the name is the nearest.
        let (_, message) = MESSAGES
            .iter()
            .filter(|(start, _)| case.name.starts_with(start))
            .max_by_key(|(start, _)| start.len())
            .unwrap_or_else(|| panic!("{} has no message yet", case.name));
        for threads in [1, 2] {
            let what = format!("{}, {threads} threads", case.name);
            let place = Place::new();
            let tree = case.tree().unwrap();
            let expected = case.expected_digest().map(|fact| digest(&fact.sha256));
            let delta = case.delta().unwrap();
            let result = patch(&place, &what, &delta, &[tree.source_root()], |request| {
                request.threads = NonZeroUsize::new(threads).unwrap();
                request.expect = expected;
                if let Some(max) = case.limits().max_output {
                    request.limits.max_output = max;
                }
            });
            let error = match result {
                Ok(_) => panic!("{what} was accepted: {}", case.expect_error()),
                Err(error) => error,
            };
            let text = error.to_string();
            assert!(text.contains(message), "{what}: {text}");
            assert!(!text.contains('\n'), "{what}: {text}");
            match (case.fails_at(), &error) {
                (FailsAt::Digest, Error::Digest { expected: wanted, .. }) => {
                    assert_eq!(Some(*wanted), expected, "{what}");
                }
                (FailsAt::Digest, other) => panic!("{what}: {other:?}"),
                (_, Error::Delta { path, .. }) => assert!(path.ends_with("in/delta"), "{what}: {path:?}"),
                (_, other) => panic!("{what}: {other:?}"),
            }
            assert!(place.left().is_empty(), "{what}: {:?}", place.left());
        }
    }
}

/// The same without an expected digest: what then succeeds is not called verified.
#[test]
fn without_an_expected_digest_nothing_is_called_verified() {
    for case in Golden::built_in().tardiff_bad().unwrap() {
        if case.fails_at() == FailsAt::Digest {
            let place = Place::new();
            let tree = case.tree().unwrap();
            let delta = case.delta().unwrap();
            let rebuilt = patch(&place, &case.name, &delta, &[tree.source_root()], |_| {}).unwrap();
            assert!(!rebuilt.verified, "{}", case.name);
            assert_ne!(
                Some(rebuilt.digest),
                case.expected_digest().map(|f| digest(&f.sha256)),
                "{}",
                case.name
            );
        }
    }
}
