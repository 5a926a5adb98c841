//! Manifests and indexes, as raw bytes.

use coracle_codec::digest::Digest;
use coracle_codec::oci::{
    Document, Mismatch, Reference, Repository, Unverified, Verified, Version, media_type,
};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode};

use crate::config::Place;
use crate::http::{Body, Request, To, scope};
use crate::{Client, Error};

/// What a registry gave for a name.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The bytes; compared if a digest was asked for.
    pub raw: Verified,
    /// Their media type as the registry says.
    pub media_type: Option<String>,
    /// The host that gave them.
    pub host: String,
}

/// What became of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushedManifest {
    /// Whether the registry lists it among the referrers of its subject by itself (distribution-spec 1.1, "Pushing
    /// Manifests with Subject"). If not, somebody has to add it to the fallback tag.
    pub subject_indexed: bool,
}

/// What is accepted. Separate values: some registries read only the first of a line with several.
const ACCEPTED: [&str; 4] =
    [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST];

impl Client {
    /// Fetches the manifest or index that `reference` names.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the registry says that there is none; [`Error`].
    pub async fn manifest(&self, reference: &Reference) -> Result<Fetched, Error> {
        self.try_places(reference, |place| self.manifest_from(place, reference)).await
    }

    /// As [`Client::manifest`], from where it would be written to and from no mirror.
    ///
    /// # Errors
    /// As [`Client::manifest`].
    pub async fn manifest_of_target(&self, reference: &Reference) -> Result<Fetched, Error> {
        let place = self.target(reference.repository())?;
        self.manifest_from(place, reference).await
    }

    /// The digest that `reference` has now, without fetching the manifest if the registry tells; `None` if there is no
    /// such manifest.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn manifest_digest(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        let result = self
            .try_places(reference, |place| async move {
                let what = reference.to_string();
                let answer = self.ask_manifest(&place, reference, Method::HEAD, &what).await?;
                if !answer.status().is_success() {
                    return Err(self.failure(answer, &what, &place).await);
                }
                match reference.digest().or_else(|| content_digest(&answer)) {
                    Some(digest) => Ok(digest),
                    None => Ok(self.manifest_from(place, reference).await?.raw.digest()),
                }
            })
            .await;
        match result {
            Ok(digest) => Ok(Some(digest)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ask_manifest(
        &self,
        place: &Place,
        reference: &Reference,
        method: Method,
        what: &str,
    ) -> Result<Response, Error> {
        let path = format!("{}/manifests/{}", place.path, version_text(reference.version()));
        let mut request = Request::new(method, what, To::Path(path), scope(&place.path, "pull"));
        for name in ACCEPTED {
            request = request.header(ACCEPT, name);
        }
        self.send(place, &request).await
    }

    async fn manifest_from(&self, place: Place, reference: &Reference) -> Result<Fetched, Error> {
        let what = reference.to_string();
        let retry = self.settings().retry;
        let mut attempt = 1;
        loop {
            let answer = self.ask_manifest(&place, reference, Method::GET, &what).await?;
            if !answer.status().is_success() {
                return Err(self.failure(answer, &what, &place).await);
            }
            match self.read_manifest(answer, &place, reference, &what).await {
                Err(error @ Error::Broken { .. }) => {
                    if attempt >= retry.attempts {
                        return Err(error);
                    }
                    tokio::time::sleep(retry.wait(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn read_manifest(
        &self,
        answer: Response,
        place: &Place,
        reference: &Reference,
        what: &str,
    ) -> Result<Fetched, Error> {
        let limit = self.settings().limits.manifest_bytes;
        let too_large = |actual| {
            let error = coracle_codec::oci::Error::TooLarge { what: "manifest", actual, limit };
            Error::Document { what: what.to_owned(), error }
        };
        let announced = announced_length(&answer);
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large(announced.unwrap_or_default()));
        }
        let media_type = answer
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or_default().trim().to_owned());
        let told = content_digest(&answer);
        let mut body = Body::new(answer, self, what, &place.host);
        let mut bytes = Vec::new();
        while let Some(more) = body.next().await? {
            bytes.extend_from_slice(&more);
            if bytes.len() as u64 > limit {
                return Err(too_large(bytes.len() as u64));
            }
        }
        let wrong = |mismatch: Mismatch| Error::Mismatch {
            what: what.to_owned(),
            host: place.host.clone(),
            mismatch,
        };
        let bytes = Unverified::new(bytes);
        let raw = match reference.version() {
            Version::Digest(digest) => bytes.verify(digest).map_err(wrong)?,
            // The header is no proof, but if it differs something is wrong with one of the two.
            Version::Tag(_) => match told {
                Some(told) => bytes.verify(&told).map_err(wrong)?,
                None => bytes.identify(),
            },
        };
        Ok(Fetched { raw, media_type, host: place.host.clone() })
    }

    /// Writes a manifest or index under a tag or under its digest, byte for byte.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        version: &Version,
        document: &Document,
    ) -> Result<PushedManifest, Error> {
        let answer =
            self.put_manifest(repository, version, document.raw().as_bytes(), document.media_type()).await?;
        let place = self.target(repository)?;
        if let Some(told) = content_digest(&answer)
            && told != document.digest()
        {
            let mismatch = Mismatch::Digest { expected: document.digest(), actual: told };
            let what = format!("{repository}: manifest {}", document.digest());
            return Err(Error::Mismatch { what, host: place.host, mismatch });
        }
        Ok(PushedManifest { subject_indexed: answer.headers().contains_key("oci-subject") })
    }

    /// Writes any bytes as a manifest.
    pub(crate) async fn put_manifest(
        &self,
        repository: &Repository,
        version: &Version,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<Response, Error> {
        let place = self.target(repository)?;
        let text = version_text(version);
        let what = format!("{repository}: manifest {text}");
        let path = format!("{}/manifests/{text}", place.path);
        let mut request = Request::new(Method::PUT, &what, To::Path(path), scope(&place.path, "pull,push"))
            .header(CONTENT_TYPE, media_type);
        request.body = Some(bytes.to_vec().into());
        let retry = self.settings().retry;
        let mut attempt = 1;
        loop {
            let answer = self.send(&place, &request).await?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            match self.failure(answer, &what, &place).await {
                // Our digest is right. Distribution says this, too, when it looks for a blob while somebody else pushes
                // the same one: the file that links it is empty for a moment.
                Error::Status { status: 400, reason, .. }
                    if reason.contains("DIGEST_INVALID") && attempt < retry.attempts =>
                {
                    tokio::time::sleep(retry.wait(attempt)).await;
                    attempt += 1;
                }
                error => return Err(error),
            }
        }
    }

    /// Removes a manifest by its digest. `false` if there was none.
    ///
    /// # Errors
    /// [`Error`]; registries that do not allow it answer 405 ([`Error::Status`]).
    pub async fn delete_manifest(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let place = self.target(repository)?;
        let what = format!("{repository}: manifest {digest}");
        let path = format!("{}/manifests/{digest}", place.path);
        let request =
            Request::new(Method::DELETE, &what, To::Path(path), scope(&place.path, "delete,pull,push"));
        let answer = self.send(&place, &request).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            _ => Err(self.failure(answer, &what, &place).await),
        }
    }
}

fn version_text(version: &Version) -> String {
    match version {
        Version::Tag(tag) => tag.clone(),
        Version::Digest(digest) => digest.to_string(),
    }
}

fn content_digest(answer: &Response) -> Option<Digest> {
    answer.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// `Content-Length` of an answer.
pub(crate) fn announced_length(answer: &Response) -> Option<u64> {
    answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
