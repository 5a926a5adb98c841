//! The dialect `balena`: an image whose layers are deltas, as balenaEngine makes and pulls it
//! (`docs/formats/rsync.md`, section 6).

use std::io::Read;

use serde_json::{Map, Value, json};

use super::{Error, annotation};
use crate::digest::Digest;
use crate::oci::{ImageConfig, Limits, Unverified};
use crate::tar::write::{END, Member, padding};
use crate::tar::{self, Kind};

/// Label with the digest of the config of the image to start from (section 6.1).
pub const BASE: &str = "io.resin.delta.base";
/// Label with the config of the target, byte for byte (section 6.1).
pub const CONFIG: &str = "io.resin.delta.config";
/// Our label with the digest of the target's manifest (section 6.4).
pub const TARGET: &str = "dev.coracle.delta.target";
/// Our label with the bytes of each layer of the target, uncompressed (section 6.4).
pub const SIZES: &str = "dev.coracle.delta.sizes";
/// Name of the delta in a layer (section 6.3).
pub const MEMBER: &str = "delta";
/// A layer that the basis has at the same place: an archive of nothing (section 6.3).
pub const PLACEHOLDER: [u8; 1024] = END;

/// What a delta image says of itself.
#[derive(Debug, Clone)]
pub struct DeltaImage {
    /// Digest of the config of the image to start from.
    pub base: Digest,
    /// The config of the target; its digest is the target's image ID.
    pub target: ImageConfig,
    /// Digest of the target's manifest, if it is said.
    pub target_manifest: Option<Digest>,
    /// Bytes of each layer of the target, if they are said.
    pub sizes: Option<Vec<u64>>,
}

impl DeltaImage {
    /// Reads the labels of a config; `None` if it is that of any other image.
    ///
    /// # Errors
    /// [`Error`]: it is a delta image that contradicts itself.
    pub fn of(config: &ImageConfig, limits: &Limits) -> Result<Option<Self>, Error> {
        let value: Value = serde_json::from_slice(config.raw().as_bytes()).unwrap_or_default();
        let labels = &value["config"]["Labels"];
        let label = |name: &str| match &labels[name] {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.as_str())),
            other => Err(bad(name, &other.to_string())),
        };
        let (base, target) = match (label(BASE)?, label(CONFIG)?) {
            (None, None) => return Ok(None),
            (Some(base), Some(target)) => (base, target),
            (None, Some(_)) => return Err(Error::Missing("the label io.resin.delta.base")),
            (Some(_), None) => return Err(Error::Missing("the label io.resin.delta.config")),
        };
        let target = ImageConfig::parse(Unverified::new(target.into()).identify(), limits)?;
        let (layers, diff_ids) = (config.diff_ids().len(), target.diff_ids().len());
        if layers != diff_ids {
            return Err(crate::oci::Error::LayerCount { diff_ids, layers }.into());
        }
        let sizes = match label(SIZES)? {
            None => None,
            Some(text) => {
                let sizes: Vec<u64> = serde_json::from_str(text).map_err(|_| bad(SIZES, text))?;
                Some(sizes).filter(|sizes| sizes.len() == layers).ok_or_else(|| bad(SIZES, text)).map(Some)?
            }
        };
        Ok(Some(DeltaImage {
            base: super::digest(BASE, base)?,
            target,
            target_manifest: label(TARGET)?.map(|text| super::digest(TARGET, text)).transpose()?,
            sizes,
        }))
    }
}

fn bad(name: &str, text: &str) -> Error {
    Error::Annotation { key: name.to_owned(), value: super::shortened(text) }
}

/// What the config of a delta image is made of.
#[derive(Debug)]
pub struct DraftImage<'a> {
    /// Digest of the config of the image to start from.
    pub base: Digest,
    /// The config of the target, UTF-8 as all JSON.
    pub target: &'a str,
    /// Digest of the target's manifest.
    pub target_manifest: Digest,
    /// Bytes of each layer of the target.
    pub sizes: &'a [u64],
    /// diff_ids of the layers of the delta image itself.
    pub diff_ids: &'a [Digest],
}

impl DraftImage<'_> {
    /// The config: the members that the engine writes, in its order (section 6.1).
    pub fn config(&self) -> Vec<u8> {
        let mut labels = Map::new();
        labels.insert(annotation::VERSION.into(), json!("1"));
        labels.insert(SIZES.into(), json!(json!(self.sizes).to_string()));
        labels.insert(TARGET.into(), json!(self.target_manifest.to_string()));
        labels.insert(BASE.into(), json!(self.base.to_string()));
        labels.insert(CONFIG.into(), json!(self.target));
        let zero = zero_config(&Value::Null);
        let config = zero_config(&Value::Object(labels));
        let diff_ids: Vec<String> = self.diff_ids.iter().map(ToString::to_string).collect();
        let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
        format!(
            r#"{{"created":"0001-01-01T00:00:00Z","container_config":{zero},"config":{config},"rootfs":{rootfs}}}"#
        )
        .into_bytes()
    }
}

/// The settings of a container, none of them set, as Go writes them.
fn zero_config(labels: &Value) -> String {
    let names = ["Hostname", "Domainname", "User"].map(|name| format!(r#""{name}":"""#));
    let flags = ["AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"];
    let flags = flags.map(|name| format!(r#""{name}":false"#));
    format!(
        r#"{{{},{},"Env":null,"Cmd":null,"Image":"","Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":{labels}}}"#,
        names.join(","),
        flags.join(",")
    )
}

/// What stands before a delta of `len` bytes in its layer, and what stands behind it (section 6.3).
pub fn around(len: u64) -> (Vec<u8>, Vec<u8>) {
    let member = Member { mode: 0o600, mtime: 0, ..Member::file(MEMBER, len) };
    let behind = [&vec![0; padding(len)][..], &END].concat();
    (member.header(), behind)
}

/// Why a layer holds no delta.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// Its archive cannot be read.
    #[error(transparent)]
    Tar(#[from] tar::Error),
    /// It has no member.
    #[error("the layer is empty: it stands for one that the basis has at the same place")]
    Placeholder,
    /// Its first member is no regular file.
    #[error("the first member of the layer is no regular file")]
    NoFile,
}

/// The delta in a layer, whose uncompressed bytes are given: its first member, whatever it is called.
///
/// # Errors
/// [`LayerError`].
pub fn delta_in<R: Read>(layer: R) -> Result<std::io::Take<R>, LayerError> {
    let mut reader = tar::Reader::new(layer, tar::Limits::default());
    let entry = reader.next_entry()?.ok_or(LayerError::Placeholder)?;
    if entry.kind != Kind::Regular || entry.sparse.is_some() {
        return Err(LayerError::NoFile);
    }
    // The reader has taken what stands before the content, and no more.
    Ok(reader.into_rest().take(entry.content_len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> ImageConfig {
        ImageConfig::parse(Unverified::new(text.into()).identify(), &Limits::default()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let target = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]},"x":"<&\u00e9\"\\"}"#;
        let digest = Digest::of(&PLACEHOLDER);
        let (base, manifest) = (Digest::of(b"base"), Digest::of(b"manifest"));
        let draft =
            DraftImage { base, target, target_manifest: manifest, sizes: &[1024], diff_ids: &[digest] };
        let config = config(&String::from_utf8(draft.config()).unwrap());
        let read = DeltaImage::of(&config, &Limits::default()).unwrap().unwrap();
        assert_eq!((read.base, read.target_manifest, read.sizes), (base, Some(manifest), Some(vec![1024])));
        assert_eq!(read.target.raw().as_bytes(), target.as_bytes());
        assert_eq!(read.target.raw().digest(), Digest::of(target.as_bytes()));
        // docs/formats/rsync.md, section 6.3.
        assert_eq!(
            digest.to_string(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    }

    #[test]
    fn other_images_and_broken_ones() {
        let of = |labels: Value, layers: usize| {
            let diff_ids = vec![Digest::of(b"").to_string(); layers];
            let text =
                json!({"config": {"Labels": labels}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
            DeltaImage::of(&config(&text.to_string()), &Limits::default())
        };
        assert!(of(Value::Null, 1).unwrap().is_none());
        assert!(of(json!({"maintainer": "x"}), 1).unwrap().is_none());
        let base = Digest::of(b"base").to_string();
        let target = json!({"rootfs": {"type": "layers", "diff_ids": [base]}}).to_string();
        assert!(of(json!({BASE: base, CONFIG: target}), 1).unwrap().is_some());
        for (labels, layers, text) in [
            (json!({BASE: base}), 1, "the label io.resin.delta.config is missing"),
            (json!({CONFIG: target}), 1, "the label io.resin.delta.base is missing"),
            (json!({BASE: 7, CONFIG: target}), 1, "annotation io.resin.delta.base is \"7\""),
            (json!({BASE: "sha256:1", CONFIG: target}), 1, "annotation io.resin.delta.base is \"sha256:1\""),
            (json!({BASE: base, CONFIG: target}), 2, "config lists 1 layers, manifest 2"),
            (json!({BASE: base, CONFIG: "{"}), 1, "config"),
            (json!({BASE: base, CONFIG: target, SIZES: "[1,2]"}), 1, "annotation dev.coracle.delta.sizes"),
            (json!({BASE: base, CONFIG: target, TARGET: "x"}), 1, "annotation dev.coracle.delta.target"),
        ] {
            let error = of(labels.clone(), layers).unwrap_err().to_string();
            assert!(error.contains(text), "{labels}: {error}");
        }
    }

    #[test]
    fn the_delta_in_a_layer() {
        for len in [0, 1, 511, 512, 513] {
            let (before, behind) = around(len);
            let content = vec![7; len as usize];
            let layer = [&before[..], &content, &behind].concat();
            assert_eq!((before.len(), layer.len() % 512), (512, 0));
            let mut read = Vec::new();
            delta_in(&layer[..]).unwrap().read_to_end(&mut read).unwrap();
            assert_eq!(read, content);
        }
        assert!(matches!(delta_in(&PLACEHOLDER[..]), Err(LayerError::Placeholder)));
        let directory = [Member::directory("delta/").header(), END.to_vec()].concat();
        assert!(matches!(delta_in(&directory[..]), Err(LayerError::NoFile)));
        assert!(matches!(delta_in(&[1; 512][..]), Err(LayerError::Tar(_))));
    }
}
