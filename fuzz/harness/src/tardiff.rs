//! tar-diff deltas.
//!
//! Each input is tried in two forms: as it is, as a whole delta; and as an operation stream that is put into a zstd
//! frame of stored blocks behind the magic. In the second form every mutation reaches the operations.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU32, Ordering};

use coracle_codec::observe::Observer;
use coracle_codec::tardiff::{
    Error, Limits, MAGIC_V1, MAGIC_V2, MAX_ADD, MAX_PATH, Op, OpReader, Version, apply,
};

use crate::frame::{self, stored_frame};
use crate::model;
use crate::pieces::Pieces;
use crate::tree::TREE;

/// `big` of the tree is above the bound on dictionaries.
const LIMITS: Limits = Limits { max_output: 1 << 20, max_window_log: 20, max_dictionary: 64 << 10 };

/// A few bytes of zstd can hold millions of operations: after so many the harness has seen enough.
const ENOUGH_OPS: usize = 1 << 17;
const ENOUGH_BYTES: u64 = 8 << 20;

/// Reads the operations of `data`, in both forms.
///
/// * The position in the stream never goes back, and at the end of a stream of known length stands at its end.
/// * Sizes are within the format's limits, paths are relative and clean; no window is above the bound.
/// * A second reader that gets small pieces and reads some of the payloads sees the same operations.
/// * In the second form: the operations and the verdict are those of [`model::parse`], for both versions.
pub fn tardiff_parse(data: &[u8]) {
    let (ops, end) = walk(data, false);
    let (again, other_end) = walk(Pieces::new(data), true);
    // What a damaged stream gives before the damage may depend on the pieces.
    let both = ops.len().min(again.len());
    assert_eq!(ops[..both], again[..both]);
    assert_eq!(end == End::Refused, other_end == End::Refused);
    assert!(end == End::Refused || ops == again);
    assert!(
        end == End::Refused || outer_window(data) <= 1 << LIMITS.max_window_log,
        "window above the bound"
    );
    for (version, magic) in [(1, MAGIC_V1), (2, MAGIC_V2)] {
        let delta = [&magic[..], &stored_frame(data)].concat();
        let (ops, end) = walk(&*delta, false);
        let (want, good) = model::parse(data, version);
        assert_eq!(ops.len(), want.len());
        for (op, want) in ops.iter().zip(&want) {
            assert_eq!(*op, as_op(want));
        }
        let want = if good { End::Clean(data.len() as u64) } else { End::Refused };
        assert!(end == want || end == End::Enough, "{end:?}, not {want:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The stream ended, at this position.
    Clean(u64),
    Refused,
    Enough,
}

/// All operations as far as they are good; with `touch`, a part of each payload is read instead of skipped.
fn walk(delta: impl Read, touch: bool) -> (Vec<Op>, End) {
    let mut seen = Vec::new();
    let Ok(mut reader) = OpReader::new(delta, LIMITS) else { return (seen, End::Refused) };
    let mut position = reader.position();
    assert_eq!(position, 0);
    loop {
        let op = match reader.next_op() {
            Ok(Some(op)) => op,
            Ok(None) => return (seen, End::Clean(reader.position())),
            Err(_) => return (seen, End::Refused),
        };
        assert!(reader.position() >= position + 2, "an operation of less than two bytes");
        position = reader.position();
        match &op {
            Op::Open(path) => assert_clean(path),
            Op::Add(n) => assert!(*n <= MAX_ADD),
            Op::Data(n) | Op::Copy(n) | Op::Seek(n) => assert!(i64::try_from(*n).is_ok()),
            Op::ZstdDict(n) => {
                assert!(i64::try_from(*n).is_ok());
                assert_eq!(reader.version(), Version::V2);
            }
        }
        if touch {
            let mut some = [0; 100];
            // An error comes again with the next operation.
            let _ = reader.payload().read(&mut some);
        }
        seen.push(op);
        if seen.len() >= ENOUGH_OPS || position >= ENOUGH_BYTES {
            return (seen, End::Enough);
        }
    }
}

/// The window that the first frame of a delta asks for.
fn outer_window(delta: &[u8]) -> u64 {
    delta.get(MAGIC_V1.len()..).and_then(frame::window).unwrap_or(0)
}

fn assert_clean(path: &[u8]) {
    assert!(path.len() as u64 <= MAX_PATH && !path.contains(&0), "{path:?}");
    for part in path.split(|&b| b == b'/') {
        assert!(!part.is_empty() && part != b"." && part != b"..", "{path:?}");
    }
}

fn as_op(o: &model::Operation<'_>) -> Op {
    match o.code {
        0 => Op::Data(o.size),
        1 => Op::Open(o.payload.to_vec()),
        2 => Op::Copy(o.size),
        3 => Op::Add(o.size),
        4 => Op::Seek(o.size),
        _ => Op::ZstdDict(o.size),
    }
}

/// Applies `data` to [`TREE`], in both forms.
///
/// * Never more output than the bound; the length that is reported is the length that was written.
/// * The same delta in small pieces gives the same; no window is above the bound.
/// * In the second form: output and verdict are those of [`model::apply`].
pub fn tardiff_apply(data: &[u8]) {
    let whole = run(data);
    let pieces = run(Pieces::new(data));
    let both = whole.output.len().min(pieces.output.len());
    assert!(whole.output[..both] == pieces.output[..both], "pieces give other bytes");
    assert_eq!(whole.error.is_some(), pieces.error.is_some(), "{:?} or {:?}", whole.error, pieces.error);
    assert!(whole.error.is_some() || whole.output == pieces.output, "pieces give another length");
    assert!(
        whole.error.is_some() || outer_window(data) <= 1 << LIMITS.max_window_log,
        "window above the bound"
    );

    let got = run(&*[&MAGIC_V2[..], &stored_frame(data)].concat());
    let want = model::apply(data, &TREE, &LIMITS);
    match got.error {
        None => {
            assert!(want.good, "accepted, but the model refuses it");
            assert!(got.output == want.output, "other output than the model's");
        }
        // The model reaches further back than a window.
        Some(Error::Frame { .. }) if want.good => {
            assert!(
                want.frames && want.output.starts_with(&got.output),
                "a frame that the model decodes otherwise"
            );
        }
        Some(Error::Frame { .. }) => {
            let both = want.output.len().min(got.output.len());
            assert!(want.output[..both] == got.output[..both], "other output than the model's");
        }
        Some(e) => {
            assert!(!want.good, "the model accepts it: {e}");
            assert!(got.output.starts_with(&want.output), "less output than the model's before {e}");
        }
    }
}

struct Run {
    output: Vec<u8>,
    error: Option<Error>,
}

fn run(delta: impl Read) -> Run {
    let mut sink = Sink { output: Vec::new(), flushed: false };
    let patience = Patience(AtomicU32::new(ENOUGH_OPS as u32));
    let result = apply(delta, &*TREE, &mut sink, &LIMITS, &patience);
    if let Ok(applied) = &result {
        assert_eq!(applied.output, sink.output.len() as u64, "reported and written");
        assert!(sink.flushed);
    }
    Run { output: sink.output, error: result.err() }
}

struct Sink {
    output: Vec<u8>,
    flushed: bool,
}

impl Write for Sink {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        assert!(self.output.len() as u64 <= LIMITS.max_output, "{} bytes of output", self.output.len());
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushed = true;
        Ok(())
    }
}

/// Asks to stop after some operations.
struct Patience(AtomicU32);

impl Observer for Patience {
    fn cancelled(&self) -> bool {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
        left == 0
    }
}
