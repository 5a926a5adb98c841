//! Which tools and configurations can be run on this machine.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

use crate::args;
use crate::error::{Error, Result};
use crate::tools::{self, Tool};

/// One tool in one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The tool, as in the results.
    pub tool: String,
    /// The configuration, as in the results.
    pub config: String,
    /// The version that is installed, if it tells.
    pub version: String,
    /// How to run it, or why that cannot be done.
    pub commands: std::result::Result<Commands, String>,
}

/// How a tool is run. Words in braces are still to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    /// Makes `delta`.
    pub create: Vec<String>,
    /// Makes `out.tar`.
    pub apply: Vec<String>,
    /// Whether `tree` must be there.
    pub reads_tree: bool,
    /// The largest old tar in bytes for which it is worth the time.
    pub largest_old: Option<u64>,
}

/// The folders that programs are looked for in.
#[derive(Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// The folders of `first`, with colons between them, then those of PATH.
    pub fn new(first: Option<&OsStr>) -> Programs {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = first.into_iter().flat_map(env::split_paths).chain(env::split_paths(&path));
        // Tools run in a folder of their own, where a relative path would lead nowhere.
        Programs { folders: folders.filter_map(|folder| absolute(folder).ok()).collect() }
    }

    /// The first program of that name.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|file| is_program(file))
    }
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// All that was asked for, Coracle first. What cannot be run is there too, and says why.
pub fn all(args: &args::Run, programs: &Programs) -> Result<Vec<Setup>> {
    let python = args.python.clone().or_else(|| programs.find("python3"));
    let mut setups = coracle(args, programs)?;
    for tool in tools::PEERS {
        let program = |name: &str| match (name, &python) {
            ("python3", Some(python)) => absolute(python).ok(),
            _ => programs.find(name),
        };
        let found = probe(tool, program(tool.create), program(tool.apply));
        // Of two ways to have the same tool, the first that is there.
        let same = |setup: &Setup| setup.tool == tool.name;
        if setups.iter().any(|s| same(s) && s.commands.is_ok()) {
            continue;
        }
        if found.iter().any(|s| s.commands.is_ok()) {
            setups.retain(|s| !same(s));
        } else if setups.iter().any(same) {
            continue;
        }
        setups.extend(found);
    }
    let selected: Vec<Setup> = setups
        .iter()
        .filter(|s| args.tools.is_empty() || args.tools.iter().any(|w| selects(w, &s.tool, &s.config)))
        .cloned()
        .collect();
    let nothing = |word: &&String| !setups.iter().any(|s| selects(word, &s.tool, &s.config));
    match args.tools.iter().find(nothing) {
        Some(word) => Err(Error::Tool(word.clone())),
        None => Ok(selected),
    }
}

/// Whether TOOL or TOOL/CONFIG means this one.
pub fn selects(word: &str, tool: &str, config: &str) -> bool {
    match word.split_once('/') {
        Some((t, c)) => t == tool && c == config,
        None => word == tool,
    }
}

fn coracle(args: &args::Run, programs: &Programs) -> Result<Vec<Setup>> {
    let built = || Some(PathBuf::from("target/release/coracle")).filter(|file| is_program(file));
    let program = match &args.coracle {
        Some(given) if !is_program(given) => {
            return Err(Error::Io {
                what: "run",
                path: given.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        Some(given) => Some(given.clone()),
        None => built().or_else(|| programs.find("coracle")),
    };
    let program = program.and_then(|p| absolute(p).ok());
    let mut setups = probe(&tools::CORACLE, program.clone(), program.clone());
    let Some(program) = program else { return Ok(setups) };
    let version = setups.first().map(|s| s.version.clone()).unwrap_or_default();
    for (name, options) in &args.config {
        let words = ["diff", "--quiet"].into_iter().chain(options.split_ascii_whitespace());
        let create: Vec<&str> = words.chain(["old.tar", "new.tar", "delta"]).collect();
        let commands = commands(&tools::CORACLE, (&program, &create), (&program, tools::CORACLE_APPLY));
        setups.retain(|s| s.config != *name);
        setups.push(Setup {
            tool: tools::CORACLE.name.to_owned(),
            config: name.clone(),
            version: version.clone(),
            commands: Ok(commands),
        });
    }
    Ok(setups)
}

/// The configurations of a tool. Those that only show a range are left out where the program has none.
fn probe(tool: &Tool, create: Option<PathBuf>, apply: Option<PathBuf>) -> Vec<Setup> {
    let version = create.as_deref().and_then(|program| version(tool, program));
    let found = match (create, apply, &version) {
        (Some(create), Some(apply), Some(_)) => Ok((create, apply)),
        (Some(_), Some(_), None) => Err(format!("not usable here; comes from {}", tool.origin)),
        _ => Err(format!("not found; comes from {}", tool.origin)),
    };
    let options = found.as_ref().map(|(create, _)| said(create, tool.help)).unwrap_or_default();
    let offers = |needs: Option<&str>| needs.is_none_or(|option| options.contains(option));
    let mut setups = Vec::new();
    for config in tool.configs {
        let there = offers(config.needs);
        if !there && config.name.contains("effort") {
            continue;
        }
        let ways = match &found {
            Ok((create, apply)) if there => {
                Ok(commands(tool, (create, config.create), (apply, config.apply)))
            }
            Ok(_) => Err(format!("this version has no {}", config.needs.unwrap_or_default())),
            Err(why) => Err(why.clone()),
        };
        setups.push(Setup {
            tool: tool.name.to_owned(),
            config: config.name.to_owned(),
            version: version.clone().unwrap_or_default(),
            commands: ways,
        });
    }
    setups
}

fn commands(tool: &Tool, create: (&Path, &[&str]), apply: (&Path, &[&str])) -> Commands {
    let words = |(program, arguments): (&Path, &[&str])| {
        let program = program.to_string_lossy().into_owned();
        std::iter::once(program).chain(arguments.iter().map(|&a| a.to_owned())).collect()
    };
    Commands {
        create: words(create),
        apply: words(apply),
        reads_tree: tool.reads_tree,
        largest_old: tool.largest_old,
    }
}

/// The version of a tool; nothing if it cannot be run, and an empty text if it does not tell.
fn version(tool: &Tool, program: &Path) -> Option<String> {
    let (first, rest) = tool.version.split_first()?;
    if *first != "{create}" {
        // What somebody else says about it may be missing.
        return Some(version_in(&said(Path::new(first), rest)).unwrap_or_default());
    }
    version_in(&said(program, rest))
}

/// All that a program writes.
fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").stdin(Stdio::null()).output();
    output.map(|o| String::from_utf8_lossy(&[o.stdout, o.stderr].concat()).into_owned()).unwrap_or_default()
}

/// The first word that looks like a version: digits, perhaps a `v` before, and a dot.
fn version_in(text: &str) -> Option<String> {
    let words = text.split_ascii_whitespace().map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()));
    let numbers = words.map(|word| word.strip_prefix('v').unwrap_or(word));
    let looks = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    numbers.into_iter().find(looks).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found() {
        for (text, version) in [
            ("tar-diff v0.1.2\n", Some("0.1.2")),
            ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", Some("1.5.4")),
            ("Xdelta version 3.0.11, Copyright (C) 2007, 2008", Some("3.0.11")),
            ("HDiffPatch::hdiffz v4.6.10\n", Some("4.6.10")),
            ("4.3-23", Some("4.3-23")),
            ("coracle 0.1.0\n", Some("0.1.0")),
            ("ModuleNotFoundError: No module named 'hdiffpatch'", None),
            ("", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version, "{text:?}");
        }
    }

    #[test]
    fn words_select_tools() {
        assert!(selects("zstd", "zstd", "patch-from-3"));
        assert!(selects("zstd/patch-from-3", "zstd", "patch-from-3"));
        assert!(!selects("zstd/patch-from-9", "zstd", "patch-from-3"));
        assert!(!selects("zst", "zstd", "patch-from-3"));
        assert!(!selects("tar-diff/zstd", "zstd", "zstd"));
    }

    #[test]
    fn programs_are_files_that_may_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let programs = Programs::new(Some(folder.path().as_os_str()));
        assert_eq!(programs.find("tool"), None);
        assert_eq!(programs.find("folder"), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(programs.find("tool"), Some(file));
    }

    #[test]
    fn what_is_not_there_says_so() {
        let setups = probe(&tools::PEERS[0], None, None);
        assert_eq!(setups.len(), 2);
        assert_eq!(setups[0].commands.as_ref().unwrap_err().split(';').next(), Some("not found"));
        // No rows for a range that nobody offers.
        let ours = probe(&tools::CORACLE, None, None);
        assert_eq!(ours.iter().map(|s| s.config.as_str()).collect::<Vec<_>>(), ["v1", "v2", "native"]);
    }
}
