//! Input in small pieces, to find readers that depend on how much one call to `read` gives.

use std::io::{self, Read};

/// Gives 1, 1, 2, 3, 5, ... 233 bytes at a time, then starts over.
pub(crate) struct Pieces<'a> {
    data: &'a [u8],
    last: usize,
    next: usize,
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Pieces { data, last: 0, next: 1 }
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.next.min(buf.len());
        (self.last, self.next) = if self.next > 200 { (0, 1) } else { (self.next, self.last + self.next) };
        self.data.read(&mut buf[..n])
    }
}
