//! Names of images, as in containers-transports(5).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use coracle_codec::oci::Reference;

use crate::Error;

/// Where an image is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    text: String,
    transport: Transport,
}

/// The kinds of places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// `docker://NAME`: a registry.
    Registry(Reference),
    /// `oci:PATH[:NAME]` or `oci:PATH@DIGEST`: a folder in the OCI image layout.
    Layout {
        /// The folder.
        path: PathBuf,
        /// Which image in it.
        image: Option<String>,
    },
    /// `oci-archive:PATH[:NAME]`: the same in a tar.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which image in it.
        image: Option<String>,
    },
    /// `docker-archive:PATH[:NAME]`: what `docker save` writes.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image in it.
        image: Option<Reference>,
    },
    /// `dir:PATH`: a flat folder, as skopeo writes it.
    Dir(PathBuf),
    /// `rootfs:PATH`: a tree of files.
    Rootfs(PathBuf),
    /// `docker-daemon:NAME`: what a Docker engine has.
    Daemon(String),
    /// `containers-storage:NAME`: what podman and its relatives have.
    Storage(String),
    /// `store:NAME`: the store of this machine.
    Store(Reference),
}

/// All transports by their prefix.
const PREFIXES: [&str; 9] = [
    "docker:",
    "oci:",
    "oci-archive:",
    "docker-archive:",
    "dir:",
    "rootfs:",
    "docker-daemon:",
    "containers-storage:",
    "store:",
];

impl ImageName {
    /// Where it is.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The image with this name in a registry.
    #[must_use]
    pub fn registry(reference: Reference) -> Self {
        ImageName { text: format!("docker://{reference}"), transport: Transport::Registry(reference) }
    }

    /// The image with this name in the store.
    #[must_use]
    pub fn store(reference: Reference) -> Self {
        ImageName { text: format!("store:{reference}"), transport: Transport::Store(reference) }
    }

    /// Whether `text` begins with a transport.
    pub fn has_transport(text: &str) -> bool {
        PREFIXES.iter().any(|prefix| text.starts_with(prefix))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |reason: String| Error::ImageName { text: text.to_owned(), reason };
        let reference = |name: &str| name.parse::<Reference>().map_err(|e| bad(e.to_string()));
        let path = |path: &str| {
            if path.is_empty() { Err(bad("the path is empty".into())) } else { Ok(PathBuf::from(path)) }
        };
        let prefix = PREFIXES.iter().find(|prefix| text.starts_with(**prefix));
        let rest = prefix.map_or(text, |prefix| &text[prefix.len()..]);
        let (transport, text) = match prefix.copied() {
            None => {
                let reference = reference(text)?;
                (Transport::Registry(reference.clone()), format!("docker://{reference}"))
            }
            Some("docker:") => {
                let Some(rest) = rest.strip_prefix("//") else {
                    return Err(bad("docker: is followed by //".into()));
                };
                (Transport::Registry(reference(rest)?), text.to_owned())
            }
            Some("oci:") => {
                let (folder, image) = path_and_image(rest);
                (Transport::Layout { path: path(folder)?, image }, text.to_owned())
            }
            Some("oci-archive:") => {
                let (file, image) = path_and_image(rest);
                (Transport::OciArchive { path: path(file)?, image }, text.to_owned())
            }
            Some("docker-archive:") => {
                let (file, image) =
                    rest.split_once(':').map_or((rest, None), |(file, image)| (file, Some(image)));
                let image = image.map(reference).transpose()?;
                (Transport::DockerArchive { path: path(file)?, image }, text.to_owned())
            }
            Some("dir:") => (Transport::Dir(path(rest)?), text.to_owned()),
            Some("rootfs:") => (Transport::Rootfs(path(rest)?), text.to_owned()),
            Some("store:") => {
                let reference = reference(rest)?;
                (Transport::Store(reference.clone()), format!("store:{reference}"))
            }
            Some("docker-daemon:") => {
                if !rest.starts_with("sha256:") {
                    reference(rest)?;
                }
                (Transport::Daemon(rest.to_owned()), text.to_owned())
            }
            Some(_) => {
                if rest.is_empty() {
                    return Err(bad("the name is empty".into()));
                }
                (Transport::Storage(rest.to_owned()), text.to_owned())
            }
        };
        Ok(ImageName { text, transport })
    }
}

/// `PATH`, `PATH:NAME` or `PATH@sha256:HEX`; NAME may hold colons, PATH none, as in skopeo.
fn path_and_image(text: &str) -> (&str, Option<String>) {
    if let Some((path, digest)) = text.split_once('@')
        && digest.starts_with("sha256:")
        && !path.contains(':')
    {
        return (path, Some(digest.to_owned()));
    }
    match text.split_once(':') {
        Some((path, "")) => (path, None),
        Some((path, image)) => (path, Some(image.to_owned())),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Transport {
        text.parse::<ImageName>().unwrap().transport
    }

    #[test]
    fn every_transport() {
        let layout = |path: &str, image: Option<&str>| Transport::Layout {
            path: path.into(),
            image: image.map(Into::into),
        };
        assert_eq!(parsed("oci:a/b"), layout("a/b", None));
        assert_eq!(parsed("oci:a/b:v1"), layout("a/b", Some("v1")));
        assert_eq!(parsed("oci:a:quay.io/x:v1"), layout("a", Some("quay.io/x:v1")));
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(parsed(&format!("oci:a@{digest}")), layout("a", Some(digest)));
        assert_eq!(parsed("oci-archive:a.tar:"), Transport::OciArchive { path: "a.tar".into(), image: None });
        assert_eq!(parsed("dir:/x:y"), Transport::Dir("/x:y".into()));
        assert_eq!(parsed("rootfs:."), Transport::Rootfs(".".into()));
        assert_eq!(parsed("docker-daemon:x:y"), Transport::Daemon("x:y".into()));
        assert_eq!(parsed("containers-storage:[vfs@/x]y"), Transport::Storage("[vfs@/x]y".into()));
        assert_eq!(
            parsed("docker-archive:a.tar:x/y:z"),
            Transport::DockerArchive { path: "a.tar".into(), image: Some("x/y:z".parse().unwrap()) }
        );
        assert_eq!(parsed("docker://alpine"), parsed("alpine"));
        assert_eq!(
            "alpine".parse::<ImageName>().unwrap().to_string(),
            "docker://docker.io/library/alpine:latest"
        );
        for bad in [
            "",
            "docker:alpine",
            "docker://",
            "oci:",
            "oci::x",
            "dir:",
            "rootfs:",
            "containers-storage:",
            "docker-archive:x:A B",
            "docker-daemon:",
            "docker://A",
        ] {
            assert!(matches!(bad.parse::<ImageName>(), Err(Error::ImageName { .. })), "{bad}");
        }
    }
}
