//! Credentials: containers-auth.json(5), Docker's config.json, and credential helpers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::Error;

/// How long a credential helper may take; it may ask its user.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);
/// The name that stands for the files themselves among credential helpers (containers-registries.conf(5)).
const FILES: &str = "containers-auth.json";
/// Docker's name for Docker Hub.
const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token to get other tokens with (OAuth 2 refresh token).
    IdentityToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::Password { user, .. } => write!(f, "Password of {user:?}"),
            Credentials::IdentityToken(_) => f.write_str("IdentityToken"),
        }
    }
}

/// Files to look for credentials in, the first that has some for a registry counts.
#[derive(Debug, Clone, Default)]
pub struct AuthFiles {
    /// In the order of containers-auth.json(5), Docker's last. A missing file says nothing.
    pub files: Vec<PathBuf>,
    /// This one must exist: somebody named it. Then `files` are not asked.
    pub only: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl AuthFiles {
    /// Credentials for the repository `path` of `registry`. `None` means that everybody who could know was asked and
    /// knows none. Blocks: a helper is a program.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::Helper`]: a file or helper that cannot be understood may have had some.
    pub fn find(&self, registry: &str, path: &str, helpers: &[String]) -> Result<Option<Credentials>, Error> {
        let files = [FILES.to_owned()];
        let helpers = if helpers.is_empty() { &files } else { helpers };
        for helper in helpers {
            let found =
                if helper == FILES { self.find_in_files(registry, path)? } else { ask(helper, registry)? };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn find_in_files(&self, registry: &str, path: &str) -> Result<Option<Credentials>, Error> {
        let files = self.only.as_ref().map_or(self.files.as_slice(), std::slice::from_ref);
        for file in files {
            let bytes = match std::fs::read(file) {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.only.is_none() => continue,
                Err(e) => return Err(config(file, &e)),
            };
            let content: AuthFile = serde_json::from_slice(&bytes).map_err(|e| config(file, &e))?;
            let found = content.find(registry, path).map_err(|reason| match reason {
                Fault::Entry(reason) => config(file, &reason),
                Fault::Helper(error) => error,
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

enum Fault {
    Entry(String),
    Helper(Error),
}

impl AuthFile {
    fn find(&self, registry: &str, path: &str) -> Result<Option<Credentials>, Fault> {
        if let Some(helper) = self.cred_helpers.iter().find(|(key, _)| same_host(key, registry)) {
            return ask(helper.1, registry).map_err(Fault::Helper);
        }
        if let Some(helper) = self.creds_store.as_deref().filter(|helper| !helper.is_empty())
            && let Some(found) = ask(helper, registry).map_err(Fault::Helper)?
        {
            return Ok(Some(found));
        }
        // From the repository outwards to the host: the closest key counts.
        let full = format!("{registry}/{path}");
        let mut key = full.as_str();
        loop {
            if let Some(entry) = self.auths.get(key)
                && let Some(found) = entry.credentials(key)?
            {
                return Ok(Some(found));
            }
            match key.rfind('/') {
                Some(at) => key = &key[..at],
                None => break,
            }
        }
        // Docker writes URLs: `https://host/v1/`.
        for (key, entry) in &self.auths {
            if same_host(key, registry)
                && let Some(found) = entry.credentials(key)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Entry {
    fn credentials(&self, key: &str) -> Result<Option<Credentials>, Fault> {
        if let Some(token) = self.identitytoken.as_deref().filter(|token| !token.is_empty()) {
            return Ok(Some(Credentials::IdentityToken(token.to_owned())));
        }
        if let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            let bad = || Fault::Entry(format!("auth of {key} is not NAME:PASSWORD in base64"));
            let text = STANDARD.decode(auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(text).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            // Docker pads with NUL bytes.
            let password = password.trim_end_matches('\0');
            return Ok(Some(Credentials::Password { user: user.into(), password: password.into() }));
        }
        match (&self.username, &self.password) {
            (Some(user), Some(password)) if !user.is_empty() => {
                Ok(Some(Credentials::Password { user: user.clone(), password: password.clone() }))
            }
            _ => Ok(None),
        }
    }
}

/// Whether a key of an auth file, which may be a URL, is about the host as a whole.
fn same_host(key: &str, registry: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let host = match host {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None if key.contains('/') => return false,
        None => key,
    };
    host == registry || (DOCKER_HUB.contains(&host) && DOCKER_HUB.contains(&registry))
}

/// Asks the program `docker-credential-HELPER` (docker-credential-helpers, "get").
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let program = format!("docker-credential-{helper}");
    let fail = |reason: String| Error::Helper { helper: program.clone(), host: registry.into(), reason };
    if helper.is_empty() || helper.contains('/') {
        return Err(fail("is not a name of a helper".into()));
    }
    let server = if DOCKER_HUB.contains(&registry) { "https://index.docker.io/v1/" } else { registry };
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| fail(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read has failed anyway, and says so by its status.
        let _ = stdin.write_all(server.as_bytes());
    }
    let started = Instant::now();
    let output = std::thread::scope(|scope| {
        let mut stdout = child.stdout.take();
        let reader = scope.spawn(move || {
            let mut bytes = Vec::new();
            if let Some(stdout) = &mut stdout {
                // An answer that cannot be read is none, and not JSON.
                let _ = io::Read::read_to_end(&mut io::Read::take(stdout, 1 << 20), &mut bytes);
            }
            bytes
        });
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if started.elapsed() < HELPER_PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) => break Err(format!("no answer after {HELPER_PATIENCE:?}")),
                Err(e) => break Err(e.to_string()),
            }
        };
        if status.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        (status, reader.join().unwrap_or_default())
    });
    let (status, bytes) = output;
    let status = status.map_err(fail)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if !status.success() {
        // The words of the helpers' own library; anything else is a failure and no answer.
        if text == "credentials not found in native keychain" || text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(fail(format!("{status}: {}", text.chars().take(200).collect::<String>())));
    }
    let answer: Answer =
        serde_json::from_slice(&bytes).map_err(|_| fail("its answer is not understood".into()))?;
    Ok(Some(if answer.username == "<token>" {
        Credentials::IdentityToken(answer.secret)
    } else {
        Credentials::Password { user: answer.username, password: answer.secret }
    }))
}

fn config(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Config { path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, registry: &str, path: &str) -> Result<Option<Credentials>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("auth.json");
        std::fs::write(&file, json).unwrap();
        AuthFiles { files: vec![dir.path().join("missing"), file], only: None }.find(registry, path, &[])
    }

    fn user(found: Result<Option<Credentials>, Error>) -> Option<String> {
        match found.unwrap()? {
            Credentials::Password { user, password } => Some(format!("{user}:{password}")),
            Credentials::IdentityToken(token) => Some(format!("token {token}")),
        }
    }

    #[test]
    fn the_closest_key_counts() {
        let entry = |text: &str| format!(r#"{{"auth":"{}"}}"#, STANDARD.encode(text));
        let json = format!(
            r#"{{"auths":{{"a.io":{},"a.io/x":{},"a.io/x/y":{},"https://b.io/v1/":{},
                "https://index.docker.io/v1/":{},"c.io":{{"identitytoken":"T"}},"d.io":{{}},
                "e.io":{{"username":"u","password":"p"}}}}}}"#,
            entry("host:1"),
            entry("x:2"),
            entry("y:3:4"),
            entry("b:5\0\0"),
            entry("hub:6")
        );
        for (registry, path, want) in [
            ("a.io", "z", Some("host:1")),
            ("a.io", "x", Some("x:2")),
            ("a.io", "x/z", Some("x:2")),
            ("a.io", "x/y", Some("y:3:4")),
            ("a.io", "x/y/z", Some("y:3:4")),
            ("a.io", "xy", Some("host:1")),
            ("b.io", "q", Some("b:5")),
            ("docker.io", "library/alpine", Some("hub:6")),
            ("c.io", "q", Some("token T")),
            ("d.io", "q", None),
            ("e.io", "q", Some("u:p")),
            ("a.io:5000", "x", None),
        ] {
            assert_eq!(user(find(&json, registry, path)).as_deref(), want, "{registry}/{path}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_not_an_empty_one() {
        for json in [
            "",
            "{",
            r#"{"auths":[]}"#,
            r#"{"auths":{"a.io":{"auth":"???"}}}"#,
            r#"{"auths":{"a.io":{"auth":"eA=="}}}"#,
        ] {
            assert!(matches!(find(json, "a.io", "x"), Err(Error::Config { .. })), "{json}");
        }
        let named = AuthFiles { files: Vec::new(), only: Some("/nonexistent/auth.json".into()) };
        assert!(matches!(named.find("a.io", "x", &[]), Err(Error::Config { .. })));
        let helper = r#"{"credHelpers":{"a.io":"coracle-test-missing"}}"#;
        assert!(matches!(find(helper, "a.io", "x"), Err(Error::Helper { .. })));
        assert_eq!(find(helper, "b.io", "x").unwrap(), None);
        assert!(
            !format!("{:?}", Credentials::Password { user: "u".into(), password: "secret".into() })
                .contains("secret")
        );
    }
}
