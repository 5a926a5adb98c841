//! Writing a TOC, entry by entry.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::digest::Digest;
use crate::tar::Time;

use super::{Chunk, Entry, Error, Family, time::rfc3339};

/// An entry as it is written: what is empty or zero is left out.
#[derive(Debug, Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    link_name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    mode: i64,
    #[serde(skip_serializing_if = "is_zero")]
    size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: i64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    modtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accesstime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changetime: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: i64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    user_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    group_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    xattrs: Option<std::collections::BTreeMap<&'a str, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    offset: i64,
    #[serde(skip_serializing_if = "is_zero")]
    end_offset: i64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    chunk_digest: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    chunk_type: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The digest of no bytes, which eStargz states for empty files.
const EMPTY: &[u8] = b"";

/// Writes the document into `out`.
#[derive(Debug)]
pub(in super::super) struct TocWriter<W> {
    out: W,
    family: Family,
    entries: u64,
    written: u64,
}

impl<W: Write> TocWriter<W> {
    pub(in super::super) fn new(out: W, family: Family) -> io::Result<Self> {
        let mut writer = TocWriter { out, family, entries: 0, written: 0 };
        writer.put(b"{\"version\":1,\"entries\":[")?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn raw(&mut self, raw: &Raw<'_>) -> Result<(), Error> {
        let json = serde_json::to_vec(raw)
            .map_err(|error| Error::Json { what: "the TOC", reason: error.to_string() })?;
        if self.entries > 0 {
            self.put(b",")?;
        }
        self.entries += 1;
        Ok(self.put(&json)?)
    }

    /// Adds a member, with its chunks.
    pub(in super::super) fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        let stargz = self.family == Family::Stargz;
        let unsupported = |what| Error::Unsupported { name: entry.name.clone(), what };
        let number = |number: u64| i64::try_from(number).map_err(|_| unsupported("it is too large"));
        let time = |time: Option<Time>| match time {
            None => Ok(None),
            // Readers take its absence for it.
            Some(time) if time == Time::default() => Ok(None),
            Some(time) => {
                rfc3339(&time).map(Some).ok_or(unsupported("a time in a year of other than four digits"))
            }
        };
        let several = entry.chunks.len() > 1;
        let chunk_fields = |raw: &mut Raw<'_>, chunk: &Chunk| {
            raw.offset = number(chunk.stored.start)?;
            if several {
                let last = chunk.offset + chunk.size == entry.size;
                raw.chunk_size = if stargz && last { 0 } else { number(chunk.size)? };
                raw.chunk_offset = number(chunk.offset)?;
            }
            if several || stargz {
                raw.chunk_digest = chunk.digest.map(|digest| digest.to_string());
            }
            if chunk.zeros && several && !stargz {
                raw.chunk_type = "zeros";
            }
            Ok::<(), Error>(())
        };
        let xattrs = entry.xattrs.iter().map(|(name, value)| (name.as_str(), STANDARD.encode(value)));
        let mut raw = Raw {
            kind: entry.kind.name(),
            name: &entry.name,
            link_name: &entry.link_name,
            mode: entry.mode,
            size: number(entry.size)?,
            uid: entry.uid,
            gid: entry.gid,
            modtime: time(Some(entry.mtime))?,
            accesstime: if stargz { None } else { time(entry.atime)? },
            changetime: if stargz { None } else { time(entry.ctime)? },
            dev_major: entry.device.0,
            dev_minor: entry.device.1,
            user_name: if stargz { &entry.user_name } else { "" },
            group_name: if stargz { &entry.group_name } else { "" },
            xattrs: (!entry.xattrs.is_empty()).then(|| xattrs.collect()),
            digest: entry.digest.map(|digest| digest.to_string()),
            ..Raw::default()
        };
        if stargz && entry.kind == super::EntryKind::File && entry.size == 0 {
            raw.digest = Some(Digest::of(EMPTY).to_string());
        }
        if let (Some(first), Some(last)) = (entry.chunks.first(), entry.chunks.last()) {
            chunk_fields(&mut raw, first)?;
            raw.end_offset = if stargz { 0 } else { number(last.stored.end)? };
        }
        self.raw(&raw)?;
        for chunk in entry.chunks.iter().skip(1) {
            let mut raw = Raw { kind: "chunk", name: &entry.name, ..Raw::default() };
            chunk_fields(&mut raw, chunk)?;
            self.raw(&raw)?;
        }
        Ok(())
    }

    /// Ends the document. Its length comes with what it was written to.
    pub(in super::super) fn finish(mut self, split: Option<Digest>) -> io::Result<(W, u64)> {
        match split {
            Some(split) => self.put(format!("],\"tarSplitDigest\":\"{split}\"}}").as_bytes())?,
            None => self.put(b"]}")?,
        }
        Ok((self.out, self.written))
    }
}
