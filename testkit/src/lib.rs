//! Test data and reference programs for the tests of Coracle.
//!
//! A development dependency only. It depends on no crate of the workspace, so that a mistake in one of ours
//! cannot hide itself in the data made to find it.
//!
//! - [`golden`]: the stored inputs of other tools, good and bad, with what a correct reader makes of them
//! - [`tar_builder`]: tars made byte by byte
//! - [`image`]: deterministic content that looks like programs and text, and edits of it
//! - [`native`](mod@native): a second decoder of native deltas
//! - [`pair`]: two tars that look like two builds of one image layer
//! - [`tree`]: extracted trees on disk
//! - [`oci`]: whole images as bytes and layouts
//! - [`program`]: small ELF programs
//! - [`oracle`]: running other programs within a time limit
//! - [`http`]: a server whose answers can be spoiled; [`registry`]: a registry in memory behind it; [`forward`]: any
//!   other registry behind it
//! - [`signing`]: keys and signatures of images, made by openssl
//! - [`debian13`]: podman and skopeo of Debian 13
//! - [`service`]: docker-registry, dockerd and containerd, started for one test

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

pub mod debian13;
pub mod forward;
pub mod golden;
pub mod http;
pub mod image;
pub mod native;
pub mod oci;
pub mod oracle;
pub mod pair;
pub mod program;
pub mod registry;
pub mod service;
pub mod signing;
pub mod tar_builder;
pub mod tree;

/// What can go wrong when test data is prepared. A test unwraps it and shows the text.
#[derive(Debug, Error)]
pub enum Error {
    /// Reading or writing a file failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A stored JSON file is not as described.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Stored or given data is damaged.
    #[error("{what}: {reason}")]
    Data {
        /// Which data.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// A program that the test needs is not installed.
    #[error("{tool} is not on PATH; Debian package: {package}")]
    MissingTool {
        /// Its command name.
        tool: String,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program was ended because it ran too long.
    #[error("{command}: still running after {limit:?}")]
    Timeout {
        /// The command line.
        command: String,
        /// The time it had.
        limit: Duration,
    },
    /// A program ended with another status than 0.
    #[error("{command}: {status}: {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to its standard error, shortened.
        stderr: String,
    },
}

impl Error {
    fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    fn data(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Data { what: what.into(), reason: reason.into() }
    }
}
