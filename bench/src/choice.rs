//! Which rows a chart or a table shows, and in which order.

use clap::Args;

use crate::results::{Results, Row};
use crate::setup::selects;

/// What to show.
#[derive(Debug, Default, Args)]
pub struct Choice {
    /// Pairs to show, in this order [default: all, by the size of the new tar]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub pairs: Vec<String>,
    /// Tools to show, as TOOL or TOOL/CONFIG [default: all, but no configurations with `effort` in their name,
    /// and none of whole images]
    #[arg(long, value_name = "TOOLS", value_delimiter = ',')]
    pub tools: Vec<String>,
}

/// What is measured apart, by scripts of its own: images, pulls, links, conversions.
const APART: [&str; 5] = ["image-", "pull-", "link-", "copy-", "convert-"];

impl Choice {
    fn shows(&self, row: &Row) -> bool {
        let pair = self.pairs.is_empty() || self.pairs.contains(&row.pair);
        let tool = match self.tools.as_slice() {
            [] => {
                let apart = APART.iter().any(|prefix| row.config.starts_with(prefix));
                !apart && !row.config.contains("effort")
            }
            words => words.iter().any(|word| selects(word, &row.tool, &row.config)),
        };
        pair && tool && row.pair != "-"
    }
}

/// The rows of one pair.
#[derive(Debug)]
pub struct Group<'a> {
    /// The pair.
    pub pair: &'a str,
    /// Rows with a delta that works, the smallest first.
    pub good: Vec<&'a Row>,
    /// The others.
    pub other: Vec<&'a Row>,
}

/// The rows that are to be shown, by pair.
pub fn groups<'a>(results: &'a Results, choice: &Choice) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for row in results.rows().iter().filter(|row| choice.shows(row)) {
        let at = groups.iter().position(|g| g.pair == row.pair).unwrap_or_else(|| {
            groups.push(Group { pair: &row.pair, good: Vec::new(), other: Vec::new() });
            groups.len() - 1
        });
        let good = row.verified == Some(true) && row.percent().is_some();
        if good { &mut groups[at].good } else { &mut groups[at].other }.push(row);
    }
    // Sorting keeps the order of equal ones, which is that of the results.
    for group in &mut groups {
        group.good.sort_by_key(|row| row.delta_bytes);
    }
    if choice.pairs.is_empty() {
        groups.sort_by_key(|g| g.good.iter().chain(&g.other).filter_map(|row| row.new_bytes).max());
    } else {
        groups.sort_by_key(|g| choice.pairs.iter().position(|name| name == g.pair));
    }
    groups
}

/// What to call a tool in a configuration.
pub fn label(row: &Row) -> String {
    if row.config == "default" { row.tool.clone() } else { format!("{} {}", row.tool, row.config) }
}

/// Rows for tests: two pairs, one row each that does not work, and one that needs no pair.
#[cfg(test)]
pub fn sample() -> Results {
    use crate::measure::Taken;
    let mut results = Results::default();
    let taken = |cpu| Some(Taken { cpu, wall: cpu, memory: Some(64.0) });
    let mut put = |pair: &str, tool: &str, config: &str, delta: Option<u64>, verified: Option<bool>| {
        let large = pair == "large";
        results.put(Row {
            date: "2026-01-02".into(),
            pair: pair.into(),
            old_bytes: Some(1000),
            new_bytes: Some(if large { 200_000_000 } else { 9_000_000 }),
            gzip_bytes: Some(if large { 100_000_000 } else { 4_000_000 }),
            tool: tool.into(),
            version: "1".into(),
            config: config.into(),
            delta_bytes: delta,
            create: delta.and(taken(2.5)),
            apply: delta.and(taken(0.25)),
            verified,
            note: if delta.is_none() { "not found".into() } else { "<busy>".into() },
            not_tried: false,
        });
    };
    for pair in ["large", "small"] {
        put(pair, "coracle", "v1", Some(400_000), Some(true));
        put(pair, "coracle", "v1-effort-9", Some(300_000), Some(true));
        put(pair, "zstd", "patch-from-3", Some(1_000_000), Some(true));
        put(pair, "other", "a&b", Some(200_000), Some(true));
        put(pair, "broken", "default", Some(100), Some(false));
        put(pair, "absent", "default", None, None);
    }
    results.put(Row {
        pair: "-".into(),
        tool: "sha256".into(),
        new_bytes: Some(500_000_000),
        apply: Some(Taken { cpu: 0.5, wall: 0.5, memory: None }),
        ..Row::default()
    });
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(choice: &Choice) -> Vec<String> {
        let results = sample();
        let groups = groups(&results, choice);
        let lines = groups.iter().map(|g| {
            let labels: Vec<String> = g.good.iter().map(|row| label(row)).collect();
            format!("{}: {}", g.pair, labels.join(", "))
        });
        lines.collect()
    }

    #[test]
    fn smallest_come_first_and_ranges_only_if_asked_for() {
        assert_eq!(
            shown(&Choice::default()),
            [
                "small: other a&b, coracle v1, zstd patch-from-3",
                "large: other a&b, coracle v1, zstd patch-from-3"
            ]
        );
        let choice = Choice { pairs: vec!["large".into()], tools: vec!["coracle".into(), "broken".into()] };
        assert_eq!(shown(&choice), ["large: coracle v1-effort-9, coracle v1"]);
        let choice =
            Choice { pairs: vec!["large".into(), "small".into()], tools: vec!["zstd/patch-from-3".into()] };
        assert_eq!(shown(&choice), ["large: zstd patch-from-3", "small: zstd patch-from-3"]);
    }
}
