//! Numbers of the table: `docs/formats/store.md`, section 4.3.

use super::Error;

/// Appends `value`, seven bits a byte, lowest first.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes values off the front of bytes.
pub struct Numbers<'a>(pub &'a [u8]);

impl<'a> Numbers<'a> {
    /// The next number, in its shortest form.
    pub fn number(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Error::Table("ends within a number"))?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Error::Table("a number of more than 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(Error::Table("a number that is not in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(Error::Table("a number of more than 64 bits"))
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: u64) -> Result<&'a [u8], Error> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.0.len());
        let (bytes, rest) = self.0.split_at(len.ok_or(Error::Table("ends within its bytes"))?);
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_other_forms_are_refused() {
        for value in [0, 1, 127, 128, 300, 1 << 32, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put(&mut out, value);
            let mut numbers = Numbers(&out);
            assert_eq!(numbers.number().unwrap(), value);
            assert!(numbers.0.is_empty());
            assert!(Numbers(&out[..out.len() - 1]).number().is_err());
        }
        for bad in [&[0x80, 0][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(Numbers(bad).number().is_err(), "{bad:?}");
        }
        assert!(Numbers(b"abc").bytes(4).is_err() && Numbers(b"abc").bytes(u64::MAX).is_err());
    }
}
