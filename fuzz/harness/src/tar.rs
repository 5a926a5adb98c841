//! Tar archives.

use std::io::Read;

use coracle_codec::observe::Quiet;
use coracle_codec::source::{MergeOptions, Source, TarSource, Tree};
use coracle_codec::tar::{BLOCK, Entry, Error, Limits, Reader, clean_path, expand};
use coracle_codec::{ReadAt, Section};

use crate::pieces::Pieces;

const LIMITS: Limits = Limits { max_special: 1 << 16, max_fragments: 1 << 10, max_members: 1 << 10 };

/// Sparse files up to this size are expanded.
const MAX_EXPANDED: u64 = 1 << 20;

/// Wrong checksums that are set right in one input.
const MAX_REPAIRS: usize = 64;

/// Reads `data` as an archive, in two forms: as it is, and with the checksums of its headers set right, because hardly
/// a mutation gets past them.
///
/// * Members follow each other: header before content, no overlap, at least one block of header each.
/// * Content read is content stored, at the offset that the entry states.
/// * At a clean end, contents and the framing between and behind them are the whole archive.
/// * A second reader that gets small pieces and skips contents sees the same.
/// * A bound on the members holds exactly.
/// * Sparse maps ascend within the size, and expanding gives the size.
/// * Merged trees: what a [`TarSource`] gives for a path is the content of a regular member, and the paths that a
///   delta may use are clean and lead to that file.
pub fn tar_read(data: &[u8]) {
    check(data);
    let repaired = repair(data);
    if repaired != data {
        check(&repaired);
    }
}

/// `data` with right checksums wherever the reader looks for a header.
fn repair(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..MAX_REPAIRS {
        let Some(Error::InvalidHeader { offset, .. }) = skip_through(&*data, LIMITS).1 else { break };
        let Some(block) = data[offset as usize..].first_chunk_mut::<{ BLOCK as usize }>() else { break };
        let before = *block;
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        if *block == before {
            // It is wrong in another way.
            break;
        }
    }
    data
}

fn check(data: &[u8]) {
    let first = read_with_content(data);
    let (again, error) = skip_through(Pieces::new(data), LIMITS);
    assert_same(&first.members, &again);
    assert_eq!(first.failed, error.is_some(), "{error:?}");
    if let Some(fewer) = (again.len() as u64).checked_sub(1) {
        let (cut, error) = skip_through(data, Limits { max_members: fewer, ..LIMITS });
        assert_same(&again[..fewer as usize], &cut);
        assert!(matches!(error, Some(Error::TooManyMembers(n)) if n == fewer), "{error:?}");
    }
    merge(data, &first);
}

struct Seen {
    members: Vec<Entry>,
    failed: bool,
}

fn read_with_content(data: &[u8]) -> Seen {
    let mut reader = Reader::new(data, LIMITS);
    let mut members: Vec<Entry> = Vec::new();
    let mut at = 0;
    let mut cut_off = false;
    loop {
        let entry = match reader.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(_) => return after_an_error(reader, data, members),
        };
        assert!(!cut_off, "a member after one that was cut off");
        assert!(entry.offset >= at, "member at {} before the end of the last at {at}", entry.offset);
        assert!(entry.content_offset >= entry.offset + BLOCK, "no header");
        assert_eq!(entry.content_offset, reader.position());
        assert!(entry.content_offset <= data.len() as u64, "content beyond the archive");
        at = entry.content_offset + entry.content_len;
        let mut stored = Vec::new();
        cut_off = reader.read_to_end(&mut stored).is_err();
        let from = entry.content_offset as usize;
        assert!(data[from..].starts_with(&stored), "content is not what is stored");
        assert_eq!(cut_off, at > data.len() as u64, "the only reason for a content to fail is its end");
        assert!(cut_off || stored.len() as u64 == entry.content_len);
        check_sparse(&entry, &stored, cut_off);
        members.push(entry);
        assert!(members.len() as u64 * BLOCK <= data.len() as u64, "more members than blocks");
    }
    assert!(!cut_off, "a clean end after a member that was cut off");
    let position = reader.position() as usize;
    assert!(at <= position as u64, "the end lies inside a content");
    let rest = reader.into_rest();
    assert!(data[position..] == *rest, "framing and contents are not the whole archive");
    Seen { members, failed: false }
}

/// A caller that goes on after an error gets nowhere, but comes to no harm.
fn after_an_error(mut reader: Reader<&[u8]>, data: &[u8], members: Vec<Entry>) -> Seen {
    let mut position = reader.position();
    for _ in 0..3 {
        let _ = reader.next_entry();
        assert!(reader.position() >= position && reader.position() <= data.len() as u64);
        position = reader.position();
    }
    Seen { members, failed: true }
}

fn skip_through(input: impl Read, limits: Limits) -> (Vec<Entry>, Option<Error>) {
    let mut reader = Reader::new(input, limits);
    let mut members = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => members.push(entry),
            Ok(None) => return (members, None),
            Err(e) => return (members, Some(e)),
        }
    }
}

fn assert_same(a: &[Entry], b: &[Entry]) {
    assert_eq!(a.len(), b.len(), "number of members");
    for (a, b) in a.iter().zip(b) {
        assert_eq!((a.offset, a.content_offset, a.content_len), (b.offset, b.content_offset, b.content_len));
        assert_eq!((&a.name, &a.link_name, a.kind), (&b.name, &b.link_name, b.kind));
        assert_eq!((a.size, a.mode, a.uid, a.gid, a.mtime), (b.size, b.mode, b.uid, b.gid, b.mtime));
        assert_eq!(a.sparse, b.sparse);
    }
}

fn check_sparse(entry: &Entry, stored: &[u8], cut_off: bool) {
    let Some(map) = &entry.sparse else {
        // Links and the like keep whatever size their header says.
        assert!(entry.content_len == 0 || u64::try_from(entry.size) == Ok(entry.content_len));
        return;
    };
    assert_eq!(u64::try_from(entry.size), Ok(map.size));
    let mut end = 0;
    for fragment in &map.fragments {
        assert!(fragment.offset >= end, "fragments overlap");
        end = fragment.offset + fragment.len;
    }
    assert!(end <= map.size, "a fragment beyond the end");
    if map.size > MAX_EXPANDED || cut_off {
        return;
    }
    let mut out = Vec::new();
    let result = expand(map, &mut &stored[..], &mut out);
    let in_map: u64 = map.fragments.iter().map(|f| f.len).sum();
    assert_eq!(result.is_ok(), in_map == entry.content_len, "{result:?}");
    assert!(out.len() as u64 <= map.size);
    assert!(result.is_err() || out.len() as u64 == map.size);
}

fn merge(data: &[u8], seen: &Seen) {
    let data = &data.to_vec();
    let layers = |n: usize| vec![data as &dyn ReadAt; n];
    let options = MergeOptions { apply_whiteouts: true, hash: false, limits: LIMITS };
    let tree = Tree::merge(&layers(2), options, &Quiet);
    assert_eq!(tree.is_err(), seen.failed, "merging and reading disagree");
    let Ok(tree) = tree else { return };
    for (index, file) in tree.files().iter().enumerate() {
        for path in tree.trusted_paths(index) {
            assert_eq!(clean_path(path).as_deref(), Some(path), "a path that is not clean");
            let found = tree.find(path).map(|f| (f.layer, f.offset, f.size));
            assert_eq!(found, Some((file.layer, file.offset, file.size)), "a path that leads elsewhere");
        }
    }
    let source =
        TarSource::new(layers(1), LIMITS, &Quiet).unwrap_or_else(|e| panic!("once it was good: {e}"));
    // Some names are enough, and reading each file once more for each of its names could take long.
    for path in seen.members.iter().filter_map(|m| clean_path(&m.name)).take(64) {
        let Ok(mut file) = source.open_path(&path) else { continue };
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap_or_else(|e| panic!("memory cannot fail: {e}"));
        assert_eq!(content.len() as u64, file.size());
        let stored = seen.members.iter().any(|m| {
            m.content_len == file.size()
                && Section::new(data, m.content_offset, m.content_len).to_vec().is_ok_and(|c| c == content)
        });
        assert!(stored, "a source file that is no member's content");
    }
}
