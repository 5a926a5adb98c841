//! The command `hot-loops`: runs one of the loops that take most of Coracle's time, on input made from a seed, so that
//! its instructions can be counted (`bench/instructions`).
//!
//! `hot-loops` alone prints the names of the loops; `hot-loops NAME 0` prepares the input of one and ends, `hot-loops
//! NAME 1` runs it as well. The difference between the two is the loop. What is counted does not hash with sha256 or
//! BLAKE3, which choose their code by what the processor can do; `native-apply` alone does, since the format asks for it.

use std::hint::black_box;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::process::ExitCode;

use coracle_codec::delta::Effort;
use coracle_codec::matching::approx::{self, Part, Prices, Search};
use coracle_codec::matching::block::BlockFinder;
use coracle_codec::matching::sample::{SampleIndex, Sampler, density};
use coracle_codec::matching::suffix::SuffixFinder;
use coracle_codec::matching::{Finder, sample};
use coracle_codec::native::entropy::{self, Method};
use coracle_codec::observe::Quiet;
use coracle_codec::source::TarSource;
use coracle_codec::{native, tar, tardiff};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::pair::{Pair, pair};

/// Prepares the input of a loop; what it returns runs the loop and says what came out, so that nothing is left out.
type Prepare = fn() -> Box<dyn FnOnce() -> u64>;

/// Seed of all inputs.
const SEED: u64 = 20_261_122;

const LOOPS: [(&str, Prepare); 9] = [
    ("tar-read", tar_read),
    ("match-suffixes", match_suffixes),
    ("match-blocks", match_blocks),
    ("match-moved", match_moved),
    ("likeness", likeness),
    ("tardiff-apply", tardiff_apply),
    ("native-apply", native_apply),
    ("mixing-decode", mixing_decode),
    ("mixing-encode", mixing_encode),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut out = io::stdout().lock();
    let written = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => LOOPS.iter().try_for_each(|(name, _)| writeln!(out, "{name}")),
        [name, times @ ("0" | "1")] => match LOOPS.iter().find(|(n, _)| *n == name) {
            Some((_, prepare)) => {
                let run = prepare();
                let came_out = if times == "1" { run() } else { 0 };
                writeln!(out, "{came_out}")
            }
            None => return usage(),
        },
        _ => return usage(),
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    // Nobody to tell if this fails, too.
    let _ = writeln!(io::stderr(), "usage: hot-loops [NAME 0|1]");
    ExitCode::from(2)
}

/// Headers of 20,000 small members.
fn tar_read() -> Box<dyn FnOnce() -> u64> {
    let mut archive = Vec::new();
    for i in 0..20_000u64 {
        let name = format!("usr/share/doc/package-{}/file-{i}", i / 20);
        let size = i % 700;
        archive.extend(tar::write::Member::file(&name, size).header());
        archive.resize(archive.len() + (size as usize).next_multiple_of(512), b'x');
    }
    archive.resize(archive.len() + 1024, 0);
    Box::new(move || {
        let mut reader = tar::Reader::new(&archive[..], tar::Limits::default());
        let mut sum = 0;
        while let Some(entry) = reader.next_entry().unwrap_or_else(|e| unreachable!("own archive: {e}")) {
            sum += entry.content_len;
        }
        sum
    })
}

/// A program, and the same with edits at 1,500 places.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let old = binary(SEED, 1_500_000);
    let new = mutate(&old, SEED, 1500);
    (old, new)
}

fn covered(finder: &dyn Finder, new: &[u8]) -> u64 {
    let parts = [Part { end: finder.text().len(), file: 0 }];
    let search = Search { stride: 1, prices: Prices::default(), literal: &|_| 160 };
    approx::matches(finder, &parts, new, search).iter().map(|m| m.len as u64).sum()
}

/// Suffix array and matching, as effort 5 does it.
fn match_suffixes() -> Box<dyn FnOnce() -> u64> {
    let (old, new) = versions();
    Box::new(move || covered(&SuffixFinder::new(&old), &new))
}

/// Table of blocks and matching, as effort 1 does it.
fn match_blocks() -> Box<dyn FnOnce() -> u64> {
    let (old, new) = versions();
    Box::new(move || covered(&BlockFinder::new(&old, 32), &new))
}

/// The same where nearly nothing is found: what most of the time of effort 1 went to.
fn match_moved() -> Box<dyn FnOnce() -> u64> {
    let (old, new) = (binary(SEED, 2_000_000), binary(SEED + 1, 2_000_000));
    Box::new(move || covered(&BlockFinder::new(&old, 32), &new))
}

/// Samples of 40 files, and the choice of the old files for each of 40 new ones.
fn likeness() -> Box<dyn FnOnce() -> u64> {
    let old: Vec<Vec<u8>> = (0..40).map(|i| binary(SEED + i, 100_000)).collect();
    let new: Vec<Vec<u8>> = old.iter().map(|o| mutate(o, SEED, 60)).collect();
    Box::new(move || {
        let density = density(old.iter().map(|o| o.len() as u64).sum());
        let samples = old.iter().enumerate().flat_map(|(i, content)| -> Vec<sample::Sample> {
            let mut sampler = Sampler::new(i as u32, density);
            sampler.update(content);
            sampler.finish()
        });
        let index = SampleIndex::new(samples.collect(), density);
        new.iter().map(|n| index.cover(n, None, 4, |all| all / 20).0.len() as u64).sum()
    })
}

fn tardiff_apply() -> Box<dyn FnOnce() -> u64> {
    let Pair { old, new } = pair(SEED, 4 << 20);
    let options = tardiff::Options::at(Effort::new(1).unwrap_or_default());
    let mut delta = Vec::new();
    tardiff::diff(&[&old], &new, &mut delta, &options, &Quiet)
        .unwrap_or_else(|e| unreachable!("own archives: {e}"));
    Box::new(move || {
        let source = TarSource::new(vec![&old], tar::Limits::default(), &Quiet)
            .unwrap_or_else(|e| unreachable!("own archive: {e}"));
        let limits = tardiff::Limits::default();
        tardiff::apply(&delta[..], &source, &mut io::sink(), &limits, &Quiet)
            .unwrap_or_else(|e| unreachable!("own delta: {e}"))
            .output
    })
}

/// With the hashing of sources and target, which is a small part of it.
fn native_apply() -> Box<dyn FnOnce() -> u64> {
    let Pair { old, new } = pair(SEED, 1 << 20);
    let mut delta = Vec::new();
    native::diff(&[&old], &new, &mut delta, &native::Options::default(), &Quiet)
        .unwrap_or_else(|e| unreachable!("own archives: {e}"));
    Box::new(move || {
        let limits = native::Limits::default();
        let sources = native::Sources::Archives(&[&old]);
        native::apply(&delta[..], sources, &mut io::sink(), &limits, NonZeroUsize::MIN, &Quiet)
            .unwrap_or_else(|e| unreachable!("own delta: {e}"))
            .output
    })
}

/// A stream like those that the model gets: half words, half code.
fn stream() -> Vec<u8> {
    [text(SEED, 60_000), binary(SEED, 60_000)].concat()
}

fn mixing_decode() -> Box<dyn FnOnce() -> u64> {
    let stream = stream();
    let encoded = entropy::encode(Method::Mixing, &stream, 0);
    Box::new(move || {
        let decoded = entropy::decode(Method::Mixing, &encoded, stream.len());
        black_box(decoded.unwrap_or_else(|e| unreachable!("own stream: {e}"))).len() as u64
    })
}

fn mixing_encode() -> Box<dyn FnOnce() -> u64> {
    let stream = stream();
    Box::new(move || black_box(entropy::encode(Method::Mixing, &stream, 0)).len() as u64)
}
