//! rpm's own database (`docs/formats/rpm-databases.md`, section 3).

use super::{Error, Found, Visited, number, part};

/// What it begins with.
pub(super) const MAGIC: &[u8] = b"RpmP";

const VERSION: u32 = 0;
/// Bytes of a page of slots, of a slot, and of a block.
const PAGE: u64 = 4096;
const SLOT: u64 = 16;
const BLOCK: u64 = 16;
/// Slots that the head takes.
const HEAD_SLOTS: u64 = 2;
const SLOT_MAGIC: &[u8] = b"Slot";
const BLOB_MAGIC: &[u8] = b"BlbS";
/// Bytes in front of a header.
const BLOB_HEAD: u64 = 16;

/// Reads the packages.
pub(super) fn read(database: &[u8], found: &mut Found) -> Result<(), Error> {
    let field = |at: u64| number(database, at, false, "the head of the database");
    if field(4)? != VERSION {
        return Err(Error::Invalid { what: "the version", at: 4, reason: "it is not known" });
    }
    let pages = u64::from(field(12)?);
    if pages == 0 || pages > database.len() as u64 / PAGE + 1 {
        return Err(Error::Short { what: "the pages of slots" });
    }
    let mut blocks = Visited::default();
    for slot in HEAD_SLOTS..pages * (PAGE / SLOT) {
        let at = slot * SLOT;
        let bytes = part(database, at, SLOT, "a slot")?;
        let invalid = |reason| Error::Invalid { what: "a slot", at, reason };
        if !bytes.starts_with(SLOT_MAGIC) {
            return Err(invalid("it does not begin as one"));
        }
        let field = |n: u64| number(bytes, n, false, "a slot");
        let (package, block, count) = (field(4)?, u64::from(field(8)?), u64::from(field(12)?));
        if package == 0 {
            continue;
        }
        blocks.first(block, "a slot", at)?;
        let start = block * BLOCK;
        let blob = part(database, start, count * BLOCK, "a package")?;
        let invalid = |reason| Error::Invalid { what: "a package", at: start, reason };
        if !blob.starts_with(BLOB_MAGIC) {
            return Err(invalid("it does not begin as one"));
        }
        if number(blob, 4, false, "a package")? != package {
            return Err(invalid("it is another one than its slot says"));
        }
        let len = u64::from(number(blob, 12, false, "a package")?);
        found.header(part(blob, BLOB_HEAD, len, "a package")?)?;
    }
    Ok(())
}
