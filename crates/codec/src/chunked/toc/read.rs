//! Reading a TOC.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::digest::Digest;
use crate::tar::Time;

use super::{Chunk, Entry, EntryKind, Error, Family, Limits, Toc, time};

/// An entry as it is written.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    link_name: String,
    mode: i64,
    size: i64,
    uid: i64,
    gid: i64,
    modtime: Option<String>,
    accesstime: Option<String>,
    changetime: Option<String>,
    dev_major: i64,
    dev_minor: i64,
    user_name: String,
    group_name: String,
    xattrs: Option<BTreeMap<String, String>>,
    digest: String,
    offset: i64,
    end_offset: i64,
    chunk_size: i64,
    chunk_offset: i64,
    chunk_digest: String,
    chunk_type: String,
    inner_offset: i64,
}

/// The document, its list of entries bounded.
struct Document<'a>(&'a Limits);

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = (Vec<Raw>, Option<String>);

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
    type Value = (Vec<Raw>, Option<String>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut entries, mut split) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "entries" if entries.is_none() => entries = Some(map.next_value_seed(Entries(self.0))?),
                "tarSplitDigest" if split.is_none() => split = Some(map.next_value::<String>()?),
                "entries" | "tarSplitDigest" => {
                    return Err(de::Error::custom(format!("{key} stands there twice")));
                }
                _ => {
                    map.next_value::<de::IgnoredAny>()?;
                }
            }
        }
        Ok((entries.unwrap_or_default(), split.filter(|split| !split.is_empty())))
    }
}

struct Entries<'a>(&'a Limits);

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = Vec<Raw>;

    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = Vec<Raw>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = seq.next_element()? {
            if entries.len() as u64 >= self.0.entries {
                return Err(de::Error::custom(format!("more than {} entries", self.0.entries)));
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

pub(super) fn parse(json: &[u8], family: Family, data_end: u64, limits: &Limits) -> Result<Toc, Error> {
    let bad = |error: serde_json::Error| Error::Json { what: "the TOC", reason: error.to_string() };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let (raw, split) = Document(limits).deserialize(&mut deserializer).map_err(bad)?;
    deserializer.end().map_err(bad)?;
    let split = match split {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| Error::Json {
            what: "the TOC",
            reason: "tarSplitDigest is no sha256 digest".into(),
        })?),
    };
    let ends = ends(&raw, data_end);
    let mut reading = Reading {
        family,
        data_end,
        limits,
        total: 0,
        names: HashSet::new(),
        entries: Vec::new(),
        ends_said: true,
    };
    let mut at = 0;
    while at < raw.len() {
        let parts = raw[at + 1..].iter().take_while(|raw| raw.kind == "chunk").count();
        let own = u64::try_from(raw[at + parts].offset).unwrap_or(0);
        let (next, other) = ends[at + 1 + parts];
        // Contents that follow share its member only in eStargz, and then begin where it begins.
        let end = if next == own { other } else { next };
        reading.entry(&raw[at..=at + parts], end)?;
        at += 1 + parts;
    }
    Ok(Toc { entries: reading.entries, split, ends_said: reading.ends_said })
}

/// For each entry where the first content at or behind it begins, and the first one after that which begins elsewhere:
/// the end of a content that does not say its own.
fn ends(raw: &[Raw], data_end: u64) -> Vec<(u64, u64)> {
    let mut ends = vec![(data_end, data_end)];
    for raw in raw.iter().rev() {
        let (next, other) = ends.last().copied().unwrap_or((data_end, data_end));
        ends.push(match u64::try_from(raw.offset) {
            Ok(start) if start > 0 && start != next => (start, next),
            _ => (next, other),
        });
    }
    ends.reverse();
    ends
}

struct Reading<'a> {
    family: Family,
    data_end: u64,
    limits: &'a Limits,
    /// Bytes of all contents.
    total: u64,
    /// Names in normal form.
    names: HashSet<Vec<u8>>,
    entries: Vec<Entry>,
    /// Whether each content says where it ends.
    ends_said: bool,
}

impl Reading<'_> {
    /// An entry and the chunks behind it. `end` is where its last chunk ends at the latest.
    fn entry(&mut self, raw: &[Raw], end: u64) -> Result<(), Error> {
        let (first, chunks) = raw.split_first().unwrap_or_else(|| unreachable!("never empty"));
        let bad = |what| Error::Entry { name: first.name.clone(), what };
        let kind = EntryKind::named(&first.kind).ok_or(bad("unknown type"))?;
        self.check_name(&first.name).map_err(bad)?;
        let number = |number: i64| u64::try_from(number).map_err(|_| bad("a negative number"));
        let time = |text: &Option<String>| match text {
            None => Ok(None),
            // What Go writes for no time at all.
            Some(text) if text == "0001-01-01T00:00:00Z" => Ok(None),
            Some(text) => time::parse(text).map(Some).ok_or(bad("a time that is none")),
        };
        let digest = |text: &str| match text {
            "" => Ok(None),
            text => text.parse::<Digest>().map(Some).map_err(|_| bad("a digest that is none")),
        };
        let mut xattrs = BTreeMap::new();
        for (name, value) in first.xattrs.iter().flatten() {
            let value = STANDARD.decode(value).map_err(|_| bad("an extended attribute that is no base64"))?;
            xattrs.insert(name.clone(), value);
        }
        let mut entry = Entry {
            kind,
            name: first.name.clone(),
            link_name: first.link_name.clone(),
            mode: first.mode,
            size: number(first.size)?,
            uid: first.uid,
            gid: first.gid,
            mtime: time(&first.modtime)?.unwrap_or(Time::default()),
            atime: time(&first.accesstime)?,
            ctime: time(&first.changetime)?,
            device: (first.dev_major, first.dev_minor),
            user_name: first.user_name.clone(),
            group_name: first.group_name.clone(),
            xattrs,
            digest: None,
            chunks: Vec::new(),
        };
        let has_content = kind == EntryKind::File && entry.size > 0;
        if !has_content && !chunks.is_empty() {
            return Err(bad("chunks of something that has no content"));
        }
        if has_content {
            self.ends_said &= first.end_offset > 0;
            self.total = self.total.saturating_add(entry.size);
            if self.total > self.limits.tar {
                return Err(Error::TooLarge { what: "the tar", actual: self.total, limit: self.limits.tar });
            }
            entry.digest = Some(digest(&first.digest)?.ok_or(bad("a content without a digest"))?);
            entry.chunks = self.chunks(raw, &entry, end).map_err(bad)?;
            for (chunk, raw) in entry.chunks.iter_mut().zip(raw) {
                chunk.digest = digest(&raw.chunk_digest)?;
            }
            match entry.chunks.as_mut_slice() {
                // One chunk is the content. A digest of its own can only be the same.
                [one] if one.digest.is_none() || one.digest == entry.digest => one.digest = entry.digest,
                [_] => return Err(bad("the only chunk has another digest than the content")),
                all if all.iter().any(|chunk| chunk.digest.is_none()) => {
                    return Err(bad("a chunk without a digest"));
                }
                _ => {}
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// No name that is read in different ways, and none twice.
    fn check_name(&mut self, name: &str) -> Result<(), &'static str> {
        if name.contains('\0') {
            return Err("a NUL byte in the name");
        }
        let mut normal = Vec::with_capacity(name.len());
        for part in name.split('/') {
            match part {
                "" | "." => {}
                ".." => return Err("the name leads out of the tree"),
                part => {
                    normal.push(b'/');
                    normal.extend_from_slice(part.as_bytes());
                }
            }
        }
        if name.is_empty() {
            return Err("no name");
        }
        if self.names.insert(normal) { Ok(()) } else { Err("the same name twice") }
    }

    /// The chunks of a content, without their digests: side by side, together as long as it, in rising ranges that lie
    /// before the documents.
    fn chunks(&self, raw: &[Raw], entry: &Entry, end: u64) -> Result<Vec<Chunk>, &'static str> {
        let number = |number: i64| u64::try_from(number).map_err(|_| "a negative number");
        let end = match raw[0].end_offset {
            0 => end,
            end => number(end)?,
        };
        if end > self.data_end {
            return Err("a range that reaches into the documents or beyond the blob");
        }
        let mut out: Vec<Chunk> = Vec::with_capacity(raw.len());
        let mut offset = 0;
        for (at, part) in raw.iter().enumerate() {
            if part.name != entry.name {
                return Err("chunks of another name");
            }
            if number(part.chunk_offset)? != offset {
                return Err("chunks with a gap between them, or over each other");
            }
            let left = entry.size - offset;
            let last = at + 1 == raw.len();
            let size = match number(part.chunk_size)? {
                0 if last => left,
                size if size <= left && (size == left || !last) => size,
                _ => return Err("chunks that are not as long as the content"),
            };
            let start = number(part.offset)?;
            let inner = number(part.inner_offset)?;
            if inner > 0 && self.family != Family::Stargz {
                return Err("a chunk inside of a frame");
            }
            let stop = match raw.get(at + 1) {
                // Several in one member begin in the same place.
                Some(next) if next.offset == part.offset && self.family == Family::Stargz => end,
                Some(next) => number(next.offset)?,
                None => end,
            };
            if start == 0 || size == 0 || start >= stop || stop > end {
                return Err("ranges that are empty or run backwards");
            }
            let zeros = match part.chunk_type.as_str() {
                "" => false,
                "zeros" => true,
                _ => return Err("an unknown type of chunk"),
            };
            out.push(Chunk { offset, size, digest: None, zeros, stored: start..stop, inner });
            offset += size;
        }
        if offset == entry.size { Ok(out) } else { Err("chunks that are not as long as the content") }
    }
}
