//! CRC-64/ISO as Go's `hash/crc64` computes it: what tar-split keeps of contents (`docs/formats/chunked.md`, section 5).

/// Reflected polynomial.
const POLY: u64 = 0xd800_0000_0000_0000;

const TABLES: [[u64; 256]; 8] = tables();

const fn tables() -> [[u64; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ POLY } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
}

/// A running CRC.
#[derive(Debug, Clone, Copy)]
pub struct Crc64(u64);

impl Default for Crc64 {
    fn default() -> Self {
        Crc64(!0)
    }
}

impl Crc64 {
    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut crc = self.0;
        for word in words {
            crc ^= u64::from_le_bytes(*word);
            let table = |table: usize| TABLES[7 - table][(crc >> (8 * table) & 0xff) as usize];
            crc = table(0) ^ table(1) ^ table(2) ^ table(3) ^ table(4) ^ table(5) ^ table(6) ^ table(7);
        }
        for byte in rest {
            crc = crc >> 8 ^ TABLES[0][((crc ^ u64::from(*byte)) & 0xff) as usize];
        }
        self.0 = crc;
    }

    /// The CRC of all bytes so far.
    pub fn value(&self) -> u64 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_one_of_go() {
        for (bytes, want) in [
            (&b""[..], 0u64),
            // The check value of CRC-64/GO-ISO in the catalogue of CRCs.
            (b"123456789", 0xb909_56c7_75a4_1001),
        ] {
            let mut crc = Crc64::default();
            crc.update(bytes);
            assert_eq!(crc.value(), want);
            let mut slow = Crc64::default();
            bytes.iter().for_each(|byte| slow.update(&[*byte]));
            assert_eq!(slow.value(), want);
        }
    }
}
