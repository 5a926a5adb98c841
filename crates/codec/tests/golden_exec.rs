//! The stored native deltas of executables, like those of `golden_native`.

use std::fs;

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::exec::{self, references};
use coracle_codec::native::{Base, Options, apply, diff};
use coracle_codec::observe::Quiet;
use coracle_testkit::image::{binary, mutate};
use coracle_testkit::native as second;
use coracle_testkit::program::{Machine, Program};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::json;

use crate::golden_native::{all_made, all_refused, run, store};
use crate::golden_packed::delta_of;

const SET: &str = "native-exec";
const NAMES: [&str; 2] = ["exec-aarch64-1", "exec-x86_64-1"];
const MACHINES: [(&str, Machine, u32); 2] =
    [("x86_64", Machine::X86_64, 62), ("aarch64", Machine::Aarch64, 183)];

fn program(machine: Machine, kind: u16) -> Program {
    Program { machine, kind, functions: (0..50).collect(), data: 900 }
}

fn old() -> Vec<u8> {
    let mut tar = TarBuilder::new();
    for (name, machine, _) in MACHINES {
        for kind in 1..=3 {
            tar.file(format!("bin/{name}-{kind}"), program(machine, kind).build());
        }
    }
    tar.file("data", binary(3, 5000)).finish()
}

/// New functions, others gone, in another order, further away.
fn changed(machine: Machine, kind: u16) -> Program {
    let mut functions: Vec<u32> = (0..20).chain([77]).chain(24..50).chain([20, 21, 88]).collect();
    functions.swap(3, 30);
    Program { functions, data: 1300, ..program(machine, kind) }
}

fn targets() -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for (name, machine, _) in MACHINES {
        let mut tar = TarBuilder::new();
        for kind in 1..=3 {
            tar.file(format!("bin/{name}-{kind}"), changed(machine, kind).build());
        }
        out.push((format!("{name}-moved"), tar.finish()));
        let mut tar = TarBuilder::new();
        let two = [&mutate(&program(machine, 3).build(), 4, 40)[..], &binary(3, 5000)].concat();
        tar.file(format!("bin/{name}-3"), two).file("data", changed(machine, 2).build());
        out.push((format!("{name}-mutated"), tar.finish()));
    }
    out
}

#[test]
fn good_vectors_give_their_targets_in_both_decoders() {
    let archive = old();
    for (name, target) in targets() {
        for (kind, base) in
            [("archives", Base::Archives), ("tree", Base::Tree { apply_whiteouts: false, any_mode: true })]
        {
            let mut delta = Vec::new();
            let archives: [&dyn ReadAt; 1] = [&archive];
            let options = Options { base, ..Options::default() };
            let report = diff(&archives, &target, &mut delta, &options, &Quiet).unwrap();
            assert!(report.head.encoders.len() == 1 || name.ends_with("-mutated"), "{name}");
            let case = json!({ "size": target.len(), "digest": Digest::of(&target).to_string() });
            store(SET, "good", &format!("{name}-{kind}"), &archive, &delta, &case);
        }
    }
    all_made(SET, 8);
}

#[test]
fn both_decoders_find_the_same_references() {
    for (_, machine, number) in MACHINES {
        let of = if number == 62 { exec::Machine::X86_64 } else { exec::Machine::Aarch64 };
        let mut kinds = std::collections::BTreeSet::new();
        for kind in 1..=3 {
            let file = changed(machine, kind).build();
            let found = references(&file, of);
            assert_eq!(found, second::references(&file, number));
            kinds.extend(found.iter().map(|r| r.1));
            for seed in 0..40 {
                let file = mutate(&file, seed, 30);
                assert_eq!(references(&file, of), second::references(&file, number), "seed {seed}");
            }
        }
        let missing: Vec<u8> = (0..21).filter(|k| !kinds.contains(k)).collect();
        let others: &[u8] = if number == 62 { &[15, 16, 17, 18, 19, 20] } else { &[0, 1, 2, 3, 4] };
        assert_eq!(missing, others, "kinds that no program here has");
    }
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    let own = &own[..own.len().min(3 << 20)];
    if let Some(machine) = exec::Machine::of(own) {
        let number = if machine == exec::Machine::X86_64 { 62 } else { 183 };
        assert!(references(own, machine) == second::references(own, number));
    }
}

/// Bytes of a delta, with programs coded as such or as bytes; it is applied.
fn size(old: &dyn ReadAt, new: &[u8], programs: bool) -> usize {
    let mut delta = Vec::new();
    let mut options = Options::default();
    options.parts.programs = programs;
    diff(&[old], &new.to_vec(), &mut delta, &options, &Quiet).unwrap();
    assert!(run(&delta, old).unwrap() == new);
    delta.len()
}

/// Programs cost a fraction of what they cost as bytes.
#[test]
fn references_that_moved_cost_little() {
    let archive = old();
    for (name, target) in targets().into_iter().filter(|t| t.0.ends_with("moved")) {
        let (with, without) = (size(&archive, &target, true), size(&archive, &target, false));
        assert!(with < without, "{name}: {with} and {without}");
    }
}

/// Edits that no linker makes: references stay where they were, so what is predicted for them is wrong.
#[test]
fn programs_whose_references_did_not_follow_cost_no_more_than_bytes() {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    // More than what is matched as bytes in any case, with code in it.
    let own = &own[..own.len().min(6 << 20)];
    let tar = |content: &[u8]| TarBuilder::new().file("bin/program", content).finish();
    let (old, new) = (tar(own), tar(&mutate(own, 7, 100)));
    let (with, without) = (size(&old, &new, true), size(&old, &new, false));
    assert!(with <= without + 40, "{with} and {without}");
}

/// A delta of one part of `target` with streams by number; those of no bytes are left out.
fn delta(encoders: &[&str], memory: u64, target: &[u8], streams: &[(u8, &[u8])]) -> Vec<u8> {
    let streams: Vec<_> = streams.iter().copied().filter(|s| !s.1.is_empty()).collect();
    delta_of(&old(), encoders, memory, target, &streams)
}

fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    const MEMORY: u64 = 4 << 20;
    // A part that copies 40 bytes from the start of the first program.
    let part = |transform: u8, view: &[u8], packed: &[u8]| {
        [&[2, transform, 40, 0, 1, 0][..], view, &[0], packed].concat()
    };
    let target = &program(Machine::X86_64, 1).build()[..40];
    let with = |names: &[&str], memory, plan: &[u8], address: u8, references: &[u8]| {
        delta(names, memory, target, &[(0, plan), (3, &[0]), (4, &[40]), (5, &[address]), (11, references)])
    };
    let usual = |plan: &[u8]| with(&NAMES, MEMORY, plan, 0, b"");
    let two = [&[2, 2, 40, 0, 2, 0, 8, 0, 8][..], &[0], &[0, 0]].concat();
    let mut across = vec![2, 2, 40, 0, 2, 0, 1, 0, 20, 1, 8, 0, 0, 0];
    across[5] = 0;
    vec![
        (
            "name-missing",
            with(&["exec-x86_64-2"], MEMORY, &part(2, &[8], &[0, 0]), 0, b""),
            "delta needs encoder exec-x86_64-2",
        ),
        (
            "unlisted",
            with(&["exec-aarch64-1"], MEMORY, &part(2, &[8], &[0, 0]), 0, b""),
            "unknown transform 2",
        ),
        ("unlisted-all", with(&[], MEMORY, &part(3, &[8], &[0, 0]), 0, b""), "unknown transform 3"),
        ("transform-4", usual(&part(4, &[8], &[0, 0])), "unknown transform 4"),
        ("view-program-plain", usual(&part(0, &[8], &[])), "unknown view 8"),
        ("view-program-range", usual(&part(2, &[9, 0, 40], &[0, 0])), "unknown view 9"),
        ("view-11", usual(&part(2, &[11], &[0, 0])), "unknown view 3"),
        ("references-beyond", usual(&part(2, &[8], &[0, 9])), "length of references is 9"),
        ("references-left", with(&NAMES, MEMORY, &part(2, &[8], &[0, 0]), 0, b"x"), "references is longer"),
        ("references-unlisted", usual(&part(2, &[8], &[0])), "plan ends too early"),
        ("memory-program", with(&NAMES, 5000, &part(2, &[8], &[0, 0]), 0, b""), "delta takes more than the"),
        ("memory-table", with(&NAMES, 1 << 20, &part(2, &[8], &[0, 0]), 0, b""), "delta takes more than the"),
        (
            "copies-beyond",
            with(&NAMES, MEMORY, &part(2, &[8], &[0, 0]), 1, b""),
            "delta contradicts itself: a copy beyond",
        ),
        (
            "views-two",
            delta(&NAMES, MEMORY, target, &[(0, &two), (3, &[0, 0]), (4, &[30]), (5, &[0])]),
            "addresses ends too early",
        ),
        ("copy-across", with(&NAMES, MEMORY, &across, 0, b""), "delta contradicts itself: a copy across"),
        (
            "copy-long",
            delta(&NAMES, MEMORY, target, &[(0, &part(2, &[8], &[0, 0])), (3, &[0]), (4, &[41]), (5, &[0])]),
            "delta contradicts itself: operations make more",
        ),
        (
            "copy-empty",
            delta(&NAMES, MEMORY, target, &[(0, &part(2, &[8], &[0, 0])), (3, &[0]), (4, &[0]), (5, &[0])]),
            "delta contradicts itself: a copy of no bytes",
        ),
    ]
}

#[test]
fn bad_vectors_are_refused_with_their_errors() {
    let archive = old();
    for (name, delta, error) in bad() {
        store(SET, "bad", name, &archive, &delta, &json!({ "expect_error": error }));
    }
    all_refused(SET, 15);
}

/// Before anything is read of the source: here it is the wrong one.
#[test]
fn an_unknown_transform_is_told_before_the_source_is_read() {
    let (_, delta, error) = bad().remove(0);
    let nothing: Vec<u8> = Vec::new();
    let archives: [&dyn ReadAt; 1] = [&nothing];
    let mut out = Vec::new();
    let sources = coracle_codec::native::Sources::Archives(&archives);
    let result =
        apply(&delta[..], sources, &mut out, &Default::default(), std::num::NonZeroUsize::MIN, &Quiet);
    let found = result.unwrap_err().to_string();
    assert!(found.starts_with(error) && out.is_empty(), "{found}");
}

/// Makes a delta between two tars of one file each, with one and with three threads, and applies it.
fn round_trip(old: &[u8], new: &[u8]) {
    let tar = |content: &[u8]| TarBuilder::new().file("bin/program", content).finish();
    let (old, new) = (tar(old), tar(new));
    let archives: [&dyn ReadAt; 1] = [&old];
    let made = [1, 3].map(|threads| {
        let mut delta = Vec::new();
        let threads = std::num::NonZeroUsize::new(threads).unwrap();
        let options = Options { threads, ..Options::default() };
        diff(&archives, &new, &mut delta, &options, &Quiet).unwrap();
        delta
    });
    assert!(made[0] == made[1], "threads change the delta");
    assert!(run(&made[0], &old).unwrap() == new);
}

/// Programs of this machine, damaged on both sides.
fn real_programs_come_back(paths: &[&str], seeds: std::ops::Range<u64>) {
    for path in paths {
        let Ok(file) = fs::read(path) else { continue };
        if exec::Machine::of(&file).is_none() {
            continue;
        }
        for seed in seeds.clone() {
            round_trip(&mutate(&file, seed, 8), &mutate(&file, seed + 1000, 30));
        }
        round_trip(&file, &file[..file.len() * 2 / 3]);
        round_trip(&file[..file.len() / 2], &file);
    }
}

#[test]
fn real_programs_that_were_damaged_come_back() {
    real_programs_come_back(&["/bin/sh", "/usr/bin/env"], 0..2);
}

#[test]
#[ignore = "takes minutes"]
fn many_real_programs_that_were_damaged_come_back() {
    let paths = ["/bin/sh", "/usr/bin/env", "/bin/tar", "/bin/bash", "/usr/bin/perl", "/usr/bin/objdump"];
    real_programs_come_back(&paths, 0..20);
}
