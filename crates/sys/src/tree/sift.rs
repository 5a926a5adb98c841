//! Going through a tree to take parts of it away, and writing single files of it anew.

use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Mode, OFlags, chmodat, fstat, openat};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::{Folder, Kind, MAX_DEPTH, kind};

/// What becomes of a name in [`Folder::sift`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Stay,
    /// It goes, with all that is below it.
    Go,
    /// A folder stays if anything below it does; anything else goes.
    GoIfEmpty,
}

impl Folder {
    /// Goes through all that is in it and removes what `judge` says. That is told the path, what is there, its number, and
    /// what it has answered besides for the folder around it; of the top that is `begin`. Symlinks are not followed.
    ///
    /// # Errors
    /// Those of the operating system; more than 256 levels.
    pub fn sift<T: Copy>(
        &self,
        begin: T,
        mut judge: impl FnMut(&[u8], Kind, u64, T) -> (Fate, T),
    ) -> io::Result<()> {
        struct Level<T> {
            folder: Folder,
            left: Vec<Vec<u8>>,
            /// The name in the level above, and whether it may go if it is empty in the end.
            name: Vec<u8>,
            may_go: bool,
            /// Bytes of the path that are those of the level above.
            above: usize,
            told: T,
        }
        let names = |folder: &Folder| -> io::Result<Vec<Vec<u8>>> {
            let mut names = folder.names()?;
            // The last is taken first.
            names.sort_unstable_by(|a, b| b.cmp(a));
            Ok(names)
        };
        let mut path: Vec<u8> = Vec::new();
        let (left, folder) = (names(self)?, self.clone());
        let mut levels = vec![Level { folder, left, name: Vec::new(), may_go: false, above: 0, told: begin }];
        while let Some(top) = levels.last_mut() {
            let Some(name) = top.left.pop() else {
                let Some(done) = levels.pop() else { break };
                path.truncate(done.above);
                if let Some(above) = levels.last()
                    && done.may_go
                {
                    above.folder.remove_if_empty(&done.name)?;
                }
                continue;
            };
            let above = path.len();
            if above > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            if let Some((kind, id)) = top.folder.look(&name)? {
                let (fate, told) = judge(&path, kind, id, top.told);
                match (fate, kind) {
                    (Fate::Go, _) | (Fate::GoIfEmpty, Kind::File | Kind::Other) => {
                        top.folder.remove(&name)?
                    }
                    (_, Kind::Folder) => {
                        let folder = top.folder.enter(&name)?;
                        let left = names(&folder)?;
                        if levels.len() == MAX_DEPTH {
                            return Err(Errno::NAMETOOLONG.into());
                        }
                        let may_go = fate == Fate::GoIfEmpty;
                        levels.push(Level { folder, left, name, may_go, above, told });
                        continue;
                    }
                    (Fate::Stay, _) => {}
                }
            }
            path.truncate(above);
        }
        Ok(())
    }

    /// The regular file `name` to be written anew, whatever its mode, if it is the one with this number. Nobody else may
    /// change the folder meanwhile.
    ///
    /// # Errors
    /// Those of openat(2); `ESTALE` if it is another one.
    pub fn rewrite(&self, name: &[u8], id: u64) -> io::Result<File> {
        if self.look(name)? != Some((Kind::File, id)) {
            return Err(Errno::STALE.into());
        }
        if !geteuid().is_root() {
            chmodat(&self.0, name, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
        }
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.0, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        if stat.st_ino != id || kind(&stat) != Kind::File {
            return Err(Errno::STALE.into());
        }
        let file = File::from(file);
        file.set_len(0)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;
    use crate::tree::Tree;

    #[test]
    fn what_is_judged_goes_or_stays() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["a/b", "c/d", "e/f/g", "h"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["a/b/x", "a/keep", "c/d/x", "e/f/g/keep", "x"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        symlink("/etc", dir.path().join("link")).unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let mut seen = Vec::new();
        let judge = |path: &[u8], kind, _: u64, depth: u32| {
            let path = String::from_utf8(path.to_vec()).unwrap();
            let fate = match (path.as_str(), kind) {
                ("a/b", _) => Fate::Go,
                ("h", _) => Fate::Stay,
                (path, _) if path.ends_with("keep") => Fate::Stay,
                _ => Fate::GoIfEmpty,
            };
            seen.push(format!("{depth} {path}"));
            (fate, depth + 1)
        };
        tree.top().sift(0, judge).unwrap();
        assert_eq!(
            seen,
            [
                "0 a",
                "1 a/b",
                "1 a/keep",
                "0 c",
                "1 c/d",
                "2 c/d/x",
                "0 e",
                "1 e/f",
                "2 e/f/g",
                "3 e/f/g/keep"
            ]
            .into_iter()
            .chain(["0 h", "0 link", "0 x"])
            .collect::<Vec<_>>()
        );
        let left = |path: &str| dir.path().join(path).symlink_metadata().is_ok();
        assert!(["a/keep", "e/f/g/keep", "h"].iter().all(|path| left(path)));
        assert!(["a/b", "c", "link", "x"].iter().all(|path| !left(path)));
        assert!(std::path::Path::new("/etc").exists());
    }

    #[test]
    fn only_the_same_file_is_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let top = tree.top();
        let made = top.make_file(b"file").unwrap();
        let id = made.metadata().unwrap().ino();
        (&made).write_all(b"before").unwrap();
        top.rewrite(b"file", id).unwrap().write_all(b"now").unwrap();
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"now");
        assert!(top.rewrite(b"file", id + 1).is_err());
        assert_eq!(std::fs::read(dir.path().join("file")).unwrap(), b"now");
        std::fs::rename(dir.path().join("file"), dir.path().join("moved")).unwrap();
        symlink("moved", dir.path().join("file")).unwrap();
        assert!(top.rewrite(b"file", id).is_err(), "a link is not followed");
    }
}
