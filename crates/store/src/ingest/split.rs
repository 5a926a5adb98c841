//! Taking a tar apart while it streams.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Read};
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::ScopedJoinHandle;

use coracle_codec::digest::Digest;
use coracle_codec::tar::{Entry, Kind, Limits, Reader};

use super::content::{self, CHUNK, Job, Made};
use super::hints::Hints;
use super::staging::Staging;
use super::{Blocks, Count, Message};
use crate::error::Error;
use crate::layer_file::{self, TableWriter, Writer};

/// Threads that hash and write contents.
const THREADS: usize = 2;
/// Contents, or pieces of them, that wait for one thread at most.
const AHEAD: usize = 4;

/// A tar in its parts, all objects staged.
pub struct Split {
    pub file: Writer<BufWriter<File>>,
    pub table: TableWriter,
    pub objects: HashSet<Digest>,
    pub written: Count,
    pub existing: Count,
    pub linked: Count,
}

/// A stretch of the tar, in order.
enum Stretch {
    Inline(u64),
    /// The content of this number.
    Object {
        number: usize,
        len: u64,
    },
    File {
        path: Vec<u8>,
        offset: u64,
        len: u64,
    },
}

/// What was seen so far. Shared between the tar reader's input, which sees all bytes, and the loop around the reader,
/// which knows what they are.
struct Seen {
    file: Writer<BufWriter<File>>,
    stretches: Vec<Stretch>,
    /// Whether the bytes that pass are inline, or those of an object.
    inline: bool,
    /// What went wrong beneath the tar reader.
    failed: Option<Error>,
    path: std::path::PathBuf,
}

impl Seen {
    fn inline(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.stretches.last_mut() {
            Some(Stretch::Inline(len)) => *len += bytes.len() as u64,
            _ => self.stretches.push(Stretch::Inline(bytes.len() as u64)),
        }
        self.file.inline(bytes).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(Error::io("write", &self.path)(error));
            kind.into()
        })
    }
}

/// The tar as the reader gets it.
struct Input {
    blocks: Blocks,
    block: Vec<u8>,
    taken: usize,
    ended: bool,
    seen: Rc<RefCell<Seen>>,
}

impl Input {
    /// Bytes that were not read yet; none at the end.
    fn fill(&mut self) -> io::Result<&[u8]> {
        // The last block may be empty.
        while self.taken == self.block.len() && !self.ended {
            self.taken = 0;
            self.block.clear();
            // Nobody may want it back by now.
            let _ = self.blocks.empty.send(std::mem::take(&mut self.block));
            match self.blocks.full.recv() {
                Ok(Message::Block(block)) => self.block = block,
                Ok(Message::End) => self.ended = true,
                Err(_) => {
                    self.seen.borrow_mut().failed = Some(Error::Abandoned);
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        Ok(&self.block[self.taken..])
    }
}

impl Read for Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill()?;
        let n = bytes.len().min(buf.len());
        buf[..n].copy_from_slice(&bytes[..n]);
        self.taken += n;
        let mut seen = self.seen.borrow_mut();
        if seen.inline && n > 0 {
            seen.inline(&buf[..n])?;
        }
        Ok(n)
    }
}

/// Takes the tar apart that comes in `blocks`, to its end.
pub fn run(
    blocks: Blocks,
    staging: &Staging,
    hints: &Hints,
    limit: u64,
    layer_file: File,
) -> Result<Split, Error> {
    let path = staging.layer_path();
    let file = Writer::new(BufWriter::new(layer_file)).map_err(Error::io("write", &path))?;
    let seen = Seen { file, stretches: Vec::new(), inline: true, failed: None, path };
    let seen = Rc::new(RefCell::new(seen));
    let input = Input { blocks, block: Vec::new(), taken: 0, ended: false, seen: seen.clone() };
    let made = std::thread::scope(|scope| {
        let workers = (0..THREADS)
            .map(|_| {
                let (jobs, todo) = sync_channel(AHEAD);
                (jobs, scope.spawn(move || content::run(&todo, staging)))
            })
            .collect();
        let limit = limit.min(CHUNK as u64);
        let mut splitter =
            Splitter { seen: seen.clone(), hints, limit, workers, contents: 0, room: Room::new() };
        let outcome = splitter.members(input);
        // A thread that has failed is why nothing could be sent to it: its error comes first.
        let made = splitter.finish()?;
        outcome.map(|()| made)
    })?;
    let seen = Rc::into_inner(seen).unwrap_or_else(|| unreachable!("the reader has ended")).into_inner();
    Ok(join(seen, made))
}

/// Puts the digests in their places.
fn join(seen: Seen, made: Vec<Made>) -> Split {
    let mut digests = std::collections::HashMap::new();
    let mut objects = HashSet::new();
    let (mut written, mut existing, mut linked) = (Count::default(), Count::default(), Count::default());
    for part in made {
        digests.extend(part.digests);
        objects.extend(part.objects);
        written.join(part.written);
        existing.join(part.existing);
        linked.join(part.linked);
    }
    let mut table = TableWriter::default();
    for stretch in seen.stretches {
        match stretch {
            Stretch::Inline(len) => table.inline(len),
            Stretch::Object { number, len } => table.object(&digests[&number], len),
            Stretch::File { path, offset, len } => table.file(&path, offset, len),
        }
    }
    Split { file: seen.file, table, objects, written, existing, linked }
}

type Worker<'scope> = (SyncSender<Job>, ScopedJoinHandle<'scope, Result<Made, Error>>);

/// The loop around the tar reader.
struct Splitter<'a, 'scope> {
    seen: Rc<RefCell<Seen>>,
    hints: &'a Hints,
    limit: u64,
    workers: Vec<Worker<'scope>>,
    /// Contents given to workers so far.
    contents: usize,
    room: Room,
}

/// What still fits into a table, as readers bound it.
struct Room {
    bytes: u64,
    entries: u64,
}

impl Room {
    fn new() -> Self {
        let limits = layer_file::Limits::default();
        // Half of it is for the lengths of frames.
        Room { bytes: limits.table_bytes / 2, entries: limits.files.min(limits.objects) }
    }

    /// Takes the room of a member; false if there is none left.
    fn take(&mut self, entry: &Entry) -> bool {
        // Its name, a digest, and the longest numbers.
        let bytes = entry.name.len() as u64 + 100;
        let fits = self.bytes >= bytes && self.entries > 0;
        if fits {
            self.bytes -= bytes;
            self.entries -= 1;
        }
        fits
    }
}

impl Splitter<'_, '_> {
    /// Goes through all members. What cannot be read as a tar, and all behind it, is inline.
    fn members(&mut self, input: Input) -> Result<(), Error> {
        let mut tar = Reader::new(input, Limits::default());
        let mut pending: Option<Entry> = None;
        loop {
            let next = tar.next_entry();
            if let Some(error) = self.seen.borrow_mut().failed.take() {
                return Err(error);
            }
            // Its content was skipped on the way to the next member, if it was all there.
            if let Some(entry) = pending.take()
                && tar.position() >= entry.content_offset + entry.content_len
            {
                self.list(entry);
            }
            let Ok(Some(entry)) = next else { break };
            if !self.room.take(&entry) {
                break;
            }
            if entry.content_len > self.limit {
                if self.content(&mut tar, &entry)? && is_plain(&entry) {
                    self.list(entry);
                }
            } else if is_plain(&entry) {
                pending = Some(entry);
            }
        }
        self.rest(tar.into_rest())
    }

    fn list(&self, entry: Entry) {
        let (offset, len) = (entry.content_offset, entry.content_len);
        self.seen.borrow_mut().stretches.push(Stretch::File { path: entry.name, offset, len });
    }

    /// Takes a content out; whether it was all there.
    fn content(&mut self, tar: &mut Reader<Input>, entry: &Entry) -> Result<bool, Error> {
        self.seen.borrow_mut().inline = false;
        let taken = self.pieces(tar, entry)?;
        let mut seen = self.seen.borrow_mut();
        seen.inline = true;
        if taken > self.limit {
            seen.stretches.push(Stretch::Object { number: self.contents, len: taken });
            self.contents += 1;
        }
        Ok(taken == entry.content_len)
    }

    /// Hands a content to a worker, and says how many bytes of it were there.
    fn pieces(&mut self, tar: &mut Reader<Input>, entry: &Entry) -> Result<u64, Error> {
        let (number, len) = (self.contents, entry.content_len);
        let candidates = self.hints.candidates(&entry.name, len);
        let first = self.piece(tar, len)?;
        let mut taken = first.len() as u64;
        if taken <= self.limit {
            // The tar ends here, after less than an object needs.
            let mut seen = self.seen.borrow_mut();
            if seen.inline(&first).is_err() {
                return Err(seen.failed.take().unwrap_or(Error::Abandoned));
            }
        } else if len <= CHUNK as u64 {
            self.give(number, Job::Whole { number, bytes: first, candidates })?;
        } else {
            self.give(number, Job::Begin { number, len, candidates })?;
            self.give(number, Job::Piece(first))?;
            loop {
                let piece = self.piece(tar, len - taken)?;
                if piece.is_empty() {
                    break;
                }
                taken += piece.len() as u64;
                self.give(number, Job::Piece(piece))?;
            }
            self.give(number, Job::End)?;
        }
        Ok(taken)
    }

    /// The next bytes of a content of which `left` are left, at most [`CHUNK`]; fewer where the tar ends.
    fn piece(&mut self, tar: &mut Reader<Input>, left: u64) -> Result<Vec<u8>, Error> {
        let mut piece = Vec::with_capacity(left.min(CHUNK as u64) as usize);
        match tar.by_ref().take(CHUNK as u64).read_to_end(&mut piece) {
            Ok(_) => Ok(piece),
            // What came before the end of the tar is there.
            Err(_) => self.seen.borrow_mut().failed.take().map_or(Ok(piece), Err),
        }
    }

    /// Gives a job to the worker of this content. One that has failed takes none: then its error, which is found at the
    /// end, is the one that counts.
    fn give(&self, number: usize, job: Job) -> Result<(), Error> {
        self.workers[number % self.workers.len()].0.send(job).map_err(|_| Error::Abandoned)
    }

    /// Takes what is left of the tar.
    fn rest(&self, mut input: Input) -> Result<(), Error> {
        let mut buf = vec![0; 64 << 10];
        while input.read(&mut buf).map_err(|error| {
            let mut seen = self.seen.borrow_mut();
            let path = seen.path.clone();
            seen.failed.take().unwrap_or_else(|| Error::io("write", &path)(error))
        })? > 0
        {}
        Ok(())
    }

    /// Waits for the workers.
    fn finish(self) -> Result<Vec<Made>, Error> {
        let (jobs, workers): (Vec<_>, Vec<_>) = self.workers.into_iter().unzip();
        drop(jobs);
        let wait = |worker: ScopedJoinHandle<'_, Result<Made, Error>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        // All of them, also after one has failed.
        let made: Vec<_> = workers.into_iter().map(wait).collect();
        made.into_iter().collect()
    }
}

/// Whether the stored bytes of a member are the content of a regular file.
fn is_plain(entry: &Entry) -> bool {
    entry.kind == Kind::Regular && entry.sparse.is_none()
}
