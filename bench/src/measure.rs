//! What one command takes: wall time, CPU time and memory, as GNU time reports them.
//!
//! The figures come from the kernel's accounting for the process that has ended, so nothing is sampled. A shell
//! stands between GNU time and the command only to set the limit of CPU time, and replaces itself by the command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::setup::Programs;

/// What a command took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Seconds of all threads together, in the program and in the kernel.
    pub cpu: f64,
    /// Seconds from start to end.
    pub wall: f64,
    /// The most memory at any moment, in MiB; not known for what was not a process of its own.
    pub memory: Option<f64>,
}

impl Taken {
    /// Of two runs the least time and the most memory.
    pub fn best(self, other: Taken) -> Taken {
        Taken {
            cpu: self.cpu.min(other.cpu),
            wall: self.wall.min(other.wall),
            memory: match (self.memory, other.memory) {
                (Some(a), Some(b)) => Some(a.max(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// With success.
    Done(Taken),
    /// Otherwise; why, in a few words.
    Failed(String),
}

/// The program that measures.
#[derive(Debug)]
pub struct Meter {
    time: PathBuf,
}

/// Wall time, CPU time in the program and in the kernel, memory in KiB.
const FORMAT: &str = "%e %U %S %M";

/// The signal for a used-up limit of CPU time.
const SIGXCPU: u32 = 24;

impl Meter {
    /// Looks for GNU time. Other programs of that name report no memory.
    pub fn find(programs: &Programs) -> Result<Meter> {
        let missing = Error::Missing { program: "GNU time", package: "time" };
        let time = programs.find("time").ok_or(missing)?;
        let version = Command::new(&time).arg("--version").stdin(Stdio::null()).output();
        let gnu = version.is_ok_and(|out| {
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).to_lowercase().contains("gnu")
        });
        if gnu { Ok(Meter { time }) } else { Err(Error::Missing { program: "GNU time", package: "time" }) }
    }

    /// Runs a command in a folder, which is its place for temporary files too.
    pub fn run(&self, folder: &Path, command: &[String], limit: Option<u64>) -> Result<Outcome> {
        let report = folder.join("time.txt");
        let mut child = Command::new(&self.time);
        child.args(["-f", FORMAT, "-o"]).arg(&report);
        if let Some(seconds) = limit {
            child.args(["sh", "-c", "ulimit -S -t \"$0\" && exec \"$@\"", &seconds.to_string()]);
        }
        let output = child
            .args(command)
            .current_dir(folder)
            .env("TMPDIR", folder)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(Error::io("start", &self.time))?;
        let text = fs::read_to_string(&report).map_err(Error::io("read", &report))?;
        let Some(parsed) = parse(&text) else {
            return Ok(Outcome::Failed(format!("GNU time reported {:?}", text.trim())));
        };
        if output.status.success() {
            return Ok(Outcome::Done(parsed.taken));
        }
        let why = match (parsed.signal, limit) {
            (Some(SIGXCPU), Some(seconds)) => format!("stopped after {seconds} s of CPU time"),
            (Some(signal), _) => format!("ended by signal {signal}"),
            (None, _) => last_words(&output.stderr, folder),
        };
        Ok(Outcome::Failed(why))
    }
}

/// What GNU time wrote about a process.
#[derive(Debug, PartialEq)]
struct Report {
    taken: Taken,
    signal: Option<u32>,
}

/// Reads the report of GNU time: the figures, with a line before them if the process did not end well.
fn parse(text: &str) -> Option<Report> {
    let mut lines = text.lines().rev();
    let mut words = lines.next()?.split_ascii_whitespace();
    let mut number = || words.next()?.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let (wall, user, system, kib) = (number()?, number()?, number()?, number()?);
    if words.next().is_some() {
        return None;
    }
    let signal =
        lines.find_map(|line| line.strip_prefix("Command terminated by signal ")?.trim().parse().ok());
    Some(Report { taken: Taken { cpu: user + system, wall, memory: Some(kib / 1024.0) }, signal })
}

/// The last line of what a program said, short and without the path of the folder it worked in.
fn last_words(stderr: &[u8], folder: &Path) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("no message");
    let line = line.replace(&format!("{}/", folder.display()), "");
    line.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(wall: f64, cpu: f64, memory: f64) -> Taken {
        Taken { cpu, wall, memory: Some(memory) }
    }

    #[test]
    fn reports_are_read() {
        let plain = Report { taken: taken(1.49, 1.25, 1.5), signal: None };
        for (text, expected) in [
            ("1.49 1.00 0.25 1536\n", Some(plain)),
            (
                "Command exited with non-zero status 1\n0.01 0.00 0.00 1024\n",
                Some(Report { taken: taken(0.01, 0.0, 1.0), signal: None }),
            ),
            (
                "Command terminated by signal 24\n2.00 1.50 0.50 2048\n",
                Some(Report { taken: taken(2.0, 2.0, 2.0), signal: Some(24) }),
            ),
            ("", None),
            ("1.49 1.00 0.25\n", None),
            ("1.49 1.00 0.25 1536 7\n", None),
            ("1.49 -1.00 0.25 1536\n", None),
            ("1.49 nan 0.25 1536\n", None),
            ("time: cannot run xyz: No such file or directory\n", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn best_is_least_time_and_most_memory() {
        assert_eq!(taken(3.0, 2.0, 10.0).best(taken(4.0, 1.0, 20.0)), taken(3.0, 1.0, 20.0));
    }

    #[test]
    fn last_words_are_short_and_have_no_folder() {
        let say = |text: &str| last_words(text.as_bytes(), Path::new("/tmp/x"));
        assert_eq!(say("one\ncannot open /tmp/x/old.tar\n\n"), "cannot open old.tar");
        assert_eq!(say(" \n"), "no message");
        assert_eq!(say(&"y".repeat(300)).len(), 100);
    }

    #[test]
    fn commands_are_measured_and_limited() {
        // Without GNU time there is nothing to test.
        let Ok(meter) = Meter::find(&Programs::new(None)) else { return };
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str, limit| {
            meter.run(folder.path(), &["sh".into(), "-c".into(), script.into()], limit).unwrap()
        };
        let Outcome::Done(taken) = run("true", None) else { panic!("true has failed") };
        assert!(taken.wall < 10.0 && taken.memory.unwrap() > 0.1, "{taken:?}");
        assert_eq!(run("echo sorry >&2; exit 3", None), Outcome::Failed("sorry".into()));
        assert_eq!(run("kill -9 $$", None), Outcome::Failed("ended by signal 9".into()));
        assert_eq!(
            run("while :; do :; done", Some(1)),
            Outcome::Failed("stopped after 1 s of CPU time".into())
        );
    }
}
