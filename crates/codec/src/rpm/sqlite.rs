//! SQLite databases, as far as a table of blobs goes (`docs/formats/rpm-databases.md`, section 2).

use std::collections::HashMap;

use super::{Error, Found, Visited, number, part, short};

/// What each database begins with.
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";

/// The table that has the headers.
const TABLE: &str = "Packages";
/// Levels of a table; more are in none.
const MAX_DEPTH: u32 = 40;
/// Bytes of the schema at most.
const MAX_SCHEMA: u64 = 4 << 20;

/// Kinds of pages (section 2.2).
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// Bytes of the header of a log, and of a page of it.
const WAL_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
const WAL_MAGIC: u32 = 0x377f_0682;
const WAL_VERSION: u32 = 3_007_000;

/// Pages by number, the first being 1: those of the log where it has them.
struct Pages<'a> {
    database: &'a [u8],
    size: u64,
    /// Bytes of a page that are of use.
    usable: u64,
    log: HashMap<u64, &'a [u8]>,
}

/// Reads the table of packages.
pub(super) fn read(database: &[u8], wal: &[u8], found: &mut Found) -> Result<(), Error> {
    let pages = Pages::new(database, wal)?;
    let root = pages.root_of_table()?;
    let mut visited = Visited::default();
    pages.rows(root, 0, &mut visited, &mut |page, at, len| {
        found.reserve(len)?;
        let row = pages.payload(page, at, len)?;
        // A row with a hole is one that is being written; its number is no column of the record.
        match columns(&row)?.into_iter().nth(1) {
            Some(Column::Blob(range)) => found.header(part(&row, range.0, range.1, "a row")?),
            _ => Err(Error::Invalid { what: "a row", at, reason: "it has no header" }),
        }
    })
}

impl<'a> Pages<'a> {
    fn new(database: &'a [u8], wal: &'a [u8]) -> Result<Self, Error> {
        const WHAT: &str = "the head of the database";
        let size = match short(database, 16, true, WHAT)? {
            1 => 65_536,
            size if size >= 512 && size.is_power_of_two() => u64::from(size),
            _ => return Err(Error::Invalid { what: "the size of pages", at: 16, reason: "it is none" }),
        };
        let reserved = u64::from(part(database, 20, 1, WHAT)?[0]);
        if size - reserved < 480 {
            return Err(Error::Invalid {
                what: "the size of pages",
                at: 20,
                reason: "too much of it is reserved",
            });
        }
        let encoding = number(database, 56, true, WHAT)?;
        if encoding > 1 {
            return Err(Error::Invalid { what: "the encoding of texts", at: 56, reason: "it is not UTF-8" });
        }
        Ok(Pages { database, size, usable: size - reserved, log: log(wal, size) })
    }

    fn page(&self, page: u64) -> Result<&'a [u8], Error> {
        if let Some(bytes) = self.log.get(&page) {
            return Ok(bytes);
        }
        let at =
            page.checked_sub(1).ok_or(Error::Invalid { what: "a page", at: 0, reason: "its number is 0" })?;
        part(self.database, at.saturating_mul(self.size), self.size, "a page")
    }

    /// Where a page is in the file, for messages.
    fn place(&self, page: u64) -> u64 {
        page.saturating_sub(1).saturating_mul(self.size)
    }

    /// The first page of the table of packages.
    fn root_of_table(&self) -> Result<u64, Error> {
        let (mut root, mut bytes) = (None, 0_u64);
        self.rows(1, 0, &mut Visited::default(), &mut |page, at, len| {
            // A row that says to have none takes time as well.
            bytes = bytes.saturating_add(len).saturating_add(16);
            if bytes > MAX_SCHEMA {
                let what = "bytes of the schema";
                return Err(Error::TooLarge { what, actual: bytes, limit: MAX_SCHEMA });
            }
            let row = self.payload(page, at, len)?;
            let columns = columns(&row)?;
            let text = |number: usize| match columns.get(number) {
                Some(Column::Text(range)) => part(&row, range.0, range.1, "a row").ok(),
                _ => None,
            };
            if text(0) == Some(b"table")
                && text(1).is_some_and(|name| name.eq_ignore_ascii_case(TABLE.as_bytes()))
                && let Some(Column::Number(page)) = columns.get(3)
            {
                root = u64::try_from(*page).ok();
            }
            Ok(())
        })?;
        root.ok_or(Error::NoTable)
    }

    /// Goes through a table; `row` is told a page, where in it a record begins, and the bytes of the record.
    fn rows(
        &self,
        page: u64,
        depth: u32,
        visited: &mut Visited,
        row: &mut dyn FnMut(u64, u64, u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        const WHAT: &str = "a page of a table";
        let at = self.place(page);
        visited.first(page, WHAT, at)?;
        if depth > MAX_DEPTH {
            return Err(Error::Invalid { what: WHAT, at, reason: "too far below the first" });
        }
        let bytes = self.page(page)?;
        // The first page begins with the head of the database.
        let head = if page == 1 { 100 } else { 0 };
        let kind = part(bytes, head, 1, WHAT)?[0];
        let cells = u64::from(short(bytes, head + 3, true, WHAT)?);
        let first = match kind {
            INTERIOR => head + 12,
            LEAF => head + 8,
            _ => return Err(Error::Invalid { what: WHAT, at, reason: "it is none of a table" }),
        };
        for number_of in 0..cells {
            let cell = u64::from(short(bytes, first + 2 * number_of, true, WHAT)?);
            if kind == INTERIOR {
                let below = u64::from(number(bytes, cell, true, "a cell")?);
                self.rows(below, depth + 1, visited, row)?;
                continue;
            }
            let (len, took) = varint(bytes, cell)?;
            let (_, more) = varint(bytes, cell + took)?;
            row(page, cell + took + more, len)?;
        }
        if kind == INTERIOR {
            let last = u64::from(number(bytes, head + 8, true, WHAT)?);
            self.rows(last, depth + 1, visited, row)?;
        }
        Ok(())
    }

    /// A record of `len` bytes that begins in a page, with what of it lies in pages of its own.
    fn payload(&self, page: u64, at: u64, len: u64) -> Result<Vec<u8>, Error> {
        const WHAT: &str = "a record";
        let bytes = self.page(page)?;
        let most = self.usable - 35;
        if len <= most {
            return Ok(part(bytes, at, len, WHAT)?.to_vec());
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let fitting = least + (len - least) % (self.usable - 4);
        let here = if fitting <= most { fitting } else { least };
        let mut out = part(bytes, at, here, WHAT)?.to_vec();
        let mut next = u64::from(number(bytes, at + here, true, WHAT)?);
        // What the file cannot hold is not there.
        if len > (self.database.len() as u64).saturating_add(self.log.len() as u64 * self.size) {
            return Err(Error::Short { what: WHAT });
        }
        while (out.len() as u64) < len {
            let bytes = self.page(next)?;
            let more = (len - out.len() as u64).min(self.usable - 4);
            out.extend_from_slice(part(bytes, 4, more, WHAT)?);
            next = u64::from(number(bytes, 0, true, WHAT)?);
        }
        Ok(out)
    }
}

/// What stands in a column: numbers, and where texts and blobs are in the record, with their lengths.
enum Column {
    Number(i64),
    Text((u64, u64)),
    Blob((u64, u64)),
    Other,
}

/// The columns of a record.
fn columns(record: &[u8]) -> Result<Vec<Column>, Error> {
    const WHAT: &str = "a record";
    let (head, mut at) = varint(record, 0)?;
    let (mut columns, mut body) = (Vec::new(), head);
    while at < head {
        let (kind, took) = varint(record, at)?;
        at += took;
        let (column, len) = match kind {
            0 => (Column::Other, 0),
            1..=6 => {
                let len = [1, 2, 3, 4, 6, 8][kind as usize - 1];
                let bytes = part(record, body, len, WHAT)?;
                let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
                let start = if negative { -1 } else { 0 };
                (Column::Number(bytes.iter().fold(start, |value, byte| (value << 8) | i64::from(*byte))), len)
            }
            7 => (Column::Other, 8),
            8 | 9 => (Column::Number(kind as i64 - 8), 0),
            10 | 11 => return Err(Error::Invalid { what: WHAT, at, reason: "a type that nothing has" }),
            kind => {
                let len = (kind - 12) / 2;
                (if kind % 2 == 0 { Column::Blob((body, len)) } else { Column::Text((body, len)) }, len)
            }
        };
        columns.push(column);
        body = body.checked_add(len).ok_or(Error::Short { what: WHAT })?;
    }
    if body > record.len() as u64 {
        return Err(Error::Short { what: WHAT });
    }
    Ok(columns)
}

/// A number of one to nine bytes, and how many these are.
fn varint(bytes: &[u8], at: u64) -> Result<(u64, u64), Error> {
    let mut value = 0_u64;
    for n in 0..9 {
        let byte = part(bytes, at.saturating_add(n), 1, "a number")?[0];
        if n == 8 {
            return Ok((value << 8 | u64::from(byte), 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, n + 1));
        }
    }
    Ok((value, 9))
}

/// Pages of the finished transactions of a log. What of it is damaged, or of an older run, ends it, as for SQLite.
fn log(wal: &[u8], size: u64) -> HashMap<u64, &[u8]> {
    let (mut pages, mut open) = (HashMap::new(), Vec::new());
    let read = |at: u64| number(wal, at, true, "the log");
    let Ok(magic) = read(0) else { return pages };
    let said = (read(4), read(8), part(wal, 16, 8, "the log"));
    let (Ok(WAL_VERSION), Ok(page_size), Ok(salts)) = said else { return pages };
    if magic & !1 != WAL_MAGIC || u64::from(page_size) != size {
        return pages;
    }
    let big = magic & 1 == 1;
    let Some(mut sum) = wal.get(..24).map(|head| checksum((0, 0), head, big)) else { return pages };
    if (read(24), read(28)) != (Ok(sum.0), Ok(sum.1)) {
        return pages;
    }
    let mut at = WAL_HEADER;
    while let (Ok(head), Ok(page)) =
        (part(wal, at, FRAME_HEADER, "the log"), part(wal, at + FRAME_HEADER, size, "the log"))
    {
        sum = checksum(checksum(sum, &head[..8], big), page, big);
        let (Ok(one), Ok(two)) = (read(at + 16), read(at + 20)) else { break };
        let (Ok(number), Ok(commit)) = (read(at), read(at + 4)) else { break };
        if &head[8..16] != salts || (one, two) != sum {
            break;
        }
        open.push((u64::from(number), page));
        if commit > 0 {
            pages.extend(open.drain(..));
        }
        at += FRAME_HEADER + size;
    }
    pages
}

/// The sum of a log goes on over bytes, eight at a time.
fn checksum((mut one, mut two): (u32, u32), bytes: &[u8], big: bool) -> (u32, u32) {
    for eight in bytes.as_chunks::<8>().0 {
        let [a, b, c, d, e, f, g, h] = *eight;
        let read = |four| if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) };
        one = one.wrapping_add(read([a, b, c, d])).wrapping_add(two);
        two = two.wrapping_add(read([e, f, g, h])).wrapping_add(one);
    }
    (one, two)
}
