//! Old contents that new ones may be equal to.

use std::collections::HashMap;

use coracle_codec::digest::Digest;

use crate::layer::Layer;

/// Old contents that are compared with one new content at most.
const MOST: usize = 4;

/// The objects of old layers by size: only contents of equal size can be equal.
#[derive(Debug, Default)]
pub struct Hints {
    layers: Vec<Layer>,
    by_size: HashMap<u64, Vec<(usize, usize)>>,
}

/// An object that a new content may be equal to.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub digest: Digest,
    pub layer: Layer,
}

impl Hints {
    pub fn new(layers: &[Layer]) -> Self {
        let mut by_size: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
        for (layer, old) in layers.iter().enumerate() {
            for (number, file) in old.files().enumerate().filter(|(_, file)| file.object.is_some()) {
                by_size.entry(file.size).or_default().push((layer, number));
            }
        }
        Hints { layers: layers.to_vec(), by_size }
    }

    /// What to compare the content of `path` with, the file of the same name first.
    pub fn candidates(&self, path: &[u8], size: u64) -> Vec<Candidate> {
        let Some(places) = self.by_size.get(&size) else { return Vec::new() };
        let mut same_name = Vec::new();
        let mut others = Vec::new();
        for &(layer, number) in places {
            let layer = &self.layers[layer];
            let Some(file) = layer.file().file(number) else { continue };
            let Some(digest) = file.object else { continue };
            let known =
                |list: &[Candidate]| list.iter().any(|candidate: &Candidate| candidate.digest == digest);
            if known(&same_name) {
                continue;
            }
            let candidate = Candidate { digest, layer: layer.clone() };
            if file.path == path {
                same_name.push(candidate);
            } else if others.len() < MOST && !known(&others) {
                others.push(candidate);
            }
        }
        same_name.extend(others);
        same_name.truncate(MOST);
        same_name
    }
}
