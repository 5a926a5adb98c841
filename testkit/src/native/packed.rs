//! Streams of xz, zstd and lz4 (sections 8.5, 8.6 and 8.10). The libraries that section 8.7 names do the coding; what stands
//! around it is written here once more.

use aws_lc_rs::digest::{SHA256, digest};
use liblzma::stream::{Action, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};
use zstd_safe::zstd_sys::ZSTD_EndDirective as Directive;
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};

use super::tokens::Tokens;
use super::{Bytes, deflate};

/// An encoder: what stands in the plan (section 8.2).
pub(super) enum Encoder {
    Deflate(u64),
    /// Preset, and the seven fields of section 8.5.
    Xz(u32, [u64; 7]),
    /// Level and the two fields of section 8.6.
    Zstd(i32, u64, u32),
    /// Number.
    Tokens(u64),
    /// The two bytes in front, bytes of a chunk, and what makes the stream.
    Png(u64, u64, Box<Encoder>),
    /// Level.
    Lz4(i32),
}

impl Encoder {
    pub(super) fn read(plan: &mut Bytes<'_>) -> Result<Self, String> {
        let number = plan.number()?;
        let v = (number % 256) as u32;
        match number / 256 {
            2 if v < 32 && v % 16 <= 6 => {
                let mut fields = [0; 7];
                for field in &mut fields {
                    *field = plan.number()?;
                }
                let preset = (v % 16) | if v >= 16 { PRESET_EXTREME } else { 0 };
                Ok(Encoder::Xz(preset, fields))
            }
            3 if (1..=22).contains(&v) => Ok(Encoder::Zstd(v as i32, plan.number()?, plan.number()? as u32)),
            7 if (3..=12).contains(&v) => Ok(Encoder::Lz4(v as i32)),
            0 | 1 | 4 => Ok(Encoder::Deflate(number)),
            5 => Ok(Encoder::Tokens(number)),
            6 if v == 0 => {
                let (front, piece) = (plan.number()?, plan.number()?);
                match Encoder::read(plan)? {
                    inner @ (Encoder::Deflate(_) | Encoder::Tokens(_)) => {
                        Ok(Encoder::Png(front, piece, Box::new(inner)))
                    }
                    _ => Err("no deflate in an image".into()),
                }
            }
            _ => Err(format!("encoder {number}")),
        }
    }

    pub(super) fn names(&self) -> Vec<&'static str> {
        match self {
            Encoder::Deflate(number) if number / 256 == 4 => vec!["zlib-filtered"],
            Encoder::Deflate(_) => vec![],
            Encoder::Xz(..) => vec!["liblzma-5.8.4"],
            Encoder::Zstd(..) => vec!["zstd-1.5.7"],
            Encoder::Lz4(_) => vec!["liblz4-1.10.0"],
            Encoder::Tokens(_) => vec!["deflate-tokens-1"],
            Encoder::Png(_, _, inner) => [vec!["png-chunks-1"], inner.names()].concat(),
        }
    }

    /// Whether it needs tokens.
    pub(super) fn has_tokens(&self) -> bool {
        match self {
            Encoder::Tokens(_) => true,
            Encoder::Png(_, _, inner) => inner.has_tokens(),
            _ => false,
        }
    }

    /// A stream of `len` bytes.
    pub(super) fn encode(
        &self,
        content: &[u8],
        len: usize,
        tokens: &mut Option<Tokens<'_>>,
    ) -> Result<Vec<u8>, String> {
        match self {
            Encoder::Deflate(number) => deflate::encode(content, *number),
            Encoder::Xz(preset, fields) => xz(content, *preset, *fields),
            Encoder::Zstd(level, flags, window) => zstd(content, *level, *flags, *window),
            Encoder::Lz4(level) => lz4(content, *level),
            Encoder::Tokens(number) => {
                tokens.as_mut().ok_or("tokens are missing")?.stream(content, *number, len)
            }
            Encoder::Png(front, piece, inner) => {
                chunks(&inner.encode(content, len, tokens)?, content, *front, *piece)
            }
        }
    }
}

/// Section 8.9.
fn chunks(stream: &[u8], content: &[u8], front: u64, piece: u64) -> Result<Vec<u8>, String> {
    if front > 65_535 || piece == 0 || piece >= 1 << 31 {
        return Err("fields of an image".into());
    }
    let (mut a, mut b) = (1, 0);
    for &byte in content {
        a = (a + u32::from(byte)) % 65_521;
        b = (a + b) % 65_521;
    }
    let data = [&(front as u16).to_be_bytes()[..], stream, &(b << 16 | a).to_be_bytes()].concat();
    let mut out = Vec::new();
    for data in data.chunks(piece as usize) {
        let chunk = [b"IDAT", data].concat();
        let mut sum = crc(&chunk);
        sum.reverse();
        out.extend([&(data.len() as u32).to_be_bytes()[..], &chunk, &sum].concat());
    }
    Ok(out)
}

/// The content of a view of kind 6: chunks of an image.
pub(super) fn unchunk(mut bytes: &[u8], len: u64) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    while !bytes.is_empty() {
        let mut chunk = Bytes(bytes);
        let size = chunk.take(4)?.iter().fold(0, |n, &b| n << 8 | u64::from(b));
        if chunk.take(4)? != b"IDAT" {
            return Err("another chunk".into());
        }
        data.extend_from_slice(chunk.take(size)?);
        chunk.take(4)?;
        bytes = chunk.0;
    }
    let stream = data.get(2..data.len().saturating_sub(4)).ok_or("chunks of too few bytes")?;
    super::inflate(stream, len)
}

/// Section 8.5.
fn xz(content: &[u8], preset: u32, fields: [u64; 7]) -> Result<Vec<u8>, String> {
    let [dictionary, properties, filter, declared, check, block, header] = fields;
    if content.is_empty() || !(12..=26).contains(&dictionary) || properties >= 225 || declared > 40 {
        return Err("fields of an xz encoder".into());
    }
    let (lc, lp, pb) = (properties % 9, properties / 9 % 5, properties / 45);
    let mut options = LzmaOptions::new_preset(preset).map_err(|e| e.to_string())?;
    options.dict_size(1 << dictionary);
    options.literal_context_bits(lc as u32).literal_position_bits(lp as u32).position_bits(pb as u32);
    let flags = [0, check as u8];
    let mut out = [&b"\xfd7zXZ\0"[..], &flags, &crc(&flags)].concat();
    let mut records = Vec::new();
    let size = if block == 0 { content.len() } else { block as usize };
    for piece in content.chunks(size) {
        let mut coder = Stream::new_raw_encoder(&chain(filter, &options)?).map_err(|e| e.to_string())?;
        let data = process(&mut coder, piece, piece.len() * 2 + 1024)?;
        // The header of a block.
        let mut head = vec![0, u8::from(filter != 0) + if header == 0 { 0 } else { 0xc0 }];
        if header != 0 {
            put(&mut head, data.len());
            put(&mut head, piece.len());
        }
        if filter != 0 {
            head.extend([filter as u8, 0]);
        }
        head.extend([0x21, 1, declared as u8]);
        let len = if header == 0 { (head.len() + 7) / 4 * 4 } else { header as usize * 4 };
        if head.len() + 4 > len {
            return Err("a block header is too short".into());
        }
        head.resize(len - 4, 0);
        head[0] = (len / 4 - 1) as u8;
        let sum = crc(&head);
        let check = match check {
            0 => Vec::new(),
            1 => crc(piece).to_vec(),
            4 => crc64(piece).to_vec(),
            10 => digest(&SHA256, piece).as_ref().to_vec(),
            _ => return Err("unknown check".into()),
        };
        records.push((len + data.len() + check.len(), piece.len()));
        out = [out, head, sum.to_vec(), data].concat();
        pad(&mut out);
        out.extend(check);
    }
    let mut index = vec![0];
    put(&mut index, records.len());
    for (unpadded, content) in records {
        put(&mut index, unpadded);
        put(&mut index, content);
    }
    pad(&mut index);
    let footer = [&(index.len() as u32 / 4).to_le_bytes()[..], &flags].concat();
    let sum = crc(&index);
    out = [out, index, sum.to_vec(), crc(&footer).to_vec(), footer, b"YZ".to_vec()].concat();
    Ok(out)
}

fn chain(filter: u64, options: &LzmaOptions) -> Result<Filters, String> {
    let mut filters = Filters::new();
    match filter {
        0 => &mut filters,
        4 => filters.x86(),
        5 => filters.powerpc(),
        7 => filters.arm(),
        8 => filters.arm_thumb(),
        9 => filters.sparc(),
        10 => filters.arm64(),
        11 => filters.riscv(),
        _ => return Err("unknown filter".into()),
    }
    .lzma2(options);
    Ok(filters)
}

fn process(coder: &mut Stream, input: &[u8], room: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(room);
    match coder.process_vec(input, &mut out, Action::Finish) {
        Ok(Status::StreamEnd) => Ok(out),
        other => Err(format!("liblzma: {other:?}")),
    }
}

/// Section 8.6.
fn zstd(content: &[u8], level: i32, flags: u64, window: u32) -> Result<Vec<u8>, String> {
    let text = |code| zstd_safe::get_error_name(code).to_owned();
    let mut coder = CCtx::create();
    let sized = flags & 2 != 0;
    let mut parameters = vec![
        CParameter::CompressionLevel(level),
        CParameter::ChecksumFlag(flags & 1 != 0),
        CParameter::NbWorkers(u32::from(flags & 4 != 0)),
        CParameter::EnableLongDistanceMatching(flags & 8 != 0),
    ];
    if flags & 8 == 0 {
        parameters.pop();
    }
    if window != 0 {
        parameters.push(CParameter::WindowLog(window));
    }
    for parameter in parameters {
        coder.set_parameter(parameter).map_err(text)?;
    }
    coder.set_pledged_src_size(sized.then_some(content.len() as u64)).map_err(text)?;
    let mut pieces: Vec<&[u8]> = content.chunks(131_072).collect();
    if !sized || pieces.is_empty() {
        pieces.push(&[]);
    }
    let mut out = Vec::with_capacity(zstd_safe::compress_bound(content.len()) + 1024);
    let last = pieces.len() - 1;
    for (i, piece) in pieces.into_iter().enumerate() {
        let mut input = InBuffer::around(piece);
        loop {
            let at = out.len();
            let mut output = OutBuffer::around_pos(&mut out, at);
            let directive = if i == last { Directive::ZSTD_e_end } else { Directive::ZSTD_e_continue };
            let left = coder.compress_stream2(&mut output, &mut input, directive).map_err(text)?;
            if input.pos() == piece.len() && (i < last || left == 0) {
                break;
            }
        }
    }
    Ok(out)
}

/// Section 8.10.
fn lz4(content: &[u8], level: i32) -> Result<Vec<u8>, String> {
    let mut out = vec![2, 0x21, 0x4c, 0x18];
    for block in content.chunks(1 << 23) {
        let mode = lz4::block::CompressionMode::HIGHCOMPRESSION(level);
        let block = lz4::block::compress(block, Some(mode), false).map_err(|e| e.to_string())?;
        out.extend((block.len() as u32).to_le_bytes());
        out.extend(block);
    }
    Ok(out)
}

/// The content of a view of kind 7: a legacy frame of LZ4.
pub(super) fn unlz4(frame: &[u8], len: u64) -> Result<Vec<u8>, String> {
    let mut rest = Bytes(frame);
    if rest.take(4)? != [2, 0x21, 0x4c, 0x18] {
        return Err("no frame of lz4".into());
    }
    let mut out = Vec::new();
    while !rest.0.is_empty() {
        if !out.len().is_multiple_of(1 << 23) {
            return Err("a short block of lz4".into());
        }
        let size = rest.take(4)?.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        let block = lz4::block::decompress(rest.take(size)?, Some(1 << 23)).map_err(|e| e.to_string())?;
        if block.is_empty() {
            return Err("a block of lz4 without content".into());
        }
        out.extend(block);
    }
    if out.len() as u64 == len { Ok(out) } else { Err("an lz4 view has another length".into()) }
}

/// The content of a view of kind 4: a stream of xz.
pub(super) fn unxz(stream: &[u8], len: u64) -> Result<Vec<u8>, String> {
    let mut coder = Stream::new_stream_decoder(1 << 30, 0).map_err(|e| e.to_string())?;
    let content = process(&mut coder, stream, len as usize + 1)?;
    if content.len() as u64 == len { Ok(content) } else { Err("an xz view has another length".into()) }
}

/// The content of a view of kind 5: a zstd frame.
pub(super) fn unzstd(frame: &[u8], len: u64) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(len as usize + 1);
    zstd_safe::decompress(&mut out, frame).map_err(|e| zstd_safe::get_error_name(e).to_owned())?;
    if out.len() as u64 == len { Ok(out) } else { Err("a zstd view has another length".into()) }
}

fn pad(out: &mut Vec<u8>) {
    while !out.len().is_multiple_of(4) {
        out.push(0);
    }
}

fn put(out: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        out.push((value % 128) as u8 + 128);
        value /= 128;
    }
    out.push(value as u8);
}

fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}

fn crc64(bytes: &[u8]) -> [u8; 8] {
    let mut crc = u64::MAX;
    for &byte in bytes {
        crc ^= u64::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xc96c_5795_d787_0f42 } else { 0 };
        }
    }
    (!crc).to_le_bytes()
}
