//! Tables of contents and tar-splits.

use coracle_codec::chunked::{
    ContentWriter, Family, Footer, Layer, Limits, Part, Piece, Place, TarSplit, Toc, read_stargz_end,
    stargz_footer,
};
use coracle_codec::compress::{ZstdWriter, ZstdWriterOptions};
use coracle_codec::digest::Digest;

const LIMITS: Limits =
    Limits { stored: 1 << 20, decoded: 1 << 20, entries: 1000, tar: 1 << 24, window_log: 20 };
/// Where contents end, for all inputs.
const DATA_END: u64 = 1 << 32;

/// Reads `data` as a TOC in JSON, and, behind a byte 0, as the lines of a tar-split; and all of it as a footer.
///
/// * Contents have chunks side by side that are as long as they are, in ranges that rise and lie before the documents.
/// * No two names are the same, and none leads out of the tree.
/// * Where TOC and tar-split agree, pieces are the whole tar: framing in its order, each content once.
/// * Each family reads the same entries, or refuses; tighter bounds only refuse.
/// * A footer that is read is written to the same.
/// * As a gzip member, it is the end of a tar within bounds; as the end of a layer, it takes the place of zeros alone.
pub fn chunked_parse(data: &[u8]) {
    if let Ok(footer) = Footer::parse(data)
        && footer.split.is_some()
    {
        assert!(data.ends_with(&footer.to_bytes()), "a footer that changes");
    }
    if let Ok(offset) = stargz_footer(data, 1 << 20) {
        assert!(offset > 0 && offset < 1 << 20);
    }
    if let Ok(end) = read_stargz_end(data, &LIMITS) {
        assert!(end.len() as u64 <= LIMITS.decoded + (64 << 10));
    }
    let cut = data.iter().position(|byte| *byte == 0);
    let (json, lines) = cut.map_or((data, &[][..]), |cut| (&data[..cut], &data[cut + 1..]));
    let toc = Toc::parse(json, Family::Current, DATA_END, &LIMITS);
    let _ = Toc::parse(json, Family::Stargz, DATA_END, &LIMITS).map(|toc| check(&toc));
    let Ok(toc) = toc else { return };
    check(&toc);
    let tight = Limits { entries: toc.entries.len() as u64, ..LIMITS };
    if let Ok(again) = Toc::parse(json, Family::Legacy, DATA_END, &tight) {
        assert_eq!(again, toc);
    }
    let place =
        Place { family: Family::Legacy, digest: Digest::of(b""), toc: None, split: None, size: DATA_END };
    if let Some(layer) = Layer::without_split(toc.clone(), &place) {
        let mut at = 0;
        for piece in &layer.pieces {
            match piece {
                Piece::Glue(range) => {
                    assert!(range.start == at && range.end <= DATA_END, "{range:?} at {at}");
                }
                Piece::Content { entry, .. } => {
                    at = layer.toc.entries[*entry]
                        .chunks
                        .last()
                        .unwrap_or_else(|| panic!("no chunk"))
                        .stored
                        .end;
                }
                Piece::Framing(_) => panic!("framing of a layer without any"),
            }
        }
    }
    let stored = frame(lines);
    let part = Part { offset: 8, stored: stored.len() as u64, decoded: lines.len() as u64 };
    let Ok(split) = TarSplit::read(&stored, &Digest::of(&stored), &part, &LIMITS) else { return };
    let Ok(layer) = Layer::new(toc, split, &LIMITS) else { return };
    if let Some(ended) = layer.clone().with_stargz_end(data, &LIMITS) {
        let kept = ended.framing.strip_suffix(data).unwrap_or_else(|| panic!("another end"));
        assert!(layer.framing.starts_with(kept) && layer.framing[kept.len()..].iter().all(|byte| *byte == 0));
        assert_eq!(ended.pieces.len(), layer.pieces.len());
    }
    whole(&layer, |entry, crc| {
        assert!(crc.is_some(), "a content without its checksum");
        let none = ContentWriter::new(std::io::sink(), &layer.toc.entries[entry], crc);
        assert!(none.finish().is_err(), "no bytes are not the content");
    });
}

/// That pieces are the whole tar: framing in its order, each content once, no glue. `content` looks at the number and the
/// checksum of each.
pub(crate) fn whole(layer: &Layer, content: impl Fn(usize, Option<u64>)) {
    let (mut framed, mut contents) = (0, Vec::new());
    for piece in &layer.pieces {
        match piece {
            Piece::Framing(range) => {
                assert_eq!(range.start, framed, "framing out of order");
                framed = range.end;
            }
            Piece::Content { entry, crc } => {
                content(*entry, *crc);
                contents.push(*entry);
            }
            Piece::Glue(_) => panic!("glue where framing is known"),
        }
    }
    assert_eq!(framed, layer.framing.len());
    let has_content = |number: &usize| !layer.toc.entries[*number].chunks.is_empty();
    let wanted: Vec<usize> = (0..layer.toc.entries.len()).filter(has_content).collect();
    assert_eq!(contents, wanted, "each content once, in order");
}

fn check(toc: &Toc) {
    let mut total = 0u64;
    for entry in &toc.entries {
        assert!(!entry.name.split('/').any(|part| part == ".."), "{:?}", entry.name);
        let (mut offset, mut at) = (0, 0);
        for chunk in &entry.chunks {
            assert_eq!(chunk.offset, offset, "{:?}", entry.name);
            assert!(chunk.size > 0 && chunk.digest.is_some(), "{:?}", entry.name);
            assert!(chunk.stored.start >= at && chunk.stored.start < chunk.stored.end, "{:?}", chunk.stored);
            assert!(chunk.stored.end <= DATA_END);
            offset += chunk.size;
            at = chunk.stored.start;
        }
        if !entry.chunks.is_empty() {
            assert_eq!(offset, entry.size, "{:?}", entry.name);
            total += entry.size;
        }
    }
    assert!(total <= LIMITS.tar, "{total} bytes of contents");
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let write = || {
        let mut writer =
            ZstdWriter::new(Vec::new(), ZstdWriterOptions { level: 1, ..ZstdWriterOptions::default() })?;
        std::io::Write::write_all(&mut writer, bytes)?;
        writer.finish()
    };
    write().unwrap_or_else(|error: std::io::Error| panic!("memory cannot fail: {error}"))
}
