//! The results as a Markdown table.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::choice::{Group, label};
use crate::measure::Taken;
use crate::results::Results;

/// The line before the table in a page.
pub const BEGIN: &str = "<!-- bench:begin -->";
/// The line after it.
pub const END: &str = "<!-- bench:end -->";

/// The table, and below it what one must know to read it.
pub fn markdown(results: &Results, groups: &[Group]) -> String {
    let mut text = String::from(
        "| pair | tool | delta | of gzip | create: CPU | memory | apply: CPU | memory |\n\
         |---|---|--:|--:|--:|--:|--:|--:|\n",
    );
    for group in groups {
        for (i, row) in group.good.iter().enumerate() {
            let pair = if i == 0 { escaped(group.pair) } else { String::new() };
            let mut cells = vec![escaped(&label(row))];
            cells.push(row.delta_bytes.map(size).unwrap_or_default());
            cells.push(row.percent().map(percent).unwrap_or_default());
            cells.extend(taken(row.create));
            cells.extend(taken(row.apply));
            if row.tool == "coracle" {
                cells.iter_mut().take(3).for_each(|cell| *cell = format!("**{cell}**"));
            }
            let _ = writeln!(text, "| {pair} | {} |", cells.join(" | "));
        }
    }
    text.push('\n');
    text += &explanation(results, groups);
    text
}

fn explanation(results: &Results, groups: &[Group]) -> String {
    let mut text = String::from("Pairs: ");
    let pairs = groups.iter().filter_map(|g| Some((g, g.good.iter().chain(&g.other).next()?)));
    let pairs = pairs.map(|(g, row)| {
        let bytes = |value: Option<u64>| value.map(size).unwrap_or_default();
        format!("`{}` {}, with gzip -6 {}", g.pair, bytes(row.new_bytes), bytes(row.gzip_bytes))
    });
    text += &pairs.collect::<Vec<_>>().join("; ");
    text += ".\n";

    let dates: BTreeSet<&str> = groups.iter().flat_map(|g| &g.good).map(|row| row.date.as_str()).collect();
    if let (Some(first), Some(last)) = (dates.first(), dates.last()) {
        let when = if first == last { (*first).to_owned() } else { format!("{first} to {last}") };
        let _ = write!(text, "Measured {when}");
        let notes: BTreeSet<&str> =
            groups.iter().flat_map(|g| &g.good).flat_map(|row| row.note.split("; ")).collect();
        for note in notes.into_iter().filter(|note| !note.is_empty()) {
            let _ = write!(text, "; {}", escaped(note));
        }
        text += ".\n";
    }
    let versions: BTreeSet<String> = groups
        .iter()
        .flat_map(|g| &g.good)
        .filter(|row| !row.version.is_empty())
        .map(|row| format!("{} {}", row.tool, row.version))
        .collect();
    if !versions.is_empty() {
        let _ = writeln!(text, "Versions: {}.", versions.into_iter().collect::<Vec<_>>().join(", "));
    }
    for row in results.rows().iter().filter(|row| row.tool == "sha256") {
        if let Some(speed) = row.megabytes_per_second() {
            let _ = writeln!(text, "sha256 alone, on one core of the same machine: {speed:.0} MB/s.");
        }
    }
    let missing = missing(groups);
    if !missing.is_empty() {
        let _ = writeln!(text, "Without figures: {missing}.");
    }
    text
}

/// What has no figures, and why: the first part of the note.
fn missing(groups: &[Group]) -> String {
    let mut found: Vec<(String, &str, Vec<String>)> = Vec::new();
    for row in groups.iter().flat_map(|g| &g.other) {
        let why = match row.verified {
            Some(false) if row.note.is_empty() => "the result was wrong",
            _ => row.note.split("; ").next().unwrap_or_default(),
        };
        let (label, pair) = (label(row), format!("`{}`", row.pair));
        match found.iter_mut().find(|(l, w, _)| *l == label && *w == why) {
            Some((_, _, pairs)) => pairs.push(pair),
            None => found.push((label, why, vec![pair])),
        }
    }
    let told = found
        .iter()
        .map(|(label, why, pairs)| format!("{} on {} ({})", escaped(label), pairs.join(", "), escaped(why)));
    told.collect::<Vec<_>>().join("; ")
}

fn taken(taken: Option<Taken>) -> [String; 2] {
    match taken {
        None => Default::default(),
        Some(t) => [seconds(t.cpu), t.memory.map(|m| format!("{m:.0} MiB")).unwrap_or_default()],
    }
}

fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.0} s") }
}

/// A share, with as many decimals as it deserves.
pub fn percent(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} %") } else { format!("{value:.1} %") }
}

/// A number of bytes in decimal units, with three digits or so.
pub fn size(bytes: u64) -> String {
    let (value, unit) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (bytes as f64 / 1e3, "kB"),
        1_000_000..1_000_000_000 => (bytes as f64 / 1e6, "MB"),
        _ => (bytes as f64 / 1e9, "GB"),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$} {unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('|', "\\|")
}

/// Puts text between the markers of a page, in place of what stands there. Nothing if there are no markers.
pub fn between_markers(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Choice, groups, sample};

    #[test]
    fn table_is_as_expected() {
        let results = sample();
        let choice = Choice { pairs: vec!["large".into()], ..Choice::default() };
        assert_eq!(
            markdown(&results, &groups(&results, &choice)),
            "| pair | tool | delta | of gzip | create: CPU | memory | apply: CPU | memory |\n\
             |---|---|--:|--:|--:|--:|--:|--:|\n\
             | large | other a&amp;b | 200 kB | 0.20 % | 2.50 s | 64 MiB | 0.25 s | 64 MiB |\n\
             |  | **coracle v1** | **400 kB** | **0.40 %** | 2.50 s | 64 MiB | 0.25 s | 64 MiB |\n\
             |  | zstd patch-from-3 | 1.00 MB | 1.00 % | 2.50 s | 64 MiB | 0.25 s | 64 MiB |\n\
             \n\
             Pairs: `large` 200 MB, with gzip -6 100 MB.\n\
             Measured 2026-01-02; &lt;busy>.\n\
             Versions: coracle 1, other 1, zstd 1.\n\
             sha256 alone, on one core of the same machine: 1000 MB/s.\n\
             Without figures: absent on `large` (not found); broken on `large` (&lt;busy>).\n"
        );
    }

    #[test]
    fn text_goes_between_markers() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let after = between_markers(&page, "new\n\n").unwrap();
        assert_eq!(after, format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(between_markers(&after, "new").unwrap(), after);
        assert_eq!(between_markers("a\n", "new"), None);
        assert_eq!(between_markers(&format!("{END}{BEGIN}"), "new"), None);
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (957_901, "958 kB"),
            (1_342_525, "1.34 MB"),
            (62_574_000, "62.6 MB"),
            (169_848_320, "170 MB"),
            (2_000_000_000, "2.00 GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
