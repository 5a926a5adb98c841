//! The command lines of upstream's `tar-diff` and `tar-patch`: single-dash long options as Go's package `flag` reads
//! them, upstream's defaults and exit codes (`docs/formats/tar-diff.md` specifies the format, `docs/cli/tar-diff.md`
//! these commands).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coracle_codec::delta::Effort;
use coracle_codec::tardiff::{Limits, MAX_DICTIONARY, Method, Options, Version};
use coracle_codec::{compress, native};
use coracle_engine::{Context, diff, patch};

use crate::commands::diff::all_cores;
use crate::commands::say;
use crate::failure::Failure;
use crate::progress::Watch;

const DIFF_USAGE: &str = "\
Usage: tar-diff [OPTION]... OLD-TAR [OLD-TAR]... NEW-TAR RESULT
  -apply-whiteouts
        honour whiteouts in old archives
  -binary-diff METHOD
        bsdiff, zstd or auto (default bsdiff)
  -compression-level LEVEL
        zstd level of the delta (default 3)
  -ignore-source-prefix PATH
        use no old files below this path (may be repeated)
  -max-bsdiff-size MIB
        larger files are matched by rolling hash; 0: no limit (default 192)
  -max-zstd-diff-size MIB
        larger files get no zstd patch; 0: the format's limit (default 128)
  -source-prefix PATH
        use only old files below this path (may be repeated)
  -tmp-dir DIR
        directory for temporary files (default /var/tmp)
  -version
        show the version
  -zstd-diff-level LEVEL
        zstd level of patches; -1: compression-level (default -1)
  -zstd-diff-window MIB
        window of patches, a power of two up to 512; 0: fits the file (default 0)
";

const PATCH_USAGE: &str = "\
Usage: tar-patch [OPTION]... DELTA DIRECTORY OUT
  -version
        show the version
";

/// What went wrong, as far as upstream tells by exit code.
enum Stop {
    /// Told on standard error with the usage: 1, or 2 for unknown options.
    Usage(u8, String),
    /// `-h`.
    Help,
    /// `-version`.
    Version,
    Failed(Failure),
}

/// Runs as `tar-diff`.
pub fn tar_diff(args: &[OsString]) -> ExitCode {
    let result = parse_diff(args).and_then(|request| {
        let temp_dir = request.1;
        watched(temp_dir, |context| diff::run(&request.0, context).map(drop))
    });
    finish("tar-diff", DIFF_USAGE, result)
}

/// Runs as `tar-patch`.
pub fn tar_patch(args: &[OsString]) -> ExitCode {
    let result = parse_patch(args)
        .and_then(|request| watched("/var/tmp".into(), |context| patch::run(&request, context).map(drop)));
    finish("tar-patch", PATCH_USAGE, result)
}

fn watched(
    temp_dir: PathBuf,
    work: impl FnOnce(&Context<'_>) -> Result<(), coracle_engine::Error>,
) -> Result<(), Stop> {
    let watch = Watch::new(true);
    let result = work(&Context { observer: &watch, temp_dir });
    result.map_err(|e| Stop::Failed(Failure::from(e).interrupted_by(watch.signal())))
}

fn finish(name: &str, usage: &str, result: Result<(), Stop>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Help) => {
            say(usage, true);
            ExitCode::SUCCESS
        }
        Err(Stop::Version) => {
            say(&format!("{name} v{}", env!("CARGO_PKG_VERSION")), false);
            ExitCode::SUCCESS
        }
        Err(Stop::Usage(code, message)) => {
            if !message.is_empty() {
                say(&message, true);
            }
            say(usage, true);
            ExitCode::from(code)
        }
        Err(Stop::Failed(failure)) => {
            say(&format!("{name}: Error: {}", failure.message()), true);
            ExitCode::from(failure.interruption().unwrap_or(1))
        }
    }
}

/// One option and its value; positionals end the options, as in Go.
fn next_flag<'a>(args: &mut &'a [OsString]) -> Option<(&'a [u8], Option<&'a OsStr>)> {
    let first = args.first()?.as_bytes();
    let body = match first {
        b"-" => return None,
        b"--" => {
            *args = &args[1..];
            return None;
        }
        [b'-', b'-', body @ ..] | [b'-', body @ ..] => body,
        _ => return None,
    };
    *args = &args[1..];
    match body.iter().position(|&b| b == b'=') {
        Some(i) => Some((&body[..i], Some(OsStr::from_bytes(&body[i + 1..])))),
        None => Some((body, None)),
    }
}

fn value<'a>(name: &[u8], given: Option<&'a OsStr>, args: &mut &'a [OsString]) -> Result<&'a OsStr, Stop> {
    given
        .or_else(|| {
            let (first, rest) = args.split_first()?;
            *args = rest;
            Some(first)
        })
        .ok_or_else(|| Stop::Usage(2, format!("flag needs an argument: -{}", name.escape_ascii())))
}

fn number(name: &[u8], text: &OsStr) -> Result<i64, Stop> {
    text.to_str().and_then(|t| t.parse().ok()).ok_or_else(|| {
        Stop::Usage(2, format!("invalid value {text:?} for flag -{}: parse error", name.escape_ascii()))
    })
}

fn switch(name: &[u8], given: Option<&OsStr>) -> Result<bool, Stop> {
    match given.map(OsStr::as_bytes) {
        None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => Ok(false),
        _ => Err(Stop::Usage(2, format!("invalid boolean value for -{}", name.escape_ascii()))),
    }
}

fn unknown(name: &[u8]) -> Stop {
    match name {
        b"h" | b"help" => Stop::Help,
        _ => Stop::Usage(2, format!("flag provided but not defined: -{}", name.escape_ascii())),
    }
}

fn parse_diff(mut args: &[OsString]) -> Result<(diff::Request, PathBuf), Stop> {
    let (mut level, mut patch_level, mut window_mib) = (3, -1, 0);
    let (mut max_bsdiff, mut max_zstd) = (192, 128);
    let mut temp_dir = PathBuf::from("/var/tmp");
    let mut options = Options { threads: all_cores(), ..Options::default() };
    let mut version = false;
    while let Some((name, given)) = next_flag(&mut args) {
        match name {
            b"version" => version = switch(name, given)?,
            b"apply-whiteouts" => options.apply_whiteouts = switch(name, given)?,
            b"compression-level" => level = number(name, value(name, given, &mut args)?)?,
            b"max-bsdiff-size" => max_bsdiff = number(name, value(name, given, &mut args)?)?,
            b"max-zstd-diff-size" => max_zstd = number(name, value(name, given, &mut args)?)?,
            b"zstd-diff-level" => patch_level = number(name, value(name, given, &mut args)?)?,
            b"zstd-diff-window" => window_mib = number(name, value(name, given, &mut args)?)?,
            b"tmp-dir" => temp_dir = value(name, given, &mut args)?.into(),
            b"source-prefix" => {
                options.source_prefixes.push(value(name, given, &mut args)?.as_bytes().to_vec());
            }
            b"ignore-source-prefix" => {
                options.ignore_prefixes.push(value(name, given, &mut args)?.as_bytes().to_vec());
            }
            b"binary-diff" => {
                options.method = match value(name, given, &mut args)?.as_bytes() {
                    b"bsdiff" => Method::Bsdiff,
                    b"zstd" => Method::Zstd,
                    b"auto" => Method::ZstdThenBsdiff,
                    other => {
                        let other = other.escape_ascii();
                        return Err(Stop::Usage(1, format!("unknown binary diff method \"{other}\"")));
                    }
                };
            }
            _ => return Err(unknown(name)),
        }
    }
    if version {
        return Err(Stop::Version);
    }
    let [old @ .., new, delta] = args else { return Err(Stop::Usage(1, String::new())) };
    if old.is_empty() {
        return Err(Stop::Usage(1, String::new()));
    }
    // Like upstream, the format follows from the method, not from what comes out.
    options.version = if options.method == Method::Bsdiff { Version::V1 } else { Version::V2 };
    options.max_suffix_size = mib(max_bsdiff, u64::MAX);
    options.max_patch_size = mib(max_zstd, MAX_DICTIONARY).min(MAX_DICTIONARY);
    options.patch_window_log = window(window_mib)?;
    options.effort = effort(level);
    options.stream = Options::at(options.effort).stream;
    options.patch_level =
        Options::at(effort(if patch_level == -1 { level } else { patch_level })).patch_level;
    let request = diff::Request {
        old: old.iter().map(|p| file(p)).collect(),
        new: file(new),
        delta: file(delta),
        options,
        limits: compress::Limits::default(),
        verify: true,
    };
    Ok((request, temp_dir))
}

fn parse_patch(mut args: &[OsString]) -> Result<patch::Request, Stop> {
    let mut version = false;
    while let Some((name, given)) = next_flag(&mut args) {
        match name {
            b"version" => version = switch(name, given)?,
            _ => return Err(unknown(name)),
        }
    }
    if version {
        return Err(Stop::Version);
    }
    let [delta, directory, out] = args else { return Err(Stop::Usage(1, String::new())) };
    Ok(patch::Request {
        delta: file(delta),
        source: vec![file(directory)],
        // The one place where upstream knows `-`.
        out: out.into(),
        expect: None,
        limits: Limits::default(),
        native_limits: native::Limits::default(),
        archive_limits: compress::Limits::default(),
        threads: all_cores(),
    })
}

/// A file name, also if it is `-`.
fn file(path: &OsStr) -> PathBuf {
    if path == "-" { Path::new("./-").into() } else { path.into() }
}

/// A size in MiB; 0 and less mean `unlimited`.
fn mib(n: i64, unlimited: u64) -> u64 {
    u64::try_from(n).ok().filter(|&n| n > 0).map_or(unlimited, |n| n.saturating_mul(1 << 20))
}

fn window(mib: i64) -> Result<Option<u32>, Stop> {
    match u64::try_from(mib) {
        Ok(0) => Ok(None),
        Ok(n) if n.is_power_of_two() && n <= 512 => Ok(Some(20 + n.ilog2())),
        _ => Err(Stop::Usage(1, "zstd-diff-window must be a power of two up to 512".into())),
    }
}

/// Upstream's encoder knows four speeds; each stands for the effort that spends no more time in all and gives less.
fn effort(level: i64) -> Effort {
    let number = match level {
        ..3 => 4,
        3..6 => 5,
        6..10 => 7,
        _ => 9,
    };
    Effort::new(number).unwrap_or_default()
}
