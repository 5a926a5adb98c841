//! PAX extended headers (POSIX.1-2001, pax "extended header"), parsed as Go's `archive/tar` parses them.

use std::collections::BTreeMap;

/// Keyword to value; a later record of the same keyword wins.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const NANOS: u32 = 1_000_000_000;
const BAD_RECORD: &str = "malformed PAX record";

/// Parses the content of one extended header. The offset/numbytes pairs of sparse format 0.0 become one
/// `GNU.sparse.map` record, as in format 0.1.
pub(super) fn parse(mut content: &[u8]) -> Result<Records, &'static str> {
    let mut records = Records::new();
    let mut sparse: Vec<&[u8]> = Vec::new();
    while !content.is_empty() {
        let (key, value, rest) = record(content).ok_or(BAD_RECORD)?;
        content = rest;
        if key == b"GNU.sparse.offset" || key == b"GNU.sparse.numbytes" {
            let expected: &[u8] =
                if sparse.len().is_multiple_of(2) { b"GNU.sparse.offset" } else { b"GNU.sparse.numbytes" };
            if key != expected || value.contains(&b',') {
                return Err("malformed sparse map in a PAX header");
            }
            sparse.push(value);
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
    }
    if !sparse.is_empty() {
        records.insert(b"GNU.sparse.map".to_vec(), sparse.join(&b','));
    }
    Ok(records)
}

/// Splits `"LEN KEY=VALUE\n"` off the front.
pub(crate) fn record(content: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = content.iter().position(|&b| b == b' ')?;
    let len = usize::try_from(decimal(&content[..space])?).ok()?;
    if len < 5 || len > content.len() || len <= space + 1 {
        return None;
    }
    let (line, rest) = content.split_at(len);
    let (&newline, line) = line[space + 1..].split_last()?;
    let equals = line.iter().position(|&b| b == b'=')?;
    let (key, value) = (&line[..equals], &line[equals + 1..]);
    let checked = match key {
        b"path" | b"linkpath" | b"uname" | b"gname" => value,
        _ => key,
    };
    (newline == b'\n' && !key.is_empty() && !checked.contains(&0)).then_some((key, value, rest))
}

/// A signed decimal number as Go's `strconv.ParseInt` accepts it.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A PAX time `[-]seconds[.fraction]`: the seconds rounded down and the nanoseconds after them, or `None` when malformed.
pub(super) fn time(text: &[u8]) -> Option<(i64, u32)> {
    let mut halves = text.splitn(2, |&b| b == b'.');
    let whole = halves.next().unwrap_or_default();
    let seconds = decimal(whole)?;
    let fraction = halves.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    // Nine digits count, as in Go: what is below a nanosecond is cut off.
    let digits = fraction.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    if whole.first() == Some(&b'-') && nanos > 0 {
        Some((seconds.checked_sub(1)?, NANOS - nanos))
    } else {
        Some((seconds, nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_their_faults() {
        let ok = parse(b"11 path=abc\n6 k=v\n").unwrap_err();
        assert_eq!(ok, BAD_RECORD, "wrong length");
        let ok = parse(b"12 path=abc\n6 k=v\n").unwrap();
        assert_eq!(ok[&b"path"[..]], b"abc");
        assert_eq!(ok[&b"k"[..]], b"v");
        for bad in [
            &b"99 path=oops\n"[..],
            b"0 a=b\n",
            b"12 path=abcX",
            b"12 path abc\n",
            b"13 path=a\0bc\n",
            b"6 =ab\n",
            b"xx a=b\n",
            b"12",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(b"25 SCHILY.xattr.u=a\0b\n=1\n").is_ok(), "binary xattr values are legal");
    }

    #[test]
    fn times() {
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-1.0"), Some((-1, 0)));
        assert_eq!(time(b"-9223372036854775808.5"), None);
        assert_eq!(time(b"1.x"), None);
        assert_eq!(time(b""), None);
    }
}
