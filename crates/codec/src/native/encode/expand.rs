//! New bytes with their packed streams replaced by what is in them.

use std::ops::Range;

use super::part::Rebuilt;
use crate::native::deflate::coded;
use crate::native::packed::{Encoder, png};

/// New bytes with some streams replaced by their content.
pub(super) struct Expanded {
    pub text: Vec<u8>,
    /// The streams that were replaced, in order.
    pub streams: Vec<Unpacked>,
    /// Streams that were left as they are.
    pub other: u64,
}

/// A stream expanded.
#[derive(Clone)]
pub(super) struct Unpacked {
    /// Where its content starts in the expanded text.
    pub at: usize,
    pub encoder: Encoder,
    /// Bytes of the stream, and of its content.
    pub stream: u64,
    pub content: usize,
    pub name: Vec<u8>,
    /// The stream itself, if its tokens are to be coded.
    pub raw: Option<Vec<u8>>,
}

impl Expanded {
    /// A text without streams.
    pub(super) fn plain(text: Vec<u8>) -> Self {
        Expanded { text, streams: Vec::new(), other: 0 }
    }

    /// The same with the streams left as they are whose tokens would have to be coded; nothing if there are none.
    pub(super) fn without_tokens(&self) -> Option<Expanded> {
        self.streams.iter().any(|s| s.raw.is_some()).then(|| {
            let mut out = Expanded { text: Vec::new(), streams: Vec::new(), other: self.other };
            let mut done = 0;
            for s in &self.streams {
                out.text.extend_from_slice(&self.text[done..s.at]);
                done = s.at + s.content;
                match &s.raw {
                    Some(raw) => {
                        out.text.extend_from_slice(raw);
                        out.other += 1;
                    }
                    None => {
                        let at = out.text.len();
                        out.text.extend_from_slice(&self.text[s.at..done]);
                        out.streams.push(Unpacked { at, name: s.name.clone(), raw: None, ..*s });
                    }
                }
            }
            out.text.extend_from_slice(&self.text[done..]);
            out
        })
    }

    /// The tokens of some of its streams, coded. Each was coded alone before, so that none fails.
    pub(super) fn tokens(&self, streams: &[Unpacked]) -> Vec<u8> {
        let mut coder = None;
        for s in streams {
            if let (Encoder::Tokens(settings), Some(raw)) = (s.encoder.inner(), &s.raw) {
                let coder = coder.get_or_insert_with(coded::Encoder::new);
                let inner = match s.encoder {
                    Encoder::Png(..) => png::join(raw).map(|(inner, _)| inner),
                    _ => None,
                };
                let stream = inner.as_ref().unwrap_or(raw);
                let proved = coder.stream(&self.text[s.at..s.at + s.content], settings, stream);
                debug_assert!(proved.is_ok());
            }
        }
        coder.map(coded::Encoder::finish).unwrap_or_default()
    }

    /// How `streams`, which are those of a range of the text, are rebuilt, and how many bytes of the target the range
    /// makes.
    pub(super) fn rebuilt(&self, range: Range<usize>, streams: &[Unpacked]) -> (Vec<Rebuilt>, u64) {
        let mut rebuilt = Vec::new();
        let (mut at, mut len) = (range.start, 0);
        for s in streams {
            let before = (s.at - at) as u64;
            rebuilt.push(Rebuilt { before, encoder: s.encoder, stream: s.stream, content: s.content as u64 });
            len += before + s.stream;
            at = s.at + s.content;
        }
        debug_assert!(range.end <= self.text.len());
        (rebuilt, len + (range.end - at) as u64)
    }
}
