//! Challenges and tokens (distribution, "Token Authentication Specification" and "OAuth2 Token Authentication").

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::client::Shared;
use crate::config::{Credentials, Place};
use crate::http::{self, Body};
use crate::{Client, Error};

/// Validity of a token that does not say (distribution, "Token Response Fields").
const DEFAULT_VALIDITY: Duration = Duration::from_secs(60);
/// A token this close to its end is not used any more.
const MARGIN: Duration = Duration::from_secs(5);
/// Bytes of an answer with a token.
const MAX_ANSWER: usize = 1 << 20;

/// What a registry wants to see (RFC 9110, section 11.6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Tokens and challenges by host.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// By host and scopes: the value of `Authorization`, and until when it is good.
    known: Mutex<HashMap<(String, String), (String, Instant)>>,
}

impl Tokens {
    /// The header for requests to `host` with `scopes`, if one is known.
    pub(crate) async fn header(&self, host: &str, scopes: &str) -> Option<String> {
        let known = self.known.lock().await;
        let (header, until) = known.get(&(host.to_owned(), scopes.to_owned()))?;
        (*until > Instant::now() + MARGIN).then(|| header.clone())
    }

    /// Answers the challenge of a 401. `refused` is the header that it was given for, if any: another one that came
    /// meanwhile is used first.
    pub(crate) async fn answer(
        &self,
        client: &Client,
        place: &Place,
        scopes: &str,
        challenges: &[Challenge],
        refused: Option<&str>,
        what: &str,
    ) -> Result<String, Error> {
        let key = (place.host.clone(), scopes.to_owned());
        let mut known = self.known.lock().await;
        if let Some((header, until)) = known.get(&key)
            && Some(header.as_str()) != refused
            && *until > Instant::now() + MARGIN
        {
            return Ok(header.clone());
        }
        known.remove(&key);
        let credentials = find(&client.shared, place).await?;
        let (header, validity) =
            obtain(client, place, scopes, challenges, credentials, refused, what).await?;
        known.insert(key, (header.clone(), Instant::now() + validity));
        Ok(header)
    }
}

async fn find(shared: &Shared, place: &Place) -> Result<Option<Credentials>, Error> {
    let auth = shared.settings.auth.clone();
    let helpers = shared.settings.registries.helpers().to_vec();
    let (registry, path) = (place.registry.clone(), place.path.clone());
    tokio::task::spawn_blocking(move || auth.find(&registry, &path, &helpers)).await.unwrap_or_else(|e| {
        Err(Error::Setup { host: place.host.clone(), reason: format!("looking for credentials: {e}") })
    })
}

async fn obtain(
    client: &Client,
    place: &Place,
    scopes: &str,
    challenges: &[Challenge],
    credentials: Option<Credentials>,
    refused: Option<&str>,
    what: &str,
) -> Result<(String, Duration), Error> {
    let unauthorized = |reason: &str| Error::Unauthorized {
        what: what.to_owned(),
        host: place.host.clone(),
        reason: reason.to_owned(),
    };
    let bearer = challenges.iter().find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service, scope } => Some((realm, service, scope)),
        Challenge::Basic => None,
    });
    if let Some((realm, service, scope)) = bearer {
        if refused.is_some_and(|header| header.starts_with("Bearer ")) && credentials.is_none() {
            return Err(unauthorized("a token without credentials was not enough, and none are known"));
        }
        let scopes = join_scopes(scopes, scope.as_deref());
        return fetch_token(client, place, realm, service.as_deref(), &scopes, credentials, what).await;
    }
    if !challenges.contains(&Challenge::Basic) {
        return Err(unauthorized("it names no way of authentication that is known"));
    }
    match credentials {
        Some(Credentials::Password { user, password }) => {
            let header = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
            if refused == Some(header.as_str()) {
                return Err(unauthorized(&format!("name and password of {user:?} are not accepted")));
            }
            Ok((header, Duration::from_secs(24 * 3600)))
        }
        Some(Credentials::IdentityToken(_)) => {
            Err(unauthorized("it wants a password, but only an identity token is known"))
        }
        None => Err(unauthorized("none are known")),
    }
}

/// All scopes of both, once each.
fn join_scopes(ours: &str, theirs: Option<&str>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for scope in ours.split(' ').chain(theirs.unwrap_or_default().split(' ')) {
        // `repository:x:pull` adds nothing to `repository:x:pull,push`.
        let covered = all.iter().any(|other| other == scope || other.starts_with(&format!("{scope},")));
        if !scope.is_empty() && !covered {
            all.push(scope.to_owned());
        }
    }
    all
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

async fn fetch_token(
    client: &Client,
    place: &Place,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    credentials: Option<Credentials>,
    what: &str,
) -> Result<(String, Duration), Error> {
    let protocol =
        |reason: String| Error::Protocol { what: what.to_owned(), host: place.host.clone(), reason };
    let mut url = url::Url::parse(realm).map_err(|e| protocol(format!("token server {realm:?}: {e}")))?;
    let host = http::host_of(&url).ok_or_else(|| protocol(format!("token server {realm:?}: no host")))?;
    let insecure = place.insecure || client.settings().registries.host_is_insecure(&host);
    if url.scheme() != "https" && !(url.scheme() == "http" && insecure) {
        let reason = format!("its token server {realm:?} would get credentials without TLS");
        return Err(protocol(reason));
    }
    let mut header = None;
    let mut form = None;
    match credentials {
        Some(Credentials::IdentityToken(token)) => {
            let mut body = url::form_urlencoded::Serializer::new(String::new());
            body.append_pair("grant_type", "refresh_token").append_pair("refresh_token", &token);
            body.append_pair("client_id", "coracle");
            if let Some(service) = service {
                body.append_pair("service", service);
            }
            body.append_pair("scope", &scopes.join(" "));
            form = Some(body.finish());
        }
        other => {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            if let Some(Credentials::Password { user, password }) = other {
                query.append_pair("account", &user);
                header = Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))));
            }
        }
    }
    let about = format!("{what}: token");
    let answer = http::token_request(client, &about, &url, &host, insecure, header.as_deref(), form).await?;
    let status = answer.status();
    let body = Body::new(answer, client, &about, &host).read_all(MAX_ANSWER).await?;
    if status == 401 || status == 403 || (status == 400 && header.is_none()) {
        return Err(Error::Unauthorized {
            what: what.to_owned(),
            host,
            reason: format!("the token server refuses: {}", http::reason(&body)),
        });
    }
    if !status.is_success() {
        let reason = http::reason(&body);
        return Err(Error::Status { what: about, host, status: status.as_u16(), reason });
    }
    let answer: Answer =
        serde_json::from_slice(&body).map_err(|e| protocol(format!("answer of the token server: {e}")))?;
    let token = answer.token.filter(|t| !t.is_empty()).or(answer.access_token).filter(|t| !t.is_empty());
    let token = token.ok_or_else(|| protocol("the token server gives no token".into()))?;
    let validity = answer
        .expires_in
        .filter(|s| s.is_finite() && *s > 0.0)
        .map_or(DEFAULT_VALIDITY, |seconds| Duration::from_secs_f64(seconds.clamp(10.0, 24.0 * 3600.0)));
    Ok((format!("Bearer {token}"), validity.max(MARGIN * 2)))
}

/// Reads the values of `WWW-Authenticate`.
pub(crate) fn challenges<'a>(values: impl Iterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for value in values {
        let mut rest = value.trim();
        while !rest.is_empty() {
            let (scheme, after) = rest.split_once(' ').unwrap_or((rest, ""));
            let scheme = scheme.trim_end_matches(',').to_ascii_lowercase();
            let (parameters, next) = parameters(after.trim_start());
            let get = |name: &str| {
                parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone())
            };
            match (scheme.as_str(), get("realm")) {
                ("basic", _) => found.push(Challenge::Basic),
                ("bearer", Some(realm)) => {
                    found.push(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
                _ => {}
            }
            rest = next;
        }
    }
    found
}

/// `key=value` or `key="value"`, separated by commas, up to the next scheme.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        text = text.trim_start_matches([' ', ',', '\t']);
        let Some(equals) = text.find('=') else { return (found, "") };
        let key = &text[..equals];
        if key.trim().contains([' ', ',']) {
            // No parameter but the next scheme.
            return (found, text);
        }
        let value = &text[equals + 1..];
        let (value, rest) = match value.strip_prefix('"') {
            Some(quoted) => {
                let mut out = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '\\' => out.extend(chars.next().map(|(_, c)| c)),
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        c => out.push(c),
                    }
                }
                (out, &quoted[end..])
            }
            None => {
                let end = value.find([',', ' ']).unwrap_or(value.len());
                (value[..end].to_owned(), &value[end..])
            }
        };
        found.push((key.trim().to_owned(), value));
        text = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_all_forms() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        let read = |text: &str| challenges([text].into_iter());
        assert_eq!(
            read(r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#),
            [bearer("https://a/t", Some("s"), Some("repository:x:pull,push"))]
        );
        assert_eq!(read("bearer REALM=https://a/t , service=s"), [bearer("https://a/t", Some("s"), None)]);
        assert_eq!(read("Basic realm=\"x\""), [Challenge::Basic]);
        assert_eq!(read("Basic"), [Challenge::Basic]);
        assert_eq!(
            read(r#"Basic realm="a, b", Bearer realm="r\"q",error="x""#),
            [Challenge::Basic, bearer("r\"q", None, None)]
        );
        assert_eq!(challenges(["Basic realm=x", "Bearer realm=y"].into_iter()).len(), 2);
        for odd in ["", "Negotiate", "Bearer", "Bearer service=\"x\"", ",,,", "=", "Bearer realm=\""] {
            let found = read(odd);
            assert!(found.is_empty() || found == [bearer("", None, None)], "{odd}: {found:?}");
        }
    }

    #[test]
    fn scopes_are_named_once() {
        let joined = join_scopes("repository:a:pull,push repository:b:pull", Some("repository:a:pull"));
        assert_eq!(joined, ["repository:a:pull,push", "repository:b:pull"]);
        assert_eq!(join_scopes("", Some("registry:catalog:*")), ["registry:catalog:*"]);
    }
}
