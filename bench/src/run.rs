//! Takes pairs through tools and writes down what it cost.

use crate::args;
use crate::error::Result;
use crate::hash;
use crate::measure::{Meter, Outcome, Taken};
use crate::pair::{self, Pair, Workplace};
use crate::print;
use crate::results::{Results, Row};
use crate::setup::{self, Commands, Programs, Setup};
use crate::{date, table};

/// Runs all that was asked for. The results are written after each row, so that little is lost if it is interrupted.
pub fn run(args: &args::Run) -> Result<()> {
    let programs = Programs::new(args.peer_path.as_deref());
    let meter = Meter::find(&programs)?;
    let names = pair::names(&args.corpus, &args.pairs)?;
    let setups = setup::all(args, &programs)?;
    let temp = args.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut results = Results::read(&args.out)?;
    for name in &names {
        print::progress(&format!("{name}: preparing"));
        let (mut place, pair) = Workplace::open(&args.corpus, name, &temp)?;
        for setup in &setups {
            let row = measured(args, &meter, &mut place, &pair, setup)?;
            print::progress(&summary(&row));
            results.put(row);
            results.write(&args.out)?;
        }
    }
    Ok(())
}

/// The row for one pair and one tool.
fn measured(
    args: &args::Run,
    meter: &Meter,
    place: &mut Workplace,
    pair: &Pair,
    setup: &Setup,
) -> Result<Row> {
    let mut row = Row {
        date: date::today(),
        pair: pair.name.clone(),
        old_bytes: Some(pair.old_bytes),
        new_bytes: Some(pair.new_bytes),
        gzip_bytes: Some(pair.gzip_bytes),
        tool: setup.tool.clone(),
        version: setup.version.clone(),
        config: setup.config.clone(),
        ..Row::default()
    };
    let why = match &setup.commands {
        Err(why) => {
            row.not_tried = true;
            Some(why.clone())
        }
        Ok(commands) => match commands.largest_old.filter(|&most| pair.old_bytes > most) {
            Some(most) => {
                row.not_tried = true;
                Some(format!("left out: the old tar is larger than {}", table::size(most)))
            }
            None => {
                if commands.reads_tree {
                    place.extract()?;
                }
                try_runs(args, meter, place, pair, commands, &mut row)?
            }
        },
    };
    row.note = note(&args.note, &setup.tool, why.as_deref());
    Ok(row)
}

/// Runs a tool as often as asked for and fills the figures in. Gives back why it did not work.
fn try_runs(
    args: &args::Run,
    meter: &Meter,
    place: &Workplace,
    pair: &Pair,
    commands: &Commands,
    row: &mut Row,
) -> Result<Option<String>> {
    let better = |old: Option<Taken>, new: Taken| Some(old.map_or(new, |old| old.best(new)));
    for _ in 0..args.runs {
        place.clear(&["delta", "out.tar"]);
        match meter.run(place.path(), &pair.fill(&commands.create), args.limit)? {
            Outcome::Done(taken) => row.create = better(row.create, taken),
            Outcome::Failed(why) => return Ok(Some(format!("create: {why}"))),
        }
        row.delta_bytes = Some(pair::size(&place.file("delta"))?);
        match meter.run(place.path(), &pair.fill(&commands.apply), args.limit)? {
            Outcome::Done(taken) => row.apply = better(row.apply, taken),
            Outcome::Failed(why) => {
                row.verified = Some(false);
                return Ok(Some(format!("apply: {why}")));
            }
        }
        let same = hash::digest(&place.file("out.tar"))? == pair.digest;
        row.verified = Some(row.verified.unwrap_or(true) && same);
    }
    place.clear(&["delta", "out.tar"]);
    Ok(None)
}

/// What the column `note` says: about all rows, about this tool, and why there are no figures.
fn note(given: &[String], tool: &str, why: Option<&str>) -> String {
    let about = given.iter().filter_map(|note| match note.split_once('=') {
        Some((name, text)) if name == tool => Some(text),
        Some((name, _)) if is_name(name) => None,
        _ => Some(note.as_str()),
    });
    why.into_iter().chain(about).collect::<Vec<_>>().join("; ")
}

/// Whether what stands before `=` in a note can be a tool: then the note is not for the others.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

fn summary(row: &Row) -> String {
    let name = format!("{}: {} {}", row.pair, row.tool, row.config);
    let (Some(bytes), Some(percent), Some(create)) = (row.delta_bytes, row.percent(), row.create) else {
        return format!("{name}: {}", row.note);
    };
    let apply = row.apply.map_or_else(|| "-".to_owned(), |taken| format!("{:.2}", taken.cpu));
    let judgement = if row.verified == Some(true) { "verified" } else { "NOT VERIFIED" };
    format!(
        "{name}: {bytes} bytes, {percent:.2} % of gzip, CPU {:.2} s to create, {apply} s to apply, {judgement}",
        create.cpu
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_go_to_the_tools_they_are_about() {
        let given = ["loaded machine".to_owned(), "tar-diff=with Go 1.19".to_owned(), "load = 2".to_owned()];
        assert_eq!(note(&given, "zstd", None), "loaded machine; load = 2");
        assert_eq!(
            note(&given, "tar-diff", Some("create: x")),
            "create: x; loaded machine; with Go 1.19; load = 2"
        );
        assert_eq!(note(&[], "zstd", None), "");
    }

    #[test]
    fn a_pair_goes_through_a_tool() {
        // Without GNU time there is nothing to test.
        let Ok(meter) = Meter::find(&Programs::new(None)) else { return };
        let corpus = tempfile::tempdir().unwrap();
        let folder = corpus.path().join("p");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("old.tar"), "old").unwrap();
        std::fs::write(folder.join("new.tar"), "new").unwrap();
        let (mut place, pair) = Workplace::open(corpus.path(), "p", corpus.path()).unwrap();
        let shell = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let setup = |create: &str, apply: &str, largest_old| Setup {
            tool: "t".into(),
            config: "c".into(),
            version: "1".into(),
            commands: Ok(Commands {
                create: shell(create),
                apply: shell(apply),
                reads_tree: false,
                largest_old,
            }),
        };
        let cli = <args::Cli as clap::Parser>::parse_from(["coracle-bench", "run", "--runs=2"]);
        let args::Command::Run(args) = cli.command else { panic!("another command") };
        let mut go = |setup: &Setup| measured(&args, &meter, &mut place, &pair, setup).unwrap();

        let good = go(&setup("cat new.tar >delta", "cat delta >out.tar", None));
        assert_eq!((good.delta_bytes, good.verified, good.note.as_str()), (Some(3), Some(true), ""));
        let wrong = go(&setup("echo >delta", "cat old.tar >out.tar", None));
        assert_eq!((wrong.delta_bytes, wrong.verified), (Some(1), Some(false)));
        let bad = go(&setup("echo no >&2; exit 1", "", None));
        assert_eq!((bad.delta_bytes, bad.verified, bad.note.as_str()), (None, None, "create: no"));
        let half = go(&setup("echo >delta", "echo no >&2; exit 1", None));
        assert_eq!((half.verified, half.note.as_str()), (Some(false), "apply: no"));
        let large = go(&setup("", "", Some(2)));
        assert!(large.not_tried && large.note.starts_with("left out"));
    }
}
