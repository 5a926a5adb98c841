//! Seeds of `chunked_predict`: two tars each, by several programs.

use coracle_testkit::golden::Golden;
use coracle_testkit::image::text;
use coracle_testkit::tar_builder::{Header, LongNames, Magic, TarBuilder};
use serde_json::Value;

fn pair(old: &[u8], new: &[u8]) -> Vec<u8> {
    [&(old.len() as u32).to_le_bytes()[..], old, new].concat()
}

/// Names and bytes.
pub fn seeds() -> crate::Outcome<crate::Seeds> {
    let mut out = crate::Seeds::new();
    for case in Golden::built_in().cases::<Value>("predict")? {
        let (old, new) = (case.read("old.tar.zst")?, case.read("new.tar.zst")?);
        out.insert(case.name.clone(), pair(&old, &new));
    }
    for long_names in [LongNames::Gnu, LongNames::Pax] {
        let version = |number: u64| {
            let mut tar = TarBuilder::with_long_names(long_names);
            tar.mtime(number).dir("d").file("d/kept", text(1, 60)).owner(7, number);
            tar.file("d/changes", text(number, 30 + number as usize)).file(format!("d/{number}"), b"");
            tar.file(format!("{}{number}", "long/".repeat(30)), b"x").symlink("d/l", "t".repeat(130));
            tar.hardlink("d/h", "d/kept").fifo("d/p");
            tar.clone()
        };
        let name = format!("{long_names:?}").to_lowercase();
        let (old, new) = (version(1), version(2));
        out.insert(format!("{name}-blocks"), pair(&old.finish(), &new.finish()));
        out.insert(format!("{name}-records"), pair(&old.finish_padded(20), &new.finish_padded(20)));
        out.insert(format!("{name}-open"), pair(&old.finish_without_trailer(), &new.finish()));
        out.insert(format!("{name}-itself"), pair(&old.finish(), &old.finish()));
    }
    for (name, magic, device) in [
        ("v7", Magic::V7, None),
        ("gnu", Magic::Gnu, Some((1, 3))),
        ("gnu-empty", Magic::Gnu, None),
        ("ustar", Magic::Ustar, Some((8, 0))),
        ("ustar-empty", Magic::Ustar, None),
    ] {
        let version = |number: u64| {
            let header = Header {
                uname: b"somebody".into(),
                gname: b"some".into(),
                uid: 5_000_000 * number,
                magic,
                device,
                typeflag: if device.is_some() { b'3' } else { b'0' },
                ..Header::new(format!("name{}", number / 2))
            };
            let long = Header { prefix: b"prefix/of".into(), ..Header::new("n".repeat(95)) };
            let mut tar = TarBuilder::new();
            tar.entry(&header, b"");
            if magic == Magic::Ustar {
                tar.entry(&long, b"");
            }
            tar.finish()
        };
        out.insert(format!("header-{name}"), pair(&version(1), &version(2)));
        out.insert(format!("header-{name}-same"), pair(&version(2), &version(3)));
    }
    let none = TarBuilder::new().finish();
    out.insert("nothing".into(), pair(&none, &none));
    out.insert("sparse".into(), pair(&TarBuilder::new().sparse_gnu("s", 5000, &[(0, b"x")]).finish(), &none));
    Ok(out)
}
