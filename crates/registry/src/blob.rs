//! Blobs: streams that go on where they broke off, and ranges.

use std::ops::Range;

use bytes::{Buf, Bytes};
use coracle_codec::digest::Digest;
use coracle_codec::oci::{Descriptor, Mismatch, Reference, Repository};
use reqwest::header::{CONTENT_RANGE, HeaderName, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::time::sleep;

use crate::config::Place;
use crate::http::{Body, Request, To, scope};
use crate::manifest::announced_length;
use crate::range::content_range;
use crate::{Client, Error};

/// Bytes after which a transfer counts as making progress: the attempts are counted anew.
const PROGRESS: u64 = 256 << 10;
/// Attempts for one blob however much progress they make.
const MAX_ATTEMPTS: u32 = 1000;
/// Bytes of one range that are kept in memory.
const MAX_RANGE: u64 = 64 << 20;

/// The bytes of a blob, unverified: whoever keeps them compares. Ends after exactly the announced number of bytes or with
/// an error.
#[derive(Debug)]
pub struct BlobStream {
    client: Client,
    reference: Reference,
    size: u64,
    what: String,
    /// Of the next byte to give.
    offset: u64,
    body: Option<Body>,
    /// Bytes to drop first: the server began before `offset`.
    skip: u64,
    places: Vec<Place>,
    /// Index of the one in use.
    place: usize,
    attempts: u32,
    all_attempts: u32,
    /// Where the attempts were counted anew.
    mark: u64,
    /// The server does not understand ranges.
    no_ranges: bool,
}

/// The answer to a question for a range.
#[derive(Debug)]
pub enum RangeAnswer {
    /// The bytes of the range, unverified.
    Part(Vec<u8>),
    /// The server sends the whole blob whatever was asked for: here it comes, from its start.
    Whole(Box<BlobStream>),
}

impl Client {
    /// Opens a blob from `offset` on.
    ///
    /// # Errors
    /// [`Error::NotFound`] if all places say that there is none; [`Error`].
    pub async fn blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, Error> {
        let mut stream = self.stream(repository, blob, offset)?;
        if offset < blob.size {
            stream.connect().await?;
        }
        Ok(stream)
    }

    pub(crate) fn stream(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        offset: u64,
    ) -> Result<BlobStream, Error> {
        let reference = repository.with_digest(blob.digest);
        Ok(BlobStream {
            places: self.sources(&reference)?,
            what: format!("{repository}: blob {}", blob.digest),
            client: self.clone(),
            reference,
            size: blob.size,
            offset,
            body: None,
            skip: 0,
            place: 0,
            attempts: 0,
            all_attempts: 0,
            mark: offset,
            no_ranges: false,
        })
    }

    /// Asks for `range` of a blob, at most 64 MiB. One closed range in each request: several in one are answered in too
    /// many ways.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn blob_range(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        range: Range<u64>,
    ) -> Result<RangeAnswer, Error> {
        let mut stream = self.stream(repository, blob, range.start)?;
        if range.is_empty() || range.end > blob.size || range.end - range.start > MAX_RANGE {
            let reason = format!("range {range:?} of {} bytes", blob.size);
            let host = stream.host().to_owned();
            return Err(Error::Protocol { what: stream.what, host, reason });
        }
        let mut out = Vec::new();
        loop {
            let offset = range.start + out.len() as u64;
            if offset == range.end {
                return Ok(RangeAnswer::Part(out));
            }
            stream.offset = offset;
            let answer = match stream.ask(Some(offset..range.end)).await {
                Ok(answer) => answer,
                Err(error) => {
                    stream.next_attempt(error, 0).await?;
                    continue;
                }
            };
            match answer.status() {
                StatusCode::PARTIAL_CONTENT => {
                    stream.accept_part(&answer, offset, Some(range.end))?;
                    let mut body = Body::new(answer, self, &stream.what, stream.host());
                    loop {
                        match body.next().await {
                            Ok(Some(bytes)) => {
                                let left = range.end - range.start - out.len() as u64;
                                if bytes.len() as u64 > left {
                                    return Err(stream.protocol("more bytes than the range it announced"));
                                }
                                out.extend_from_slice(&bytes);
                            }
                            Ok(None) if range.start + out.len() as u64 == range.end => break,
                            Ok(None) => {
                                let cut = stream.cut("the part is shorter than announced");
                                stream.next_attempt(cut, out.len() as u64).await?;
                                break;
                            }
                            Err(error) => {
                                stream.next_attempt(error, out.len() as u64).await?;
                                break;
                            }
                        }
                    }
                }
                StatusCode::OK => {
                    stream.accept_whole(&answer)?;
                    stream.offset = 0;
                    stream.mark = 0;
                    stream.no_ranges = true;
                    stream.body = Some(Body::new(answer, self, &stream.what, stream.host()));
                    return Ok(RangeAnswer::Whole(Box::new(stream)));
                }
                // A server without ranges may say so like this; the whole blob always is to be had.
                StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_IMPLEMENTED | StatusCode::BAD_REQUEST => {
                    stream.offset = 0;
                    stream.mark = 0;
                    stream.no_ranges = true;
                    stream.connect().await?;
                    return Ok(RangeAnswer::Whole(Box::new(stream)));
                }
                _ => {
                    let place = stream.places[stream.place].clone();
                    let error = self.failure(answer, &stream.what, &place).await;
                    stream.next_attempt(error, out.len() as u64).await?;
                }
            }
        }
    }

    /// Whether the repository has the blob, at the place that would be written to.
    ///
    /// # Errors
    /// [`Error`]: not being able to ask is no answer.
    pub async fn blob_exists(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        self.blob_exists_at(&self.target(repository)?, digest).await
    }

    pub(crate) async fn blob_exists_at(&self, place: &Place, digest: &Digest) -> Result<bool, Error> {
        let what = format!("{}/{}: blob {digest}", place.registry, place.path);
        let path = format!("{}/blobs/{digest}", place.path);
        let request = Request::new(Method::HEAD, &what, To::Path(path), scope(&place.path, "pull,push"));
        let answer = self.send(place, &request).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failure(answer, &what, place).await),
        }
    }
}

impl BlobStream {
    /// The host in use.
    pub fn host(&self) -> &str {
        self.places.get(self.place).map_or("", |place| &place.host)
    }

    /// Offset of the next byte that [`BlobStream::next`] gives.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes; `None` when all have come.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for too many or, as the server says itself, too few; [`Error::Broken`] if it breaks off more
    /// often than it is tried again; [`Error`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if self.offset >= self.size {
                return self.end().await;
            }
            let Some(body) = &mut self.body else {
                self.connect().await?;
                continue;
            };
            match body.next().await {
                Ok(Some(mut bytes)) => {
                    let dropped = self.skip.min(bytes.len() as u64);
                    bytes.advance(dropped as usize);
                    self.skip -= dropped;
                    if bytes.is_empty() {
                        continue;
                    }
                    if bytes.len() as u64 > self.size - self.offset {
                        return Err(self.too_long(bytes.len() as u64));
                    }
                    self.offset += bytes.len() as u64;
                    if self.offset - self.mark >= PROGRESS {
                        self.mark = self.offset;
                        self.attempts = 0;
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) => {
                    self.body = None;
                    let cut = self.cut("the body ended too soon");
                    self.next_attempt(cut, self.offset).await?;
                }
                Err(error) => {
                    self.body = None;
                    self.next_attempt(error, self.offset).await?;
                }
            }
        }
    }

    /// Looks whether the server has more to say than it should.
    async fn end(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(mut body) = self.body.take() else { return Ok(None) };
        // What comes after the last byte, an error included, harms nobody; more bytes do.
        match body.next().await {
            Ok(Some(more)) if !more.is_empty() => Err(self.too_long(more.len() as u64)),
            _ => Ok(None),
        }
    }

    fn too_long(&self, more: u64) -> Error {
        let mismatch = Mismatch::Size { expected: self.size, actual: self.offset + more };
        Error::Mismatch { what: self.what.clone(), host: self.host().to_owned(), mismatch }
    }

    fn cut(&self, reason: &str) -> Error {
        let (what, host) = (self.what.clone(), self.host().to_owned());
        Error::Broken { what, host, done: self.offset, reason: reason.into() }
    }

    fn protocol(&self, reason: &str) -> Error {
        Error::Protocol { what: self.what.clone(), host: self.host().to_owned(), reason: reason.into() }
    }

    /// Gets a body that begins at `offset`, or before it with `skip` set.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            let range = (self.offset > 0 && !self.no_ranges).then_some(self.offset..self.size);
            let ranged = range.is_some();
            let error = match self.ask(range).await {
                Ok(answer) => match answer.status() {
                    StatusCode::PARTIAL_CONTENT if ranged => {
                        self.accept_part(&answer, self.offset, None)?;
                        self.skip = 0;
                        self.body = Some(Body::new(answer, &self.client, &self.what, self.host()));
                        return Ok(());
                    }
                    // Without having been asked for a part, or asked and not caring.
                    StatusCode::OK => match self.accept_whole(&answer) {
                        Ok(()) => {
                            self.skip = self.offset;
                            self.body = Some(Body::new(answer, &self.client, &self.what, self.host()));
                            return Ok(());
                        }
                        Err(error) => error,
                    },
                    StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_IMPLEMENTED if ranged => {
                        self.no_ranges = true;
                        continue;
                    }
                    _ => {
                        let place = self.places[self.place].clone();
                        self.client.failure(answer, &self.what, &place).await
                    }
                },
                Err(error) => error,
            };
            self.next_attempt(error, self.offset).await?;
        }
    }

    async fn ask(&self, range: Option<Range<u64>>) -> Result<Response, Error> {
        // Closed: some registries answer 416 to an open one.
        self.ask_for(range.map(|range| format!("bytes={}-{}", range.start, range.end - 1))).await
    }

    /// Asks the place in use for what a `Range` header says.
    pub(crate) async fn ask_for(&self, range: Option<String>) -> Result<Response, Error> {
        let Some(place) = self.places.get(self.place) else {
            return Err(Error::NotFound { what: self.what.clone(), host: "nowhere".into() });
        };
        let digest = self.reference.digest().map(|digest| digest.to_string()).unwrap_or_default();
        let path = format!("{}/blobs/{digest}", place.path);
        let mut request = Request::new(Method::GET, &self.what, To::Path(path), scope(&place.path, "pull"))
            .header(HeaderName::from_static("accept-encoding"), "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        self.client.send(place, &request).await
    }

    /// Checks what a 206 says it is.
    fn accept_part(&self, answer: &Response, offset: u64, end: Option<u64>) -> Result<(), Error> {
        let text =
            answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((range, total)) = content_range(text) else {
            return Err(self.protocol(&format!("a part without a range that is understood: {text:?}")));
        };
        let too_far = end.is_some_and(|end| range.end > end);
        if range.start != offset || too_far || total.is_some_and(|total| total != self.size) {
            return Err(
                self.protocol(&format!("asked for bytes from {offset} of {}, got {text:?}", self.size))
            );
        }
        Ok(())
    }

    /// Checks the length that a 200 announces.
    fn accept_whole(&self, answer: &Response) -> Result<(), Error> {
        match announced_length(answer) {
            Some(length) if length != self.size => Err(Error::Mismatch {
                what: self.what.clone(),
                host: self.host().to_owned(),
                mismatch: Mismatch::Size { expected: self.size, actual: length },
            }),
            _ => Ok(()),
        }
    }

    /// Waits before the next attempt, or turns to the next place, or gives `error` back.
    async fn next_attempt(&mut self, error: Error, done: u64) -> Result<(), Error> {
        let retry = self.client.settings().retry;
        self.attempts += 1;
        self.all_attempts += 1;
        self.body = None;
        // Requests are repeated by themselves; what is left for a stream are bodies that broke off.
        let again = matches!(error, Error::Broken { .. })
            && self.attempts < retry.attempts
            && self.all_attempts < MAX_ATTEMPTS;
        if again {
            sleep(retry.wait(self.attempts)).await;
            return Ok(());
        }
        if !error.is_elsewhere_better() || self.place + 1 >= self.places.len() {
            return Err(match error {
                Error::Broken { what, host, reason, .. } => Error::Broken { what, host, done, reason },
                other => other,
            });
        }
        if self.places[self.place].mirror && error.is_transient() {
            self.client.mark_down(&self.places[self.place].host);
        }
        self.place += 1;
        self.attempts = 0;
        self.no_ranges = false;
        Ok(())
    }
}
