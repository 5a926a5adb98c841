//! Pulls that are killed: nothing half is visible, and the next run goes on.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use coracle_testkit::http::{Fault, Server};
use coracle_testkit::image::{Rng, mutate};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::oracle::{Input, Signal, start};
use coracle_testkit::registry::{Behaviour, Double, start as registry};
use coracle_testkit::tar_builder::TarBuilder;
use serde_json::Value;

use super::site::LIMIT;
use crate::place::Place;

/// A small layer, a large one that nobody can compress, and one that a delta makes.
fn pair() -> (Bundle, Bundle) {
    let program = Rng::new(3).bytes(1 << 20);
    let changed = mutate(&program, 1, 200);
    let layer = |name: &str, bytes: Vec<u8>| TarBuilder::new().file(name, bytes).finish();
    let base = layer("base", Rng::new(1).bytes(20_000));
    let old = [base.clone(), layer("program", program)];
    let new = [
        base,
        layer("program", changed),
        layer("large", Rng::new(2).bytes(3 << 20)),
        layer("b", Rng::new(4).bytes(300_000)),
    ];
    (image("amd64", &old, Compression::Gzip).unwrap(), image("amd64", &new, Compression::Gzip).unwrap())
}

struct Field {
    place: Place,
    server: Server,
    new: Bundle,
}

impl Field {
    fn new() -> Self {
        let (double, server) = registry(Behaviour::default()).unwrap();
        let (old, new) = pair();
        put(&double, "old", &old);
        put(&double, "new", &new);
        let place = Place::new();
        let host = server.host();
        place.ok(&format!(
            "delta create --tls-verify=false --push --codec native --effort 1 {host}/app:old {host}/app:new"
        ));
        place.ok(&format!("pull --tls-verify=false {host}/app:old"));
        fs::rename(place.path("store"), place.path("before")).unwrap();
        Field { place, server, new }
    }

    /// The store as it was before the new version came out.
    fn reset(&self) {
        let _ = fs::remove_dir_all(self.place.path("store"));
        let mut copy = std::process::Command::new("cp");
        let status = copy.arg("-a").arg(self.place.path("before")).arg(self.place.path("store")).status();
        assert!(status.unwrap().success());
    }

    fn line(&self) -> String {
        format!("pull --tls-verify=false {}/app:new --json", self.server.host())
    }

    /// What is in `partial`, by digest.
    fn partial(&self) -> BTreeMap<String, u64> {
        let Ok(entries) = fs::read_dir(self.place.path("store/partial")) else { return BTreeMap::new() };
        let blob = |name: String| name.strip_prefix("sha256-").map(|hex| format!("sha256:{hex}"));
        let entries = entries.flatten();
        entries
            .filter_map(|e| Some((blob(e.file_name().into_string().ok()?)?, e.metadata().ok()?.len())))
            .collect()
    }

    fn layers(&self) -> usize {
        fs::read_dir(self.place.path("store/layers")).map_or(0, Iterator::count)
    }

    fn has_image(&self) -> bool {
        let listed = self.place.json("store images");
        listed["images"]
            .as_array()
            .unwrap()
            .iter()
            .any(|image| image["name"].as_str().unwrap().ends_with(":new"))
    }

    /// How far a killed pull had come.
    fn state(&self) -> &'static str {
        let asked = |part: &str| self.server.faults().count("GET", part) > 0;
        let before = self.place.path("before/layers");
        let made = self.layers().saturating_sub(fs::read_dir(before).unwrap().count());
        if self.has_image() {
            "published"
        } else if made == 3 {
            "all layers"
        } else if made > 0 {
            "some layers"
        } else if !self.partial().is_empty() {
            "blobs"
        } else if asked("/referrers/") {
            "planning"
        } else {
            "resolving"
        }
    }
}

fn put(double: &Double, tag: &str, bundle: &Bundle) {
    for blob in &bundle.blobs {
        double.put_blob("app", blob.clone());
    }
    double.put_manifest("app", tag, &bundle.root.0, &bundle.root.1);
}

/// Kills `count` pulls, uniformly over what they move and what they do afterwards. Returns how often each state was hit.
fn campaign(count: u64) -> BTreeMap<&'static str, u64> {
    let field = Field::new();
    let slow = || {
        let faults = field.server.faults();
        // Lists come so slowly that planning is hit, too.
        for list in ["/referrers/", "/manifests/_deltaindex"] {
            faults.add("GET", list, Fault::Slow(48, Duration::from_millis(2)), usize::MAX);
        }
        faults.add("GET", "/", Fault::Slow(16 << 10, Duration::from_micros(1500)), usize::MAX);
    };
    field.reset();
    field.server.faults().forget();
    slow();
    let begin = Instant::now();
    field.place.ok(&field.line());
    let whole = begin.elapsed();
    let bytes = field.server.faults().sent();
    let value: Value = serde_json::from_slice(&field.new.root.1).unwrap();
    let sizes: BTreeMap<String, u64> = value["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| (layer["digest"].as_str().unwrap().to_owned(), layer["size"].as_u64().unwrap()))
        .collect();
    let mut rng = Rng::new(count);
    let mut states = BTreeMap::new();
    for round in 0..count {
        field.reset();
        field.server.faults().clear();
        field.server.faults().forget();
        slow();
        let mut running =
            start(&mut field.place.command(&format!("coracle {}", field.line())), Input::Nothing).unwrap();
        // By time alone, over all of it or its beginning; by bytes; and after the last byte.
        let mut up_to = |most: u128| Duration::from_micros(rng.below(most as usize + 1) as u64);
        let (threshold, patience) = match round % 4 {
            0 => (u64::MAX, up_to(whole.as_micros() * 11 / 10)),
            1 => (u64::MAX, up_to(whole.as_micros() / 4)),
            2 => (bytes, up_to(200_000)),
            _ => (rng.below(bytes as usize) as u64, LIMIT),
        };
        let begin = Instant::now();
        while !running.ended().unwrap() && field.server.faults().sent() < threshold {
            if threshold == u64::MAX && begin.elapsed() >= patience {
                break;
            }
            sleep(Duration::from_micros(300));
        }
        if round % 4 == 2 {
            sleep(patience);
        }
        let _ = running.signal(Signal::KILL);
        let _ = running.wait(LIMIT);
        *states.entry(field.state()).or_default() += 1;

        // Nothing half is visible.
        let (partial, was_there) = (field.partial(), field.has_image());
        let checked = field.place.json("store fsck --deep");
        assert_eq!(checked["damages"].as_array().unwrap().len(), 0, "{checked}");
        // The next run completes, and fetches no more than it has to.
        field.server.faults().clear();
        field.server.faults().forget();
        let layers = field.layers();
        let ran = field.place.ok(&field.line());
        let told: Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
        assert_eq!(told["digest"], field.new.digest());
        assert_eq!(told["up_to_date"] == true, was_there && layers >= 4, "{told}");
        assert!(told["fallbacks"].as_array().unwrap().is_empty(), "{told}");
        for request in field.server.faults().requests() {
            let Some((_, blob)) = request.path.split_once("/blobs/") else { continue };
            let (Some(kept), Some(size)) = (partial.get(blob), sizes.get(blob)) else { continue };
            assert!(kept < size, "round {round}: {blob} was finished and is fetched again");
            let from = request
                .header("range")
                .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<u64>().ok());
            assert!(from.unwrap_or(0) + (1 << 20) >= *kept, "round {round}: {blob} from {from:?} of {kept}");
        }
        field.place.json("store gc --partial-age 0s");
        let usage = field.place.json("store du");
        let over =
            ["unused_bytes", "partial_bytes", "lease_bytes"].map(|member| usage[member].as_u64().unwrap());
        assert_eq!(over, [0; 3], "round {round}");
        assert_eq!(field.place.json("store fsck --deep")["damages"].as_array().unwrap().len(), 0);
    }
    states
}

#[test]
fn killed_at_any_moment() {
    let states = campaign(20);
    assert!(states.len() >= 3, "{states:?}");
}

#[test]
#[ignore = "long: 200 pulls are killed"]
fn killed_two_hundred_times() {
    let states = campaign(200);
    println!("{states:?}");
    for state in ["resolving", "planning", "blobs", "some layers", "all layers", "published"] {
        assert!(states.get(state).copied().unwrap_or(0) >= 5, "{state}: {states:?}");
    }
}
