//! Layers on their way into the store.
//!
//! ```text
//! caller ──► LayerWriter ──► split: headers, small files ──► layer file
//!                              └──► contents (threads) ──► staged objects ──► publish
//! ```
//!
//! The caller hashes the tar, one thread takes it apart, and two hash and write contents. What comes out does not depend
//! on which was faster.

mod content;
mod hints;
mod split;
mod staging;

use std::fs;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use coracle_codec::digest::{Digest, Hashing};
use coracle_sys::sync::{sync_file_system, sync_folder};

use self::hints::Hints;
use self::split::Split;
use self::staging::Staging;
use crate::error::Error;
use crate::layer::Layer;
use crate::lease::{Held, Kept};

/// Bytes handed over at once, and how many such blocks are under way at most.
const BLOCK: usize = 256 << 10;
const BLOCKS: usize = 8;

/// How a layer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterOptions {
    /// Content of up to so many bytes goes into the layer file; `None` takes what the store was made with. More than
    /// 1 MiB counts as 1 MiB.
    pub inline_limit: Option<u64>,
    /// Replace objects that are there by the bytes at hand, and use no hints: for layers that damage was seen in.
    pub distrust: bool,
}

/// A number of objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// How many.
    pub objects: u64,
    /// Their bytes together.
    pub bytes: u64,
}

impl Count {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    fn join(&mut self, other: Count) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// What came of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInfo {
    /// The sha256 of the tar.
    pub diff_id: Digest,
    /// Bytes of the tar.
    pub size: u64,
    /// Bytes of the tar that are in the layer file.
    pub inline: u64,
    /// Bytes of the layer file.
    pub stored: u64,
    /// Regular files.
    pub files: u64,
    /// Contents that were written.
    pub written: Count,
    /// Contents that were hashed and found to be there.
    pub existing: Count,
    /// Contents that were found equal to those of an old layer, and not hashed.
    pub linked: Count,
}

/// What goes to the thread that takes the tar apart.
enum Message {
    Block(Vec<u8>),
    /// All bytes were given.
    End,
}

/// A layer being written: takes the bytes of its tar in order. Dropped before it is published, it leaves nothing.
pub struct LayerWriter {
    full: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
    block: Vec<u8>,
    work: Option<JoinHandle<Result<Split, Error>>>,
    staging: Arc<Staging>,
    lease: Arc<Held>,
}

impl std::fmt::Debug for LayerWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerWriter").field("staging", &self.staging).finish_non_exhaustive()
    }
}

/// The other end of the channel: blocks come in, and go back when they are read.
struct Blocks {
    full: Receiver<Message>,
    empty: Sender<Vec<u8>>,
}

impl LayerWriter {
    pub(crate) fn new(lease: Arc<Held>, hints: &[Layer], options: WriterOptions) -> Result<Self, Error> {
        let staging = Arc::new(Staging::new(&lease, options.distrust)?);
        let hints = Hints::new(if options.distrust { &[] } else { hints });
        let limit = options.inline_limit.unwrap_or(lease.store().inline_limit());
        let (full, blocks) = sync_channel(BLOCKS);
        let (give_back, empty) = channel();
        let blocks = Blocks { full: blocks, empty: give_back };
        let layer_file = staging.layer_file()?;
        let work = {
            let staging = staging.clone();
            std::thread::spawn(move || split::run(blocks, &staging, &hints, limit, layer_file))
        };
        let block = Vec::with_capacity(BLOCK);
        Ok(LayerWriter { full, empty, block, work: Some(work), staging, lease })
    }

    /// Publishes the layer, if what passed through `written` is `expected`: from then on it is in the store, durable,
    /// and kept by the lease.
    ///
    /// # Errors
    /// [`Error::WrongLayer`]; or something could not be written. The layer is not in the store then.
    pub fn publish(written: Hashing<LayerWriter>, expected: &Digest) -> Result<LayerInfo, Error> {
        let (mut writer, actual, passed) = written.finish();
        let split = writer.finish()?;
        if actual != *expected {
            return Err(Error::WrongLayer { expected: *expected, actual });
        }
        debug_assert_eq!(split.table.size(), passed, "bytes got lost");
        let staged = writer.staging.layer_path();
        let fail = || Error::io("write", &staged);
        let (out, summary) = split.file.finish(split.table, expected).map_err(fail())?;
        out.into_inner().map_err(|error| fail()(error.into_error()))?;
        let (lease, store) = (&writer.lease, writer.lease.store());
        // One wait for the disk in place of one for each object.
        sync_file_system(store.path()).map_err(Error::io("sync", store.path()))?;
        let _shared = store.share()?;
        writer.staging.publish(&split.objects)?;
        // Names of objects before those of layers that need them.
        sync_file_system(store.path()).map_err(Error::io("sync", store.path()))?;
        let path = store.layout().layer(expected);
        fs::rename(&staged, &path).map_err(Error::io("make", &path))?;
        let layers = store.layout().layers();
        sync_folder(&layers).map_err(Error::io("sync", &layers))?;
        lease.note(Kept::Layer(*expected))?;
        Ok(LayerInfo {
            diff_id: actual,
            size: passed,
            inline: summary.inline,
            stored: summary.stored,
            files: summary.files,
            written: split.written,
            existing: split.existing,
            linked: split.linked,
        })
    }

    /// Hands over what is left, and waits for what the threads make of it.
    fn finish(&mut self) -> Result<Split, Error> {
        // A refusal means that the thread has failed; what it returns says why.
        let _ = self.full.send(Message::Block(mem::take(&mut self.block)));
        let _ = self.full.send(Message::End);
        self.outcome()
    }

    fn outcome(&mut self) -> Result<Split, Error> {
        match self.work.take() {
            Some(work) => work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // Its error was given out before.
            None => Err(Error::Abandoned),
        }
    }

    fn send_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let next = self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        let block = mem::replace(&mut self.block, next);
        match self.full.send(Message::Block(block)) {
            Ok(()) => Ok(()),
            Err(_) => match self.outcome() {
                Ok(_) => unreachable!("it ends when it is told to"),
                Err(error) => Err(error.into()),
            },
        }
    }
}

impl Write for LayerWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&buf[..n]);
        if self.block.len() == BLOCK {
            self.send_block()?;
        }
        Ok(n)
    }

    /// Nothing: what was written is needed when the layer is published.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LayerWriter {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            // The thread takes the end of the channel for the end of the work.
            self.full = sync_channel(0).0;
            let _ = work.join();
        }
    }
}
