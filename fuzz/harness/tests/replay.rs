//! Every stored input of every fuzz target, on stable Rust and without libFuzzer.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use coracle_fuzz_harness::{TARGETS, Target};

/// For one input. The slowest takes a small part of a second; a reader that hangs never ends.
const PATIENCE: Duration = Duration::from_secs(30);
const MIN_INPUTS: usize = 20;
/// What a corpus may grow to: files, bytes of all, bytes of one.
const MAX_CORPUS: (usize, u64, u64) = (300, 1_500_000, 64 << 10);

#[test]
fn stored_inputs_pass() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let corpus = files(&folder("corpus").join(name));
        assert!(corpus.len() >= MIN_INPUTS, "{name}: only {} inputs", corpus.len());
        let inputs = [corpus, files(&folder("regressions").join(name))].concat();
        failed.extend(replay(inputs, target));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn corpora_stay_small() {
    let (max_files, max_bytes, max_len) = MAX_CORPUS;
    for (name, _) in TARGETS {
        let sizes: Vec<u64> =
            files(&folder("corpus").join(name)).iter().map(|f| fs::metadata(f).unwrap().len()).collect();
        assert!(sizes.len() <= max_files, "{name}: {} files", sizes.len());
        assert!(sizes.iter().sum::<u64>() <= max_bytes, "{name}: {} bytes", sizes.iter().sum::<u64>());
        assert!(sizes.iter().all(|&len| len <= max_len), "{name}: a file of {:?}", sizes.iter().max());
    }
}

/// A folder with another name would never be replayed.
#[test]
fn every_folder_belongs_to_a_target() {
    for kind in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(folder(kind)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                let name = entry.file_name();
                assert!(TARGETS.iter().any(|(target, _)| name == *target), "{kind}/{}", name.display());
            }
        }
    }
}

fn folder(kind: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", kind].iter().collect()
}

/// The files of a folder by name; none if there is no such folder. Descriptions (`*.md`) are not inputs.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|f| f.is_file() && f.extension().is_none_or(|e| e != "md"));
    files.sort();
    files
}

/// Runs a target on files, on a thread of its own, so that one that hangs can be told. Gives the files that failed.
fn replay(inputs: Vec<PathBuf>, target: Target) -> Vec<PathBuf> {
    let (results, seen) = channel();
    let todo = inputs.clone();
    let worker = std::thread::spawn(move || {
        for file in todo {
            let data = fs::read(&file).unwrap();
            let good = catch_unwind(|| target(&data)).is_ok();
            if results.send(good).is_err() {
                return;
            }
        }
    });
    let mut failed = Vec::new();
    for file in inputs {
        match seen.recv_timeout(PATIENCE) {
            Ok(true) => {}
            Ok(false) => failed.push(file),
            Err(RecvTimeoutError::Timeout) => panic!("{}: no end after {PATIENCE:?}", file.display()),
            Err(RecvTimeoutError::Disconnected) => panic!("{}: cannot be read", file.display()),
        }
    }
    worker.join().unwrap();
    failed
}
