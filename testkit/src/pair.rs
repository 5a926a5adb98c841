//! Two tars that look like two builds of one image layer.

use crate::image::{Rng, binary, mutate, text};
use crate::tar_builder::{LongNames, TarBuilder};

/// What a client has and what it wants.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The source tar.
    pub old: Vec<u8>,
    /// The target.
    pub new: Vec<u8>,
}

/// A pair of tars of roughly `size` bytes each; `seed` picks one of many. The same arguments give the same pair.
///
/// From the old to the new one, programs and libraries are rebuilt with small differences, a library takes a new
/// version in its name, documents are edited, one moves, one goes and one comes; most small files stay as they are,
/// and all have new dates. Names are beyond 100 bytes now and then, in the GNU form with an even seed and in that of
/// pax with an odd one.
pub fn pair(seed: u64, size: usize) -> Pair {
    let mut rng = Rng::new(seed);
    let long_names = if seed.is_multiple_of(2) { LongNames::Gnu } else { LongNames::Pax };
    let mut old = TarBuilder::with_long_names(long_names);
    let mut new = TarBuilder::with_long_names(long_names);
    new.mtime(1_700_086_400);
    let (old, new) = (&mut old, &mut new);
    for dir in ["usr", "usr/bin", "usr/lib", "usr/share", "usr/share/doc"] {
        old.dir(dir);
        new.dir(dir);
    }
    // Half of it is programs, a quarter libraries, a quarter documents.
    for (name, part) in [("shell", 3), ("server", 8)] {
        let program = binary(rng.next_u64(), size / part);
        let edits = 3 + program.len() / 40_000;
        let path = format!("usr/bin/{name}");
        old.file_mode(&path, 0o755, &program);
        new.file_mode(&path, 0o755, mutate(&program, rng.next_u64(), edits));
    }
    let library = binary(rng.next_u64(), size / 4);
    old.file_mode("usr/lib/libbase.so.4.0.1", 0o755, &library)
        .symlink("usr/lib/libbase.so", "libbase.so.4.0.1");
    new.file_mode("usr/lib/libbase.so.4.0.2", 0o755, mutate(&library, rng.next_u64(), 9))
        .symlink("usr/lib/libbase.so", "libbase.so.4.0.2");
    let mut left = size / 4;
    let mut count = 0;
    while left > 0 {
        // Many are small, few are large.
        let len = (64 + rng.skewed(size / 12 + 64)).min(left);
        left -= len;
        let content = text(rng.next_u64(), len);
        let folder = if rng.below(9) == 0 { format!("{}/", "long-name".repeat(12)) } else { String::new() };
        let path = format!("usr/share/doc/{folder}{count:04}.txt");
        match count % 11 {
            3 => {
                old.file(&path, &content);
                new.file(&path, mutate(&content, rng.next_u64(), 2));
            }
            5 => {
                old.file(&path, &content);
                new.file(format!("usr/share/moved-{count:04}"), &content);
            }
            7 => {
                old.file(&path, &content);
            }
            8 => {
                new.file(&path, &content);
            }
            9 => {
                old.file(&path, &content).hardlink(format!("usr/share/link-{count:04}"), &path);
                new.file(&path, &content).hardlink(format!("usr/share/link-{count:04}"), &path);
            }
            _ => {
                old.file(&path, &content);
                new.file(&path, &content);
            }
        }
        count += 1;
    }
    Pair { old: old.finish_padded(20), new: new.finish_padded(20) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden::sha256_hex;
    use crate::tree;

    // Sizes of deltas in other tests may rely on this.
    #[test]
    fn bytes_never_change() {
        let Pair { old, new } = pair(1, 100_000);
        assert_eq!(
            sha256_hex(&[old, new].concat()),
            "ae2122be58fea605b437ab47d180af345aaa6cc391434b9dc25582ab3a7ad0bf"
        );
    }

    #[test]
    fn both_can_be_extracted_and_differ() {
        for seed in 0..4 {
            let Pair { old, new } = pair(seed, 300_000);
            let old = tree::files(tree::extract(&old).unwrap().path()).unwrap();
            let new = tree::files(tree::extract(&new).unwrap().path()).unwrap();
            let size: usize = old.values().map(Vec::len).sum();
            assert!((270_000..400_000).contains(&size), "{size}");
            let same = new.iter().filter(|(path, content)| old.get(*path) == Some(content)).count();
            assert!(same > new.len() / 2 && same < new.len() - 4, "{same} of {}", new.len());
        }
    }
}
