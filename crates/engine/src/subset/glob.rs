//! Patterns of paths, with the rules of gitignore(5) but for `!`.

use super::SelectionError;

/// Bytes of a pattern at most: a path has no more.
const MAX_BYTES: usize = 4096;

/// A pattern of paths below the root of an image.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    text: String,
    parts: Vec<Part>,
    /// Whether only folders match.
    folder: bool,
}

/// What stands between two slashes.
#[derive(Debug, Clone)]
enum Part {
    /// `**`: any number of folders.
    Any,
    Name(Vec<Token>),
}

#[derive(Debug, Clone)]
enum Token {
    /// `*`.
    Star,
    /// `?`.
    One,
    Char(u32),
    /// `[...]`: ranges, and whether it is anything else that matches.
    Class(Vec<(u32, u32)>, bool),
}

impl Glob {
    pub(super) fn parse(text: &str) -> Result<Glob, SelectionError> {
        let bad = |reason| SelectionError::Pattern { pattern: text.to_owned(), reason };
        if text.len() > MAX_BYTES {
            return Err(bad("it is longer than a path can be"));
        }
        if text.contains('\0') {
            return Err(bad("it has a NUL byte, which is in no path"));
        }
        if text.starts_with('!') {
            return Err(bad("a pattern that begins with ! has no meaning here"));
        }
        let folder = text.ends_with('/');
        let inner = text.strip_suffix('/').unwrap_or(text);
        // A slash anywhere but at the end ties it to the root.
        let anchored = inner.contains('/');
        let names: Vec<&str> = inner.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        if names.is_empty() {
            return Err(bad("it names nothing"));
        }
        if names.contains(&"..") {
            return Err(bad(".. leads out of the tree"));
        }
        let mut parts = Vec::new();
        if !anchored {
            parts.push(Part::Any);
        }
        for name in names {
            match (name, parts.last()) {
                ("**", Some(Part::Any)) => {}
                ("**", _) => parts.push(Part::Any),
                _ => parts.push(Part::Name(tokens(name).map_err(bad)?)),
            }
        }
        // What ends in `/**` is all that lies in a folder, and not the folder.
        if anchored && matches!(parts.last(), Some(Part::Any)) {
            parts.push(Part::Name(vec![Token::Star]));
        }
        Ok(Glob { text: text.to_owned(), parts, folder })
    }

    /// As it was given.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it names this path, of a folder or of anything else.
    pub(super) fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        if self.folder && !is_folder {
            return false;
        }
        let names: Vec<Vec<u32>> = path.split(|byte| *byte == b'/').map(chars).collect();
        // Which numbers of names the parts so far can stand for.
        let mut ends = vec![false; names.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            let mut next = vec![false; ends.len()];
            match part {
                Part::Any => {
                    let mut reached = false;
                    for (from, to) in ends.iter().zip(&mut next) {
                        reached |= *from;
                        *to = reached;
                    }
                }
                Part::Name(tokens) => {
                    for (at, name) in names.iter().enumerate() {
                        next[at + 1] = ends[at] && name_matches(tokens, name);
                    }
                }
            }
            ends = next;
        }
        ends.last().copied().unwrap_or(false)
    }
}

/// Characters; bytes that are no UTF-8 stand for themselves, above all characters.
fn chars(name: &[u8]) -> Vec<u32> {
    let mut out = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(chunk.invalid().iter().map(|byte| 0x11_0000 + u32::from(*byte)));
    }
    out
}

fn tokens(name: &str) -> Result<Vec<Token>, &'static str> {
    let mut out = Vec::new();
    let mut rest = name.chars();
    while let Some(char) = rest.next() {
        out.push(match char {
            '*' if matches!(out.last(), Some(Token::Star)) => continue,
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(rest.next().ok_or("a backslash at its end")?.into()),
            '[' => class(&mut rest)?,
            other => Token::Char(other.into()),
        });
    }
    Ok(out)
}

fn class(rest: &mut std::str::Chars<'_>) -> Result<Token, &'static str> {
    const OPEN: &str = "a [ without its ]";
    let mut next = rest.next().ok_or(OPEN)?;
    let others = matches!(next, '!' | '^');
    if others {
        next = rest.next().ok_or(OPEN)?;
    }
    let mut ranges = Vec::new();
    let mut first = true;
    // A ] that comes first stands for itself.
    while next != ']' || first {
        first = false;
        let escaped = |rest: &mut std::str::Chars<'_>, char| match char {
            '\\' => rest.next().ok_or(OPEN),
            char => Ok(char),
        };
        let low = escaped(rest, next)?;
        next = rest.next().ok_or(OPEN)?;
        let mut high = low;
        if next == '-' {
            next = rest.next().ok_or(OPEN)?;
            if next == ']' {
                // A hyphen that comes last, too.
                ranges.push((low.into(), low.into()));
                ranges.push(('-'.into(), '-'.into()));
                break;
            }
            high = escaped(rest, next)?;
            next = rest.next().ok_or(OPEN)?;
        }
        if high < low {
            return Err("a range that runs backwards");
        }
        ranges.push((low.into(), high.into()));
    }
    Ok(Token::Class(ranges, others))
}

/// Whether a name is what the tokens say. A star takes as little as it can; only the last one ever has to take more.
fn name_matches(tokens: &[Token], name: &[u32]) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        let fits = match (tokens.get(token), name.get(at)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                star = Some((token + 1, at));
                token += 1;
                continue;
            }
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Char(wanted)), Some(char)) => wanted == char,
            (Some(Token::Class(ranges, others)), Some(char)) => {
                ranges.iter().any(|(low, high)| low <= char && char <= high) != *others
            }
            _ => false,
        };
        if fits {
            token += 1;
            at += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < name.len() => {
                star = Some((after, from + 1));
                (token, at) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let glob = Glob::parse(pattern).unwrap();
        // A name with a slash at its end is a folder.
        let matches = |path: &&str| {
            let folder = path.ends_with('/');
            glob.matches(path.trim_end_matches('/').as_bytes(), folder)
        };
        for path in yes {
            assert!(matches(path), "{pattern} does not match {path}");
        }
        for path in no {
            assert!(!matches(path), "{pattern} matches {path}");
        }
    }

    #[test]
    fn as_gitignore_has_it() {
        check("*.pyc", &["a.pyc", "usr/lib/a.pyc", "a.pyc/"], &["a.py", "a.pyc/x", "pyc"]);
        check(
            "/usr/share/man",
            &["usr/share/man", "usr/share/man/"],
            &["x/usr/share/man", "usr/share/man/man1"],
        );
        check("usr/share/man", &["usr/share/man"], &["x/usr/share/man"]);
        check("/doc", &["doc"], &["usr/doc"]);
        check("doc", &["doc", "usr/share/doc"], &["docs", "usr/doc/x"]);
        check("doc/", &["doc/", "usr/doc/"], &["doc", "usr/doc"]);
        check("usr/*/doc", &["usr/share/doc"], &["usr/doc", "usr/a/b/doc"]);
        check("usr/**/doc", &["usr/doc", "usr/share/doc", "usr/a/b/doc"], &["doc", "usr/docs"]);
        check("**/doc/*", &["doc/a", "usr/doc/a"], &["doc", "usr/doc/a/b"]);
        check("usr/share/doc/**", &["usr/share/doc/a", "usr/share/doc/a/b"], &["usr/share/doc/"]);
        check("**", &["a", "a/b", "c/"], &[]);
        check("usr/**", &["usr/a"], &["usr/", "a"]);
        check("./a//b/", &["a/b/"], &["a/b", "x/a/b/"]);
    }

    #[test]
    fn names() {
        check("a?c", &["abc", "a\u{e4}c"], &["ac", "abbc"]);
        check("[a-cx]1", &["a1", "c1", "x1"], &["d1", "11"]);
        check("[!a]", &["b", "\u{e4}"], &["a"]);
        check("[^a-]", &["b"], &["a", "-"]);
        check("[]a]", &["]", "a"], &["b"]);
        check("[\\]-a]", &["]", "^", "a"], &["b", "["]);
        check(r"\*\?\[x]", &["*?[x]"], &["abx"]);
        check(r"\!a", &["!a"], &["a"]);
        check("*a*b*", &["ab", "xaxbx", "aabb"], &["ba", "a"]);
        check("a*", &["a", "ab"], &["ba"]);
        let odd = Glob::parse("a?c").unwrap();
        assert!(odd.matches(b"a\xffc", false));
        assert!(!odd.matches(b"a\xff\xffc", false));
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob = Glob::parse(&("*a".repeat(1000) + "b")).unwrap();
        let begin = std::time::Instant::now();
        assert!(!glob.matches("a".repeat(4000).as_bytes(), false));
        let deep = Glob::parse(&("**/a/".repeat(500) + "b")).unwrap();
        assert!(!deep.matches("a/".repeat(2000).trim_end_matches('/').as_bytes(), false));
        assert!(begin.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_pattern() {
        for pattern in
            ["", "/", "//", ".", "!a", "../a", "a/..", "[a", "[", "[!", "[a-", "[b-a]", "a\\", "a\0", "[\\"]
        {
            assert!(Glob::parse(pattern).is_err(), "{pattern:?}");
        }
        assert!(Glob::parse(&"a".repeat(5000)).is_err());
    }
}
