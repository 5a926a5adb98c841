//! What the commands on images share: names, and what the environment says about registries.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use coracle_codec::oci::{Limits, Platform};
use coracle_engine::image::{Environment, ImageName, Sharing, Transport};
use coracle_engine::subset::Selection;
use coracle_engine::trust::Trust;
use coracle_registry::config::{AuthFiles, CertFolders, Registries};
use coracle_registry::{Client, Proxies, Settings};
use tokio::runtime::{Builder, Runtime};

use super::{archive_limits, is_stdio};
use crate::args::{RegistryOptions, Shared, StorePlace, SubsetOptions, TrustOptions};
use crate::failure::Failure;

/// Where containers tools look for registries.conf: the user's, the machine's, the distribution's.
const REGISTRIES: [&str; 2] = ["/etc/containers/registries.conf", "/usr/share/containers/registries.conf"];
const DROP_INS: [&str; 2] = ["/usr/share/containers/registries.conf.d", "/etc/containers/registries.conf.d"];
const CERTS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];
const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Reads the name of an image.
pub fn image_name(text: &str) -> Result<ImageName, Failure> {
    text.parse().map_err(Failure::from)
}

/// Whether an image goes to standard output.
pub fn writes_stdout(name: &ImageName) -> bool {
    match name.transport() {
        Transport::OciArchive { path, .. } | Transport::DockerArchive { path, .. } => is_stdio(path),
        _ => false,
    }
}

pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Everything that work on images needs. The runtime has to live as long as the work.
///
/// `trust` is for commands that take images from elsewhere; those without judge none.
pub fn environment(
    options: &RegistryOptions,
    trust: Option<&TrustOptions>,
    shared: &Shared,
) -> Result<(Environment, Runtime), Failure> {
    let trust = trust.map_or_else(|| Ok(Trust::absent()), super::trust::load)?;
    let home = variable("HOME").map(PathBuf::from);
    let failed = |error: coracle_registry::Error| {
        let error = Box::new(error);
        Failure::from(coracle_engine::Error::Registry { context: "configuration".into(), error })
    };
    let registries = registries(options, home.as_deref()).map_err(failed)?;
    let settings = Settings {
        registries: registries.all_insecure(!options.tls_verify),
        certs: certs(options, home.as_deref()),
        auth: auth(options, home.as_deref()),
        proxies: Proxies {
            http: proxy(&["http_proxy"]),
            https: proxy(&["https_proxy", "HTTPS_PROXY"]),
            none_for: proxy(&["no_proxy", "NO_PROXY"]),
        },
        limit_rate: options.limit_rate,
        ..Settings::default()
    };
    // Hashing, reading and writing happen on threads of their own; these only move bytes over sockets.
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::usage(format!("cannot start threads: {e}")))?;
    let environment = Environment {
        client: Client::new(settings),
        runtime: runtime.handle().clone(),
        docker_socket: docker_socket()?,
        host: host(),
        trust,
        limits: Limits::default(),
        archive_limits: archive_limits(shared),
        store: store(&options.place)?,
        now: now(),
        sharing: Sharing::default(),
        selection: None,
    };
    Ok((environment, runtime))
}

/// Seconds since 1970-01-01 UTC.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Whether the user says which store it is.
pub fn store_is_named(place: &StorePlace) -> bool {
    place.store.is_some() || variable("CORACLE_STORE").is_some()
}

/// How files of the store become files of a tree.
pub fn sharing(hardlinks: bool) -> Sharing {
    if hardlinks { Sharing::Links } else { Sharing::Blocks }
}

/// Which files go into a tree; only a tree can have a part of them.
pub fn selection(options: &SubsetOptions, to: Option<&ImageName>) -> Result<Option<Selection>, Failure> {
    let selection = options.selection().map_err(|error| Failure::usage(error.to_string()))?;
    let tree = to.is_some_and(|to| matches!(to.transport(), Transport::Rootfs(_)));
    match selection {
        Some(_) if !tree => Err(Failure::usage(
            "--only, --exclude and --all-files are for trees of files: name one as the destination, rootfs:DIR",
        )),
        selection => Ok(selection),
    }
}

/// Where the store is: as told, or where data of a user, or of the machine, belongs (XDG Base Directory Specification).
pub fn store(place: &StorePlace) -> Result<PathBuf, Failure> {
    if let Some(told) = place.store.clone().or_else(|| variable("CORACLE_STORE").map(PathBuf::from)) {
        return Ok(told);
    }
    if coracle_sys::usage::user_id() == 0 {
        return Ok(PathBuf::from("/var/lib/coracle/store"));
    }
    let data = variable("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/share")));
    data.map(|data| data.join("coracle/store"))
        .ok_or_else(|| Failure::usage("there is no place for the store: give it with --store"))
}

fn proxy(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| variable(name)).and_then(|value| value.into_string().ok())
}

/// `$CONTAINERS_REGISTRIES_CONF`, else the user's file, else the machine's, with drop-ins unless a file was named.
fn registries(options: &RegistryOptions, home: Option<&Path>) -> Result<Registries, coracle_registry::Error> {
    let named = options.registries_conf.clone();
    let named = named.or_else(|| variable("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from));
    if let Some(named) = named {
        if !named.exists() {
            return Err(coracle_registry::Error::Config { path: named, reason: "no such file".into() });
        }
        return Registries::load(Some(&named), &[]);
    }
    let users = home.map(|home| home.join(".config/containers"));
    let mut files: Vec<PathBuf> = users.iter().map(|users| users.join("registries.conf")).collect();
    files.extend(REGISTRIES.iter().map(PathBuf::from));
    let mut drop_ins: Vec<PathBuf> = DROP_INS.iter().map(PathBuf::from).collect();
    drop_ins.extend(users.map(|users| users.join("registries.conf.d")));
    let file = files.into_iter().find(|file| file.exists());
    Registries::load(file.as_deref(), &drop_ins)
}

fn certs(options: &RegistryOptions, home: Option<&Path>) -> CertFolders {
    let mut by_host: Vec<PathBuf> = home.iter().map(|home| home.join(".config/containers/certs.d")).collect();
    by_host.extend(CERTS.iter().map(PathBuf::from));
    CertFolders { by_host, always: options.cert_dir.clone() }
}

/// The order of containers-auth.json(5).
fn auth(options: &RegistryOptions, home: Option<&Path>) -> AuthFiles {
    let only = options.authfile.clone().or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
    let mut files = Vec::new();
    match variable("XDG_RUNTIME_DIR") {
        Some(dir) => files.push(PathBuf::from(dir).join("containers/auth.json")),
        None => files.push(format!("/run/containers/{}/auth.json", coracle_sys::usage::user_id()).into()),
    }
    let config =
        variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".config")));
    files.extend(config.map(|config| config.join("containers/auth.json")));
    let docker =
        variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| home.map(|home| home.join(".docker")));
    files.extend(docker.map(|docker| docker.join("config.json")));
    AuthFiles { files, only }
}

/// `$DOCKER_HOST`, if it is a socket.
fn docker_socket() -> Result<PathBuf, Failure> {
    match variable("DOCKER_HOST") {
        None => Ok(DOCKER_SOCKET.into()),
        Some(host) => match host.to_string_lossy().strip_prefix("unix://") {
            Some(path) => Ok(path.into()),
            // Only whoever uses it has to know.
            None => Ok(PathBuf::from(host)),
        },
    }
}

/// What this machine runs.
fn host() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    };
    Platform::new("linux", architecture, "")
}
