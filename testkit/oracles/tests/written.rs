//! The crate `oci-delta`, which bootc uses, applies what our writer writes.

use std::time::Duration;

use coracle_codec::ReadAt;
use coracle_codec::observe::Quiet;
use coracle_codec::tardiff::{Method, OpCounts, Options, StreamOptions, Version, diff};
use coracle_oracles::oci_delta_apply;
use coracle_testkit::image::{Rng, binary, mutate, text};
use coracle_testkit::oracle::bounded;
use coracle_testkit::pair::{Pair, pair};
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::tree::extract_layers;

/// Cheap compression: what counts here is which operations there are.
fn options() -> Options {
    Options { stream: StreamOptions::level(1, 23), ..Options::default() }
}

/// More than any delta here needs.
const LIMIT: Duration = Duration::from_secs(300);

/// Makes a delta and has the crate apply it to the extracted tree.
fn check(what: &str, old: &[Vec<u8>], new: &[u8], options: &Options) -> OpCounts {
    let (name, old, new, options) = (what.to_owned(), old.to_vec(), new.to_vec(), options.clone());
    bounded(what, LIMIT, move || check_now(&name, &old, &new, &options))
}

fn check_now(what: &str, old: &[Vec<u8>], new: &Vec<u8>, options: &Options) -> OpCounts {
    let layers: Vec<&dyn ReadAt> = old.iter().map(|layer| layer as &dyn ReadAt).collect();
    let mut delta = Vec::new();
    let report = diff(&layers, new, &mut delta, options, &Quiet).unwrap_or_else(|e| panic!("{what}: {e}"));
    let tree = extract_layers(old, options.apply_whiteouts).unwrap();
    let result = oci_delta_apply(&delta, tree.path()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(result == *new, "{what}: another result");
    report.ops
}

/// All that our commands can ask for, by both names.
const METHODS: [(Version, Method); 5] = [
    (Version::V1, Method::Bsdiff),
    (Version::V2, Method::Bsdiff),
    (Version::V2, Method::Zstd),
    (Version::V2, Method::ZstdThenBsdiff),
    (Version::V2, Method::Smallest),
];

#[test]
fn every_method() {
    for seed in 0..3 {
        let Pair { old, new } = pair(seed, 400_000 << seed);
        for (version, method) in METHODS {
            let what = format!("pair {seed}, {version:?} {method:?}");
            let ops =
                check(&what, std::slice::from_ref(&old), &new, &Options { version, method, ..options() });
            let frames = ops.zstd_dict.ops > 0;
            match method {
                Method::Bsdiff => assert!(!frames && ops.add.ops > 0, "{what}: {ops:?}"),
                Method::Zstd | Method::ZstdThenBsdiff => assert!(frames, "{what}: {ops:?}"),
                Method::Smallest => {}
            }
        }
    }
}

#[test]
fn the_options_of_the_commands() {
    let Pair { old, new } = pair(10, 2_000_000);
    let old = [old];
    for (what, options) in [
        ("coracle diff", Options::default()),
        (
            "coracle diff --format v2",
            Options { version: Version::V2, method: Method::Smallest, ..Options::default() },
        ),
        ("window of 1 KiB", Options { stream: StreamOptions::level(3, 10), ..options() }),
        // The largest that the crate takes.
        ("window of 128 MiB", Options { stream: StreamOptions::level(3, 27), ..options() }),
        ("rolling hash", Options { max_suffix_size: 1000, ..options() }),
        ("pieces", Options { memory: 1 << 20, ..options() }),
        (
            "window of frames",
            Options { version: Version::V2, method: Method::Zstd, patch_window_log: Some(29), ..options() },
        ),
        (
            "small window of frames",
            Options { version: Version::V2, method: Method::Zstd, patch_window_log: Some(12), ..options() },
        ),
    ] {
        check(what, &old, &new, &options);
    }
}

#[test]
fn layers_with_whiteouts() {
    let program = binary(1, 200_000);
    let old = [
        TarBuilder::new().file("a", text(1, 9000)).file("d/b", text(2, 9000)).file("p", &program).finish(),
        TarBuilder::new().file(".wh.a", "").file("d/.wh..wh..opq", "").file("d/c", text(3, 9000)).finish(),
        TarBuilder::new().file("p", mutate(&program, 1, 30)).hardlink("h", "p").finish(),
    ];
    let new = TarBuilder::new()
        .file("1", text(1, 9000))
        .file("2", text(2, 9000))
        .file("3", text(3, 9000))
        .file("p", mutate(&program, 2, 30))
        .finish();
    for (version, method) in METHODS {
        for apply_whiteouts in [true, false] {
            let options = Options { version, method, apply_whiteouts, ..options() };
            check(&format!("{version:?} {method:?} {apply_whiteouts}"), &old, &new, &options);
        }
    }
}

#[test]
fn archives_at_their_ends() {
    let some = TarBuilder::new().file("a", text(1, 3000)).finish();
    let none = TarBuilder::new().finish();
    let cut = some[..some.len() - 1024].to_vec();
    let odd = TarBuilder::new().file("a", Rng::new(1).bytes(3000)).finish_with(b"behind the end");
    for (version, method) in METHODS {
        for (what, old, new) in [
            ("empty files", &vec![], &vec![]),
            ("from nothing", &vec![], &some),
            ("to nothing", &some, &vec![]),
            ("no members", &none, &none),
            ("the same", &some, &some),
            ("no trailer", &some, &cut),
            ("bytes behind the end", &some, &odd),
        ] {
            let options = Options { version, method, ..options() };
            check(&format!("{what}, {version:?} {method:?}"), std::slice::from_ref(old), new, &options);
        }
    }
}
