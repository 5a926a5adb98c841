//! The source that deltas are applied to: a few files in memory, good and bad ones.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::LazyLock;

use coracle_codec::source::{OpenError, Source, SourceFile};

/// What a path of the tree leads to.
#[derive(Debug)]
pub enum Node {
    /// A file that reads well.
    File(Vec<u8>),
    /// A file that says it is longer than it is, as one that shrinks while it is read.
    Shrinks {
        /// What it says.
        size: u64,
        /// What it has.
        content: Vec<u8>,
    },
    /// A file of this size that opens and then cannot be read.
    Unreadable(u64),
    /// A directory.
    Directory,
    /// A path that cannot be opened.
    Broken,
}

/// The files by path. Paths are short because fuzzers have to find them.
#[derive(Debug)]
pub struct Fixed {
    nodes: Vec<(&'static [u8], Node)>,
}

/// The tree; always the same bytes.
pub static TREE: LazyLock<Fixed> = LazyLock::new(|| {
    let text = b"boat = coracle\nhide = tarred\nribs = willow\n".repeat(70);
    Fixed {
        nodes: vec![
            (b"empty", Node::File(Vec::new())),
            (b"a", Node::File(b"a".to_vec())),
            (b"d/conf", Node::File(text)),
            (b"d/tool", Node::File(noise(4096))),
            (b"zero", Node::File(vec![0; 40_000])),
            (b"big", Node::File(records(100_000))),
            (b"shrinks", Node::Shrinks { size: 5000, content: noise(100) }),
            (b"io", Node::Unreadable(5000)),
            (b"d", Node::Directory),
            (b"broken", Node::Broken),
        ],
    }
});

/// Bytes without structure, from a linear congruential generator.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 1u32;
    std::iter::repeat_with(|| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    })
    .take(len)
    .collect()
}

/// Bytes with some structure, as in a table of a program.
fn records(len: usize) -> Vec<u8> {
    (0u32..).flat_map(|i| (i * i).to_le_bytes()).take(len).collect()
}

impl Fixed {
    /// What `path` leads to.
    pub fn get(&self, path: &[u8]) -> Option<&Node> {
        self.nodes.iter().find(|(p, _)| *p == path).map(|(_, node)| node)
    }

    /// The content at `path` if it can be read in full.
    pub fn content(&self, path: &[u8]) -> Option<&[u8]> {
        match self.get(path)? {
            Node::File(content) => Some(content),
            _ => None,
        }
    }
}

impl Source for Fixed {
    fn open_path(&self, path: &[u8]) -> Result<Box<dyn SourceFile + '_>, OpenError> {
        let memory = |content| Cursor::new(content);
        match self.get(path).ok_or(OpenError::NotFound)? {
            Node::File(content) => {
                Ok(Box::new(File { size: content.len() as u64, content: Some(memory(content)) }))
            }
            Node::Shrinks { size, content } => {
                Ok(Box::new(File { size: *size, content: Some(memory(content)) }))
            }
            Node::Unreadable(size) => Ok(Box::new(File { size: *size, content: None })),
            Node::Directory => Err(OpenError::NotRegular("directory")),
            Node::Broken => Err(OpenError::Io(io::ErrorKind::PermissionDenied.into())),
        }
    }
}

struct File<'a> {
    size: u64,
    content: Option<Cursor<&'a Vec<u8>>>,
}

impl Read for File<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.content {
            Some(content) => content.read(buf),
            None => Err(io::Error::other("cannot be read")),
        }
    }
}

impl Seek for File<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.content {
            Some(content) => content.seek(to),
            None => Ok(0),
        }
    }
}

impl SourceFile for File<'_> {
    fn size(&self) -> u64 {
        self.size
    }
}
