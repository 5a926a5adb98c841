//! One request: connection, redirects, authentication, and trying again.

use std::collections::{HashMap, HashSet};
use std::error::Error as _;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::config::Place;
use crate::token::challenges;
use crate::{Client, Error, Settings};

/// Redirects followed for one request.
const MAX_REDIRECTS: u32 = 10;
/// An answer to the end of an upload may take this many times as long as any other.
pub(crate) const LAST_ANSWER: u32 = 10;
/// Longer than any upload: those are ended when nothing moves.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);
/// Attempts to connect to a host that has not answered yet.
const UNKNOWN_HOST: u32 = 2;
/// Bytes of an error answer that are read.
const MAX_ERROR: usize = 64 << 10;

/// Connections by host, and which scheme it speaks.
#[derive(Debug, Default)]
pub(crate) struct Http {
    clients: Mutex<HashMap<(String, bool), reqwest::Client>>,
    plain: Mutex<HashMap<String, bool>>,
    /// Hosts that have answered.
    reached: Mutex<HashSet<String>>,
}

/// A request that can be sent any number of times.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    /// What it is about, for messages.
    pub(crate) what: &'a str,
    pub(crate) to: To<'a>,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Option<Bytes>,
    /// Scopes for tokens, separated by blanks.
    pub(crate) scopes: String,
}

/// Where it goes.
#[derive(Debug, Clone)]
pub(crate) enum To<'a> {
    /// A path and query below `/v2/` of the place.
    Path(String),
    /// An absolute URL that the place gave us.
    Url(&'a Url),
}

impl<'a> Request<'a> {
    pub(crate) fn new(method: Method, what: &'a str, to: To<'a>, scopes: String) -> Self {
        Request { method, what, to, headers: Vec::new(), body: None, scopes }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The scope of reading, or of reading and writing, a repository.
pub(crate) fn scope(path: &str, actions: &str) -> String {
    format!("repository:{path}:{actions}")
}

impl Http {
    fn client(&self, settings: &Settings, host: &str, insecure: bool) -> Result<reqwest::Client, Error> {
        let key = (host.to_owned(), insecure);
        if let Some(client) = self.clients.lock().ok().and_then(|all| all.get(&key).cloned()) {
            return Ok(client);
        }
        let setup = |e: reqwest::Error| Error::Setup { host: host.to_owned(), reason: chain(&e) };
        let certs = settings.certs.of(host)?;
        let mut authorities = Vec::new();
        for pem in &certs.authorities {
            authorities.extend(reqwest::Certificate::from_pem_bundle(pem).map_err(setup)?);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .connect_timeout(settings.connect_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(30));
        for (url, scheme) in [(&settings.proxies.http, "http"), (&settings.proxies.https, "https")] {
            if let Some(url) = url.as_deref().filter(|url| !url.is_empty()) {
                let proxy =
                    if scheme == "http" { reqwest::Proxy::http(url) } else { reqwest::Proxy::https(url) };
                let none_for = settings.proxies.none_for.as_deref().and_then(reqwest::NoProxy::from_string);
                builder = builder.proxy(proxy.map_err(setup)?.no_proxy(none_for));
            }
        }
        if insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        } else if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        if let Some(pem) = &certs.identity {
            builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(setup)?);
        }
        let client = builder.build().map_err(setup)?;
        if let Ok(mut all) = self.clients.lock() {
            all.insert(key, client.clone());
        }
        Ok(client)
    }

    fn speaks_plain(&self, host: &str) -> Option<bool> {
        self.plain.lock().ok()?.get(host).copied()
    }

    fn was_reached(&self, host: &str) -> bool {
        self.reached.lock().is_ok_and(|reached| reached.contains(host))
    }

    fn remember(&self, host: &str, plain: bool) {
        if let Ok(mut all) = self.plain.lock() {
            all.insert(host.to_owned(), plain);
        }
    }
}

/// `HOST` or `HOST:PORT` if the port is not the scheme's own.
pub(crate) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

fn same_origin(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default())
        == (b.scheme(), b.host_str(), b.port_or_known_default())
}

impl Client {
    /// Sends a request until there is an answer that is neither a transient failure nor a question for credentials.
    /// Waits in between as [`crate::Retry`] and the server say.
    pub(crate) async fn send(&self, place: &Place, request: &Request<'_>) -> Result<Response, Error> {
        let retry = self.settings().retry;
        let mut attempt = 1;
        loop {
            let result = self.send_once(place, request, None).await;
            let wait = match &result {
                Ok(answer) if is_transient(answer.status()) => self.wait_asked(answer, attempt),
                Err(error) if error.is_transient() => Some(retry.wait(attempt)),
                _ => return result,
            };
            // A host that never answered is more likely a wrong name than one that restarts.
            let attempts = match &result {
                Err(Error::Connect { host, .. }) if !self.shared.http.was_reached(host) => {
                    retry.attempts.min(UNKNOWN_HOST)
                }
                _ => retry.attempts,
            };
            match wait {
                Some(wait) if attempt < attempts => sleep(wait).await,
                _ => return result,
            }
            attempt += 1;
        }
    }

    /// How long to wait before the same is tried again; `None` if the server asks for more than is waited.
    pub(crate) fn wait_asked(&self, answer: &Response, attempt: u32) -> Option<Duration> {
        let retry = self.settings().retry;
        match retry_after(answer.headers()) {
            Some(asked) if asked > retry.longest_retry_after => None,
            Some(asked) => Some(asked.max(retry.wait(attempt))),
            None => Some(retry.wait(attempt)),
        }
    }

    /// Sends a request once, with `body` if given, which cannot be sent twice. Follows redirects of GET and HEAD and
    /// answers one question for credentials, if the body allows it.
    pub(crate) async fn send_once(
        &self,
        place: &Place,
        request: &Request<'_>,
        mut body: Option<reqwest::Body>,
    ) -> Result<Response, Error> {
        let shared = &self.shared;
        let mut header = shared.tokens.header(&place.host, &request.scopes).await;
        let mut refused = 0;
        let streamed = body.is_some();
        loop {
            let answer = self.exchange(place, request, header.as_deref(), body.take()).await?;
            if answer.status() != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            let values = answer.headers().get_all(WWW_AUTHENTICATE);
            let asked = challenges(values.iter().filter_map(|value| value.to_str().ok()));
            drop(answer);
            refused += 1;
            // An old token, then a fresh one: a third refusal has another reason.
            if refused > 2 {
                return Err(Error::Unauthorized {
                    what: request.what.to_owned(),
                    host: place.host.clone(),
                    reason: "the token it gave is not accepted".into(),
                });
            }
            let new = shared
                .tokens
                .answer(self, place, &request.scopes, &asked, header.as_deref(), request.what)
                .await?;
            header = Some(new);
            if streamed {
                // The body is gone; the caller starts again, with the token that is known now.
                return Err(Error::Broken {
                    what: request.what.to_owned(),
                    host: place.host.clone(),
                    done: 0,
                    reason: "credentials were asked for again".into(),
                });
            }
        }
    }

    /// One request and its redirects.
    async fn exchange(
        &self,
        place: &Place,
        request: &Request<'_>,
        authorization: Option<&str>,
        mut body: Option<reqwest::Body>,
    ) -> Result<Response, Error> {
        let start = match &request.to {
            To::Url(url) => (*url).clone(),
            To::Path(path) => {
                let plain = place.insecure && self.shared.http.speaks_plain(&place.host) == Some(true);
                let scheme = if plain { "http" } else { "https" };
                let text = format!("{scheme}://{}/v2/{path}", place.host);
                Url::parse(&text).map_err(|e| Error::Protocol {
                    what: request.what.to_owned(),
                    host: place.host.clone(),
                    reason: format!("{text}: {e}"),
                })?
            }
        };
        // Credentials go to the place itself, wherever it told us to go.
        let home = |url: &Url| host_of(url).as_deref() == Some(place.host.as_str());
        let mut url = start.clone();
        let mut redirects = 0;
        loop {
            let host = host_of(&url).unwrap_or_default();
            let insecure = place.insecure && home(&url) || self.settings().registries.host_is_insecure(&host);
            let client = self.shared.http.client(self.settings(), &host, insecure)?;
            let trusted = home(&url) && (url.scheme() == "https" || place.insecure);
            let build = |url: &Url| {
                let mut headers = HeaderMap::new();
                for (name, value) in &request.headers {
                    if let Ok(value) = HeaderValue::from_str(value) {
                        headers.append(name.clone(), value);
                    }
                }
                if let Some(value) =
                    authorization.filter(|_| trusted).and_then(|v| HeaderValue::from_str(v).ok())
                {
                    headers.insert(AUTHORIZATION, value);
                }
                let builder = client.request(request.method.clone(), url.clone()).headers(headers);
                match &request.body {
                    Some(body) => builder.body(body.clone()),
                    None => builder,
                }
            };
            let streamed = body.take();
            let is_streamed = streamed.is_some();
            let could_be_plain = insecure && url.scheme() == "https" && !is_streamed;
            let builder = build(&url);
            let builder = match streamed {
                // An upload takes its time; what must not happen is that nothing moves, which its feeder watches.
                Some(streamed) => builder.body(streamed),
                None => builder,
            };
            let sent = self.timed(builder, request, &host, is_streamed).await;
            let answer = match sent {
                Ok(answer) => answer,
                Err(Error::Connect { .. })
                    if could_be_plain && self.shared.http.speaks_plain(&host) != Some(false) =>
                {
                    let mut plain = url.clone();
                    // Never fails: both schemes are web schemes.
                    let _ = plain.set_scheme("http");
                    let answer = self.timed(build(&plain), request, &host, false).await?;
                    self.shared.http.remember(&host, true);
                    url = plain;
                    answer
                }
                Err(error) => return Err(error),
            };
            if could_be_plain && url.scheme() == "https" {
                self.shared.http.remember(&host, false);
            }
            let follows = matches!(request.method, Method::GET | Method::HEAD);
            if !(answer.status().is_redirection() && follows && answer.headers().contains_key(LOCATION)) {
                return Ok(answer);
            }
            redirects += 1;
            let refuse = |reason: String| Error::Redirect {
                what: request.what.to_owned(),
                host: host.clone(),
                reason,
            };
            if redirects > MAX_REDIRECTS {
                return Err(refuse(format!("more than {MAX_REDIRECTS} times")));
            }
            let location = answer.headers()[LOCATION].to_str().unwrap_or_default();
            let next = url.join(location).map_err(|e| refuse(format!("{location:?}: {e}")))?;
            if !matches!(next.scheme(), "https" | "http") {
                return Err(refuse(format!("to {}", next.scheme())));
            }
            let next_host = host_of(&next).unwrap_or_default();
            let may_be_plain = self.settings().registries.host_is_insecure(&next_host)
                || (place.insecure && same_origin(&url, &next))
                || (place.insecure && url.scheme() == "http");
            if next.scheme() == "http" && !may_be_plain {
                return Err(refuse(format!("from https to http, at {next_host}")));
            }
            url = next;
        }
    }

    /// Sends, and gives up if no answer begins in time. Bodies that are streamed are watched by who feeds them.
    async fn timed(
        &self,
        builder: reqwest::RequestBuilder,
        request: &Request<'_>,
        host: &str,
        streamed: bool,
    ) -> Result<Response, Error> {
        let idle = self.settings().idle_timeout;
        let patience = match request.method {
            _ if streamed => FOR_EVER,
            // The registry may have to read a large blob again before it answers.
            Method::PUT => idle * LAST_ANSWER,
            _ => idle,
        };
        self.count_request();
        match timeout(patience, builder.send()).await {
            Ok(Ok(answer)) => {
                if let Ok(mut reached) = self.shared.http.reached.lock()
                    && !reached.contains(host)
                {
                    reached.insert(host.to_owned());
                }
                Ok(answer)
            }
            Ok(Err(error)) => Err(sending(&error, request.what, host)),
            Err(_) => Err(Error::Broken {
                what: request.what.to_owned(),
                host: host.to_owned(),
                done: 0,
                reason: format!("no answer within {patience:?}"),
            }),
        }
    }

    /// The error that an answer without success stands for.
    pub(crate) async fn failure(&self, answer: Response, what: &str, place: &Place) -> Error {
        let status = answer.status();
        let asked = retry_after(answer.headers());
        let body = Body::new(answer, self, what, &place.host).read_some(MAX_ERROR).await;
        let reason = reason(&body);
        let (what, host) = (what.to_owned(), place.host.clone());
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { what, host },
            StatusCode::UNAUTHORIZED => Error::Unauthorized { what, host, reason },
            StatusCode::FORBIDDEN => Error::Denied { what, host, reason },
            StatusCode::TOO_MANY_REQUESTS => {
                let asked = asked.map(|t| format!(" (again in {} s)", t.as_secs())).unwrap_or_default();
                Error::RateLimited { what, host, reason: format!("{reason}{asked}") }
            }
            status if status.is_redirection() => {
                Error::Redirect { what, host, reason: format!("answer {status} without a place to go") }
            }
            status => Error::Status { what, host, status: status.as_u16(), reason },
        }
    }
}

/// A request to a token server, which is no registry: no redirects, no scopes.
pub(crate) async fn token_request(
    client: &Client,
    what: &str,
    url: &Url,
    host: &str,
    insecure: bool,
    authorization: Option<&str>,
    form: Option<String>,
) -> Result<Response, Error> {
    let http = client.shared.http.client(client.settings(), host, insecure)?;
    let retry = client.settings().retry;
    let mut attempt = 1;
    loop {
        let mut builder = match &form {
            Some(form) => http
                .post(url.clone())
                .header(reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.clone()),
            None => http.get(url.clone()),
        };
        if let Some(value) = authorization {
            builder = builder.header(AUTHORIZATION, value);
        }
        client.count_request();
        let result = match timeout(client.settings().idle_timeout, builder.send()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(sending(&error, what, host)),
            Err(_) => Err(Error::Broken {
                what: what.to_owned(),
                host: host.to_owned(),
                done: 0,
                reason: "no answer in time".into(),
            }),
        };
        let wait = match &result {
            Ok(answer) if is_transient(answer.status()) => client.wait_asked(answer, attempt),
            Err(error) if error.is_transient() => Some(retry.wait(attempt)),
            _ => return result,
        };
        match wait {
            Some(wait) if attempt < retry.attempts => sleep(wait).await,
            _ => return result,
        }
        attempt += 1;
    }
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// Seconds of `Retry-After`. A date is taken for a minute: clocks differ anyway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    Some(Duration::from_secs(text.parse().unwrap_or(60)))
}

/// What an error of the HTTP library means.
fn sending(error: &reqwest::Error, what: &str, host: &str) -> Error {
    let reason = chain(error);
    let (what, host) = (what.to_owned(), host.to_owned());
    if error.is_connect() {
        let lower = reason.to_lowercase();
        let tls = ["certificate", "tls", "handshake", "invalid peer", "corrupt message", "unknownissuer"]
            .iter()
            .any(|word| lower.contains(word));
        Error::Connect { what, host, reason, tls }
    } else {
        Error::Broken { what, host, done: 0, reason }
    }
}

/// An error with all its reasons, without URLs: those may carry secrets in their queries.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(error) = next {
        let told = error.to_string();
        if !text.ends_with(&told) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&told);
        }
        next = error.source();
    }
    if text.is_empty() { "the connection broke".into() } else { text }
}

/// What an error body says: the first of the registry's errors (distribution-spec 1.1, "Error Codes"), or its start.
pub(crate) fn reason(body: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let told = value.as_ref().and_then(|value| {
        let first = value.get("errors")?.get(0)?;
        let code = first.get("code").and_then(|c| c.as_str()).unwrap_or_default();
        let message = first.get("message").and_then(|m| m.as_str()).unwrap_or_default();
        let detail = first.get("detail").and_then(|d| d.as_str()).unwrap_or_default();
        let parts: Vec<&str> = [code, message, detail].into_iter().filter(|part| !part.is_empty()).collect();
        (!parts.is_empty()).then(|| parts.join(": "))
    });
    let details = || value.as_ref()?.get("details")?.as_str().map(str::to_owned);
    let text = told.or_else(details).unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    if text.is_empty() { "it gives no reason".into() } else { text.chars().take(300).collect() }
}

/// The body of an answer, read with patience and within the rate.
pub(crate) struct Body {
    answer: Response,
    client: Client,
    what: String,
    host: String,
    done: u64,
    /// Since when, and how much came since then.
    window: (Duration, u64),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body of {} from {}", self.what, self.host)
    }
}

impl Body {
    pub(crate) fn new(answer: Response, client: &Client, what: &str, host: &str) -> Self {
        Body {
            answer,
            client: client.clone(),
            what: what.to_owned(),
            host: host.to_owned(),
            done: 0,
            window: (Duration::ZERO, 0),
        }
    }

    fn broken(&self, reason: String) -> Error {
        Error::Broken { what: self.what.clone(), host: self.host.clone(), done: self.done, reason }
    }

    /// The next bytes, `None` at the end.
    ///
    /// # Errors
    /// [`Error::Broken`]: the connection broke, or too little came in [`Settings::idle_timeout`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let (patience, slowest) = (self.client.settings().idle_timeout, self.client.settings().slowest);
        let began = Instant::now();
        let next = timeout(patience, self.answer.chunk()).await;
        // Only time spent waiting for the other side counts, not what we take to use the bytes.
        self.window.0 += began.elapsed();
        match next {
            Err(_) => Err(self.broken(format!("nothing came for {patience:?}"))),
            Ok(Err(error)) => Err(self.broken(chain(&error))),
            Ok(Ok(None)) => Ok(None),
            Ok(Ok(Some(bytes))) => {
                self.window.1 += bytes.len() as u64;
                self.done += bytes.len() as u64;
                self.client.count_received(bytes.len());
                if self.window.0 >= patience {
                    if self.window.1 < slowest {
                        return Err(self.broken(format!("only {} bytes came in {patience:?}", self.window.1)));
                    }
                    self.window = (Duration::ZERO, 0);
                }
                self.client.pace(bytes.len()).await;
                Ok(Some(bytes))
            }
        }
    }

    /// All bytes, at most `max`.
    ///
    /// # Errors
    /// Those of [`Body::next`], and [`Error::Protocol`] if there are more.
    pub(crate) async fn read_all(mut self, max: usize) -> Result<Vec<u8>, Error> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > max {
                return Err(Error::Protocol {
                    what: self.what.clone(),
                    host: self.host.clone(),
                    reason: format!("an answer of more than {max} bytes"),
                });
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// As much as comes without trouble, at most `max` bytes.
    pub(crate) async fn read_some(mut self, max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while all.len() < max {
            match self.next().await {
                Ok(Some(bytes)) => all.extend_from_slice(&bytes),
                _ => break,
            }
        }
        all.truncate(max);
        all
    }
}
