//! Seeds of the targets of executables: small programs, and copies of their pieces.

use coracle_testkit::image::Rng;
use coracle_testkit::program::{Machine, Program};

use super::Seeds;

/// Programs of all kinds, by name.
pub fn files() -> Seeds {
    let mut seeds = Seeds::new();
    for (name, machine) in [("x86_64", Machine::X86_64), ("aarch64", Machine::Aarch64)] {
        for kind in 1..=3 {
            for functions in [1, 3, 7, 30] {
                let program = Program { machine, kind, functions: (0..functions).collect(), data: 300 };
                seeds.insert(format!("{name}-{kind}-{functions}"), program.build());
            }
        }
    }
    seeds
}

/// The same as old files, with copies and references.
pub fn parts() -> Seeds {
    let mut seeds = Seeds::new();
    for (i, (name, file)) in files().into_iter().enumerate() {
        let mut rng = Rng::new(i as u64);
        let mut data = vec![u8::from(name.starts_with("aarch64")), 6, 200, 0];
        let mut at = 0;
        for k in 0..6 {
            let len = file.len() / 6;
            let skip = if k % 2 == 0 { 0 } else { rng.below(40) };
            [skip, at, len].iter().for_each(|&n| data.extend((n as u16).to_le_bytes()));
            at = (at + len + rng.below(3) * 16).min(file.len() - len);
        }
        data.extend(rng.bytes(200));
        data.extend(file);
        seeds.insert(name, data);
    }
    seeds
}
