//! Getting in: passwords, tokens, helpers, private authorities, mirrors.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use coracle_testkit::forward::Forward;
use coracle_testkit::http::Server;
use coracle_testkit::oracle::{run_bounded, run_ok, tool};
use coracle_testkit::registry::{Access, Behaviour, base64, start};
use coracle_testkit::service::{Authority, RegistryOptions, free_port};

use super::site::{LIMIT, Site, runnable};
use crate::place::{Place, Ran};

fn user() -> RegistryOptions {
    RegistryOptions { basic: Some(("alice".into(), "s3cret".into())), ..RegistryOptions::default() }
}

#[test]
fn htpasswd_with_what_skopeo_login_wrote() {
    let site = Site::with(&user());
    let bundle = runnable();
    bundle.write_layout(&site.place.path("in/layout"), "image").unwrap();
    let login = "skopeo login --tls-verify=false --authfile in/auth.json -u alice -p s3cret {registry}";
    site.program(login);
    let copy = "copy --tls-verify=false --authfile in/auth.json";
    let told = site.json(&format!("{copy} oci:in/layout:image {{registry}}/x:1"));
    assert_eq!(told["digest"], bundle.digest());
    site.json(&format!("{copy} {{registry}}/x:1 oci:out/back:1"));
    // Without: the code for it, and what to do.
    let line = site.line("copy --tls-verify=false --authfile tmp/none.json {registry}/x:1 oci:out/none:1");
    fs::write(site.place.path("tmp/none.json"), "{}").unwrap();
    let message = site.place.fails(&line, 9, "asks for credentials");
    assert!(message.contains("log in"), "{message}");
    // The variable of all containers tools.
    let line = site.line("coracle copy --tls-verify=false {registry}/x:1 oci:out/variable:1");
    let mut command = site.place.command(&line);
    run_ok(command.env("REGISTRY_AUTH_FILE", site.place.path("in/auth.json")), LIMIT).unwrap();
    // A file that cannot be read is not one without credentials.
    fs::write(site.place.path("tmp/none.json"), "{").unwrap();
    let line = site.line("copy --tls-verify=false --authfile tmp/none.json {registry}/x:1 oci:out/none:1");
    site.place.fails(&line, 2, "none.json");
}

#[test]
fn a_credential_helper() {
    let site = Site::with(&user());
    runnable().write_layout(&site.place.path("in/layout"), "image").unwrap();
    let bin = site.place.path("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread server\necho \"$1 $server\" >> {}/asked\nif [ \"$server\" = {} ]; then\n\
         echo '{{\"ServerURL\":\"x\",\"Username\":\"alice\",\"Secret\":\"s3cret\"}}'\nelse\n\
         echo 'credentials not found in native keychain'; exit 1\nfi\n",
        bin.display(),
        site.registry.host()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(site.place.path("docker-config")).unwrap();
    fs::write(site.place.path("docker-config/config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let path = std::env::var("PATH").unwrap();
    let run = |line: &str| {
        let mut command = site.place.command(&format!("coracle {}", site.line(line)));
        command.env("PATH", format!("{}:{path}", bin.display())).env("HOME", site.place.path("tmp"));
        command.env_remove("REGISTRY_AUTH_FILE").env("XDG_RUNTIME_DIR", site.place.path("tmp"));
        command.env("DOCKER_CONFIG", site.place.path("docker-config"));
        Ran::new(line, run_bounded(&mut command, LIMIT).unwrap())
    };
    run("copy --tls-verify=false oci:in/layout:image {registry}/x:1").success();
    let asked = fs::read_to_string(bin.join("asked")).unwrap();
    assert!(asked.lines().all(|line| line == format!("get {}", site.registry.host())), "{asked}");
    // A helper that fails is not one that knows nothing.
    fs::write(&helper, "#!/bin/sh\necho locked; exit 3\n").unwrap();
    let ran = run("copy --tls-verify=false {registry}/x:1 oci:out/x:1");
    site.place.check_failure(&ran, 9, "docker-credential-test");
    assert!(ran.stderr.contains("locked"), "{}", ran.stderr);
}

/// docker-registry checks the tokens, so they have to be real: signed, for this repository and these actions.
#[test]
fn tokens_of_a_real_registry() {
    let place = Place::new();
    let authority = Authority::new(&place.path("ca")).unwrap();
    let tokens = super::restarts::token_server(&place, &authority);
    let options = RegistryOptions {
        token: Some((
            format!("http://{}/token", tokens.host()),
            "registry".into(),
            "test-issuer".into(),
            authority.certificate(),
        )),
        ..RegistryOptions::default()
    };
    let site = Site::with(&options);
    let bundle = runnable();
    bundle.write_layout(&site.place.path("in/layout"), "image").unwrap();
    let auth =
        format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, site.registry.host(), base64(b"alice:s3cret"));
    site.place.put("in/auth.json", auth);
    let copy = "copy --tls-verify=false --authfile in/auth.json";
    site.json(&format!("{copy} oci:in/layout:image {{registry}}/x/y:1"));
    let told = site.json(&format!("{copy} {{registry}}/x/y:1 {{registry}}/z:1"));
    assert_eq!(told["blobs"]["mounted"]["count"], bundle.blobs.len());
    site.json(&format!("{copy} {{registry}}/z:1 oci:out/x:1"));
    // Everybody may pull, nobody may push.
    site.json("copy --tls-verify=false {registry}/z:1 oci:out/anonymous:1");
    let line = site.line("copy --tls-verify=false oci:in/layout:image {registry}/n:1");
    let message = site.place.run(&line);
    assert_eq!(message.code, Some(9), "{message:?}");
}

#[test]
fn a_private_authority() {
    let place = Place::new();
    let authority = Authority::new(&place.path("ca")).unwrap();
    let tls = Some(authority.certify("server").unwrap());
    let site = Site::with(&RegistryOptions { tls, ..user() });
    runnable().write_layout(&site.place.path("in/layout"), "image").unwrap();
    let auth =
        format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, site.registry.host(), base64(b"alice:s3cret"));
    site.place.put("in/auth.json", auth);
    fs::create_dir(site.place.path("in/certs")).unwrap();
    fs::copy(authority.certificate(), site.place.path("in/certs/ca.crt")).unwrap();
    let copy = "copy --authfile in/auth.json";
    site.json(&format!("{copy} --cert-dir in/certs oci:in/layout:image {{registry}}/x:1"));
    site.json(&format!("{copy} --cert-dir in/certs {{registry}}/x:1 oci:out/x:1"));
    let line = site.line(&format!("{copy} {{registry}}/x:1 oci:out/y:1"));
    let message = site.place.fails(&line, 8, "certificate");
    assert!(message.contains("certs.d"), "{message}");
    site.json(&format!("{copy} --tls-verify=false {{registry}}/x:1 oci:out/z:1"));
}

#[test]
fn a_mirror_that_is_down_and_one_that_is_blocked() {
    let site = Site::new();
    let digest = site.push_with_skopeo("x:v1");
    let conf = format!(
        "[[registry]]\nprefix = \"example.com/apps\"\nlocation = \"{0}\"\ninsecure = true\n\
         [[registry.mirror]]\nlocation = \"127.0.0.1:{1}\"\ninsecure = true\n\
         [[registry]]\nlocation = \"evil.example\"\nblocked = true\n",
        site.registry.host(),
        free_port().unwrap()
    );
    site.place.put("in/registries.conf", conf);
    let told = site.json("copy --registries-conf in/registries.conf example.com/apps/x:v1 oci:out/x:1");
    assert_eq!(told["digest"], digest);
    site.place.fails("copy --registries-conf in/registries.conf evil.example/x oci:out/y:1", 9, "blocked by");
    site.place.fails("copy --registries-conf in/none.conf evil.example/x oci:out/y:1", 2, "none.conf");
}

/// A mirror in front that has nothing, and one that is the registry itself: the second is asked.
#[test]
fn an_empty_mirror() {
    let site = Site::new();
    let digest = site.push_with_skopeo("x:v1");
    let (_double, empty) = start(Behaviour::default()).unwrap();
    let forward = Server::start(std::sync::Arc::new(Forward::new(&site.registry.host()))).unwrap();
    let conf = format!(
        "[[registry]]\nlocation = \"example.com\"\n\
         [[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        empty.host(),
        forward.host()
    );
    site.place.put("in/registries.conf", conf);
    let told = site.json("copy --registries-conf in/registries.conf example.com/x:v1 oci:out/x:1");
    assert_eq!(told["digest"], digest);
    assert!(!empty.faults().requests().is_empty());
}

/// The other side of it: what we pushed with a token, skopeo pulls with one.
#[test]
fn skopeo_and_we_use_the_same_tokens() {
    let place = Place::new();
    let access = Access::Token("alice".into(), "s3cret".into());
    let (_double, server) = start(Behaviour { access, ..Behaviour::default() }).unwrap();
    runnable().write_layout(&place.path("in/layout"), "image").unwrap();
    let auth = format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, server.host(), base64(b"alice:s3cret"));
    place.put("in/auth.json", auth);
    place.ok(&format!(
        "copy --tls-verify=false --authfile in/auth.json oci:in/layout:image {}/x:1",
        server.host()
    ));
    let mut command = Command::new(tool("skopeo").unwrap());
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--authfile", "in/auth.json"]);
    command.arg(format!("docker://{}/x:1", server.host())).arg("oci:out/x:1").current_dir(place.path(""));
    run_ok(&mut command, LIMIT).unwrap();
}
