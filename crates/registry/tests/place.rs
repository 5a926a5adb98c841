//! Registries to test against.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Document, Limits, Repository, Unverified, Version, media_type};
use coracle_registry::config::Registries;
use coracle_registry::{Client, Error, PushOptions, Pushed, Retry, Settings};
use coracle_testkit::forward::Forward;
use coracle_testkit::http::{Faults, Server};
use coracle_testkit::registry::{Behaviour, Double, start};
use coracle_testkit::service::{Registry, RegistryOptions};
use tempfile::TempDir;

/// Far more than any test here needs.
const LIMIT: Duration = Duration::from_secs(120);

/// A registry behind a server with faults.
pub struct Place {
    pub name: &'static str,
    pub server: Server,
    /// The registry in memory, if it is that one.
    pub double: Option<Arc<Double>>,
    _real: Option<(Registry, TempDir)>,
}

impl Place {
    pub fn double(behaviour: Behaviour) -> Self {
        let (double, server) = start(behaviour).unwrap();
        Place { name: "double", server, double: Some(double), _real: None }
    }

    pub fn real() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path(), &RegistryOptions::default()).unwrap();
        let server = Server::start(Arc::new(Forward::new(&registry.host()))).unwrap();
        Place { name: "docker-registry", server, double: None, _real: Some((registry, dir)) }
    }

    pub fn faults(&self) -> &Faults {
        self.server.faults()
    }

    pub fn repository(&self, path: &str) -> Repository {
        Repository::new(&self.server.host(), path).unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(settings())
    }
}

/// Settings for registries without TLS and for tests that have no time.
pub fn settings() -> Settings {
    Settings {
        registries: Registries::default().all_insecure(true),
        retry: Retry {
            attempts: 4,
            first_wait: Duration::from_millis(5),
            longest_wait: Duration::from_millis(40),
            longest_retry_after: Duration::from_secs(3),
        },
        idle_timeout: Duration::from_secs(10),
        ..Settings::default()
    }
}

/// Runs a test on both registries.
pub fn each<F: Future<Output = ()>>(test: impl Fn(Arc<Place>) -> F) {
    for place in [Place::double(Behaviour::default()), Place::real()] {
        let place = Arc::new(place);
        println!("on {}", place.name);
        run(test(Arc::clone(&place)));
        assert!(place.faults().clear(), "{}: a fault that was never met", place.name);
    }
}

/// Runs a test on the registry in memory, with switches.
pub fn double<F: Future<Output = ()>>(behaviour: Behaviour, test: impl FnOnce(Arc<Place>) -> F) {
    let place = Arc::new(Place::double(behaviour));
    run(test(Arc::clone(&place)));
    assert!(place.faults().clear(), "a fault that was never met");
}

pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, test).await.expect("the test takes too long") });
}

/// `len` bytes that do not repeat.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    coracle_testkit::image::Rng::new(seed).bytes(len)
}

pub fn blob(content: &[u8]) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(content), content.len() as u64)
}

pub async fn push(client: &Client, repository: &Repository, content: &[u8]) -> Result<Pushed, Error> {
    let content = Arc::new(content.to_vec());
    client.push_blob(repository, &blob(&content), content.clone(), &PushOptions::default()).await
}

/// Reads a blob from `offset` to its end and compares it, as whoever stores it does.
pub async fn pull(
    client: &Client,
    repository: &Repository,
    want: &Descriptor,
    offset: u64,
) -> Result<Vec<u8>, Error> {
    let mut stream = client.blob(repository, want, offset).await?;
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await? {
        all.extend_from_slice(&bytes);
    }
    assert_eq!(all.len() as u64, want.size - offset);
    Ok(all)
}

/// Pushes an image with one layer under `tag`; gives its manifest.
pub async fn push_image(client: &Client, repository: &Repository, tag: &str, layer: &[u8]) -> Document {
    let config = br#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}"#;
    push(client, repository, config).await.unwrap();
    push(client, repository, layer).await.unwrap();
    let config = Descriptor { media_type: media_type::OCI_CONFIG.into(), ..blob(config) };
    let document = manifest(&config, &[blob(layer)], None);
    client.push_manifest(repository, &Version::Tag(tag.into()), &document).await.unwrap();
    document
}

/// A manifest with odd blanks: its digest is that of these bytes and no others.
pub fn manifest(config: &Descriptor, layers: &[Descriptor], subject: Option<&Descriptor>) -> Document {
    let subject = subject.map(|s| format!(",\n \"subject\": {}", s.to_json())).unwrap_or_default();
    let layers: Vec<String> = layers.iter().map(|layer| layer.to_json().to_string()).collect();
    let text = format!(
        "{{ \"schemaVersion\":2,  \"mediaType\":\"{}\",\n \"config\": {}, \"layers\": [{}]{subject}\n}}",
        media_type::OCI_MANIFEST,
        config.to_json(),
        layers.join(" , ")
    );
    let raw = Unverified::new(text.into_bytes()).identify();
    Document::parse(raw, None, &Limits::default()).unwrap()
}
