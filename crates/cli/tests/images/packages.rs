//! `compare` and the databases of rpm, against rpm itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use coracle_testkit::oci::{Compression, image};
use coracle_testkit::oracle::{run_ok, tool};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::{Value, json};

use super::site::LIMIT;
use crate::place::Place;

/// Runs a line of shell in a folder; what it printed.
fn shell(dir: &Path, line: &str) -> String {
    let mut command = Command::new(tool("sh").unwrap());
    String::from_utf8(run_ok(command.args(["-ec", line]).current_dir(dir), LIMIT).unwrap()).unwrap()
}

/// A package file without files.
fn package(dir: &Path, name: &str, epoch: Option<u32>, version: &str, release: &str) -> String {
    tool("rpmbuild").unwrap();
    let epoch = epoch.map(|epoch| format!("Epoch: {epoch}\n")).unwrap_or_default();
    let words = "It has nothing in it and says so at length. ".repeat(200);
    let spec = format!(
        "Name: {name}\nVersion: {version}\nRelease: {release}\n{epoch}Summary: For tests\nLicense: MIT\n\
         BuildArch: noarch\n%description\n{words}\n%files\n"
    );
    fs::write(dir.join("spec"), spec).unwrap();
    let line = "rpmbuild --quiet -bb --define \"_topdir $PWD/top\" --define '_rpmdir %{_topdir}' spec 2>&1";
    shell(dir, line);
    format!("top/noarch/{name}-{version}-{release}.noarch.rpm")
}

/// What rpm lists, as `compare` shows it.
fn listed(dir: &Path, options: &str) -> Vec<(String, String)> {
    let query =
        "rpm --dbpath $PWD/db -qa --qf '%{NAME}.%{ARCH} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n'";
    let text = shell(dir, &format!("{query} {options} 2>/dev/null"));
    let mut all: Vec<(String, String)> =
        text.lines().map(|line| line.split_once(' ').unwrap()).map(|(a, b)| (a.into(), b.into())).collect();
    all.sort();
    all
}

/// An image with these files in the folder of the database.
fn put(place: &Place, name: &str, folder: &str, files: &[(&str, Vec<u8>)]) -> String {
    let mut tar = TarBuilder::new();
    tar.dir(folder);
    for (file, content) in files {
        tar.file(format!("{folder}/{file}"), content);
    }
    let bundle = image("amd64", &[tar.finish()], Compression::Gzip).unwrap();
    bundle.write_layout(&place.path(&format!("in/{name}")), "image").unwrap();
    format!("oci:in/{name}:image")
}

/// Packages that came, by name and version.
fn came(told: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = told["packages"].as_array().unwrap().iter();
    all.map(|package| {
        assert_eq!((&package["manager"], &package["old"]), (&json!("rpm"), &Value::Null));
        (text(&package["name"]), text(&package["new"]))
    })
    .collect()
}

#[test]
fn packages_are_those_that_rpm_lists() {
    let place = Place::new();
    let dir = place.path("in/rpm");
    fs::create_dir_all(&dir).unwrap();
    let files = [
        package(&dir, "alpha", None, "1.0", "1"),
        package(&dir, "beta", Some(2), "3.4~rc1", "5.el9"),
        package(&dir, "gamma", Some(0), "7", "1^git"),
    ];
    let install = "rpm --dbpath $PWD/db -i --justdb --nodeps --nosignature 2>/dev/null";
    shell(&dir, &format!("rpm --dbpath $PWD/db --initdb && {install} {} {}", files[0], files[1]));
    let before = listed(&dir, "");
    assert_eq!(before.len(), 2);
    let nothing = put(&place, "nothing", "usr", &[]);
    let database = |name: &str| fs::read(dir.join("db").join(name)).unwrap();
    let old = put(&place, "old", "usr/lib/sysimage/rpm", &[("rpmdb.sqlite", database("rpmdb.sqlite"))]);
    let told = place.json(&format!("compare {nothing} {old}"));
    assert_eq!((came(&told), &told["notes"]), (before.clone(), &json!([])));
    // What was not written back is in the log.
    let line = "sqlite3 db/rpmdb.sqlite 'PRAGMA wal_autocheckpoint=0;' \
                \"DELETE FROM Packages WHERE hnum = (SELECT hnum FROM Name WHERE key = 'alpha');\" \
                '.system cp db/rpmdb.sqlite db/rpmdb.sqlite-wal .'";
    shell(&dir, line);
    let kept = |name: &str| fs::read(dir.join(name)).unwrap();
    assert!(!kept("rpmdb.sqlite-wal").is_empty());
    let files_of_log =
        [("rpmdb.sqlite", kept("rpmdb.sqlite")), ("rpmdb.sqlite-wal", kept("rpmdb.sqlite-wal"))];
    let logged = put(&place, "logged", "var/lib/rpm", &files_of_log);
    let only_beta: Vec<_> = before.iter().filter(|(name, _)| name == "beta.noarch").cloned().collect();
    assert_eq!(came(&place.json(&format!("compare {nothing} {logged}"))), only_beta);
    // A package more, one in another version, and one in two.
    let newer = [package(&dir, "beta", Some(2), "3.4", "1"), package(&dir, "gamma", Some(0), "8", "1")];
    shell(
        &dir,
        &format!(
            "{install} --force {} {} && {} {}",
            files[2],
            newer[1],
            install.replace(" -i ", " -U "),
            newer[0]
        ),
    );
    let new = put(
        &place,
        "new",
        "usr/lib/sysimage/rpm",
        &[("rpmdb.sqlite", database("rpmdb.sqlite")), ("rpmdb.sqlite-wal", database("rpmdb.sqlite-wal"))],
    );
    assert_eq!(came(&place.json(&format!("compare {nothing} {new}"))), listed(&dir, ""));
    let told = place.json(&format!("compare {logged} {new}"));
    let expected = json!([
        { "manager": "rpm", "name": "beta.noarch", "old": "2:3.4~rc1-5.el9", "new": "2:3.4-1" },
        { "manager": "rpm", "name": "gamma.noarch", "old": null, "new": "0:7-1^git" },
        { "manager": "rpm", "name": "gamma.noarch", "old": null, "new": "0:8-1" },
    ]);
    assert_eq!(told["packages"], expected);
    let text = place.ok(&format!("compare {logged} {new}")).text();
    assert!(text.contains("package rpm beta.noarch: 2:3.4~rc1-5.el9 -> 2:3.4-1\n"), "{text}");
    // One that is damaged is told of; files are compared all the same.
    let bad = put(&place, "bad", "var/lib/rpm", &[("rpmdb.sqlite", kept("rpmdb.sqlite")[..8000].to_vec())]);
    let told = place.json(&format!("compare {old} {bad}"));
    assert!(
        told["notes"][0].as_str().unwrap().starts_with("new image: var/lib/rpm/rpmdb.sqlite: "),
        "{told}"
    );
    assert!(place.ok(&format!("compare {old} {bad}")).stderr.contains("packages of rpm are not compared"));
    assert!(!told["added"].as_array().unwrap().is_empty());
}

/// Hash tables of Berkeley DB, as rpm had them before SQLite: made by its own program, and listed by rpm.
#[test]
fn packages_of_old_databases_are_those_that_rpm_lists() {
    let place = Place::new();
    let dir = place.path("in/rpm");
    fs::create_dir_all(&dir).unwrap();
    tool("db5.3_load").unwrap();
    let mut line =
        "rpm --dbpath $PWD/new --initdb; rpm --dbpath $PWD/new -i --justdb --nodeps --nosignature".to_owned();
    for number in 0..12 {
        let name = format!("package{number}");
        line += &format!(
            " {}",
            package(&dir, &name, (number % 3 == 0).then_some(number), &number.to_string(), "1")
        );
    }
    shell(&dir, &format!("{line} 2>/dev/null"));
    let rows = shell(&dir, "sqlite3 new/rpmdb.sqlite 'SELECT hnum, hex(blob) FROM Packages'");
    let mut dump = String::from(
        "VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n 00000000\n 0d000000\n",
    );
    for row in rows.lines() {
        let (number, blob) = row.split_once('|').unwrap();
        let key: String =
            number.parse::<u32>().unwrap().to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        dump += &format!(" {key}\n {}\n", blob.to_lowercase());
    }
    fs::create_dir(dir.join("db")).unwrap();
    fs::write(dir.join("dump"), dump + "DATA=END\n").unwrap();
    shell(&dir, "db5.3_load db/Packages < dump");
    let expected = listed(&dir, "--define '_db_backend bdb_ro'");
    assert_eq!(expected.len(), 12);
    let nothing = put(&place, "nothing", "usr", &[]);
    let packages = fs::read(dir.join("db/Packages")).unwrap();
    let new = put(&place, "new", "var/lib/rpm", &[("Packages", packages), ("Name", b"an index".to_vec())]);
    assert_eq!(came(&place.json(&format!("compare {nothing} {new}"))), expected);
}
