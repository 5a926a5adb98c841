//! The data of an image in several chunks: one deflate stream in pieces (`docs/formats/native-delta.md`, section 8.9).

use crate::native::Error;
use crate::native::deflate::{self, coded};
use crate::native::numbers::{Fields, put};

/// Number of the family (section 8.2), and its name (section 8.7).
pub(super) const FAMILY: u64 = 6;
pub(crate) const NAME: &str = "png-chunks-1";

/// Bytes of a chunk around its data: length and type, and the checksum.
const AROUND: usize = 12;
const HEAD: usize = 8;
const KIND: &[u8; 4] = b"IDAT";
/// Bytes around the deflate stream (RFC 1950): two in front, a checksum behind it.
const FRONT: usize = 2;
const BACK: usize = 4;

/// What stands around the stream and cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    /// The two bytes in front of the stream, big endian.
    pub header: u16,
    /// Bytes of data of all chunks but the last.
    pub piece: u32,
}

/// What made the deflate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// Families 0, 1 and 4.
    Known(deflate::Encoder),
    /// Family 5.
    Tokens(coded::Settings),
}

impl Inner {
    /// Reads the number.
    fn read(fields: &mut Fields<'_>) -> Result<Self, Error> {
        let number = fields.number()?;
        match number >> 8 {
            coded::FAMILY => coded::Settings::of(number).map(Inner::Tokens),
            _ => deflate::Encoder::of(number).map(Inner::Known),
        }
    }
}

/// Reads the fields behind the number, whose lowest byte is `low`.
pub(super) fn read(low: u64, fields: &mut Fields<'_>) -> Result<(Chunks, Inner), Error> {
    if low != 0 {
        return Err(Error::Unknown { what: "png encoder", value: low });
    }
    let header = fields.at_most(0xffff, "header of a zlib stream")? as u16;
    let piece = fields.at_most(i32::MAX as u64, "data of a chunk")? as u32;
    if piece == 0 {
        return Err(Error::Unknown { what: "data of a chunk", value: 0 });
    }
    Ok((Chunks { header, piece }, Inner::read(fields)?))
}

/// Appends the number and the fields.
pub(super) fn write(chunks: Chunks, inner: Inner, out: &mut Vec<u8>) {
    [FAMILY << 8, chunks.header.into(), chunks.piece.into()].into_iter().for_each(|n| put(out, n));
    put(
        out,
        match inner {
            Inner::Known(encoder) => encoder.number(),
            Inner::Tokens(settings) => settings.number(),
        },
    );
}

impl Chunks {
    /// The chunks of a stream with this content, if they are no longer than `most` bytes.
    pub(crate) fn cut(&self, stream: &[u8], content: &[u8], most: usize) -> Option<Vec<u8>> {
        let data = [&self.header.to_be_bytes()[..], stream, &adler32(content).to_be_bytes()].concat();
        let piece = self.piece as usize;
        let len = data.len() + data.len().div_ceil(piece).checked_mul(AROUND)?;
        if len > most {
            return None;
        }
        let mut out = Vec::with_capacity(len);
        for data in data.chunks(piece) {
            out.extend_from_slice(&(data.len() as u32).to_be_bytes());
            let start = out.len();
            out.extend_from_slice(KIND);
            out.extend_from_slice(data);
            let mut crc = flate2::Crc::new();
            crc.update(&out[start..]);
            out.extend_from_slice(&crc.sum().to_be_bytes());
        }
        Some(out)
    }
}

/// The deflate stream in some chunks, and how it was cut; `None` if they are no whole chunks of data.
pub(crate) fn join(bytes: &[u8]) -> Option<(Vec<u8>, Chunks)> {
    let (mut data, mut rest, mut piece) = (Vec::new(), bytes, 0);
    while !rest.is_empty() {
        let (head, behind) = rest.split_at_checked(HEAD)?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        if head[4..] != KIND[..] {
            return None;
        }
        data.extend_from_slice(behind.get(..len as usize)?);
        rest = behind.get(len as usize + AROUND - HEAD..)?;
        if piece == 0 {
            piece = len;
        }
    }
    let header = u16::from_be_bytes([*data.first()?, *data.get(1)?]);
    let stream = data.get(FRONT..data.len().checked_sub(BACK)?)?.to_vec();
    Some((stream, Chunks { header, piece }))
}

/// The checksum of RFC 1950.
fn adler32(content: &[u8]) -> u32 {
    let (mut a, mut b) = (1u32, 0u32);
    // So many bytes cannot overflow a sum.
    for piece in content.chunks(5552) {
        for &byte in piece {
            a += u32::from(byte);
            b += a;
        }
        (a, b) = (a % 65521, b % 65521);
    }
    b << 16 | a
}
