//! Seeds of `tar_read`.

use coracle_testkit::golden::Golden;
use coracle_testkit::tar_builder::{Header, LongNames, Magic, TarBuilder};

use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let golden = Golden::built_in();
    for case in golden.tar()? {
        seeds.insert(format!("golden-{}", case.name), case.tar()?);
    }
    for case in golden.tardiff_good()? {
        for (i, old) in case.olds()?.into_iter().enumerate() {
            seeds.insert(format!("old-{}-{i}", case.name), old);
        }
    }
    for (name, tar) in [
        ("empty", Vec::new()),
        ("long-names-gnu", long_names(LongNames::Gnu)),
        ("long-names-pax", long_names(LongNames::Pax)),
        ("links", links()),
        ("whiteouts", whiteouts()),
        ("sparse-many", sparse_many()),
        ("numbers", numbers()),
        ("headers", headers()),
    ] {
        seeds.insert(name.into(), tar);
    }
    Ok(seeds)
}

fn long_names(how: LongNames) -> Vec<u8> {
    let long = "a-folder/".repeat(30);
    let mut b = TarBuilder::with_long_names(how);
    b.file(format!("{long}file"), b"content");
    b.symlink("short", format!("{long}file")).hardlink(format!("{long}link"), format!("{long}file"));
    b.pax([("mtime", "-1.5"), ("uid", "99999999"), ("SCHILY.xattr.user.a", "\0=\n")]).file("records", b"");
    b.finish()
}

fn links() -> Vec<u8> {
    let mut b = TarBuilder::new();
    b.dir("usr/lib").file("usr/lib/x", b"one").symlink("lib", "usr/lib").file("lib/x", b"two");
    b.hardlink("y", "usr/lib/x")
        .hardlink("z", "y")
        .file("y", b"three")
        .hardlink("z", "z")
        .hardlink("w", "none");
    b.symlink("l1", "l2")
        .symlink("l2", "l1")
        .file("l1/x", b"loop")
        .symlink("up", "../../usr")
        .file("up/q", b"q");
    b.file("usr/lib/x/below", b"a file above").file("../usr/lib/x", b"dots").dir("y").fifo("lib/x");
    b.finish()
}

fn whiteouts() -> Vec<u8> {
    let mut b = TarBuilder::new();
    b.file("d/a", b"a")
        .file("d/e/f", b"f")
        .symlink("s", "d")
        .file("d/.wh.a", b"")
        .file("s/.wh..wh..opq", b"");
    b.file(".wh..wh..opq", b"").file("d/.wh.", b"").file("d/.wh..wh.plnk", b"").file("d/.wh...", b"");
    b.finish()
}

fn sparse_many() -> Vec<u8> {
    let parts: Vec<(u64, &[u8])> = (0..40).map(|i| (i * 1024, &b"spot"[..])).collect();
    let mut b = TarBuilder::new();
    b.sparse_gnu("many", 1 << 20, &parts).sparse_gnu("hole", 1 << 40, &[]);
    let map = b"2\n0\n4\n1000\n4\n";
    let content = [&map[..], &vec![0; 512 - map.len()], b"12345678"].concat();
    b.pax([
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "pax"),
        ("GNU.sparse.realsize", "2000"),
    ]);
    b.file("GNUSparseFile.0/pax", content);
    b.pax([("GNU.sparse.map", "0,4,10,4"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.size", "20")]);
    b.file("pax-0.1", b"12345678");
    b.finish()
}

fn numbers() -> Vec<u8> {
    let mut b = TarBuilder::new();
    for magic in [Magic::V7, Magic::Ustar, Magic::Gnu] {
        let mut h = Header::new("n");
        (h.magic, h.uid, h.gid, h.mtime, h.device) =
            (magic, u64::MAX >> 1, 1 << 40, 1 << 62, Some((8, 1 << 30)));
        b.entry(&h, b"");
        (h.size, h.typeflag) = (3, b'7');
        b.entry(&h, b"abc");
    }
    b.pax([("size", "5")]).file("five", b"5 byt").pax_global([("path", "everywhere"), ("comment", "c")]);
    b.file("after", b"");
    b.finish_padded(20)
}

fn headers() -> Vec<u8> {
    let mut b = TarBuilder::new();
    for typeflag in [
        0, b'0', b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'D', b'M', b'N', b'S', b'V', b'X', b'x', b'g',
        b'L', b'K',
    ] {
        let mut h = Header::new("dir/");
        (h.typeflag, h.magic, h.linkname) = (typeflag, Magic::Gnu, b"target".to_vec());
        b.entry(&h, b"");
    }
    b.finish_with(b"behind the end")
}
