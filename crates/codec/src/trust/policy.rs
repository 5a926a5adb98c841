//! policy.json (containers-policy.json(5)): which images are accepted from where.
//!
//! Read as strictly as containers/image reads it: what is not known, stands twice or has the wrong form makes the whole
//! file invalid. What is known and cannot be checked here is kept as a requirement that no image meets.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::identity::{IdentityRule, Named};
use super::members::{Members, base64, parse};
use super::shortened;

/// Why bytes are no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid policy: {0}")]
pub struct PolicyError(String);

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// What an image has to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// `insecureAcceptAnything`: nothing.
    AcceptAnything,
    /// `reject`: it is refused.
    Reject,
    /// `sigstoreSigned` with keys.
    SigstoreSigned(SigstoreSigned),
    /// Something that cannot be checked here; no image meets it.
    Unsupported(&'static str),
}

/// A signature by one of some keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigstoreSigned {
    /// The keys, each PEM.
    pub keys: Vec<KeySource>,
    /// The names that the signature may give the image.
    pub identity: IdentityRule,
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In this file.
    Path(PathBuf),
    /// In the policy itself.
    Data(Vec<u8>),
}

/// An image as a policy looks it up: scopes from the closest outwards, without the empty one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// Name of the transport in policies.
    pub transport: &'static str,
    /// Scopes.
    pub scopes: Vec<String>,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        read(bytes).map_err(PolicyError)
    }

    /// The requirements for an image: those of the closest scope alone. Also which scope that was; `None` for the default
    /// of the policy.
    pub fn requirements<'a>(&'a self, image: &Scopes) -> (&'a [Requirement], Option<&'a str>) {
        if let Some(transport) = self.transports.get(image.transport) {
            let scopes = image.scopes.iter().map(String::as_str).chain([""]);
            for scope in scopes {
                if let Some((scope, found)) = transport.get_key_value(scope) {
                    return (found, Some(scope));
                }
            }
        }
        (&self.default, None)
    }

    /// Whether the policy has scopes for a transport besides that for all of it.
    pub fn has_closer_scopes(&self, transport: &str) -> bool {
        self.transports.get(transport).is_some_and(|scopes| scopes.keys().any(|scope| !scope.is_empty()))
    }

    /// Whether the policy says anything about a transport.
    pub fn knows(&self, transport: &str) -> bool {
        self.transports.contains_key(transport)
    }
}

fn read(bytes: &[u8]) -> Result<Policy, String> {
    let mut whole = Members::new(parse(bytes, "policy")?, "the policy")?;
    let default = requirements(whole.required("default")?, "default")?;
    let transports = match whole.take("transports") {
        None => BTreeMap::new(),
        Some(value) => {
            let entries = Members::new(value, "transports")?.rest().into_iter();
            entries
                .map(|(name, value)| Ok((name.clone(), scopes(&name, value)?)))
                .collect::<Result<_, String>>()?
        }
    };
    whole.finish()?;
    Ok(Policy { default, transports })
}

fn scopes(transport: &str, value: Value) -> Result<BTreeMap<String, Vec<Requirement>>, String> {
    let place = shortened(transport);
    let entries = Members::new(value, place.as_str())?.rest().into_iter();
    entries
        .map(|(scope, value)| {
            if !scope.is_empty()
                && let Some(reason) = wrong_scope(transport, &scope)
            {
                return Err(format!("{place}: scope {:?}: {reason}", shortened(&scope)));
            }
            let place = format!("{place}: {:?}", shortened(&scope));
            Ok((scope, requirements(value, &place)?))
        })
        .collect()
}

/// Why a text cannot be a scope of a transport. Transports that are not known may have any.
fn wrong_scope(transport: &str, scope: &str) -> Option<&'static str> {
    match transport {
        "dir" | "oci" | "oci-archive" | "sif" | "rootfs" => wrong_path(scope),
        "docker-archive" | "tarball" => Some("only the empty scope is possible"),
        "docker-daemon" if is_digest(scope) => Some("an image ID is no scope"),
        "containers-storage" => wrong_storage(scope),
        _ => None,
    }
}

fn wrong_path(scope: &str) -> Option<&'static str> {
    if !scope.starts_with('/') {
        return Some("not an absolute path");
    }
    if scope == "/" {
        return Some("write \"\" for everything");
    }
    let normal = scope[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    (!normal).then_some("not the shortest way to write this path")
}

fn wrong_storage(scope: &str) -> Option<&'static str> {
    const FORM: Option<&str> = Some("not [DRIVER@ROOT]NAME with an absolute root");
    let Some((store, image)) = scope.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return FORM;
    };
    let (driver, root) = store.split_once('@').unwrap_or(("any", store));
    let mut components = Path::new(root).components();
    if driver.is_empty() || !matches!(components.next(), Some(Component::RootDir)) {
        return FORM;
    }
    let is_id = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts: Vec<&str> = image.splitn(3, '@').skip(1).collect();
    let good = match parts.as_slice() {
        [] => true,
        [one] => is_id(one) || is_digest(one),
        [digest, id] => is_digest(digest) && is_id(id),
        _ => false,
    };
    (!good).then_some("neither a digest nor an image ID follows the @")
}

fn is_digest(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, hex)| {
        let length = match algorithm {
            "sha256" => 64,
            "sha384" => 96,
            "sha512" => 128,
            _ => return false,
        };
        hex.len() == length && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn requirements(value: Value, place: &str) -> Result<Vec<Requirement>, String> {
    let Value::Array(items) = value else { return Err(format!("{place} is no list of requirements")) };
    if items.is_empty() {
        return Err(format!("{place}: there has to be a requirement"));
    }
    items.into_iter().map(|item| requirement(item, place)).collect()
}

fn requirement(value: Value, place: &str) -> Result<Requirement, String> {
    let mut members = Members::new(value, place)?;
    let kind = members.required_text("type")?;
    let found = match kind.as_str() {
        "insecureAcceptAnything" => Requirement::AcceptAnything,
        "reject" => Requirement::Reject,
        "sigstoreSigned" => sigstore_signed(&mut members, place)?,
        "signedBy" => {
            let key_type = members.required_text("keyType")?;
            if !["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"]
                .contains(&key_type.as_str())
            {
                return Err(format!("{place}: keyType {:?} is not known", shortened(&key_type)));
            }
            if keys(&mut members, place, "key", false)?.is_none() {
                return Err(format!("{place}: one of keyPath, keyPaths and keyData has to be there"));
            }
            identity(&mut members, "signedIdentity", place)?;
            Requirement::Unsupported("signatures of GnuPG (signedBy) cannot be checked by this build")
        }
        "signedBaseLayer" => {
            let base = members.required("baseLayerIdentity")?;
            identity_rule(base, place)?;
            Requirement::Unsupported("signedBaseLayer cannot be checked by any program")
        }
        other => return Err(format!("{place}: requirement {:?} is not known", shortened(other))),
    };
    members.finish()?;
    Ok(found)
}

fn sigstore_signed(members: &mut Members, place: &str) -> Result<Requirement, String> {
    let keys_found = keys(members, place, "key", true)?;
    let rekor = keys(members, place, "rekorPublicKey", true)?;
    let fulcio = members.take("fulcio").map(|value| fulcio(value, place)).transpose()?;
    let pki = members.take("pki").map(|value| pki(value, place)).transpose()?;
    let identity = identity(members, "signedIdentity", place)?;
    match (keys_found, fulcio, pki, rekor) {
        (Some(keys), None, None, None) => Ok(Requirement::SigstoreSigned(SigstoreSigned { keys, identity })),
        (Some(_), None, None, Some(_)) => Ok(Requirement::Unsupported(
            "entries of a transparency log (Rekor) cannot be checked by this build",
        )),
        (None, Some(()), None, Some(_)) => {
            Ok(Requirement::Unsupported("keyless signatures (Fulcio) cannot be checked by this build"))
        }
        (None, Some(()), None, None) => Err(format!("{place}: fulcio needs a rekorPublicKey")),
        (None, None, Some(()), None) => {
            Ok(Requirement::Unsupported("signatures with certificates (pki) cannot be checked by this build"))
        }
        (None, None, Some(()), Some(_)) => {
            Err(format!("{place}: pki and a rekorPublicKey exclude each other"))
        }
        _ => Err(format!(
            "{place}: exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki has to be there"
        )),
    }
}

/// The keys in the members that begin with `stem`, of which one may be there.
fn keys(
    members: &mut Members,
    place: &str,
    stem: &str,
    several_data: bool,
) -> Result<Option<Vec<KeySource>>, String> {
    let data = |text: &String| {
        base64(text).map(KeySource::Data).ok_or_else(|| format!("{place}: {stem}Data is not base64"))
    };
    let mut found = Vec::new();
    if let Some(path) = members.text(&format!("{stem}Path"))? {
        found.push(vec![KeySource::Path(path.into())]);
    }
    if let Some(paths) = members.texts(&format!("{stem}Paths"))? {
        found.push(paths.into_iter().map(|path| KeySource::Path(path.into())).collect());
    }
    if let Some(text) = members.text(&format!("{stem}Data"))? {
        found.push(vec![data(&text)?]);
    }
    if several_data && let Some(texts) = members.texts(&format!("{stem}Datas"))? {
        found.push(texts.iter().map(data).collect::<Result<_, _>>()?);
    }
    match (found.len(), found.pop()) {
        (0, _) | (_, None) => Ok(None),
        (1, Some(keys)) if keys.is_empty() => Err(format!("{place}: there has to be a key")),
        (1, Some(keys))
            if keys.iter().any(|key| matches!(key, KeySource::Path(path) if path.as_os_str().is_empty())) =>
        {
            Err(format!("{place}: a path is empty"))
        }
        (1, Some(keys)) => Ok(Some(keys)),
        _ => Err(format!(
            "{place}: only one of {stem}Path, {stem}Paths, {stem}Data and {stem}Datas may be there"
        )),
    }
}

fn fulcio(value: Value, place: &str) -> Result<(), String> {
    let mut members = Members::new(value, format!("{place}: fulcio"))?;
    one_of(&mut members, "caPath", "caData", true)?;
    members.required_text("oidcIssuer")?;
    members.required_text("subjectEmail")?;
    members.finish()
}

fn pki(value: Value, place: &str) -> Result<(), String> {
    let mut members = Members::new(value, format!("{place}: pki"))?;
    one_of(&mut members, "caRootsPath", "caRootsData", true)?;
    one_of(&mut members, "caIntermediatesPath", "caIntermediatesData", false)?;
    let (email, host) = (members.text("subjectEmail")?, members.text("subjectHostname")?);
    if email.is_none() && host.is_none() {
        return Err(format!("{place}: pki: subjectEmail or subjectHostname has to be there"));
    }
    members.finish()
}

fn one_of(members: &mut Members, path: &str, data: &str, required: bool) -> Result<(), String> {
    match (members.text(path)?, members.text(data)?) {
        (Some(_), Some(_)) => Err(format!("only one of {path} and {data} may be there")),
        (None, None) if required => Err(format!("one of {path} and {data} has to be there")),
        (_, Some(text)) if base64(&text).is_none() => Err(format!("{data} is not base64")),
        _ => Ok(()),
    }
}

fn identity(members: &mut Members, key: &str, place: &str) -> Result<IdentityRule, String> {
    members.take(key).map_or(Ok(IdentityRule::MatchRepoDigestOrExact), |value| identity_rule(value, place))
}

fn identity_rule(value: Value, place: &str) -> Result<IdentityRule, String> {
    let mut members = Members::new(value, format!("{place}: signedIdentity"))?;
    let named = |text: String, key: &str| {
        Named::parse(&text).ok_or_else(|| format!("{place}: {key} {:?} is no name", shortened(&text)))
    };
    let rule = match members.required_text("type")?.as_str() {
        "matchExact" => IdentityRule::MatchExact,
        "matchRepoDigestOrExact" => IdentityRule::MatchRepoDigestOrExact,
        "matchRepository" => IdentityRule::MatchRepository,
        "exactReference" => {
            let reference = named(members.required_text("dockerReference")?, "dockerReference")?;
            if reference.is_bare() {
                return Err(format!("{place}: dockerReference {reference} has neither tag nor digest"));
            }
            IdentityRule::ExactReference(reference)
        }
        "exactRepository" => {
            let repository = named(members.required_text("dockerRepository")?, "dockerRepository")?;
            IdentityRule::ExactRepository(repository)
        }
        "remapIdentity" => {
            let (prefix, signed_prefix) =
                (members.required_text("prefix")?, members.required_text("signedPrefix")?);
            for (key, text) in [("prefix", &prefix), ("signedPrefix", &signed_prefix)] {
                if !is_prefix(text) {
                    return Err(format!("{place}: {key} {:?} is no host and no folder", shortened(text)));
                }
            }
            IdentityRule::RemapIdentity { prefix, signed_prefix }
        }
        other => return Err(format!("{place}: signedIdentity {:?} is not known", shortened(other))),
    };
    members.finish()?;
    Ok(rule)
}

/// `HOST[:PORT]`, or a name in full without tag and digest.
fn is_prefix(text: &str) -> bool {
    if text.contains('/') {
        // Completed, it would be another one: then it was not written in full.
        return Named::parse(text).is_some_and(|named| named.is_bare() && named.to_string() == text);
    }
    crate::oci::Repository::new(text, "x").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes_of(transport: &'static str, scopes: &[&str]) -> Scopes {
        Scopes { transport, scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect() }
    }

    #[test]
    fn the_closest_scope_counts_alone() {
        let text = r#"{"default":[{"type":"reject"}],"transports":{"docker":{
            "h.io/a":[{"type":"insecureAcceptAnything"}],
            "h.io/a:1":[{"type":"reject"},{"type":"insecureAcceptAnything"}],
            "":[{"type":"insecureAcceptAnything"},{"type":"insecureAcceptAnything"}]}, "dir":{}}}"#;
        let policy = Policy::parse(text.as_bytes()).unwrap();
        for (transport, scopes, count, scope) in [
            ("docker", &["h.io/a:1", "h.io/a", "h.io"][..], 2, Some("h.io/a:1")),
            ("docker", &["h.io/a:2", "h.io/a", "h.io"], 1, Some("h.io/a")),
            ("docker", &["h.io/b:1", "h.io/b", "h.io"], 2, Some("")),
            ("dir", &["/x"], 1, None),
            ("oci", &["/x"], 1, None),
        ] {
            let (found, used) = policy.requirements(&scopes_of(transport, scopes));
            assert_eq!((found.len(), used), (count, scope), "{transport} {scopes:?}");
        }
        assert!(policy.knows("dir") && !policy.knows("oci"));
    }

    fn one(requirement: &str) -> Result<Requirement, String> {
        let text = format!("{{\"default\":[{requirement}]}}");
        Policy::parse(text.as_bytes())
            .map(|policy| policy.default[0].clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_known_is_read() {
        use KeySource::{Data, Path};
        let signed = |rest: &str| one(&format!("{{\"type\":\"sigstoreSigned\",{rest}}}"));
        let keys = |rest: &str| match signed(rest).unwrap() {
            Requirement::SigstoreSigned(signed) => signed.keys,
            other => panic!("{other:?}"),
        };
        assert_eq!(keys(r#""keyPath":"/k""#), [Path("/k".into())]);
        assert_eq!(keys(r#""keyPaths":["/k","l"]"#), [Path("/k".into()), Path("l".into())]);
        assert_eq!(keys(r#""keyData":"AAE=""#), [Data(vec![0, 1])]);
        assert_eq!(keys(r#""keyDatas":["AAE=","Ag=="]"#), [Data(vec![0, 1]), Data(vec![2])]);
        for (identity, wanted) in [
            (r#"{"type":"matchExact"}"#, "MatchExact"),
            (r#"{"type":"matchRepoDigestOrExact"}"#, "MatchRepoDigestOrExact"),
            (r#"{"type":"matchRepository"}"#, "MatchRepository"),
            (r#"{"type":"exactReference","dockerReference":"busybox:1"}"#, "ExactReference"),
            (r#"{"type":"exactRepository","dockerRepository":"h.io/a/b"}"#, "ExactRepository"),
            (r#"{"type":"remapIdentity","prefix":"h.io:5000/a","signedPrefix":"h.io"}"#, "RemapIdentity"),
        ] {
            let rest = format!("\"keyPath\":\"/k\",\"signedIdentity\":{identity}");
            let Ok(Requirement::SigstoreSigned(signed)) = signed(&rest) else { panic!("{identity}") };
            assert!(format!("{:?}", signed.identity).starts_with(wanted), "{identity}");
        }
    }

    #[test]
    fn what_cannot_be_checked_is_met_by_nothing() {
        for (wanted, text) in [
            ("GnuPG", r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}"#),
            (
                "GnuPG",
                r#"{"type":"signedBy","keyType":"GPGKeys","keyData":"AA==","signedIdentity":{"type":"matchExact"}}"#,
            ),
            ("signedBaseLayer", r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#),
            ("Rekor", r#"{"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r"}"#),
            (
                "Fulcio",
                r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"x","subjectEmail":"y"},"rekorPublicKeyData":"AA=="}"#,
            ),
            ("pki", r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectHostname":"x"}}"#),
        ] {
            let Requirement::Unsupported(reason) = one(text).unwrap() else { panic!("{text}") };
            assert!(reason.contains(wanted), "{wanted}: {reason}");
        }
    }

    #[test]
    fn what_is_not_known_makes_the_policy_invalid() {
        for (wanted, text) in [
            ("EOF", ""),
            ("default is missing", "{}"),
            ("\"more\" is not known", r#"{"default":[{"type":"reject"}],"more":1}"#),
            ("stands twice", r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#),
            ("there has to be a requirement", r#"{"default":[]}"#),
            ("no list of requirements", r#"{"default":{}}"#),
            ("no list of requirements", r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":1}}}"#),
            ("transports is no object", r#"{"default":[{"type":"reject"}],"transports":[]}"#),
        ] {
            let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        for (wanted, text) in [
            ("requirement \"other\" is not known", r#"{"type":"other"}"#),
            ("type is missing", "{}"),
            ("\"more\" is not known", r#"{"type":"reject","more":1}"#),
            ("\"Type\" is not known", r#"{"type":"reject","Type":"reject"}"#),
            ("exactly one of", r#"{"type":"sigstoreSigned"}"#),
            ("only one of key", r#"{"type":"sigstoreSigned","keyPath":"/k","keyData":"AA=="}"#),
            ("a path is empty", r#"{"type":"sigstoreSigned","keyPath":""}"#),
            ("there has to be a key", r#"{"type":"sigstoreSigned","keyPaths":[]}"#),
            ("not base64", r#"{"type":"sigstoreSigned","keyData":"*"}"#),
            ("no list of texts", r#"{"type":"sigstoreSigned","keyPaths":[1]}"#),
            ("keyPath is no text", r#"{"type":"sigstoreSigned","keyPath":null}"#),
            (
                "needs a rekor",
                r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"x","subjectEmail":"y"}}"#,
            ),
            (
                "oidcIssuer is missing",
                r#"{"type":"sigstoreSigned","fulcio":{"caPath":"/c","subjectEmail":"y"}}"#,
            ),
            ("subjectEmail or", r#"{"type":"sigstoreSigned","pki":{"caRootsPath":"/c"}}"#),
            ("one of caRootsPath", r#"{"type":"sigstoreSigned","pki":{"subjectEmail":"x"}}"#),
            ("keyType \"x\"", r#"{"type":"signedBy","keyType":"x","keyPath":"/k"}"#),
            (
                "\"keyDatas\" is not known",
                r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyDatas":[]}"#,
            ),
            ("one of keyPath, keyPaths", r#"{"type":"signedBy","keyType":"GPGKeys"}"#),
        ] {
            let error = one(text).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        for (wanted, identity) in [
            ("\"any\" is not known", r#"{"type":"any"}"#),
            ("is no object", "1"),
            ("neither tag nor digest", r#"{"type":"exactReference","dockerReference":"h.io/a"}"#),
            ("is no name", r#"{"type":"exactRepository","dockerRepository":"A B"}"#),
            ("dockerReference is missing", r#"{"type":"exactReference"}"#),
            (
                "no host and no folder",
                r#"{"type":"remapIdentity","prefix":"h.io/a:1","signedPrefix":"h.io"}"#,
            ),
            ("no host and no folder", r#"{"type":"remapIdentity","prefix":"h.io","signedPrefix":""}"#),
            ("\"more\" is not known", r#"{"type":"matchExact","more":1}"#),
        ] {
            let text =
                format!("{{\"type\":\"sigstoreSigned\",\"keyPath\":\"/k\",\"signedIdentity\":{identity}}}");
            let error = one(&text).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn scopes_have_the_form_of_their_transport() {
        let id = "0".repeat(64);
        for (transport, scope, good) in [
            ("docker", "h.io/a:1", true),
            ("docker", "*.h.io", true),
            ("dir", "/a/b", true),
            ("dir", "a", false),
            ("dir", "/", false),
            ("oci", "/a/", false),
            ("oci", "/a/../b", false),
            ("oci-archive", "/a//b", false),
            ("docker-archive", "/a", false),
            ("tarball", "x", false),
            ("docker-daemon", "docker.io/library/x", true),
            ("docker-daemon", &format!("sha256:{id}"), false),
            ("containers-storage", "[overlay@/var/lib/x]", true),
            ("containers-storage", "[/var/lib/x]docker.io/library/y:1", true),
            ("containers-storage", &format!("[overlay@/x]h.io/y:1@{id}"), true),
            ("containers-storage", &format!("[overlay@/x]h.io/y@sha256:{id}"), true),
            ("containers-storage", &format!("[overlay@/x]h.io/y@sha256:{id}@{id}"), true),
            ("containers-storage", "[overlay@/x]h.io/y@z", false),
            ("containers-storage", "[overlay@x]", false),
            ("containers-storage", "h.io/y", false),
            ("containers-storage", "[", false),
            ("somewhere", "anything", true),
        ] {
            let text = serde_json::json!({ "default": [{ "type": "reject" }],
                "transports": { transport: { scope: [{ "type": "reject" }], "": [{ "type": "reject" }] } } });
            assert_eq!(Policy::parse(text.to_string().as_bytes()).is_ok(), good, "{transport} {scope}");
        }
    }
}
