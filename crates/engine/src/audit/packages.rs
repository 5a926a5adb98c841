//! Packages that an image says it has: the databases of dpkg and apk.

use std::collections::BTreeMap;

use super::files::Files;
use crate::Error;

/// Bytes of a database at most.
const MAX_DATABASE: u64 = 64 << 20;
/// Files of distroless images, one for each package.
const STATUS_FOLDER: &[u8] = b"var/lib/dpkg/status.d";
const STATUS: &[u8] = b"var/lib/dpkg/status";
const INSTALLED: [&[u8]; 2] = [b"lib/apk/db/installed", b"usr/lib/apk/db/installed"];

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `dpkg` or `apk`.
    pub manager: &'static str,
    /// Name, with the architecture behind a colon where dpkg says one.
    pub name: String,
    /// Version.
    pub version: String,
}

/// How a package differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// `dpkg` or `apk`.
    pub manager: &'static str,
    /// Name.
    pub name: String,
    /// Version in the old image, if it is there.
    pub old: Option<String>,
    /// Version in the new one, if it is there.
    pub new: Option<String>,
}

/// All packages of an image.
pub(super) fn packages(files: &Files) -> Result<Vec<Package>, Error> {
    let mut all = Vec::new();
    if let Some(text) = files.small(STATUS, MAX_DATABASE)? {
        all.extend(dpkg(&text));
    }
    let singles: Vec<Vec<u8>> = files
        .tree
        .below(STATUS_FOLDER)
        .filter(|member| !member.path.ends_with(b".md5sums") && member.path != STATUS_FOLDER)
        .map(|member| member.path.clone())
        .collect();
    for path in singles {
        if let Some(text) = files.small(&path, MAX_DATABASE)? {
            all.extend(dpkg(&text));
        }
    }
    for path in INSTALLED {
        if let Some(text) = files.small(path, MAX_DATABASE)? {
            all.extend(apk(&text));
            break;
        }
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Paragraphs of fields: `NAME<separator>VALUE`, blank lines between them.
fn paragraphs<'a>(
    text: &'a str,
    separator: &'a str,
) -> impl Iterator<Item = BTreeMap<&'a str, &'a str>> + 'a {
    text.split("\n\n").map(move |paragraph| {
        // Lines that go on begin with a space.
        let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t']));
        lines
            .filter_map(|line| line.split_once(separator))
            .map(|(name, value)| (name, value.trim()))
            .collect()
    })
}

fn dpkg(text: &[u8]) -> Vec<Package> {
    let text = String::from_utf8_lossy(text);
    let installed = paragraphs(&text, ":").filter(|fields| {
        // Files of distroless images do not say; packages that were removed leave their names.
        fields.get("Status").is_none_or(|status| status.ends_with(" installed"))
    });
    let package = |fields: BTreeMap<&str, &str>| {
        let (name, version) = (fields.get("Package")?, fields.get("Version")?);
        let name = match fields.get("Architecture") {
            Some(architecture) => format!("{name}:{architecture}"),
            None => (*name).to_owned(),
        };
        Some(Package { manager: "dpkg", name, version: (*version).to_owned() })
    };
    installed.filter_map(package).collect()
}

fn apk(text: &[u8]) -> Vec<Package> {
    let text = String::from_utf8_lossy(text);
    let package = |fields: BTreeMap<&str, &str>| {
        let (name, version) = (fields.get("P")?, fields.get("V")?);
        Some(Package { manager: "apk", name: (*name).to_owned(), version: (*version).to_owned() })
    };
    paragraphs(&text, ":").filter_map(package).collect()
}

/// Versions of a package in the old image and in the new one.
type Versions<'a> = (Option<&'a str>, Option<&'a str>);

/// What differs between two lists.
pub(super) fn changes(old: &[Package], new: &[Package]) -> Vec<PackageChange> {
    let mut all: BTreeMap<(&'static str, &str), Versions<'_>> = BTreeMap::new();
    for package in old {
        all.entry((package.manager, &package.name)).or_default().0 = Some(&package.version);
    }
    for package in new {
        all.entry((package.manager, &package.name)).or_default().1 = Some(&package.version);
    }
    let differs = all.into_iter().filter(|(_, (old, new))| old != new);
    differs
        .map(|((manager, name), (old, new))| PackageChange {
            manager,
            name: name.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_are_read() {
        let status = "Package: a\nStatus: install ok installed\nArchitecture: amd64\nDescription: x\n y: z\nVersion: 1:2-3\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: half\n";
        let found = dpkg(status.as_bytes());
        assert_eq!(found, [Package { manager: "dpkg", name: "a:amd64".into(), version: "1:2-3".into() }]);
        let installed = "C:Q1x=\nP:musl\nV:1.2.4-r2\nF:lib\n\nP:busybox\nV:1.36\n";
        let found: Vec<String> =
            apk(installed.as_bytes()).into_iter().map(|p| p.name + " " + &p.version).collect();
        assert_eq!(found, ["musl 1.2.4-r2", "busybox 1.36"]);
        let package = |name: &str, version: &str| Package {
            manager: "apk",
            name: name.into(),
            version: version.into(),
        };
        let changed = changes(
            &[package("a", "1"), package("b", "1"), package("c", "1")],
            &[package("a", "1"), package("b", "2"), package("d", "1")],
        );
        let shown: Vec<_> =
            changed.iter().map(|c| (c.name.as_str(), c.old.as_deref(), c.new.as_deref())).collect();
        assert_eq!(shown, [("b", Some("1"), Some("2")), ("c", Some("1"), None), ("d", None, Some("1"))]);
    }
}
