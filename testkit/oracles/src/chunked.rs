//! Chunked layers as the crate `zstd-chunked` reads them.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Context, ensure};
use zstd_chunked::{MetadataReference, MetadataReferences, Stream};

/// What the crate finds in a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedView {
    /// The tar that it puts together.
    pub tar: Vec<u8>,
    /// Of each content, in the order of the tar: its range in the blob, its digest and its length.
    pub contents: Vec<(Range<u64>, String, u64)>,
    /// What the TOC and the tar-split decode to.
    pub documents: [Vec<u8>; 2],
}

/// Reads `blob`, a layer of zstd:chunked, with the crate `zstd-chunked`. It is told where the documents are by
/// `annotations`; what the footer says must be the same.
///
/// The crate compares no digests; contents are not compared either.
///
/// # Errors
/// What the crate says, with causes.
pub fn zstd_chunked_view(blob: &[u8], annotations: &BTreeMap<String, String>) -> Result<ChunkedView, String> {
    view(blob, annotations).map_err(|error| format!("{error:#}"))
}

fn view(blob: &[u8], annotations: &BTreeMap<String, String>) -> anyhow::Result<ChunkedView> {
    let said = MetadataReferences::from_oci(|name| annotations.get(name)).context("annotations")?;
    let found = MetadataReferences::from_footer(blob).context("footer")?;
    let same = |a: &MetadataReference, b: &MetadataReference| {
        a.range == b.range && a.uncompressed_size == b.uncompressed_size
    };
    ensure!(same(&said.manifest, &found.manifest) && same(&said.tarsplit, &found.tarsplit), "two places");
    let part = |range: &Range<u64>| {
        let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
        blob.get(range).context("a range outside of the blob")
    };
    let (toc, split) = (part(&said.manifest.range)?, part(&said.tarsplit.range)?);
    let stream = Stream::new_from_frames(toc, split)?;
    let mut tar = Vec::new();
    stream.write_to(&mut tar, |content| {
        let bytes = zstd::decode_all(part(&content.range)?)?;
        ensure!(bytes.len() as u64 == content.size, "{content:?} has {} bytes", bytes.len());
        Ok(bytes)
    })?;
    let contents = stream.references().map(|c| (c.range.clone(), c.digest.clone(), c.size)).collect();
    Ok(ChunkedView { tar, contents, documents: [zstd::decode_all(toc)?, zstd::decode_all(split)?] })
}
