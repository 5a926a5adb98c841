//! What a policy calls an image: its transport, its scopes, and the name that a signature has to give it
//! (containers-policy.json(5), "Supported transports and their scopes").

use std::path::{Path, PathBuf};

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Reference, Version};
use coracle_codec::trust::Identity;
use coracle_codec::trust::policy::Scopes;

use crate::image::{ImageName, Transport};

/// An image as a policy sees it.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// For messages.
    pub(crate) name: String,
    pub(crate) scopes: Scopes,
    /// Why the scopes are not all that there may be; then only a policy without closer scopes can be asked.
    pub(crate) unclear: Option<&'static str>,
    pub(crate) identity: Identity,
}

impl Subject {
    /// The image that a name leads to.
    pub(crate) fn of(name: &ImageName) -> Self {
        let place = Identity::Place(name.to_string());
        let mut unclear = None;
        let (transport, scopes, identity) = match name.transport() {
            Transport::Registry(reference) => ("docker", named(reference), identity(reference)),
            Transport::Layout { path, .. } => ("oci", paths(path), place),
            Transport::OciArchive { path, .. } => ("oci-archive", paths(path), place),
            Transport::DockerArchive { image, .. } => {
                ("docker-archive", Vec::new(), image.as_ref().map_or(place, identity))
            }
            Transport::Dir(path) => ("dir", paths(path), place),
            Transport::Rootfs(path) => ("rootfs", paths(path), place),
            Transport::Daemon(text) => match text.parse::<Reference>() {
                Ok(reference) if !text.starts_with("sha256:") => {
                    ("docker-daemon", named(&reference), identity(&reference))
                }
                _ => ("docker-daemon", Vec::new(), place),
            },
            Transport::Storage(text) => match storage(text) {
                Some((scopes, reference)) => {
                    ("containers-storage", scopes, reference.as_ref().map_or(place, identity))
                }
                None => {
                    unclear = Some(
                        "its policy has scopes, and which store the image is in is not told: write \
                         containers-storage:[DRIVER@ROOT]NAME",
                    );
                    ("containers-storage", Vec::new(), place)
                }
            },
            Transport::Store(reference) => ("store", named(reference), identity(reference)),
        };
        Subject { name: name.to_string(), scopes: Scopes { transport, scopes }, unclear, identity }
    }

    /// The target of a delta artifact that a name leads to: an image in the same place, known by its digest alone.
    pub(crate) fn target_of(delta: &ImageName, target: Digest) -> Self {
        let mut subject = Subject::of(delta);
        if let Transport::Registry(reference) = delta.transport() {
            let image = reference.repository().with_digest(target);
            subject.scopes.scopes.insert(0, image.to_string());
            subject.identity = Identity::Named(image);
        }
        subject.name = format!("{}: target {target}", subject.name);
        subject
    }
}

/// A name with a digest is that digest; a tag beside it is a wish, which nobody checks.
fn identity(reference: &Reference) -> Identity {
    Identity::Named(match reference.version() {
        Version::Tag(_) => reference.clone(),
        Version::Digest(digest) => reference.repository().with_digest(*digest),
    })
}

/// The name, the repository, its folders, its host, and the domains that the host belongs to.
fn named(reference: &Reference) -> Vec<String> {
    let repository = reference.repository();
    let name = repository.to_string();
    let mut scopes = Vec::new();
    if let Some(digest) = reference.digest() {
        scopes.push(format!("{name}@{digest}"));
    }
    if let Some(tag) = reference.tag() {
        scopes.push(format!("{name}:{tag}"));
    }
    scopes.extend(folders(&name));
    let host = repository.registry();
    let mut domain = host.split_once(':').map_or(host, |(domain, _)| domain);
    while let Some((_, above)) = domain.split_once('.') {
        scopes.push(format!("*.{above}"));
        domain = above;
    }
    scopes
}

/// `a/b/c`, `a/b`, `a`.
fn folders(name: &str) -> impl Iterator<Item = String> {
    std::iter::successors(Some(name), |name| name.rsplit_once('/').map(|(above, _)| above)).map(str::to_owned)
}

/// A path without links, and the folders it is in, without the outermost one.
fn paths(path: &Path) -> Vec<String> {
    let resolved = resolve(path);
    let shown = resolved.to_string_lossy();
    let shown = shown.trim_end_matches('/');
    folders(shown).filter(|path| !path.is_empty()).collect()
}

/// The path as it really is; of one that is not there, as far as it is.
fn resolve(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(found) = std::fs::canonicalize(&absolute) {
        return found;
    }
    match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => absolute,
    }
}

/// Scopes of `[DRIVER@ROOT...]NAME[@ID]`; `None` if the store is not named.
fn storage(text: &str) -> Option<(Vec<String>, Option<Reference>)> {
    let (store, image) = text.strip_prefix('[')?.split_once(']')?;
    let (driver, rest) = store.split_once('@')?;
    // Behind the root may stand where running containers are, and options.
    let root = rest.split(['+', ':']).next().filter(|root| root.starts_with('/') && root.len() > 1)?;
    let (store, driverless) = (format!("[{driver}@{root}]"), format!("[{root}]"));
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let (name, id) = match image.rsplit_once('@') {
        Some((name, id)) if is_id(id) => (name, Some(id)),
        _ => (image, None),
    };
    let reference = (!name.is_empty()).then(|| name.parse::<Reference>().ok()).flatten();
    let mut scopes = Vec::new();
    if let Some(id) = id {
        let name = reference.as_ref().map(ToString::to_string).unwrap_or_default();
        scopes.push(format!("{store}{name}@{id}"));
    }
    if let Some(reference) = &reference {
        scopes.push(format!("{store}{reference}"));
        let repository = reference.repository();
        if let (Some(_), Some(tag)) = (reference.digest(), reference.tag()) {
            scopes.push(format!("{store}{repository}:{tag}"));
        }
        scopes.extend(folders(&repository.to_string()).map(|folder| format!("{store}{folder}")));
    }
    scopes.extend([store, driverless]);
    Some((scopes, reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn scopes(name: &str) -> (String, Vec<String>) {
        let subject = Subject::of(&name.parse().unwrap());
        (subject.scopes.transport.to_owned(), subject.scopes.scopes)
    }

    #[test]
    fn scopes_from_the_closest_outwards() {
        let id = "a".repeat(64);
        for (name, transport, wanted) in [
            (
                "docker://example.com:8443/ns/app:1",
                "docker",
                "example.com:8443/ns/app:1 example.com:8443/ns/app example.com:8443/ns example.com:8443 *.com",
            ),
            (
                "busybox",
                "docker",
                "docker.io/library/busybox:latest docker.io/library/busybox docker.io/library docker.io *.io",
            ),
            ("docker://a.b.c.d/x:1", "docker", "a.b.c.d/x:1 a.b.c.d/x a.b.c.d *.b.c.d *.c.d *.d"),
            ("docker://localhost:5000/x:1", "docker", "localhost:5000/x:1 localhost:5000/x localhost:5000"),
            (&format!("docker://h.io/x@{D}"), "docker", &format!("h.io/x@{D} h.io/x h.io *.io")),
            (&format!("docker://h.io/x:1@{D}"), "docker", &format!("h.io/x@{D} h.io/x:1 h.io/x h.io *.io")),
            ("docker-daemon:h.io/x:1", "docker-daemon", "h.io/x:1 h.io/x h.io *.io"),
            (&format!("docker-daemon:{D}"), "docker-daemon", ""),
            ("docker-archive:/x/y.tar:h.io/x:1", "docker-archive", ""),
            ("dir:/nowhere/./a/../b", "dir", "/nowhere/a/../b /nowhere/a/.. /nowhere/a /nowhere"),
            ("oci:/nowhere/a:tag", "oci", "/nowhere/a /nowhere"),
            ("oci-archive:/nowhere/a.tar", "oci-archive", "/nowhere/a.tar /nowhere"),
            ("rootfs:/nowhere", "rootfs", "/nowhere"),
            ("store:h.io/x:1", "store", "h.io/x:1 h.io/x h.io *.io"),
            (
                &format!("containers-storage:[overlay@/var/lib/x+/run/x]h.io/y:1@{id}"),
                "containers-storage",
                &format!(
                    "[overlay@/var/lib/x]h.io/y:1@{id} [overlay@/var/lib/x]h.io/y:1 [overlay@/var/lib/x]h.io/y \
                     [overlay@/var/lib/x]h.io [overlay@/var/lib/x] [/var/lib/x]"
                ),
            ),
            (
                &format!("containers-storage:[vfs@/x]@{id}"),
                "containers-storage",
                &format!("[vfs@/x]@{id} [vfs@/x] [/x]"),
            ),
        ] {
            let (found, scopes) = scopes(name);
            assert_eq!((found.as_str(), scopes.join(" ").as_str()), (transport, wanted), "{name}");
        }
        assert!(Subject::of(&"containers-storage:h.io/y:1".parse().unwrap()).unclear.is_some());
    }

    #[test]
    fn links_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("link")).unwrap();
        let (_, scopes) = scopes(&format!("oci:{}/link/not-there", dir.path().display()));
        assert_eq!(scopes[..2], [real.join("not-there").display().to_string(), real.display().to_string()]);
    }

    #[test]
    fn the_target_of_a_delta_is_known_by_its_digest() {
        let target: Digest = D.parse().unwrap();
        let subject = Subject::target_of(&"docker://h.io/x:delta".parse().unwrap(), target);
        assert_eq!(subject.identity.to_string(), format!("h.io/x@{D}"));
        assert_eq!(subject.scopes.scopes[..2], [format!("h.io/x@{D}"), "h.io/x:delta".to_owned()]);
    }
}
