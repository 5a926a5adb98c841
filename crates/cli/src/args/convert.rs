//! Arguments of `coracle convert`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum};
use coracle_codec::oci::Platform;

use super::{RegistryOptions, Shared, TrustOptions};

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// gzip: every client reads it
    Gzip,
    /// zstd: smaller, and faster to decode
    Zstd,
    /// zstd that clients may fetch in parts
    #[value(name = "zstd:chunked")]
    Chunked,
    /// gzip that clients may fetch in parts
    #[value(name = "estargz")]
    Stargz,
}

/// Old clients that get something more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compat {
    /// podman and skopeo before 2024 pull zstd:chunked in parts, too
    Podman4,
}

#[derive(Debug, Args)]
pub struct Convert {
    /// The image, as for copy
    #[arg(value_name = "IMAGE")]
    pub source: String,
    /// Where to, and under which name
    #[arg(value_name = "DST")]
    pub destination: String,
    /// How layers are to be compressed
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub compression: Compression,
    /// How hard: 1 to 9 for gzip and estargz [default: 6], 1 to 22 for zstd and zstd:chunked [default: 9]
    #[arg(long, value_name = "N")]
    pub level: Option<i32>,
    /// Also set the annotations that an old client looks for, which then gives the layers an identity of its own
    #[arg(long, value_name = "CLIENT", value_enum)]
    pub compat: Option<Compat>,
    /// Of an index only the image for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Layers made at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,
    #[command(flatten)]
    pub trust: TrustOptions,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}
