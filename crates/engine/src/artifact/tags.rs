//! Which tags came before one: by version, or by when their images were made.

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Document, Platform, Reference};
use jiff::Timestamp;

use super::layers::Image;
use super::publish::is_bookkeeping;
use crate::image::copy::{choose, stoppable};
use crate::image::stop::Stop;
use crate::image::{Environment, ImageName, Source, Transport};
use crate::{Context, Error};

/// Tags whose images are looked at to learn when they were made.
const MAX_LOOKED_AT: usize = 200;

/// Which images to start from.
#[derive(Debug, Clone)]
pub enum Choice {
    /// So many before it: by version if its tag is one, else by when they were made.
    Last(usize),
    /// All whose tag matches a pattern with `*` and `?`.
    Matching(String),
}

/// Images in the repository of `name` to make deltas from; none twice, and not `name` itself. Blocks, and must not be
/// called on a thread of the runtime.
///
/// # Errors
/// See [`Error`].
pub fn sources(
    name: &ImageName,
    choice: &Choice,
    platform: Option<&Platform>,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Vec<ImageName>, Error> {
    stoppable(context, |stop| {
        let unsupported =
            |reason: &str| Error::Unsupported { image: name.to_string(), reason: reason.to_owned() };
        let Transport::Registry(reference) = name.transport() else {
            return Err(unsupported("earlier images are looked for by tag, in a registry"));
        };
        let tag = reference.tag().ok_or_else(|| unsupported("name the new image by its tag"))?;
        let (text, wire) = (name.to_string(), environment.wire(stop));
        let mut tags = wire.wait(&text, wire.client.tags(reference.repository()))?;
        tags.retain(|other| other != tag && !is_bookkeeping(other));
        let own = wire.wait(&text, wire.client.manifest_digest(reference))?;
        let mut seen: Vec<Digest> = own.into_iter().collect();
        let (ordered, count): (Vec<String>, usize) = match choice {
            Choice::Matching(pattern) => {
                (tags.into_iter().filter(|tag| matches(pattern, tag)).collect(), usize::MAX)
            }
            Choice::Last(count) => match before(tag, &tags) {
                Some(found) => (found.into_iter().map(str::to_owned).collect(), *count),
                None => (by_age(name, reference, &tags, platform, environment, stop, context)?, *count),
            },
        };
        let mut found = Vec::new();
        for tag in ordered {
            if found.len() == count {
                break;
            }
            let Some(other) = reference.repository().with_tag(&tag) else { continue };
            // Two tags of one image are one source.
            let Some(digest) = wire.wait(&text, wire.client.manifest_digest(&other))? else { continue };
            if seen.contains(&digest) {
                continue;
            }
            seen.push(digest);
            let other: ImageName = format!("docker://{other}").parse()?;
            // Deltas may have tags, too.
            let source = environment.source(&other, stop, context)?;
            match source.root()? {
                Document::Manifest(manifest) if !manifest.is_image() => {}
                _ => found.push(other),
            }
        }
        Ok(found)
    })
}

/// Tags of images that were made before `name`, latest first.
fn by_age(
    name: &ImageName,
    reference: &Reference,
    tags: &[String],
    platform: Option<&Platform>,
    environment: &Environment,
    stop: &Stop,
    context: &Context<'_>,
) -> Result<Vec<String>, Error> {
    if tags.len() > MAX_LOOKED_AT {
        let reason = format!(
            "{:?} is no version, and there are {} other tags: too many to look when each was made; name them by pattern",
            reference.tag().unwrap_or_default(),
            tags.len()
        );
        return Err(Error::Unsupported { image: name.to_string(), reason });
    }
    let made = |name: &ImageName| -> Result<Option<Timestamp>, Error> {
        let source: std::sync::Arc<dyn Source> = environment.source(name, stop, context)?;
        let root = source.root()?;
        let platform = platform.unwrap_or(&environment.host);
        match choose(source.as_ref(), root, platform, &environment.limits)
            .and_then(|(document, _)| Image::of(source, document, environment))
        {
            Ok(image) => Ok(image.config.created().and_then(|created| created.parse().ok())),
            // Artifacts, and images for others, are no sources.
            Err(Error::Unsupported { .. } | Error::NoPlatform { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let Some(own) = made(name)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for tag in tags {
        let Some(other) = reference.repository().with_tag(tag) else { continue };
        if let Some(created) = made(&format!("docker://{other}").parse()?)?
            && created < own
        {
            found.push((created, tag.clone()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found.into_iter().map(|(_, tag)| tag).collect())
}

/// A tag that is a version: `1.2.3`, `v1.2`, `3.19-alpine`, `2026.11.22`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Versioned {
    /// `v` or nothing.
    prefix: String,
    numbers: Vec<u64>,
    /// What follows the numbers, with its `-` or `_`.
    suffix: String,
}

impl Versioned {
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let digits = tag.find(|c: char| c.is_ascii_digit())?;
        let (prefix, rest) = tag.split_at(digits);
        if !matches!(prefix, "" | "v" | "V") {
            return None;
        }
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (numbers, suffix) = rest.split_at(end);
        if !(suffix.is_empty() || suffix.starts_with(['-', '_', '+'])) {
            return None;
        }
        let numbers = numbers.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(Versioned { prefix: prefix.to_owned(), numbers, suffix: suffix.to_owned() })
    }

    /// Whether both are versions of the same thing: written alike, for the same variant, with as many numbers, so that
    /// `1.2` (which moves) is no predecessor of `1.2.3`.
    fn comparable(&self, other: &Self) -> bool {
        self.prefix == other.prefix
            && self.suffix == other.suffix
            && self.numbers.len() == other.numbers.len()
    }
}

/// The tags before `tag`, latest first; `None` if it is no version.
pub(super) fn before<'a>(tag: &str, all: &'a [String]) -> Option<Vec<&'a str>> {
    let own = Versioned::parse(tag)?;
    let mut found: Vec<(Versioned, &str)> = all
        .iter()
        .filter_map(|other| Some((Versioned::parse(other)?, other.as_str())))
        .filter(|(version, _)| version.comparable(&own) && version.numbers < own.numbers)
        .collect();
    found.sort_by(|a, b| b.0.numbers.cmp(&a.0.numbers));
    Some(found.into_iter().map(|(_, tag)| tag).collect())
}

/// Whether `tag` matches a pattern with `*` for any characters and `?` for one.
pub(super) fn matches(pattern: &str, tag: &str) -> bool {
    let (pattern, tag) = (pattern.as_bytes(), tag.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < tag.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == tag[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, t));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_versions_of_the_same_kind() {
        let all: Vec<String> = [
            "1.2.3",
            "1.2.10",
            "1.2",
            "1.3.0",
            "v1.2.9",
            "1.2.9",
            "1.2.9-alpine",
            "1.2.8-rc1",
            "latest",
            "0.9.0",
        ]
        .map(str::to_owned)
        .to_vec();
        assert_eq!(before("1.2.10", &all), Some(vec!["1.2.9", "1.2.3", "0.9.0"]));
        assert_eq!(before("1.2.10-alpine", &all), Some(vec!["1.2.9-alpine"]));
        assert_eq!(before("v1.3.0", &all), Some(vec!["v1.2.9"]));
        assert_eq!(before("latest", &all), None);
        assert_eq!(before("sha256-0123", &all), None);
    }

    #[test]
    fn patterns() {
        for (pattern, tag, expected) in [
            ("1.*", "1.2", true),
            ("1.*", "2.1", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*-alpine", "3.1-alpine", true),
            ("*b*b", "abcb", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, tag), expected, "{pattern} {tag}");
        }
    }
}
