//! Coding a file with one packed stream inside that is too large to be coded with the rest, such as a kernel of Linux:
//! the stream is a part of its own, from the streams of old files, and a program if its content is one.

use super::DiffError;
use super::candidates::{program_budget, text_budget};
use super::expand::{Expanded, Unpacked};
use super::part::{Coded, Coder, OldText, Part, View, ViewKind};
use super::scan::NewMember;
use crate::delta::likeness::Segment;
use crate::native::packed::{self, ExpandError, Stream};
use crate::{ReadAt, Section};

/// Memory that the encoder of the stream may take (section 4.3): an xz dictionary of 32 MiB; with more effort, what zstd
/// takes at its highest level.
const MAX_ENCODER: u64 = 416 << 20;
const MAX_SLOW_ENCODER: u64 = 896 << 20;
/// From these efforts on. The second one costs a reader most of a gigabyte, and a second for each megabyte.
const EFFORT: u8 = 5;
const SLOW_EFFORT: u8 = 7;
/// Bytes in front of a stream and behind it that are coded along with it, each.
const MAX_AROUND: u64 = 4 << 20;

/// An old file with one stream inside, expanded.
struct Old {
    file: usize,
    size: u64,
    stream: Stream,
    len: u64,
    content: Vec<u8>,
}

impl Coder<'_> {
    /// Codes a member by the stream inside; `None` if it has none, or no old file has one that helps.
    pub(super) fn payload(&self, member: &NewMember) -> Result<Option<Coded>, DiffError> {
        let len = member.content_len;
        if self.options.effort.number() < EFFORT || len > text_budget(self.options) / 2 {
            return Ok(None);
        }
        let magic = self.content(member, 0, len.min(2))?;
        if magic != b"MZ" {
            return Ok(None);
        }
        let file = self.content(member, 0, len)?;
        let Some((stream, content)) = self.only_stream(&file)? else { return Ok(None) };
        let (start, end) = (stream.start, stream.start + stream.len.unwrap_or(0));
        let segments = self.candidates.text(member, 0, &file, program_budget(self.options));
        let old = self.old_payloads(&segments)?;
        if old.is_empty() || start.max(len - end) > MAX_AROUND {
            return Ok(None);
        }
        let bytes = &file[start as usize..end as usize];
        let slow = self.options.effort.number() >= SLOW_EFFORT;
        let memory = if slow { MAX_SLOW_ENCODER } else { MAX_ENCODER };
        let encoder = packed::guess(&content, bytes, stream.format, None, memory, false);
        let Some(encoder) = encoder else { return Ok(None) };

        let around = |pick: fn(&Old) -> (u64, u64)| {
            let mut text = OldText::default();
            for o in &old {
                let (start, len) = pick(o);
                let bytes = Section::new(&self.old_file(o.file), start, len).to_vec();
                let kind = ViewKind::Range { start, len };
                text.push(View { member: o.file, kind }, &bytes.map_err(DiffError::Read)?);
            }
            Ok::<_, DiffError>(text)
        };
        let before = around(|o| (0, o.stream.start.min(MAX_AROUND)))?;
        let behind = around(|o| {
            let end = o.stream.start + o.len;
            (end, (o.size - end).min(MAX_AROUND))
        })?;
        let mut inside = OldText::default();
        for o in &old {
            let kind = ViewKind::of(o.stream.format, o.stream.start, o.len, o.content.len() as u64);
            inside.push(View { member: o.file, kind }, &o.content);
        }
        drop(old);

        let unpacked = Unpacked {
            at: 0,
            encoder,
            stream: end - start,
            content: content.len(),
            name: Vec::new(),
            raw: None,
        };
        let new = Expanded { text: content, streams: vec![unpacked], other: 0 };
        let mut coded = Coded::default();
        coded.parts.extend(self.plain(&file[..start as usize], &before));
        let program = self.program(&new, &inside);
        coded.parts.extend(self.cheapest(&new, &inside, program));
        coded.parts.extend(self.plain(&file[end as usize..], &behind));
        Ok(Some(coded))
    }

    /// The parts of a text without streams.
    fn plain(&self, text: &[u8], old: &OldText) -> Vec<Part> {
        let new = Expanded::plain(text.to_vec());
        self.parts(&new, old, &self.matches(&new.text, old))
    }

    /// The stream inside of a file, if it is the only one, and its content.
    fn only_stream(&self, file: &dyn ReadAt) -> Result<Option<(Stream, Vec<u8>)>, DiffError> {
        let mut found = packed::locate(file);
        found.retain(|s| self.opens(s));
        let (Some(stream), None) = (found.pop(), found.pop()) else { return Ok(None) };
        match packed::expand(file, &stream, program_budget(self.options) as usize) {
            Ok((content, len)) => Ok(Some((Stream { len: Some(len), ..stream }, content))),
            Err(ExpandError::Stream(_)) => Ok(None),
            Err(ExpandError::Read(e)) => Err(DiffError::Read(e)),
        }
    }

    /// The old files that have a stream inside too, as many as fit.
    fn old_payloads(&self, segments: &[Segment]) -> Result<Vec<Old>, DiffError> {
        let mut out: Vec<Old> = Vec::new();
        let mut room = program_budget(self.options);
        for s in segments {
            if out.iter().any(|o| o.file == s.file) {
                continue;
            }
            let file = self.old_file(s.file);
            if let Some((stream, content)) = self.only_stream(&file)?
                && content.len() as u64 <= room
            {
                room -= content.len() as u64;
                let len = stream.len.unwrap_or(0);
                out.push(Old { file: s.file, size: file.size(), stream, len, content });
            }
        }
        Ok(out)
    }
}
