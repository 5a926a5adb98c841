//! Layer files of the store.

use coracle_codec::digest::Digest;
use coracle_store::layer_file::{Content, END, FRAME, LayerFile, Limits, MAGIC};

const LIMITS: Limits = Limits { table_bytes: 1 << 20, objects: 4096, files: 4096 };

/// Reads `data` as a layer file; and as the table of one, behind two bytes that say how many bytes of frames stand
/// between: a table that is compressed is nothing that a fuzzer changes with success.
///
/// * Pieces are the whole tar, without gaps, and no more than the bounds.
/// * Files ascend, and lie in one object or between two.
/// * A frame that decodes has the length that follows from its place.
/// * The digest at the end is that of what stands before it, or the check fails.
/// * A file that is cut is refused.
pub fn store_layer(data: &[u8]) {
    check(data);
    if let [low, high, rest @ ..] = data {
        let frames = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        check(&around(&rest[..frames], &rest[frames..]));
    }
}

/// A layer file of frames, sections and a table.
pub fn around(frames: &[u8], table: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(zstd_safe::compress_bound(table.len()));
    let mut ctx = zstd_safe::CCtx::create();
    // The parameter exists, and the buffer is as large as it has to be.
    let _ = ctx.set_parameter(zstd_safe::CParameter::ChecksumFlag(true));
    let _ = ctx.compress2(&mut packed, table);
    let mut file = [&MAGIC[..], frames, &packed].concat();
    file.extend_from_slice(&((MAGIC.len() + frames.len()) as u64).to_le_bytes());
    file.extend_from_slice(&(table.len() as u64).to_le_bytes());
    let digest = Digest::of(&file);
    file.extend_from_slice(digest.as_bytes());
    file.extend_from_slice(&END);
    file
}

fn check(data: &[u8]) {
    let Ok(file) = LayerFile::open(data.to_vec(), &LIMITS) else { return };
    let (mut at, mut inline) = (0u64, 0u64);
    for piece in file.pieces() {
        assert!(piece.start == at && piece.len > 0, "a gap, or a piece without bytes");
        at += piece.len;
        if let Content::Inline(offset) = piece.content {
            assert_eq!(offset, inline, "inline bytes out of order");
            inline += piece.len;
        }
    }
    assert_eq!((at, inline), (file.size(), file.inline()));
    assert!(
        file.pieces().len() as u64 <= 2 * LIMITS.objects + 1 && file.files().len() as u64 <= LIMITS.files
    );
    files(&file);
    assert_eq!(file.frames() as u64, inline.div_ceil(FRAME as u64));
    let mut left = inline;
    for number in 0..file.frames() {
        let want = left.min(FRAME as u64);
        left -= want;
        if let Ok(frame) = file.frame(number) {
            assert_eq!(frame.len() as u64, want, "frame {number}");
        }
    }
    let (before, footer) = data.split_at(data.len() - 32 - END.len());
    let good = footer[..32] == *Digest::of(before).as_bytes();
    assert_eq!(file.check().is_ok(), good, "the digest was not compared");
    for cut in [1, END.len(), data.len() / 2] {
        assert!(LayerFile::open(data[..data.len() - cut].to_vec(), &LIMITS).is_err(), "cut by {cut}");
    }
}

fn files(file: &LayerFile<Vec<u8>>) {
    let mut end = 0;
    for entry in file.files() {
        assert!(entry.offset >= end, "files overlap");
        end = entry.offset + entry.size;
        assert!(end <= file.size(), "a file beyond the tar");
        let in_objects = file.pieces().iter().filter(|piece| {
            matches!(piece.content, Content::Object(_))
                && piece.start < end
                && entry.offset < piece.start + piece.len
        });
        let objects: Vec<_> = in_objects.collect();
        match entry.object {
            None => assert!(objects.is_empty(), "a file in an object that it does not name"),
            Some(digest) => assert!(
                matches!(objects[..], [piece] if piece.content == Content::Object(digest)
                    && (piece.start, piece.len) == (entry.offset, entry.size)),
                "a file that is not its object"
            ),
        }
    }
}
