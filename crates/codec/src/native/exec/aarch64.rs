//! aarch64: the references in instructions (`docs/formats/native-delta.md`, section 9.5).

/// What an instruction may refer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// 26 bits, in words: B, BL.
    Far,
    /// 19 bits from bit 5, in words: B.cond, CBZ, CBNZ, LDR of a literal.
    Near,
    /// 14 bits from bit 5, in words: TBZ, TBNZ.
    Short,
    /// 21 bits, in bytes: ADR.
    Byte,
    /// 21 bits, in pages: ADRP, to this register.
    Page(u32),
    /// 12 bits from bit 10, added to this register, in units of 2^n bytes: ADD, LDR, STR.
    Low { base: u32, scale: u32, result: Option<u32> },
}

/// Looks at one instruction.
pub(crate) fn field(word: u32) -> Option<Field> {
    let register = |shift: u32| word >> shift & 31;
    if word & 0x7c00_0000 == 0x1400_0000 {
        return Some(Field::Far);
    }
    if word & 0xff00_0010 == 0x5400_0000
        || word & 0x7e00_0000 == 0x3400_0000
        || word & 0x3b00_0000 == 0x1800_0000
    {
        return Some(Field::Near);
    }
    if word & 0x7e00_0000 == 0x3600_0000 {
        return Some(Field::Short);
    }
    if word & 0x9f00_0000 == 0x1000_0000 {
        return Some(Field::Byte);
    }
    if word & 0x9f00_0000 == 0x9000_0000 {
        return Some(Field::Page(register(0)));
    }
    if word & 0xffc0_0000 == 0x9100_0000 {
        return Some(Field::Low { base: register(5), scale: 0, result: Some(register(0)) });
    }
    if word & 0x3b00_0000 == 0x3900_0000 {
        let (vector, scale) = (word >> 26 & 1 == 1, scale(word));
        // Stores, prefetches and vector loads leave general registers alone.
        let loads = !vector && word >> 22 & 3 != 0;
        return Some(Field::Low { base: register(5), scale, result: loads.then_some(register(0)) });
    }
    None
}

/// The unit of the immediate of an ADD, LDR or STR: log2 of bytes.
pub(crate) fn scale(word: u32) -> u32 {
    match word {
        _ if word & 0x3b00_0000 != 0x3900_0000 => 0,
        _ if word >> 26 & 1 == 1 && word >> 23 & 1 == 1 => 4,
        _ => word >> 30,
    }
}
