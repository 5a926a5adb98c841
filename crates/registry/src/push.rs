//! Pushing blobs: existence, mounts, monolithic and chunked uploads that go on where they broke off.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coracle_codec::oci::{Descriptor, Mismatch, Repository, Verifier};
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::sleep;
use url::Url;

use crate::config::Place;
use crate::http::{LAST_ANSWER, Request, To, scope};
use crate::range::upload_range;
use crate::{Client, Error};

/// Bytes handed to the connection at once, and how many such pieces wait at most.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;
/// Chunks for a registry that finds a whole blob too large (413).
const SMALLER_CHUNKS: u64 = 16 << 20;
/// Bytes after which a transfer counts as making progress.
const PROGRESS: u64 = 1 << 20;

/// How often an upload may be unknown to the registry, or not where it should be, before it is the registry's last word.
const MAX_LOSSES: u32 = 2;
/// With a bound on bytes per second: pieces of a quarter of a second, so that something always moves.
const PIECES_PER_SECOND: u64 = 4;

/// Content that can be read from any offset, as often as needed.
pub trait Content: Send + Sync + 'static {
    /// Opens the content at `offset`, which is at most its size.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>>;
}

impl Content for Vec<u8> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        Ok(Box::new(io::Cursor::new(self[from..].to_vec())))
    }
}

/// How a blob is pushed.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Another repository of the same registry that is known to have the blob.
    pub mount_from: Option<Repository>,
    /// Bytes of one request; without it, the whole blob goes in one.
    pub chunk: Option<u64>,
}

/// What became of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had it.
    Existed,
    /// The registry linked it from another repository.
    Mounted,
    /// It was uploaded.
    Uploaded {
        /// How often the upload was begun or continued after it broke off.
        resumed: u32,
    },
}

/// An upload under way.
struct Upload<'a> {
    client: &'a Client,
    place: Place,
    what: String,
    blob: &'a Descriptor,
    content: Arc<dyn Content>,
    scopes: String,
    /// Where the next request goes: always the newest that the registry gave.
    location: Url,
    /// Bytes that the registry has.
    offset: u64,
    chunk: Option<u64>,
    verifier: Arc<Mutex<Verifier>>,
}

impl Client {
    /// Pushes a blob, if the repository does not have it. What is sent is compared with digest and size on its way; if
    /// it differs, the upload is left unfinished and nothing is published.
    ///
    /// # Errors
    /// [`Error::Content`], [`Error::ContentMismatch`]; [`Error`].
    pub async fn push_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        content: Arc<dyn Content>,
        options: &PushOptions,
    ) -> Result<Pushed, Error> {
        if self.blob_exists(repository, &blob.digest).await? {
            return Ok(Pushed::Existed);
        }
        let place = self.target(repository)?;
        let what = format!("{repository}: blob {}", blob.digest);
        let mut scopes = scope(&place.path, "pull,push");
        let from = match &options.mount_from {
            Some(other) => {
                let other = self.target(other)?;
                (other.host == place.host && other.path != place.path).then_some(other.path)
            }
            None => None,
        };
        if let Some(from) = &from {
            scopes = format!("{scopes} {}", scope(from, "pull"));
        }
        let answer = self.begin(&place, blob, from.as_deref(), &scopes, &what).await?;
        if answer.status() == StatusCode::CREATED {
            return Ok(Pushed::Mounted);
        }
        let chunk = match (options.chunk, minimum_chunk(&answer)) {
            (Some(chunk), minimum) => Some(chunk.max(minimum).max(1)),
            (None, _) => None,
        };
        let mut upload = Upload {
            client: self,
            location: location(&answer, &place, &what)?,
            place,
            what,
            blob,
            content,
            scopes,
            offset: 0,
            chunk,
            verifier: Arc::new(Mutex::new(Verifier::new(blob.digest, blob.size))),
        };
        let resumed = upload.run().await?;
        Ok(Pushed::Uploaded { resumed })
    }

    /// Begins an upload, or mounts: 201 is the blob itself, 202 an upload.
    async fn begin(
        &self,
        place: &Place,
        blob: &Descriptor,
        from: Option<&str>,
        scopes: &str,
        what: &str,
    ) -> Result<Response, Error> {
        let mut path = format!("{}/blobs/uploads/", place.path);
        if let Some(from) = from {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("mount", &blob.digest.to_string()).append_pair("from", from);
            path = format!("{path}?{}", query.finish());
        }
        let mut request =
            Request::new(Method::POST, what, To::Path(path), scopes.to_owned()).header(CONTENT_LENGTH, "0");
        request.body = Some(Bytes::new());
        let answer = self.send(place, &request).await;
        let answer = match answer {
            // Somebody may push here and not read there: then the blob is uploaded.
            Err(Error::Unauthorized { .. } | Error::Denied { .. }) if from.is_some() => None,
            other => Some(other?),
        };
        match answer {
            Some(answer) if answer.status() == StatusCode::ACCEPTED => Ok(answer),
            Some(answer) if answer.status() == StatusCode::CREATED && from.is_some() => Ok(answer),
            Some(answer) if from.is_none() => Err(self.failure(answer, what, place).await),
            // Mounting is an offer; whatever speaks against it does not speak against uploading.
            _ => {
                let plain = scope(&place.path, "pull,push");
                Box::pin(self.begin(place, blob, None, &plain, what)).await
            }
        }
    }
}

/// `Location` of an answer, made absolute.
fn location(answer: &Response, place: &Place, what: &str) -> Result<Url, Error> {
    let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fail = |reason: String| Error::Protocol { what: what.to_owned(), host: place.host.clone(), reason };
    if text.is_empty() {
        return Err(fail("an upload without a Location".into()));
    }
    let url = answer.url().join(text).map_err(|e| fail(format!("Location {text:?}: {e}")))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if place.insecure => Ok(url),
        scheme => Err(fail(format!("the upload is to go to {scheme}:"))),
    }
}

fn minimum_chunk(answer: &Response) -> u64 {
    let value = answer.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

impl Upload<'_> {
    /// Sends everything; gives the number of times it went on after a failure.
    async fn run(&mut self) -> Result<u32, Error> {
        let retry = self.client.settings().retry;
        let (mut attempts, mut losses, mut resumed, mut mark) = (0, 0, 0, 0);
        loop {
            let error = match self.step().await {
                Ok(true) => return Ok(resumed),
                Ok(false) => {
                    if self.offset >= mark + PROGRESS {
                        mark = self.offset;
                        attempts = 0;
                    }
                    continue;
                }
                Err(error) => error,
            };
            attempts += 1;
            let too_large = matches!(error, Error::Status { status: 413, .. })
                && self.chunk.is_none_or(|chunk| chunk > SMALLER_CHUNKS);
            let lost = matches!(&error, Error::Status { status: 400 | 416, .. } | Error::NotFound { .. });
            losses += u32::from(lost);
            if !(too_large || error.is_transient() || lost)
                || attempts >= retry.attempts
                || losses > MAX_LOSSES
            {
                return Err(error);
            }
            resumed += 1;
            if too_large {
                self.chunk = Some(SMALLER_CHUNKS);
                self.restart().await?;
                continue;
            }
            sleep(retry.wait(attempts)).await;
            // What the registry does not know any more, or knows otherwise than we do, is begun again.
            match self.state().await {
                Some((offset, location)) if offset <= self.blob.size => {
                    self.offset = offset;
                    self.location = location;
                }
                _ => {
                    // It may have been the answer that was lost, and not the upload.
                    if self.client.blob_exists_at(&self.place, &self.blob.digest).await.unwrap_or(false) {
                        return Ok(resumed);
                    }
                    if let Err(error) = self.restart().await
                        && !error.is_transient()
                    {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn restart(&mut self) -> Result<(), Error> {
        let plain = scope(&self.place.path, "pull,push");
        let answer = self.client.begin(&self.place, self.blob, None, &plain, &self.what).await?;
        self.location = location(&answer, &self.place, &self.what)?;
        self.offset = 0;
        Ok(())
    }

    /// What the registry has of this upload; `None` if it does not say.
    async fn state(&self) -> Option<(u64, Url)> {
        let request = Request::new(Method::GET, &self.what, To::Url(&self.location), self.scopes.clone());
        let answer = self.client.send(&self.place, &request).await.ok()?;
        if answer.status() != StatusCode::NO_CONTENT {
            return None;
        }
        let offset = upload_range(answer.headers().get(RANGE)?.to_str().ok()?)?;
        let newest = location(&answer, &self.place, &self.what).unwrap_or_else(|_| self.location.clone());
        Some((offset, newest))
    }

    /// One request; `true` if it was the last.
    async fn step(&mut self) -> Result<bool, Error> {
        let left = self.blob.size - self.offset;
        let whole = self.offset == 0 && self.chunk.is_none_or(|chunk| left <= chunk);
        if whole || left == 0 {
            return self.finish().await.map(|()| true);
        }
        let end = self.offset + self.chunk.map_or(left, |chunk| chunk.min(left));
        let request = Request::new(Method::PATCH, &self.what, To::Url(&self.location), self.scopes.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_RANGE, format!("{}-{}", self.offset, end - 1))
            .header(CONTENT_LENGTH, (end - self.offset).to_string());
        let answer = self.stream(&request, end).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused(answer).await);
        }
        let told = answer.headers().get(RANGE).and_then(|value| value.to_str().ok()).and_then(upload_range);
        self.location = location(&answer, &self.place, &self.what)?;
        self.offset = match told {
            Some(offset) if offset > end => {
                return Err(self.protocol(format!("it has {offset} bytes of {end} that were sent")));
            }
            // It may have taken less than was sent; one byte is the case that cannot be told from none.
            Some(offset) if !(offset == 0 && end == 1) => offset,
            _ => end,
        };
        Ok(false)
    }

    /// The last request: with all bytes if none were sent yet, else with none.
    async fn finish(&mut self) -> Result<(), Error> {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", &self.blob.digest.to_string());
        let length = self.blob.size - self.offset;
        let request = Request::new(Method::PUT, &self.what, To::Url(&url), self.scopes.clone())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length.to_string());
        let answer = if length == 0 {
            if self.blob.size == 0 {
                // Nothing to send, but something to compare.
                self.verify_end()?;
            }
            let mut empty = request.clone();
            empty.body = Some(Bytes::new());
            self.client.send_once(&self.place, &empty, None).await?
        } else {
            self.stream(&request, self.blob.size).await?
        };
        match answer.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::NO_CONTENT | StatusCode::ACCEPTED => {
                let told =
                    answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
                match told.and_then(|told| told.parse().ok()) {
                    Some(actual) if actual != self.blob.digest => Err(Error::Mismatch {
                        what: self.what.clone(),
                        host: self.place.host.clone(),
                        mismatch: Mismatch::Digest { expected: self.blob.digest, actual },
                    }),
                    _ => Ok(()),
                }
            }
            _ => Err(self.refused(answer).await),
        }
    }

    async fn refused(&self, answer: Response) -> Error {
        self.client.failure(answer, &self.what, &self.place).await
    }

    fn protocol(&self, reason: String) -> Error {
        Error::Protocol { what: self.what.clone(), host: self.place.host.clone(), reason }
    }

    fn verify_end(&self) -> Result<(), Error> {
        let verifier = self.verifier.lock().map_or_else(|e| e.into_inner().finish(), |v| v.finish());
        verifier.map_err(|mismatch| Error::ContentMismatch { what: self.what.clone(), mismatch })
    }

    /// Sends a request with the bytes from the offset up to `end`, compared as they go.
    async fn stream(&self, request: &Request<'_>, end: u64) -> Result<Response, Error> {
        let (pieces, received) = mpsc::channel::<Result<Bytes, io::Error>>(PIECES);
        let fault: Arc<Mutex<Option<Error>>> = Arc::default();
        let feeder = Feeder {
            content: Arc::clone(&self.content),
            verifier: Arc::clone(&self.verifier),
            what: self.what.clone(),
            from: self.offset,
            end,
            last: end == self.blob.size,
            piece: self
                .client
                .settings()
                .limit_rate
                .map_or(PIECE as u64, |rate| (rate / PIECES_PER_SECOND).clamp(1024, PIECE as u64)),
            pieces,
        };
        let told = Arc::clone(&fault);
        let feeding = tokio::task::spawn_blocking(move || {
            if let Err(error) = feeder.run() {
                if let Ok(mut told) = told.lock() {
                    *told = Some(error);
                }
                // The body ends with an error and so without its last bytes: the registry gets no whole blob.
                let _ = feeder.pieces.blocking_send(Err(io::ErrorKind::InvalidData.into()));
            }
        });
        let client = self.client.clone();
        let idle = self.client.settings().idle_timeout;
        // A connection that takes nothing for too long is dropped: the stream ends with an error.
        let body = stream::unfold((received, client), move |(mut received, client)| async move {
            let piece = received.recv().await?;
            if let Ok(bytes) = &piece {
                client.pace(bytes.len()).await;
            }
            Some((piece, (received, client)))
        });
        let body = reqwest::Body::wrap_stream(body);
        let sending = self.client.send_once(&self.place, request, Some(body));
        let watch = self.watch(idle);
        tokio::pin!(sending, watch);
        let result = tokio::select! {
            result = &mut sending => result,
            stalled = &mut watch => Err(stalled),
        };
        // Whatever waits to be sent is not wanted any more; the feeder sees that and ends.
        let _ = feeding.await;
        if let Ok(mut fault) = fault.lock()
            && let Some(fault) = fault.take()
        {
            return Err(fault);
        }
        result.map_err(|error| match error {
            Error::Broken { what, host, reason, .. } => {
                let done = self.verifier.lock().map_or(0, |verifier| verifier.passed());
                Error::Broken { what, host, done, reason }
            }
            other => other,
        })
    }

    /// Ends, with an error, when nothing has moved for `idle`. After the last byte the registry gets more time: it may
    /// have to read everything again.
    async fn watch(&self, idle: std::time::Duration) -> Error {
        let passed = || self.verifier.lock().map_or(0, |verifier| verifier.passed());
        let (mut seen, mut still) = (passed(), 0);
        loop {
            sleep(idle).await;
            let now = passed();
            still = if now == seen { still + 1 } else { 0 };
            let patience = if now >= self.blob.size { LAST_ANSWER } else { 1 };
            if still >= patience {
                return Error::Broken {
                    what: self.what.clone(),
                    host: self.place.host.clone(),
                    done: now,
                    reason: format!("nothing was taken for {:?}", idle * still),
                };
            }
            seen = now;
        }
    }
}

/// Reads content and hands it on, on a thread of its own.
struct Feeder {
    content: Arc<dyn Content>,
    verifier: Arc<Mutex<Verifier>>,
    what: String,
    from: u64,
    end: u64,
    /// Whether the blob ends here.
    last: bool,
    /// Bytes read and handed on at once.
    piece: u64,
    pieces: mpsc::Sender<Result<Bytes, io::Error>>,
}

impl Feeder {
    fn run(&self) -> Result<(), Error> {
        let failed = |error| Error::Content { what: self.what.clone(), error };
        let wrong = |mismatch| Error::ContentMismatch { what: self.what.clone(), mismatch };
        let mut verifier = match self.verifier.lock() {
            Ok(verifier) => verifier,
            Err(poisoned) => poisoned.into_inner(),
        };
        // The hash is kept at some offsets only: a little may have to be read again that is not sent again.
        let mut at = verifier.rewind(self.from);
        drop(verifier);
        let mut input = self.content.open(at).map_err(failed)?;
        while at < self.end {
            let want = self.piece.min(self.end - at);
            let want = if at < self.from { want.min(self.from - at) } else { want };
            let mut piece = vec![0; want as usize];
            let read = read_full(&mut input, &mut piece).map_err(failed)?;
            piece.truncate(read);
            let mut verifier = match self.verifier.lock() {
                Ok(verifier) => verifier,
                Err(poisoned) => poisoned.into_inner(),
            };
            verifier.update(&piece).map_err(wrong)?;
            at += read as u64;
            if read == 0 || (self.last && at == self.end) {
                // Before the last piece goes out: a blob that is not right must not become whole.
                verifier.finish().map_err(wrong)?;
                if read_full(&mut input, &mut [0]).map_err(failed)? > 0 {
                    return Err(wrong(Mismatch::Size { expected: at, actual: at + 1 }));
                }
            }
            drop(verifier);
            if at > self.from && self.pieces.blocking_send(Ok(piece.into())).is_err() {
                // The request is over; its own result says why.
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Reads until `buf` is full or the input ends.
fn read_full(input: &mut dyn Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < buf.len() {
        match input.read(&mut buf[n..]) {
            Ok(0) => break,
            Ok(k) => n += k,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(n)
}
