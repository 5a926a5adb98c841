//! A registry in memory (distribution-spec 1.1), with switches for what registries do differently.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::golden::sha256_hex;
use crate::http::{Answer, Request, Server, Service, locked};

/// What the registry does with several ranges in one request. One range is always served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MultiRange {
    /// 206 with `multipart/byteranges`.
    #[default]
    Parts,
    /// 501, as GHCR.
    NotImplemented,
    /// 416, as zot.
    NotSatisfiable,
    /// 200 with everything, as registries on S3.
    Whole,
}

/// Who may come in.
#[derive(Debug, Clone, Default)]
pub enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who knows name and password.
    Basic(String, String),
    /// Who has a token from `/token`, which asks for name and password, or gives one to everybody who only pulls.
    Token(String, String),
}

/// How the registry behaves.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// Serves the referrers API.
    pub referrers: bool,
    /// Removes manifests.
    pub delete: bool,
    /// Several ranges.
    pub multi_range: MultiRange,
    /// Serves single ranges.
    pub ranges: bool,
    /// Answers to ranges without an end with 416.
    pub closed_ranges_only: bool,
    /// Who may come in.
    pub access: Access,
    /// Mounts blobs of other repositories.
    pub mount: bool,
    /// Largest body of an upload request.
    pub max_chunk: Option<usize>,
    /// Smallest chunk, as `OCI-Chunk-Min-Length`.
    pub min_chunk: Option<usize>,
    /// Tags in one page.
    pub page: usize,
    /// Tells the state of uploads.
    pub upload_state: bool,
    /// Tokens that were given out stop being good after this many requests.
    pub token_uses: Option<usize>,
    /// Names `Docker-Content-Digest`.
    pub digest_header: bool,
    /// Host that redirects of blobs lead to.
    pub blobs_at: Option<String>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Behaviour {
            referrers: true,
            delete: true,
            multi_range: MultiRange::default(),
            ranges: true,
            closed_ranges_only: false,
            access: Access::Open,
            mount: true,
            max_chunk: None,
            min_chunk: None,
            page: 1000,
            upload_state: true,
            token_uses: None,
            digest_header: true,
            blobs_at: None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Arc<Vec<u8>>>,
    /// By repository and digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    /// By repository and tag: digest.
    tags: BTreeMap<(String, String), String>,
    uploads: BTreeMap<String, Vec<u8>>,
    number: u64,
    token_uses: usize,
}

/// The double itself.
#[derive(Debug, Default)]
pub struct Double {
    behaviour: Mutex<Behaviour>,
    state: Mutex<State>,
}

/// Starts a double on a port of its own.
///
/// # Errors
/// There is no free port.
pub fn start(behaviour: Behaviour) -> std::io::Result<(Arc<Double>, Server)> {
    let double = Arc::new(Double { behaviour: Mutex::new(behaviour), state: Mutex::default() });
    let service: Arc<dyn Service> = Arc::clone(&double) as Arc<dyn Service>;
    Ok((double, Server::start(service)?))
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

fn fail(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    Answer::new(status).header("Content-Type", "application/json").body(body.to_string())
}

impl Double {
    /// Changes how it behaves.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut locked(&self.behaviour));
    }

    /// Puts a blob; gives its digest.
    pub fn put_blob(&self, repository: &str, bytes: impl Into<Vec<u8>>) -> String {
        let bytes = bytes.into();
        let digest = digest(&bytes);
        locked(&self.state).blobs.insert((repository.to_owned(), digest.clone()), Arc::new(bytes));
        digest
    }

    /// Puts any bytes under a digest that need not be theirs.
    pub fn put_blob_as(&self, repository: &str, digest: &str, bytes: impl Into<Vec<u8>>) {
        let key = (repository.to_owned(), digest.to_owned());
        locked(&self.state).blobs.insert(key, Arc::new(bytes.into()));
    }

    /// Puts any bytes as a manifest under a tag; gives their digest. Nothing is checked.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let mut state = locked(&self.state);
        let key = (repository.to_owned(), digest.clone());
        state.manifests.insert(key, (media_type.to_owned(), bytes.to_vec()));
        state.tags.insert((repository.to_owned(), tag.to_owned()), digest.clone());
        digest
    }

    /// The bytes of a blob.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        let key = (repository.to_owned(), digest.to_owned());
        locked(&self.state).blobs.get(&key).map(|bytes| bytes.to_vec())
    }

    /// The bytes of the manifest with this tag or digest.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let state = locked(&self.state);
        let digest = state.tags.get(&(repository.to_owned(), name.to_owned())).map_or(name, String::as_str);
        state.manifests.get(&(repository.to_owned(), digest.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    /// Digests of the manifests that name this one as their subject.
    pub fn about(&self, repository: &str, subject: &str) -> Vec<String> {
        let state = locked(&self.state);
        let names = |bytes: &[u8]| {
            let value: Option<Value> = serde_json::from_slice(bytes).ok();
            value.is_some_and(|value| value["subject"]["digest"] == subject)
        };
        let here = state.manifests.iter().filter(|((other, _), _)| other == repository);
        here.filter(|(_, (_, bytes))| names(bytes)).map(|((_, digest), _)| digest.clone()).collect()
    }

    /// Forgets a manifest, and the tags that lead to it.
    pub fn forget_manifest(&self, repository: &str, digest: &str) {
        let mut state = locked(&self.state);
        state.manifests.remove(&(repository.to_owned(), digest.to_owned()));
        state.tags.retain(|(other, _), to| other != repository || to != digest);
    }

    /// Forgets everything in a repository but its blobs.
    pub fn forget_repository(&self, repository: &str) {
        let mut state = locked(&self.state);
        state.manifests.retain(|(other, _), _| other != repository);
        state.tags.retain(|(other, _), _| other != repository);
    }

    /// Forgets all uploads under way, as a registry does that restarts without saved state.
    pub fn forget_uploads(&self) {
        locked(&self.state).uploads.clear();
    }

    /// `None` if the request may pass.
    fn refused(&self, request: &Request, behaviour: &Behaviour) -> Option<Answer> {
        let host = request.header("host").unwrap_or_default();
        let given = request.header("authorization").unwrap_or_default();
        match &behaviour.access {
            Access::Open => None,
            Access::Basic(user, password) => {
                let right = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
                (given != right).then(|| {
                    fail(401, "UNAUTHORIZED", "who are you?")
                        .header("WWW-Authenticate", "Basic realm=\"double\"")
                })
            }
            Access::Token(..) => {
                let writes = !matches!(request.method.as_str(), "GET" | "HEAD");
                let good = if writes { given == "Bearer full" } else { given.starts_with("Bearer ") };
                let mut state = locked(&self.state);
                state.token_uses += usize::from(good);
                let used_up = behaviour.token_uses.is_some_and(|uses| state.token_uses > uses);
                if used_up {
                    state.token_uses = 0;
                }
                (!good || used_up).then(|| {
                    let name = request.path.strip_prefix("/v2/").unwrap_or_default();
                    let name = ["/blobs", "/manifests", "/tags", "/referrers"]
                        .iter()
                        .find_map(|part| name.split_once(part).map(|(name, _)| name))
                        .unwrap_or(name);
                    let actions = if writes { "pull,push" } else { "pull" };
                    let challenge = format!(
                        "Bearer realm=\"http://{host}/token\",service=\"double\",scope=\"repository:{name}:{actions}\""
                    );
                    fail(401, "UNAUTHORIZED", "a token, please").header("WWW-Authenticate", challenge)
                })
            }
        }
    }

    fn token(&self, request: &Request, behaviour: &Behaviour) -> Answer {
        let Access::Token(user, password) = &behaviour.access else { return Answer::new(404) };
        let right = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let kind = match request.header("authorization") {
            Some(given) if given == right => "full",
            Some(_) => return fail(401, "UNAUTHORIZED", "wrong password"),
            None if request.method == "POST" && body.contains("refresh_token=identity") => "full",
            None if request.method == "POST" => return fail(401, "UNAUTHORIZED", "wrong identity token"),
            None => "anonymous",
        };
        Answer::new(200)
            .header("Content-Type", "application/json")
            .body(json!({ "token": kind, "expires_in": 300 }).to_string())
    }
}

impl Service for Double {
    fn answer(&self, request: &Request) -> Answer {
        let behaviour = locked(&self.behaviour).clone();
        if request.path == "/token" {
            return self.token(request, &behaviour);
        }
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return fail(404, "UNKNOWN", "no such page");
        };
        if let Some(refused) = self.refused(request, &behaviour) {
            return refused;
        }
        if rest.is_empty() {
            return Answer::new(200);
        }
        for part in ["/blobs/uploads/", "/blobs/", "/manifests/", "/tags/list", "/referrers/"] {
            if let Some((name, last)) = rest.split_once(part) {
                return match part {
                    "/blobs/uploads/" => self.upload(request, name, last, &behaviour),
                    "/blobs/" => self.serve_blob(request, name, last, &behaviour),
                    "/manifests/" => self.serve_manifest(request, name, last, &behaviour),
                    "/tags/list" => self.serve_tags(request, name, &behaviour),
                    _ => self.serve_referrers(request, name, last, &behaviour),
                };
            }
        }
        fail(404, "UNKNOWN", "no such page")
    }
}

impl Double {
    fn upload(&self, request: &Request, name: &str, id: &str, behaviour: &Behaviour) -> Answer {
        let mut state = locked(&self.state);
        let at = |id: &str| format!("/v2/{name}/blobs/uploads/{id}");
        if behaviour.max_chunk.is_some_and(|max| request.body.len() > max) {
            return fail(413, "SIZE_INVALID", "too large");
        }
        let progress = |status: u16, id: &str, len: usize| {
            let answer = Answer::new(status)
                .header("Location", at(id))
                .header("Range", format!("0-{}", len.saturating_sub(1)))
                .header("Docker-Upload-UUID", id);
            match behaviour.min_chunk {
                Some(min) => answer.header("OCI-Chunk-Min-Length", min.to_string()),
                None => answer,
            }
        };
        match request.method.as_str() {
            "POST" => {
                if let (Some(digest), Some(from)) = (request.parameter("mount"), request.parameter("from"))
                    && behaviour.mount
                    && let Some(blob) = state.blobs.get(&(from, digest.clone())).cloned()
                {
                    state.blobs.insert((name.to_owned(), digest.clone()), blob);
                    return Answer::new(201).header("Location", format!("/v2/{name}/blobs/{digest}"));
                }
                state.number += 1;
                let id = format!("upload-{}", state.number);
                state.uploads.insert(id.clone(), Vec::new());
                progress(202, &id, 0)
            }
            "GET" if behaviour.upload_state => match state.uploads.get(id) {
                Some(bytes) => progress(204, id, bytes.len()),
                None => fail(404, "BLOB_UPLOAD_UNKNOWN", "no such upload"),
            },
            "PATCH" | "PUT" => {
                let Some(bytes) = state.uploads.get_mut(id) else {
                    return fail(404, "BLOB_UPLOAD_UNKNOWN", "no such upload");
                };
                let start = request
                    .header("content-range")
                    .and_then(|range| range.split('-').next().and_then(|first| first.parse::<usize>().ok()));
                if start.is_some_and(|start| start != bytes.len()) {
                    return fail(416, "BLOB_UPLOAD_INVALID", "not where the upload ends");
                }
                bytes.extend_from_slice(&request.body);
                let len = bytes.len();
                if request.method == "PATCH" || request.cut {
                    return progress(202, id, len);
                }
                let want = request.parameter("digest").unwrap_or_default();
                let bytes = state.uploads.remove(id).unwrap_or_default();
                if digest(&bytes) != want {
                    return fail(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                state.blobs.insert((name.to_owned(), want.clone()), Arc::new(bytes));
                Answer::new(201)
                    .header("Location", format!("/v2/{name}/blobs/{want}"))
                    .header("Docker-Content-Digest", want)
            }
            _ => fail(405, "UNSUPPORTED", "not here"),
        }
    }

    fn serve_blob(&self, request: &Request, name: &str, wanted: &str, behaviour: &Behaviour) -> Answer {
        let blob = locked(&self.state).blobs.get(&(name.to_owned(), wanted.to_owned())).cloned();
        let Some(blob) = blob else { return fail(404, "BLOB_UNKNOWN", "no such blob") };
        if let (Some(host), "GET") = (&behaviour.blobs_at, request.method.as_str()) {
            return Answer::new(307).header("Location", format!("{host}{}", request.path));
        }
        let answer = |status: u16| {
            let answer = Answer::new(status).header("Content-Type", "application/octet-stream");
            if behaviour.digest_header { answer.header("Docker-Content-Digest", wanted) } else { answer }
        };
        if request.method == "HEAD" {
            return answer(200).header("Content-Length", blob.len().to_string());
        }
        let ranges =
            request.header("range").filter(|_| behaviour.ranges).and_then(|text| text.strip_prefix("bytes="));
        let Some(ranges) = ranges else { return answer(200).body(blob.to_vec()) };
        let unsatisfiable = || answer(416).header("Content-Range", format!("bytes */{}", blob.len()));
        let mut parts = Vec::new();
        for range in ranges.split(',') {
            let Some((first, last)) = range.trim().split_once('-') else { return unsatisfiable() };
            if last.is_empty() && behaviour.closed_ranges_only {
                return unsatisfiable();
            }
            let first = first.parse().unwrap_or(usize::MAX);
            let end = last.parse::<usize>().map_or(blob.len(), |last| last.saturating_add(1).min(blob.len()));
            if first >= end {
                return unsatisfiable();
            }
            parts.push(first..end);
        }
        let told = |range: &std::ops::Range<usize>| {
            format!("bytes {}-{}/{}", range.start, range.end - 1, blob.len())
        };
        if let [range] = parts.as_slice() {
            return answer(206).header("Content-Range", told(range)).body(&blob[range.clone()]);
        }
        match behaviour.multi_range {
            MultiRange::NotImplemented => fail(501, "UNSUPPORTED", "several ranges"),
            MultiRange::NotSatisfiable => unsatisfiable(),
            MultiRange::Whole => answer(200).body(blob.to_vec()),
            MultiRange::Parts => {
                let mut body = Vec::new();
                for range in &parts {
                    body.extend_from_slice(
                        format!("--PART\r\nContent-Range: {}\r\n\r\n", told(range)).as_bytes(),
                    );
                    body.extend_from_slice(&blob[range.clone()]);
                    body.extend_from_slice(b"\r\n");
                }
                body.extend_from_slice(b"--PART--\r\n");
                Answer::new(206).header("Content-Type", "multipart/byteranges; boundary=PART").body(body)
            }
        }
    }

    fn serve_manifest(&self, request: &Request, name: &str, wanted: &str, behaviour: &Behaviour) -> Answer {
        let mut state = locked(&self.state);
        let by_tag = state.tags.get(&(name.to_owned(), wanted.to_owned())).cloned();
        let key = (name.to_owned(), by_tag.clone().unwrap_or_else(|| wanted.to_owned()));
        match request.method.as_str() {
            "GET" | "HEAD" => {
                let Some((media_type, bytes)) = state.manifests.get(&key) else {
                    return fail(404, "MANIFEST_UNKNOWN", "manifest unknown");
                };
                let accepted = request.headers.iter().filter(|(name, _)| name == "accept");
                if !accepted
                    .into_iter()
                    .any(|(_, value)| value.contains(media_type.as_str()) || value.contains("*/*"))
                {
                    return fail(404, "MANIFEST_UNKNOWN", "not in a form that is accepted");
                }
                let answer = Answer::new(200).header("Content-Type", media_type.clone()).body(bytes.clone());
                if behaviour.digest_header {
                    answer.header("Docker-Content-Digest", key.1.clone())
                } else {
                    answer
                }
            }
            "PUT" => {
                let digest = digest(&request.body);
                if wanted.contains(':') && wanted != digest {
                    return fail(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
                }
                let Ok(value) = serde_json::from_slice::<Value>(&request.body) else {
                    return fail(400, "MANIFEST_INVALID", "no JSON");
                };
                let of = |entry: &Value| {
                    (name.to_owned(), entry["digest"].as_str().unwrap_or_default().to_owned())
                };
                let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
                let blobs = list("layers").into_iter().chain(value.get("config").cloned());
                let missing = blobs.into_iter().any(|blob| !state.blobs.contains_key(&of(&blob)))
                    || list("manifests").iter().any(|entry| !state.manifests.contains_key(&of(entry)));
                if missing {
                    return fail(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
                }
                let media_type = request.header("content-type").unwrap_or_default().to_owned();
                state.manifests.insert((name.to_owned(), digest.clone()), (media_type, request.body.clone()));
                if !wanted.contains(':') {
                    state.tags.insert((name.to_owned(), wanted.to_owned()), digest.clone());
                }
                let answer = Answer::new(201)
                    .header("Location", format!("/v2/{name}/manifests/{digest}"))
                    .header("Docker-Content-Digest", digest);
                match value["subject"]["digest"].as_str() {
                    Some(subject) if behaviour.referrers => answer.header("OCI-Subject", subject),
                    _ => answer,
                }
            }
            "DELETE" if !behaviour.delete => fail(405, "UNSUPPORTED", "nothing is removed here"),
            "DELETE" if by_tag.is_some() => fail(400, "DIGEST_INVALID", "not by tag"),
            "DELETE" => match state.manifests.remove(&key) {
                Some(_) => {
                    state.tags.retain(|_, digest| *digest != key.1);
                    Answer::new(202)
                }
                None => fail(404, "MANIFEST_UNKNOWN", "manifest unknown"),
            },
            _ => fail(405, "UNSUPPORTED", "not here"),
        }
    }

    fn serve_tags(&self, request: &Request, name: &str, behaviour: &Behaviour) -> Answer {
        let state = locked(&self.state);
        let all: Vec<&String> = state.tags.keys().filter(|(of, _)| of == name).map(|(_, tag)| tag).collect();
        if all.is_empty() {
            return fail(404, "NAME_UNKNOWN", "repository name not known to registry");
        }
        let last = request.parameter("last").unwrap_or_default();
        let wanted = request.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let size = wanted.min(behaviour.page).max(1);
        let page: Vec<&String> = all.iter().filter(|tag| ***tag > last).take(size).copied().collect();
        let answer = Answer::new(200).body(json!({ "name": name, "tags": page }).to_string());
        match (page.last(), all.last()) {
            (Some(end), Some(very_last)) if end != very_last => {
                answer.header("Link", format!("</v2/{name}/tags/list?n={size}&last={end}>; rel=\"next\""))
            }
            _ => answer,
        }
    }

    fn serve_referrers(&self, request: &Request, name: &str, subject: &str, behaviour: &Behaviour) -> Answer {
        if !behaviour.referrers {
            return Answer::new(404).body("404 page not found");
        }
        let state = locked(&self.state);
        let wanted = request.parameter("artifactType");
        let mut found = Vec::new();
        for ((of, digest), (media_type, bytes)) in &state.manifests {
            let Ok(value) = serde_json::from_slice::<Value>(bytes) else { continue };
            if of != name || value["subject"]["digest"] != *subject {
                continue;
            }
            let artifact_type = value.get("artifactType").unwrap_or(&value["config"]["mediaType"]).clone();
            if wanted.as_ref().is_some_and(|wanted| artifact_type != **wanted) {
                continue;
            }
            let mut entry = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
            entry["artifactType"] = artifact_type;
            if let Some(annotations) = value.get("annotations") {
                entry["annotations"] = annotations.clone();
            }
            found.push(entry);
        }
        let from = request.parameter("page").and_then(|page| page.parse::<usize>().ok()).unwrap_or(0);
        let more = found.len() > (from + 1) * behaviour.page;
        let page: Vec<_> = found.into_iter().skip(from * behaviour.page).take(behaviour.page).collect();
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": page,
        });
        let mut answer = Answer::new(200)
            .header("Content-Type", "application/vnd.oci.image.index.v1+json")
            .body(index.to_string());
        if wanted.is_some() {
            answer = answer.header("OCI-Filters-Applied", "artifactType");
        }
        if more {
            let query = wanted.map(|wanted| format!("&artifactType={wanted}")).unwrap_or_default();
            answer = answer.header(
                "Link",
                format!("</v2/{name}/referrers/{subject}?page={}{query}>; rel=\"next\"", from + 1),
            );
        }
        answer
    }
}

/// RFC 4648, section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            u32::from_be_bytes([0, chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)]);
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(ALPHABET[(word >> (18 - 6 * i)) as usize & 63] as char);
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|t| base64(t.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }
}
