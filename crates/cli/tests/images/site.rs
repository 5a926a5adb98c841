//! A registry, and the programs around it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use coracle_testkit::oci::{Bundle, Compression, image, runnable_layers};
use coracle_testkit::oracle::{run_ok, tool};
use coracle_testkit::service::{Registry, RegistryOptions};
use serde_json::Value;

use crate::place::Place;

/// Far more than any program here takes.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A working directory with docker-registry in it.
pub struct Site {
    pub place: Place,
    pub registry: Registry,
}

impl Site {
    pub fn new() -> Self {
        Self::with(&RegistryOptions::default())
    }

    pub fn with(options: &RegistryOptions) -> Self {
        let place = Place::new();
        let registry = Registry::start(&place.path("registry"), options).unwrap();
        Site { place, registry }
    }

    /// `text` with `{registry}` replaced.
    pub fn line(&self, text: &str) -> String {
        text.replace("{registry}", &self.registry.host())
    }

    /// Runs `coracle LINE`, which must succeed and print one object.
    pub fn json(&self, line: &str) -> Value {
        let place = &self.place;
        place.json(&self.line(line))
    }

    /// Runs another program, which must succeed; gives what it printed.
    pub fn program(&self, line: &str) -> String {
        program(&self.line(line), self.place.path("").as_path())
    }

    /// Puts an image that can be run into the registry with skopeo; gives its manifest's digest.
    pub fn push_with_skopeo(&self, name: &str) -> String {
        let bundle = runnable();
        bundle.write_layout(&self.place.path("in/layout"), "image").unwrap();
        self.program(&format!(
            "skopeo copy --quiet --dest-tls-verify=false oci:in/layout:image docker://{{registry}}/{name}"
        ));
        bundle.digest()
    }

    /// What skopeo finds: the digest of the manifest.
    pub fn digest_by_skopeo(&self, name: &str) -> String {
        self.program(&format!("skopeo inspect --tls-verify=false --format {{{{.Digest}}}} {name}"))
            .trim()
            .to_owned()
    }
}

/// An image with a shell that prints `7`.
pub fn runnable() -> Bundle {
    image("amd64", &runnable_layers().unwrap(), Compression::Gzip).unwrap()
}

/// Runs the program that `line` begins with, in `dir`, and shows what it said if it fails.
pub fn program(line: &str, dir: &Path) -> String {
    let mut words = line.split_ascii_whitespace();
    let mut command = Command::new(tool(words.next().unwrap()).unwrap());
    command.args(words).current_dir(dir);
    String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap()
}

/// A configuration of podman whose images lie in `dir`.
pub fn storage_conf(dir: &Path) -> std::path::PathBuf {
    storage_conf_seen_at(dir, &dir.display().to_string())
}

/// The same for a podman that sees `dir` under another path.
pub fn storage_conf_seen_at(dir: &Path, seen: &str) -> std::path::PathBuf {
    fs::create_dir_all(dir).unwrap();
    let file = dir.join("storage.conf");
    let text =
        format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{seen}/root\"\nrunroot = \"{seen}/run\"\n");
    fs::write(&file, text).unwrap();
    file
}

/// Options of podman with which a container starts where little is allowed.
pub const PODMAN_RUN: &str =
    "--runtime runc run --rm --network=none --ulimit nofile=1024:1024 --ulimit nproc=1024:1024";

/// Runs podman with the storage that `conf` describes; gives what it printed.
pub fn podman(conf: &Path, args: &str) -> String {
    let mut command = Command::new(tool("podman").unwrap());
    command.args(args.split(' ')).env("CONTAINERS_STORAGE_CONF", conf);
    String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap()
}

/// Runs docker with the engine at `socket`; gives what it printed.
pub fn docker(socket: &str, args: &str) -> String {
    let mut command = Command::new(tool("docker").unwrap());
    command.args(["-H", socket]).args(args.split(' '));
    String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap()
}
