//! Seeds of `compress_detect`.

use std::io::Write;

use coracle_codec::compress::{ZstdWriter, ZstdWriterOptions};
use coracle_fuzz_harness::stored_frame;
use coracle_testkit::golden::Golden;

use crate::xz::XZ;
use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let text = b"the lightest boat there is\n".repeat(80);
    let some_tar = Golden::built_in().tar()?.first().map(|case| case.tar()).transpose()?.unwrap_or_default();
    for (of, content) in [
        ("empty", &b""[..]),
        ("byte", b"x"),
        ("text", &text),
        ("tar", &some_tar),
        ("bound", &vec![0; 1 << 20]),
        ("bomb", &vec![7; 5 << 20]),
    ] {
        let all = [
            ("gzip", gzip(content)?),
            ("bzip2", bzip2(content)?),
            ("zstd", zstd(content, ZstdWriterOptions::default())?),
        ];
        for (format, stream) in all {
            seeds.insert(format!("{format}-{of}"), stream);
        }
    }
    let formats = [
        ("gzip", gzip(&text)?),
        ("bzip2", bzip2(&text)?),
        ("zstd", zstd(&text, ZstdWriterOptions::default())?),
        ("xz", unhex(XZ[1].1)),
    ];
    for (format, stream) in &formats {
        seeds.insert(format!("{format}-cut"), stream[..stream.len() - 3].to_vec());
        seeds.insert(format!("{format}-junk"), [stream, &b"junk"[..]].concat());
        seeds.insert(format!("{format}-zeros"), [stream, &[0; 8][..]].concat());
        seeds.insert(format!("{format}-twice"), [&stream[..], stream].concat());
        seeds.insert(format!("{format}-magic"), stream[..6].to_vec());
    }
    for (options, hex) in XZ {
        let name: String = options.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
        seeds.insert(format!("xz-{name}"), unhex(hex));
    }
    for (name, stream) in zstd_frames(&text)? {
        seeds.insert(name.into(), stream);
    }
    seeds.insert("gzip-header".into(), gzip_header(&text)?);
    seeds.insert("plain-text".into(), text);
    seeds.insert("plain-bzh".into(), b"BZh9AY&SX: a name".to_vec());
    Ok(seeds)
}

/// Forms of frames that [`ZstdWriter`] alone would not give.
fn zstd_frames(text: &[u8]) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"notes"].concat();
    let frame = zstd(text, ZstdWriterOptions::default())?;
    let sized = ZstdWriterOptions { content_size: Some(text.len() as u64), ..Default::default() };
    let with_window = |log| zstd(text, ZstdWriterOptions { window_log: Some(log), ..Default::default() });
    // Window of 128 KiB, then RLE blocks: 128 KiB each for four bytes.
    let mut rle = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x38];
    for i in 0..20u32 {
        rle.extend_from_slice(&((128 << 10) << 3 | 0b010 | u32::from(i == 19)).to_le_bytes()[..3]);
        rle.push(b'r');
    }
    Ok(vec![
        ("zstd-skippable-only", skippable.clone()),
        ("zstd-skippable-around", [&skippable[..], &frame, &skippable, &frame, &skippable].concat()),
        ("zstd-sized", zstd(text, sized)?),
        ("zstd-level-19", zstd(text, ZstdWriterOptions { level: 19, ..Default::default() })?),
        ("zstd-window-10", with_window(10)?),
        ("zstd-window-20", with_window(20)?),
        ("zstd-window-21", with_window(21)?),
        ("zstd-window-27", with_window(27)?),
        ("zstd-stored", stored_frame(text)),
        ("zstd-rle", rle),
        ("zstd-dictionary-id", vec![0x28, 0xb5, 0x2f, 0xfd, 0x21, 1, 1, 0x09, 0, 0, b'x']),
        ("zstd-looks-skippable", looks_skippable()),
        ("zstd-tiny-large-window", tiny_with_large_window()),
    ])
}

/// A frame whose header, behind the magic, reads like a skippable frame that ends where the frame ends: the unused
/// bit of the header is set, and the sizes are chosen for it. It holds one DATA operation of 6,474 bytes.
pub fn looks_skippable() -> Vec<u8> {
    let content = [&[0, 0xca, 0x32][..], &b"boat".repeat(1619)[..6474]].concat();
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0x50, 0x2a, 0x4d, 0x18];
    // A first block of 811 bytes has a header of 8 * 811, and that is the size of what follows it.
    let (first, rest) = content.split_at(811);
    for (i, block) in std::iter::once(first).chain(rest.chunks(1417)).enumerate() {
        let header = (block.len() as u32) << 3 | u32::from(i == 4);
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// 256 zeros in twelve bytes, with a window of 2^31 bytes: a decoder that sees all of it at once needs no window. As
/// operations they are 128 times DATA of length 0.
pub fn tiny_with_large_window() -> Vec<u8> {
    vec![0x28, 0xb5, 0x2f, 0xfd, 0x40, 21 << 3, 0, 0, 0x03, 0x08, 0, 0]
}

fn gzip(content: &[u8]) -> Outcome<Vec<u8>> {
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    w.write_all(content)?;
    Ok(w.finish()?)
}

fn gzip_header(content: &[u8]) -> Outcome<Vec<u8>> {
    let builder =
        flate2::GzBuilder::new().filename("boat").comment("tarred").extra(b"AB\x02\0xy".to_vec()).mtime(1);
    let mut w = builder.write(Vec::new(), flate2::Compression::none());
    w.write_all(content)?;
    Ok(w.finish()?)
}

fn bzip2(content: &[u8]) -> Outcome<Vec<u8>> {
    let mut w = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(1));
    w.write_all(content)?;
    Ok(w.finish()?)
}

pub fn zstd(content: &[u8], options: ZstdWriterOptions<'_>) -> Outcome<Vec<u8>> {
    let mut w = ZstdWriter::new(Vec::new(), options)?;
    w.write_all(content)?;
    Ok(w.finish()?)
}

fn unhex(hex: &str) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).unwrap_or_default() as u8;
    hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
