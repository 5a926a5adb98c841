//! The stored native deltas of kernels of Linux and their payloads, like those of `golden_native`.

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::exec::{self, references};
use coracle_codec::native::{Base, Options, diff};
use coracle_codec::observe::Quiet;
use coracle_testkit::image::{binary, mutate};
use coracle_testkit::native as second;
use coracle_testkit::program::{Machine, Program};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::json;

use crate::golden_native::{all_made, all_refused, number, run, store};
use crate::golden_packed::delta_of;

const SET: &str = "native-kernel";
const KERNEL: &str = "exec-x86_64-kernel-1";
const LZ4: &str = "liblz4-1.10.0";
/// Payloads: by what they are packed, the encoder as a plan tells it, and the name that a head lists.
const PAYLOADS: [(&str, &[u64], &str); 3] = [
    ("lz4", &[7 * 256 + 9], LZ4),
    // Preset 6, CRC32, filter for x86, the dictionary of 32 MiB that kernels are packed with.
    ("xz", &[2 * 256 + 6, 16, 93, 4, 26, 1, 0, 0], "liblzma-5.8.4"),
    ("zstd", &[3 * 256 + 19, 5, 0], "zstd-1.5.7"),
];

fn old_kernel() -> Program {
    Program { machine: Machine::Kernel, kind: 2, functions: (0..50).collect(), data: 900 }
}

/// New functions, others gone, in another order, further away.
fn new_kernel() -> Program {
    let mut functions: Vec<u32> = (0..20).chain([77]).chain(24..50).chain([20, 21, 88]).collect();
    functions.swap(3, 30);
    Program { functions, data: 1300, ..old_kernel() }
}

fn module(kernel: &Program) -> Program {
    Program { kind: 1, ..kernel.clone() }
}

/// A kernel as a boot loader starts it: the part for real mode with its header, a loader, and the payload with its size
/// behind it.
fn bootable(kernel: &[u8], encoder: &[u64], loader: u64) -> Vec<u8> {
    let mut fields = Vec::new();
    encoder.iter().for_each(|&n| number(&mut fields, n));
    let payload = second::packed_stream(kernel, &fields).unwrap();
    let mut file = vec![0; 5 * 512];
    file[..2].copy_from_slice(b"MZ");
    file[0x1f1] = 4;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&700_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    file.extend(binary(loader, 700));
    file.extend(&payload);
    file.extend((kernel.len() as u32).to_le_bytes());
    file.extend(binary(loader + 1, 900));
    file
}

/// A kernel behind the header of EFI zboot.
fn zboot(kernel: &[u8]) -> Vec<u8> {
    let mut fields = Vec::new();
    number(&mut fields, 256 + 16 * 9 + 9);
    let gzip = [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3][..],
        &second::packed_stream(kernel, &fields).unwrap(),
        &[1; 8],
    ];
    let payload = gzip.concat();
    let mut file = vec![0; 64];
    file[..8].copy_from_slice(b"MZ\0\0zimg");
    file[8..12].copy_from_slice(&64_u32.to_le_bytes());
    file[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    [file, payload, binary(8, 300)].concat()
}

fn archive(kernel: &Program, loader: u64) -> Vec<u8> {
    let bytes = kernel.build();
    let mut tar = TarBuilder::new();
    tar.file("boot/vmlinux", &bytes).file("lib/module.ko", module(kernel).build());
    for (name, encoder, _) in PAYLOADS {
        tar.file(format!("boot/vmlinuz-{name}"), bootable(&bytes, encoder, loader));
    }
    tar.file("boot/vmlinuz-zboot", zboot(&bytes)).finish()
}

fn old() -> Vec<u8> {
    archive(&old_kernel(), 40)
}

fn targets() -> Vec<(String, Vec<u8>, Vec<&'static str>)> {
    let bytes = new_kernel().build();
    let one = |name: &str, file: Vec<u8>| TarBuilder::new().file(format!("boot/{name}"), file).finish();
    let mut out = vec![
        ("moved".into(), one("vmlinux", bytes.clone()), vec![KERNEL]),
        ("mutated".into(), one("vmlinux", mutate(&bytes, 6, 12)), vec![KERNEL]),
        (
            "module".into(),
            TarBuilder::new().file("lib/module.ko", module(&new_kernel()).build()).finish(),
            vec![KERNEL],
        ),
        ("zboot".into(), one("vmlinuz-zboot", zboot(&bytes)), vec![KERNEL]),
    ];
    for (name, encoder, listed) in PAYLOADS {
        let mut names = vec![KERNEL, listed];
        names.sort_unstable();
        out.push((name.into(), one(&format!("vmlinuz-{name}"), bootable(&bytes, encoder, 50)), names));
    }
    out
}

#[test]
fn good_vectors_give_their_targets_in_both_decoders() {
    let archive = old();
    for (name, target, names) in targets() {
        let mut delta = Vec::new();
        let archives: [&dyn ReadAt; 1] = [&archive];
        let report = diff(&archives, &target, &mut delta, &Options::default(), &Quiet).unwrap();
        assert!(report.head.encoders == names || name == "mutated", "{name}: {:?}", report.head.encoders);
        assert_eq!(
            report.rebuilt_streams,
            u64::from(!["moved", "mutated", "module"].contains(&&*name)),
            "{name}"
        );
        let case = json!({ "size": target.len(), "digest": Digest::of(&target).to_string() });
        store(SET, "good", &name, &archive, &delta, &case);
        // A tree has no headers, the rest is the same.
        let base = Base::Tree { apply_whiteouts: false, any_mode: true };
        let mut tree = Vec::new();
        diff(&archives, &target, &mut tree, &Options { base, ..Options::default() }, &Quiet).unwrap();
        assert!(run(&tree, &archive).unwrap() == target, "{name}");
    }
    all_made(SET, 7);
}

#[test]
fn payloads_cost_what_their_content_costs() {
    let archive = old();
    let archives: [&dyn ReadAt; 1] = [&archive];
    for (name, target, _) in targets().into_iter().skip(3) {
        let size = |slow_formats| {
            let mut delta = Vec::new();
            let mut options = Options::default();
            options.parts.slow_formats = slow_formats;
            options.parts.deflate = slow_formats;
            diff(&archives, &target, &mut delta, &options, &Quiet).unwrap();
            delta.len()
        };
        let (with, without) = (size(true), size(false));
        assert!(with * 10 < without * 8, "{name}: {with} and {without}");
    }
}

#[test]
fn both_decoders_find_the_same_references_in_kernels() {
    let file = new_kernel().build();
    let found = references(&file, exec::Machine::X86_64Kernel);
    assert_eq!(found, second::references(&file, second::KERNEL));
    let kinds: std::collections::BTreeSet<u8> = found.iter().map(|r| r.1).collect();
    let wanted = [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 21, 22];
    assert!(wanted.iter().all(|k| kinds.contains(k)), "{kinds:?}");
    assert!(found.iter().any(|r| r.0 as usize > file.len() - 100 && r.1 == 4), "none in the list behind it");
    let module = module(&new_kernel()).build();
    assert_eq!(exec::Machine::of(&module), Some(exec::Machine::X86_64Kernel));
    for seed in 0..60 {
        for file in [&file, &module] {
            let file = mutate(file, seed, 30);
            let found = references(&file, exec::Machine::X86_64Kernel);
            assert_eq!(found, second::references(&file, second::KERNEL), "seed {seed}");
        }
    }
    // As a program like others it has next to none.
    assert!(references(&file, exec::Machine::X86_64).len() * 3 < found.len());
    assert_eq!(exec::Machine::of(&file), Some(exec::Machine::X86_64Kernel));
}

/// A delta of one part of `target` with streams by number.
fn delta(encoders: &[&str], target: &[u8], streams: &[(u8, &[u8])]) -> Vec<u8> {
    delta_of(&old(), encoders, 64 << 20, target, streams)
}

fn bad() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let target = &old_kernel().build()[..40];
    let copy =
        |names: &[&str], plan: &[u8]| delta(names, target, &[(0, plan), (3, &[0]), (4, &[40]), (5, &[0])]);
    // A part of 40 bytes with one view; what follows it are corrections and packed streams.
    let part = |transform: u8, view: &[u8], rest: &[u8]| {
        [&[2, transform, 40, 0, 1, 0][..], view, &[0], rest].concat()
    };
    let literal = |names: &[&str], packed: &[u8]| {
        let plan = [&[2, 1, 40, 0, 0, 0][..], packed].concat();
        delta(names, target, &[(0, &plan), (3, &[40]), (8, &[7; 40])])
    };
    vec![
        ("kernel-unlisted", copy(&["exec-x86_64-1"], &part(4, &[8], &[0, 0])), "unknown transform 4"),
        ("transform-5", copy(&[KERNEL], &part(5, &[8], &[0, 0])), "unknown transform 5"),
        ("lz4-view-unlisted", copy(&[KERNEL], &part(0, &[7, 0, 40, 40], &[])), "unknown view 7"),
        (
            "lz4-view-no-frame",
            copy(&[LZ4], &part(0, &[7, 0, 40, 40], &[])),
            "lz4 stream at byte 0 of old member 0 does not expand: it is no legacy frame of LZ4",
        ),
        (
            "lz4-unlisted",
            literal(&[KERNEL], &[1, 0, 0x89, 0x0e, 40, 40]),
            "delta contradicts itself: a part uses",
        ),
        ("lz4-level-2", literal(&[LZ4], &[1, 0, 0x82, 0x0e, 40, 40]), "unknown lz4 encoder 2"),
        ("lz4-level-13", literal(&[LZ4], &[1, 0, 0x8d, 0x0e, 40, 40]), "unknown lz4 encoder 13"),
        ("lz4-other-length", literal(&[LZ4], &[1, 0, 0x89, 0x0e, 40, 40]), "rebuilt lz4 stream"),
        (
            "name-missing",
            copy(&["liblz4-1.10.1"], &part(0, &[7, 0, 40, 40], &[])),
            "delta needs encoder liblz4-1.10.1",
        ),
    ]
}

#[test]
fn bad_vectors_are_refused_with_their_errors() {
    let archive = old();
    for (name, delta, error) in bad() {
        store(SET, "bad", name, &archive, &delta, &json!({ "expect_error": error }));
    }
    all_refused(SET, 10);
}
