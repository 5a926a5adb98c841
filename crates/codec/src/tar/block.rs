//! One 512-byte header block and its fields: ustar (POSIX.1-1988), STAR and GNU layouts as Go's `archive/tar` tells
//! them apart.

/// A raw header block.
pub(super) type Block = [u8; 512];

/// Which layout a block has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// The fields every layout shares, plus the name prefix where the layout has one.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    pub name: Vec<u8>,
    pub link_name: Vec<u8>,
    pub typeflag: u8,
    pub size: i64,
    pub mode: i64,
    pub uid: i64,
    pub gid: i64,
    pub mtime: i64,
    /// Major and minor number of a device.
    pub device: (i64, i64),
}

pub(super) const BAD_CHECKSUM: &str = "wrong checksum";
const BAD_NUMBER: &str = "malformed number";

/// The layout of `b`, or `None` when its checksum matches neither the unsigned nor the signed sum.
pub(super) fn layout(b: &Block) -> Option<Layout> {
    let stated = octal(&b[148..156]).ok()?;
    let (mut unsigned, mut signed) = (0i64, 0i64);
    for (i, &byte) in b.iter().enumerate() {
        let byte = if (148..156).contains(&i) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte as i8);
    }
    if stated != unsigned && stated != signed {
        return None;
    }
    Some(match (&b[257..263], &b[263..265], &b[508..512]) {
        (b"ustar\0", _, b"tar\0") => Layout::Star,
        (b"ustar\0", _, _) => Layout::Ustar,
        (b"ustar ", b" \0", _) => Layout::Gnu,
        _ => Layout::V7,
    })
}

/// Reads the fields of a checked block.
pub(super) fn fields(b: &Block, layout: Layout) -> Result<Fields, &'static str> {
    let mut f = Fields {
        name: text(&b[..100]).to_vec(),
        mode: number(&b[100..108])?,
        uid: number(&b[108..116])?,
        gid: number(&b[116..124])?,
        size: number(&b[124..136])?,
        mtime: number(&b[136..148])?,
        typeflag: b[156],
        link_name: text(&b[157..257]).to_vec(),
        device: (0, 0),
    };
    if layout == Layout::V7 {
        return Ok(f);
    }
    f.device = (number(&b[329..337])?, number(&b[337..345])?);
    let prefix = match layout {
        Layout::Ustar => text(&b[345..500]),
        Layout::Star => {
            number(&b[476..488])?;
            number(&b[488..500])?;
            text(&b[345..476])
        }
        // Old Go writers put a ustar prefix where GNU keeps two times: believe it when the times make no sense.
        _ if [&b[345..357], &b[357..369]].iter().any(|t| t[0] != 0 && number(t).is_err()) => {
            Some(text(&b[345..500])).filter(|p| p.is_ascii()).unwrap_or_default()
        }
        _ => b"",
    };
    if !prefix.is_empty() {
        f.name = [prefix, b"/", &f.name].concat();
    }
    Ok(f)
}

/// Bytes up to the first NUL.
pub(crate) fn text(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or_default()
}

/// A numeric field: base-256 when the top bit is set, else octal.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    if field[0] & 0x80 == 0 {
        return octal(field);
    }
    let invert = if field[0] & 0x40 != 0 { 0xff } else { 0 };
    let mut x: u64 = 0;
    for (i, &byte) in field.iter().enumerate() {
        let mut byte = byte ^ invert;
        if i == 0 {
            byte &= 0x7f;
        }
        if x >> 56 != 0 {
            return Err(BAD_NUMBER);
        }
        x = x << 8 | u64::from(byte);
    }
    let x = i64::try_from(x).map_err(|_| BAD_NUMBER)?;
    Ok(if invert == 0 { x } else { !x })
}

/// Octal digits between spaces and NULs; an empty field is 0. Values above `i64::MAX` wrap, as in Go.
fn octal(field: &[u8]) -> Result<i64, &'static str> {
    let pad = |b: &u8| *b == b' ' || *b == 0;
    let Some(first) = field.iter().position(|b| !pad(b)) else { return Ok(0) };
    let last = field.iter().rposition(|b| !pad(b)).unwrap_or(first);
    let mut x: u64 = 0;
    for &c in text(&field[first..=last]) {
        if !(b'0'..=b'7').contains(&c) || x >> 61 != 0 {
            return Err(BAD_NUMBER);
        }
        x = x << 3 | u64::from(c - b'0');
    }
    Ok(x as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"  644 \0\0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert!(number(b"64x\0\0\0\0\0").is_err());
        assert!(number(b"6 4\0\0\0\0\0").is_err());
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Ok(256));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert!(number(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_err(), "needs 64 bits");
        assert!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]).is_err(), "needs the sign bit");
    }
}
