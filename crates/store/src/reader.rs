//! Reading a layer from its start to its end.

use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use coracle_codec::ReadAt;

use crate::layer::Layer;

/// Bytes read at once, and how many such blocks are ahead of the reader at most.
const BLOCK: usize = 512 << 10;
const BLOCKS: usize = 4;

/// The tar of a layer as a stream. A second thread opens objects and reads them ahead, so that whoever hashes what comes
/// out does not wait; it ends when the reader is dropped.
pub struct LayerReader {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    block: Vec<u8>,
    taken: usize,
}

impl fmt::Debug for LayerReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerReader")
    }
}

impl LayerReader {
    pub(crate) fn new(layer: Layer) -> Self {
        let (give, full) = sync_channel(BLOCKS);
        let (empty, spare) = channel();
        std::thread::spawn(move || read_ahead(&layer, &give, &spare));
        LayerReader { full, empty, block: Vec::new(), taken: 0 }
    }
}

/// Reads `layer` to its end, or until nobody wants it any more.
fn read_ahead(layer: &Layer, give: &SyncSender<io::Result<Vec<u8>>>, spare: &Receiver<Vec<u8>>) {
    let mut offset = 0;
    while offset < layer.size() {
        let mut block = spare.try_recv().unwrap_or_default();
        block.resize((layer.size() - offset).min(BLOCK as u64) as usize, 0);
        let result = layer.read_exact_at(offset, &mut block);
        let ended = result.is_err();
        offset += block.len() as u64;
        if give.send(result.map(|()| block)).is_err() || ended {
            return;
        }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.block.len() {
            // Nobody may want it back by now.
            let _ = self.empty.send(std::mem::take(&mut self.block));
            self.taken = 0;
            match self.full.recv() {
                Ok(block) => self.block = block?,
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.block.len() - self.taken);
        buf[..n].copy_from_slice(&self.block[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}
