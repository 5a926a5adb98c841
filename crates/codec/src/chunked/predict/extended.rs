//! What stands before a header: PAX records and GNU long names.

use std::collections::BTreeMap;

use crate::tar::write::{padding, record};
use crate::tar::{BLOCK, Time};

use super::Entry;
use super::block::{self, Block, Model, Texts};
use super::names::{Cut, NAME, Scheme, shorten_as_go};

/// Digits of owners and groups, and of sizes and times, that a header has room for.
const ID: u32 = 7;
const LONG: u32 = 11;
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Half a second.
const HALF: u32 = 500_000_000;
/// Headers that a way of naming is tried on.
const SAMPLES: usize = 64;

/// The headers of one member.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// Type flag, header and content of each that stands before the last.
    extended: Vec<(u8, &'a Block, &'a [u8])>,
    pub(super) main: &'a Block,
}

impl<'a> Head<'a> {
    /// Takes headers apart; `None` if there is more between them than PAX records and long names.
    pub(super) fn split(mut bytes: &'a [u8]) -> Option<Self> {
        let mut extended = Vec::new();
        loop {
            let (block, rest): (&Block, _) = bytes.split_first_chunk()?;
            if rest.is_empty() {
                return Some(Head { extended, main: block });
            }
            let flag = block::flag(block);
            let size = usize::try_from(block::size(block)?).ok()?;
            let padded = size.checked_next_multiple_of(BLOCK as usize)?;
            if !matches!(flag, b'x' | b'L' | b'K') || padded > rest.len() {
                return None;
            }
            extended.push((flag, block, &rest[..size]));
            bytes = &rest[padded..];
        }
    }
}

/// What one tar shows of how it is written, all but the headers themselves.
#[derive(Debug, Default)]
pub(super) struct Dialect {
    /// PAX headers.
    records: Option<Records>,
    /// GNU long names, and long targets.
    long_name: Option<Box<Block>>,
    long_link: Option<Box<Block>>,
    /// Whether GNU names in a header always end with a zero, so that they have a byte less.
    ended: bool,
    /// Whether a long name stands before a long target.
    name_first: bool,
    /// Where long names are cut; `None` if there is none that could be.
    cut: Option<Cut>,
    /// Whether names that are no ASCII, and such targets, are written as they are if they are short enough.
    raw: [bool; 2],
    /// Names of owners and groups by their numbers.
    owners: [BTreeMap<u64, Vec<u8>>; 2],
}

/// How PAX headers are written.
#[derive(Debug)]
struct Records {
    model: Box<Block>,
    names: Scheme,
    date: Date,
    /// Keywords in the order that they have; attributes of files as one.
    order: Vec<Vec<u8>>,
    /// How a time in whole seconds is written; by default not at all.
    whole: Option<&'static str>,
}

/// The time in the header of PAX headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Date {
    /// Always the same.
    Fixed,
    /// That of the member.
    Member,
    /// The latest of all members, which was this one: GNU tar, told a time that none may be later than, writes that.
    Latest(i64),
}

impl Dialect {
    /// Learns from the headers of members, the latest of which is of the time `latest`.
    pub(super) fn of<'a>(seen: impl Iterator<Item = (&'a Entry, &'a Head<'a>)> + Clone, latest: i64) -> Self {
        let mut dialect = Dialect { records: Records::of(seen.clone(), latest), ..Dialect::default() };
        for (entry, head) in seen {
            let model = Model::new(head.main, entry.kind);
            for (names, (id, name)) in dialect.owners.iter_mut().zip(model.owners()) {
                if let Some(id) = id {
                    names.entry(id).or_insert_with(|| name.to_vec());
                }
            }
            let flags: Vec<u8> = head.extended.iter().map(|(flag, ..)| *flag).collect();
            dialect.name_first |= flags.starts_with(b"LK");
            dialect.ended |= flags.contains(&b'L') && head.main[NAME - 1] == 0;
            for (flag, block, _) in &head.extended {
                match flag {
                    b'L' => _ = dialect.long_name.get_or_insert_with(|| Box::new(**block)),
                    b'K' => _ = dialect.long_link.get_or_insert_with(|| Box::new(**block)),
                    _ => {}
                }
            }
            for (number, text) in [&entry.name, &entry.link_name].into_iter().enumerate() {
                let recorded = head
                    .extended
                    .iter()
                    .any(|(.., content)| keys(content).any(|key| key == [&b"path"[..], b"linkpath"][number]));
                dialect.raw[number] |= !text.is_ascii() && text.len() <= NAME && !recorded;
            }
            let name = entry.name.as_bytes();
            if let (true, Some(late)) = (model.is_posix(), Cut::Late.apply(name)) {
                let found = crate::tar::field_text(block::prefix(head.main));
                let early = Cut::Early.apply(name);
                // Where records are there for another reason, nothing is cut.
                let cut = match found {
                    b"" if records_but_path(head) => None,
                    b"" => Some(Cut::Never),
                    found if found == late.0 && Some(late) != early => Some(Cut::Late),
                    found if found == late.0 => dialect.cut.or(Some(Cut::Late)),
                    _ => Some(Cut::Early),
                };
                dialect.cut = cut.or(dialect.cut);
            }
        }
        dialect
    }

    /// Whether it is written by programs that fill whole records.
    pub(super) fn fills_records(&self) -> bool {
        // GNU tar does, but what it wrote is often written anew by others.
        self.records.as_ref().is_some_and(|records| matches!(records.names, Scheme::Fixed(_)))
    }

    /// Whether these headers say the time of the old tar where a tar whose latest member is of the time `latest` says that.
    pub(super) fn is_outdated(&self, headers: &[u8], latest: i64) -> bool {
        let date = self.records.as_ref().map(|records| records.date);
        let other = matches!(date, Some(Date::Latest(old)) if old != latest);
        let has_records = |head: Head<'_>| head.extended.iter().any(|(flag, ..)| *flag == b'x');
        other && Head::split(headers).is_none_or(has_records)
    }

    /// The headers of `entry`, in the manner of `model`, in a tar whose latest member is of the time `latest`; `None` if
    /// nothing shows how.
    pub(super) fn head(&self, entry: &Entry, model: &Model<'_>, latest: i64) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let mut texts = Texts::default();
        for (number, id) in [entry.uid, entry.gid].into_iter().enumerate() {
            let (own, _) = model.owners()[number];
            let id = u64::try_from(id).ok();
            if own != id {
                // A number that has not been seen has no name here, as where it was written.
                let name = id.and_then(|id| self.owners[number].get(&id)).cloned();
                texts.owners[number] = Some(name.unwrap_or_default());
            }
        }
        match model.is_gnu() {
            true => self.gnu(entry, &mut texts, &mut out)?,
            false => self.posix(entry, model, latest, &mut texts, &mut out)?,
        }
        out.extend_from_slice(&model.block(entry, &texts)?);
        Some(out)
    }

    /// What does not fit stands in members of its own.
    fn gnu(&self, entry: &Entry, texts: &mut Texts, out: &mut Vec<u8>) -> Option<()> {
        if !entry.xattrs.is_empty() || entry.mtime.nanos > 0 {
            return None;
        }
        let go = self.name_first || self.cuts_as_go();
        let width = if self.ended && !go { NAME - 1 } else { NAME };
        let mut long = |text: &str, model: &Option<Box<Block>>, kept: usize| {
            if text.len() <= width {
                return Some(text.as_bytes().to_vec());
            }
            let content = [text.as_bytes(), b"\0"].concat();
            let model = model.as_deref()?;
            let name = crate::tar::field_text(&model[..100]);
            push(out, &block::extended(model, name, content.len() as u64, None)?, &content);
            let mut short = text.as_bytes().to_vec();
            if go {
                shorten_as_go(&mut short);
            }
            short.truncate(kept);
            Some(short)
        };
        if self.name_first {
            texts.name = long(&entry.name, &self.long_name, width)?;
            texts.link = long(&entry.link_name, &self.long_link, NAME)?;
        } else {
            texts.link = long(&entry.link_name, &self.long_link, NAME)?;
            texts.name = long(&entry.name, &self.long_name, width)?;
        }
        Some(())
    }

    /// Go leaves the mode of a long name 0, GNU tar does not.
    fn cuts_as_go(&self) -> bool {
        self.long_name.as_ref().is_some_and(|block| &block[100..107] == b"0000000")
    }

    /// What does not fit stands in records, but for long names that can be cut.
    fn posix(
        &self,
        entry: &Entry,
        model: &Model<'_>,
        latest: i64,
        texts: &mut Texts,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let (name, link) = (entry.name.as_bytes(), entry.link_name.as_bytes());
        let mut records = self.needed(entry, model)?;
        let mut cut = None;
        if name.len() > NAME || !name.is_ascii() && !self.raw[0] {
            if records.is_empty() && Cut::Late.apply(name).is_some() {
                cut = self.cut?.apply(name);
            }
            if cut.is_none() {
                records.insert(b"path".to_vec(), name.to_vec());
            }
        }
        if let Some((prefix, rest)) = cut {
            (texts.prefix, texts.name) = (prefix.to_vec(), rest.to_vec());
            texts.link = link.to_vec();
            return Some(());
        }
        if records.is_empty() {
            (texts.name, texts.link) = (name.to_vec(), link.to_vec());
            return Some(());
        }
        // Without an example nobody knows how they are written.
        let manner = self.records.as_ref().filter(|manner| !manner.names.is_fleeting())?;
        let content = manner.content(&records)?;
        let time = match manner.date {
            Date::Fixed => None,
            Date::Member => Some(entry.mtime.seconds),
            Date::Latest(_) => Some(latest),
        };
        let extended = manner.names.apply(name);
        push(out, &block::extended(&manner.model, &extended, content.len() as u64, time)?, &content);
        (texts.name, texts.link) = (manner.names.shorten(name), manner.names.shorten(link));
        if let Scheme::Fixed(_) = manner.names {
            // Python rounds, halves to even numbers.
            let Time { seconds, nanos } = entry.mtime;
            let up = nanos > HALF || nanos == HALF && seconds % 2 != 0;
            texts.time = seconds.checked_add(i64::from(up));
        }
        Some(())
    }

    /// The records of an entry, but for its name.
    fn needed(&self, entry: &Entry, model: &Model<'_>) -> Option<BTreeMap<Vec<u8>, Vec<u8>>> {
        let mut out = BTreeMap::new();
        let whole = self.records.as_ref().and_then(|records| records.whole);
        for (name, value) in &entry.xattrs {
            out.insert([XATTR, name.as_bytes()].concat(), value.clone());
        }
        let mut add = |key: &str, value: String| out.insert(key.into(), value.into_bytes());
        match (entry.mtime.nanos, whole) {
            (0, None) if Model::fits(entry.mtime.seconds, LONG) => {}
            (0, Some(behind)) => _ = add("mtime", format!("{}{behind}", entry.mtime.seconds)),
            _ => _ = add("mtime", pax_time(&entry.mtime)?),
        }
        for (key, time) in [("atime", &entry.atime), ("ctime", &entry.ctime)] {
            if let Some(time) = time {
                add(key, pax_time(time)?);
            }
        }
        let size = i64::try_from(entry.size).ok()?;
        let numbers = [("uid", entry.uid, ID), ("gid", entry.gid, ID), ("size", size, LONG)];
        for (key, value, digits) in numbers {
            if !Model::fits(value, digits) {
                add(key, value.to_string());
            }
        }
        let link = entry.link_name.as_bytes();
        let raw = self.raw[1] || self.records.as_ref().is_some_and(Records::leaves_links);
        if link.len() > NAME || !link.is_ascii() && !raw {
            out.insert(b"linkpath".to_vec(), entry.link_name.clone().into_bytes());
        }
        // A header from before POSIX has nothing before it.
        (out.is_empty() || model.is_posix()).then_some(out)
    }
}

/// Whether a member has PAX records besides that of its name.
fn records_but_path(head: &Head<'_>) -> bool {
    let records = head.extended.iter().filter(|(flag, ..)| *flag == b'x');
    records.flat_map(|(.., content)| keys(content)).any(|key| key != b"path")
}

fn push(out: &mut Vec<u8>, header: &Block, content: &[u8]) {
    out.extend_from_slice(header);
    out.extend_from_slice(content);
    out.resize(out.len() + padding(content.len() as u64), 0);
}

impl Records {
    fn of<'a>(seen: impl Iterator<Item = (&'a Entry, &'a Head<'a>)> + Clone, latest: i64) -> Option<Self> {
        let all = seen.flat_map(|(entry, head)| {
            let records = head.extended.iter().filter(|(flag, ..)| *flag == b'x');
            records.map(move |(_, block, content)| (entry, *block, *content))
        });
        let (_, model, _) = all.clone().next()?;
        let samples: Vec<(&[u8], &[u8])> = all
            .clone()
            .take(SAMPLES)
            .map(|(entry, block, _)| (crate::tar::field_text(&block[..100]), entry.name.as_bytes()))
            .collect();
        // What one shows may be cut in another.
        let candidates = samples.iter().flat_map(|(extended, name)| Scheme::candidates(extended, name));
        let fits = |scheme: &Scheme| samples.iter().filter(|(e, name)| scheme.apply(name) == **e).count();
        let names = candidates.fold((0, Scheme::Go), |best, next| {
            let count = if next == best.1 { 0 } else { fits(&next) };
            if count > best.0 { (count, next) } else { best }
        });
        let names = if fits(&Scheme::Go) >= names.0 { Scheme::Go } else { names.1 };
        let mut times = all.clone().map(|(entry, block, _)| (block::time(block), entry.mtime.seconds));
        let date = if times.clone().all(|(time, own)| time == Some(own)) {
            Date::Member
        } else if times.all(|(time, _)| time == Some(latest)) {
            Date::Latest(latest)
        } else {
            Date::Fixed
        };
        let mut records = Records { model: Box::new(*model), names, date, order: Vec::new(), whole: None };
        for (entry, _, content) in all {
            let mut before = 0;
            for key in keys(content) {
                let key = group(key);
                match records.order.iter().position(|known| known == key) {
                    Some(at) => before = at + 1,
                    None => {
                        records.order.insert(before, key.to_vec());
                        before += 1;
                    }
                }
            }
            if entry.mtime.nanos == 0 && Model::fits(entry.mtime.seconds, LONG) && records.whole.is_none() {
                let said = text_of(content, b"mtime");
                records.whole = said.map(|text| if text.ends_with(b".0") { ".0" } else { "" });
            }
        }
        Some(records)
    }

    /// Whether a target that is no ASCII is written as it is: GNU tar does.
    fn leaves_links(&self) -> bool {
        match &self.names {
            Scheme::Folder { .. } => true,
            // Ours does not.
            Scheme::Base(before) => before != b"PaxHeaders.0/",
            Scheme::Go | Scheme::Fixed(_) => false,
        }
    }

    /// Records in the order that they have here; `None` if that is not known.
    fn content(&self, records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Option<Vec<u8>> {
        let place = |key: &Vec<u8>| self.order.iter().position(|known| known == group(key));
        let mut keys: Vec<&Vec<u8>> = records.keys().collect();
        if keys.iter().all(|key| place(key).is_some()) {
            keys.sort_by_key(|key| place(key));
        } else if keys.len() > 1 && !self.order.is_sorted() {
            return None;
        }
        let mut out = Vec::new();
        for key in keys {
            record(&mut out, key, &records[key]);
        }
        Some(out)
    }
}

/// The keyword by which records are ordered: attributes of files are together.
fn group(key: &[u8]) -> &[u8] {
    if key.starts_with(XATTR) { XATTR } else { key }
}

/// Keywords and values of records, as far as they are well-formed.
fn pairs(mut content: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        let (key, value, rest) = crate::tar::pax_record(content)?;
        content = rest;
        Some((key, value))
    })
}

fn keys(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    pairs(content).map(|(key, _)| key)
}

fn text_of<'a>(content: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    pairs(content).find(|(key, _)| *key == wanted).map(|(_, value)| value)
}

/// A time as all writers have it: seconds, and a fraction without zeros behind it.
fn pax_time(time: &Time) -> Option<String> {
    if time.nanos == 0 {
        return Some(time.seconds.to_string());
    }
    let (sign, seconds, nanos) = match time.seconds < 0 {
        true => ("-", time.seconds.checked_add(1)?.checked_neg()?, 1_000_000_000 - time.nanos),
        false => ("", time.seconds, time.nanos),
    };
    let text = format!("{sign}{seconds}.{nanos:09}");
    Some(text.trim_end_matches('0').to_owned())
}
