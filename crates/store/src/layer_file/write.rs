//! Writing layer files.

use std::io::{self, Write};

use coracle_codec::digest::{Digest, Hashing};
use zstd_safe::{CCtx, CParameter, get_error_name};

use super::number::put;
use super::{END, FRAME, MAGIC};

/// Level of the frames. Headers shrink to a fiftieth with any, and what is left is small.
const LEVEL: i32 = 3;

/// The table of a layer, as it grows: section 4.3.
#[derive(Debug, Default)]
pub(crate) struct Table {
    objects: u64,
    pieces: Vec<u8>,
    files: u64,
    entries: Vec<u8>,
    /// Where the last listed file ends in the tar.
    file_end: u64,
    /// Inline bytes since the last object.
    open: u64,
    /// All bytes of the tar so far.
    size: u64,
}

impl Table {
    /// `len` more bytes are inline.
    pub fn inline(&mut self, len: u64) {
        self.open += len;
        self.size += len;
    }

    /// The next `len` bytes, at least one, are an object.
    pub fn object(&mut self, digest: &Digest, len: u64) {
        debug_assert!(len > 0, "an object without bytes");
        put(&mut self.pieces, self.open);
        put(&mut self.pieces, len);
        self.pieces.extend_from_slice(digest.as_bytes());
        self.objects += 1;
        self.open = 0;
        self.size += len;
    }

    /// The `len` bytes from `offset` of the tar on are those of the regular file `path`. In the order of the tar.
    pub fn file(&mut self, path: &[u8], offset: u64, len: u64) {
        put(&mut self.entries, path.len() as u64);
        self.entries.extend_from_slice(path);
        put(&mut self.entries, offset - self.file_end);
        put(&mut self.entries, len);
        self.files += 1;
        self.file_end = offset + len;
    }

    /// Bytes of the tar so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    fn finish(self, diff_id: &Digest, frames: &[u64]) -> Vec<u8> {
        let mut out = diff_id.as_bytes().to_vec();
        put(&mut out, self.size);
        put(&mut out, self.objects);
        out.extend_from_slice(&self.pieces);
        put(&mut out, self.open);
        frames.iter().for_each(|len| put(&mut out, *len));
        put(&mut out, self.files);
        out.extend_from_slice(&self.entries);
        // No sections.
        put(&mut out, 0);
        out
    }
}

/// What a finished layer file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the tar.
    pub size: u64,
    /// Bytes of it that are inline.
    pub inline: u64,
    /// Places that objects have in it.
    pub objects: u64,
    /// Regular files.
    pub files: u64,
    /// Bytes of the layer file.
    pub stored: u64,
}

/// Writes a layer file front to back. The same calls give the same bytes.
pub struct Writer<W> {
    out: Hashing<W>,
    ctx: CCtx<'static>,
    /// The next frame, not compressed yet.
    frame: Vec<u8>,
    packed: Vec<u8>,
    frames: Vec<u64>,
    inline: u64,
}

impl<W> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("inline", &self.inline).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a layer file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut out = Hashing::new(out);
        out.write_all(&MAGIC)?;
        Ok(Writer {
            out,
            ctx: context(),
            frame: Vec::with_capacity(FRAME),
            packed: Vec::with_capacity(zstd_safe::compress_bound(FRAME)),
            frames: Vec::new(),
            inline: 0,
        })
    }

    /// Takes bytes of the tar that are no object, in order.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn inline(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(FRAME - self.frame.len()));
            self.frame.extend_from_slice(now);
            self.inline += now.len() as u64;
            bytes = rest;
            if self.frame.len() == FRAME {
                self.end_frame()?;
            }
        }
        Ok(())
    }

    /// Writes frames, table and footer to their end.
    ///
    /// # Errors
    /// Those of `out`.
    pub(crate) fn finish(mut self, table: Table, diff_id: &Digest) -> io::Result<(W, Summary)> {
        debug_assert!(table.size >= self.inline, "more inline bytes than bytes");
        if !self.frame.is_empty() {
            self.end_frame()?;
        }
        let (size, objects, files) = (table.size, table.objects, table.files);
        let table = table.finish(diff_id, &self.frames);
        let offset = self.out.passed();
        let packed = compress(&mut self.ctx, &table, Vec::new());
        self.out.write_all(&packed)?;
        self.out.write_all(&offset.to_le_bytes())?;
        self.out.write_all(&(table.len() as u64).to_le_bytes())?;
        let digest = self.out.digest();
        self.out.write_all(digest.as_bytes())?;
        self.out.write_all(&END)?;
        let (out, _, stored) = self.out.finish();
        Ok((out, Summary { size, inline: self.inline, objects, files, stored }))
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.packed = compress(&mut self.ctx, &self.frame, std::mem::take(&mut self.packed));
        self.frame.clear();
        self.frames.push(self.packed.len() as u64);
        self.out.write_all(&self.packed)
    }
}

fn context() -> CCtx<'static> {
    let mut ctx = CCtx::create();
    for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ChecksumFlag(true)] {
        ctx.set_parameter(parameter)
            .unwrap_or_else(|code| unreachable!("zstd parameter: {}", get_error_name(code)));
    }
    ctx
}

/// `data` as one frame, in the memory of `out`.
fn compress(ctx: &mut CCtx<'_>, data: &[u8], mut out: Vec<u8>) -> Vec<u8> {
    out.clear();
    out.reserve(zstd_safe::compress_bound(data.len()));
    ctx.compress2(&mut out, data)
        .unwrap_or_else(|code| unreachable!("compressing {} bytes: {}", data.len(), get_error_name(code)));
    out
}
