//! A registry in memory for `make demo`, which does what standard input says.
//!
//! Prints its host when it is up. Then each line is a command, and each is answered with one line:
//!
//! - `spoil TEXT`: from now on one bit is wrong in each blob whose path contains TEXT
//! - `heal`: no more
//! - `count`: requests and bytes sent since the last `count`
//!
//! Ends when standard input does.
#![allow(clippy::print_stdout, reason = "answers are its output")]

use std::io::{self, BufRead, Write};

use coracle_testkit::http::Fault;
use coracle_testkit::registry::{Behaviour, start};

fn main() -> io::Result<()> {
    let (_double, server) = start(Behaviour::default())?;
    let say = |line: String| {
        println!("{line}");
        io::stdout().flush()
    };
    say(server.host())?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let faults = server.faults();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("spoil", part) if !part.is_empty() => {
                faults.add("GET", part, Fault::Flip, usize::MAX);
                say("ok".into())?;
            }
            ("heal", _) => {
                faults.clear();
                say("ok".into())?;
            }
            ("count", _) => {
                say(format!("{} {}", faults.requests().len(), faults.sent()))?;
                faults.forget();
            }
            _ => say(format!("unknown: {line}"))?,
        }
    }
    Ok(())
}
