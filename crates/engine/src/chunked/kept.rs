//! Ranges of a blob that were fetched, kept until its layer is there: nothing is fetched twice, neither when a layer is put
//! together a second time nor by a run that goes on after one that was cut off.
//!
//! The file is a list: where the bytes begin in the blob, how many they are, their sha256, the bytes. It is read from its
//! start and counts as far as it is right.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_sys::resume::Resumable;

use crate::Error;
use crate::image::{Ranged, Source};

/// Bytes before each stretch.
const HEAD: u64 = 16 + 32;
/// Bytes of a blob that are kept at most.
const MAX_KEPT: u64 = 2 << 30;

/// Ranges of one blob in a file.
pub(crate) struct Kept {
    inner: Mutex<Option<Inner>>,
    /// Whether there is something that a later run may want.
    worth: AtomicBool,
    resumed: u64,
}

struct Inner {
    file: Resumable,
    /// Bytes of the file.
    len: u64,
    /// Bytes of the blob by their place, and where they are in the file.
    ranges: BTreeMap<u64, (u64, u64)>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes of an earlier run)", self.resumed)
    }
}

impl Kept {
    /// Opens the file, and takes what an earlier run has left in it of a blob of `size` bytes. `None` if another process
    /// has it.
    pub(crate) fn open(path: &Path, size: u64) -> io::Result<Option<Kept>> {
        let Some(mut file) = Resumable::open(path)? else { return Ok(None) };
        let ranges = read(&mut file, size)?;
        let len = ranges.values().map(|(len, at)| at + len).max().unwrap_or(0);
        file.cut(len)?;
        let resumed = ranges.values().map(|(len, _)| len).sum();
        let inner = Mutex::new(Some(Inner { file, len, ranges }));
        Ok(Some(Kept { inner, worth: AtomicBool::new(resumed > 0), resumed }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Inner>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that an earlier run had fetched.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed
    }

    /// From here on what is fetched is of use to a later run.
    pub(crate) fn is_worth_keeping(&self) {
        self.worth.store(true, Ordering::Relaxed);
    }

    /// Removes all of it.
    pub(crate) fn discard(&self) {
        if let Some(inner) = self.lock().take() {
            // What cannot be removed now is removed by the next gc.
            let _ = inner.file.discard();
        }
    }

    /// Keeps bytes that begin at `start` in the blob. Where that fails they are not kept, which costs nothing but a later
    /// request.
    fn add(&self, start: u64, bytes: &[u8]) {
        let mut inner = self.lock();
        let Some(Inner { file, len, ranges }) = inner.as_mut() else { return };
        let after = *len + HEAD + bytes.len() as u64;
        if after > MAX_KEPT || bytes.is_empty() {
            return;
        }
        let head = [start.to_le_bytes(), (bytes.len() as u64).to_le_bytes()].concat();
        let digest = Digest::of(bytes);
        let write = |file: &mut Resumable| {
            file.write_all(&head)?;
            file.write_all(digest.as_bytes())?;
            file.write_all(bytes)
        };
        if write(file).is_err() {
            if file.cut(*len).is_err() {
                *inner = None;
            }
            return;
        }
        ranges.insert(start, (bytes.len() as u64, *len + HEAD));
        *len = after;
    }

    /// The stretches of `range`, in order, each wholly here or wholly not.
    pub(crate) fn stretches(&self, range: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        let inner = self.lock();
        let (mut out, mut at) = (Vec::new(), range.start);
        let Some(Inner { ranges, .. }) = inner.as_ref() else { return vec![(range.clone(), false)] };
        let first = ranges.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (start, (len, _)) in ranges.range(first..range.end) {
            let (from, to) = ((*start).max(at), (start + len).min(range.end));
            if from >= to {
                continue;
            }
            if from > at {
                out.push((at..from, false));
            }
            out.push((from..to, true));
            at = to;
        }
        if at < range.end {
            out.push((at..range.end, false));
        }
        out
    }

    /// Appends bytes that are here, as [`Kept::stretches`] has said.
    fn read(&self, range: &Range<u64>, out: &mut Vec<u8>) -> io::Result<()> {
        let inner = self.lock();
        let gone = || io::Error::other("what was kept of a blob is gone");
        let Inner { file, ranges, .. } = inner.as_ref().ok_or_else(gone)?;
        let (start, (len, at)) = ranges.range(..=range.start).next_back().ok_or_else(gone)?;
        if range.end > start + len {
            return Err(gone());
        }
        let from = out.len();
        out.resize(from + (range.end - range.start) as usize, 0);
        file.read_exact_at(at + range.start - start, &mut out[from..])
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if !*self.worth.get_mut() {
            self.discard();
        }
    }
}

/// What a file has, as far as it is right: stretches that do not lie over each other.
fn read(file: &mut Resumable, size: u64) -> io::Result<BTreeMap<u64, (u64, u64)>> {
    let (mut ranges, mut at, end) = (BTreeMap::<u64, (u64, u64)>::new(), 0, file.resumed());
    let mut bytes = Vec::new();
    while end - at > HEAD {
        let mut head = [0; HEAD as usize];
        file.read_exact(&mut head)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        let (start, len) = (number(0), number(8));
        let fits = len > 0 && len <= end - at - HEAD && start.checked_add(len).is_some_and(|end| end <= size);
        let free = |(before, (len, _)): (&u64, &(u64, u64))| before + len <= start;
        if !fits || !ranges.range(..start + len).next_back().is_none_or(free) {
            break;
        }
        bytes.resize(len as usize, 0);
        file.read_exact(&mut bytes)?;
        if Digest::of(&bytes).as_bytes() != &head[16..] {
            break;
        }
        ranges.insert(start, (len, at + HEAD));
        at += HEAD + len;
    }
    Ok(ranges)
}

/// A blob that is read by ranges, each byte of which is asked for once.
#[derive(Clone, Copy)]
pub(crate) struct Parted<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) blob: &'a Descriptor,
    pub(crate) kept: Option<&'a Kept>,
}

impl<'a> Parted<'a> {
    /// One of which nothing is kept.
    pub(crate) fn new(source: &'a dyn Source, blob: &'a Descriptor) -> Self {
        Parted { source, blob, kept: None }
    }

    /// The bytes of a range: what is kept of it, and the rest from the source.
    pub(crate) fn range(&self, range: Range<u64>) -> Result<Ranged, Error> {
        let Some(kept) = self.kept else { return self.source.open_range(self.blob, range) };
        let mut out = Vec::new();
        for (stretch, here) in kept.stretches(&range) {
            if here {
                let what = format!("blob {}", self.blob.digest);
                kept.read(&stretch, &mut out)
                    .map_err(|error| crate::image::blob::reading(self.source.name(), &what, error))?;
                continue;
            }
            match self.source.open_range(self.blob, stretch.clone())? {
                Ranged::Part(bytes) => {
                    kept.add(stretch.start, &bytes);
                    match out.is_empty() {
                        true => out = bytes,
                        false => out.extend_from_slice(&bytes),
                    }
                }
                whole @ Ranged::Whole(_) => return Ok(whole),
            }
        }
        Ok(Ranged::Part(out))
    }

    /// The bytes of several ranges of which nothing is kept, in one request; `None` for those that have to be asked for by
    /// themselves.
    pub(crate) fn several(&self, ranges: &[Range<u64>]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let found = self.source.open_ranges(self.blob, ranges)?;
        for (range, bytes) in ranges.iter().zip(&found) {
            if let (Some(kept), Some(bytes)) = (self.kept, bytes) {
                kept.add(range.start, bytes);
            }
        }
        Ok(found)
    }

    /// The stretches of a range, in order, and whether they are kept.
    pub(crate) fn stretches(&self, range: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        self.kept.map_or_else(|| vec![(range.clone(), false)], |kept| kept.stretches(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_there_for_the_next_run_as_far_as_it_is_right() {
        let folder = std::env::temp_dir().join(format!("coracle-kept-{}", std::process::id()));
        let path = folder.join("parts");
        let kept = Kept::open(&path, 100).unwrap().unwrap();
        assert!(Kept::open(&path, 100).unwrap().is_none(), "one at a time");
        kept.is_worth_keeping();
        kept.add(10, b"abcde");
        kept.add(15, b"fg");
        kept.add(40, b"xyz");
        assert_eq!(
            kept.stretches(&(12..42)),
            [(12..15, true), (15..17, true), (17..40, false), (40..42, true)]
        );
        assert_eq!(kept.stretches(&(0..10)), [(0..10, false)]);
        let mut out = Vec::new();
        kept.read(&(12..15), &mut out).unwrap();
        kept.read(&(15..17), &mut out).unwrap();
        assert_eq!(out, b"cdefg");
        assert!(kept.read(&(16..18), &mut out).is_err());
        drop(kept);
        let again = Kept::open(&path, 100).unwrap().unwrap();
        assert_eq!((again.resumed(), again.stretches(&(10..17)).len()), (10, 2));
        drop(again);
        // The last stretch is damaged, and something half-written stands behind it.
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        bytes.extend_from_slice(&[7; 60]);
        std::fs::write(&path, &bytes).unwrap();
        let again = Kept::open(&path, 100).unwrap().unwrap();
        assert_eq!(
            again.stretches(&(0..100)),
            [(0..10, false), (10..15, true), (15..17, true), (17..100, false)]
        );
        again.add(50, b"more");
        drop(again);
        let again = Kept::open(&path, 100).unwrap().unwrap();
        assert_eq!(again.resumed(), 11);
        drop(again);
        // Of another blob: nothing that lies outside of it.
        let other = Kept::open(&path, 12).unwrap().unwrap();
        assert_eq!(other.stretches(&(0..12)), [(0..12, false)]);
        drop(other);
        assert!(!path.exists(), "nothing in it that is worth keeping");
        let none = Kept::open(&path, 12).unwrap().unwrap();
        none.add(0, b"x");
        none.discard();
        none.add(0, b"x");
        assert!(!path.exists() && none.missing_all());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    impl Kept {
        fn missing_all(&self) -> bool {
            self.stretches(&(0..5)) == [(0..5, false)]
        }
    }
}
