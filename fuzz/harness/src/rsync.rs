//! librsync deltas and signatures.

use coracle_codec::observe::Quiet;
use coracle_codec::rsync::{
    Limits, MAGIC, Op, OpReader, OpWriter, Options, Signature, SignatureLimits, apply, classic, diff,
    write_delta,
};

use crate::pieces::Pieces;

const LIMITS: Limits = Limits { max_output: 1 << 20, spare_ops: 1 << 10 };
const SIGNATURES: SignatureLimits = SignatureLimits { max_blocks: 1 << 12, max_block_len: 1 << 16 };

/// The basis: every byte, and runs.
fn basis() -> Vec<u8> {
    (0..4096u32).map(|i| if i % 1024 < 256 { i as u8 } else { (i >> 8) as u8 }).collect()
}

/// Reads `data` as a delta, as the operations of one, and as a signature; makes deltas for it as new content.
///
/// * The output is what the operations say, within the bound; small pieces give the same.
/// * Operations that are written again make the same.
/// * A signature that is read is written as the same bytes.
/// * Both writers make deltas that give `data` back.
pub fn rsync(data: &[u8]) {
    let basis = basis();
    delta(data, &basis);
    delta(&[&MAGIC, data].concat(), &basis);
    if let Ok(signature) = Signature::read(data, &SIGNATURES) {
        let mut written = Vec::new();
        signature.write(&mut written).unwrap_or_else(|e| panic!("{e}"));
        assert!(written == data, "a signature changed");
    }
    let new = data[..data.len().min(8 << 10)].to_vec();
    let options =
        Options { window: 1 + u64::from(data.first().copied().unwrap_or(0)) * 17, ..Options::default() };
    let copies = diff(&basis, &[&new], &options, &Quiet).unwrap_or_else(|e| panic!("{e}"));
    let mut ours = Vec::new();
    write_delta(&copies[0], &new, &mut ours).unwrap_or_else(|e| panic!("{e}"));
    let signature = Signature::of_engine(&basis).unwrap_or_else(|e| panic!("{e}"));
    let mut engines = Vec::new();
    classic(&signature, &new[..], &mut engines, &Quiet).unwrap_or_else(|e| panic!("{e}"));
    let unbounded = Limits { spare_ops: u64::MAX, ..Limits::default() };
    for delta in [ours, engines] {
        let mut out = Vec::new();
        apply(&delta[..], &basis, &mut out, &unbounded, &Quiet).unwrap_or_else(|e| panic!("{e}"));
        assert!(out == new, "a delta gives other bytes");
    }
}

fn delta(data: &[u8], basis: &[u8]) {
    let basis = basis.to_vec();
    let mut out = Vec::new();
    let result = apply(data, &basis, &mut out, &LIMITS, &Quiet);
    assert!(out.len() as u64 <= LIMITS.max_output);
    let mut again = Vec::new();
    let other = apply(Pieces::new(data), &basis, &mut again, &LIMITS, &Quiet);
    assert_eq!(result.is_ok(), other.is_ok());
    assert!(out == again || result.is_err(), "pieces give other bytes");
    let Ok(applied) = result else { return };
    assert_eq!((applied.ops.output(), applied.delta), (out.len() as u64, data.len() as u64));
    let mut reader = OpReader::new(data, LIMITS).unwrap_or_else(|e| panic!("{e}"));
    let mut writer = OpWriter::new(Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    while let Some(op) = reader.next_op().unwrap_or_else(|e| panic!("{e}")) {
        match op {
            Op::Copy { offset, len } => writer.copy(offset, len),
            Op::Literal(_) => {
                let mut literal = Vec::new();
                loop {
                    let piece = reader.fill_literal().unwrap_or_else(|e| panic!("{e}"));
                    let n = piece.len();
                    literal.extend_from_slice(piece);
                    reader.consume_literal(n);
                    if n == 0 {
                        break;
                    }
                }
                writer.literal(&literal)
            }
        }
        .unwrap_or_else(|e| panic!("{e}"));
    }
    let (written, _, len) = writer.finish().unwrap_or_else(|e| panic!("{e}"));
    assert!(len == written.len() as u64 && written.len() <= data.len(), "the shortest forms are not");
    let mut again = Vec::new();
    apply(&written[..], &basis, &mut again, &LIMITS, &Quiet).unwrap_or_else(|e| panic!("{e}"));
    assert!(again == out, "operations written again make other bytes");
}
