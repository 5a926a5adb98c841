//! Executables in native deltas.

use std::num::NonZeroUsize;

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::exec::{Machine, references};
use coracle_codec::native::{Archive, Block, Error, Head, Limits, Origin, Sources, apply};
use coracle_codec::observe::Quiet;
use coracle_testkit::native as second;
use coracle_testkit::tar_builder::TarBuilder;

/// Memory that a head may declare, and the most that a delta may make.
const LIMITS: Limits = Limits {
    max_output: 1 << 17,
    max_memory: 8 << 20,
    tar: coracle_codec::tar::Limits { max_special: 1 << 12, max_fragments: 16, max_members: 100 },
};
/// The machines, with their numbers in ELF files and of their transforms.
const MACHINES: [(Machine, u32, u8); 3] =
    [(Machine::X86_64, 62, 2), (Machine::Aarch64, 183, 3), (Machine::X86_64Kernel, second::KERNEL, 4)];

/// Finds the references of `data` as a program, for each machine.
///
/// * They ascend and lie in the file, and are those that the second decoder finds.
pub fn native_references(data: &[u8]) {
    for (machine, number, _) in MACHINES {
        let mut file = data.to_vec();
        if let Some(head) = file.get_mut(..20) {
            head[..6].copy_from_slice(b"\x7fELF\x02\x01");
            head[18..].copy_from_slice(&number.to_le_bytes()[..2]);
        }
        let found = references(&file, machine);
        assert!(found.windows(2).all(|w| w[0].0 + 4 <= w[1].0), "{found:?}");
        assert!(found.last().is_none_or(|r| r.0 + 4 <= file.len() as u64), "{found:?}");
        let other = second::references(&file, number);
        assert!(found == other, "{machine:?}: {found:x?}, the second decoder: {other:x?}");
    }
}

/// Applies a part with two programs. `data` are: which machine (1 byte), how many copies (1) and bytes of references (2), the
/// copies (skipped, place and length, 2 bytes each), these references, and a program, which is the old file as well as, cut by its last bytes, the
/// second one.
///
/// * What comes out is what the second decoder makes, and has the length declared.
pub fn native_program(data: &[u8]) {
    let Some(([machine, copies, a, b], rest)) = data.split_first_chunk() else { return };
    let (_, _, transform) = MACHINES[usize::from(*machine) % MACHINES.len()];
    let (machine, _, _) = MACHINES[usize::from(*machine) % MACHINES.len()];
    let copies_len = (usize::from(*copies) * 6).min(rest.len() / 6 * 6);
    let (copies, rest) = rest.split_at(copies_len);
    let (references, file) = rest.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(rest.len()));
    let mut archive = TarBuilder::new();
    archive.file("a", file).file("b", &file[..file.len() - file.len() / 5]);
    let archive = archive.finish();
    let [mut plan, mut literals, mut lengths, mut addresses] = [vec![2, transform], vec![], vec![], vec![]];
    let (mut text, mut end, mut made) = (Vec::new(), 0i64, 0);
    for copy in copies.chunks_exact(6) {
        let field = |i: usize| u16::from_le_bytes([copy[i], copy[i + 1]]);
        let (skip, place, len) = (field(0) % 2048, i64::from(field(2)), u64::from(field(4)));
        if len == 0 {
            continue;
        }
        number(&mut literals, skip.into());
        text.extend((0..skip).map(|i| file.get(usize::from(i)).copied().unwrap_or(7)));
        number(&mut addresses, ((place - end) << 1 ^ (place - end) >> 63) as u64);
        number(&mut lengths, len);
        end = place + len as i64;
        made += u64::from(skip) + len;
    }
    if made == 0 || made > LIMITS.max_output {
        return;
    }
    number(&mut plan, made);
    plan.extend([1, 2, 0, 8, 0, 8, 0, 0]);
    number(&mut plan, references.len() as u64);
    let streams: [(u8, &[u8]); 6] =
        [(0, &plan), (3, &literals), (4, &lengths), (5, &addresses), (9, &text), (11, references)];
    let delta = |digest| delta(&archive, machine, made, digest, &streams);
    let (_, result) = run(&delta(Digest::of(b"")), &archive);
    if let Err(Error::WrongResult { actual, .. }) = result {
        let right = delta(actual);
        let (out, result) = run(&right, &archive);
        assert!(result.is_ok() && out.len() as u64 == made, "{result:?}");
        let other = second::apply(&right, second::Sources::Archives(std::slice::from_ref(&archive)));
        assert!(other.as_ref() == Ok(&out), "the second decoder: {:?}", other.map(|o| o.len()));
    }
}

fn run(delta: &[u8], old: &[u8]) -> (Vec<u8>, Result<(), Error>) {
    let old = old.to_vec();
    let archives: [&dyn ReadAt; 1] = [&old];
    let mut out = Vec::new();
    let result = apply(delta, Sources::Archives(&archives), &mut out, &LIMITS, NonZeroUsize::MIN, &Quiet);
    (out, result.map(|_| ()))
}

fn delta(old: &[u8], machine: Machine, output: u64, digest: Digest, streams: &[(u8, &[u8])]) -> Vec<u8> {
    let streams: Vec<_> = streams.iter().filter(|s| !s.1.is_empty()).collect();
    let mut block = vec![streams.len() as u8];
    for (id, bytes) in &streams {
        block.extend([*id, 0]);
        number(&mut block, bytes.len() as u64);
        number(&mut block, bytes.len() as u64);
    }
    streams.iter().for_each(|s| block.extend_from_slice(s.1));
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(&block).as_bytes()[..8]);
    let head = Head {
        size: output,
        digest,
        memory: LIMITS.max_memory,
        encoders: vec![machine.name().to_owned()],
        origin: Origin::Archives(vec![Archive { size: old.len() as u64, digest: Digest::of(old) }]),
        blocks: vec![Block { output, encoded: block.len() as u64, check }],
    };
    [head.to_bytes(), block].concat()
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}
