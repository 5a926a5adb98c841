//! Image configs, as far as Coracle reads them.

use super::{Error, Limits, Platform, Verified, json};
use crate::digest::Digest;

/// The config of an image (image-spec 1.1, "config"), read with its bytes kept.
#[derive(Debug, Clone)]
pub struct ImageConfig {
    raw: Verified,
    platform: Option<Platform>,
    created: Option<String>,
    diff_ids: Vec<Digest>,
}

impl ImageConfig {
    /// Reads a config.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(raw: Verified, limits: &Limits) -> Result<Self, Error> {
        if raw.size() > limits.config_bytes {
            let limit = limits.config_bytes;
            return Err(Error::TooLarge { what: "config", actual: raw.size(), limit });
        }
        json::check(raw.as_bytes(), "config", limits)?;
        let invalid = |reason: String| Error::Invalid { what: "config", reason };
        let mut value: serde_json::Value =
            serde_json::from_slice(raw.as_bytes()).map_err(|e| invalid(e.to_string()))?;
        super::document::drop_nulls(&mut value);
        // oci-spec wants members that old configs lack and that nobody here needs: only what is used is typed.
        let text = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
        let platform = match (text("os"), text("architecture")) {
            (Some(os), Some(architecture)) if !os.is_empty() && !architecture.is_empty() => {
                Some(Platform::new(os, architecture, text("variant").unwrap_or_default()))
            }
            _ => None,
        };
        let created = text("created").map(str::to_owned);
        let rootfs = value.get("rootfs").cloned().ok_or_else(|| invalid("missing field `rootfs`".into()))?;
        let rootfs: oci_spec::image::RootFs = match rootfs {
            serde_json::Value::Object(mut members) => {
                members.entry("diff_ids").or_insert_with(|| serde_json::json!([]));
                serde_json::from_value(members.into()).map_err(|e| invalid(e.to_string()))?
            }
            _ => return Err(invalid("`rootfs` is no object".into())),
        };
        let mut diff_ids = Vec::with_capacity(rootfs.diff_ids().len());
        for (i, text) in rootfs.diff_ids().iter().enumerate() {
            let bad = |_| Error::Digest { what: format!("diff_id {i}"), digest: super::shortened(text) };
            diff_ids.push(text.parse().map_err(bad)?);
        }
        if diff_ids.len() > limits.entries as usize {
            return Err(Error::TooManyEntries(limits.entries));
        }
        Ok(ImageConfig { raw, platform, created, diff_ids })
    }

    /// The bytes it was read from.
    pub fn raw(&self) -> &Verified {
        &self.raw
    }

    /// What the image runs on; `None` if the config does not say.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// When it was made, as it stands there.
    pub fn created(&self) -> Option<&str> {
        self.created.as_deref()
    }

    /// Digests of the uncompressed layers, lowest first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.diff_ids
    }
}
