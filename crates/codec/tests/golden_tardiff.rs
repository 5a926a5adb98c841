//! Upstream's deltas apply with our reader, and every hostile one is refused.

use std::io;

use coracle_codec::digest::Hashing;
use coracle_codec::observe::Quiet;
use coracle_codec::source::TarSource;
use coracle_codec::tardiff::{Limits, OpReader, apply};
use coracle_codec::{ReadAt, tar};
use coracle_testkit::golden::{FailsAt, Golden};

use crate::sources::Files;

#[test]
fn good_deltas_apply_from_trees_and_from_archives() {
    let cases = Golden::built_in().tardiff_good().unwrap();
    assert!(cases.len() >= 33, "{}", cases.len());
    for case in cases {
        let name = &case.name;
        let delta = case.delta().unwrap();
        let tree = Files(coracle_testkit::tree::files(case.tree().unwrap().path()).unwrap());
        let olds = case.olds().unwrap();
        let layers: Vec<&dyn ReadAt> = olds.iter().map(|o| o as &dyn ReadAt).collect();
        let tars = TarSource::new(layers, tar::Limits::default(), &Quiet).unwrap();
        for (kind, source) in [("tree", &tree as &dyn coracle_codec::source::Source), ("tars", &tars)] {
            let mut out = Hashing::new(io::sink());
            let done = apply(delta.as_slice(), source, &mut out, &Limits::default(), &Quiet)
                .unwrap_or_else(|e| panic!("{name} from {kind}: {e}"));
            let (_, digest, size) = out.finish();
            assert_eq!(digest.to_string(), format!("sha256:{}", case.new_tar().sha256), "{name} from {kind}");
            assert_eq!(size, case.new_tar().size, "{name} from {kind}");
            assert_eq!(done.output, size);
            assert_eq!(u32::from(done.version.number()), case.version(), "{name}");
            for (op, count) in done.ops.rows() {
                let want = case.ops().get(op);
                assert_eq!(count.ops, want.map_or(0, |w| w.ops), "{name}: {op}");
                // The cases count no bytes for paths.
                if op != "OPEN" {
                    assert_eq!(count.bytes, want.map_or(0, |w| w.sum), "{name}: bytes of {op}");
                }
            }
        }
    }
}

#[test]
fn bad_deltas_are_refused() {
    let cases = Golden::built_in().tardiff_bad().unwrap();
    assert!(cases.len() >= 66, "{}", cases.len());
    for case in cases {
        let name = &case.name;
        let tree = case.tree().unwrap();
        // Links, FIFOs and the like are the engine's tests; here they are not even there.
        let source = Files(coracle_testkit::tree::files(&tree.source_root()).unwrap());
        let limits = Limits { max_output: case.limits().max_output.unwrap_or(1 << 30), ..Limits::default() };
        let mut out = Hashing::new(io::sink());
        let result = apply(case.delta().unwrap().as_slice(), &source, &mut out, &limits, &Quiet);
        let (_, digest, size) = out.finish();
        assert!(size <= limits.max_output, "{name}: {size} bytes of output");
        let expected = case.expected_digest().map(|f| format!("sha256:{}", f.sha256));
        match (case.fails_at(), &result) {
            (FailsAt::Digest, Ok(_)) => assert_ne!(Some(digest.to_string()), expected, "{name}"),
            (FailsAt::ApplyOrDigest, Ok(_)) => assert_ne!(Some(digest.to_string()), expected, "{name}"),
            (FailsAt::Digest, Err(e)) => panic!("{name}: {e}"),
            (_, Ok(_)) => panic!("{name} was accepted: {}", case.expect_error()),
            (_, Err(_)) => {}
        }
    }
}

#[test]
fn the_magic_comes_first() {
    for (bytes, want) in [
        (&b""[..], "delta is empty: no operation stream"),
        (b"tardf1", "not a tar-diff delta"),
        (b"tardf9\n\0", "not a tar-diff delta"),
    ] {
        assert_eq!(OpReader::new(bytes, Limits::default()).unwrap_err().to_string(), want);
    }
}
