//! Seeds of `oci_parse`.

use coracle_testkit::golden::Golden;

use crate::{Outcome, Seeds};

/// Names and platforms of every form.
const NAMES: [&str; 8] = [
    "alpine",
    "quay.io/fedora/fedora:41",
    "localhost:5000/a/b_c/d-e.f:1.0_x-Y",
    "[::1]:5000/x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "docker.io/library/x:t@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "linux/amd64",
    "linux/arm/v7",
    "windows/x86_64",
];

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    for case in Golden::built_in().cases::<serde_json::Value>("oci")? {
        seeds.insert(format!("golden-{}", case.name), case.read("in.json")?);
    }
    for (i, name) in NAMES.into_iter().enumerate() {
        seeds.insert(format!("name-{i}"), name.into());
    }
    Ok(seeds)
}
