//! Seeds of the targets of executables: small programs, and copies of their pieces.

use coracle_testkit::image::Rng;
use coracle_testkit::program::{Machine, Program};

use super::Seeds;

/// Programs of all kinds, by name.
pub fn files() -> Seeds {
    let mut seeds = Seeds::new();
    let all = [("x86_64", Machine::X86_64), ("aarch64", Machine::Aarch64), ("kernel", Machine::Kernel)];
    for (name, machine) in all {
        for kind in if machine == Machine::Kernel { 1..=2 } else { 1..=3 } {
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
    // Kernels came later: the others keep their numbers.
    let (kernels, others): (Vec<_>, Vec<_>) = files().into_iter().partition(|f| f.0.starts_with("kernel"));
    for (i, (name, file)) in others.into_iter().chain(kernels).enumerate() {
        let mut rng = Rng::new(i as u64);
        let machine = match name.as_bytes()[0] {
            b'a' => 1,
            b'k' => 2,
            _ => 0,
        };
        let mut data = vec![machine, 6, 200, 0];
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
