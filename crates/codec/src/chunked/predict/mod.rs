//! Headers of a tar predicted from its TOC and from an older tar (`docs/formats/chunked.md`, section 8).
//!
//! A TOC has names, modes, owners, times, sizes and links in their order. What it leaves out - the names of owners, which
//! tar format it is, how long names are written, what is behind the last member - is the same in the next tar that the same
//! program writes. So an older tar shows how, and the bytes between contents need not be fetched. It is a bet: the diff_id
//! tells whether it was won.
//!
//! | module | what it is |
//! |---|---|
//! | `block` | one header block in the manner of another |
//! | `extended` | what stands before it: PAX records, GNU long names |
//! | `names` | names that do not fit into a header |

mod block;
mod extended;
mod names;

use std::collections::HashMap;
use std::io::{self, Read};
use std::ops::Range;

use crate::ReadAt;
use crate::tar::{self, BLOCK};

use self::block::Model;
use self::extended::{Dialect, Head};
use super::split::{Member, TarSplit};
use super::{Entry, EntryKind, Error, Layer, Limits, Toc};

/// Bytes behind the last member that are looked at.
const MAX_END: u64 = 1 << 20;
/// Programs that write whole records write so many bytes at once.
const RECORD: u64 = 20 * BLOCK;
/// Zeros that end an archive.
const END: u64 = 2 * BLOCK;

/// How a tar is written, as one that was written before shows.
#[derive(Debug)]
pub struct Style {
    /// Headers of all members.
    framing: Vec<u8>,
    members: Vec<Known>,
    by_name: HashMap<String, usize>,
    dialect: Dialect,
    end: End,
}

/// A member of the old tar.
#[derive(Debug)]
struct Known {
    entry: Entry,
    /// Its headers in the framing.
    head: Range<usize>,
    /// Whether they come out of the entry and of the manner in which they are written.
    understood: bool,
}

/// What is behind the last member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// So many zeros.
    Zeros(u64),
    /// Two blocks of zeros or more, up to whole records and so many bytes: what stands before the first record.
    Record(u64),
}

impl Style {
    /// Learns from a tar. Of its contents nothing is read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tar that cannot be in a chunked layer, or with bytes that nothing predicts;
    /// [`Error::TooLarge`]; it cannot be read.
    pub fn learn(old: &dyn ReadAt, limits: &Limits) -> Result<Style, Error> {
        let bounds = tar::Limits { max_members: limits.entries, ..tar::Limits::default() };
        let mut reader = tar::Reader::new(Headers { old, at: 0, read: Vec::new() }, bounds);
        let mut style = Style {
            framing: Vec::new(),
            members: Vec::new(),
            by_name: HashMap::new(),
            dialect: Dialect::default(),
            end: End::Zeros(0),
        };
        let mut last = 0;
        while let Some(member) = reader.next_entry()? {
            let entry = Entry::of(&member, reader.details(&member)?)?;
            reader.omit_content();
            let input = reader.get_mut();
            input.at = member.content_offset.saturating_add(member.content_len);
            last = input.at.next_multiple_of(BLOCK);
            // What was read ends with the headers; before them stands the padding of the member before.
            let headers = (member.content_offset - member.offset) as usize;
            let padding = input.read.len().saturating_sub(headers);
            check_zeros(&input.read[..padding])?;
            let start = style.framing.len();
            style.framing.extend(input.read.drain(..).skip(padding));
            let actual = style.framing.len() as u64;
            if actual > limits.decoded {
                return Err(Error::TooLarge { what: "the headers", actual, limit: limits.decoded });
            }
            style.by_name.insert(entry.name.clone(), style.members.len());
            style.members.push(Known { entry, head: start..style.framing.len(), understood: false });
        }
        check_zeros(&reader.into_rest().read)?;
        style.understand();
        style.end = style.end_of(old, last)?;
        Ok(style)
    }

    /// Finds out how headers are written, and of which that is understood.
    fn understand(&mut self) {
        let framing = &self.framing;
        let heads: Vec<Option<Head<'_>>> =
            self.members.iter().map(|known| Head::split(&framing[known.head.clone()])).collect();
        let seen = self.members.iter().zip(&heads);
        let latest = latest(self.members.iter().map(|known| &known.entry));
        let dialect =
            Dialect::of(seen.filter_map(|(known, head)| Some((&known.entry, head.as_ref()?))), latest);
        for (known, head) in self.members.iter_mut().zip(&heads) {
            let Some(head) = head else { continue };
            let again = dialect.head(&known.entry, &Model::new(head.main, known.entry.kind), latest);
            known.understood = again.is_some_and(|again| again == framing[known.head.clone()]);
        }
        self.dialect = dialect;
    }

    /// What stands behind the last member, which ends at `last` with its padding.
    fn end_of(&self, old: &dyn ReadAt, last: u64) -> Result<End, Error> {
        let Some(count) = old.size().checked_sub(last) else { return Ok(End::Zeros(0)) };
        if count > MAX_END {
            return Err(Error::TooLarge { what: "the end of the tar", actual: count, limit: MAX_END });
        }
        let mut bytes = vec![0; count as usize];
        old.read_exact_at(last, &mut bytes)?;
        check_zeros(&bytes)?;
        // Some put a tar behind members of their own. Where a record happens to be full, only its writer tells.
        let before = old.size() % RECORD;
        let full = count == END && before == 0 && self.dialect.fills_records();
        Ok(if full || (END + 1..END + RECORD).contains(&count) {
            End::Record(before)
        } else {
            End::Zeros(count)
        })
    }

    /// Members of the tar it was learned from, and how many of their headers are understood.
    pub fn members(&self) -> (usize, usize) {
        (self.members.len(), self.members.iter().filter(|known| known.understood).count())
    }

    /// The layer of a TOC, its framing predicted; `None` if there is an entry that nothing here shows how to write.
    pub fn predict(&self, toc: &Toc, limits: &Limits) -> Option<Layer> {
        let understood = self.members.iter().all(|known| known.understood);
        let mut split = TarSplit { framing: Vec::new(), members: Vec::with_capacity(toc.entries.len()) };
        let (mut contents, mut nearest) = (0u64, HashMap::new());
        let latest = latest(toc.entries.iter());
        for entry in &toc.entries {
            let same = self.by_name.get(&entry.name).map(|number| &self.members[*number]);
            match same.filter(|known| known.understood || known.entry.difference(entry).is_none()) {
                Some(known) if is_same(&known.entry, entry) && !self.is_outdated(known, latest) => {
                    split.framing.extend_from_slice(&self.framing[known.head.clone()]);
                    if known.understood {
                        nearest.insert(entry.kind, known);
                    }
                }
                Some(known) if known.understood => {
                    split.framing.extend(self.head(entry, known, latest)?);
                    nearest.insert(entry.kind, known);
                }
                // A name that is new: like the one of its kind before it, or any.
                None if understood => {
                    let like = nearest.get(&entry.kind).copied().or_else(|| self.like(entry.kind))?;
                    split.framing.extend(self.head(entry, like, latest)?);
                }
                _ => return None,
            }
            let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
            let name = entry.name.clone().into_bytes();
            split.members.push(Member { name, size, crc: None, framing: split.framing.len() });
            contents = contents.checked_add(size)?;
            let padding = tar::write::padding(size);
            split.framing.resize(split.framing.len() + padding, 0);
            if split.framing.len() as u64 > limits.decoded {
                return None;
            }
        }
        let size = contents.checked_add(split.framing.len() as u64)?;
        let end = match self.end {
            End::Zeros(count) => count,
            End::Record(before) => {
                let least = size.checked_add(END)?;
                END + (before + RECORD - least % RECORD) % RECORD
            }
        };
        split.framing.resize(split.framing.len() + end as usize, 0);
        // What does not say what the TOC says is no tar of it.
        Layer::new(toc.clone(), split, limits).ok()
    }

    fn head(&self, entry: &Entry, like: &Known, latest: i64) -> Option<Vec<u8>> {
        let main = self.framing[like.head.clone()].last_chunk()?;
        self.dialect.head(entry, &Model::new(main, like.entry.kind), latest)
    }

    /// Whether the headers of a member that is the same are others in a tar whose latest member is of the time `latest`.
    fn is_outdated(&self, known: &Known, latest: i64) -> bool {
        self.dialect.is_outdated(&self.framing[known.head.clone()], latest)
    }

    /// A member that shows how others of this kind are written.
    fn like(&self, kind: EntryKind) -> Option<&Known> {
        let rank = |known: &&Known| (known.entry.kind != kind, known.entry.kind != EntryKind::File);
        self.members.iter().rev().min_by_key(rank)
    }
}

/// Whether the header that was written for one is that of the other.
fn is_same(old: &Entry, new: &Entry) -> bool {
    old.difference(new).is_none() && old.size == new.size && (old.atime, old.ctime) == (new.atime, new.ctime)
}

/// The time of the latest member, in whole seconds.
fn latest<'a>(entries: impl Iterator<Item = &'a Entry>) -> i64 {
    entries.map(|entry| entry.mtime.seconds).max().unwrap_or_default()
}

fn check_zeros(bytes: &[u8]) -> Result<(), Error> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(Error::Unsupported {
            name: "the tar".into(),
            what: "it has other bytes than zeros between its members, or behind them",
        }),
    }
}

/// A tar without its contents, and what was read of it.
struct Headers<'a> {
    old: &'a dyn ReadAt,
    at: u64,
    read: Vec<u8>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.old.read_at(self.at, buf)?;
        self.at += n as u64;
        self.read.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}
