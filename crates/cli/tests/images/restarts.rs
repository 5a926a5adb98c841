//! Registries that go away in the midst of it.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use coracle_testkit::http::{Answer, Request, Server, Service};
use coracle_testkit::image::Rng;
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::oracle::{Input, Signal, start};
use coracle_testkit::registry::base64;
use coracle_testkit::service::Authority;

use super::site::{LIMIT, Site};
use crate::place::{Place, Ran};

/// 24 MB that nobody can compress.
fn large() -> Bundle {
    image("amd64", &[Rng::new(5).bytes(12 << 20), Rng::new(6).bytes(12 << 20)], Compression::None).unwrap()
}

/// Runs `line`, ends the registry once `begun` says so, and starts it again a little later.
fn across_a_restart(site: &mut Site, line: &str, begun: impl Fn(&Site) -> bool) -> Ran {
    let line = format!("coracle {}", site.line(line));
    let mut running = start(&mut site.place.command(&line), Input::Nothing).unwrap();
    let begin = Instant::now();
    while !begun(site) {
        assert!(!running.ended().unwrap(), "{line}: over before it was interrupted");
        assert!(begin.elapsed() < LIMIT, "{line}: never began");
        sleep(Duration::from_millis(2));
    }
    site.registry.down();
    sleep(Duration::from_millis(700));
    assert!(!running.ended().unwrap(), "{line}: gave up at once");
    site.registry.up().unwrap();
    Ran::new(&line, running.wait(LIMIT).unwrap())
}

/// Bytes below a folder.
fn bytes_in(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn in_mid_push() {
    let mut site = Site::new();
    let bundle = large();
    bundle.write_layout(&site.place.path("in/layout"), "image").unwrap();
    let line = "copy --tls-verify=false --limit-rate 8M oci:in/layout:image docker://{registry}/x:1 --json";
    let ran = across_a_restart(&mut site, line, |site| bytes_in(&site.place.path("registry/data")) > 3 << 20);
    let told = crate::place::one_object(&ran.success().text());
    assert_eq!(told["digest"], bundle.digest());
    assert_eq!(site.digest_by_skopeo("docker://{registry}/x:1"), bundle.digest());
    site.program("skopeo copy --quiet --src-tls-verify=false docker://{registry}/x:1 oci:out/x:1");
}

#[test]
fn in_mid_pull() {
    let mut site = Site::new();
    let bundle = large();
    bundle.write_layout(&site.place.path("in/layout"), "image").unwrap();
    site.json("copy --tls-verify=false oci:in/layout:image docker://{registry}/x:1");
    let line = "copy --tls-verify=false --limit-rate 8M docker://{registry}/x:1 oci:out/l:1 --json";
    let ran = across_a_restart(&mut site, line, |site| bytes_in(&site.place.path("out/l")) > 3 << 20);
    let told = crate::place::one_object(&ran.success().text());
    assert_eq!(told["digest"], bundle.digest());
    site.program("umoci stat --image out/l:1");
}

/// Interrupted by its user, it leaves what it has, and the next run goes on from there.
#[test]
fn interrupted_and_run_again() {
    let site = Site::new();
    let bundle = large();
    bundle.write_layout(&site.place.path("in/layout"), "image").unwrap();
    site.json("copy --tls-verify=false oci:in/layout:image docker://{registry}/x:1");
    let copy = site.line("coracle copy --tls-verify=false docker://{registry}/x:1 oci:out/l:1 --limit-rate");
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let before = bytes_in(&site.place.path("out/l"));
        let line = format!("{copy} 6M");
        let mut running = start(&mut site.place.command(&line), Input::Nothing).unwrap();
        let begin = Instant::now();
        while bytes_in(&site.place.path("out/l")) < before + (2 << 20) {
            assert!(begin.elapsed() < LIMIT && !running.ended().unwrap());
            sleep(Duration::from_millis(2));
        }
        running.signal(signal).unwrap();
        let ran = Ran::new(&line, running.wait(Duration::from_secs(20)).unwrap());
        assert_eq!(ran.code, code, "{ran:?}");
        assert!(bytes_in(&site.place.path("out/l")) >= before + (1 << 20));
        assert!(!site.place.path("out/l/index.json").exists());
    }
    let kept = bytes_in(&site.place.path("out/l"));
    assert!(kept > 4 << 20, "{kept}");
    let told = site.json("copy --tls-verify=false docker://{registry}/x:1 oci:out/l:1");
    assert_eq!(told["digest"], bundle.digest());
    assert!(!site.place.path("out/l/.coracle-partial").exists());
}

/// The registry is gone for good: the code for it, in bounded time, and nothing at the destination.
#[test]
fn gone_for_good() {
    let mut site = Site::new();
    site.push_with_skopeo("x:v1");
    let line = site.line("copy --tls-verify=false docker://{registry}/x:v1 oci-archive:out/x.tar:1");
    site.registry.down();
    let message = site.place.fails(&line, 8, "cannot connect");
    assert!(message.contains("x:v1"), "{message}");
}

/// Signs tokens with openssl, for whoever knows the password, and for pulling for everybody
/// (distribution, "Token Authentication Implementation").
struct Tokens {
    authority: std::path::PathBuf,
}

impl Service for Tokens {
    fn answer(&self, request: &Request) -> Answer {
        let right = format!("Basic {}", base64(b"alice:s3cret"));
        let known = match request.header("authorization") {
            Some(given) if given == right => true,
            Some(_) => return Answer::new(401),
            None => false,
        };
        let access: Vec<serde_json::Value> = request
            .query
            .split('&')
            .filter_map(|pair| pair.strip_prefix("scope="))
            .filter_map(|scope| {
                let scope = coracle_testkit::http::decode(scope);
                let mut parts = scope.splitn(3, ':').map(str::to_owned);
                let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
                let actions: Vec<&str> =
                    actions.split(',').filter(|action| known || *action == "pull").collect();
                Some(serde_json::json!({ "type": kind, "name": name, "actions": actions }))
            })
            .collect();
        let certificate = std::fs::read_to_string(self.authority.join("ca.crt")).unwrap();
        let der: String = certificate.lines().filter(|line| !line.starts_with("---")).collect();
        let url_safe = |bytes: &[u8]| base64(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_");
        let header = serde_json::json!({ "typ": "JWT", "alg": "ES256", "x5c": [der] });
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = serde_json::json!({
            "iss": "test-issuer", "sub": "alice", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": format!("{now}"), "access": access,
        });
        let text = format!(
            "{}.{}",
            url_safe(header.to_string().as_bytes()),
            url_safe(claims.to_string().as_bytes())
        );
        let token = format!("{text}.{}", url_safe(&self.sign(text.as_bytes())));
        Answer::new(200)
            .header("Content-Type", "application/json")
            .body(serde_json::json!({ "token": token, "expires_in": 300 }).to_string())
    }
}

impl Tokens {
    /// ECDSA with P-256 as JWT wants it: r and s, 32 bytes each.
    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let mut command = std::process::Command::new(coracle_testkit::oracle::tool("openssl").unwrap());
        command.args(["dgst", "-sha256", "-sign"]).arg(self.authority.join("ca.key"));
        let der = coracle_testkit::oracle::run_fed(&mut command, text.to_vec(), LIMIT).unwrap().stdout;
        // SEQUENCE { INTEGER r, INTEGER s }
        let mut out = Vec::new();
        let mut at = 2;
        for _ in 0..2 {
            let len = usize::from(der[at + 1]);
            let number = &der[at + 2..at + 2 + len];
            let number = &number[number.len().saturating_sub(32)..];
            out.extend(std::iter::repeat_n(0, 32 - number.len()));
            out.extend_from_slice(number);
            at += 2 + len;
        }
        out
    }
}

/// A token server whose tokens docker-registry accepts.
pub fn token_server(place: &Place, _: &Authority) -> Server {
    Server::start(Arc::new(Tokens { authority: place.path("ca") })).unwrap()
}
