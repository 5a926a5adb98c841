//! Numbers in headers and streams (`docs/formats/native-delta.md`, section 3).

use super::Error;

/// Appends a number in base 128, least significant group first.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number: its sign in the lowest bit.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, (value << 1 ^ value >> 63) as u64);
}

/// Reads numbers and bytes off the front of a slice that has a name.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads `bytes`; errors say `what` they are.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Fields { rest: bytes, what }
    }

    /// The error that there is no more.
    fn ended(&self) -> Error {
        Error::StreamEnds(self.what)
    }

    /// Bytes not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.rest.len() as u64
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or_else(|| self.ended())?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes as an array.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// A number of at most 63 bits.
    pub(crate) fn number(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::NumberTooLarge(self.what))
    }

    /// A number of at most 63 bits with its sign.
    pub(crate) fn signed(&mut self) -> Result<i64, Error> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that may be at most `most`; the error says which `quantity` it is.
    pub(crate) fn at_most(&mut self, most: u64, quantity: &'static str) -> Result<u64, Error> {
        let value = self.number()?;
        if value > most { Err(Error::OutOfRange { quantity, value, most }) } else { Ok(value) }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::StreamLeft(self.what)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let mut out = Vec::new();
        let values = [0, 1, 127, 128, 300, u64::from(u32::MAX), (1 << 63) - 1];
        values.iter().for_each(|&v| put(&mut out, v));
        let signed = [0, -1, 1, -64, 64, i64::from(i32::MIN), (1 << 62) - 1, -(1 << 62)];
        signed.iter().for_each(|&v| put_signed(&mut out, v));
        let mut fields = Fields::new(&out, "test");
        assert!(values.iter().all(|&v| fields.number().unwrap() == v));
        assert!(signed.iter().all(|&v| fields.signed().unwrap() == v));
        assert!(fields.left() == 0 && fields.end().is_ok());
        assert!(matches!(fields.byte(), Err(Error::StreamEnds("test"))));
    }

    #[test]
    fn numbers_beyond_63_bits_are_refused() {
        let mut fields = Fields::new(&[0xff; 12], "test");
        assert!(matches!(fields.number(), Err(Error::NumberTooLarge("test"))));
        let ten = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1];
        assert!(Fields::new(&ten, "test").number().is_err());
        let nine = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        assert_eq!(Fields::new(&nine, "test").number().unwrap(), (1 << 63) - 1);
        assert!(matches!(Fields::new(&[0x81], "test").number(), Err(Error::StreamEnds(_))));
    }
}
