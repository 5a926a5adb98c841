//! The results: one row for each pair, tool and configuration, kept as CSV (RFC 4180, with LF).
//!
//! The file is meant to be committed: it is sorted, a row that was not measured again stays as it was, and what can be
//! computed from other columns is computed on each writing.

use std::cmp::Ordering;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::{Error, Result};
use crate::measure::Taken;

/// One measurement.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Row {
    /// Day of the measurement: `YYYY-MM-DD`.
    pub date: String,
    /// The pair, or `-` for what needs none.
    pub pair: String,
    /// Size of the old tar in bytes.
    pub old_bytes: Option<u64>,
    /// Size of the new tar in bytes.
    pub new_bytes: Option<u64>,
    /// Size of the new tar after `gzip -6`, in bytes.
    pub gzip_bytes: Option<u64>,
    /// The tool.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// Its configuration.
    pub config: String,
    /// Size of the delta in bytes.
    pub delta_bytes: Option<u64>,
    /// What it took to make the delta.
    pub create: Option<Taken>,
    /// What it took to apply it.
    pub apply: Option<Taken>,
    /// Whether the result has the digest of the new tar.
    pub verified: Option<bool>,
    /// About the machine, or why there are no figures.
    pub note: String,
    /// Whether nothing was tried, so that figures of another day are worth more. Not in the file.
    pub not_tried: bool,
}

const HEADER: &str = "date,pair,old_bytes,new_bytes,gzip_bytes,tool,version,config,delta_bytes,percent_of_gzip,\
create_cpu_s,create_wall_s,create_rss_mib,apply_cpu_s,apply_wall_s,apply_rss_mib,apply_mb_per_s,verified,note";

const COLUMNS: usize = 19;

impl Row {
    /// What identifies a row.
    fn key(&self) -> (&str, &str, &str) {
        (&self.pair, &self.tool, &self.config)
    }

    /// The delta in percent of the new tar after gzip.
    pub fn percent(&self) -> Option<f64> {
        let gzip = self.gzip_bytes.filter(|&bytes| bytes > 0)?;
        Some(100.0 * self.delta_bytes? as f64 / gzip as f64)
    }

    /// Millions of bytes of the new tar for each second of CPU time that applying takes.
    pub fn megabytes_per_second(&self) -> Option<f64> {
        let seconds = self.apply?.cpu;
        (seconds > 0.0).then_some(self.new_bytes? as f64 / 1e6 / seconds)
    }

    fn fields(&self) -> [String; COLUMNS] {
        let bytes = |value: Option<u64>| value.map(|v| v.to_string()).unwrap_or_default();
        let [create_cpu, create_wall, create_memory] = taken_fields(self.create);
        let [apply_cpu, apply_wall, apply_memory] = taken_fields(self.apply);
        [
            self.date.clone(),
            self.pair.clone(),
            bytes(self.old_bytes),
            bytes(self.new_bytes),
            bytes(self.gzip_bytes),
            self.tool.clone(),
            self.version.clone(),
            self.config.clone(),
            bytes(self.delta_bytes),
            self.percent().map(|v| format!("{v:.2}")).unwrap_or_default(),
            create_cpu,
            create_wall,
            create_memory,
            apply_cpu,
            apply_wall,
            apply_memory,
            self.megabytes_per_second().map(|v| format!("{v:.0}")).unwrap_or_default(),
            match self.verified {
                Some(true) => "yes".to_owned(),
                Some(false) => "no".to_owned(),
                None => String::new(),
            },
            self.note.clone(),
        ]
    }

    fn from_fields(fields: &[String]) -> std::result::Result<Row, String> {
        if fields.len() != COLUMNS {
            return Err(format!("{} columns, expected {COLUMNS}", fields.len()));
        }
        Ok(Row {
            date: fields[0].clone(),
            pair: fields[1].clone(),
            old_bytes: number(&fields[2])?,
            new_bytes: number(&fields[3])?,
            gzip_bytes: number(&fields[4])?,
            tool: fields[5].clone(),
            version: fields[6].clone(),
            config: fields[7].clone(),
            delta_bytes: number(&fields[8])?,
            create: taken(&fields[10..13])?,
            apply: taken(&fields[13..16])?,
            verified: match fields[17].as_str() {
                "yes" => Some(true),
                "no" => Some(false),
                "" => None,
                other => return Err(format!("neither yes nor no: {other}")),
            },
            note: fields[18].clone(),
            not_tried: false,
        })
    }
}

fn taken_fields(taken: Option<Taken>) -> [String; 3] {
    // GNU time has two decimals; more are worth their place only where they are not 0.
    let seconds = |value: f64| {
        let text = format!("{value:.4}");
        let keep = text.trim_end_matches('0').len().max(text.len() - 2);
        text[..keep].to_owned()
    };
    match taken {
        None => Default::default(),
        Some(t) => [seconds(t.cpu), seconds(t.wall), t.memory.map(|m| format!("{m:.0}")).unwrap_or_default()],
    }
}

fn taken(fields: &[String]) -> std::result::Result<Option<Taken>, String> {
    Ok(match (number(&fields[0])?, number(&fields[1])?, number(&fields[2])?) {
        (Some(cpu), Some(wall), memory) => Some(Taken { cpu, wall, memory }),
        (None, None, None) => None,
        _ => return Err(format!("figures are missing: {}", fields.join(","))),
    })
}

fn number<T: std::str::FromStr>(text: &str) -> std::result::Result<Option<T>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("not a number: {text}"))
}

/// All rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results {
    rows: Vec<Row>,
}

impl Results {
    /// The rows of a file; none if it is not there.
    pub fn read(path: &Path) -> Result<Results> {
        match Results::read_existing(path) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Results::default()),
            other => other,
        }
    }

    /// The rows of a file that must be there.
    pub fn read_existing(path: &Path) -> Result<Results> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        Results::parse(&text).map_err(|(line, what)| Error::Csv { path: path.to_owned(), line, what })
    }

    /// Writes the file anew, so that it is never there in part.
    pub fn write(&self, path: &Path) -> Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let part = path.with_extension("csv.part");
        fs::write(&part, self.text()).map_err(Error::io("write", &part))?;
        fs::rename(&part, path).map_err(Error::io("write", path))
    }

    /// Adds a row, in place of one for the same pair, tool and configuration. One that was not even tried replaces no
    /// figures.
    pub fn put(&mut self, row: Row) {
        let old = self.rows.iter().position(|r| r.key() == row.key());
        match old {
            Some(i) if row.not_tried && self.rows[i].delta_bytes.is_some() => {}
            Some(i) => self.rows[i] = row,
            None => self.rows.push(row),
        }
        self.rows.sort_by(|a, b| {
            let (a, b) = (a.key(), b.key());
            natural(a.0, b.0).then_with(|| natural(a.1, b.1)).then_with(|| natural(a.2, b.2))
        });
    }

    /// The rows in order.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    fn parse(text: &str) -> std::result::Result<Results, (usize, String)> {
        let mut results = Results::default();
        let mut lines = text.lines().zip(1..);
        match lines.next() {
            Some((HEADER, _)) | None => {}
            Some(_) => return Err((1, "other columns than those of this version".to_owned())),
        }
        for (line, number) in lines.filter(|(line, _)| !line.is_empty()) {
            let row =
                split(line).and_then(|fields| Row::from_fields(&fields)).map_err(|what| (number, what))?;
            if results.rows.iter().any(|r| r.key() == row.key()) {
                return Err((number, "a second row for the same pair, tool and configuration".to_owned()));
            }
            results.put(row);
        }
        Ok(results)
    }

    fn text(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for row in &self.rows {
            text += &row.fields().map(|field| quoted(&field)).join(",");
            text.push('\n');
        }
        text
    }
}

/// A field as it stands in the file. Line ends become blanks, so that a row is a line.
fn quoted(field: &str) -> String {
    let field = field.replace(['\r', '\n'], " ");
    if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
}

/// The fields of a line.
fn split(line: &str) -> std::result::Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(mut inside) = rest.strip_prefix('"') {
            loop {
                let (before, after) = inside.split_once('"').ok_or("a quote is not closed")?;
                field += before;
                inside = after;
                match inside.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inside = more;
                    }
                    None => break,
                }
            }
            rest = inside;
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field += &rest[..end];
            rest = &rest[end..];
        }
        fields.push(field);
        if rest.is_empty() {
            return Ok(fields);
        }
        rest = rest.strip_prefix(',').ok_or("text after a quote")?;
    }
}

/// Compares texts, with runs of digits as numbers: 9 stands before 19.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut x, mut y) = (a, b);
    while let (Some(p), Some(q)) = (x.chars().next(), y.chars().next()) {
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (n, m) = (digits(x), digits(y));
        let order = if n > 0 && m > 0 {
            let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
            number(&x[..n]).cmp(&number(&y[..m]))
        } else {
            p.cmp(&q)
        };
        if order != Ordering::Equal {
            return order;
        }
        x = &x[n.max(p.len_utf8())..];
        y = &y[m.max(q.len_utf8())..];
    }
    x.len().cmp(&y.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pair: &str, tool: &str, config: &str, delta: Option<u64>) -> Row {
        let taken = delta.map(|_| Taken { cpu: 0.5, wall: 0.25, memory: Some(12.0) });
        Row {
            date: "2026-01-02".into(),
            pair: pair.into(),
            old_bytes: Some(900),
            new_bytes: Some(1_000_000),
            gzip_bytes: Some(400),
            tool: tool.into(),
            version: "1.0".into(),
            config: config.into(),
            delta_bytes: delta,
            create: taken,
            apply: taken,
            verified: delta.map(|_| true),
            ..Row::default()
        }
    }

    fn keys(results: &Results) -> Vec<String> {
        results.rows().iter().map(|r| format!("{} {} {}", r.pair, r.tool, r.config)).collect()
    }

    #[test]
    fn text_is_as_documented() {
        let mut results = Results::default();
        results.put(row("a", "t", "c", Some(100)));
        results.put(Row { note: "no, \"never\"".into(), ..row("a", "u", "c", None) });
        assert_eq!(
            results.text().split_once('\n').unwrap().1,
            "2026-01-02,a,900,1000000,400,t,1.0,c,100,25.00,0.50,0.25,12,0.50,0.25,12,2,yes,\n\
             2026-01-02,a,900,1000000,400,u,1.0,c,,,,,,,,,,,\"no, \"\"never\"\"\"\n"
        );
        assert_eq!(Results::parse(&results.text()).unwrap(), results);
    }

    #[test]
    fn rows_are_replaced_by_key_and_sorted() {
        let mut results = Results::default();
        for (pair, tool, config) in
            [("b", "x", "1"), ("a", "z", "l-19"), ("a", "z", "l-3"), ("a", "y", "1"), ("-", "s", "1")]
        {
            results.put(row(pair, tool, config, Some(1)));
        }
        results.put(row("a", "z", "l-3", Some(7)));
        assert_eq!(keys(&results), ["- s 1", "a y 1", "a z l-3", "a z l-19", "b x 1"]);
        assert_eq!(results.rows()[2].delta_bytes, Some(7));
        assert_eq!(results.rows()[4].delta_bytes, Some(1));
    }

    #[test]
    fn what_was_not_tried_replaces_no_figures() {
        let mut results = Results::default();
        results.put(row("a", "t", "c", Some(5)));
        results.put(Row { not_tried: true, ..row("a", "t", "c", None) });
        assert_eq!(results.rows()[0].delta_bytes, Some(5));
        results.put(row("a", "t", "c", None));
        assert_eq!(results.rows()[0].delta_bytes, None);
        results.put(Row { not_tried: true, note: "gone".into(), ..row("a", "t", "c", None) });
        assert_eq!(results.rows()[0].note, "gone");
    }

    #[test]
    fn broken_files_are_refused() {
        let good = {
            let mut results = Results::default();
            results.put(row("a", "t", "c", Some(100)));
            results.text()
        };
        let line = good.lines().nth(1).unwrap();
        for (text, at) in [
            ("date,pair\n".to_owned(), 1),
            (format!("{good}{line}\n"), 3),
            (good.replace(",900,", ",9x,"), 2),
            (good.replace(",yes,", ",maybe,"), 2),
            (good.replace("2026-01-02,", ""), 2),
            (good.replace("2026-01-02,", "\"2026-01-02,"), 2),
            (good.replace("2026-01-02,", "\"2026\"-01-02,"), 2),
            (good.replace(",0.50,0.25,12,2", ",0.50,,12,2"), 2),
        ] {
            assert_eq!(Results::parse(&text).unwrap_err().0, at, "{text}");
        }
        assert_eq!(Results::parse("").unwrap(), Results::default());
    }

    #[test]
    fn more_decimals_stay_and_memory_may_be_unknown() {
        let mut results = Results::default();
        let apply = Some(Taken { cpu: 0.1112, wall: 0.1, memory: None });
        results.put(Row { apply, ..row("a", "t", "c", None) });
        assert!(results.text().contains(",0.1112,0.10,,9,,\n"), "{}", results.text());
        assert_eq!(Results::parse(&results.text()).unwrap(), results);
    }

    #[test]
    fn numbers_in_names_count_as_numbers() {
        for (a, b) in [("l-3", "l-19"), ("a", "b"), ("a", "a1"), ("v1", "v2"), ("x9y", "x10"), ("01", "1a")] {
            assert_eq!(natural(a, b), Ordering::Less, "{a} {b}");
            assert_eq!(natural(b, a), Ordering::Greater, "{a} {b}");
        }
        assert_eq!(natural("v1", "v1"), Ordering::Equal);
        assert_ne!(natural("01", "1"), Ordering::Equal);
    }

    #[test]
    fn files_are_read_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/results.csv");
        assert_eq!(Results::read(&path).unwrap(), Results::default());
        assert!(Results::read_existing(&path).is_err());
        let mut results = Results::default();
        results.put(row("a", "t", "c", Some(100)));
        results.write(&path).unwrap();
        assert_eq!(Results::read_existing(&path).unwrap(), results);
    }
}
