//! Databases of rpm: which packages are installed (`docs/formats/rpm-databases.md`).
//!
//! | module | what it is |
//! |---|---|
//! | `header` | what rpm says of a package |
//! | `sqlite` | `rpmdb.sqlite` |
//! | `ndb` | `Packages.db` |
//! | `bdb` | `Packages` |
//!
//! A database is read from memory, front to back as its tables lead, and never written. Only what leads to the headers of
//! packages is looked at: indexes may be wrong.

mod bdb;
mod header;
mod ndb;
mod sqlite;

use std::collections::HashMap;

pub use header::Package;

/// What reading a database may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Packages.
    pub packages: u64,
    /// Bytes of one header.
    pub header: u64,
    /// Bytes of all headers.
    pub headers: u64,
}

impl Default for Limits {
    /// 100,000 packages, 256 MiB for one header as rpm has it, 1 GiB in all.
    fn default() -> Self {
        Limits { packages: 100_000, header: 256 << 20, headers: 1 << 30 }
    }
}

/// Why a database cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is none of the kinds that are known.
    #[error("it is no database of rpm that is known")]
    Unknown,
    /// It ends where there should be more.
    #[error("{what} reaches beyond the end")]
    Short {
        /// What.
        what: &'static str,
    },
    /// A rule of its format is broken.
    #[error("{what} at byte {at}: {reason}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Where it is in the file; of a header, in the header.
        at: u64,
        /// In which way.
        reason: &'static str,
    },
    /// It holds no table of packages.
    #[error("there is no table of packages")]
    NoTable,
    /// Something is larger than [`Limits`] allow.
    #[error("{what}: {actual}, {limit} are allowed")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How many, or how large.
        actual: u64,
        /// The bound.
        limit: u64,
    },
}

/// The packages of a database of any kind, in its order. `wal` is the write-ahead log that lies beside an SQLite database;
/// what it holds of finished transactions counts.
///
/// # Errors
/// [`Error`].
pub fn packages(database: &[u8], wal: &[u8], limits: &Limits) -> Result<Vec<Package>, Error> {
    let mut found = Found { packages: Vec::new(), bytes: 0, limits: *limits };
    if database.starts_with(sqlite::MAGIC) {
        sqlite::read(database, wal, &mut found)?;
    } else if database.starts_with(ndb::MAGIC) {
        ndb::read(database, &mut found)?;
    } else if bdb::is_hash(database) {
        bdb::read(database, &mut found)?;
    } else {
        return Err(Error::Unknown);
    }
    Ok(found.packages)
}

/// Packages so far.
struct Found {
    packages: Vec<Package>,
    bytes: u64,
    limits: Limits,
}

impl Found {
    /// Fails before so many bytes are gathered that are too many.
    fn reserve(&self, bytes: u64) -> Result<(), Error> {
        let Limits { header, headers, .. } = self.limits;
        if bytes > header {
            return Err(Error::TooLarge { what: "bytes of a header", actual: bytes, limit: header });
        }
        let actual = self.bytes.saturating_add(bytes);
        if actual > headers {
            return Err(Error::TooLarge { what: "bytes of all headers", actual, limit: headers });
        }
        Ok(())
    }

    /// Takes the header of a package.
    fn header(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reserve(bytes.len() as u64)?;
        self.bytes += bytes.len() as u64;
        let (actual, limit) = (self.packages.len() as u64 + 1, self.limits.packages);
        if actual > limit {
            return Err(Error::TooLarge { what: "packages", actual, limit });
        }
        // Keys of who signs are kept as packages without a version and so on; rpm shows them, too.
        self.packages.extend(Package::parse(bytes)?);
        Ok(())
    }
}

/// Bytes `at..at + len` of a file.
fn part<'a>(bytes: &'a [u8], at: u64, len: u64, what: &'static str) -> Result<&'a [u8], Error> {
    let short = || Error::Short { what };
    let at = usize::try_from(at).map_err(|_| short())?;
    let end = usize::try_from(len).ok().and_then(|len| at.checked_add(len)).ok_or_else(short)?;
    bytes.get(at..end).ok_or_else(short)
}

/// A number of 32 bits at an offset; `big` is its byte order.
fn number(bytes: &[u8], at: u64, big: bool, what: &'static str) -> Result<u32, Error> {
    let four = part(bytes, at, 4, what)?;
    let four = [four[0], four[1], four[2], four[3]];
    Ok(if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) })
}

/// A number of 16 bits at an offset.
fn short(bytes: &[u8], at: u64, big: bool, what: &'static str) -> Result<u16, Error> {
    let two = part(bytes, at, 2, what)?;
    Ok(if big { u16::from_be_bytes([two[0], two[1]]) } else { u16::from_le_bytes([two[0], two[1]]) })
}

/// Pages that were visited, so that none leads to itself.
#[derive(Default)]
struct Visited(HashMap<u64, ()>);

impl Visited {
    fn first(&mut self, page: u64, what: &'static str, at: u64) -> Result<(), Error> {
        match self.0.insert(page, ()) {
            None => Ok(()),
            Some(()) => Err(Error::Invalid { what, at, reason: "it is reached twice" }),
        }
    }
}
