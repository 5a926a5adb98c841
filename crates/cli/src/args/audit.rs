//! Arguments of `coracle ls`, `coracle cat` and `coracle compare`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use coracle_codec::oci::Platform;

use super::{RegistryOptions, Shared};

/// What all of them share.
#[derive(Debug, Args)]
pub struct Auditing {
    /// Of an index the image for this platform [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<Platform>,
    /// Layers read at the same time
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,
    #[command(flatten)]
    pub registry: RegistryOptions,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct Ls {
    /// The image, as for copy
    pub image: String,
    /// Only this file, or what is below this folder
    pub path: Option<PathBuf>,
    /// Show type and mode, owner, size and time
    #[arg(long, short)]
    pub long: bool,
    /// Show digests of contents
    #[arg(long)]
    pub digests: bool,
    #[command(flatten)]
    pub auditing: Auditing,
}

#[derive(Debug, Args)]
pub struct Cat {
    /// The image, as for copy
    pub image: String,
    /// The file; links are followed inside of the image
    pub path: PathBuf,
    #[command(flatten)]
    pub auditing: Auditing,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// The image as it was
    pub old: String,
    /// The image as it is
    pub new: String,
    #[command(flatten)]
    pub auditing: Auditing,
}
