//! A directory to run the command in, and what a run gave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use coracle_testkit::golden::sha256_hex;
use coracle_testkit::oracle::{run_bounded, run_fed, tool};
use coracle_testkit::tree;
use serde_json::Value;
use tempfile::TempDir;

/// More than any run of the ordinary tests takes, on a slow and busy machine, too.
pub const LIMIT: Duration = Duration::from_secs(300);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_coracle");

/// A working directory with `in` for inputs, `out` for outputs and `tmp` for temporary files. Command lines name files
/// relative to it.
#[derive(Debug)]
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// A place in the directory `dir`.
    pub fn within(dir: &Path) -> Self {
        let dir = tempfile::tempdir_in(dir).unwrap();
        for name in ["in", "out", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Place(dir)
    }

    /// The absolute path of `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        fs::write(self.path(name), content).unwrap();
        self
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// Digest of the file `name`, as `--expect` takes it.
    pub fn digest(&self, name: &str) -> String {
        digest(&self.read(name))
    }

    /// The command `program` (the one under test if it is `coracle`, a file in the place otherwise) with the arguments
    /// in `line`, which are separated by blanks.
    pub fn command(&self, line: &str) -> Command {
        let mut words = line.split_ascii_whitespace();
        let mut command = match words.next().unwrap() {
            "coracle" => Command::new(PROGRAM),
            name => Command::new(self.path(name)),
        };
        command.args(words).current_dir(self.0.path()).env("TMPDIR", self.path("tmp"));
        command.env("CORACLE_STORE", self.path("store"));
        command
    }

    /// Runs `coracle LINE`.
    pub fn run(&self, line: &str) -> Ran {
        self.run_as(&format!("coracle {line}"))
    }

    /// Runs `LINE`, whose first word is the program.
    pub fn run_as(&self, line: &str) -> Ran {
        Ran::new(line, run_bounded(&mut self.command(line), LIMIT).unwrap())
    }

    /// Runs `coracle LINE` with `input` on standard input.
    pub fn fed(&self, line: &str, input: Vec<u8>) -> Ran {
        Ran::new(line, run_fed(&mut self.command(&format!("coracle {line}")), input, LIMIT).unwrap())
    }

    /// Runs `coracle LINE`, which must succeed.
    pub fn ok(&self, line: &str) -> Ran {
        self.run(line).success()
    }

    /// Runs `coracle LINE --json`, which must succeed and print one object and nothing else.
    pub fn json(&self, line: &str) -> Value {
        let ran = self.ok(&format!("{line} --json"));
        assert_eq!(ran.stderr, "", "{line}");
        one_object(&ran.text())
    }

    /// Runs `coracle LINE`, which must fail with `code` and one line that contains `message`, print nothing else, and
    /// leave outputs and temporary files as they were.
    pub fn fails(&self, line: &str, code: i32, message: &str) -> String {
        let before = self.files();
        let ran = self.run(line);
        self.check_failure(&ran, code, message);
        self.check_unchanged(line, &before);
        ran.stderr
    }

    /// As [`Place::fails`], for a run that is over; without looking for what it left.
    pub fn check_failure(&self, ran: &Ran, code: i32, message: &str) {
        assert_eq!(ran.code, Some(code), "{ran:?}");
        assert!(ran.stdout.is_empty(), "{ran:?}");
        let line = ran.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {ran:?}"));
        assert!(!line.contains(['\n', '\r']), "not one line: {ran:?}");
        assert!(line.contains("rror: ") && line.contains(message), "wanted {message:?}: {ran:?}");
    }

    /// Everything in `out` and `tmp` with its content.
    pub fn files(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = tree::files(&self.path("out")).unwrap();
        for (path, content) in tree::files(&self.path("tmp")).unwrap() {
            all.insert([b"tmp/", path.as_slice()].concat(), content);
        }
        all
    }

    pub fn check_unchanged(&self, what: &str, before: &BTreeMap<Vec<u8>, Vec<u8>>) {
        let after = self.files();
        let names = |of: &BTreeMap<Vec<u8>, Vec<u8>>| {
            of.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(before), "{what}");
        assert!(after == *before, "{what}: an existing file has another content");
    }
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub line: String,
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn new(line: &str, output: Output) -> Self {
        Ran {
            line: line.to_owned(),
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}: {}", self.line, self.stderr);
        self
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).unwrap()
    }
}

/// The object that is all of `text`, on one line.
pub fn one_object(text: &str) -> Value {
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {text:?}"));
    assert!(!line.contains('\n'), "not one line: {text:?}");
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text:?}"));
    assert!(value.is_object(), "{text:?}");
    value
}

pub fn digest(content: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(content))
}

/// `content`, compressed by the program `name` as it is usually called: `gzip`, `bzip2`, `xz` or `zstd`.
pub fn compress(name: &str, content: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tool(name).unwrap());
    let output = run_fed(command.args(["-c", "-1"]), content.to_vec(), LIMIT).unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The programs whose output is understood.
pub const COMPRESSORS: [&str; 4] = ["gzip", "bzip2", "xz", "zstd"];
