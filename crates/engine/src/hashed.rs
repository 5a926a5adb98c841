//! Writing and hashing beside the work that makes the bytes.

use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use coracle_codec::digest::{Digest, Hashing};

/// Bytes handed over at once, and how many such blocks are under way at most.
const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 8;

/// Gives `work` a writer, hashes what it writes and passes it on to `out`; on a second thread if there may be one.
/// Returns what `work` returned and the digest, or the error of writing to `out`, which comes first.
pub(crate) fn hashed<W: Write + Send, R>(
    out: W,
    threads: NonZeroUsize,
    work: impl FnOnce(&mut dyn Write) -> R,
) -> (R, io::Result<Digest>) {
    if threads.get() == 1 {
        let mut out = Hashing::new(BufWriter::with_capacity(BLOCK, out));
        let result = work(&mut out);
        let flushed = out.flush();
        return (result, flushed.map(|()| out.finish().1));
    }
    std::thread::scope(|scope| {
        let (full, blocks) = sync_channel::<Vec<u8>>(BLOCKS);
        let (give_back, empty) = channel();
        let sink = scope.spawn(move || {
            let mut out = Hashing::new(out);
            for mut block in blocks {
                out.write_all(&block)?;
                block.clear();
                // Nobody wants it back at the end.
                let _ = give_back.send(block);
            }
            out.flush()?;
            Ok(out.finish().1)
        });
        let mut feeder = Feeder { full, empty, block: Vec::with_capacity(BLOCK) };
        let result = work(&mut feeder);
        // A refusal means that the sink has failed; its own error says why.
        let _ = feeder.flush();
        drop(feeder);
        let digest = sink.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, digest)
    })
}

struct Feeder {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
    block: Vec<u8>,
}

impl Write for Feeder {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        let block = std::mem::replace(&mut self.block, next);
        self.full.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
    }

    #[test]
    fn both_ways_give_the_same() {
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        for n in [1, 2] {
            let mut out = Vec::new();
            let (result, digest) =
                hashed(&mut out, threads(n), |w| data.chunks(70_001).try_for_each(|c| w.write_all(c)));
            assert!(result.is_ok() && out == data, "{n} threads");
            assert_eq!(digest.ok(), Some(Digest::of(&data)));
        }
    }

    #[test]
    fn a_full_disk_is_told() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(buf.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for n in [1, 2] {
            let (_, digest) =
                hashed(Full(1 << 20), threads(n), |w| (0..100).try_for_each(|_| w.write_all(&[0; 100_000])));
            assert_eq!(digest.map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull), "{n} threads");
        }
    }
}
