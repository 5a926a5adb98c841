//! Options for delta images of balenaEngine.

use clap::Args;

/// Of `coracle delta create`.
#[derive(Debug, Args)]
pub struct BalenaCreate {
    /// With --dialect balena: find blocks of 512 bytes and compress as the engine itself does, to compare sizes
    #[arg(long)]
    pub classic: bool,
}

/// Of `coracle pull`.
#[derive(Debug, Args)]
pub struct BalenaPull {
    /// If IMAGE is a Balena delta: the image that it leads to, for its manifest and for layers that cannot be made
    #[arg(long, value_name = "IMAGE")]
    pub full: Option<String>,
}
