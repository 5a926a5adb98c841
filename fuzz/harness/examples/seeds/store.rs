//! Seeds of the target of layer files: real ones, and tables made by hand.

use coracle_codec::digest::{Digest, Hashing};
use coracle_store::{LayerWriter, Options, Store, WriterOptions};
use coracle_testkit::golden::Golden;
use coracle_testkit::image;
use coracle_testkit::tar_builder::TarBuilder;
use std::io::Write;

use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let folder = std::env::temp_dir().join(format!("coracle-seeds-{}", std::process::id()));
    let store = Store::open_or_create(&folder, Options::default())?;
    let mut seeds = Seeds::new();
    for (name, tar) in tars()? {
        for limit in [0, 64, 4096] {
            let lease = store.lease()?;
            let options = WriterOptions { inline_limit: Some(limit), distrust: false };
            let mut out = Hashing::new(lease.layer_writer(&[], options)?);
            out.write_all(&tar)?;
            let info = LayerWriter::publish(out, &Digest::of(&tar))?;
            let path = folder.join("layers").join(info.diff_id.hex());
            seeds.insert(format!("{name}-{limit}"), std::fs::read(path)?);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    for (name, table) in tables() {
        // No bytes of frames, then the table.
        seeds.insert(format!("table-{name}"), [&[0, 0][..], &table].concat());
    }
    Ok(seeds)
}

fn tars() -> Outcome<Vec<(String, Vec<u8>)>> {
    let mut tars = vec![("empty".to_owned(), Vec::new()), ("no-tar".to_owned(), b"not a tar".to_vec())];
    let mut several = TarBuilder::new();
    for number in 0..6 {
        several.file(format!("f{number}"), image::text(number, number as usize * 900));
    }
    tars.push(("several".to_owned(), several.finish()));
    for case in Golden::built_in().tar()? {
        if ["sparse-1.0", "duplicate-entries", "no-eoa", "pax-path"].contains(&case.name.as_str()) {
            tars.push((case.name.clone(), case.tar()?));
        }
    }
    Ok(tars)
}

/// Tables of section 4.3 of `docs/formats/store.md`, good ones and such as must be refused.
fn tables() -> Vec<(&'static str, Vec<u8>)> {
    let table = |numbers: &[&[u8]]| [&[7; 32][..], &numbers.concat()].concat();
    let digest = &[9u8; 32][..];
    vec![
        ("nothing", table(&[&[0, 0, 0, 0, 0]])),
        ("object", table(&[&[100, 1, 0, 100], digest, &[0, 1, 1, b'a', 0, 100, 0]])),
        (
            "two-objects",
            table(&[&[9, 2, 0, 4], digest, &[0, 5], digest, &[0, 2, 1, b'a', 0, 4, 1, b'b', 0, 5, 0]]),
        ),
        ("object-without-bytes", table(&[&[0, 1, 0, 0], digest, &[0, 0, 0]])),
        ("file-in-two-objects", table(&[&[9, 2, 0, 4], digest, &[0, 5], digest, &[0, 1, 1, b'a', 0, 9, 0]])),
        ("file-beyond", table(&[&[4, 1, 0, 4], digest, &[0, 1, 1, b'a', 4, 1, 0]])),
        ("long-number", table(&[&[0x80, 0, 0, 0, 0, 0]])),
        ("section", table(&[&[0, 0, 0, 0, 1, 5, 0]])),
        ("many-objects", table(&[&[0, 0xff, 0x1f]])),
        ("bytes-behind", table(&[&[0, 0, 0, 0, 0, 1]])),
    ]
}
