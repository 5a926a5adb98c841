//! `docs/cli/reference.md`: written from the definitions of the command line, so that both are the same.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::args::Cli;

/// Set to 1, it makes the test write the page instead of comparing it.
const UPDATE: &str = "CORACLE_UPDATE_DOCS";

const HEAD: &str = "\
# Command line

<!-- Written by a test in crates/cli/src/reference.rs from the definitions in args.rs: change those, then run
     CORACLE_UPDATE_DOCS=1 cargo test -p coracle reference -->

What `coracle COMMAND --help` says, in one place. What the program answers is in [exit-codes.md](exit-codes.md) and,
for `--json`, in [json.md](json.md). Called as `tar-diff` or `tar-patch` it has [another command line](tar-diff.md).

Sizes are written as `4096`, `64k`, `8M` or `2GiB`: units are powers of 1024. `-h` shows a short form of the help,
`--help` all of it. Options may stand anywhere; `--` ends them.
";

fn page() -> String {
    let mut command = Cli::command();
    command.build();
    let mut out = HEAD.to_owned();
    write_all(&mut out, &command);
    out
}

/// A command, then those below it.
fn write_all(out: &mut String, command: &Command) {
    write_command(out, command);
    for below in command.get_subcommands() {
        write_all(out, below);
    }
}

fn write_command(out: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim().strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
    let _ = write!(out, "\n## {name}\n\n```\n{usage}\n```\n\n{}\n", about.trim_end());
    let commands: Vec<&Command> = command.get_subcommands().collect();
    if !commands.is_empty() {
        out.push_str("\n| command | |\n|---|---|\n");
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let link = command.get_bin_name().unwrap_or_default().replace(' ', "-");
            let _ = writeln!(out, "| [`{}`](#{link}) | {} |", command.get_name(), cell(&about));
        }
    }
    let arguments: Vec<&Arg> = command.get_positionals().collect();
    if !arguments.is_empty() {
        out.push_str("\n| argument | meaning |\n|---|---|\n");
        for argument in arguments {
            let names = argument.get_value_names().unwrap_or_default().iter().map(|name| format!("`{name}`"));
            let names = names.collect::<Vec<_>>().join(" ");
            let _ = writeln!(out, "| {names} | {} |", meaning(argument));
        }
    }
    out.push_str("\n| option | default | meaning |\n|---|---|---|\n");
    let shown = command.get_arguments().filter(|arg| !arg.is_positional() && !arg.is_hide_set());
    for option in shown {
        let default = match option.get_default_values() {
            [] => String::new(),
            _ if !option.get_action().takes_values() => String::new(),
            values => {
                values.iter().map(|v| format!("`{}`", v.to_string_lossy())).collect::<Vec<_>>().join(", ")
            }
        };
        let _ = writeln!(out, "| {} | {default} | {} |", spelling(option), meaning(option));
    }
}

/// `-q`, `--quiet` or `--memory SIZE`.
fn spelling(option: &Arg) -> String {
    let short = option.get_short().map(|c| format!("`-{c}`"));
    let long = option.get_long().map(|long| {
        let takes_value = matches!(option.get_action(), ArgAction::Set | ArgAction::Append);
        let names = option.get_value_names().filter(|_| takes_value).unwrap_or_default();
        let value: String = names.iter().map(|name| format!(" {name}")).collect();
        format!("`--{long}{value}`")
    });
    [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut out = cell(&help);
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|value| arg.get_action().takes_values() && !value.is_hide_set())
        .map(|value| match value.get_help() {
            Some(help) => format!("`{}`: {}", value.get_name(), cell(&help.to_string())),
            None => format!("`{}`", value.get_name()),
        })
        .collect();
    for value in values {
        let _ = write!(out, "<br>{value}");
    }
    out
}

/// Text as it can stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli/reference.md");
    let page = page();
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/cli/reference.md is out of date: run {UPDATE}=1 cargo test -p coracle reference, and commit it"
    );
}

/// Nothing is left without a word.
#[test]
fn everything_has_help() {
    let mut command = Cli::command();
    command.build();
    for command in command.get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
    }
}
