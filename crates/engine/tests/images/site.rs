//! Everything that images can be copied from and to, in one folder.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_codec::compress;
use coracle_codec::observe::{Observer, Quiet};
use coracle_codec::oci::{Limits, Platform};
use coracle_engine::image::copy::{Copied, Request, run};
use coracle_engine::image::{Environment, ImageName, Sharing};
use coracle_engine::trust::Trust;
use coracle_engine::{Context, Error};
use coracle_registry::config::Registries;
use coracle_registry::{Client, Retry, Settings};
use coracle_testkit::http::{Faults, Server};
use coracle_testkit::oci::Bundle;
use coracle_testkit::registry::{Behaviour, Double, start};
use coracle_testkit::service::{Engine, Registry, RegistryOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Far more than one copy takes.
pub const LIMIT: Duration = Duration::from_secs(120);

pub struct Site {
    pub dir: TempDir,
    pub double: Arc<Double>,
    pub server: Server,
    /// What is accepted.
    pub trust: Trust,
    real: Option<Registry>,
    engine: Option<Engine>,
    runtime: Runtime,
}

impl Site {
    /// A folder and a registry in memory.
    pub fn new() -> Self {
        let (double, server) = start(Behaviour::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tmp")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Site { dir, double, server, trust: Trust::absent(), real: None, engine: None, runtime }
    }

    /// The same with docker-registry and dockerd.
    pub fn with_programs() -> Self {
        let mut site = Self::new();
        site.real = Some(Registry::start(&site.path("registry"), &RegistryOptions::default()).unwrap());
        site.engine = Some(Engine::dockerd(&site.path("docker"), &[]).unwrap());
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    /// An image name with `{}` for the folder, `{double}` and `{real}` for the registries.
    pub fn name(&self, text: &str) -> ImageName {
        let real = self.real.as_ref().map(Registry::host).unwrap_or_default();
        let text = text.replace("{double}", &self.server.host()).replace("{real}", &real);
        text.replace("{}", &self.dir.path().to_string_lossy()).parse().unwrap()
    }

    pub fn settings(&self) -> Settings {
        Settings {
            registries: Registries::default().all_insecure(true),
            retry: Retry {
                attempts: 3,
                first_wait: Duration::from_millis(5),
                longest_wait: Duration::from_millis(20),
                longest_retry_after: Duration::from_secs(2),
            },
            idle_timeout: Duration::from_secs(10),
            ..Settings::default()
        }
    }

    pub fn environment(&self) -> Environment {
        Environment {
            client: Client::new(self.settings()),
            runtime: self.runtime.handle().clone(),
            docker_socket: self
                .engine
                .as_ref()
                .map_or_else(|| self.path("no.sock"), |engine| engine.socket().to_owned()),
            host: Platform::new("linux", "amd64", ""),
            trust: self.trust.clone(),
            limits: Limits::default(),
            archive_limits: compress::Limits { max_output: 1 << 30, ..compress::Limits::default() },
            store: self.path("store"),
            now: 0,
            sharing: Sharing::default(),
            selection: None,
        }
    }

    pub fn copy(&self, source: &str, destination: &str) -> Result<Copied, Error> {
        self.copy_as(source, destination, None, &Quiet)
    }

    pub fn copy_as(
        &self,
        source: &str,
        destination: &str,
        platform: Option<&str>,
        observer: &dyn Observer,
    ) -> Result<Copied, Error> {
        let request = Request {
            source: self.name(source),
            destination: self.name(destination),
            platform: platform.map(|platform| platform.parse().unwrap()),
            jobs: NonZeroUsize::new(3).unwrap(),
        };
        let context = Context { observer, temp_dir: self.path("tmp") };
        run(&request, &self.environment(), &context)
    }

    /// Puts `bundle` at `oci:{}/NAME:image`.
    pub fn put(&self, name: &str, bundle: &Bundle) -> String {
        bundle.write_layout(&self.path(name), "image").unwrap();
        format!("oci:{{}}/{name}:image")
    }

    /// Puts `bundle` into the registry in memory, without asking whether it is right.
    pub fn put_registry(&self, repository: &str, tag: &str, bundle: &Bundle) -> String {
        for blob in &bundle.blobs {
            self.double.put_blob(repository, blob.clone());
        }
        self.double.put_manifest(repository, tag, &bundle.root.0, &bundle.root.1);
        format!("docker://{{double}}/{repository}:{tag}")
    }

    /// What there is in the folder for temporary files.
    pub fn left(&self) -> Vec<PathBuf> {
        std::fs::read_dir(self.path("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

/// Every file below `dir` with its bytes.
pub fn files(dir: &Path) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    coracle_testkit::tree::files(dir).unwrap()
}
