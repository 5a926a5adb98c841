//! Real programs that serve: registries and engines, each on a port or socket and in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Error;
use crate::oracle::{Input, Running, Signal, run_ok, start, tool};

/// How long a service may take to come up or go down.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a registry is set up.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Name and password, by htpasswd.
    pub basic: Option<(String, String)>,
    /// TLS with the certificate of [`Authority::certify`].
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Token server: realm, service, issuer, certificate.
    pub token: Option<(String, String, String, PathBuf)>,
}

/// docker-registry in a folder.
#[derive(Debug)]
pub struct Registry {
    dir: PathBuf,
    port: u16,
    tls: bool,
    running: Option<Running>,
}

/// A port that was free a moment ago.
///
/// # Errors
/// There is none.
pub fn free_port() -> Result<u16, Error> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    port.map(|address| address.port()).map_err(|e| Error::io(Path::new("127.0.0.1"), e))
}

fn write(path: &Path, content: &str) -> Result<(), Error> {
    fs::write(path, content).map_err(|e| Error::io(path, e))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|e| Error::io(path, e))
}

/// Waits until `ready` says so or the program has ended.
fn wait_for(running: &mut Running, what: &str, mut ready: impl FnMut() -> bool) -> Result<(), Error> {
    let begin = Instant::now();
    while !ready() {
        if running.ended()? {
            return Err(Error::data(what, "ended at once"));
        }
        if begin.elapsed() > PATIENCE {
            return Err(Error::Timeout { command: what.to_owned(), limit: PATIENCE });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

impl Registry {
    /// Starts docker-registry with its files in `dir`.
    ///
    /// # Errors
    /// A missing program; it does not come up.
    pub fn start(dir: &Path, options: &RegistryOptions) -> Result<Self, Error> {
        let port = free_port()?;
        make_dir(dir)?;
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}, maxthreads: 100}}, delete: {{enabled: true}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: test\n",
            dir.join("data").display()
        );
        if let Some((cert, key)) = &options.tls {
            config += &format!("  tls: {{certificate: {}, key: {}}}\n", cert.display(), key.display());
        }
        if let Some((user, password)) = &options.basic {
            let line =
                run_ok(Command::new(tool("htpasswd")?).args(["-Bbn", "-C", "4", user, password]), PATIENCE)?;
            write(&dir.join("htpasswd"), &String::from_utf8_lossy(&line))?;
            config +=
                &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", dir.join("htpasswd").display());
        }
        if let Some((realm, service, issuer, cert)) = &options.token {
            config += &format!(
                "auth: {{token: {{realm: \"{realm}\", service: {service}, issuer: {issuer}, rootcertbundle: {}}}}}\n",
                cert.display()
            );
        }
        write(&dir.join("config.yml"), &config)?;
        let mut registry = Registry { dir: dir.to_owned(), port, tls: options.tls.is_some(), running: None };
        registry.up()?;
        Ok(registry)
    }

    /// Starts it again on the same port, after [`Registry::down`].
    ///
    /// # Errors
    /// It does not come up.
    pub fn up(&mut self) -> Result<(), Error> {
        let mut command = Command::new(tool("docker-registry")?);
        command.arg("serve").arg(self.dir.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let mut running = start(&mut command, Input::Nothing)?;
        let port = self.port;
        wait_for(&mut running, "docker-registry", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        self.running = Some(running);
        Ok(())
    }

    /// Ends it at once, whatever it is doing.
    pub fn down(&mut self) {
        self.running = None;
    }

    /// `127.0.0.1:PORT`, or `localhost:PORT` with TLS: the name in the certificate.
    pub fn host(&self) -> String {
        if self.tls { format!("localhost:{}", self.port) } else { format!("127.0.0.1:{}", self.port) }
    }
}

/// A certificate authority of one's own.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
}

impl Authority {
    /// Makes one with its files in `dir`.
    ///
    /// # Errors
    /// openssl is missing or fails.
    pub fn new(dir: &Path) -> Result<Self, Error> {
        make_dir(dir)?;
        let authority = Authority { dir: dir.to_owned() };
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=Test CA",
            "-keyout",
            "ca.key",
            "-out",
            "ca.crt",
        ])?;
        Ok(authority)
    }

    fn openssl(&self, args: &[&str]) -> Result<(), Error> {
        run_ok(Command::new(tool("openssl")?).args(args).current_dir(&self.dir), PATIENCE).map(drop)
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// Certificate and key for `localhost` and 127.0.0.1.
    ///
    /// # Errors
    /// openssl fails.
    pub fn certify(&self, name: &str) -> Result<(PathBuf, PathBuf), Error> {
        let (key, request, cert) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.crt"));
        write(
            &self.dir.join("san"),
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
        )?;
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &key,
            "-out",
            &request,
        ])?;
        self.openssl(&[
            "x509",
            "-req",
            "-days",
            "2",
            "-in",
            &request,
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-extfile",
            "san",
            "-out",
            &cert,
        ])?;
        Ok((self.dir.join(cert), self.dir.join(key)))
    }
}

/// A service that is reached through a socket: dockerd or containerd.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    running: Option<Running>,
    /// Where it keeps its data: dockerd mounts it on itself and leaves it so.
    data: PathBuf,
}

impl Engine {
    /// Starts dockerd with its files in `dir`. `insecure` are registries without TLS.
    ///
    /// # Errors
    /// A missing program; it does not come up, for example without the rights of root.
    pub fn dockerd(dir: &Path, insecure: &[String]) -> Result<Self, Error> {
        make_dir(dir)?;
        let socket = dir.join("docker.sock");
        let mut command = Command::new(tool("dockerd")?);
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec"));
        command.arg("-H").arg(format!("unix://{}", socket.display())).arg("--pidfile").arg(dir.join("pid"));
        for host in insecure {
            command.arg("--insecure-registry").arg(host);
        }
        Self::up(command, socket, "dockerd")
    }

    /// Starts containerd with its files in `dir`.
    ///
    /// # Errors
    /// As [`Engine::dockerd`].
    pub fn containerd(dir: &Path) -> Result<Self, Error> {
        make_dir(dir)?;
        let socket = dir.join("containerd.sock");
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{1}\"\n",
            dir.display(),
            socket.display()
        );
        write(&dir.join("config.toml"), &config)?;
        let mut command = Command::new(tool("containerd")?);
        command.arg("--config").arg(dir.join("config.toml"));
        Self::up(command, socket, "containerd")
    }

    fn up(mut command: Command, socket: PathBuf, what: &str) -> Result<Self, Error> {
        let mut running = start(&mut command, Input::Nothing)?;
        let at = socket.clone();
        wait_for(&mut running, what, || answers(&at))?;
        let data = socket.with_file_name("data");
        Ok(Engine { socket, running: Some(running), data })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Whether somebody accepts connections, and, if it is HTTP, answers.
fn answers(socket: &Path) -> bool {
    let Ok(mut stream) = std::os::unix::net::UnixStream::connect(socket) else { return false };
    if socket.file_name().is_some_and(|name| name != "docker.sock") {
        return true;
    }
    let asked = stream.write_all(b"GET /_ping HTTP/1.0\r\nHost: x\r\n\r\n");
    let mut line = String::new();
    asked.is_ok() && BufReader::new(stream).read_line(&mut line).is_ok() && line.contains("200")
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Asked kindly, it unmounts what it mounted.
        if let Some(mut running) = self.running.take()
            && running.signal(Signal::TERM).is_ok()
        {
            let _ = running.wait(PATIENCE);
        }
        if let Ok(umount) = tool("umount") {
            // Says so if there is nothing to unmount.
            let _ = crate::oracle::run_bounded(Command::new(umount).arg(&self.data), PATIENCE);
        }
    }
}
