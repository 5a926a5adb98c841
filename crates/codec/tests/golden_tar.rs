//! The tar reader gives Go's reading of every golden archive.

use std::io::{Cursor, Read};

use coracle_codec::digest::Digest;
use coracle_codec::tar::{Entry, Kind, Limits, Reader, expand};
use coracle_testkit::golden::Golden;
use coracle_testkit::tar_builder::Header;

/// A member and its content, expanded.
type Member = (Entry, Option<Vec<u8>>);

/// Members as far as they can be read, and whether the archive ended cleanly.
fn read_all(tar: &[u8]) -> (Vec<Member>, Result<(), String>) {
    let mut reader = Reader::new(Cursor::new(tar), Limits::default());
    let mut out = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(None) => return (out, Ok(())),
            Err(e) => return (out, Err(e.to_string())),
            Ok(Some(entry)) => {
                let mut stored = Vec::new();
                let read = reader.read_to_end(&mut stored);
                let content = match &entry.sparse {
                    None => stored,
                    Some(map) => {
                        let mut out = Vec::new();
                        expand(map, &mut stored.as_slice(), &mut out).unwrap();
                        out
                    }
                };
                match read {
                    Ok(_) => out.push((entry, Some(content))),
                    Err(e) => {
                        out.push((entry, Some(content)));
                        return (out, Err(e.to_string()));
                    }
                }
            }
        }
    }
}

#[test]
fn reads_every_archive_as_go_does() {
    let cases = Golden::built_in().tar().unwrap();
    assert_eq!(cases.len(), 62);
    for case in cases {
        let name = &case.name;
        let tar = case.tar().unwrap();
        let listing = case.listing().unwrap();
        let (members, end) = read_all(&tar);
        let shown: Vec<_> = members.iter().map(|(e, _)| e.name.escape_ascii().to_string()).collect();
        assert_eq!(members.len(), listing.members.len(), "{name}: {shown:?} {end:?}");
        let go_failed = listing.error.is_some() || listing.members.iter().any(|m| m.read_error.is_some());
        assert_eq!(end.is_err(), go_failed, "{name}: {end:?}, Go says {:?}", listing.error);
        for ((entry, content), go) in members.iter().zip(&listing.members) {
            assert_eq!(entry.name, go.name(), "{name}");
            assert_eq!(entry.link_name, go.linkname(), "{name}: link name");
            assert_eq!(entry.kind.typeflag() as char, go.typeflag, "{name}");
            assert_eq!(entry.size as u64, go.size, "{name}: size");
            assert_eq!((entry.mode, entry.uid, entry.gid), (go.mode, go.uid, go.gid), "{name}");
            if entry.kind.typeflag() != b'g' {
                assert_eq!((entry.mtime, entry.mtime_nanos), (go.mtime, go.mtime_nsec), "{name}: mtime");
                assert_eq!(entry.xattrs, go.xattrs(), "{name}: attributes");
            }
            let content = content.as_ref().unwrap();
            assert_eq!(content.len() as u64, go.read, "{name}: bytes read");
            let digest = Digest::of(content).to_string();
            assert_eq!(digest.strip_prefix("sha256:").unwrap(), go.sha256, "{name}: content");
        }
    }
}

#[test]
fn devices_have_their_numbers() {
    let mut builder = coracle_testkit::tar_builder::TarBuilder::new();
    let device = |name, typeflag, device| Header { typeflag, device: Some(device), ..Header::new(name) };
    builder.entry(&device("null", b'3', (1, 3)), b"").entry(&device("disk", b'4', (259, 70_000)), b"");
    builder.fifo("pipe");
    let (members, end) = read_all(&builder.finish());
    end.unwrap();
    let found: Vec<_> = members.iter().map(|(entry, _)| (entry.kind, entry.device)).collect();
    let want = [(Kind::CharDevice, (1, 3)), (Kind::BlockDevice, (259, 70_000)), (Kind::Fifo, (0, 0))];
    assert_eq!(found, want);
}

#[test]
fn content_and_framing_are_the_whole_archive() {
    for case in Golden::built_in().tar().unwrap() {
        let tar = case.tar().unwrap();
        let (members, end) = read_all(&tar);
        if end.is_err() {
            continue;
        }
        let (mut rebuilt, mut at) = (Vec::new(), 0);
        for (entry, _) in &members {
            let (from, to) =
                (entry.content_offset as usize, (entry.content_offset + entry.content_len) as usize);
            assert!(
                at <= entry.offset as usize && (entry.offset as usize) < from.max(1),
                "{}: order",
                case.name
            );
            rebuilt.extend_from_slice(&tar[at..from]);
            rebuilt.extend_from_slice(&tar[from..to]);
            at = to;
        }
        rebuilt.extend_from_slice(&tar[at..]);
        assert!(rebuilt == tar, "{}", case.name);
    }
}

#[test]
fn bounds_hold() {
    let mut builder = coracle_testkit::tar_builder::TarBuilder::new();
    for i in 0..20 {
        builder.file(format!("f{i}"), b"x");
    }
    let tar = builder.finish();
    let mut reader = Reader::new(tar.as_slice(), Limits { max_members: 10, ..Limits::default() });
    let error = loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no error"),
            Err(e) => break e,
        }
    };
    assert_eq!(error.to_string(), "tar has more than 10 members");
}
