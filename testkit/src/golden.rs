//! The stored inputs of other tools, and what a correct reader makes of them.
//!
//! Layout and origin: `golden/README.md`. Each case is a folder with a `case.json`; the types here are its
//! typed form, as far as tests need it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::Error;
use crate::tree::{self, TreeEdit, TreeEntry};

/// The environment variable that names a folder with more cases in the same layout.
pub const EXTERNAL: &str = "CORACLE_VECTORS";

/// A folder of cases.
#[derive(Debug, Clone)]
pub struct Golden {
    root: PathBuf,
}

impl Golden {
    /// The cases that come with the source: sets `tar`, `tardiff/good`, `tardiff/bad`.
    pub fn built_in() -> Self {
        Self { root: Path::new(env!("CARGO_MANIFEST_DIR")).join("golden") }
    }

    /// The folder that [`EXTERNAL`] names, which may have further sets. A test that needs it says so and
    /// returns if there is none.
    pub fn external() -> Option<Self> {
        std::env::var_os(EXTERNAL).filter(|path| !path.is_empty()).map(|path| Self { root: path.into() })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// All cases of the set `tar`, by name.
    ///
    /// # Errors
    /// A `case.json` cannot be read or is not as expected.
    pub fn tar(&self) -> Result<Vec<Case<TarCase>>, Error> {
        self.cases("tar")
    }

    /// All cases of the set `tardiff/good`, by name.
    ///
    /// # Errors
    /// As [`Golden::tar`].
    pub fn tardiff_good(&self) -> Result<Vec<Case<GoodDelta>>, Error> {
        self.cases("tardiff/good")
    }

    /// All cases of the set `tardiff/bad`, by name.
    ///
    /// # Errors
    /// As [`Golden::tar`].
    pub fn tardiff_bad(&self) -> Result<Vec<Case<BadDelta>>, Error> {
        self.cases("tardiff/bad")
    }

    /// All cases of the folder `set`, by name. `T` is the form of their `case.json`; for sets that have none
    /// here, `serde_json::Value` does.
    ///
    /// # Errors
    /// As [`Golden::tar`].
    pub fn cases<T: DeserializeOwned>(&self, set: &str) -> Result<Vec<Case<T>>, Error> {
        let dir = self.root.join(set);
        let entries = std::fs::read_dir(&dir).map_err(|error| Error::io(&dir, error))?;
        let mut dirs = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| Error::io(&dir, error))?.path();
            if path.join("case.json").is_file() {
                dirs.push(path);
            }
        }
        dirs.sort();
        dirs.into_iter().map(|dir| self.case(dir)).collect()
    }

    fn case<T: DeserializeOwned>(&self, dir: PathBuf) -> Result<Case<T>, Error> {
        let file = dir.join("case.json");
        let bytes = std::fs::read(&file).map_err(|error| Error::io(&file, error))?;
        let json = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: file, source })?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Case { name, dir, root: self.root.clone(), json })
    }
}

/// One case: a folder and its `case.json`.
#[derive(Debug, Clone)]
pub struct Case<T> {
    /// Name of the folder.
    pub name: String,
    /// The folder.
    pub dir: PathBuf,
    /// The folder of all sets: paths that start with a set's name count from here.
    pub root: PathBuf,
    /// What `case.json` says.
    pub json: T,
}

impl<T> Case<T> {
    /// The content of `file`, a path relative to the case, or to the root of all sets if it starts with the
    /// name of one. `.zst` files are decompressed.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn read(&self, file: &str) -> Result<Vec<u8>, Error> {
        let in_case = self.dir.join(file);
        let path = if in_case.exists() { in_case } else { self.root.join(file) };
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        if !file.ends_with(".zst") {
            return Ok(bytes);
        }
        unzstd(&bytes).map_err(|reason| Error::data(path.to_string_lossy(), reason))
    }
}

/// Digest and size of some content.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Fact {
    /// sha256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl Fact {
    /// The fact about `content`.
    pub fn of(content: &[u8]) -> Self {
        Self { sha256: sha256_hex(content), size: content.len() as u64 }
    }
}

/// A file of a case and what it holds.
#[derive(Debug, Clone, Deserialize)]
pub struct FileFact {
    /// Path, see [`Case::read`].
    pub file: String,
    /// The content; that of a `.zst` file after decompression.
    #[serde(flatten)]
    pub fact: Fact,
}

/// A tar of a case.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredTar {
    /// Path, see [`Case::read`].
    pub file: String,
    /// The tar, decompressed.
    pub tar: Fact,
}

/// `case.json` of `tardiff/good`: a delta that must rebuild the new tar.
#[derive(Debug, Clone, Deserialize)]
pub struct GoodDelta {
    /// Tool and version.
    pub made_by: String,
    /// What is special.
    pub note: String,
    /// Options given to the tool.
    #[serde(default)]
    pub args: Vec<String>,
    /// The old tars and the delta.
    pub inputs: GoodInputs,
    /// What applying it must give.
    pub expect: GoodExpect,
    /// Why a strict reader may refuse this delta all the same; `None` for nearly all.
    pub optional: Option<String>,
}

/// Inputs of a [`GoodDelta`].
#[derive(Debug, Clone, Deserialize)]
pub struct GoodInputs {
    /// Old tars, lowest first.
    pub old: Vec<StoredTar>,
    /// Whether whiteouts in the old tars count.
    pub apply_whiteouts: bool,
    /// The delta.
    pub delta: FileFact,
}

/// What a [`GoodDelta`] must give.
#[derive(Debug, Clone, Deserialize)]
pub struct GoodExpect {
    /// The new tar.
    pub new_tar: NewTar,
    /// Format version, 1 or 2.
    pub version: u32,
    /// Operations by name (`DATA`, `OPEN`, `COPY`, `ADD`, `SEEK`, `ZSTDDICT`).
    pub ops: BTreeMap<String, OpCount>,
    /// The files that the delta opens, each once.
    pub sources: Vec<Source>,
}

/// A new tar, which is stored unless it is large.
#[derive(Debug, Clone, Deserialize)]
pub struct NewTar {
    /// Digest and size.
    #[serde(flatten)]
    pub fact: Fact,
    /// Path, see [`Case::read`].
    pub file: Option<String>,
}

/// How often an operation occurs.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub struct OpCount {
    /// Number of operations.
    pub ops: u64,
    /// Sum of their sizes in bytes; 0 for `OPEN` and `SEEK`.
    pub sum: u64,
}

/// A file that a delta opens.
#[derive(Debug, Clone, Deserialize)]
pub struct Source {
    path: Option<String>,
    path_hex: Option<String>,
    cleaned: Option<String>,
    /// The content that the delta was made against.
    #[serde(flatten)]
    pub fact: Fact,
}

impl Source {
    /// The path as it is in the delta.
    pub fn path(&self) -> Vec<u8> {
        text_or_hex(self.path.as_deref(), self.path_hex.as_deref())
    }

    /// The path of the file in the tree: without `.` and repeated slashes.
    pub fn clean_path(&self) -> Vec<u8> {
        self.cleaned.as_ref().map_or_else(|| self.path(), |path| path.clone().into_bytes())
    }
}

impl Case<GoodDelta> {
    /// The old tars, lowest first.
    ///
    /// # Errors
    /// As [`Case::read`], as for all methods here.
    pub fn olds(&self) -> Result<Vec<Vec<u8>>, Error> {
        self.json.inputs.old.iter().map(|old| self.read(&old.file)).collect()
    }

    /// Whether whiteouts in the old tars count.
    pub fn apply_whiteouts(&self) -> bool {
        self.json.inputs.apply_whiteouts
    }

    /// The delta.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn delta(&self) -> Result<Vec<u8>, Error> {
        self.read(&self.json.inputs.delta.file)
    }

    /// Digest and size of the new tar.
    pub fn new_tar(&self) -> &Fact {
        &self.json.expect.new_tar.fact
    }

    /// The new tar, if it is stored.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn new_tar_bytes(&self) -> Result<Option<Vec<u8>>, Error> {
        self.json.expect.new_tar.file.as_deref().map(|file| self.read(file)).transpose()
    }

    /// The format version, 1 or 2.
    pub fn version(&self) -> u32 {
        self.json.expect.version
    }

    /// Counts of operations by name.
    pub fn ops(&self) -> &BTreeMap<String, OpCount> {
        &self.json.expect.ops
    }

    /// The files that the delta opens.
    pub fn sources(&self) -> &[Source] {
        &self.json.expect.sources
    }

    /// The tree that the delta is applied to: the old tars, extracted by GNU tar.
    ///
    /// # Errors
    /// As [`Case::read`] and [`tree::extract`].
    pub fn tree(&self) -> Result<TempDir, Error> {
        tree::extract_layers(&self.olds()?, self.apply_whiteouts())
    }
}

/// `case.json` of `tardiff/bad`: a delta, or a tree, that a reader must not accept.
#[derive(Debug, Clone, Deserialize)]
pub struct BadDelta {
    /// Tool and version.
    pub made_by: String,
    /// The delta and the tree.
    pub inputs: BadInputs,
    /// Where the reader must notice.
    pub fails_at: FailsAt,
    /// What is wrong.
    pub expect_error: String,
    /// Bounds to give to the reader.
    #[serde(default)]
    pub limits: Limits,
    /// The digest that the reader is told to expect.
    #[serde(rename = "expected_digest_given_to_reader")]
    pub expected_digest: Option<Fact>,
}

/// Inputs of a [`BadDelta`].
#[derive(Debug, Clone, Deserialize)]
pub struct BadInputs {
    /// The delta.
    pub delta: FileFact,
    /// The tree as a tar, see [`Case::read`].
    pub tree_tar: Option<String>,
    /// The tree as a description.
    pub tree: Option<Vec<TreeEntry>>,
    /// Where in the tree the sources are; the tree itself if `None`.
    pub source_root: Option<PathBuf>,
    /// Changes to make in the tree.
    #[serde(default)]
    pub tree_edits: Vec<TreeEdit>,
    /// Files that `tree_tar` has.
    #[serde(default)]
    pub files: Vec<Source>,
}

/// Where a reader must notice that something is wrong.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
pub enum FailsAt {
    /// Before any operation: magic and start of the stream.
    #[serde(rename = "open")]
    Open,
    /// While applying.
    #[serde(rename = "apply")]
    Apply,
    /// Only by comparing the result with [`BadDelta::expected_digest`].
    #[serde(rename = "digest")]
    Digest,
    /// At either of the last two, by the reader's choice.
    #[serde(rename = "apply or digest")]
    ApplyOrDigest,
}

/// Bounds that a test gives to the reader, in bytes.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
pub struct Limits {
    /// Output as a whole.
    pub max_output: Option<u64>,
    /// One `ADD` operation.
    pub max_add: Option<u64>,
}

/// A tree on disk, removed on drop.
#[derive(Debug)]
pub struct SourceTree {
    dir: TempDir,
    below: PathBuf,
}

impl SourceTree {
    /// The directory that a reader is given. What is next to it is none of its business.
    pub fn source_root(&self) -> PathBuf {
        self.dir.path().join(&self.below)
    }
}

impl Case<BadDelta> {
    /// The delta.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn delta(&self) -> Result<Vec<u8>, Error> {
        self.read(&self.json.inputs.delta.file)
    }

    /// Builds the tree that the delta is applied to.
    ///
    /// # Errors
    /// As [`Case::read`], [`tree::extract`] and [`tree::build`].
    pub fn tree(&self) -> Result<SourceTree, Error> {
        let inputs = &self.json.inputs;
        let dir = match (&inputs.tree_tar, &inputs.tree) {
            (Some(tar), None) => tree::extract(&self.read(tar)?)?,
            (None, Some(entries)) => tree::build(entries)?,
            _ => return Err(Error::data(self.name.as_str(), "needs either tree_tar or tree")),
        };
        let below = inputs.source_root.clone().unwrap_or_default();
        tree::edit(&dir.path().join(&below), &inputs.tree_edits)?;
        Ok(SourceTree { dir, below })
    }

    /// Where the reader must notice.
    pub fn fails_at(&self) -> FailsAt {
        self.json.fails_at
    }

    /// The digest and size that the reader is told to expect, if the case needs it.
    pub fn expected_digest(&self) -> Option<&Fact> {
        self.json.expected_digest.as_ref()
    }

    /// Bounds to give to the reader.
    pub fn limits(&self) -> Limits {
        self.json.limits
    }

    /// What is wrong, in words.
    pub fn expect_error(&self) -> &str {
        &self.json.expect_error
    }
}

/// `case.json` of `tar`: a tar and what Go's archive/tar and GNU tar say about it.
#[derive(Debug, Clone, Deserialize)]
pub struct TarCase {
    /// Tool and version.
    pub made_by: String,
    /// What is special.
    pub note: String,
    /// The tar.
    pub inputs: TarInputs,
    /// Which tool wrote `go.jsonl`.
    pub oracle: String,
    /// Members that Go lists.
    pub members: usize,
    /// What GNU tar says. Where it differs from Go the archive is ambiguous and may be refused.
    pub gnu_tar: GnuTar,
    /// The error that Go ends with; `None` if it lists the archive to its end.
    pub expect_error: Option<String>,
}

/// Inputs of a [`TarCase`].
#[derive(Debug, Clone, Deserialize)]
pub struct TarInputs {
    /// The tar.
    pub tar: FileFact,
}

/// What `tar -t` of GNU tar did.
#[derive(Debug, Clone, Deserialize)]
pub struct GnuTar {
    /// Its version line.
    pub version: String,
    /// Exit status.
    pub rc: i32,
    /// Its messages.
    pub stderr: String,
    /// Members that it listed.
    pub members: usize,
}

/// What Go's archive/tar reported (`go.jsonl`).
#[derive(Debug, Clone)]
pub struct Listing {
    /// The members up to the end or the first error.
    pub members: Vec<GoMember>,
    /// The error that ended it; `None` for the end of the archive.
    pub error: Option<String>,
}

/// One member as Go's archive/tar sees it.
#[derive(Debug, Clone, Deserialize)]
pub struct GoMember {
    name: Option<String>,
    name_hex: Option<String>,
    linkname: Option<String>,
    linkname_hex: Option<String>,
    /// The type flag as one character; `0` for the old NUL.
    #[serde(rename = "type")]
    pub typeflag: char,
    /// Size of the content, expanded if it is sparse.
    pub size: u64,
    /// Permission bits.
    pub mode: i64,
    /// Numeric owner.
    pub uid: i64,
    /// Numeric group.
    pub gid: i64,
    /// Owner's name.
    #[serde(default)]
    pub uname: String,
    /// Seconds since 1970, rounded down; absent for the zero time.
    #[serde(default)]
    pub mtime: i64,
    /// Nanoseconds after that.
    #[serde(default)]
    pub mtime_nsec: u32,
    /// What Go takes the header for: `USTAR`, `PAX`, `GNU`, `<unknown>`.
    pub format: String,
    #[serde(default)]
    pax: BTreeMap<String, String>,
    /// Bytes of content that could be read.
    pub read: u64,
    /// sha256 of them in hexadecimal.
    pub sha256: String,
    /// Why not all of the content could be read.
    pub read_error: Option<String>,
}

impl GoMember {
    /// The member's name.
    pub fn name(&self) -> Vec<u8> {
        text_or_hex(self.name.as_deref(), self.name_hex.as_deref())
    }

    /// The target of a link, else empty.
    pub fn linkname(&self) -> Vec<u8> {
        text_or_hex(self.linkname.as_deref(), self.linkname_hex.as_deref())
    }

    /// The pax records in force for this member.
    pub fn pax(&self) -> BTreeMap<String, Vec<u8>> {
        self.pax
            .iter()
            .map(|(key, value)| match key.strip_suffix("_hex") {
                Some(key) => (key.to_owned(), text_or_hex(None, Some(value))),
                None => (key.clone(), value.clone().into_bytes()),
            })
            .collect()
    }
}

impl GoMember {
    /// The extended attributes among the pax records, in byte order of their names.
    pub fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let records = self.pax().into_iter();
        let named =
            records.filter_map(|(key, value)| Some((key.strip_prefix("SCHILY.xattr.")?.into(), value)));
        named.collect()
    }
}

impl Case<TarCase> {
    /// The tar.
    ///
    /// # Errors
    /// As [`Case::read`].
    pub fn tar(&self) -> Result<Vec<u8>, Error> {
        self.read(&self.json.inputs.tar.file)
    }

    /// What Go's archive/tar reports.
    ///
    /// # Errors
    /// As [`Case::read`], and if a line is not as expected.
    pub fn listing(&self) -> Result<Listing, Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Line {
            Member(Box<GoMember>),
            Error { error: String },
            End { end: bool },
        }
        let path = self.dir.join("go.jsonl");
        let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, error))?;
        let mut members = Vec::new();
        for line in serde_json::Deserializer::from_slice(&bytes).into_iter::<Line>() {
            match line.map_err(|source| Error::Json { path: path.clone(), source })? {
                Line::Member(member) => members.push(*member),
                Line::Error { error } => return Ok(Listing { members, error: Some(error) }),
                Line::End { end: true } => return Ok(Listing { members, error: None }),
                Line::End { end: false } => break,
            }
        }
        // A member whose content cannot be read is the last line.
        match members.last().and_then(|member| member.read_error.clone()) {
            Some(error) => Ok(Listing { members, error: Some(error) }),
            None => Err(Error::data(path.to_string_lossy(), "has no last line")),
        }
    }
}

/// sha256 of `content`, 64 lower-case hexadecimal digits.
pub fn sha256_hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits of either case stand for.
///
/// # Errors
/// Something else than pairs of hexadecimal digits.
pub fn from_hex(text: &str) -> Result<Vec<u8>, Error> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| value as u8);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| Error::data(text, "is not hexadecimal"))
}

/// One of two forms of a byte string. Stored data is ours: what is not hexadecimal stays as it is and fails
/// the comparison that it is for.
fn text_or_hex(text: Option<&str>, hex: Option<&str>) -> Vec<u8> {
    let text = text.unwrap_or_default().as_bytes().to_vec();
    hex.map_or(text, |hex| from_hex(hex).unwrap_or_else(|_| hex.as_bytes().to_vec()))
}

/// Decompresses a whole zstd file.
fn unzstd(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut context = zstd_safe::DCtx::create();
    let mut input = zstd_safe::InBuffer::around(bytes);
    let mut block = vec![0; zstd_safe::DCtx::out_size()];
    let mut out = Vec::new();
    let mut hint = 1;
    loop {
        let mut output = zstd_safe::OutBuffer::around(&mut block[..]);
        let before = input.pos();
        if hint == 0 && before == bytes.len() {
            return Ok(out);
        }
        hint = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| zstd_safe::get_error_name(code).to_owned())?;
        if output.pos() == 0 && input.pos() == before && hint != 0 {
            return Err("ends inside a zstd frame".to_owned());
        }
        out.extend_from_slice(output.as_slice());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_and_hexadecimal() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Fact::of(b""), Fact { sha256: empty.to_owned(), size: 0 });
        assert_eq!(from_hex("00fFa1").unwrap(), [0, 255, 0xa1]);
        assert!(from_hex("0").is_err());
        assert!(from_hex("0g").is_err());
    }

    #[test]
    fn zstd_files_are_decompressed_or_refused() {
        let content = crate::image::text(1, 700_000);
        let mut frame = Vec::with_capacity(zstd_safe::compress_bound(content.len()));
        zstd_safe::compress(&mut frame, &content, 3).unwrap();
        assert!(unzstd(&frame).unwrap() == content);
        assert!(unzstd(&frame.repeat(2)).unwrap() == content.repeat(2));
        assert_eq!(unzstd(&frame[..frame.len() - 1]).unwrap_err(), "ends inside a zstd frame");
        assert!(unzstd(b"not zstd").is_err());
        assert!(unzstd(b"").is_err());
    }

    #[test]
    fn paths_are_bytes() {
        let source = r#"{"path_hex": "64ff", "sha256": "", "size": 0}"#;
        let source: Source = serde_json::from_str(source).unwrap();
        assert_eq!((source.path(), source.clean_path()), (b"d\xff".to_vec(), b"d\xff".to_vec()));
        let source = r#"{"path": "./d//a", "cleaned": "d/a", "sha256": "", "size": 0}"#;
        let source: Source = serde_json::from_str(source).unwrap();
        assert_eq!((source.path(), source.clean_path()), (b"./d//a".to_vec(), b"d/a".to_vec()));
    }
}
