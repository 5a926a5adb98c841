//! Options of commands that ask the policy of the machine.

use std::path::PathBuf;

use clap::Args;

/// What is accepted.
#[derive(Debug, Args)]
pub struct TrustOptions {
    /// Which images are accepted, instead of the usual policy.json
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_policy")]
    pub signature_policy: Option<PathBuf>,
    /// Accept all images, whatever the policy says
    #[arg(long)]
    pub insecure_policy: bool,
    /// Take signatures that do not name the image, as those of cosign 3, for signatures that name it as the policy wants
    #[arg(long)]
    pub accept_unnamed_signatures: bool,
}
