//! librsync deltas: the golden ones, and signatures.

use coracle_codec::rsync::{Signature, Strong, Weak};
use coracle_testkit::golden::Golden;

use crate::{Outcome, Seeds};

pub fn seeds() -> Outcome<Seeds> {
    let mut seeds = Seeds::new();
    let root = Golden::built_in().root().join("rsync");
    for kind in ["good", "bad"] {
        for case in std::fs::read_dir(root.join(kind))? {
            let case = case?.path();
            let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
            seeds.insert(format!("{kind}-{name}"), std::fs::read(case.join("delta"))?);
        }
    }
    let content: Vec<u8> = (0..3000u32).map(|i| ((i * i) >> 5) as u8).collect();
    for (weak, strong) in [(Weak::RollSum, Strong::Blake2), (Weak::RabinKarp, Strong::Md4)] {
        let mut bytes = Vec::new();
        Signature::of(&content, (weak, strong), 512, 9)?.write(&mut bytes)?;
        seeds.insert(format!("signature-{weak:?}").to_lowercase(), bytes);
    }
    seeds.insert("new-content".into(), content);
    Ok(seeds)
}
