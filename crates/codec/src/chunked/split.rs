//! tar-split: what stands between the contents of a tar (`docs/formats/chunked.md`, section 5).

use std::io::{self, BufRead, BufReader, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::compress::{FrameEnd, ZstdReader};
use crate::digest::Digest;

use super::toc::compare;
use super::{Crc64, Error, Limits, Part};

const FILE: u8 = 1;
const SEGMENT: u8 = 2;

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    name_raw: Option<String>,
    #[serde(default)]
    size: Option<i64>,
    #[serde(default)]
    payload: Option<String>,
}

/// A member, between stretches of framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    /// CRC of the content; of members with content alone.
    pub(super) crc: Option<u64>,
    /// Bytes of framing before it.
    pub(super) framing: usize,
}

/// All that is no content, and where contents go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarSplit {
    pub(super) framing: Vec<u8>,
    pub(super) members: Vec<Member>,
}

impl TarSplit {
    /// Reads the stored bytes of a tar-split with this digest.
    ///
    /// # Errors
    /// They are others, or break a rule.
    pub fn read(stored: &[u8], digest: &Digest, part: &Part, limits: &Limits) -> Result<Self, Error> {
        compare("the tar-split", stored, digest)?;
        if part.decoded > limits.decoded {
            let (what, actual, limit) = ("the tar-split", part.decoded, limits.decoded);
            return Err(Error::TooLarge { what, actual, limit });
        }
        let decoder = ZstdReader::new(stored, limits.window_log, FrameEnd::Stop);
        let mut lines = BufReader::with_capacity(64 << 10, decoder.take(part.decoded + 1));
        let mut split = TarSplit { framing: Vec::new(), members: Vec::new() };
        let (mut line, mut passed, mut number) = (Vec::new(), 0, 0);
        loop {
            line.clear();
            let n = lines.read_until(b'\n', &mut line)?;
            passed += n as u64;
            if passed > part.decoded || (n == 0 && passed < part.decoded) {
                return Err(Error::Length { what: "the tar-split".into() });
            }
            if n == 0 {
                return Ok(split);
            }
            if number >= 2 * limits.entries {
                let (what, limit) = ("the tar-split", 2 * limits.entries);
                return Err(Error::TooLarge { what, actual: number, limit });
            }
            split.line(&line).map_err(|what| Error::Split { line: number, what })?;
            number += 1;
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let line: Line = serde_json::from_slice(line).map_err(|_| "no JSON of the right form")?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| "no base64");
        let payload = line.payload.as_deref().map(decode).transpose()?.unwrap_or_default();
        match line.kind {
            SEGMENT => self.framing.extend_from_slice(&payload),
            FILE => {
                let name = match (line.name, line.name_raw) {
                    (Some(name), None) => name.into_bytes(),
                    (None, Some(raw)) => decode(&raw)?,
                    _ => return Err("a member without a name, or with two"),
                };
                let size = u64::try_from(line.size.unwrap_or(0)).map_err(|_| "a negative size")?;
                let crc = match <[u8; 8]>::try_from(payload.as_slice()) {
                    Ok(crc) if size > 0 => Some(u64::from_be_bytes(crc)),
                    Err(_) if size == 0 && payload.is_empty() => None,
                    _ => return Err("a checksum where none belongs, or none where one does"),
                };
                self.members.push(Member { name, size, crc, framing: self.framing.len() });
            }
            _ => return Err("unknown type"),
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: u8,
    payload: String,
    position: u64,
}

#[derive(Debug, Serialize)]
struct File<'a> {
    #[serde(rename = "type")]
    kind: u8,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    payload: Option<String>,
    position: u64,
}

/// Writes a tar-split into `out`.
#[derive(Debug)]
pub(super) struct SplitWriter<W> {
    out: W,
    position: u64,
    written: u64,
}

impl<W: Write> SplitWriter<W> {
    pub(super) fn new(out: W) -> Self {
        SplitWriter { out, position: 0, written: 0 }
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut json = serde_json::to_vec(line).map_err(io::Error::other)?;
        json.push(b'\n');
        self.position += 1;
        self.written += json.len() as u64;
        self.out.write_all(&json)
    }

    /// Bytes between contents.
    pub(super) fn segment(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.line(&Segment { kind: SEGMENT, payload: STANDARD.encode(bytes), position: self.position })
    }

    /// A member, whose content, if it has any, goes here.
    pub(super) fn member(&mut self, name: &str, size: u64, crc: Crc64) -> io::Result<()> {
        let payload = (size > 0).then(|| STANDARD.encode(crc.value().to_be_bytes()));
        let size = (size > 0).then_some(size);
        self.line(&File { kind: FILE, name, size, payload, position: self.position })
    }

    /// What it was written to, and its length.
    pub(super) fn finish(self) -> (W, u64) {
        (self.out, self.written)
    }
}
