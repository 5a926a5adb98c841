//! Writes the seeds of all fuzz targets: what the golden data holds, as far as it is small, and streams made by hand.
//!
//! `cargo run -p coracle-fuzz-harness --example seeds [-- FOLDER]`; the default is `fuzz/corpus`. Files are called
//! `seed-...`; minimising a corpus gives them other names.

mod artifacts;
mod chunked;
mod deltas;
mod documents;
mod native;
mod predict;
mod programs;
mod rpm;
mod rsync;
mod store;
mod streams;
mod tars;
mod trust;
mod xz;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

/// Larger seeds only slow a fuzzer down.
const MAX_LEN: usize = 64 << 10;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Inputs of one target by name.
type Seeds = BTreeMap<String, Vec<u8>>;

fn main() -> Outcome {
    let corpus = std::env::args_os().nth(1).map(PathBuf::from);
    let corpus = corpus.unwrap_or_else(|| [env!("CARGO_MANIFEST_DIR"), "..", "corpus"].iter().collect());
    let deltas = deltas::seeds()?;
    for (target, seeds) in [
        ("tar_read", tars::seeds()?),
        ("compress_detect", streams::seeds()?),
        ("chunked_parse", chunked::seeds()?),
        ("chunked_predict", predict::seeds()?),
        ("oci_parse", documents::seeds()?),
        ("artifact_parse", artifacts::seeds()?),
        ("rpm_database", rpm::seeds()?),
        ("rsync", rsync::seeds()?),
        ("tardiff_parse", deltas.clone()),
        ("tardiff_apply", deltas),
        ("native_head", native::heads()?),
        ("native_apply", native::deltas()?),
        ("native_entropy", native::streams()),
        ("native_members", native::members()),
        ("store_layer", store::seeds()?),
        ("native_references", programs::files()),
        ("native_program", programs::parts()),
        ("trust", trust::seeds()?),
        ("native_tokens", native::tokens()?),
    ] {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds.iter().filter(|(_, bytes)| bytes.len() <= MAX_LEN) {
            std::fs::write(folder.join(format!("seed-{name}")), bytes)?;
        }
    }
    Ok(())
}
