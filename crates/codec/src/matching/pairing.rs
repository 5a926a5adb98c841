//! Which old files a changed file may come from, judged by names.
//!
//! In order: the same path (under any of a file's hardlinked names), the same base name, the same stem (base name up to
//! its first dot), each preferring the closest size. Likeness of content is [`super::sample`]'s business.

use std::collections::HashMap;

/// An old file as pairing sees it.
#[derive(Debug, Clone)]
pub struct OldName<'a> {
    /// Cleaned paths.
    pub paths: Vec<&'a [u8]>,
    /// Size in bytes.
    pub size: u64,
}

/// Old files by name.
#[derive(Debug, Default)]
pub struct Names<'a> {
    sizes: Vec<u64>,
    by_path: HashMap<&'a [u8], usize>,
    by_base: HashMap<&'a [u8], Vec<usize>>,
    by_stem: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> Names<'a> {
    /// Indexes old files; the caller knows them by their place in `files`.
    pub fn new(files: &[OldName<'a>]) -> Self {
        let mut names = Names::default();
        for (i, file) in files.iter().enumerate() {
            names.sizes.push(file.size);
            for &path in &file.paths {
                names.by_path.insert(path, i);
                push_new(names.by_base.entry(base(path)).or_default(), i);
                push_new(names.by_stem.entry(stem(path)).or_default(), i);
            }
        }
        names
    }

    /// Candidates for a new file known by `paths`, best first, each once, at most `most`.
    pub fn candidates(&self, paths: &[&[u8]], size: u64, most: usize) -> Vec<usize> {
        let mut out: Vec<usize> = Vec::new();
        let mut add = |mut group: Vec<usize>| {
            group.sort_by_key(|&i| (self.sizes[i].abs_diff(size), std::cmp::Reverse(i)));
            for i in group {
                if out.len() < most && !out.contains(&i) {
                    out.push(i);
                }
            }
        };
        let all = |map: &HashMap<&[u8], Vec<usize>>, key: fn(&[u8]) -> &[u8]| -> Vec<usize> {
            paths
                .iter()
                .filter_map(|p| map.get(key(p)))
                .flatten()
                .copied()
                .filter(|&i| self.similar(i, size))
                .collect()
        };
        add(paths.iter().filter_map(|p| self.by_path.get(p)).copied().collect());
        add(all(&self.by_base, base));
        add(all(&self.by_stem, stem));
        out
    }

    /// Sizes so far apart that a name alone is no reason to look (upstream's rule).
    fn similar(&self, i: usize, size: u64) -> bool {
        const SMALL: u64 = 64 << 10;
        let old = self.sizes[i];
        (old < SMALL && size < SMALL) || (old < size.saturating_mul(10) && size < old.saturating_mul(10))
    }
}

fn push_new(list: &mut Vec<usize>, i: usize) {
    if list.last() != Some(&i) {
        list.push(i);
    }
}

/// The last component of a path.
pub fn base(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// The last component up to its first dot; for dotfiles, up to the second: their first dot says nothing.
fn stem(path: &[u8]) -> &[u8] {
    let base = base(path);
    let skip = usize::from(base.first() == Some(&b'.'));
    let end = base[skip..].iter().position(|&b| b == b'.').map_or(base.len(), |i| i + skip);
    &base[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_then_base_then_stem_then_size() {
        let old = |path: &'static str, size| OldName { paths: vec![path.as_bytes()], size };
        let files = [
            old("lib/libz.so.1.2", 1000),
            old("lib/libz.so.1.1", 900),
            old("other/libz.so.1.3", 5000),
            old("bin/tool", 1000),
            old("lib/.hidden", 1000),
        ];
        let names = Names::new(&files);
        assert_eq!(names.candidates(&[b"lib/libz.so.1.3"], 1000, 9), [2, 0, 1]);
        assert_eq!(names.candidates(&[b"bin/tool"], 1 << 40, 9), [3], "the same path is enough");
        assert_eq!(names.candidates(&[b"sbin/tool"], 1 << 40, 9), [0usize; 0]);
        assert_eq!(names.candidates(&[b"x/.other"], 1000, 9), [0usize; 0], "dotfiles are not all alike");
        assert_eq!(names.candidates(&[b"new/name", b"bin/tool"], 1000, 9), [3], "any hardlinked name");
        assert_eq!(names.candidates(&[b"lib/libz.so.1.3"], 1000, 1), [2]);
    }
}
