//! Where the TOC and the tar-split of a blob are: annotations and footers (`docs/formats/chunked.md`, sections 2 and 6).

use std::collections::BTreeMap;
use std::ops::Range;

use crate::digest::Digest;
use crate::oci::Descriptor;

use super::{Error, Limits};

/// Prefix of annotations that podman and its kin write and read since 2024.
const CURRENT: &str = "io.github.containers.zstd-chunked.";
/// Prefix of those before, and of stargz-snapshotter.
const LEGACY: &str = "io.containers.zstd-chunked.";
const CHECKSUM: &str = "manifest-checksum";
const POSITION: &str = "manifest-position";
const SPLIT_POSITION: &str = "tarsplit-position";
/// Annotation with the digest of the TOC of an eStargz layer.
pub const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// Annotation with the length of the tar of an eStargz layer.
pub const STARGZ_SIZE: &str = "io.containers.estargz.uncompressed-size";

/// The only kind of TOC there is.
const CRFS: u64 = 1;
/// Header of a skippable frame: magic and length.
pub(super) const SKIPPABLE_HEADER: u64 = 8;
pub(super) const SKIPPABLE: [u8; 4] = [0x50, 0x2a, 0x4d, 0x18];
const MAGIC: &[u8; 8] = b"GNUlInUx";
const LEGACY_MAGIC: &[u8; 8] = b"GnUlInUx";

/// The dialect of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// zstd:chunked with a tar-split.
    Current,
    /// zstd:chunked without: podman before 2024, stargz-snapshotter.
    Legacy,
    /// eStargz.
    Stargz,
}

impl Family {
    /// Its usual name.
    pub fn name(self) -> &'static str {
        match self {
            Family::Current | Family::Legacy => "zstd:chunked",
            Family::Stargz => "estargz",
        }
    }
}

/// A part of a blob that is stored compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the blob, in bytes.
    pub offset: u64,
    /// Bytes as stored.
    pub stored: u64,
    /// Bytes when decoded.
    pub decoded: u64,
}

impl Part {
    /// Its range in the blob.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.stored
    }

    /// Refuses what lies outside of a blob of `size` bytes or is too large.
    fn check(&self, what: &'static str, size: u64, limits: &Limits) -> Result<(), Error> {
        let end = self.offset.checked_add(self.stored);
        if self.offset < SKIPPABLE_HEADER || self.stored == 0 || end.is_none_or(|end| end > size) {
            return Err(Error::Outside { what });
        }
        for (actual, limit) in [(self.stored, limits.stored), (self.decoded, limits.decoded)] {
            if actual > limit {
                return Err(Error::TooLarge { what, actual, limit });
            }
        }
        Ok(())
    }
}

/// Where the documents of a layer are, and what binds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The dialect.
    pub family: Family,
    /// Digest of the TOC: of its stored bytes, but of the decoded ones for eStargz.
    pub digest: Digest,
    /// Where the TOC is; for eStargz its footer tells ([`stargz_footer`]).
    pub toc: Option<Part>,
    /// Where the tar-split is.
    pub split: Option<Part>,
    /// Bytes of the blob.
    pub size: u64,
}

impl Place {
    /// What the annotations of a layer's descriptor say; `None` for a layer that is not chunked.
    ///
    /// # Errors
    /// They contradict each other or cannot be true.
    pub fn of(layer: &Descriptor, limits: &Limits) -> Result<Option<Place>, Error> {
        let said = &layer.annotations;
        let current = family(said, CURRENT)?;
        let legacy = family(said, LEGACY)?;
        let stargz = said.get(STARGZ_DIGEST);
        // Both on one layer are a hard error for podman, too: which of them is right?
        if current.is_some() && stargz.is_some() {
            return Err(Error::BothFamilies);
        }
        if let (Some(current), Some(legacy)) = (&current, &legacy)
            && current != legacy
        {
            let name = format!("{LEGACY}{POSITION}");
            return Err(Error::Annotation { name, what: "contradicts the other set of annotations" });
        }
        let place = if let Some((digest, toc)) = current {
            let name = format!("{CURRENT}{SPLIT_POSITION}");
            let split = match said.get(&name) {
                None => None,
                Some(text) => {
                    let [offset, stored, decoded] = numbers(text).ok_or(Error::Annotation {
                        name,
                        what: "is not of the form OFFSET:STORED:DECODED",
                    })?;
                    Some(Part { offset, stored, decoded })
                }
            };
            let family = if split.is_some() { Family::Current } else { Family::Legacy };
            Place { family, digest, toc: Some(toc), split, size: layer.size }
        } else if let Some((digest, toc)) = legacy {
            Place { family: Family::Legacy, digest, toc: Some(toc), split: None, size: layer.size }
        } else if let Some(text) = stargz {
            let digest = text
                .parse()
                .map_err(|_| Error::Annotation { name: STARGZ_DIGEST.into(), what: "is no sha256 digest" })?;
            Place { family: Family::Stargz, digest, toc: None, split: None, size: layer.size }
        } else {
            return Ok(None);
        };
        place.check(limits)?;
        Ok(Some(place))
    }

    fn check(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(toc) = &self.toc {
            toc.check("the TOC", self.size, limits)?;
        }
        if let Some(split) = &self.split {
            split.check("the tar-split", self.size, limits)?;
            let (a, b) = (self.toc.map(|toc| toc.range()).unwrap_or_default(), split.range());
            if a.start < b.end && b.start < a.end {
                return Err(Error::Outside { what: "the tar-split" });
            }
        }
        Ok(())
    }

    /// The range that has all documents: TOC and tar-split, which lie side by side; for eStargz the footer.
    pub fn documents(&self) -> Range<u64> {
        let Some(toc) = &self.toc else {
            return self.size.saturating_sub(STARGZ_FOOTER as u64)..self.size;
        };
        let (toc, split) = (toc.range(), self.split.map_or(toc.range(), |split| split.range()));
        toc.start.min(split.start)..toc.end.max(split.end)
    }

    /// Where the first document begins: contents lie before it.
    pub fn data_end(&self) -> u64 {
        self.documents().start.saturating_sub(SKIPPABLE_HEADER)
    }

    /// The annotations that say so. With `legacy`, in both sets where there are two.
    pub fn annotations(&self, legacy: bool) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        let Some(toc) = &self.toc else {
            out.insert(STARGZ_DIGEST.to_owned(), self.digest.to_string());
            return out;
        };
        let position = format!("{}:{}:{}:{CRFS}", toc.offset, toc.stored, toc.decoded);
        let prefixes = match self.family {
            Family::Current if legacy => &[CURRENT, LEGACY][..],
            Family::Current => &[CURRENT],
            Family::Legacy | Family::Stargz => &[LEGACY],
        };
        for prefix in prefixes {
            out.insert(format!("{prefix}{CHECKSUM}"), self.digest.to_string());
            out.insert(format!("{prefix}{POSITION}"), position.clone());
        }
        if let Some(split) = &self.split {
            let position = format!("{}:{}:{}", split.offset, split.stored, split.decoded);
            out.insert(format!("{CURRENT}{SPLIT_POSITION}"), position);
        }
        out
    }

    /// Whether a name of an annotation is one of those that say where a TOC is.
    pub fn is_annotation(name: &str) -> bool {
        name.starts_with(CURRENT) || name.starts_with(LEGACY) || name == STARGZ_DIGEST || name == STARGZ_SIZE
    }
}

/// Digest and place of the TOC, as one set of annotations says.
fn family(said: &BTreeMap<String, String>, prefix: &str) -> Result<Option<(Digest, Part)>, Error> {
    let (checksum, position) = (format!("{prefix}{CHECKSUM}"), format!("{prefix}{POSITION}"));
    let (digest, text) = match (said.get(&checksum), said.get(&position)) {
        (None, None) => return Ok(None),
        (None, Some(_)) => return Err(Error::Annotation { name: checksum, what: "is missing" }),
        (Some(_), None) => return Err(Error::Annotation { name: position, what: "is missing" }),
        (Some(digest), Some(position)) => (digest, position),
    };
    let digest =
        digest.parse().map_err(|_| Error::Annotation { name: checksum, what: "is no sha256 digest" })?;
    let [offset, stored, decoded, kind] = numbers(text).ok_or_else(|| Error::Annotation {
        name: position.clone(),
        what: "is not of the form OFFSET:STORED:DECODED:KIND",
    })?;
    if kind != CRFS {
        return Err(Error::Annotation { name: position, what: "names an unknown kind of TOC" });
    }
    Ok(Some((digest, Part { offset, stored, decoded })))
}

/// As many decimal numbers with colons between them.
fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(':');
    for number in &mut out {
        let part = parts.next()?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

/// What the end of a zstd:chunked blob says by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the TOC is.
    pub toc: Part,
    /// Where the tar-split is, in the current form.
    pub split: Option<Part>,
}

impl Footer {
    /// Bytes of the current footer.
    pub const LEN: usize = 64;
    /// Bytes of the legacy one.
    pub const LEGACY_LEN: usize = 40;

    /// Reads the last bytes of a blob, 72 or more of them if it has so many.
    ///
    /// # Errors
    /// They are no footer.
    pub fn parse(tail: &[u8]) -> Result<Footer, Error> {
        let (len, legacy) = match tail.last_chunk::<8>() {
            Some(magic) if magic == MAGIC => (Self::LEN, false),
            Some(magic) if magic == LEGACY_MAGIC => (Self::LEGACY_LEN, true),
            _ => return Err(Error::Footer("wrong magic")),
        };
        let frame = tail.len().checked_sub(len + SKIPPABLE_HEADER as usize).map(|from| &tail[from..]);
        let Some((header, footer)) =
            frame.and_then(|frame| frame.split_at_checked(SKIPPABLE_HEADER as usize))
        else {
            return Err(Error::Footer("it is cut"));
        };
        if header[..4] != SKIPPABLE || header[4..] != (len as u32).to_le_bytes() {
            return Err(Error::Footer("it is in no frame of its own"));
        }
        let number = |at: usize| {
            let bytes = footer[8 * at..][..8].try_into();
            u64::from_le_bytes(bytes.unwrap_or_else(|_| unreachable!("eight bytes")))
        };
        if number(3) != CRFS {
            return Err(Error::Footer("unknown kind of TOC"));
        }
        let toc = Part { offset: number(0), stored: number(1), decoded: number(2) };
        let split = (!legacy).then(|| Part { offset: number(4), stored: number(5), decoded: number(6) });
        Ok(Footer { toc, split })
    }

    /// The footer in its frame; of the current form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let split = self.split.unwrap_or(Part { offset: 0, stored: 0, decoded: 0 });
        let (toc, len) = (self.toc, Self::LEN as u32);
        let numbers = [toc.offset, toc.stored, toc.decoded, CRFS, split.offset, split.stored, split.decoded];
        let mut out = [&SKIPPABLE[..], &len.to_le_bytes()].concat();
        numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(MAGIC);
        out
    }

    /// Compares it with what annotations say.
    ///
    /// # Errors
    /// They differ.
    pub fn check(&self, place: &Place) -> Result<(), Error> {
        let same = place.toc == Some(self.toc) && (place.split.is_none() || place.split == self.split);
        if same { Ok(()) } else { Err(Error::Footer("it contradicts the annotations")) }
    }
}

/// Bytes of the footer of an eStargz blob.
pub(super) const STARGZ_FOOTER: usize = 51;

/// Where the member with the TOC begins in an eStargz blob of `size` bytes whose last bytes are `tail`.
///
/// # Errors
/// They are no footer, or it points outside of the blob.
pub fn stargz_footer(tail: &[u8], size: u64) -> Result<u64, Error> {
    let footer: &[u8; STARGZ_FOOTER] = tail.last_chunk().ok_or(Error::Footer("it is cut"))?;
    let hex = &footer[16..32];
    if footer[..4] != [0x1f, 0x8b, 8, 4]
        || footer[10..16] != [26, 0, b'S', b'G', 22, 0]
        || &footer[32..38] != b"STARGZ"
        || !hex.iter().all(u8::is_ascii_hexdigit)
    {
        return Err(Error::Footer("no footer of eStargz"));
    }
    let hex = std::str::from_utf8(hex).unwrap_or_default();
    let offset = u64::from_str_radix(hex, 16).map_err(|_| Error::Footer("no footer of eStargz"))?;
    if offset == 0 || offset >= size.saturating_sub(STARGZ_FOOTER as u64) {
        return Err(Error::Outside { what: "the TOC" });
    }
    Ok(offset)
}

/// The footer of an eStargz blob whose TOC begins at `offset`.
pub(super) fn stargz_footer_bytes(offset: u64) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0];
    out.extend_from_slice(format!("{offset:016x}STARGZ").as_bytes());
    out.extend_from_slice(&[1, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(annotations: &[(&str, &str)]) -> Descriptor {
        let mut layer = Descriptor::new("application/vnd.oci.image.layer.v1.tar+zstd", Digest::of(b""), 1000);
        layer.annotations =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        layer
    }

    #[test]
    fn footers_and_annotations_come_back() {
        let toc = Part { offset: 500, stored: 100, decoded: 300 };
        let split = Part { offset: 608, stored: 50, decoded: 400 };
        let footer = Footer { toc, split: Some(split) };
        let bytes = footer.to_bytes();
        assert_eq!(bytes.len(), 72);
        assert_eq!(Footer::parse(&[&[9, 9][..], &bytes].concat()).unwrap(), footer);
        assert!(Footer::parse(&bytes[1..]).is_err());
        let digest = Digest::of(b"toc");
        let place = Place { family: Family::Current, digest, toc: Some(toc), split: Some(split), size: 1000 };
        footer.check(&place).unwrap();
        for both in [false, true] {
            let mut described = layer(&[]);
            described.annotations = place.annotations(both);
            assert_eq!(described.annotations.len(), if both { 5 } else { 3 });
            assert_eq!(Place::of(&described, &Limits::default()).unwrap(), Some(place.clone()));
        }
        assert_eq!((place.documents(), place.data_end()), (500..658, 492));
        let stargz = stargz_footer_bytes(0x1234);
        assert_eq!(stargz.len(), STARGZ_FOOTER);
        assert_eq!(stargz_footer(&stargz, 0x10000).unwrap(), 0x1234);
        assert!(stargz_footer(&stargz, 0x1234).is_err());
    }

    #[test]
    fn lies_of_annotations() {
        let digest = Digest::of(b"toc").to_string();
        let with = |position: &str, more: &[(&str, &str)]| {
            let mut all = vec![
                ("io.github.containers.zstd-chunked.manifest-checksum", digest.as_str()),
                ("io.github.containers.zstd-chunked.manifest-position", position),
            ];
            all.extend_from_slice(more);
            Place::of(&layer(&all), &Limits::default())
        };
        assert!(with("100:10:10:1", &[]).unwrap().is_some());
        let split = "io.github.containers.zstd-chunked.tarsplit-position";
        let legacy = "io.containers.zstd-chunked.manifest-position";
        for (position, more) in [
            ("100:10:10:2", vec![]),
            ("100:10:10", vec![]),
            ("+100:10:10:1", vec![]),
            ("7:10:10:1", vec![]),
            ("995:10:10:1", vec![]),
            ("100:0:10:1", vec![]),
            ("18446744073709551615:10:10:1", vec![]),
            ("100:10:1099511627776:1", vec![]),
            ("100:10:10:1", vec![(split, "105:10:10")]),
            ("100:10:10:1", vec![(split, "105:10")]),
            ("100:10:10:1", vec![(legacy, "100:10:10:1")]),
            ("100:10:10:1", vec![(STARGZ_DIGEST, digest.as_str())]),
        ] {
            assert!(with(position, &more).is_err(), "{position} {more:?}");
        }
        assert!(Place::of(&layer(&[]), &Limits::default()).unwrap().is_none());
    }
}
