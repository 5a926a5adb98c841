//! Names of images in registries: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that a name without one means, and its folder for names of one part.
const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_FOLDER: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest repository name, host included (distribution-spec 1.1, "Pulling manifests": clients of old registries).
const MAX_NAME: usize = 255;
/// Longest tag (distribution-spec 1.1, "Pulling manifests").
const MAX_TAG: usize = 128;

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: String,
    path: String,
}

/// Which of the images in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Whatever the registry says the tag is.
    Tag(String),
    /// This one and no other.
    Digest(Digest),
}

/// A name of an image in a registry, in full: `alpine` is read as `docker.io/library/alpine:latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    version: Version,
    /// The tag beside a digest.
    tag: Option<String>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an image name: {text:?}: {reason}")]
pub struct ParseReferenceError {
    text: String,
    reason: &'static str,
}

impl Repository {
    /// A repository from its two parts.
    ///
    /// # Errors
    /// One of them breaks the rules.
    pub fn new(registry: &str, path: &str) -> Result<Self, ParseReferenceError> {
        let bad =
            |reason| ParseReferenceError { text: super::shortened(&format!("{registry}/{path}")), reason };
        if !is_host(registry) {
            return Err(bad("the registry is not HOST or HOST:PORT"));
        }
        if path.len() + registry.len() >= MAX_NAME {
            return Err(bad("the name is too long"));
        }
        if !path.split('/').all(is_component) {
            return Err(bad("parts of a name are lower-case letters and digits, joined by . _ or -"));
        }
        Ok(Repository { registry: registry.into(), path: path.into() })
    }

    /// `HOST` or `HOST:PORT`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// What follows it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The image with this digest.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { repository: self.clone(), version: Version::Digest(digest), tag: None }
    }

    /// The image with this tag; `None` if it cannot be one.
    pub fn with_tag(&self, tag: &str) -> Option<Reference> {
        is_tag(tag).then(|| Reference {
            repository: self.clone(),
            version: Version::Tag(tag.into()),
            tag: None,
        })
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl Reference {
    /// The repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Which image in it.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The tag, also one beside a digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => self.tag.as_deref(),
        }
    }

    /// The digest, if it has one.
    pub fn digest(&self) -> Option<Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(*digest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        match &self.version {
            Version::Tag(_) => Ok(()),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |reason| ParseReferenceError { text: super::shortened(text), reason };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                (name, Some(digest.parse::<Digest>().map_err(|_| bad("only sha256 digests are known"))?))
            }
            None => (text, None),
        };
        // A colon before the last slash belongs to the port.
        let (name, tag) = match name.rfind(':') {
            Some(at) if !name[at..].contains('/') => (&name[..at], Some(&name[at + 1..])),
            _ => (name, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has up to 128 letters, digits and . _ -"));
        }
        if name.is_empty() {
            return Err(bad("the name is empty"));
        }
        let repository = match name.split_once('/') {
            Some((host, path)) if names_host(host) => {
                let folder = if is_default(host) && !path.contains('/') { DEFAULT_FOLDER } else { "" };
                let host = if is_default(host) { DEFAULT_REGISTRY } else { host };
                Repository::new(&host.to_ascii_lowercase(), &format!("{folder}{path}"))
            }
            Some(_) => Repository::new(DEFAULT_REGISTRY, name),
            None => Repository::new(DEFAULT_REGISTRY, &format!("{DEFAULT_FOLDER}{name}")),
        };
        let repository = repository.map_err(|e| bad(e.reason))?;
        Ok(match digest {
            Some(digest) => {
                Reference { repository, version: Version::Digest(digest), tag: tag.map(str::to_owned) }
            }
            None => Reference {
                repository,
                version: Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
                tag: None,
            },
        })
    }
}

/// Whether the first part of a name is a host, and no folder of the default registry: it has a dot or a port, or is
/// `localhost`, or has capitals, which no folder may have. The rule of distribution/reference.
fn names_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_default(host: &str) -> bool {
    host == DEFAULT_REGISTRY || host == "index.docker.io"
}

/// Whether `text` may be a tag.
pub fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// `HOST`, `HOST:PORT`, `[IPv6]` or `[IPv6]:PORT`.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) => match port.strip_prefix(':') {
                Some(port) => (address, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let good_port = port.is_none_or(|port| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let good_host = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty()
            && host.split('.').all(|part| {
                !part.is_empty()
                    && !part.starts_with('-')
                    && !part.ends_with('-')
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            })
    };
    good_port && good_host
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or hyphens (distribution-spec 1.1, "Pulling manifests").
fn is_component(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let mut joint = &bytes[..0];
    let mut after_word = false;
    for (i, &b) in bytes.iter().enumerate() {
        if word(b) {
            let good = match joint {
                [] => true,
                b"." | b"_" | b"__" => after_word,
                hyphens => after_word && hyphens.iter().all(|&b| b == b'-'),
            };
            if !good {
                return false;
            }
            after_word = true;
            joint = &bytes[i + 1..i + 1];
        } else {
            joint = &bytes[i - joint.len()..=i];
        }
    }
    after_word && joint.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed() {
        for (text, want) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c"),
            ("library/alpine", "docker.io/library/alpine:latest"),
            ("quay.io/fedora/fedora", "quay.io/fedora/fedora:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b/c:1.0_x-Y", "localhost:5000/a/b/c:1.0_x-Y"),
            ("127.0.0.1:5000/x", "127.0.0.1:5000/x:latest"),
            ("[::1]:5000/x:t", "[::1]:5000/x:t"),
            ("Host/x", "host/x:latest"),
            ("a__b/c.d-e--f", "docker.io/a__b/c.d-e--f:latest"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), want, "{text}");
        }
        let both: Reference = format!("quay.io/a:tag@{DIGEST}").parse().unwrap();
        assert_eq!(both.to_string(), format!("quay.io/a:tag@{DIGEST}"));
        assert_eq!((both.tag(), both.digest()), (Some("tag"), Some(DIGEST.parse().unwrap())));
        let alone: Reference = format!("quay.io/a@{DIGEST}").parse().unwrap();
        assert_eq!((alone.tag(), alone.to_string()), (None, format!("quay.io/a@{DIGEST}")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":tag",
            "a:",
            "/a",
            "a/",
            "a//b",
            "A",
            "a/B",
            "a b",
            "a_.b",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a:-t",
            "a:b:c",
            "quay.io/../x",
            "quay.io/a@sha256:00",
            "quay.io/a@sha512:00",
            "host:port/x",
            "host:/x",
            "host:99999/x",
            "[::1/x",
            "-host.io/x",
            "a\n",
            "h..o/x",
            "http://quay.io/x",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        let long = "a".repeat(129);
        assert!(format!("a:{long}").parse::<Reference>().is_err());
        assert!(format!("quay.io/{}", "a/".repeat(130) + "a").parse::<Reference>().is_err());
    }

    #[test]
    fn a_name_is_the_same_when_read_again() {
        for text in ["alpine", "localhost:1/a:b", "quay.io/x/y"] {
            let once: Reference = text.parse().unwrap();
            assert_eq!(once.to_string().parse::<Reference>().unwrap(), once);
        }
    }
}
