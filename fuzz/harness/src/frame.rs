//! zstd frames, as far as the harness makes and reads them itself (RFC 8878, section 3.1.1).

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A zstd frame that stores `content` in raw blocks: single segment, content
/// size of four bytes, no checksum.
pub fn stored_frame(content: &[u8]) -> Vec<u8> {
    const MAX_BLOCK: usize = 128 << 10;
    let mut out = [&MAGIC[..], &[0b1010_0000]].concat();
    let len = u32::try_from(content.len()).unwrap_or_else(|_| panic!("an input of {} bytes", content.len()));
    out.extend_from_slice(&len.to_le_bytes());
    let blocks = content.len().div_ceil(MAX_BLOCK).max(1);
    for i in 0..blocks {
        let block = &content[i * MAX_BLOCK..content.len().min((i + 1) * MAX_BLOCK)];
        let last = i + 1 == blocks;
        let header = (block.len() as u32) << 3 | u32::from(last);
        out.extend_from_slice(&header.to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}

/// The window in bytes that the header of a frame asks for; `None` if no header is there.
pub(crate) fn window(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    let id_len = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let single_segment = descriptor & 0b0010_0000 != 0;
    if !single_segment {
        let &window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let size = rest.get(id_len..)?;
    let little = |n: usize| Some(size.get(..n)?.iter().rev().fold(0u64, |x, &b| x << 8 | u64::from(b)));
    match descriptor >> 6 {
        0 => little(1),
        1 => Some(little(2)? + 256),
        2 => little(4),
        _ => little(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows() {
        assert_eq!(window(&stored_frame(&[0; 300])), Some(300));
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58]), Some(1 << 21));
        assert_eq!(window(&[0x28, 0xb5, 0x2f, 0xfd, 0x40, 0x0f, 0, 0]), Some((2048 / 8) * 15));
        assert_eq!(window(b"none"), None);
    }
}
