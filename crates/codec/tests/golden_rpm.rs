//! Databases of rpm: those of real programs are read, damaged ones refused, and none is read for ever.

use coracle_codec::rpm::{Limits, Package, packages};
use coracle_testkit::golden::{Case, Golden};
use serde_json::Value;

fn cases(set: &str) -> Vec<Case<Value>> {
    Golden::built_in().cases(set).unwrap()
}

fn limits(case: &Case<Value>) -> Limits {
    let bound = |name: &str, default| case.json["limits"][name].as_u64().unwrap_or(default);
    let all = Limits::default();
    Limits {
        packages: bound("packages", all.packages),
        header: bound("header", all.header),
        headers: bound("headers", all.headers),
    }
}

fn log(case: &Case<Value>) -> Vec<u8> {
    if case.dir.join("in.wal.zst").exists() { case.read("in.wal.zst").unwrap() } else { Vec::new() }
}

fn shown(package: &Package) -> (String, String, Option<String>) {
    (package.name.clone(), package.evr(), package.architecture.clone())
}

#[test]
fn databases_of_rpm_are_read() {
    let cases = cases("rpm/good");
    assert_eq!(cases.len(), 9);
    for case in cases {
        let database = case.read("in.db.zst").unwrap();
        let mut found: Vec<_> = packages(&database, &log(&case), &limits(&case))
            .unwrap_or_else(|error| panic!("{}: {error}", case.name))
            .iter()
            .map(shown)
            .collect();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut expected: Vec<_> = case.json["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| (text(&p["name"]).unwrap(), text(&p["version"]).unwrap(), text(&p["architecture"])))
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{}", case.name);
    }
}

#[test]
fn damaged_databases_are_refused() {
    let cases = cases("rpm/bad");
    assert_eq!(cases.len(), 30);
    for case in cases {
        let database = case.read("in.db.zst").unwrap();
        let error = packages(&database, &log(&case), &limits(&case)).expect_err(&case.name).to_string();
        let expected = case.json["expect_error"].as_str().unwrap();
        assert!(!expected.is_empty() && error.starts_with(expected), "{}: {error:?}", case.name);
    }
}

/// Wherever a database is cut, it is refused or read for what it is, and no more is found than was there.
#[test]
fn cut_databases() {
    for case in cases("rpm/good") {
        let (database, log) = (case.read("in.db.zst").unwrap(), log(&case));
        let all = packages(&database, &log, &Limits::default()).unwrap();
        for cut in (0..database.len()).step_by(97) {
            if let Ok(found) = packages(&database[..cut], &log, &Limits::default()) {
                assert!(found.iter().all(|package| all.contains(package)), "{} cut at {cut}", case.name);
            }
        }
        for cut in (0..log.len()).step_by(61) {
            packages(&database, &log[..cut], &Limits::default()).unwrap();
        }
    }
}
