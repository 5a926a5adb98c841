//! What inspect and explain say about upstream's deltas is what the golden vectors say.

use std::collections::BTreeMap;

use coracle_codec::observe::Quiet;
use coracle_codec::tardiff::{Limits, OpCounts};
use coracle_codec::{compress, native};
use coracle_engine::explain::Explained;
use coracle_engine::{Error, explain, inspect};
use coracle_testkit::golden::{Case, Golden, GoodDelta};

use crate::place::{Place, bounded};

fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

fn check_ops(case: &Case<GoodDelta>, ops: &OpCounts) {
    for (op, count) in ops.rows() {
        let want = case.ops().get(op);
        assert_eq!(count.ops, want.map_or(0, |w| w.ops), "{}: {op}", case.name);
        // The cases count no bytes for paths.
        if op != "OPEN" {
            assert_eq!(count.bytes, want.map_or(0, |w| w.sum), "{}: bytes of {op}", case.name);
        }
    }
}

#[test]
fn inspect_counts_what_a_delta_holds() {
    for case in Golden::built_in().tardiff_good().unwrap() {
        let place = Place::new();
        let path = place.put("delta", &case.delta().unwrap());
        let context = place.context(&Quiet);
        let found = bounded(&case.name, move || {
            inspect::run(
                &path,
                &Limits::default(),
                &native::Limits::default(),
                compress::Limits::default(),
                &context,
            )
        });
        let found = match found {
            Ok(inspect::Inspection::Delta(delta)) => delta,
            other => panic!("{}: {other:?}", case.name),
        };
        assert_eq!(u32::from(found.version.number()), case.version(), "{}", case.name);
        assert_eq!(found.bytes, case.json.inputs.delta.fact.size, "{}", case.name);
        let digest = format!("sha256:{}", case.json.inputs.delta.fact.sha256);
        assert_eq!(found.digest.to_string(), digest, "{}", case.name);
        check_ops(&case, &found.ops);
        // Frames tell their size or not; if told, it is right.
        if let Some(output) = found.output_bytes {
            assert_eq!(output, case.new_tar().size, "{}", case.name);
        } else {
            assert!(found.ops.zstd_dict.ops > 0, "{}", case.name);
        }
        let mut want: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for source in case.sources() {
            want.insert(source.clean_path(), source.fact.size);
        }
        let sources: BTreeMap<Vec<u8>, u64> =
            found.sources.iter().map(|source| (source.path.clone(), source.needs)).collect();
        let names = |of: &BTreeMap<Vec<u8>, u64>| of.keys().map(|path| show(path)).collect::<Vec<_>>();
        assert_eq!(names(&sources), names(&want), "{}", case.name);
        for (path, needs) in &sources {
            assert!(*needs <= want[path], "{}: {needs} bytes of {}", case.name, show(path));
        }
        assert_eq!(
            found.sources.iter().map(|s| s.copied).sum::<u64>(),
            found.ops.copy.bytes,
            "{}",
            case.name
        );
        assert_eq!(found.sources.iter().map(|s| s.added).sum::<u64>(), found.ops.add.bytes, "{}", case.name);
        assert_eq!(found.sources.iter().map(|s| s.opens).sum::<u64>(), found.ops.open.ops, "{}", case.name);
    }
}

#[test]
fn explain_accounts_for_every_byte() {
    let mut explained = 0;
    for case in Golden::built_in().tardiff_good().unwrap() {
        let Some(new) = case.new_tar_bytes().unwrap() else { continue };
        // Where the target has no bytes, none can be told what it costs.
        if new.is_empty() {
            continue;
        }
        let place = Place::new();
        let tree = case.tree().unwrap();
        let archives = place.put_all("old", &case.olds().unwrap());
        for source in [vec![tree.path().to_path_buf()], archives] {
            let request = explain::Request {
                source,
                new: place.put("new", &new),
                delta: place.put("delta", &case.delta().unwrap()),
                limits: Limits::default(),
                native_limits: native::Limits::default(),
                archive_limits: compress::Limits::default(),
            };
            let context = place.context(&Quiet);
            let found = match bounded(&case.name, move || explain::run(&request, &context)) {
                Ok(Explained::TarDiff(found)) => found,
                Ok(other) => panic!("{}: {other:?}", case.name),
                // Some targets are no tars, and explain is about the members of one.
                Err(Error::Tar { .. }) if coracle_testkit::tree::extract(&new).is_err() => continue,
                Err(error) => panic!("{}: {error}", case.name),
            };
            check_ops(&case, &found.ops);
            assert_eq!(found.delta_bytes, case.json.inputs.delta.fact.size, "{}", case.name);
            let sum = |of: fn(&coracle_codec::tardiff::MemberCost) -> u64| -> u64 {
                found.members.iter().map(of).sum()
            };
            assert_eq!(sum(|m| m.delta_bytes), found.delta_bytes, "{}", case.name);
            assert_eq!(sum(|m| m.stream_bytes), found.stream_bytes, "{}", case.name);
            let made = sum(|m| m.literal + m.copied + m.added + m.patched);
            assert_eq!(made, new.len() as u64, "{}", case.name);
            explained += 1;
        }
    }
    assert!(explained >= 40, "{explained}");
}
