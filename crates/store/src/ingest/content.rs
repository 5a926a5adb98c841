//! Contents on their way to objects: compared, hashed, written.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use coracle_codec::digest::{Digest, Hasher};

use super::Count;
use super::hints::Candidate;
use super::staging::Staging;
use crate::error::Error;

/// Bytes of a content that are held in memory before anything is written: of one that is there already, nothing is.
pub const CHUNK: usize = 1 << 20;
/// Bytes of old content read at once for comparing.
const STEP: usize = 64 << 10;

/// What goes to a thread that makes objects. `number` is that of the content in its layer.
pub enum Job {
    /// A content in one piece, of [`CHUNK`] bytes at most.
    Whole { number: usize, bytes: Vec<u8>, candidates: Vec<Candidate> },
    /// A content of `len` bytes, in pieces that follow.
    Begin { number: usize, len: u64, candidates: Vec<Candidate> },
    /// The next piece.
    Piece(Vec<u8>),
    /// It was the last one: all bytes, or all that there were.
    End,
}

/// What a thread has made.
#[derive(Debug, Default)]
pub struct Made {
    /// Digests of contents by their numbers.
    pub digests: Vec<(usize, Digest)>,
    /// All objects that are staged.
    pub objects: HashSet<Digest>,
    pub written: Count,
    pub existing: Count,
    pub linked: Count,
}

/// Does what comes until no more can come.
pub fn run(jobs: &Receiver<Job>, staging: &Staging) -> Result<Made, Error> {
    let mut made = Made::default();
    let mut large: Option<Large> = None;
    while let Ok(job) = jobs.recv() {
        match job {
            Job::Whole { number, bytes, candidates } => {
                let digest = whole(&mut made, staging, &bytes, &candidates)?;
                made.digests.push((number, digest));
            }
            Job::Begin { number, len, candidates } => large = Some(Large::new(number, len, candidates)),
            Job::Piece(bytes) => {
                if let Some(large) = &mut large {
                    large.take(staging, &bytes)?;
                }
            }
            Job::End => {
                if let Some(large) = large.take() {
                    let number = large.number;
                    let digest = large.finish(&mut made, staging)?;
                    made.digests.push((number, digest));
                }
            }
        }
    }
    Ok(made)
}

/// A content in memory.
fn whole(
    made: &mut Made,
    staging: &Staging,
    bytes: &[u8],
    candidates: &[Candidate],
) -> Result<Digest, Error> {
    let len = bytes.len() as u64;
    for candidate in candidates {
        let Ok(old) = candidate.layer.object(&candidate.digest, len) else { continue };
        if equal(&old, 0, bytes) && staging.link(&candidate.digest, len) {
            made.linked.add(len);
            made.objects.insert(candidate.digest);
            return Ok(candidate.digest);
        }
    }
    let digest = Digest::of(bytes);
    if made.objects.insert(digest) && !staging.link(&digest, len) && staging.write(&digest, bytes)? {
        made.written.add(len);
    } else {
        made.existing.add(len);
    }
    Ok(digest)
}

/// Whether `old` has `bytes` at `offset`.
fn equal(old: &File, offset: u64, bytes: &[u8]) -> bool {
    let mut buf = vec![0; STEP.min(bytes.len())];
    let mut at = offset;
    bytes.chunks(STEP).all(|step| {
        let good = old.read_exact_at(&mut buf[..step.len()], at).is_ok() && buf[..step.len()] == *step;
        at += step.len() as u64;
        good
    })
}

/// A content that does not fit into memory.
struct Large {
    number: usize,
    len: u64,
    taken: u64,
    candidates: Vec<Candidate>,
    state: State,
}

enum State {
    /// Nothing was taken yet.
    Fresh,
    /// All bytes so far are those of an old object.
    Equal { old: Arc<File>, digest: Digest },
    /// Being written.
    Writing { out: Out },
}

struct Out {
    file: File,
    path: PathBuf,
    hasher: Hasher,
}

impl Out {
    fn begin(staging: &Staging, number: usize) -> Result<Self, Error> {
        let (file, path) = staging.begin(number)?;
        Ok(Out { file, path, hasher: Hasher::new() })
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Takes the first `len` bytes of `old`.
    fn copy(&mut self, old: &File, len: u64) -> Result<(), Error> {
        let mut buf = vec![0; STEP];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(STEP as u64) as usize;
            // Compared before with what came: it has not changed since, as nobody writes to objects.
            old.read_exact_at(&mut buf[..n], at).map_err(Error::io("read an old object for", &self.path))?;
            self.take(&buf[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}

impl Large {
    fn new(number: usize, len: u64, candidates: Vec<Candidate>) -> Self {
        Large { number, len, taken: 0, candidates, state: State::Fresh }
    }

    fn take(&mut self, staging: &Staging, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.state {
            State::Fresh => {
                self.state = match self.find(bytes) {
                    Some((old, digest)) => State::Equal { old, digest },
                    None => {
                        let mut out = Out::begin(staging, self.number)?;
                        out.take(bytes)?;
                        State::Writing { out }
                    }
                }
            }
            State::Equal { old, .. } if equal(old, self.taken, bytes) => {}
            State::Equal { old, .. } => {
                let mut out = Out::begin(staging, self.number)?;
                out.copy(old, self.taken)?;
                out.take(bytes)?;
                self.state = State::Writing { out };
            }
            State::Writing { out } => out.take(bytes)?,
        }
        self.taken += bytes.len() as u64;
        Ok(())
    }

    /// An old object that begins with `bytes`.
    fn find(&self, bytes: &[u8]) -> Option<(Arc<File>, Digest)> {
        self.candidates.iter().find_map(|candidate| {
            let old = candidate.layer.object(&candidate.digest, self.len).ok()?;
            equal(&old, 0, bytes).then_some((old, candidate.digest))
        })
    }

    fn finish(self, made: &mut Made, staging: &Staging) -> Result<Digest, Error> {
        let out = match self.state {
            State::Equal { digest, .. } if self.taken == self.len && staging.link(&digest, self.len) => {
                made.linked.add(self.len);
                made.objects.insert(digest);
                return Ok(digest);
            }
            // It was removed meanwhile, or the tar ends within the content.
            State::Equal { old, .. } => {
                let mut out = Out::begin(staging, self.number)?;
                out.copy(&old, self.taken)?;
                out
            }
            State::Writing { out } => out,
            State::Fresh => Out::begin(staging, self.number)?,
        };
        let digest = out.hasher.finish();
        drop(out.file);
        if !made.objects.insert(digest) || staging.link(&digest, self.taken) {
            remove(&out.path).map_err(Error::io("remove", &out.path))?;
            made.existing.add(self.taken);
        } else if staging.end(&out.path, &digest)? {
            made.written.add(self.taken);
        } else {
            made.existing.add(self.taken);
        }
        Ok(digest)
    }
}

fn remove(path: &std::path::Path) -> io::Result<()> {
    std::fs::remove_file(path)
}
