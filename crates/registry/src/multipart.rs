//! `multipart/byteranges` (RFC 9110, section 14.6): the answer to a request for several ranges.

use std::ops::Range;

use crate::range::content_range;

/// Bytes of the headers of one part, and of anything else that is no content.
pub(crate) const MAX_HEAD: usize = 4 << 10;

/// The boundary that a `Content-Type` names, if it is that of several ranges.
pub(crate) fn boundary(content_type: &str) -> Option<&str> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    let named = parts.filter_map(|part| part.split_once('='));
    let (_, value) = named.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("boundary"))?;
    let value = value.trim().trim_matches('"');
    // RFC 2046, section 5.1.1.
    (1..=70).contains(&value.len()).then_some(value)
}

/// Where a part is in the blob, and its bytes.
pub(crate) type Part<'a> = (Range<u64>, &'a [u8]);

/// The parts of a body: where each is in the blob of `size` bytes, and its bytes.
pub(crate) fn parts<'a>(body: &'a [u8], boundary: &str, size: u64) -> Result<Vec<Part<'a>>, &'static str> {
    let delimiter = [b"--", boundary.as_bytes()].concat();
    let mut out = Vec::new();
    let mut rest = body;
    loop {
        let window = &rest[..rest.len().min(MAX_HEAD)];
        let at = find(window, &delimiter).ok_or("a part without its boundary")?;
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            return Ok(out);
        }
        let window = &rest[..rest.len().min(MAX_HEAD)];
        let end = find(window, b"\r\n\r\n").ok_or("a part whose headers do not end")?;
        let head = std::str::from_utf8(&rest[..end]).map_err(|_| "a part with headers that are no text")?;
        let told = head.split("\r\n").filter_map(|line| line.split_once(':'));
        let told = told.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("content-range"));
        let (range, total) =
            told.and_then(|(_, text)| content_range(text)).ok_or("a part without its range")?;
        if range.end > size || total.is_some_and(|total| total != size) {
            return Err("a part of another blob");
        }
        rest = &rest[end + 4..];
        let len = usize::try_from(range.end - range.start).map_err(|_| "a part that is too long")?;
        let (bytes, after) = rest.split_at_checked(len).ok_or("a part that is cut")?;
        out.push((range, bytes));
        rest = after;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries() {
        assert_eq!(boundary("multipart/byteranges; boundary=abc"), Some("abc"));
        assert_eq!(boundary("Multipart/ByteRanges;charset=x; Boundary=\"a:c\""), Some("a:c"));
        for none in ["", "text/plain; boundary=a", "multipart/byteranges", "multipart/byteranges; boundary="]
        {
            assert_eq!(boundary(none), None, "{none}");
        }
    }

    fn body(parts: &[(u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (start, bytes) in parts {
            let last = start + bytes.len() as u64 - 1;
            let head =
                format!("\r\n--B\r\nContent-Type: x\r\nContent-Range: bytes {start}-{last}/1000\r\n\r\n");
            out.extend_from_slice(head.as_bytes());
            out.extend_from_slice(bytes);
        }
        out.extend_from_slice(b"\r\n--B--\r\n");
        out
    }

    #[test]
    fn parts_and_their_faults() {
        let whole = body(&[(5, b"hello"), (100, b"--B\r\n\r\n")]);
        let found = parts(&whole, "B", 1000).unwrap();
        assert_eq!(found, [(5..10, &b"hello"[..]), (100..107, &b"--B\r\n\r\n"[..])]);
        assert_eq!(parts(b"--B--", "B", 1).unwrap(), []);
        assert!(parts(&whole, "C", 1000).is_err());
        assert!(parts(&whole, "B", 999).is_err(), "another total");
        assert!(parts(b"--B\r\nContent-Type: x\r\n\r\nabc\r\n--B--", "B", 1000).is_err());
        for cut in 0..whole.len() - 4 {
            assert!(parts(&whole[..cut], "B", 1000).is_err(), "{cut}");
        }
        let far = [&b"--B\r\n"[..], &vec![b'x'; MAX_HEAD], b"\r\n\r\n"].concat();
        assert!(parts(&far, "B", 1000).is_err());
    }

    #[test]
    fn a_spoiled_body_gives_parts_of_the_length_they_claim_or_none() {
        let whole = body(&[(5, b"hello"), (100, b"world")]);
        for at in 0..whole.len() {
            for byte in [0, b'-', b'9', b'\r', 0xff] {
                let mut spoiled = whole.clone();
                spoiled[at] = byte;
                for (range, part) in parts(&spoiled, "B", 1000).into_iter().flatten() {
                    assert!(range.end <= 1000 && part.len() as u64 == range.end - range.start, "{at}");
                }
            }
        }
    }
}
