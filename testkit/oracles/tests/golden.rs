//! The crate `oci-delta` on our golden deltas: it confirms them, or the exception is written down here.

use coracle_oracles::oci_delta_apply;
use coracle_testkit::golden::{Fact, Golden};

/// Good deltas that the crate (0.1.1) cannot read, with part of its message.
const EXCEPTIONS: [(&str, &str); 3] = [
    // The paths it opens are `&str`.
    ("non-utf8-path", "Invalid UTF-8 in tar-diff filename"),
    // The outer stream is decoded with libzstd's default bound of 2^27; only op 5 may go up to 2^29.
    ("outer-window-2-29", "Frame requires too much memory for decoding"),
    // An op 5 of 0 bytes is taken for a frame that was cut off; tar-patch reads it as no operation.
    ("zero-size-ops", "incomplete frame"),
];

#[test]
fn good_deltas_rebuild_their_tar() {
    for case in Golden::built_in().tardiff_good().unwrap() {
        let tree = case.tree().unwrap();
        let result = oci_delta_apply(&case.delta().unwrap(), tree.path());
        let exception = EXCEPTIONS.iter().find(|(name, _)| *name == case.name);
        match (result, exception) {
            (Ok(out), None) => assert_eq!(Fact::of(&out), *case.new_tar(), "{}", case.name),
            (Err(error), Some((_, text))) => assert!(error.contains(text), "{}: {error}", case.name),
            (Ok(_), Some(_)) => panic!("{} is no exception any more", case.name),
            (Err(error), None) => panic!("{}: {error}", case.name),
        }
    }
}
