//! Seeds of `rpm_database`: the small golden databases, with their logs.

use coracle_testkit::golden::Golden;
use serde_json::Value;

/// Bytes of a seed at most: of one that is read, and of one that is refused, of which there are many.
const MAX_BYTES: [(&str, usize); 2] = [("good", 48 << 10), ("bad", 8 << 10)];

/// Names and bytes.
pub fn seeds() -> crate::Outcome<crate::Seeds> {
    let mut out = crate::Seeds::new();
    for (set, most) in MAX_BYTES {
        for case in Golden::built_in().cases::<Value>(&format!("rpm/{set}"))? {
            let database = case.read("in.db.zst")?;
            let has_log = case.dir.join("in.wal.zst").exists();
            let log = if has_log { case.read("in.wal.zst")? } else { Vec::new() };
            if database.len() + log.len() <= most {
                let head = u32::try_from(database.len())?.to_le_bytes();
                out.insert(format!("{set}-{}", case.name), [&head[..], &database, &log].concat());
            }
        }
    }
    Ok(out)
}
