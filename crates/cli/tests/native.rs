//! Native deltas from the command line.

use coracle_testkit::pair::{Pair, pair};

use crate::place::{Place, digest};

fn with_delta(options: &str) -> (Place, Pair) {
    let pair = pair(31, 500_000);
    let place = Place::new();
    place.put("in/old", &pair.old).put("in/new", &pair.new);
    place.json(&format!("diff --codec native {options} in/old in/new out/delta"));
    (place, pair)
}

#[test]
fn diff_and_patch_from_archives() {
    let mut sizes = Vec::new();
    for effort in [1, 5, 9] {
        let (place, pair) = with_delta(&format!("--effort {effort}"));
        let told = place.json(&format!("patch --expect {} out/delta in/old out/new", digest(&pair.new)));
        assert_eq!((&told["kind"], &told["verified"]), (&"native-patch".into(), &true.into()));
        assert!(place.read("out/new") == pair.new);
        sizes.push(place.read("out/delta").len());
    }
    assert!(sizes[0] > sizes[1] && sizes[1] >= sizes[2], "{sizes:?}");
}

#[test]
fn diff_tells_what_it_made() {
    let (place, pair) = with_delta("");
    let told = place.json("diff --codec native in/old in/new out/again");
    assert_eq!(told["kind"], "native-diff");
    assert_eq!(told["new"]["digest"], digest(&pair.new));
    assert_eq!(told["delta"]["bytes"], place.read("out/again").len());
    assert_eq!((&told["delta"]["effort"], &told["verified"]), (&5.into(), &true.into()));
    assert!(told["delta"]["memory"].as_u64().unwrap() > 0);
    assert!(place.read("out/again") == place.read("out/delta"), "the same inputs give the same delta");
}

#[test]
fn a_tree_needs_a_delta_made_for_it() {
    let (place, pair) = with_delta("");
    let tree = coracle_testkit::tree::extract(&pair.old).unwrap();
    std::os::unix::fs::symlink(tree.path(), place.path("in/tree")).unwrap();
    place.fails("patch out/delta in/tree out/new", 5, "--for tree");
    place.json("diff --codec native --for tree in/old in/new out/portable");
    for source in ["in/tree", "in/old"] {
        place.json(&format!("patch out/portable {source} out/new-{}", source.len()));
        assert!(place.read(&format!("out/new-{}", source.len())) == pair.new, "{source}");
    }
}

#[test]
fn a_wrong_source_and_a_damaged_delta_are_told() {
    let (place, pair) = with_delta("");
    place.fails("patch out/delta in/new out/new", 5, "old archive 1 is sha256:");
    let mut delta = place.read("out/delta");
    let last = delta.len() - 1;
    delta[last] ^= 1;
    place.put("in/damaged", &delta).put("in/cut", &delta[..last]);
    place.fails("patch in/damaged in/old out/new", 4, "block 1 of 1 is damaged");
    place.fails("patch in/cut in/old out/new", 4, "delta ends inside its blocks");
    place.fails("inspect in/damaged", 4, "block 1 of 1 is damaged");
    place.fails("patch --memory 1MiB out/delta in/old out/new", 6, "bytes of memory, the limit is 1048576");
    let line = format!("patch --max-size {} out/delta in/old out/new", pair.new.len() - 1);
    place.fails(&line, 6, "exceeds the limit");
}

#[test]
fn inspect_and_explain() {
    let (place, pair) = with_delta("");
    let told = place.json("inspect out/delta");
    assert_eq!((&told["kind"], &told["output_digest"]), (&"native".into(), &digest(&pair.new).into()));
    assert_eq!(told["archives"][0]["digest"], digest(&pair.old));
    let told = place.json("explain in/old in/new out/delta");
    assert_eq!(told["kind"], "native-explain");
    let of = |m: &serde_json::Value| m["delta_bytes"].as_u64().unwrap();
    let sum: u64 = told["members"].as_array().unwrap().iter().map(of).sum();
    assert_eq!(sum, place.read("out/delta").len() as u64);
    for command in ["inspect out/delta", "explain in/old in/new out/delta"] {
        let text = place.ok(command).text();
        for word in ["literal-lengths", "mixing", "of delta"] {
            assert!(text.contains(word), "{command}: no {word} in {text}");
        }
    }
}

#[test]
fn options_of_one_codec_are_refused_for_the_other() {
    let (place, _) = with_delta("");
    for options in ["--for tree", "--codec native --source-prefix usr"] {
        place.fails(&format!("diff {options} in/old in/new out/other"), 2, "--");
    }
    assert_eq!(place.run("diff --codec native --effort 0 in/old in/new out/other").code, Some(2));
}
