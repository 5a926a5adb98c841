//! Parts of an image: which files of it go into a tree (`docs/pull.md`, section 5).
//!
//! A tree with a part of the files is no image. It carries the mark that it is a subset: in the record beside it, in what
//! is told of it, and in the labels of whatever is made of it.

mod glob;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use coracle_codec::digest::Digest;
use coracle_codec::oci::ImageConfig;
use coracle_sys::tree::{Fate, Kind};

use glob::Glob;

/// Label with the digest of the config of the image that a subset is of.
const LABEL_OF: &str = "dev.coracle.subset.of";
/// Label with the patterns, as JSON.
const LABEL_PATTERNS: &str = "dev.coracle.subset.patterns";
/// Patterns of one selection.
const MAX_PATTERNS: usize = 1000;

/// Why patterns cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// One of them is none.
    #[error("pattern {pattern:?}: {reason}")]
    Pattern {
        /// It.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There are too many.
    #[error("{actual} patterns, {limit} are allowed")]
    TooMany {
        /// How many.
        actual: usize,
        /// The bound.
        limit: usize,
    },
}

/// Which files of an image.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    only: Vec<Glob>,
    exclude: Vec<Glob>,
}

/// A selection as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Patterns {
    /// What is taken; everything if there is none.
    pub only: Vec<String>,
    /// What is left away of that.
    pub exclude: Vec<String>,
}

/// What a subset is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Digest of the config of the image that it is a part of.
    pub of: Digest,
    /// Which part.
    pub patterns: Patterns,
}

impl Subset {
    /// The labels that mark what is made of such a tree.
    pub(crate) fn labels(&self) -> Value {
        json!({ LABEL_OF: self.of.to_string(), LABEL_PATTERNS: json!(self.patterns).to_string() })
    }

    /// What the labels of a config say; `None` if they do not say that it is a subset.
    pub(crate) fn of(config: &ImageConfig) -> Option<Subset> {
        let value: Value = serde_json::from_slice(config.raw().as_bytes()).ok()?;
        let label = |name: &str| value["config"]["Labels"][name].as_str();
        let of = label(LABEL_OF)?.parse().ok()?;
        // Whatever the patterns are: that it is a subset has been said.
        let patterns = label(LABEL_PATTERNS).and_then(|text| serde_json::from_str(text).ok());
        Some(Subset { of, patterns: patterns.unwrap_or_default() })
    }

    /// In words.
    pub fn in_words(&self) -> String {
        format!("a subset of the image {}: {}", self.of, self.patterns.in_words())
    }
}

impl PartialEq for Selection {
    fn eq(&self, other: &Self) -> bool {
        self.patterns() == other.patterns()
    }
}

impl Eq for Selection {}

impl Selection {
    /// All files.
    pub fn everything() -> Self {
        Selection::default()
    }

    /// Files that a pattern of `only` names, and what lies below folders that one names, if there is any such pattern; of
    /// those all that no pattern of `exclude` names in the same way.
    ///
    /// # Errors
    /// [`SelectionError`].
    pub fn new(patterns: &Patterns) -> Result<Self, SelectionError> {
        let actual = patterns.only.len().saturating_add(patterns.exclude.len());
        if actual > MAX_PATTERNS {
            return Err(SelectionError::TooMany { actual, limit: MAX_PATTERNS });
        }
        let parse = |texts: &[String]| {
            let mut texts: Vec<&String> = texts.iter().collect();
            // Their order means nothing.
            texts.sort_unstable();
            texts.dedup();
            texts.into_iter().map(|text| Glob::parse(text)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Selection { only: parse(&patterns.only)?, exclude: parse(&patterns.exclude)? })
    }

    /// Whether it is all files.
    pub fn is_everything(&self) -> bool {
        self.only.is_empty() && self.exclude.is_empty()
    }

    /// As it is written down.
    pub fn patterns(&self) -> Patterns {
        let texts = |globs: &[Glob]| globs.iter().map(|glob| glob.text().to_owned()).collect();
        Patterns { only: texts(&self.only), exclude: texts(&self.exclude) }
    }

    /// What becomes of a path, given whether a folder above it was taken, and whether it is taken by itself.
    pub(crate) fn fate(&self, path: &[u8], kind: Kind, above: bool) -> (Fate, bool) {
        let folder = kind == Kind::Folder;
        let named = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(path, folder));
        if named(&self.exclude) {
            return (Fate::Go, false);
        }
        let taken = above || self.only.is_empty() || named(&self.only);
        // A folder that is not taken stays for what lies below it.
        (if taken { Fate::Stay } else { Fate::GoIfEmpty }, taken)
    }
}

impl Patterns {
    /// In words: `only a, b; without c`.
    pub fn in_words(&self) -> String {
        let mut out = Vec::new();
        if !self.only.is_empty() {
            out.push(format!("only {}", self.only.join(", ")));
        }
        if !self.exclude.is_empty() {
            out.push(format!("without {}", self.exclude.join(", ")));
        }
        out.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(only: &[&str], exclude: &[&str]) -> Selection {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Selection::new(&Patterns { only: owned(only), exclude: owned(exclude) }).unwrap()
    }

    #[test]
    fn exclusion_wins() {
        let all = selection(&[], &["doc"]);
        assert_eq!(all.fate(b"usr/doc", Kind::Folder, true), (Fate::Go, false));
        assert_eq!(all.fate(b"usr", Kind::Folder, true), (Fate::Stay, true));
        let some = selection(&["/usr/bin", "*.so"], &["*.pyc"]);
        assert_eq!(some.fate(b"usr", Kind::Folder, false), (Fate::GoIfEmpty, false));
        assert_eq!(some.fate(b"usr/bin", Kind::Folder, false), (Fate::Stay, true));
        assert_eq!(some.fate(b"usr/bin/x", Kind::File, true), (Fate::Stay, true));
        assert_eq!(some.fate(b"usr/bin/x.pyc", Kind::File, true), (Fate::Go, false));
        assert_eq!(some.fate(b"lib/x.so", Kind::Other, false), (Fate::Stay, true));
        assert_eq!(some.fate(b"lib/x.a", Kind::File, false), (Fate::GoIfEmpty, false));
    }

    #[test]
    fn labels_say_what_it_is() {
        let subset = Subset {
            of: Digest::of(b"config"),
            patterns: Patterns { only: vec!["usr".into()], exclude: vec!["*.pyc".into()] },
        };
        let config = |labels: Value| {
            let text =
                json!({ "rootfs": { "type": "layers", "diff_ids": [] }, "config": { "Labels": labels } })
                    .to_string();
            let raw = coracle_codec::oci::Unverified::new(text.into_bytes()).identify();
            ImageConfig::parse(raw, &Default::default()).unwrap()
        };
        assert_eq!(Subset::of(&config(subset.labels())), Some(subset.clone()));
        assert_eq!(Subset::of(&config(json!({ "maintainer": "x" }))), None);
        assert_eq!(Subset::of(&config(json!({ LABEL_OF: "x" }))), None);
        let vague = Subset::of(&config(json!({ LABEL_OF: subset.of.to_string(), LABEL_PATTERNS: "[" })));
        assert_eq!(vague, Some(Subset { patterns: Patterns::default(), ..subset }));
    }

    #[test]
    fn the_same_whatever_the_order() {
        assert_eq!(selection(&["b", "a", "a"], &["d", "c"]), selection(&["a", "b"], &["c", "d"]));
        assert_ne!(selection(&["a"], &[]), selection(&[], &["a"]));
        assert!(selection(&[], &[]).is_everything());
        assert_eq!(selection(&["b", "a"], &["c"]).patterns().in_words(), "only a, b; without c");
        let many = Patterns { only: (0..1001).map(|n| n.to_string()).collect(), exclude: Vec::new() };
        assert_eq!(Selection::new(&many).unwrap_err(), SelectionError::TooMany { actual: 1001, limit: 1000 });
    }
}
