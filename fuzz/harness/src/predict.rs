//! Headers predicted from a TOC and an old tar.

use coracle_codec::chunked::{Family, Limits, Options, Place, Style, Toc, write};
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_codec::tar::{Limits as TarLimits, Reader};

use crate::chunked::whole;

const LIMITS: Limits =
    Limits { stored: 1 << 20, decoded: 1 << 20, entries: 1000, tar: 1 << 24, window_log: 20 };

/// Reads `data` as two tars, one behind the other: the first half, as the first 4 bytes say where it ends, is learned from,
/// and the other one's TOC predicted.
///
/// * What is predicted is a tar with the members of the TOC, in their order, each with a place for its content.
/// * A tar whose headers are all understood comes out of its own TOC.
/// * Without an example that it is learned from nothing is predicted but an empty tar.
pub fn chunked_predict(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<4>() else { return };
    let cut = (u32::from_le_bytes(*head) as usize).min(rest.len());
    let (old, new) = rest.split_at(cut);
    let old = old.to_vec();
    let Ok(style) = Style::learn(&old, &LIMITS) else { return };
    let (members, understood) = style.members();
    assert!(understood <= members);
    if let Some(toc) = toc_of(&old) {
        check(&style, &toc);
        if members == understood
            && let Some(framing) = framing(&style, &toc)
        {
            assert!(framing == without_contents(&old), "a tar that does not come out of itself");
        }
    }
    if let Some(toc) = toc_of(new) {
        check(&style, &toc);
        assert!(members > 0 || toc.entries.is_empty() || framing(&style, &toc).is_none());
    }
}

fn framing(style: &Style, toc: &Toc) -> Option<Vec<u8>> {
    style.predict(toc, &LIMITS).map(|layer| layer.framing)
}

fn check(style: &Style, toc: &Toc) {
    let Some(layer) = style.predict(toc, &LIMITS) else { return };
    assert_eq!(layer.toc, *toc);
    whole(&layer, |_, crc| assert!(crc.is_none(), "nobody knows the checksum of a content"));
}

/// The TOC of a tar, as our writer makes it.
fn toc_of(tar: &[u8]) -> Option<Toc> {
    let mut blob = Vec::new();
    let written = write(tar, &mut blob, &Options { level: 1, legacy: false }).ok()?;
    let mut layer = Descriptor::new("x", Digest::of(&blob), blob.len() as u64);
    layer.annotations = written.annotations.into_iter().collect();
    let place = Place::of(&layer, &LIMITS).ok()??;
    assert_eq!(place.family, Family::Current);
    let range = place.toc?.range();
    Toc::read(&blob[range.start as usize..range.end as usize], &place, &LIMITS).ok()
}

/// The bytes of a tar that are no content.
fn without_contents(tar: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(tar, TarLimits::default());
    let (mut out, mut at) = (Vec::new(), 0);
    while let Ok(Some(entry)) = reader.next_entry() {
        out.extend_from_slice(&tar[at..entry.content_offset as usize]);
        at = (entry.content_offset + entry.content_len) as usize;
    }
    out.extend_from_slice(&tar[at..]);
    out
}
