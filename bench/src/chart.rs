//! The delta sizes as a bar chart in SVG.
//!
//! Each pair is a panel with its own linear scale that starts at 0, so that lengths within a pair compare as sizes do;
//! a common scale would have to be logarithmic. Colours are of middling brightness and there is no background: the
//! picture can be read on white and on black. It has no scripts, no fonts and no links.

use std::fmt::Write;

use crate::choice::{Group, label};
use crate::results::Row;
use crate::table::{percent, size};

const WIDTH: usize = 840;
const MARGIN: usize = 16;
/// Where bars begin, and their greatest length.
const BARS: usize = 190;
const LONGEST: f64 = 500.0;
/// Height of a row and of its bar.
const ROW: usize = 21;
const BAR: usize = 15;

const TEXT: &str = "#6e7781";
/// About the width of a letter in the smaller type.
const LETTER: usize = 7;

/// Colours of the tools; others get one of their own from what remains.
const COLOURS: &[(&str, &str)] = &[
    ("coracle", "#2f81f7"),
    ("tar-diff", "#d9822b"),
    ("hdiffpatch", "#2da44e"),
    ("zstd", "#a475f9"),
    ("xdelta3", "#d6568c"),
    ("bsdiff", "#3a9da5"),
];
const OTHER_COLOURS: &[&str] = &["#9a8c3c", "#b5651d", "#7d8590"];

/// Draws the chart. The same rows give the same bytes.
pub fn svg(groups: &[Group]) -> String {
    let mut tools: Vec<&str> = Vec::new();
    for row in groups.iter().flat_map(|g| &g.good) {
        if !tools.contains(&row.tool.as_str()) {
            tools.push(&row.tool);
        }
    }
    tools.sort_by_key(|tool| {
        (COLOURS.iter().position(|(name, _)| name == tool).unwrap_or(COLOURS.len()), *tool)
    });

    let mut body = String::new();
    let mut y = 30;
    text(
        &mut body,
        (MARGIN, y),
        "class=\"title\"",
        "Size of a delta, in percent of sending the new version with gzip",
    );
    y += 22;
    let hint = "Shorter is better. Each pair has a scale of its own, from 0. The full download is 100 %.";
    text(&mut body, (MARGIN, y), "", hint);
    y += 26;
    legend(&mut body, y, &tools);
    for group in groups.iter().filter(|g| !g.good.is_empty()) {
        y += 36;
        panel(&mut body, y, group, &tools);
        y += 8 + group.good.len() * ROW;
    }
    let height = y + MARGIN;
    let pairs: Vec<&str> = groups.iter().map(|g| g.pair).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-labelledby=\"t d\">\n\
         <title id=\"t\">Delta sizes by tool</title>\n\
         <desc id=\"d\">Bars for the pairs {}: the size of the delta that each tool makes, in percent of the new \
         version compressed with gzip.</desc>\n\
         <style>\n\
         text {{ font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: {TEXT} }}\n\
         .title {{ font-size: 17px; font-weight: 600 }}\n\
         .pair {{ font-size: 15px; font-weight: 600 }}\n\
         .own {{ font-weight: 700 }}\n\
         .label {{ text-anchor: end }}\n\
         </style>\n{body}</svg>\n",
        escaped(&pairs.join(", "))
    )
}

fn legend(body: &mut String, y: usize, tools: &[&str]) {
    let mut x = MARGIN;
    for tool in tools {
        let colour = colour(tool, tools);
        let _ = writeln!(
            body,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>",
            y - 11
        );
        text(body, (x + 18, y), "", tool);
        x += 18 + tool.len() * (LETTER + 1) + 18;
    }
}

/// One pair: a heading at `y` and the bars below it.
fn panel(body: &mut String, y: usize, group: &Group, tools: &[&str]) {
    let first = group.good[0];
    let bytes = |value: Option<u64>| value.map(size).unwrap_or_default();
    let about = format!("new tar {}, with gzip -6 {}", bytes(first.new_bytes), bytes(first.gzip_bytes));
    text(body, (MARGIN, y), "class=\"pair\"", group.pair);
    text(body, (BARS, y), "", &about);

    let share = |row: &Row| row.percent().unwrap_or_default();
    let largest = group.good.iter().map(|row| share(row)).fold(0.0, f64::max);
    let (top, height) = (y + 10, group.good.len() * ROW);
    let _ = writeln!(
        body,
        "<path d=\"M{BARS}.5 {top}v{height}\" stroke=\"{TEXT}\" stroke-opacity=\"0.5\" fill=\"none\"/>"
    );
    for (i, row) in group.good.iter().enumerate() {
        let top = top + i * ROW + (ROW - BAR) / 2;
        let base = top + BAR - 3;
        let own = if row.tool == "coracle" { " own" } else { "" };
        text(body, (BARS - 8, base), &format!("class=\"label{own}\""), &label(row));
        let length = if largest > 0.0 { (share(row) / largest * LONGEST).max(1.0) } else { 1.0 };
        let colour = colour(&row.tool, tools);
        let _ = writeln!(
            body,
            "<rect x=\"{}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" rx=\"2\" fill=\"{colour}\"/>",
            BARS + 1
        );
        let value = format!("{}  ({})", percent(share(row)), bytes(row.delta_bytes));
        let x = (BARS + 8) as f64 + length;
        let class = if own.is_empty() { "" } else { " class=\"own\"" };
        let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{base}\"{class}>{}</text>", escaped(&value));
    }
}

fn text(body: &mut String, (x, y): (usize, usize), attributes: &str, content: &str) {
    let space = if attributes.is_empty() { "" } else { " " };
    let _ = writeln!(body, "<text x=\"{x}\" y=\"{y}\"{space}{attributes}>{}</text>", escaped(content));
}

fn colour(tool: &str, tools: &[&str]) -> &'static str {
    let known = |name: &str| COLOURS.iter().find(|(n, _)| *n == name).map(|(_, colour)| *colour);
    known(tool).unwrap_or_else(|| {
        let at = tools.iter().filter(|name| known(name).is_none()).position(|name| *name == tool);
        OTHER_COLOURS[at.unwrap_or_default() % OTHER_COLOURS.len()]
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choice::{Choice, groups, sample};

    #[test]
    fn bars_are_as_long_as_deltas_are_large() {
        let results = sample();
        let picture = svg(&groups(&results, &Choice::default()));
        // Per pair 200, 400 and 1000 kB.
        for length in ["100.0", "200.0", "500.0"] {
            assert_eq!(picture.matches(&format!(" width=\"{length}\" ")).count(), 2, "{length}\n{picture}");
        }
        for words in [">small<", ">large<", ">coracle v1<", ">0.40 %  (400 kB)<", ">10.0 %  (400 kB)<"] {
            assert_eq!(picture.matches(words).count(), 1 + usize::from(words.contains("coracle")), "{words}");
        }
        // Neither what does not work, nor what was not asked for.
        for words in ["broken", "absent", "effort", "sha256"] {
            assert!(!picture.contains(words), "{words}");
        }
    }

    #[test]
    fn picture_is_well_formed_and_passive() {
        let results = sample();
        let picture = svg(&groups(&results, &Choice::default()));
        assert!(picture.contains("other a&amp;b") && !picture.contains("a&b"));
        for words in ["<script", "href", "url(", "@import"] {
            assert!(!picture.contains(words), "{words}");
        }
        for tag in ["svg", "text", "style", "title", "desc"] {
            let opened =
                picture.matches(&format!("<{tag}>")).count() + picture.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, picture.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert_eq!(picture, svg(&groups(&results, &Choice::default())));
    }

    #[test]
    fn nothing_to_show_is_a_picture_too() {
        assert!(svg(&[]).ends_with("</svg>\n"));
    }

    #[test]
    fn each_tool_has_one_colour() {
        let tools = ["coracle", "a", "b"];
        assert_eq!(colour("coracle", &tools), "#2f81f7");
        assert_ne!(colour("a", &tools), colour("b", &tools));
    }
}
