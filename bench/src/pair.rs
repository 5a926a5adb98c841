//! Two versions of an image, and the folder in which tools work on them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::hash;

/// What there is to know about a pair.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The name of its folder.
    pub name: String,
    /// Size of the old tar in bytes.
    pub old_bytes: u64,
    /// Size of the new tar in bytes.
    pub new_bytes: u64,
    /// Size of the new tar after `gzip -6`, in bytes.
    pub gzip_bytes: u64,
    /// Digest of the new tar: 64 digits.
    pub digest: String,
}

impl Pair {
    /// Replaces the words in braces in a command: `{digest}` of the new tar; `{window_log}` and `{window}`, the
    /// binary logarithm and the size of the least power of two that holds either tar, but not less than 128 MiB,
    /// which is what zstd takes without being asked, nor more than 2 GiB, which is the most it takes.
    pub fn fill(&self, command: &[String]) -> Vec<String> {
        let log = self.old_bytes.max(self.new_bytes).max(1).next_power_of_two().ilog2().clamp(27, 31);
        let replace = |word: &String| {
            word.replace("{digest}", &self.digest)
                .replace("{window_log}", &log.to_string())
                .replace("{window}", &(1u64 << log).to_string())
        };
        command.iter().map(replace).collect()
    }
}

/// A folder for tools to work in, with the files of one pair.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
    tree: bool,
}

impl Workplace {
    /// Makes the folder for a pair, and finds out what there is to know about it.
    pub fn open(corpus: &Path, name: &str, temp: &Path) -> Result<(Workplace, Pair)> {
        let folder = tempfile::Builder::new()
            .prefix("coracle-bench-")
            .tempdir_in(temp)
            .map_err(Error::io("create a folder in", temp))?;
        for file in ["old.tar", "new.tar"] {
            let from = corpus.join(name).join(file);
            let from = absolute(&from).map_err(Error::io("find", &from))?;
            let to = folder.path().join(file);
            symlink(from, &to).map_err(Error::io("link", &to))?;
        }
        let place = Workplace { folder, tree: false };
        let pair = Pair {
            name: name.to_owned(),
            old_bytes: size(&place.file("old.tar"))?,
            new_bytes: size(&place.file("new.tar"))?,
            gzip_bytes: place.gzip()?,
            digest: hash::digest(&place.file("new.tar"))?,
        };
        Ok((place, pair))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Removes what a tool may have left.
    pub fn clear(&self, names: &[&str]) {
        for name in names {
            // What is not there need not be removed, and what cannot be removed shows soon.
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Extracts the old tar to `tree`, unless that was done before. Devices are left out: they hold no bytes, and
    /// only root can make them.
    pub fn extract(&mut self) -> Result<()> {
        if self.tree {
            return Ok(());
        }
        let tree = self.file("tree");
        fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
        let mut command = Command::new("tar");
        command.args(["--no-same-owner", "--no-same-permissions", "--delay-directory-restore", "--anchored"]);
        command.args([
            "--exclude=dev/*",
            "--exclude=./dev/*",
            "--directory=tree",
            "--extract",
            "--file=old.tar",
        ]);
        prepare("tar", "tar", command.current_dir(self.path()))?;
        self.tree = true;
        Ok(())
    }

    /// How large the new tar is after `gzip -6`, as anyone can check.
    fn gzip(&self) -> Result<u64> {
        let out = self.file("new.tar.gz");
        let to = fs::File::create(&out).map_err(Error::io("create", &out))?;
        let from = self.file("new.tar");
        let from = fs::File::open(&from).map_err(Error::io("open", &from))?;
        prepare("gzip", "gzip", Command::new("gzip").args(["-6", "-n", "-c"]).stdin(from).stdout(to))?;
        let bytes = size(&out)?;
        self.clear(&["new.tar.gz"]);
        Ok(bytes)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if self.tree {
            // Folders without the right to write would stay.
            let _ = Command::new("chmod").args(["-R", "u+rwX", "tree"]).current_dir(self.path()).status();
        }
    }
}

fn prepare(program: &'static str, package: &'static str, command: &mut Command) -> Result<()> {
    let output = command.stderr(Stdio::piped()).spawn().and_then(std::process::Child::wait_with_output);
    match output {
        Err(_) => Err(Error::Missing { program, package }),
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(Error::Preparation { program, what: text.trim().to_owned() })
        }
    }
}

/// The size of a file in bytes.
pub fn size(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).map_err(Error::io("read", file))?.len())
}

/// The names of the pairs in a corpus, or those asked for, if they are there.
pub fn names(corpus: &Path, asked: &[String]) -> Result<Vec<String>> {
    let is_pair =
        |name: &str| ["old.tar", "new.tar"].iter().all(|file| corpus.join(name).join(file).is_file());
    if let Some(name) = asked.iter().find(|name| !is_pair(name)) {
        return Err(Error::Pair { path: corpus.join(name), what: "no old.tar and new.tar there".into() });
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(corpus).map_err(Error::io("read", corpus))? {
        let name = entry.map_err(Error::io("read", corpus))?.file_name();
        found.extend(name.into_string().ok().filter(|name| is_pair(name)));
    }
    found.sort();
    if found.is_empty() {
        return Err(Error::Pair {
            path: corpus.to_owned(),
            what: "no folder with old.tar and new.tar there".into(),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(old_bytes: u64, new_bytes: u64) -> Pair {
        Pair { name: "x".into(), old_bytes, new_bytes, gzip_bytes: 0, digest: "ab".into() }
    }

    #[test]
    fn words_in_braces_are_replaced() {
        let fill = |pair: Pair| pair.fill(&["--long={window_log}".into(), "{window} {digest}".into()]);
        assert_eq!(fill(pair(1, 0)), ["--long=27", "134217728 ab"]);
        assert_eq!(fill(pair(1 << 27, 1)), ["--long=27", "134217728 ab"]);
        assert_eq!(fill(pair(1, (1 << 27) + 1)), ["--long=28", "268435456 ab"]);
        assert_eq!(fill(pair(1 << 40, 0)), ["--long=31", "2147483648 ab"]);
    }

    #[test]
    fn pairs_are_folders_with_two_tars() {
        let corpus = tempfile::tempdir().unwrap();
        for file in ["b/old.tar", "b/new.tar", "a/old.tar", "a/new.tar", "c/old.tar"] {
            let file = corpus.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        assert_eq!(names(corpus.path(), &[]).unwrap(), ["a", "b"]);
        assert_eq!(names(corpus.path(), &["b".into()]).unwrap(), ["b"]);
        assert!(names(corpus.path(), &["c".into()]).is_err());
        assert!(names(&corpus.path().join("a"), &[]).is_err());
    }
}
