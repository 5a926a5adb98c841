//! What is made from the definitions of the command line: completions for shells, and manual pages.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use coracle_engine::Error;

use crate::args::{Cli, Completions, ManPages};
use crate::failure::Failure;

/// Prints the completions for a shell.
pub fn completions(args: &Completions) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "coracle", &mut text);
    // Whoever pipes it into `head` has what they want.
    match io::Write::write_all(&mut io::stdout(), &text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::Write { path: "standard output".into(), error }.into())
        }
        _ => Ok(()),
    }
}

/// Writes the manual pages.
pub fn pages(args: &ManPages) -> Result<(), Failure> {
    let fail = |error| Failure::from(Error::Write { path: args.dir.clone(), error });
    fs::create_dir_all(&args.dir).map_err(fail)?;
    let mut command = Cli::command();
    command.build();
    write_all(&command, "coracle", &args.dir).map_err(fail)
}

/// The page of a command, `coracle-store-gc.1`, then those of the commands below it.
fn write_all(command: &Command, name: &str, dir: &Path) -> io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).title(name).section("1").render(&mut text)?;
    fs::write(dir.join(format!("{name}.1")), text)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_all(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(())
}
