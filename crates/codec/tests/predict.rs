//! Headers that are predicted from a TOC and an older tar: of tars of several programs.

use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coracle_codec::chunked::{Layer, Limits, Options, Piece, Place, Style, Toc, write};
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_testkit::golden::Golden;
use coracle_testkit::image::{binary, text};
use coracle_testkit::oracle::{run_ok, tool};
use coracle_testkit::tar_builder::{Header, LongNames, Magic, TarBuilder};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

/// The TOC of a tar, as our writer makes it.
fn toc_of(tar: &[u8]) -> Toc {
    let mut blob = Vec::new();
    let written = write(Cursor::new(tar), &mut blob, &Options { level: 1, legacy: false }).unwrap();
    let mut layer = Descriptor::new("x", Digest::of(&blob), blob.len() as u64);
    layer.annotations = written.annotations.into_iter().collect();
    let place = Place::of(&layer, &Limits::default()).unwrap().unwrap();
    let range = place.toc.unwrap().range();
    Toc::read(&blob[range.start as usize..range.end as usize], &place, &Limits::default()).unwrap()
}

/// The tar of a predicted layer, its contents taken from `tar`.
fn assembled(layer: &Layer, tar: &[u8]) -> Vec<u8> {
    let mut contents = std::collections::HashMap::new();
    let mut reader = coracle_codec::tar::Reader::new(tar, coracle_codec::tar::Limits::default());
    while let Some(entry) = reader.next_entry().unwrap() {
        let at = entry.content_offset as usize;
        contents.insert(entry.name, &tar[at..at + entry.content_len as usize]);
    }
    let mut out = Vec::new();
    for piece in &layer.pieces {
        match piece {
            Piece::Framing(range) => out.write_all(&layer.framing[range.clone()]).unwrap(),
            Piece::Content { entry, crc: None } => {
                out.write_all(contents[layer.toc.entries[*entry].name.as_bytes()]).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    out
}

fn predicted(old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let style = Style::learn(&old.to_vec(), &Limits::default()).unwrap();
    style.predict(&toc_of(new), &Limits::default()).map(|layer| assembled(&layer, new))
}

fn understood(tar: &[u8]) -> bool {
    let (all, some) = Style::learn(&tar.to_vec(), &Limits::default()).unwrap().members();
    all == some
}

/// Layers of Go's archive/tar as container tools use it, and of podman.
#[test]
fn layers_of_go() {
    let golden = Golden::built_in();
    let cases = golden.cases::<Value>("predict").unwrap();
    for case in &cases {
        let (old, new) = (case.read("old.tar.zst").unwrap(), case.read("new.tar.zst").unwrap());
        assert!(understood(&old), "{}: each header of the old tar", case.name);
        assert!(predicted(&old, &new).as_ref() == Some(&new), "{}: the new tar", case.name);
        assert!(predicted(&new, &old).as_ref() == Some(&old), "{}: and back", case.name);
    }
    assert_eq!(cases.len(), 5);
}

/// A tree in version `number`, packed by a program that is given the folder.
fn packed(number: u32, program: &dyn Fn(&Path) -> Command) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let tree = dir.path().join("tree");
    let deep = tree.join("deep/".repeat(30));
    fs::create_dir_all(&deep).unwrap();
    let file = |path: std::path::PathBuf, content: String| fs::write(path, content).unwrap();
    file(tree.join("kept"), "kept".into());
    file(tree.join("changes"), format!("in version {number}: {}", "x".repeat(number as usize * 700)));
    file(tree.join(format!("only-in-{number}")), String::new());
    file(deep.join("kept"), "kept".into());
    file(deep.join(format!("only-in-{number}")), "1".into());
    file(tree.join("n".repeat(120)), "long".into());
    file(tree.join(format!("{}{number}", "n".repeat(121))), "long".into());
    file(tree.join("\u{e9}t\u{e9}"), "summer".into());
    file(tree.join(format!("\u{e9}t\u{e9}{number}")), "summer".into());
    symlink("kept", tree.join("link")).unwrap();
    symlink("t".repeat(130), tree.join("far")).unwrap();
    symlink("t".repeat(130 + number as usize), tree.join(format!("far{number}"))).unwrap();
    symlink("\u{e9}t\u{e9}", tree.join(format!("to-summer{number}"))).unwrap();
    fs::hard_link(tree.join("kept"), tree.join("zz-hard")).unwrap();
    let out = run_ok(&mut program(&tree), Duration::from_secs(60)).unwrap();
    assert!(out.len() > 10_000);
    out
}

fn gnu_tar(options: &'static str) -> impl Fn(&Path) -> Command {
    move |tree| {
        let mut command = Command::new(tool("tar").unwrap());
        command.args(options.split(' ')).args(["--sort=name", "-cf", "-", "."]).current_dir(tree);
        command
    }
}

fn python(format: &'static str, mtime: &'static str) -> impl Fn(&Path) -> Command {
    move |tree| {
        let script = format!(
            "import os, sys, tarfile\n\
             def plain(info):\n    info.mtime = {mtime}\n    return info\n\
             with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.{format}) as out:\n    \
             out.add('.', filter=plain)\n"
        );
        let mut command = Command::new(tool("python3").unwrap());
        command.args(["-c", &script]).current_dir(tree);
        command
    }
}

#[test]
fn tars_of_gnu_tar() {
    for options in [
        "--format=gnu --mtime=@1700000000",
        "--format=gnu --mtime=@1700000000 --owner=somebody:77 --group=some:78",
        "--format=oldgnu --mtime=@1700000000 --numeric-owner",
        "--format=pax --mtime=@1700000000 --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
        "--format=pax --mtime=@1700000000 --pax-option=exthdr.name=%d/PaxHeaders/%f,atime:=5,ctime:=6.25",
        "--format=pax --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    ] {
        let [old, new] = [1, 2].map(|number| packed(number, &gnu_tar(options)));
        assert!(understood(&old), "{options}");
        assert!(predicted(&old, &new).as_ref() == Some(&new), "{options}");
    }
}

/// Told a time that no member may be later than, GNU tar writes that into PAX headers, whatever the time of the member.
#[test]
fn pax_headers_of_one_time() {
    let clamped = |at: u32, number: u32| {
        packed(number, &move |tree| {
            // The same in both versions, and earlier than any bound.
            for name in ["n".repeat(120), "\u{e9}t\u{e9}".to_owned(), "kept".to_owned()] {
                let file = fs::File::options().write(true).open(tree.join(name)).unwrap();
                file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
            }
            let mut command = Command::new(tool("tar").unwrap());
            let names = "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime";
            command.args(["--format=pax", "--clamp-mtime", &format!("--mtime=@{at}"), names]);
            command.args(["--sort=name", "-cf", "-", "."]).current_dir(tree);
            command
        })
    };
    let (old, new) = (clamped(1_700_000_000, 1), clamped(1_750_000_000, 2));
    let time = |tar: &[u8], of: &str| {
        let at = tar.windows(of.len()).position(|window| window == of.as_bytes()).unwrap();
        String::from_utf8(tar[at + 136..at + 147].to_vec()).unwrap()
    };
    let header = format!("./PaxHeaders/{}", "n".repeat(87));
    assert_eq!(time(&old, &header), format!("{:011o}", 1_700_000_000));
    assert_eq!(time(&new, &header), format!("{:011o}", 1_750_000_000));
    assert!(understood(&old));
    // The headers of what did not change are made anew.
    assert!(predicted(&old, &new).as_ref() == Some(&new));
    assert!(predicted(&new, &old).as_ref() == Some(&old));
    assert!(predicted(&old, &old).as_ref() == Some(&old));
}

/// A member that is not understood keeps its headers, but not where they say the time of an archive that is another one now.
#[test]
fn no_guess_where_a_time_cannot_be_written() {
    let version = |latest: u64| {
        let record = "30 mtime=1600000000.500000000\n";
        let extended = Header {
            typeflag: b'x',
            mtime: latest,
            size: record.len() as u64,
            ..Header::new("PaxHeaders/odd")
        };
        let member = Header { mtime: 1_600_000_000, ..Header::new("odd") };
        let mut tar = TarBuilder::new();
        tar.mtime(latest).file("new", b"1").entry(&extended, record.as_bytes()).entry(&member, b"");
        tar.finish()
    };
    let (old, new) = (version(1_700_000_000), version(1_750_000_000));
    // Zeros at the end of a fraction: no rule writes them.
    assert!(!understood(&old));
    assert!(predicted(&old, &old).as_ref() == Some(&old));
    assert_eq!(predicted(&old, &new), None);
}

#[test]
fn tars_of_python() {
    for (format, mtime) in [
        ("PAX_FORMAT", "1700000000"),
        ("PAX_FORMAT", "1700000000.0"),
        ("PAX_FORMAT", "1700000000.25 + info.size % 1024 / 1024"),
        ("GNU_FORMAT", "1700000000"),
    ] {
        let [old, new] = [1, 2].map(|number| packed(number, &python(format, mtime)));
        assert!(understood(&old), "{format} {mtime}");
        assert!(predicted(&old, &new).as_ref() == Some(&new), "{format} {mtime}");
    }
}

/// What programs that put several archives into one leave: members of two formats.
#[test]
fn members_keep_their_own_format() {
    let version = |number: u64| {
        let mut tar = TarBuilder::with_long_names(LongNames::Pax);
        let device = Header {
            typeflag: b'3',
            magic: Magic::Gnu,
            device: Some((1, 3)),
            mtime: number,
            ..Header::new("dev/null")
        };
        let odd = Header { magic: Magic::V7, mtime: 77, ..Header::new("old") };
        tar.entry(&device, b"").entry(&odd, b"").file("usr/kept", text(1, 900));
        tar.mtime(number).file("usr/changes", text(number, 1000 + number as usize));
        tar.file(format!("usr/{number}"), b"").finish_with(&[0; 1024])
    };
    let (old, new) = (version(1), version(2));
    assert!(predicted(&old, &new).as_ref() == Some(&new));
}

#[test]
fn ends_of_archives() {
    let version = |number: u64| {
        let mut tar = TarBuilder::new();
        tar.file("a", binary(number, 3000 + 7000 * number as usize)).clone()
    };
    for (name, finish) in [
        ("two blocks", &TarBuilder::finish as &dyn Fn(&TarBuilder) -> Vec<u8>),
        ("records", &|tar| tar.finish_padded(20)),
        ("nothing", &TarBuilder::finish_without_trailer),
        ("one block", &|tar| [tar.finish_without_trailer(), vec![0; 512]].concat()),
        ("many blocks", &|tar| [tar.finish_without_trailer(), vec![0; 30 * 512]].concat()),
        // As mmdebstrap does with devices.
        ("records behind a member", &|tar| {
            [TarBuilder::new().fifo("before").finish_without_trailer(), tar.finish_padded(20)].concat()
        }),
    ] {
        let (old, new) = (finish(&version(1)), finish(&version(2)));
        assert!(predicted(&old, &new).as_ref() == Some(&new), "{name}");
    }
}

/// What is not understood is not guessed.
#[test]
fn no_guess_without_an_example() {
    let plain = TarBuilder::with_long_names(LongNames::Pax).file("a", b"1").finish();
    let limits = Limits::default();
    for (what, odd) in [
        ("sparse", TarBuilder::new().sparse_gnu("s", 100_000, &[(0, b"x")]).finish()),
        ("global header", TarBuilder::new().pax_global([("comment", "x")]).file("a", b"").finish()),
        ("bytes behind the end", [plain.clone(), b"more".to_vec()].concat()),
        ("bytes in the padding", {
            let mut tar = plain.clone();
            tar[1000] = 1;
            tar
        }),
    ] {
        assert!(Style::learn(&odd, &limits).is_err(), "{what}");
    }
    assert!(Style::learn(&[plain.clone(), vec![0; 2 << 20]].concat(), &limits).is_err());
    assert!(Style::learn(&plain, &Limits { entries: 0, ..limits }).is_err());
    assert!(Style::learn(&plain, &Limits { decoded: 511, ..limits }).is_err());
    let style = Style::learn(&plain, &limits).unwrap();
    for (what, new) in [
        ("a long name", TarBuilder::new().file("n".repeat(101), b"").finish()),
        ("a name that is no ASCII", TarBuilder::new().pax([("path", "\u{e9}")]).file("x", b"").finish()),
        ("an attribute", TarBuilder::new().pax([("SCHILY.xattr.user.a", "b")]).file("a", b"1").finish()),
        ("a fraction of a second", TarBuilder::new().pax([("mtime", "1.5")]).file("a", b"1").finish()),
    ] {
        assert!(style.predict(&toc_of(&new), &limits).is_none(), "{what}");
    }
    assert!(style.predict(&toc_of(&plain), &Limits { decoded: 512, ..limits }).is_none());
    // The number of the process that wrote it is in the name of each PAX header: the next has another.
    let fleeting =
        packed(1, &gnu_tar("--format=pax --mtime=@5 --pax-option=exthdr.name=%d/PaxHeaders.%p/%f"));
    let next = packed(2, &gnu_tar("--format=pax --mtime=@5 --pax-option=exthdr.name=%d/PaxHeaders.%p/%f"));
    assert_eq!(predicted(&fleeting, &next), None);
}

/// Name, kind, bytes, mode, owner and group, time, length of a target.
type Any = (String, u8, usize, u64, (u64, u64), u64, usize);

prop_compose! {
    fn member()(
        name in "[a-z]{1,3}(/[a-z\u{e9}]{1,60}){0,3}", kind in 0..6u8, size in 0usize..2000, mode in 0u64..0o10000,
        owner in (0u64..4, 0u64..4), mtime in 0u64..5, far in 0usize..130,
    ) -> Any {
        (name, kind, size, mode, owner, mtime, far)
    }
}

fn tar_of(members: &[Any], long_names: LongNames) -> Vec<u8> {
    let mut tar = TarBuilder::with_long_names(long_names);
    let mut names = std::collections::HashSet::new();
    for (name, kind, size, mode, owner, mtime, far) in members {
        if !names.insert(name) {
            continue;
        }
        tar.owner(owner.0, owner.1).mtime(*mtime);
        match kind {
            0 => tar.dir(name),
            1 => tar.symlink(name, "t".repeat(*far + 1)),
            2 => tar.hardlink(name, "a"),
            3 => tar.fifo(name),
            _ => tar.file_mode(name, *mode, text(*size as u64, *size)),
        };
    }
    tar.finish()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// A prediction is a tar that says what the TOC says; and the one of the same program where there is one at all.
    #[test]
    fn what_is_predicted_is_what_the_same_program_writes(
        old in prop::collection::vec(member(), 0..12), new in prop::collection::vec(member(), 0..12), kept in 0usize..12,
        gnu: bool,
    ) {
        let long_names = if gnu { LongNames::Gnu } else { LongNames::Pax };
        // Each way of writing a name that does not fit has an example that leaves no doubt.
        let example = |name: &str, kind| (format!("{}{name}", "y/".repeat(55)), kind, 1, 0o644, (0, 0), 1, 120);
        let old: Vec<Any> = [example("long", 4), example("link", 1), ("\u{e9}".to_owned(), 4, 1, 0o644, (0, 0), 1, 1)]
            .into_iter()
            .chain(old)
            .collect();
        let new: Vec<Any> = old.iter().take(kept).cloned().chain(new).collect();
        let (old, new) = (tar_of(&old, long_names), tar_of(&new, long_names));
        prop_assert!(understood(&old));
        if let Some(predicted) = predicted(&old, &new) {
            prop_assert!(predicted == new);
        }
        prop_assert!(predicted(&old, &old).as_ref() == Some(&old));
    }
}
