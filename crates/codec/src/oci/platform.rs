//! Platforms: `OS/ARCHITECTURE[/VARIANT]`.

use std::fmt;
use std::str::FromStr;

/// What an image runs on, in the words of image-spec 1.1 ("image-index", `platform`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, `windows`, ...
    pub os: String,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// `v8`, ...; empty if there is none.
    pub variant: String,
}

/// Why a text is no [`Platform`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a platform: {0:?}")]
pub struct ParsePlatformError(String);

impl Platform {
    /// A platform in normal form: other names of an architecture are replaced by the usual one, and the variants that
    /// every such machine has are left away. As containerd and containers/image do.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = match (architecture, variant) {
            ("x86_64" | "x86-64", v) => ("amd64", v),
            ("i386" | "i686", v) => ("386", v),
            ("aarch64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            other => other,
        };
        let variant = match (architecture, variant) {
            ("amd64", "v1") | ("arm64", "v8" | "8") => "",
            ("arm", "5") => "v5",
            ("arm", "6") => "v6",
            ("arm", "" | "7") => "v7",
            ("arm", "8") => "v8",
            (_, variant) => variant,
        };
        Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }
    }

    pub(super) fn of_spec(read: &oci_spec::image::Platform) -> Self {
        let variant = read.variant().as_deref().unwrap_or_default();
        Self::new(&read.os().to_string(), &read.architecture().to_string(), variant)
    }

    /// How well an image for `self` runs on a machine that is `host`: `None` not at all, otherwise higher is better.
    pub fn fits(&self, host: &Platform) -> Option<u32> {
        if self.os != host.os || self.architecture != host.architecture {
            return None;
        }
        if self.variant == host.variant {
            return Some(1000);
        }
        // `v7` runs on `v8` and an image that asks for nothing in particular on everything.
        let level = |variant: &str| match variant {
            "" => Some(0),
            v => v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()),
        };
        match (level(&self.variant), level(&host.variant)) {
            (Some(image), Some(host)) if image <= host && host < 1000 => Some(image),
            _ => None,
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut out = serde_json::json!({ "architecture": self.architecture, "os": self.os });
        if !self.variant.is_empty() {
            out["variant"] = serde_json::json!(self.variant);
        }
        out
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ParsePlatformError(super::shortened(text));
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, arch] if word(os) && word(arch) => Ok(Platform::new(os, arch, "")),
            [os, arch, variant] if word(os) && word(arch) && word(variant) => {
                Ok(Platform::new(os, arch, variant))
            }
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn normal_form() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/s390x", "linux/s390x"),
            ("linux/amd64/v3", "linux/amd64/v3"),
        ] {
            assert_eq!(platform(text).to_string(), want, "{text}");
        }
        for bad in ["", "linux", "linux/", "/amd64", "linux/amd64/v1/x", "linux/am d64", "linux//v8"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_closest_fits_best() {
        let fits = |image, host| platform(image).fits(&platform(host));
        assert!(fits("linux/arm64", "linux/amd64").is_none());
        assert!(fits("windows/amd64", "linux/amd64").is_none());
        assert!(fits("linux/arm/v7", "linux/arm/v6").is_none());
        assert!(fits("linux/arm/v6", "linux/arm/v7") > fits("linux/arm/v5", "linux/arm/v7"));
        assert!(fits("linux/arm/v7", "linux/arm/v7") > fits("linux/arm/v6", "linux/arm/v7"));
        assert!(fits("linux/amd64", "linux/amd64/v3").is_some());
        assert!(fits("linux/amd64/v3", "linux/amd64").is_none());
    }
}
