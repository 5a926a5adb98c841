//! Seeds of `chunked_parse`: TOC and tar-split of layers that our writer makes, and bare footers.

use std::io::Read;

use coracle_codec::chunked::{Limits, Options, Place, write};
use coracle_codec::compress::{self, decoder};
use coracle_codec::digest::Digest;
use coracle_codec::oci::Descriptor;
use coracle_testkit::image::{binary, text};
use coracle_testkit::tar_builder::TarBuilder;

/// Names and bytes.
pub fn seeds() -> crate::Outcome<crate::Seeds> {
    let mut rich = TarBuilder::new();
    rich.dir("d")
        .file("d/empty", b"")
        .pax([("SCHILY.xattr.user.x", "y"), ("mtime", "5.25")])
        .file("d/text", text(1, 300))
        .file("d/holes", [text(2, 100), vec![0; 3000], text(3, 50)].concat())
        .file("d/large", binary(4, 150_000))
        .symlink("d/link", "text")
        .hardlink("d/hard", "d/text")
        .fifo("d/fifo");
    let one = TarBuilder::new().file("a", b"x").finish_without_trailer();
    let mut out = crate::Seeds::new();
    for (name, tar) in [("rich", rich.finish()), ("one", one), ("empty", Vec::new())] {
        let mut blob = Vec::new();
        let written = write(tar.as_slice(), &mut blob, &Options { level: 3, legacy: false })?;
        let mut layer = Descriptor::new("x", Digest::of(&blob), blob.len() as u64);
        layer.annotations = written.annotations;
        let place = Place::of(&layer, &Limits::default())?.ok_or("a layer without its annotations")?;
        let part = |range: std::ops::Range<u64>| {
            let mut bytes = Vec::new();
            let stored = &blob[range.start as usize..range.end as usize];
            decoder(stored, compress::Limits::default())?.1.read_to_end(&mut bytes).map(|_| bytes)
        };
        let toc = part(place.toc.map(|part| part.range()).unwrap_or_default())?;
        let split = part(place.split.map(|part| part.range()).unwrap_or_default())?;
        out.insert(format!("{name}-toc"), toc.clone());
        out.insert(name.to_owned(), [&toc[..], &[0], &split].concat());
        out.insert(format!("{name}-footer"), blob[blob.len() - 72..].to_vec());
    }
    let digest = Digest::of(b"x");
    let lines = "{\"type\":2,\"payload\":\"YQ==\",\"position\":0}\n";
    for (number, entry) in [
        format!("{{\"type\":\"reg\",\"name\":\"a\",\"size\":1,\"digest\":\"{digest}\",\"offset\":9,\"endOffset\":10}}"),
        format!("{{\"type\":\"reg\",\"name\":\"a\",\"size\":1,\"digest\":\"{digest}\",\"offset\":9,\"innerOffset\":3}}"),
        format!(
            "{{\"type\":\"reg\",\"name\":\"a\",\"size\":3,\"digest\":\"{digest}\",\"offset\":9,\"chunkSize\":2,\"chunkDigest\":\"{digest}\"}},\
             {{\"type\":\"chunk\",\"name\":\"a\",\"offset\":20,\"chunkOffset\":2,\"chunkSize\":1,\"chunkDigest\":\"{digest}\",\"chunkType\":\"zeros\"}}"
        ),
        "{\"type\":\"dir\",\"name\":\"./\",\"modtime\":\"2026-01-02T03:04:05.5+01:00\"}".to_owned(),
        "{\"type\":\"char\",\"name\":\"c\",\"devMajor\":1,\"devMinor\":3,\"accesstime\":\"0001-01-01T00:00:00Z\"}".to_owned(),
        "{\"type\":\"symlink\",\"name\":\"l\",\"linkName\":\"../..\",\"xattrs\":{\"user.a\":\"AA==\"}}".to_owned(),
        "{\"type\":\"reg\",\"name\":\"../x\"}".to_owned(),
        "{\"type\":\"reg\",\"name\":\"a\"},{\"type\":\"reg\",\"name\":\"./a\"}".to_owned(),
        "{\"type\":\"chunk\",\"name\":\"a\"}".to_owned(),
        "{\"type\":\"reg\",\"name\":\"a\",\"size\":9223372036854775807}".to_owned(),
        "{\"type\":\"hardlink\",\"name\":\"a\",\"uid\":-1,\"unknown\":[{}]}".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let toc = format!("{{\"version\":1,\"entries\":[{entry}]}}");
        out.insert(format!("entry-{number}"), [toc.as_bytes(), &[0], lines.as_bytes()].concat());
    }
    Ok(out)
}
