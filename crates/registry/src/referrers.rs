//! Referrers: documents that say which document they are about (distribution-spec 1.1, "Listing Referrers" and
//! "Referrers Tag Schema").

use coracle_codec::digest::Digest;
use coracle_codec::oci::{self, Descriptor, Document, Repository, Version, media_type};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::http::{Request, To, scope};
use crate::{Client, Error, PushedManifest};

/// How often a lost update of the fallback tag is tried again.
const MAX_UPDATES: u32 = 8;

/// What refers to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrers {
    /// Descriptors, with artifact type and annotations.
    pub descriptors: Vec<Descriptor>,
    /// How they were found.
    pub source: ReferrersSource,
}

/// Where a list of referrers comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferrersSource {
    /// The registry's own list.
    Api,
    /// The index under the tag `sha256-...`.
    Tag,
    /// The registry has neither: there are none.
    Neither,
}

impl Client {
    /// Lists what refers to `subject`, of one artifact type or of all. An empty list means that there is none: whatever
    /// keeps from knowing is an error.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, Error> {
        let place = self.target(repository)?;
        let what = format!("{repository}: referrers of {subject}");
        let mut first = format!("{}/referrers/{subject}", place.path);
        if let Some(wanted) = artifact_type {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("artifactType", wanted);
            first = format!("{first}?{}", query.finish());
        }
        let limits = self.settings().limits;
        let mut all = Vec::new();
        let listed = self
            .pages(&place, &what, first, |body| {
                all.extend(entries(&body, &limits).map_err(|e| e.to_string())?);
                Ok(())
            })
            .await;
        let mut found = match listed {
            Ok(()) => Referrers { descriptors: all, source: ReferrersSource::Api },
            // 404 is the one answer that means "I know no such list" (distribution-spec 1.1).
            Err(Error::NotFound { .. }) => match self.stored_index(repository, &fallback_tag(subject)).await?
            {
                Some(value) => {
                    let bytes = value.to_string().into_bytes();
                    let descriptors = entries(&bytes, &limits)
                        .map_err(|error| Error::Document { what: what.clone(), error })?;
                    Referrers { descriptors, source: ReferrersSource::Tag }
                }
                None => Referrers { descriptors: Vec::new(), source: ReferrersSource::Neither },
            },
            Err(error) => return Err(error),
        };
        // The registry may have filtered or not, and the tag never does.
        if let Some(wanted) = artifact_type {
            found.descriptors.retain(|entry| entry.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    /// Pushes a document that has a subject, under its digest or a tag, and makes sure that it is listed: by the
    /// registry, or in the index under the fallback tag. Several writers of that tag may overwrite each other, since no
    /// registry has a conditional write: it is read again a little later and the update repeated if it was lost.
    ///
    /// # Errors
    /// [`Error::Contended`]; [`Error`].
    pub async fn push_referrer(
        &self,
        repository: &Repository,
        version: &Version,
        document: &Document,
    ) -> Result<PushedManifest, Error> {
        let pushed = self.push_manifest(repository, version, document).await?;
        let Some(subject) = document.subject().filter(|_| !pushed.subject_indexed) else { return Ok(pushed) };
        let subject = subject.digest;
        // A registry may keep a list without saying so in its answer (the header is younger than the API).
        if self.lists_referrers(repository, &subject).await? {
            return Ok(PushedManifest { subject_indexed: true });
        }
        let entry = document.descriptor().to_json();
        self.update_fallback(repository, &subject, |manifests| {
            let digest = &entry["digest"];
            if !manifests.iter().any(|other| other["digest"] == *digest) {
                manifests.push(entry.clone());
            }
        })
        .await?;
        Ok(pushed)
    }

    /// Takes `referrer` out of the index under the fallback tag of `subject`, if there is one. To be called when the
    /// referrer has been deleted.
    ///
    /// # Errors
    /// As [`Client::push_referrer`].
    pub async fn forget_referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        referrer: &Digest,
    ) -> Result<(), Error> {
        if self.stored_index(repository, &fallback_tag(subject)).await?.is_none() {
            return Ok(());
        }
        let referrer = json!(referrer.to_string());
        self.update_fallback(repository, subject, |manifests| {
            manifests.retain(|entry| entry["digest"] != referrer);
        })
        .await
    }

    /// Whether the registry keeps lists of referrers itself.
    ///
    /// # Errors
    /// [`Error`]: whatever keeps from knowing.
    pub async fn lists_referrers(&self, repository: &Repository, subject: &Digest) -> Result<bool, Error> {
        let place = self.target(repository)?;
        let what = format!("{repository}: referrers of {subject}");
        let path = format!("{}/referrers/{subject}", place.path);
        let request = Request::new(Method::GET, &what, To::Path(path), scope(&place.path, "pull"));
        let answer = self.send(&place, &request).await?;
        match answer.status().as_u16() {
            404 => Ok(false),
            200 => Ok(true),
            _ => Err(self.failure(answer, &what, &place).await),
        }
    }

    /// Reads the index under the fallback tag, changes it, writes it, and looks whether the change is there.
    async fn update_fallback(
        &self,
        repository: &Repository,
        subject: &Digest,
        mut change: impl FnMut(&mut Vec<Value>),
    ) -> Result<(), Error> {
        let what = format!("{repository}: index {}", fallback_tag(subject));
        let tag = Version::Tag(fallback_tag(subject));
        for attempt in 1..=MAX_UPDATES {
            let old = self.stored_index(repository, &fallback_tag(subject)).await?;
            let mut index = old.clone().unwrap_or_else(
                || json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [] }),
            );
            if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
                change(manifests);
            }
            // Nothing to change, or what was written is there: done.
            if old.as_ref() == Some(&index) {
                return Ok(());
            }
            let bytes = serde_json::to_vec(&index).unwrap_or_default();
            self.put_manifest(repository, &tag, &bytes, media_type::OCI_INDEX).await?;
            // Whoever read before we wrote writes without ours: look again when they have. Waits differ by what is
            // written, or all would write again at the same moment.
            let wait = self.settings().retry.wait(attempt);
            let share = f64::from(Digest::of(&bytes).as_bytes()[0]) / 256.0;
            sleep(wait + wait.mul_f64(share)).await;
        }
        Err(Error::Contended { what, attempts: MAX_UPDATES })
    }

    /// Writes an index under a tag. Whatever was there is replaced.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_index(&self, repository: &Repository, tag: &str, index: &Value) -> Result<(), Error> {
        let bytes = serde_json::to_vec(index).unwrap_or_default();
        self.put_manifest(repository, &Version::Tag(tag.to_owned()), &bytes, media_type::OCI_INDEX).await?;
        Ok(())
    }

    /// The index under `tag` as the registry itself has it, members we do not know included; `None` if it says that
    /// there is none.
    ///
    /// # Errors
    /// [`Error`]: also if there is something else than an index.
    pub async fn stored_index(&self, repository: &Repository, tag: &str) -> Result<Option<Value>, Error> {
        let Some(reference) = repository.with_tag(tag) else { return Ok(None) };
        // From the registry itself: a mirror's copy may be old.
        let fetched = match self.manifest_of_target(&reference).await {
            Ok(fetched) => fetched,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let document = |error| Error::Document { what: reference.to_string(), error };
        let parsed =
            Document::parse(fetched.raw.clone(), fetched.media_type.as_deref(), &self.settings().limits)
                .map_err(document)?;
        if !matches!(parsed, Document::Index(_)) {
            let reason = "the tag holds no index".to_owned();
            return Err(Error::Protocol { what: reference.to_string(), host: fetched.host, reason });
        }
        let mut value: Value = serde_json::from_slice(fetched.raw.as_bytes())
            .map_err(|e| document(oci::Error::Invalid { what: "index", reason: e.to_string() }))?;
        if !value["manifests"].is_array() {
            value["manifests"] = json!([]);
        }
        Ok(Some(value))
    }
}

/// `sha256-HEX` (distribution-spec 1.1, "Referrers Tag Schema").
pub fn fallback_tag(subject: &Digest) -> String {
    subject.to_string().replace(':', "-")
}

/// The entries of an index of referrers.
fn entries(body: &[u8], limits: &oci::Limits) -> Result<Vec<Descriptor>, oci::Error> {
    let raw = oci::Unverified::new(body.to_vec()).identify();
    match Document::parse(raw, Some(media_type::OCI_INDEX), limits)? {
        Document::Index(index) => Ok(index.manifests().to_vec()),
        Document::Manifest(_) => Err(oci::Error::Invalid { what: "index", reason: "not an index".into() }),
    }
}
