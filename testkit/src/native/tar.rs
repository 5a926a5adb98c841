//! The members of an archive, section 6.1: enough of tar for golden vectors (ustar, GNU long names, PAX).

use super::Member;

/// The members of an archive in order.
pub(super) fn members(archive: &[u8]) -> Result<Vec<Member>, String> {
    let mut out = Vec::new();
    let (mut at, mut start, mut pax_size) = (0, 0, None);
    while let Some(header) = archive.get(at..at + 512) {
        if header.iter().all(|&b| b == 0) {
            break;
        }
        let size = pax_size.take().map_or_else(|| number(&header[124..136]), Ok)?;
        let kind = header[156];
        let content = at + 512;
        let stored = if (b'1'..=b'6').contains(&kind) { 0 } else { size };
        let bytes = archive.get(content..content + stored).ok_or("the archive ends inside a member")?;
        at = content + stored.next_multiple_of(512);
        match kind {
            b'x' => pax_size = size_record(bytes),
            b'L' | b'K' => {}
            _ => {
                // A global header has no content of its own: its records are framing.
                let end = if kind == b'g' { content + stored } else { content };
                let content = if kind == b'g' { &[][..] } else { bytes };
                let framing = archive[start..end].to_vec();
                out.push(Member { path: Vec::new(), framing, content: content.to_vec() });
                start = at;
            }
        }
    }
    Ok(out)
}

fn number(field: &[u8]) -> Result<usize, String> {
    if field[0] & 0x80 != 0 {
        return Ok(field[1..].iter().fold(0, |n, &b| n << 8 | usize::from(b)));
    }
    let text: String = field.iter().map(|&b| char::from(b)).filter(char::is_ascii_digit).collect();
    if text.is_empty() { Ok(0) } else { usize::from_str_radix(&text, 8).map_err(|e| e.to_string()) }
}

fn size_record(records: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(records);
    text.lines().filter_map(|l| l.split_once(" size=")).next_back()?.1.parse().ok()
}
