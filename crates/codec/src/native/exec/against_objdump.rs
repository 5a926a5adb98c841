//! Lengths of instructions, compared with those that objdump finds in programs of this machine.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::elf::Layout;
use super::{Machine, x86_64};

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    instructions: u64,
    /// Instructions with another length.
    different: Vec<String>,
    /// Lines that are no instruction by themselves, data, and instructions that the format does not know.
    left_out: u64,
}

/// Words at the start of a line that show a prefix by itself, or no instruction at all.
const APART: [&str; 14] =
    ["(bad)", ".byte", "rex", "data16", "addr32", "cs", "ds", "es", "fs", "gs", "ss", "lock", "rep", "fwait"];

/// Whether a line stands for less than an instruction.
fn stands_apart(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap_or("");
    let word = first.split('.').next().unwrap_or("");
    let alone = words.next().is_none();
    text.contains("(bad)")
        || matches!(first, ".byte" | "fwait")
        || alone && (APART.contains(&word) || matches!(word, "repz" | "repnz" | "bnd" | "notrack"))
}

/// Whether an instruction is one that the format does not know: with the XOP prefix of some AMD processors, which it
/// takes for POP, those of VIA's PadLock, and WAIT with prefixes behind it, which objdump joins to what follows.
fn is_unknown(code: &[u8]) -> bool {
    let code = if code.first() == Some(&0xf3) { &code[1..] } else { code };
    matches!(code, [0x8f, second, ..] if second & 31 >= 8)
        || matches!(code, [0x0f, 0xa6 | 0xa7, ..] | [0x9b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67, ..])
}

/// Compares the executable sections of a file; none if objdump is missing or this is no program.
fn compare(path: &Path, tally: &mut Tally) {
    let Ok(file) = std::fs::read(path) else { return };
    if Machine::of(&file) != Some(Machine::X86_64) {
        return;
    }
    let layout = Layout::read(&file, file.len() as u64, Machine::X86_64);
    let mut command = Command::new("objdump");
    command.args(["-d", "-w", "--no-show-raw-insn"]).arg(path).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return };
    let Some(out) = child.stdout.take() else { return };
    let mut before: Option<(u64, String)> = None;
    let mut in_data = false;
    for line in BufReader::with_capacity(1 << 20, out).split(b'\n') {
        let line = String::from_utf8_lossy(&line.unwrap_or_default()).into_owned();
        let parsed = line.split_once(":\t").and_then(|(address, text)| {
            let address = u64::from_str_radix(address.trim(), 16).ok()?;
            Some((address, text.to_owned()))
        });
        // Sections end where something else is printed.
        if let (Some((start, text)), Some((end, _))) = (&before, &parsed)
            && let Some(place) = layout.place(*start)
        {
            // Data between functions is shown as text, sixteen bytes a line.
            in_data |= end - start == 16 || !text.contains(' ') && text.contains('.');
            if in_data || stands_apart(text) || is_unknown(&file[place as usize..]) {
                tally.left_out += 1;
            } else {
                let found = x86_64::instruction(&file[place as usize..]).map_or(0, |i| i.len as u64);
                tally.instructions += 1;
                if found != end - start && tally.different.len() < 100 {
                    let bytes = &file[place as usize..][..(end - start).min(16) as usize];
                    tally
                        .different
                        .push(format!("{}: {start:x} {text}: {found}, {bytes:02x?}", path.display()));
                }
            }
        }
        in_data &= parsed.is_some();
        before = parsed;
    }
    let _ = child.wait();
}

#[test]
fn own_instructions_have_the_lengths_that_objdump_finds() {
    let mut tally = Tally::default();
    for path in ["/bin/sh", "/usr/bin/env", "/bin/tar"] {
        compare(Path::new(path), &mut tally);
    }
    assert!(tally.different.is_empty(), "{tally:#?}");
    assert!(tally.left_out * 200 <= tally.instructions, "{tally:?}");
}

/// All programs and libraries that are found, the largest first, until there are enough.
#[test]
#[ignore = "takes minutes"]
fn many_instructions_have_the_lengths_that_objdump_finds() {
    const ENOUGH: u64 = 52_000_000;
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    let sysroot = sysroot.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default();
    let mut files = Vec::new();
    let mut folders =
        vec![PathBuf::from("/usr/bin"), PathBuf::from("/usr/lib"), PathBuf::from(sysroot).join("lib")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    files.push((entry.metadata().map_or(0, |m| m.len()), entry.path()))
                }
                _ => {}
            }
        }
    }
    files.sort();
    let mut tally = Tally::default();
    for (_, path) in files.iter().rev() {
        compare(path, &mut tally);
        assert!(tally.different.is_empty(), "{tally:#?}");
        if tally.instructions >= ENOUGH {
            break;
        }
    }
    assert!(tally.instructions >= 1_000_000, "{tally:?}");
    assert!(tally.left_out * 50 <= tally.instructions, "{tally:?}");
}
