//! The members of old archives, numbered through all archives (`docs/formats/native-delta.md`, section 6.1).

use std::io::{BufReader, Read};

use super::container::Archive;
use crate::digest::{Digest, Hashing};
use crate::observe::{Observer, Stage};
use crate::source::MergeError;
use crate::tar::{self, Entry};
use crate::{ReadAt, Section};

/// Where the parts of an old member lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member {
    /// Which archive.
    pub archive: usize,
    /// Offset of its framing: extended headers and header.
    pub framing: u64,
    /// Offset of its content, where the framing ends.
    pub content: u64,
    /// Bytes of content.
    pub len: u64,
}

/// Old archives with their members.
pub(crate) struct Old<'a> {
    archives: Vec<&'a dyn ReadAt>,
    pub members: Vec<Member>,
}

impl<'a> Old<'a> {
    /// Reads the archives to their last byte. `visit` sees each member and may read its content. Also returns what a
    /// head says of them.
    pub(crate) fn open(
        archives: &[&'a dyn ReadAt],
        limits: tar::Limits,
        observer: &dyn Observer,
        mut visit: impl FnMut(&Entry, &mut dyn Read) -> Result<(), tar::Error>,
    ) -> Result<(Self, Vec<Archive>), MergeError> {
        let total = archives.iter().map(|a| a.size()).sum();
        let (mut members, mut digests, mut before) = (Vec::new(), Vec::new(), 0);
        for (archive, bytes) in archives.iter().enumerate() {
            let fail = |error| MergeError::Tar { layer: archive, error };
            let input = Hashing::new(BufReader::with_capacity(1 << 16, Section::whole(*bytes).reader()));
            let reader = list(archive, input, limits, observer, &mut members, |entry, reader| {
                observer.progress(Stage::ReadOld, before + reader.position(), total);
                visit(entry, reader)
            })?;
            let mut rest = reader.into_rest();
            std::io::copy(&mut rest, &mut std::io::sink()).map_err(|e| fail(e.into()))?;
            let (_, digest, size): (_, Digest, u64) = rest.finish();
            digests.push(Archive { size, digest });
            before += bytes.size();
        }
        Ok((Old { archives: archives.to_vec(), members }, digests))
    }

    /// As [`Old::open`], without reading what is in the members.
    pub(crate) fn members(
        archives: &[&'a dyn ReadAt],
        limits: tar::Limits,
        observer: &dyn Observer,
    ) -> Result<Self, MergeError> {
        let mut members = Vec::new();
        for (archive, bytes) in archives.iter().enumerate() {
            let input = BufReader::with_capacity(1 << 16, Section::whole(*bytes).reader());
            list(archive, input, limits, observer, &mut members, |_, _| Ok(()))?;
        }
        Ok(Old { archives: archives.to_vec(), members })
    }

    /// The archives themselves.
    pub(crate) fn archives(&self) -> &[&'a dyn ReadAt] {
        &self.archives
    }

    /// The framing of a member.
    pub(crate) fn framing(&self, member: &Member) -> std::io::Result<Vec<u8>> {
        Section::new(self.archives[member.archive], member.framing, member.content - member.framing).to_vec()
    }

    /// The content of a member.
    pub(crate) fn content(&self, member: &Member) -> Section<'a> {
        Section::new(self.archives[member.archive], member.content, member.len)
    }
}

/// Adds the members of an archive. `visit` sees each before it is added, and may read its content.
fn list<R: Read>(
    archive: usize,
    input: R,
    limits: tar::Limits,
    observer: &dyn Observer,
    members: &mut Vec<Member>,
    mut visit: impl FnMut(&Entry, &mut tar::Reader<R>) -> Result<(), tar::Error>,
) -> Result<tar::Reader<R>, MergeError> {
    let fail = |error| MergeError::Tar { layer: archive, error };
    let mut reader = tar::Reader::new(input, limits);
    while let Some(entry) = reader.next_entry().map_err(fail)? {
        if observer.cancelled() {
            return Err(MergeError::Cancelled);
        }
        visit(&entry, &mut reader).map_err(fail)?;
        members.push(Member {
            archive,
            framing: entry.offset,
            content: entry.content_offset,
            len: entry.content_len,
        });
    }
    Ok(reader)
}
