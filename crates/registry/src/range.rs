//! `Content-Range` of answers, `Range` of upload states, `Link` of pages.

/// `bytes FIRST-LAST/TOTAL` (RFC 9110, section 14.4): the range with its end excluded, and the total if it is told.
pub(crate) fn content_range(text: &str) -> Option<(std::ops::Range<u64>, Option<u64>)> {
    let rest = text.trim().strip_prefix("bytes")?.trim_start_matches([' ', '=']);
    let (range, total) = rest.split_once('/')?;
    let (first, last) = range.trim().split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let end = last.checked_add(1)?;
    let total = match total.trim() {
        "*" => None,
        total => Some(number(total)?),
    };
    (first < end && total.is_none_or(|total| end <= total)).then_some((first..end, total))
}

/// `0-LAST` of an upload, with or without `bytes=` (distribution-spec 1.1, "Pushing a blob in chunks"): bytes that the
/// registry has. `0-0` means nothing to some and one byte to others; it is read as nothing, which only costs a byte.
pub(crate) fn upload_range(text: &str) -> Option<u64> {
    let text = text.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    if number(first)? != 0 {
        return None;
    }
    match number(last)? {
        0 => Some(0),
        last => last.checked_add(1),
    }
}

/// The target of `Link: <TARGET>; rel="next"` (RFC 8288), among any others.
pub(crate) fn next_link(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(open) = rest.find('<') {
        let close = open + rest[open..].find('>')?;
        let target = &rest[open + 1..close];
        let after = &rest[close + 1..];
        let parameters = &after[..after.find('<').unwrap_or(after.len())];
        let is_next = parameters.split([';', ',']).any(|parameter| {
            parameter.trim().split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            })
        });
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

/// Digits alone: `+1` and ` 1` are no numbers here.
fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5..10, Some(100))));
        assert_eq!(content_range("bytes 0-0/*"), Some((0..1, None)));
        for bad in [
            "",
            "bytes */100",
            "bytes 9-5/100",
            "bytes 5-100/100",
            "items 1-2/3",
            "bytes 1-2",
            "bytes +1-2/3",
            "bytes 0-18446744073709551615/*",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn upload_ranges() {
        assert_eq!(upload_range("0-99"), Some(100));
        assert_eq!(upload_range("bytes=0-99"), Some(100));
        assert_eq!(upload_range("0-0"), Some(0));
        for bad in ["", "5-9", "0", "-", "0--1", "0-x"] {
            assert_eq!(upload_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn links() {
        assert_eq!(
            next_link("</v2/x/tags/list?n=2&last=b>; rel=\"next\""),
            Some("/v2/x/tags/list?n=2&last=b")
        );
        assert_eq!(next_link("</a>; rel=prev, </b>; rel=next"), Some("/b"));
        for none in ["", "</a>", "</a>; rel=\"prev\"", "<", "rel=next", "<a; rel=next"] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }
}
