//! composefs, by the program of `testkit/oracles-composefs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What a composefs repository holds of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// Digest by which the repository knows the manifest.
    pub manifest_digest: String,
    /// Digest by which the repository knows the config.
    pub config_digest: String,
    /// The manifest as it came.
    pub manifest: Vec<u8>,
    /// The config as it came.
    pub config: Vec<u8>,
    /// The uncompressed layers.
    pub layers: Vec<Vec<u8>>,
    /// Digest of the file system that composefs mounts.
    pub mounted: String,
    /// How many of the layers were there before the last pull.
    pub present: usize,
}

/// Makes a composefs repository in the new folder `dir`, and pulls `names` into it in turn with the crate `composefs-oci`:
/// `oci:FOLDER`, for example, an image or a delta artifact. Gives what the repository then holds of the last image.
///
/// # Errors
/// What the crate says, with causes. The program is not there.
pub fn composefs_pull(dir: &Path, names: &[&str]) -> Result<Pulled, String> {
    let text = |error: std::io::Error| error.to_string();
    std::fs::create_dir(dir).map_err(text)?;
    let output = Command::new(program()?).arg(dir).args(names).output().map_err(text)?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let bytes = |name: &str| std::fs::read(dir.join(name)).map_err(|error| format!("{name}: {error}"));
    let string = |name: &str| Ok::<_, String>(String::from_utf8_lossy(&bytes(name)?).into_owned());
    let mut layers = Vec::new();
    while dir.join(format!("layer-{}", layers.len())).exists() {
        layers.push(bytes(&format!("layer-{}", layers.len()))?);
    }
    Ok(Pulled {
        manifest_digest: string("manifest-digest")?,
        config_digest: string("config-digest")?,
        manifest: bytes("manifest")?,
        config: bytes("config")?,
        layers,
        mounted: string("mounted")?,
        present: string("present")?.parse().map_err(|_| "present: not a number")?,
    })
}

/// The program, which cargo puts two folders above the test.
fn program() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let path = test.ancestors().nth(2).unwrap_or(&test).join("coracle-oracles-composefs");
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("{} is missing: run `cargo build --package coracle-oracles-composefs`", path.display()))
}
