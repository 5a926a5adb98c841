//! Which name a signature may give to an image (containers-policy.json(5), `signedIdentity`).

use std::fmt;

use crate::oci::{Reference, Repository, Version};

/// A name as it is written, without a default for what is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    reference: Reference,
    /// Neither tag nor digest.
    bare: bool,
}

impl Named {
    /// Reads a name; one without a registry is completed, one without tag and digest is not.
    pub fn parse(text: &str) -> Option<Self> {
        let reference: Reference = text.parse().ok()?;
        let last = text.rsplit('/').next().unwrap_or(text);
        Some(Named { reference, bare: !last.contains([':', '@']) })
    }

    /// Whether it has neither tag nor digest.
    pub fn is_bare(&self) -> bool {
        self.bare
    }

    fn repository(&self) -> &Repository {
        self.reference.repository()
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bare { self.repository().fmt(f) } else { self.reference.fmt(f) }
    }
}

/// What an image is known by here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A name in a registry.
    Named(Reference),
    /// A place without such a name, such as a folder.
    Place(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Named(reference) => reference.fmt(f),
            Identity::Place(place) => f.write_str(place),
        }
    }
}

/// Which names are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityRule {
    /// The very name.
    MatchExact,
    /// The very name; of an image named by its digest, any in its repository.
    MatchRepoDigestOrExact,
    /// Any in the image's repository.
    MatchRepository,
    /// This one.
    ExactReference(Named),
    /// Any in this repository.
    ExactRepository(Named),
    /// The image's name with another beginning, and then as `MatchRepoDigestOrExact`.
    RemapIdentity {
        /// What the image's name has to begin with.
        prefix: String,
        /// What takes its place.
        signed_prefix: String,
    },
}

impl IdentityRule {
    /// Whether a signature that says `signed` is accepted for `image`.
    pub fn accepts(&self, image: &Identity, signed: &str) -> bool {
        let Some(signed) = Named::parse(signed) else { return false };
        let image = || match image {
            Identity::Named(reference) => Some(reference.clone()),
            Identity::Place(_) => None,
        };
        match self {
            IdentityRule::MatchExact => image().is_some_and(|image| exactly(&signed, &image)),
            IdentityRule::MatchRepoDigestOrExact => {
                image().is_some_and(|image| repository_or_exactly(&signed, &image))
            }
            IdentityRule::MatchRepository => {
                image().is_some_and(|image| signed.repository() == image.repository())
            }
            IdentityRule::ExactReference(wanted) => {
                !wanted.bare && !signed.bare && signed.reference == wanted.reference
            }
            IdentityRule::ExactRepository(wanted) => signed.repository() == wanted.repository(),
            IdentityRule::RemapIdentity { prefix, signed_prefix } => image()
                .and_then(|image| remapped(&image, prefix, signed_prefix))
                .is_some_and(|image| repository_or_exactly(&signed, &image)),
        }
    }

    /// In words, for `image`.
    pub fn wants(&self, image: &Identity) -> String {
        match (self, image) {
            (IdentityRule::ExactReference(wanted), _) => format!("{wanted}"),
            (IdentityRule::ExactRepository(wanted), _) => format!("a name in {}", wanted.repository()),
            (_, Identity::Place(_)) => {
                "a name that the image has in a registry, and it is in none".to_owned()
            }
            (IdentityRule::MatchExact, Identity::Named(image)) => image.to_string(),
            (IdentityRule::MatchRepository, Identity::Named(image)) => {
                format!("a name in {}", image.repository())
            }
            (IdentityRule::MatchRepoDigestOrExact, Identity::Named(image)) => exact_or_repository(image),
            (IdentityRule::RemapIdentity { prefix, signed_prefix }, Identity::Named(image)) => {
                match remapped(image, prefix, signed_prefix) {
                    Some(image) => exact_or_repository(&image),
                    None => format!("a name that begins with {signed_prefix:?}, which would be none"),
                }
            }
        }
    }
}

fn exact_or_repository(image: &Reference) -> String {
    match image.version() {
        Version::Tag(_) => image.to_string(),
        Version::Digest(_) => format!("a name with a tag in {}", image.repository()),
    }
}

fn exactly(signed: &Named, image: &Reference) -> bool {
    !signed.bare && signed.reference == *image
}

fn repository_or_exactly(signed: &Named, image: &Reference) -> bool {
    match image.version() {
        Version::Tag(_) => exactly(signed, image),
        // The digest itself is compared with what was signed.
        Version::Digest(_) => !signed.bare && signed.repository() == image.repository(),
    }
}

/// `image` with `prefix` replaced, if its name begins with that; `None` if the result is no name.
fn remapped(image: &Reference, prefix: &str, signed_prefix: &str) -> Option<Reference> {
    let name = image.repository().to_string();
    let Some(rest) = name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return Some(image.clone());
    };
    let (registry, path) = format!("{signed_prefix}{rest}")
        .split_once('/')
        .map(|(registry, path)| (registry.to_owned(), path.to_owned()))?;
    let repository = Repository::new(&registry, &path).ok()?;
    match image.version() {
        Version::Tag(tag) => repository.with_tag(tag),
        Version::Digest(digest) => Some(repository.with_digest(*digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn named(text: &str) -> Identity {
        Identity::Named(text.parse().unwrap())
    }

    #[test]
    fn names_match_as_the_policy_says() {
        use IdentityRule as R;
        let reference = |text: &str| R::ExactReference(Named::parse(text).unwrap());
        let repository = |text: &str| R::ExactRepository(Named::parse(text).unwrap());
        let remap = |prefix: &str, signed_prefix: &str| R::RemapIdentity {
            prefix: prefix.into(),
            signed_prefix: signed_prefix.into(),
        };
        let tagged = "h.io/ns/app:1";
        let pinned = &format!("h.io/ns/app@{D}");
        let both = &format!("h.io/ns/app:1@{D}");
        for (rule, image, signed, accepted) in [
            (R::MatchExact, tagged, "h.io/ns/app:1", true),
            (R::MatchExact, tagged, "h.io/ns/app:2", false),
            (R::MatchExact, tagged, "h.io/ns/app", false),
            (R::MatchExact, "busybox", "docker.io/library/busybox:latest", true),
            (R::MatchExact, "busybox", "busybox", false),
            (R::MatchExact, "busybox", "busybox:latest", true),
            (R::MatchExact, pinned, "h.io/ns/app:1", false),
            (R::MatchExact, pinned, pinned, true),
            (R::MatchExact, tagged, "h.io:443/ns/app:1", false),
            (R::MatchExact, tagged, "not a name", false),
            (R::MatchExact, tagged, "", false),
            (R::MatchRepoDigestOrExact, tagged, "h.io/ns/app:1", true),
            (R::MatchRepoDigestOrExact, tagged, "h.io/ns/app:2", false),
            (R::MatchRepoDigestOrExact, tagged, "h.io/ns/app", false),
            (R::MatchRepoDigestOrExact, pinned, "h.io/ns/app:2", true),
            (R::MatchRepoDigestOrExact, pinned, "h.io/ns/app", false),
            (R::MatchRepoDigestOrExact, pinned, "h.io/ns/other:1", false),
            (R::MatchRepoDigestOrExact, both, "h.io/ns/app:2", true),
            (R::MatchRepository, tagged, "h.io/ns/app", true),
            (R::MatchRepository, tagged, "h.io/ns/app:9", true),
            (R::MatchRepository, tagged, "h.io/ns/app2:1", false),
            (R::MatchRepository, tagged, "h.io/ns:1", false),
            (R::MatchRepository, pinned, "h.io/ns/app", true),
            (reference("h.io/up/app:1"), tagged, "h.io/up/app:1", true),
            (reference("h.io/up/app:1"), tagged, "h.io/ns/app:1", false),
            (reference("h.io/up/app"), tagged, "h.io/up/app", false),
            (repository("h.io/up/app"), tagged, "h.io/up/app:7", true),
            (repository("h.io/up/app"), tagged, "h.io/up/app", true),
            (repository("h.io/up/app"), tagged, "h.io/ns/app:1", false),
            (remap("h.io/ns", "up.io"), tagged, "up.io/app:1", true),
            (remap("h.io/ns", "up.io"), tagged, "h.io/ns/app:1", false),
            (remap("h.io/n", "up.io"), tagged, "h.io/ns/app:1", true),
            (remap("h.io", "up.io/m"), tagged, "up.io/m/ns/app:1", true),
            (remap("h.io/ns/app", "up.io/x"), tagged, "up.io/x:1", true),
            (remap("h.io/ns", "up.io"), pinned, "up.io/app:5", true),
            (remap("h.io/ns/app", "up.io"), tagged, "up.io:1", false),
        ] {
            assert_eq!(rule.accepts(&named(image), signed), accepted, "{rule:?} {image} {signed}");
        }
    }

    #[test]
    fn a_place_without_a_name_needs_an_exact_rule() {
        let place = Identity::Place("oci:/x".into());
        let signed = "h.io/up/app:1";
        for rule in [
            IdentityRule::MatchExact,
            IdentityRule::MatchRepoDigestOrExact,
            IdentityRule::MatchRepository,
            IdentityRule::RemapIdentity { prefix: "h.io".into(), signed_prefix: "h.io".into() },
        ] {
            assert!(!rule.accepts(&place, signed), "{rule:?}");
            assert!(rule.wants(&place).contains("it is in none"), "{rule:?}");
        }
        assert!(IdentityRule::ExactReference(Named::parse(signed).unwrap()).accepts(&place, signed));
        assert!(IdentityRule::ExactRepository(Named::parse("h.io/up/app").unwrap()).accepts(&place, signed));
    }
}
