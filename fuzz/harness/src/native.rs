//! Native deltas.

use std::num::NonZeroUsize;

use coracle_codec::ReadAt;
use coracle_codec::digest::Digest;
use coracle_codec::native::entropy::{self, Method};
use coracle_codec::native::{
    Archive, Block, Error, Head, Limits, MAGIC, Origin, Sources, StreamId, apply, deflate, inspect, packed,
};
use coracle_codec::observe::Quiet;
use coracle_testkit::native as second;
use coracle_testkit::tar_builder::TarBuilder;

/// Memory that a head may declare, and the most that a delta may make.
const LIMITS: Limits = Limits {
    max_output: 1 << 16,
    max_memory: 16 << 20,
    tar: coracle_codec::tar::Limits { max_special: 1 << 12, max_fragments: 16, max_members: 100 },
};

/// Reads `data` as the head of a delta, its magic, length and check put right, and as it is.
///
/// * A head that is read is written to the same bytes again, but for numbers in longer forms than necessary.
/// * What it declares is within the limits.
pub fn native_head(data: &[u8]) {
    let digest = Digest::of(data);
    let check = &digest.as_bytes()[..8];
    let framed = [&MAGIC[..], &(data.len() as u32).to_le_bytes(), data, check].concat();
    for bytes in [data, &framed] {
        if let Ok(head) = Head::read(&mut &bytes[..], &LIMITS) {
            assert!(head.size <= LIMITS.max_output && head.memory <= LIMITS.max_memory);
            assert_eq!(head.blocks.iter().map(|b| b.output).sum::<u64>(), head.size);
            let again = head.to_bytes();
            let back = Head::read(&mut &again[..], &LIMITS).unwrap_or_else(|e| panic!("{e}: {head:?}"));
            assert!(back == head, "{head:?} came back as {back:?}");
        }
        let _ = inspect(&mut &bytes[..], &LIMITS);
    }
}

/// The old archive of [`native_apply`]: plain, compressed, empty, linked, with a long name.
pub fn old_archive() -> Vec<u8> {
    let text = b"the lightest boat there is, and the lightest boat there was; ".repeat(9);
    let stream = second::deflate_stream(&text, 0x199).unwrap_or_else(|e| panic!("{e}"));
    let gzip = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3][..], &stream, &[0; 8]].concat();
    let noise: Vec<u8> = (0..700u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let long = "long/".repeat(25);
    let mut archive = TarBuilder::new();
    archive.dir("d").file("d/text", &text).file("d/text.gz", &gzip).file("noise", &noise);
    archive.file("empty", b"").symlink("link", "noise").file(&long, b"long");
    archive.finish()
}

/// Carries out `data` on a fixed source: as a delta, and as the streams of one block. These are: how much the block
/// makes (two bytes), then for each stream its number (one byte), its length (two bytes), and its bytes.
///
/// * No more comes out than is declared.
/// * What comes out of streams is what the second decoder makes of them, and the same with two threads.
pub fn native_apply(data: &[u8]) {
    let old = old_archive();
    if data.starts_with(&MAGIC[..7]) {
        let _ = run(data, &old, 1);
        return;
    }
    let Some((output, rest)) = data.split_first_chunk() else { return };
    let output = u64::from(u16::from_le_bytes(*output));
    let Some(streams) = streams(rest) else { return };
    let (bytes, check) = block(&streams);
    let head = |digest| Head {
        size: output,
        digest,
        memory: LIMITS.max_memory,
        encoders: packed::NAMES.map(str::to_owned).to_vec(),
        origin: Origin::Archives(vec![Archive { size: old.len() as u64, digest: Digest::of(&old) }]),
        blocks: vec![Block { output, encoded: bytes.len() as u64, check }],
    };
    let delta = |digest| [head(digest).to_bytes(), bytes.clone()].concat();
    let (made, result) = run(&delta(Digest::of(b"")), &old, 1);
    assert!(made.len() as u64 <= output, "{} bytes", made.len());
    match result {
        Ok(()) => assert!(made.is_empty() && output == 0),
        Err(Error::WrongResult { actual, .. }) => {
            assert_eq!((made.len() as u64, Digest::of(&made)), (output, actual));
            let right = delta(actual);
            let (again, result) = run(&right, &old, 2);
            assert!(result.is_ok() && again == made, "{result:?}");
            let other = second::apply(&right, second::Sources::Archives(&[old]));
            assert!(other.as_ref() == Ok(&made), "the second decoder: {:?}", other.map(|o| o.len()));
        }
        Err(_) => {}
    }
}

fn run(delta: &[u8], old: &[u8], threads: usize) -> (Vec<u8>, Result<(), Error>) {
    let old = old.to_vec();
    let archives: [&dyn ReadAt; 1] = [&old];
    let mut out = Vec::new();
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    let result = apply(delta, Sources::Archives(&archives), &mut out, &LIMITS, threads, &Quiet);
    (out, result.map(|_| ()))
}

/// Streams by number, ascending.
fn streams(mut rest: &[u8]) -> Option<Vec<(u8, &[u8])>> {
    let mut out: Vec<(u8, &[u8])> = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([head[1], head[2]])).min(tail.len());
        let (stream, tail) = tail.split_at(len);
        if usize::from(head[0]) >= StreamId::ALL.len() || out.last().is_some_and(|s| s.0 >= head[0]) {
            return None;
        }
        out.push((head[0], stream));
        rest = tail;
    }
    Some(out)
}

/// A block with these streams, stored.
fn block(streams: &[(u8, &[u8])]) -> (Vec<u8>, [u8; 8]) {
    let mut out = vec![streams.len() as u8];
    for (id, bytes) in streams {
        out.extend([*id, Method::Stored.number() as u8]);
        number(&mut out, bytes.len());
        number(&mut out, bytes.len());
    }
    streams.iter().for_each(|(_, bytes)| out.extend_from_slice(bytes));
    let mut check = [0; 8];
    check.copy_from_slice(&Digest::of(&out).as_bytes()[..8]);
    (out, check)
}

fn number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes `data` by each method: the first byte chooses it, two more say how long the result is. Then encodes it.
///
/// * What is decoded has the length asked for. Mixed contexts decode anything, and as the second decoder does.
/// * What is encoded comes back.
pub fn native_entropy(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk::<3>() else { return };
    let len = usize::from(u16::from_le_bytes([head[1], head[2]])) % 5000;
    let method = Method::ALL[usize::from(head[0]) % Method::ALL.len()];
    let decoded = entropy::decode(method, rest, len);
    if let Ok(decoded) = &decoded {
        assert_eq!(decoded.len(), len);
    }
    if method == Method::Mixing {
        assert!(decoded.as_deref() == Ok(&second::mixed(rest, len)), "the second decoder differs");
    }
    let rest = &rest[..rest.len().min(8000)];
    let encoded = entropy::encode(method, rest, 3);
    assert!(entropy::decode(method, &encoded, rest.len()).as_deref() == Ok(rest), "{method:?}");
    assert!(entropy::decode(method, &encoded, rest.len() + 1).as_deref() != Ok(rest));
}

/// Looks for packed streams in `data` and expands them, and rebuilds `data` as the content of one; the first byte
/// chooses the encoder, from 224 on with settings of its own in the bytes behind it.
///
/// * Streams that are found lie in the file, one behind the other, and expand to no more than is allowed.
/// * A stream that is made expands to its content, and is the one that the second encoder makes.
pub fn native_members(data: &[u8]) {
    let file = data.to_vec();
    let mut at = 0;
    for stream in packed::locate(&file) {
        assert!(stream.start >= at && stream.start <= file.len() as u64, "{stream:?}");
        at = stream.start + stream.len.unwrap_or(0);
        assert!(at <= file.len() as u64, "{stream:?}");
        if let Ok((content, len)) = packed::expand(&file, &stream, 1 << 16) {
            assert!(content.len() <= 1 << 16 && stream.start + len <= file.len() as u64, "{stream:?}");
        }
    }
    let Some((&choice, content)) = data.split_first() else { return };
    if choice >= 224 {
        return library(choice, content);
    }
    let content = &content[..content.len().min(20_000)];
    let encoder = match usize::from(choice) {
        image @ 216.. => deflate::Encoder::of_images().nth(image - 216),
        usual => deflate::Encoder::usual().nth(usual % 27),
    };
    let Some(encoder) = encoder else { return };
    let Ok(stream) = deflate::rebuild(content, encoder) else { return };
    let other = second::deflate_stream(content, encoder.number());
    assert!(other.as_ref() == Ok(&stream), "{encoder:?}: the second encoder differs");
    let mut inflated = Vec::new();
    let mut reader = flate2::read::DeflateDecoder::new(&stream[..]);
    let read = std::io::Read::read_to_end(&mut reader, &mut inflated);
    assert!(read.is_ok() && inflated == content, "{encoder:?}: {read:?}");
}

/// Encoders of families 2 and 3: seven bytes of settings, and content.
fn library(choice: u8, data: &[u8]) {
    let Some((s, content)) = data.split_first_chunk::<7>() else { return };
    let content = &content[..content.len().min(20_000)];
    let encoder = if choice < 240 {
        packed::Encoder::Xz(packed::xz::Settings {
            preset: s[0] % 7,
            extreme: s[0] >= 128,
            dictionary: 12 + s[1] % 6,
            properties: [93, 0, 4, 36, 180][usize::from(s[2] % 5)],
            filter: [0, 4, 5, 7, 8, 9, 10, 11][usize::from(s[3] % 8)],
            declared: s[4] % 41,
            check: [0, 1, 4, 10][usize::from(s[5] % 4)],
            block: if s[6] < 128 { 0 } else { 4096 + u64::from(s[6]) },
            header: s[5] / 4,
        })
    } else {
        packed::Encoder::Zstd(packed::zstd::Settings {
            level: 1 + s[0] % 15,
            checksum: s[1] & 1 != 0,
            size: s[1] & 2 != 0,
            multithreaded: s[1] & 4 != 0,
            long: s[1] & 8 != 0,
            window: if s[2] < 128 { 0 } else { 10 + s[2] % 8 },
        })
    };
    let made = encoder.rebuild(content, 1 << 16);
    let mut number = Vec::new();
    encoder.write(&mut number);
    let other = second::packed_stream(content, &number);
    let Ok(stream) = made else {
        assert!(
            other.is_err(),
            "{encoder:?}: the second encoder makes {} bytes",
            other.map_or(0, |o| o.len())
        );
        return;
    };
    assert!(other.as_ref() == Ok(&stream), "{encoder:?}: the second encoder differs");
    let found = packed::locate(&stream);
    let [only] = &found[..] else { panic!("{encoder:?}: {} streams", found.len()) };
    let back = packed::expand(&stream, only, content.len());
    assert!(back.is_ok_and(|(bytes, len)| bytes == content && len == stream.len() as u64), "{encoder:?}");
}
