//! sha256 of files, with the library that Coracle uses, but none of its code: what judges is not what is judged.

use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Error, Result};
use crate::measure::Taken;
use crate::results::Row;

/// As much as is hashed at once: more brings nothing.
const PIECE: usize = 1 << 20;

/// The digest of a file: 64 digits.
pub fn digest(file: &Path) -> Result<String> {
    let mut input = File::open(file).map_err(Error::io("open", file))?;
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece).map_err(Error::io("read", file))? {
            0 => return Ok(text(&context.finish())),
            count => context.update(&piece[..count]),
        }
    }
}

fn text(digest: &Digest) -> String {
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Measures how fast one thread hashes the bytes of a file from memory: the best of some rounds.
pub fn speed(file: &Path, date: &str, note: &str) -> Result<Row> {
    let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
    let started = Instant::now();
    let mut best = round(&bytes);
    let mut rounds = 1;
    while rounds < 5 || (started.elapsed().as_secs() < 3 && rounds < 1000) {
        best = best.best(round(&bytes));
        rounds += 1;
    }
    Ok(Row {
        date: date.to_owned(),
        pair: "-".to_owned(),
        new_bytes: Some(bytes.len() as u64),
        tool: "sha256".to_owned(),
        config: "aws-lc-rs".to_owned(),
        apply: Some(best),
        note: note.to_owned(),
        ..Row::default()
    })
}

fn round(bytes: &[u8]) -> Taken {
    let (cpu, wall) = (thread_seconds(), Instant::now());
    let mut context = Context::new(&SHA256);
    bytes.chunks(PIECE).for_each(|piece| context.update(piece));
    // Without a use of the result nothing need be hashed.
    std::hint::black_box(context.finish());
    // As many decimals as the results keep, so that the speed is the same when it is computed from them again.
    let rounded = |seconds: f64| (seconds * 1e4).round() / 1e4;
    Taken { cpu: rounded(thread_seconds() - cpu), wall: rounded(wall.elapsed().as_secs_f64()), memory: None }
}

/// CPU time of this thread, in seconds.
fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // FIPS 180-2, appendix B.1 and B.3.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        std::fs::write(&file, "abc").unwrap();
        assert_eq!(
            digest(&file).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        std::fs::write(&file, vec![b'a'; 1_000_000]).unwrap();
        assert_eq!(
            digest(&file).unwrap(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn speed_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        std::fs::write(&file, vec![7; 3 << 20]).unwrap();
        let row = speed(&file, "2026-01-02", "n").unwrap();
        assert_eq!((row.pair.as_str(), row.new_bytes), ("-", Some(3 << 20)));
        assert!(row.apply.unwrap().cpu > 0.0);
    }
}
