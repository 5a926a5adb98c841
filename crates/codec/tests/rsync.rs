//! librsync deltas: what is written is read, what is wrong is refused, and the vectors of other programs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use coracle_codec::delta::Cost;
use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_codec::rsync::{
    Copies, Error, ExplainError, Limits, Op, OpReader, OpWriter, Options, Signature, SignatureLimits, Strong,
    Weak, apply, classic, diff, explain, write_delta,
};
use coracle_codec::{ReadAt, Section};
use coracle_testkit::golden::Golden;
use coracle_testkit::image;
use proptest::prelude::*;

fn applied(delta: &[u8], basis: &[u8], limits: &Limits) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    apply(delta, &basis.to_vec(), &mut out, limits, &Quiet).map(|_| out)
}

fn ours(basis: &[u8], new: &[u8], options: &Options) -> (Vec<u8>, Copies) {
    let (basis, new) = (basis.to_vec(), new.to_vec());
    let mut copies = diff(&basis, &[&new], options, &Quiet).unwrap();
    let mut delta = Vec::new();
    let copies = copies.remove(0);
    write_delta(&copies, &new, &mut delta).unwrap();
    (delta, copies)
}

fn engines(basis: &[u8], new: &[u8]) -> Vec<u8> {
    let signature = Signature::of_engine(&basis.to_vec()).unwrap();
    let mut delta = Vec::new();
    classic(&signature, new, &mut delta, &Quiet).unwrap();
    delta
}

fn changed(seed: u64, len: usize, edits: usize) -> (Vec<u8>, Vec<u8>) {
    let old = image::binary(seed, len);
    let new = image::mutate(&old, seed + 1, edits);
    (old, new)
}

#[test]
fn both_writers_make_what_was_wanted() {
    for (seed, len, edits) in [(1, 0, 0), (2, 10, 1), (3, 5000, 3), (4, 300_000, 60), (5, 700_000, 2)] {
        let (old, new) = changed(seed, len, edits);
        for (basis, new) in
            [(&old, &new), (&new, &old), (&old, &old), (&Vec::new(), &new), (&old, &Vec::new())]
        {
            let ours = ours(basis, new, &Options::default()).0;
            assert!(applied(&ours, basis, &Limits::default()).unwrap() == *new, "ours, {seed}");
            let engines = engines(basis, new);
            assert!(applied(&engines, basis, &Limits::default()).unwrap() == *new, "classic, {seed}");
            assert!(ours.len() <= engines.len(), "{seed}: {} and {}", ours.len(), engines.len());
        }
    }
}

#[test]
fn copies_need_no_blocks() {
    // Every block of the engine's grid has a change in it, so that it finds nothing.
    let old = image::binary(8, 64 << 10);
    let mut new = old.clone();
    new.iter_mut().step_by(400).for_each(|byte| *byte ^= 0x55);
    let (delta, copies) = ours(&old, &new, &Options::default());
    assert!(engines(&old, &new).len() > new.len());
    assert!(delta.len() < new.len() / 10, "{} bytes", delta.len());
    assert!(copies.iter().all(|copy| copy.new == copy.old), "what stays in its place is copied from there");
}

#[test]
fn a_basis_of_several_windows() {
    let (old, new) = changed(20, 400_000, 40);
    // Content that moved from the last window to the front.
    let new = [&old[350_000..], &new[..]].concat();
    let whole = ours(&old, &new, &Options::default()).0;
    for window in [50_000, 100_000, 399_999] {
        let delta = ours(&old, &new, &Options { window, ..Options::default() }).0;
        assert!(applied(&delta, &old, &Limits::default()).unwrap() == new);
        assert!(delta.len() < whole.len() * 3 / 2 + 2000, "{window}: {} and {}", delta.len(), whole.len());
    }
}

proptest! {
    #[test]
    fn any_content_comes_back(
        basis in proptest::collection::vec(0u8..4, 0..600),
        new in proptest::collection::vec(0u8..4, 0..600),
        window in 1u64..700,
    ) {
        let delta = ours(&basis, &new, &Options { window, ..Options::default() }).0;
        prop_assert_eq!(&applied(&delta, &basis, &Limits::default()).unwrap(), &new);
        let signature = Signature::of(&basis, (Weak::RollSum, Strong::Md4), 7, 16).unwrap();
        let mut delta = Vec::new();
        classic(&signature, &new[..], &mut delta, &Quiet).unwrap();
        prop_assert_eq!(&applied(&delta, &basis, &Limits::default()).unwrap(), &new);
    }

    #[test]
    fn no_bytes_are_a_panic(mut delta in proptest::collection::vec(any::<u8>(), 0..200)) {
        let basis = vec![1; 100];
        let limits = Limits { max_output: 1 << 16, ..Limits::default() };
        let _ = applied(&delta, &basis, &limits);
        delta.splice(0..0, [0x72, 0x73, 0x02, 0x36]);
        let _ = applied(&delta, &basis, &limits);
    }
}

/// A delta of these operations behind the magic.
fn delta(operations: &[u8]) -> Vec<u8> {
    [&[0x72, 0x73, 0x02, 0x36][..], operations].concat()
}

/// docs/formats/rsync.md, section 2.1: every form of an operation.
#[test]
fn all_forms_of_operations() {
    let basis: Vec<u8> = (0..=255u8).cycle().take(70_000).collect();
    for (op, widths) in (0x45u8..=0x54).zip((0..16).map(|i| (1usize << (i / 4), 1usize << (i % 4)))) {
        let (offset, len) = (200u64.to_be_bytes(), 17u64.to_be_bytes());
        let form = [&[op][..], &offset[8 - widths.0..], &len[8 - widths.1..], &[0]].concat();
        assert_eq!(
            applied(&delta(&form), &basis, &Limits::default()).unwrap(),
            basis[200..217],
            "0x{op:02x}"
        );
    }
    for (op, width) in (0x41u8..=0x44).zip([1usize, 2, 4, 8]) {
        let form = [&[op][..], &3u64.to_be_bytes()[8 - width..], b"abc", &[0]].concat();
        assert_eq!(applied(&delta(&form), &basis, &Limits::default()).unwrap(), b"abc", "0x{op:02x}");
    }
    for len in 1..=0x40u8 {
        let form = [&[len][..], &vec![b'x'; usize::from(len)], &[0]].concat();
        assert_eq!(applied(&delta(&form), &basis, &Limits::default()).unwrap().len(), usize::from(len));
    }
    assert_eq!(applied(&delta(&[0]), &basis, &Limits::default()).unwrap(), b"");
}

#[test]
fn what_is_wrong_is_refused_where_it_is() {
    let basis = vec![7; 100];
    let error = |delta: &[u8]| applied(delta, &basis, &Limits::default()).unwrap_err().to_string();
    let max = [0xff; 8];
    for (operations, text) in [
        (&b""[..], "delta ends at byte 4 without an end"),
        (&[3, b'a', b'b'], "delta ends inside operation 0x03 at byte 4"),
        (&[1, b'a', 0x42, 0], "delta ends inside operation 0x42 at byte 6"),
        (&[0x45, 0], "delta ends inside operation 0x45 at byte 4"),
        (&[0x55], "reserved operation 0x55 at byte 4"),
        (&[1, b'a', 0xff, 0], "reserved operation 0xff at byte 6"),
        (&[0x45, 0, 101, 0], "operation at byte 4 copies 101 bytes at offset 0 of a basis of 100"),
        (&[0x45, 101, 0, 0], "operation at byte 4 copies 0 bytes at offset 101 of a basis of 100"),
        (&[0x45, 90, 11, 0], "operation at byte 4 copies 11 bytes at offset 90 of a basis of 100"),
        (&[0, 0], "bytes behind the end of the delta at byte 5"),
    ] {
        assert_eq!(error(&delta(operations)), text);
    }
    let impossible = [&[0x51][..], &max, &[1, 0]].concat();
    assert_eq!(error(&delta(&impossible)), "operation 0x51 at byte 4 has an impossible size");
    let endless = [&[0x44][..], &(i64::MAX as u64).to_be_bytes()].concat();
    assert_eq!(error(&delta(&endless)), format!("output exceeds the limit of {} bytes", 64u64 << 30));
    let wraps = [&[0x54][..], &(i64::MAX as u64).to_be_bytes(), &8u64.to_be_bytes(), &[0]].concat();
    assert!(error(&delta(&wraps)).contains("copies 8 bytes at offset 9223372036854775807"));
    assert_eq!(error(b"rs"), "delta ends inside its magic");
    assert_eq!(error(&[0x72, 0x73, 1, 0x37, 0]), "not a librsync delta: it begins with 72730137");
}

#[test]
fn output_and_operations_are_bounded() {
    let basis = vec![7; 100];
    let limits = Limits { max_output: 1000, spare_ops: 10 };
    let copies = |n: usize, len: u8| delta(&[[0x45, 0, len].repeat(n), vec![0]].concat());
    assert_eq!(applied(&copies(10, 100), &basis, &limits).unwrap().len(), 1000);
    assert!(matches!(applied(&copies(11, 100), &basis, &limits), Err(Error::OutputTooLarge(1000))));
    assert!(matches!(applied(&copies(11, 0), &basis, &limits), Err(Error::TooManyOps)));
    assert!(matches!(applied(&copies(100, 1), &basis, &limits), Err(Error::TooManyOps)));
    assert_eq!(applied(&copies(200, 4), &basis, &limits).unwrap().len(), 800);
}

/// Nothing of a copy that goes beyond the basis may be written.
#[test]
fn a_wrong_operation_leaves_nothing() {
    let mut out = Vec::new();
    let bad = delta(&[2, b'o', b'k', 0x45, 50, 60, 0]);
    apply(&bad[..], &vec![7; 100], &mut out, &Limits::default(), &Quiet).unwrap_err();
    assert_eq!(out, b"ok");
}

/// A basis that is shorter than it says, as a file is that somebody truncates.
struct Shrinking(Vec<u8>);

impl ReadAt for Shrinking {
    fn size(&self) -> u64 {
        self.0.len() as u64 * 2
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }
}

#[test]
fn a_basis_that_shrinks_is_an_error() {
    let bad = delta(&[0x45, 90, 20, 0]);
    let error = apply(&bad[..], &Shrinking(vec![7; 100]), &mut io::sink(), &Limits::default(), &Quiet);
    assert!(matches!(error, Err(Error::BeyondBasis { .. })));
}

#[test]
fn a_writer_uses_the_shortest_forms() {
    let mut writer = OpWriter::new(Vec::new()).unwrap();
    writer.literal(&[1; 64]).unwrap();
    writer.literal(&[1; 65]).unwrap();
    writer.literal(b"").unwrap();
    writer.copy(255, 256).unwrap();
    writer.copy(1 << 32, 1 << 16).unwrap();
    let (bytes, counts, len) = writer.finish().unwrap();
    assert_eq!((counts.literal.ops, counts.literal.bytes, counts.copy.ops), (2, 129, 2));
    assert_eq!(len, bytes.len() as u64);
    assert_eq!((bytes[4], &bytes[69..71]), (0x40, &[0x41, 65][..]));
    assert_eq!(bytes[136..140], [0x46, 255, 1, 0]);
    assert_eq!(bytes[140..], [0x53, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    let mut reader = OpReader::new(&bytes[..], Limits::default()).unwrap();
    let mut ops = Vec::new();
    while let Some(op) = reader.next_op().unwrap() {
        ops.push(op);
    }
    assert_eq!(ops[2..], [Op::Copy { offset: 255, len: 256 }, Op::Copy { offset: 1 << 32, len: 1 << 16 }]);
}

/// `testkit/golden/rsync`.
#[test]
fn golden_vectors() {
    let root = Golden::built_in().root().join("rsync");
    let basis = std::fs::read(root.join("basis.bin")).unwrap();
    let mut seen = 0;
    for kind in ["good", "bad"] {
        for case in std::fs::read_dir(root.join(kind)).unwrap().map(|entry| entry.unwrap().path()) {
            let about: serde_json::Value =
                serde_json::from_slice(&std::fs::read(case.join("case.json")).unwrap()).unwrap();
            let limit = |name: &str, usual| about["limits"][name].as_u64().unwrap_or(usual);
            let limits = Limits {
                max_output: limit("max_output", Limits::default().max_output),
                spare_ops: limit("spare_ops", Limits::default().spare_ops),
            };
            let result = applied(&std::fs::read(case.join("delta")).unwrap(), &basis, &limits);
            let name = case.display();
            match result {
                Ok(new) => {
                    assert_eq!(kind, "good", "{name} was accepted");
                    let expected = &about["expect"]["output"];
                    assert_eq!(Digest::of(&new).hex(), expected["sha256"].as_str().unwrap(), "{name}");
                    assert_eq!(new.len() as u64, expected["size"], "{name}");
                }
                Err(error) => {
                    let expected = about["expect_error"].as_str().unwrap_or("no error");
                    assert!(error.to_string().starts_with(expected), "{name}: {error}, not {expected}");
                }
            }
            seen += 1;
        }
    }
    assert!(seen >= 25, "{seen} vectors");
}

/// Any basis has an explanation for any delta: its bytes are all booked.
#[test]
fn explained_byte_by_byte() {
    let pair = coracle_testkit::pair::pair(7, 300_000);
    let (delta, _) = ours(&pair.old, &pair.new, &Options::default());
    let told = explain(&delta[..], &pair.new, &Limits::default(), &Quiet).unwrap();
    let booked: u64 = told.members.iter().map(|member| member.delta_bytes).sum();
    // Magic and end are nobody's.
    assert_eq!((booked + 5, told.delta_bytes), (delta.len() as u64, delta.len() as u64));
    let made: u64 = told.members.iter().map(|member| member.literal + member.copied).sum();
    assert_eq!(made, pair.new.len() as u64);
    assert!(told.members.iter().any(|member| member.cost == Cost::Copied && member.size > 0));
    assert!(told.members.iter().any(|member| member.cost == Cost::Changed));
    assert_eq!(told.members.last().unwrap().cost, Cost::Trailer);
    let other = explain(&delta[..], &pair.old[..pair.old.len() - 512].to_vec(), &Limits::default(), &Quiet);
    assert!(matches!(other, Err(ExplainError::OtherSize { .. })));
}

/// The vectors of other programs, if they are here: they are no part of this project.
fn vectors() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors/balena/librsync");
    let path = Golden::external().map_or(path, |root| root.root().join("balena/librsync"));
    if path.is_dir() {
        return Some(path);
    }
    let _ = writeln!(io::stderr(), "note: no vectors at {}: nothing was compared with rdiff", path.display());
    None
}

#[test]
fn vectors_of_rdiff() {
    let Some(folder) = vectors() else { return };
    let (mut good, mut bad) = (0, 0);
    for case in
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
    {
        let text = std::fs::read(case.join("case.json")).unwrap();
        let about: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let basis = std::fs::read(case.join(about["inputs"]["basis"].as_str().unwrap())).unwrap();
        let delta = std::fs::read(case.join("delta")).unwrap();
        let max_output = about["limits"]["max_output"].as_u64().unwrap_or(Limits::default().max_output);
        let result = applied(&delta, &basis, &Limits { max_output, ..Limits::default() });
        if about["kind"] == "librsync-bad" {
            assert!(result.is_err(), "{name} was accepted");
            bad += 1;
            continue;
        }
        let new = result.unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = &about["expect"]["output"];
        assert_eq!(Digest::of(&new).hex(), expected["sha256"].as_str().unwrap(), "{name}");
        good += 1;
        let Ok(bytes) = std::fs::read(case.join("sig")) else { continue };
        let signature = Signature::read(&bytes[..], &SignatureLimits::default()).unwrap();
        let (block, strong) = (signature.block_len(), signature.strong_len());
        let own = Signature::of(&basis, signature.kinds(), block, strong).unwrap();
        let mut written = Vec::new();
        own.write(&mut written).unwrap();
        assert!(written == bytes, "{name}: the signature is another one");
        let mut delta = Vec::new();
        classic(&own, Section::whole(&new).reader(), &mut delta, &Quiet).unwrap();
        assert!(applied(&delta, &basis, &Limits::default()).unwrap() == new, "{name}: our delta");
    }
    assert!(good >= 6 && bad >= 14, "{good} good and {bad} bad vectors");
}
