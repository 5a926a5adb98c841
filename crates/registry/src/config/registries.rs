//! registries.conf, version 2 (containers-registries.conf(5)): where a name is really served from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use coracle_codec::oci::{Reference, Repository, Version};
use serde::Deserialize;

use crate::Error;

/// The host that serves what is called `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// What is to be done with a name; mirrors serve pulls only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Fetching.
    Pull,
    /// Writing.
    Push,
}

/// A place that serves a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Host and port to connect to.
    pub host: String,
    /// The registry as credentials know it: `docker.io` for Docker Hub.
    pub registry: String,
    /// Path of the repository there.
    pub path: String,
    /// Whether untrusted certificates and plain HTTP will do.
    pub insecure: bool,
    /// Whether it is a mirror and not the registry itself.
    pub mirror: bool,
}

/// All `[[registry]]` tables, by prefix.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    tables: BTreeMap<String, (Table, PathBuf)>,
    helpers: Vec<String>,
    /// Every registry is treated as insecure.
    all_insecure: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Table>,
    credential_helpers: Option<Vec<String>>,
    /// The form of version 1, which is refused.
    registries: Option<toml::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Table {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

impl Registries {
    /// Reads `main` and then, in order of their names, the files `*.conf` of each folder in `drop_ins`. A table with the
    /// prefix of an earlier one replaces it. What does not exist says nothing.
    ///
    /// # Errors
    /// [`Error::Config`] for a file that cannot be read or understood.
    pub fn load(main: Option<&Path>, drop_ins: &[PathBuf]) -> Result<Self, Error> {
        let mut all = Registries::default();
        if let Some(main) = main {
            all.read(main)?;
        }
        for folder in drop_ins {
            let entries = match std::fs::read_dir(folder) {
                Ok(entries) => entries,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(config(folder, &e)),
            };
            let mut files = Vec::new();
            for entry in entries {
                let path = entry.map_err(|e| config(folder, &e))?.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    files.push(path);
                }
            }
            files.sort();
            for file in files {
                all.read(&file)?;
            }
        }
        Ok(all)
    }

    /// The same, with every registry and mirror treated as insecure.
    #[must_use]
    pub fn all_insecure(mut self, all: bool) -> Self {
        self.all_insecure = all;
        self
    }

    /// Names of credential helpers to ask for every registry, `containers-auth.json` being the files.
    pub(crate) fn helpers(&self) -> &[String] {
        &self.helpers
    }

    fn read(&mut self, path: &Path) -> Result<(), Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(config(path, &e)),
        };
        let file: File = toml::from_str(&text).map_err(|e| config(path, &e))?;
        if file.registries.is_some() {
            return Err(config(path, &"version 1 of this file is not supported; use [[registry]] tables"));
        }
        if let Some(helpers) = file.credential_helpers {
            self.helpers = helpers;
        }
        for table in file.registry {
            let Some(prefix) = table.prefix.clone().or_else(|| table.location.clone()) else {
                return Err(config(path, &"a [[registry]] has neither prefix nor location"));
            };
            if prefix.starts_with("*.") && table.location.is_some() {
                let has_path = prefix.contains('/');
                if has_path {
                    return Err(config(path, &"a prefix with a wildcard cannot have a path"));
                }
            }
            for mirror in &table.mirror {
                let how = mirror.pull_from_mirror.as_deref().unwrap_or("all");
                if !["all", "digest-only", "tag-only"].contains(&how) {
                    return Err(config(path, &format!("pull-from-mirror cannot be {how:?}")));
                }
            }
            let prefix = prefix.trim_end_matches('/').to_owned();
            self.tables.insert(prefix, (table, path.to_owned()));
        }
        Ok(())
    }

    /// The table with the longest prefix that fits.
    fn table(&self, reference: &Reference) -> Option<(&str, &Table, &Path)> {
        let name = reference.repository().to_string();
        let full = reference.to_string();
        let mut best: Option<(&str, &Table, &Path)> = None;
        for (prefix, (table, file)) in &self.tables {
            let fits = match prefix.strip_prefix('*') {
                Some(domain) => reference.repository().registry().ends_with(domain),
                None => [&name, &full].into_iter().any(|whole| {
                    whole.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                        rest.is_empty()
                            || rest.starts_with('/')
                            || rest.starts_with(':')
                            || rest.starts_with('@')
                    })
                }),
            };
            if fits && best.is_none_or(|(other, ..)| prefix.len() >= other.len()) {
                best = Some((prefix, table, file));
            }
        }
        best
    }

    /// Where to go for `reference`, in order: mirrors (for pulls), then the registry itself.
    ///
    /// # Errors
    /// [`Error::Blocked`]; [`Error::Config`] if rewriting gives no valid name.
    pub fn places(&self, reference: &Reference, purpose: Purpose) -> Result<Vec<Place>, Error> {
        let repository = reference.repository();
        let mut places = Vec::new();
        let Some((prefix, table, file)) = self.table(reference) else {
            places.push(self.place(repository, false, false));
            return Ok(places);
        };
        if table.blocked {
            return Err(Error::Blocked { what: reference.to_string(), conf: file.to_owned() });
        }
        let by_digest = matches!(reference.version(), Version::Digest(_));
        for mirror in table.mirror.iter().filter(|_| purpose == Purpose::Pull) {
            let serves = match mirror.pull_from_mirror.as_deref() {
                Some("digest-only") => by_digest,
                Some("tag-only") => !by_digest,
                _ => by_digest || !table.mirror_by_digest_only,
            };
            if serves {
                let repository = rewrite(repository, prefix, &mirror.location, file)?;
                places.push(self.place(&repository, mirror.insecure, true));
            }
        }
        let location = match &table.location {
            Some(location) if !location.is_empty() => rewrite(repository, prefix, location, file)?,
            _ => repository.clone(),
        };
        places.push(self.place(&location, table.insecure, false));
        Ok(places)
    }

    /// Whether `host` may have an untrusted certificate, for redirects: what a table for it says.
    pub(crate) fn host_is_insecure(&self, host: &str) -> bool {
        self.all_insecure
            || self.tables.values().any(|(table, _)| {
                let same = |location: &str| location.split('/').next() == Some(host);
                (table.insecure && table.location.as_deref().or(table.prefix.as_deref()).is_some_and(same))
                    || table.mirror.iter().any(|mirror| mirror.insecure && same(&mirror.location))
            })
    }

    fn place(&self, repository: &Repository, insecure: bool, mirror: bool) -> Place {
        let registry = repository.registry();
        Place {
            host: if registry == "docker.io" { DOCKER_HUB_HOST.into() } else { registry.to_owned() },
            registry: registry.to_owned(),
            path: repository.path().to_owned(),
            insecure: insecure || self.all_insecure,
            mirror,
        }
    }
}

/// `repository` with `prefix` replaced by `location`.
fn rewrite(repository: &Repository, prefix: &str, location: &str, file: &Path) -> Result<Repository, Error> {
    let name = repository.to_string();
    let location = location.trim_end_matches('/');
    let rest = match prefix.strip_prefix('*') {
        // The whole host is replaced.
        Some(_) => &name[repository.registry().len()..],
        None => name.strip_prefix(prefix).unwrap_or_default(),
    };
    let new = format!("{location}{rest}");
    let (host, path) = new.split_once('/').unwrap_or((&new, ""));
    Repository::new(host, path).map_err(|e| config(file, &format!("location {location:?} gives {new}: {e}")))
}

fn config(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Config { path: path.to_owned(), reason: reason.to_string().trim().replace('\n', "; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn registries(text: &str) -> Result<Registries, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("registries.conf");
        std::fs::write(&file, text).unwrap();
        Registries::load(Some(&file), &[])
    }

    fn hosts(all: &Registries, name: &str, purpose: Purpose) -> Vec<String> {
        let places = all.places(&name.parse().unwrap(), purpose).unwrap();
        places.iter().map(|p| format!("{}/{}{}", p.host, p.path, if p.insecure { "!" } else { "" })).collect()
    }

    #[test]
    fn names_go_to_mirrors_first() {
        let all = registries(
            r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "docker.io"
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.local:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "second.local"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "quay.io/a"
            location = "other.io/b/c"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "third.local"
            [[registry]]
            prefix = "*.internal"
            location = "gate.example:8443"
            insecure = true
            "#,
        )
        .unwrap();
        let pull = |name: &str| hosts(&all, name, Purpose::Pull);
        let hub = "registry-1.docker.io/library/alpine";
        assert_eq!(pull("alpine"), ["mirror.local:5000/hub/library/alpine!", hub]);
        assert_eq!(
            pull(&format!("alpine@{DIGEST}")),
            ["mirror.local:5000/hub/library/alpine!", "second.local/library/alpine", hub]
        );
        assert_eq!(hosts(&all, "alpine", Purpose::Push), [hub]);
        assert_eq!(pull("quay.io/a/x"), ["other.io/b/c/x"]);
        assert_eq!(pull(&format!("quay.io/a/x@{DIGEST}")), ["third.local/x", "other.io/b/c/x"]);
        assert_eq!(pull("quay.io/ab/x"), ["quay.io/ab/x"]);
        assert_eq!(pull("x.internal/y/z"), ["gate.example:8443/y/z!"]);
        assert_eq!(pull("ghcr.io/x/y"), ["ghcr.io/x/y"]);
        assert_eq!(hosts(&all.clone().all_insecure(true), "ghcr.io/x", Purpose::Pull), ["ghcr.io/x!"]);
        assert!(all.host_is_insecure("mirror.local:5000") && !all.host_is_insecure("second.local"));
    }

    #[test]
    fn drop_ins_replace_and_blocking_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        put("registries.conf", "[[registry]]\nlocation = \"a.io\"\nblocked = true\n");
        put("10-x.conf", "[[registry]]\nprefix = \"b.io/x\"\nblocked = true\n");
        put("20-x.conf", "[[registry]]\nlocation = \"a.io\"\n");
        put("ignored.txt", "not toml");
        let main = dir.path().join("registries.conf");
        let all = Registries::load(Some(&main), &[]).unwrap();
        assert!(matches!(
            all.places(&"a.io/x".parse().unwrap(), Purpose::Pull),
            Err(Error::Blocked { conf, .. }) if conf == main
        ));
        std::fs::rename(&main, dir.path().join("00.conf")).unwrap();
        let all = Registries::load(None, &[dir.path().join("missing"), dir.path().to_owned()]).unwrap();
        assert_eq!(hosts(&all, "a.io/x", Purpose::Pull), ["a.io/x"]);
        assert!(all.places(&"b.io/x:t".parse().unwrap(), Purpose::Push).is_err());
        assert_eq!(hosts(&all, "b.io/y", Purpose::Pull), ["b.io/y"]);
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            "[registries.search]\nregistries = ['x']",
            "[[registry]]\nblocked = true",
            "[[registry",
            "[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\nlocation='b'\npull-from-mirror='never'",
            "[[registry]]\nlocation = 5",
        ] {
            assert!(matches!(registries(text), Err(Error::Config { .. })), "{text}");
        }
        let odd = registries("[[registry]]\nprefix = 'a.io'\nlocation = 'B/../c'").unwrap();
        assert!(odd.places(&"a.io/x".parse().unwrap(), Purpose::Pull).is_err());
    }
}
