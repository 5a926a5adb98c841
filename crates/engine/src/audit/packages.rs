//! Packages that an image says it has: the databases of dpkg, apk and rpm.

use std::collections::{BTreeMap, BTreeSet};

use coracle_codec::rpm::{self, Limits};

use super::files::Files;
use crate::Error;

/// Bytes of a database at most, and of one of rpm, which is read from memory as well.
const MAX_DATABASE: u64 = 64 << 20;
const MAX_RPM: u64 = 512 << 20;
/// Where rpm's are, of which one may be a link to the other, and under which names.
const RPM_FOLDERS: [&str; 2] = ["usr/lib/sysimage/rpm", "var/lib/rpm"];
const RPM_FILES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];
/// Files of distroless images, one for each package.
const STATUS_FOLDER: &[u8] = b"var/lib/dpkg/status.d";
const STATUS: &[u8] = b"var/lib/dpkg/status";
const INSTALLED: [&[u8]; 2] = [b"lib/apk/db/installed", b"usr/lib/apk/db/installed"];

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// `dpkg`, `apk` or `rpm`.
    pub manager: &'static str,
    /// Name, with the architecture behind a colon where dpkg says one, and behind a dot where rpm does.
    pub name: String,
    /// Version; of rpm with epoch, if there is one, and release.
    pub version: String,
}

/// How a package differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    /// `dpkg`, `apk` or `rpm`.
    pub manager: &'static str,
    /// Name.
    pub name: String,
    /// Version in the old image, if it is there.
    pub old: Option<String>,
    /// Version in the new one, if it is there.
    pub new: Option<String>,
}

/// All packages of an image. What cannot be read is told in `notes`.
pub(super) fn packages(files: &Files, notes: &mut Vec<String>) -> Result<Vec<Package>, Error> {
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
    all.extend(rpm(files, notes)?);
    all.sort();
    all.dedup();
    Ok(all)
}

fn rpm(files: &Files, notes: &mut Vec<String>) -> Result<Vec<Package>, Error> {
    for path in RPM_FOLDERS.iter().flat_map(|folder| RPM_FILES.map(|file| format!("{folder}/{file}"))) {
        let Some(size) = files.size(path.as_bytes()) else { continue };
        if size > MAX_RPM {
            notes.push(format!("{path} has {size} bytes: packages of rpm are not compared"));
            return Ok(Vec::new());
        }
        let Some(database) = files.small(path.as_bytes(), MAX_RPM)? else { continue };
        let log = files.small(format!("{path}-wal").as_bytes(), MAX_RPM)?.unwrap_or_default();
        let package = |package: rpm::Package| {
            let version = package.evr();
            let name = match package.architecture {
                Some(architecture) => format!("{}.{architecture}", package.name),
                None => package.name,
            };
            Package { manager: "rpm", name, version }
        };
        return Ok(match rpm::packages(&database, &log, &Limits::default()) {
            Ok(found) => found.into_iter().map(package).collect(),
            Err(error) => {
                notes.push(format!("{path}: packages of rpm are not compared: {error}"));
                Vec::new()
            }
        });
    }
    Ok(Vec::new())
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

/// What differs between two lists. Where a package is there in several versions at a time, each that came or went is told by
/// itself.
pub(super) fn changes(old: &[Package], new: &[Package]) -> Vec<PackageChange> {
    let mut all: BTreeMap<(&'static str, &str), [BTreeSet<&str>; 2]> = BTreeMap::new();
    for (side, packages) in [old, new].into_iter().enumerate() {
        for package in packages {
            all.entry((package.manager, &package.name)).or_default()[side].insert(&package.version);
        }
    }
    let mut changes = Vec::new();
    for ((manager, name), [old, new]) in all {
        let change = |old: Option<&&str>, new: Option<&&str>| PackageChange {
            manager,
            name: name.to_owned(),
            old: old.map(|version| (*version).to_owned()),
            new: new.map(|version| (*version).to_owned()),
        };
        let gone: Vec<&&str> = old.difference(&new).collect();
        let come: Vec<&&str> = new.difference(&old).collect();
        match (gone.as_slice(), come.as_slice()) {
            ([gone], [come]) if old.len() == 1 && new.len() == 1 => {
                changes.push(change(Some(gone), Some(come)))
            }
            (gone, come) => {
                changes.extend(gone.iter().map(|gone| change(Some(gone), None)));
                changes.extend(come.iter().map(|come| change(None, Some(come))));
            }
        }
    }
    changes
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
        let changed = changes(
            &[package("kernel", "1"), package("kernel", "2"), package("key", "1")],
            &[package("kernel", "2"), package("kernel", "3"), package("key", "1"), package("key", "2")],
        );
        let shown: Vec<_> =
            changed.iter().map(|c| (c.name.as_str(), c.old.as_deref(), c.new.as_deref())).collect();
        let expected = [("kernel", Some("1"), None), ("kernel", None, Some("3")), ("key", None, Some("2"))];
        assert_eq!(shown, expected);
    }
}
