//! Hash tables of Berkeley DB (`docs/formats/rpm-databases.md`, section 4).

use super::{Error, Found, Visited, number, part, short};

/// What says that it is a hash table, in the byte order of its writer, and where.
const MAGIC: u32 = 0x0006_1561;
const MAGIC_AT: u64 = 12;
/// Versions that rpm has ever written.
const VERSIONS: std::ops::RangeInclusive<u32> = 7..=10;
/// Bytes of the head of a page.
const HEAD: u64 = 26;

/// Kinds of pages.
const HASH_UNSORTED: u8 = 2;
const OVERFLOW: u8 = 7;
const HASH: u8 = 13;
/// Kinds of items.
const KEY_DATA: u8 = 1;
const OFF_PAGE: u8 = 3;

/// Whether a file is a hash table of Berkeley DB.
pub(super) fn is_hash(database: &[u8]) -> bool {
    byte_order(database).is_some()
}

/// Whether its numbers are big-endian.
fn byte_order(database: &[u8]) -> Option<bool> {
    [false, true].into_iter().find(|big| number(database, MAGIC_AT, *big, "") == Ok(MAGIC))
}

/// Reads the packages. The table's own way by hash is not taken: each page of items is looked at once.
pub(super) fn read(database: &[u8], found: &mut Found) -> Result<(), Error> {
    let big = byte_order(database).ok_or(Error::Unknown)?;
    let field = |at: u64| number(database, at, big, "the head of the database");
    if !VERSIONS.contains(&field(16)?) {
        return Err(Error::Invalid { what: "the version", at: 16, reason: "it is not known" });
    }
    let size = u64::from(field(20)?);
    if !(512..=65_536).contains(&size) || !size.is_power_of_two() {
        return Err(Error::Invalid { what: "the size of pages", at: 20, reason: "it is none" });
    }
    if part(database, 24, 1, "the head of the database")?[0] != 0 {
        return Err(Error::Invalid { what: "the database", at: 24, reason: "it is encrypted" });
    }
    let last = u64::from(field(32)?);
    if last > database.len() as u64 / size {
        return Err(Error::Short { what: "the last page" });
    }
    let table = Table { database, size, big };
    let mut chained = Visited::default();
    for page in 1..=last {
        let bytes = table.page(page)?;
        let kind = part(bytes, 25, 1, "a page")?[0];
        if matches!(kind, HASH | HASH_UNSORTED) {
            table.items(page, bytes, &mut chained, found)?;
        }
    }
    Ok(())
}

struct Table<'a> {
    database: &'a [u8],
    size: u64,
    big: bool,
}

impl<'a> Table<'a> {
    fn page(&self, page: u64) -> Result<&'a [u8], Error> {
        part(self.database, page.saturating_mul(self.size), self.size, "a page")
    }

    /// The items of a page come in pairs, key and value; their places stand behind the page's head.
    fn items(&self, page: u64, bytes: &[u8], chained: &mut Visited, found: &mut Found) -> Result<(), Error> {
        let at = page * self.size;
        let invalid = |reason| Error::Invalid { what: "a page", at, reason };
        let items = u64::from(short(bytes, 20, self.big, "a page")?);
        if !items.is_multiple_of(2) {
            return Err(invalid("a key without its value"));
        }
        let place = |item: u64| Ok(u64::from(short(bytes, HEAD + 2 * item, self.big, "a page")?));
        for pair in 0..items / 2 {
            let (key, value) = (place(2 * pair)?, place(2 * pair + 1)?);
            // Items grow from the end of the page down: a key ends where the one before it begins.
            let before = if pair == 0 { self.size } else { place(2 * pair - 1)? };
            let len = before.checked_sub(key).ok_or(invalid("items over each other"))?;
            let key = part(bytes, key, len, "a key")?;
            // The value of the key 0 is the number that the next package gets.
            if key.first() == Some(&KEY_DATA) && key[1..].iter().all(|byte| *byte == 0) {
                continue;
            }
            match part(bytes, value, 1, "a value")?[0] {
                OFF_PAGE => {
                    let first = number(bytes, value + 4, self.big, "a value")?;
                    let len = number(bytes, value + 8, self.big, "a value")?;
                    found.header(&self.chain(first.into(), len.into(), chained, found)?)?;
                }
                KEY_DATA => {
                    let begin = place(2 * pair)?;
                    let len = begin.checked_sub(value + 1).ok_or(invalid("items over each other"))?;
                    found.header(part(bytes, value + 1, len, "a value")?)?;
                }
                _ => return Err(invalid("a value of a kind that rpm does not write")),
            }
        }
        Ok(())
    }

    /// A value that lies in pages of its own.
    fn chain(&self, first: u64, len: u64, chained: &mut Visited, found: &Found) -> Result<Vec<u8>, Error> {
        found.reserve(len)?;
        let (mut out, mut next) = (Vec::new(), first);
        while (out.len() as u64) < len {
            let at = next.saturating_mul(self.size);
            chained.first(next, "a page of a value", at)?;
            let bytes = self.page(next)?;
            if part(bytes, 25, 1, "a page")?[0] != OVERFLOW {
                return Err(Error::Invalid { what: "a page of a value", at, reason: "it is none" });
            }
            let here = u64::from(short(bytes, 22, self.big, "a page")?);
            if here == 0 || here > len - out.len() as u64 {
                return Err(Error::Invalid {
                    what: "a page of a value",
                    at,
                    reason: "a length that does not fit",
                });
            }
            out.extend_from_slice(part(bytes, HEAD, here, "a page of a value")?);
            next = u64::from(number(bytes, 16, self.big, "a page")?);
        }
        Ok(out)
    }
}
