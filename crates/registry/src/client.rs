//! The client and its settings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coracle_codec::digest::Digest;
use coracle_codec::oci::{Limits, Reference, Repository};
use tokio::time::Instant;

use crate::Error;
use crate::config::{AuthFiles, CertFolders, Place, Purpose, Registries};
use crate::http::Http;
use crate::limiter::Limiter;
use crate::token::Tokens;

/// How often and how long the same thing is tried.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// Attempts in a row without progress, the first included.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_wait: Duration,
    /// Longest wait of our own.
    pub longest_wait: Duration,
    /// Longest wait that a server may ask for (`Retry-After`); more is an error.
    pub longest_retry_after: Duration,
}

impl Default for Retry {
    /// 7 attempts, waits from 0.25 s to 10 s (16 s in sum, time for a registry to restart), up to 2 minutes if a server
    /// asks for it.
    fn default() -> Self {
        Retry {
            attempts: 7,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(120),
        }
    }
}

impl Retry {
    /// The wait before attempt `n` (from 1: the first repetition).
    pub(crate) fn wait(&self, n: u32) -> Duration {
        self.first_wait.saturating_mul(1 << n.saturating_sub(1).min(16)).min(self.longest_wait)
    }
}

/// HTTP proxies, as the usual environment variables give them.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// Hosts without a proxy, separated by commas.
    pub none_for: Option<String>,
}

/// Everything a client has to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where names are served.
    pub registries: Registries,
    /// Certificates by host.
    pub certs: CertFolders,
    /// Credentials.
    pub auth: AuthFiles,
    /// Proxies.
    pub proxies: Proxies,
    /// Bounds for manifests and what they announce.
    pub limits: Limits,
    /// Repetitions.
    pub retry: Retry,
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How long nothing may come. A body that gives less than [`Settings::slowest`] in this time counts as broken.
    pub idle_timeout: Duration,
    /// Bytes that have to come within [`Settings::idle_timeout`].
    pub slowest: u64,
    /// Bytes of bodies per second, both ways and all transfers together.
    pub limit_rate: Option<u64>,
    /// Pages of a list of tags or referrers that are fetched at most.
    pub max_pages: u32,
}

impl Default for Settings {
    /// No files, no proxies, no rate limit; 30 s to connect and 60 s without at least 1 KiB of answer.
    fn default() -> Self {
        Settings {
            registries: Registries::default(),
            certs: CertFolders::default(),
            auth: AuthFiles::default(),
            proxies: Proxies::default(),
            limits: Limits::default(),
            retry: Retry::default(),
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            slowest: 1024,
            limit_rate: None,
            max_pages: 10_000,
        }
    }
}

/// What went over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Requests sent, repetitions, redirects and questions for tokens among them.
    pub requests: u64,
    /// Bytes of bodies received, of all kinds.
    pub received: u64,
}

/// A client of any number of registries. Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) http: Http,
    pub(crate) tokens: Tokens,
    pub(crate) limiter: Option<Limiter>,
    /// Mirrors that could not be reached, and when.
    down: Mutex<HashMap<String, Instant>>,
    requests: AtomicU64,
    received: AtomicU64,
    /// Places that gave wrong bytes for a blob.
    wrong: Mutex<HashMap<(String, Digest), ()>>,
    /// Hosts that were asked for several ranges at once, and whether they gave them.
    several: Mutex<HashMap<String, bool>>,
}

/// For how long a mirror that could not be reached is not asked again.
const DOWN: Duration = Duration::from_secs(60);

impl Client {
    /// A client. Connects to nothing yet.
    pub fn new(settings: Settings) -> Self {
        let limiter = settings.limit_rate.map(Limiter::new);
        Client {
            shared: Arc::new(Shared {
                http: Http::default(),
                tokens: Tokens::default(),
                limiter,
                settings,
                down: Mutex::default(),
                requests: AtomicU64::new(0),
                received: AtomicU64::new(0),
                wrong: Mutex::default(),
                several: Mutex::default(),
            }),
        }
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What this client and its clones have done so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.shared.requests.load(Ordering::Relaxed),
            received: self.shared.received.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_request(&self) {
        self.shared.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.shared.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Tells that `host` gave wrong bytes for the blob `digest`: other places are asked first from now on.
    pub fn distrust(&self, host: &str, digest: Digest) {
        if let Ok(mut wrong) = self.shared.wrong.lock() {
            wrong.insert((host.to_owned(), digest), ());
        }
    }

    /// Where to pull `reference` from, best first: mirrors that are down, and places that lied about the blob, last.
    pub(crate) fn sources(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let mut places = self.shared.settings.registries.places(reference, Purpose::Pull)?;
        let down = self.shared.down.lock().map(|down| down.clone()).unwrap_or_default();
        let wrong = self.shared.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default();
        places.sort_by_key(|place| {
            let is_down = place.mirror && down.get(&place.host).is_some_and(|at| at.elapsed() < DOWN);
            let lied =
                reference.digest().is_some_and(|digest| wrong.contains_key(&(place.host.clone(), digest)));
            is_down || lied
        });
        Ok(places)
    }

    /// Where to write to.
    pub(crate) fn target(&self, repository: &Repository) -> Result<Place, Error> {
        let any = repository.with_digest(Digest::of(b""));
        let places = self.shared.settings.registries.places(&any, Purpose::Push)?;
        places.into_iter().next_back().ok_or_else(|| Error::Config {
            path: "registries.conf".into(),
            reason: format!("{repository} has no location"),
        })
    }

    /// Asks one place after the other until one answers. The error is that of the last, the registry itself.
    pub(crate) async fn try_places<T, F>(
        &self,
        reference: &Reference,
        mut ask: impl FnMut(Place) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut told = None;
        for place in self.sources(reference)? {
            let (host, mirror) = (place.host.clone(), place.mirror);
            match ask(place).await {
                Ok(answer) => return Ok(answer),
                Err(error) if !error.is_elsewhere_better() => return Err(error),
                Err(error) => {
                    if mirror && error.is_transient() {
                        self.mark_down(&host);
                    }
                    // What the registry itself says counts, wherever in the order it was asked.
                    if told.is_none() || !mirror {
                        told = Some(error);
                    }
                }
            }
        }
        Err(told.unwrap_or_else(|| Error::NotFound { what: reference.to_string(), host: "nowhere".into() }))
    }

    /// Whether a host gives several ranges in one answer; `None` if it was not asked yet.
    pub(crate) fn gives_several(&self, host: &str) -> Option<bool> {
        self.shared.several.lock().ok()?.get(host).copied()
    }

    pub(crate) fn note_several(&self, host: &str, gives: bool) {
        if let Ok(mut several) = self.shared.several.lock() {
            several.insert(host.to_owned(), gives);
        }
    }

    pub(crate) fn mark_down(&self, host: &str) {
        if let Ok(mut down) = self.shared.down.lock() {
            down.insert(host.to_owned(), Instant::now());
        }
    }

    pub(crate) async fn pace(&self, bytes: usize) {
        if let Some(limiter) = &self.shared.limiter {
            limiter.take(bytes).await;
        }
    }
}
