//! Reading from where nothing may come for long.

use std::fs::File;
use std::io::{self, Read};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Between two questions whether to go on waiting.
const PERIOD: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Reads as read(2) does, from a pipe, a terminal, a socket or a file, and asks `stop` now and then while it waits
/// for the first byte. Signal handlers restart an ordinary read, so that it would wait for ever.
///
/// # Errors
/// Those of read(2) and poll(2); [`is_stopped`] when `stop` said so.
pub fn read_unless(file: &mut File, buf: &mut [u8], stop: impl Fn() -> bool) -> io::Result<usize> {
    loop {
        if stop() {
            return Err(Errno::CANCELED.into());
        }
        // A signal ends the wait early, which is as good as the period's end.
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&PERIOD)) {
            Ok(0) | Err(Errno::INTR) => {}
            // What else there is to know, such as the end, read(2) tells.
            Ok(_) => return file.read(buf),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether `error` is that of a read that was stopped.
pub fn is_stopped(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::CANCELED)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn what_comes_is_read_and_waiting_ends_when_asked() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut reader = File::from(OwnedFd::from(reader));
        let mut buf = [0; 8];
        writer.write_all(b"some").unwrap();
        assert_eq!(read_unless(&mut reader, &mut buf, || false).unwrap(), 4);
        let asked = AtomicU32::new(0);
        let error =
            read_unless(&mut reader, &mut buf, || asked.fetch_add(1, Ordering::SeqCst) == 2).unwrap_err();
        assert!(is_stopped(&error), "{error}");
        drop(writer);
        assert_eq!(read_unless(&mut reader, &mut buf, || false).unwrap(), 0);
    }

    #[test]
    fn files_never_wait() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(read_unless(&mut file, &mut [0; 8], || false).unwrap(), 0);
        assert!(!is_stopped(&io::ErrorKind::NotFound.into()));
    }
}
