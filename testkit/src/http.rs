//! A small HTTP/1.1 server whose answers can be spoiled in every way that networks and registries know.
//!
//! What is answered comes from a [`Service`]; what goes wrong comes from [`Faults`] and does not depend on it. So the
//! same fault can be put before the registry double and before a real registry ([`crate::forward`]).

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A request, its body read in full.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, ...
    pub method: String,
    /// Path without query, not decoded.
    pub path: String,
    /// Query without `?`, not decoded.
    pub query: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// Whether the body is shorter than announced: the client went away.
    pub cut: bool,
}

impl Request {
    /// The first header of that name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The decoded value of a query parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key == name).then(|| decode(value))
        })
    }
}

/// `%XX` and `+` decoded.
pub fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
                let hex = std::str::from_utf8(&hex).unwrap_or("00");
                out.push(u8::from_str_radix(hex, 16).unwrap_or(b'?'));
            }
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers; `Content-Length` is added unless it is here.
    pub headers: Vec<(String, String)>,
    /// The body. Not sent for HEAD, but counted.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without a body.
    pub fn new(status: u16) -> Self {
        Answer { status, ..Answer::default() }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What answers.
pub trait Service: Send + Sync + 'static {
    /// The answer to one request.
    fn answer(&self, request: &Request) -> Answer;
}

/// What goes wrong with the next answer that fits.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection is closed after this many bytes of the body, with the right `Content-Length` before.
    Cut(usize),
    /// The connection is closed before anything is answered.
    Refuse,
    /// This status instead, with these headers.
    Status(u16, Vec<(String, String)>),
    /// One bit of the body is another.
    Flip,
    /// The body is this many bytes longer than it should be, and says so.
    Longer(usize),
    /// `Content-Length` says this many bytes more than the body has.
    LieMore(usize),
    /// The body comes this slowly: bytes at a time, and the pause between.
    Slow(usize, Duration),
    /// Ranges are ignored: 200 and everything.
    IgnoreRange,
    /// A part from another place than was asked for.
    WrongPart,
    /// Nothing comes at all for this long.
    Silent(Duration),
    /// Of the request's body only this many bytes are read, then the connection is closed.
    CutRequest(usize),
    /// A redirect to this URL with the request's path and query behind it.
    Redirect(String),
    /// The request is answered as it should be, but the answer gets lost.
    LoseAnswer,
}

/// One rule: what it is for, and how often.
#[derive(Debug, Clone)]
struct Rule {
    method: String,
    part: String,
    fault: Fault,
    left: usize,
}

/// What goes wrong, and what was asked.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<VecDeque<Rule>>,
    log: Mutex<Vec<Request>>,
    answers: Mutex<Vec<(Request, u16, u64)>>,
    sent: AtomicU64,
}

impl Faults {
    /// Spoils the next `times` answers to requests with this method whose path and query contain `part`.
    pub fn add(&self, method: &str, part: &str, fault: Fault, times: usize) {
        locked(&self.rules).push_back(Rule {
            method: method.to_owned(),
            part: part.to_owned(),
            fault,
            left: times,
        });
    }

    /// Removes all rules; `true` if every one was used up.
    pub fn clear(&self) -> bool {
        let mut rules = locked(&self.rules);
        let used = rules.iter().all(|rule| rule.left == 0 || rule.left > 1_000_000);
        rules.clear();
        used
    }

    /// All requests so far, without bodies.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.log).clone()
    }

    /// The requests that were answered so far, with the status and the length of the body.
    pub fn answers(&self) -> Vec<(Request, u16, u64)> {
        locked(&self.answers).clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        locked(&self.log).clear();
        locked(&self.answers).clear();
        self.sent.store(0, Ordering::SeqCst);
    }

    /// How many requests had this method and contained `part` in path and query.
    pub fn count(&self, method: &str, part: &str) -> usize {
        self.requests().iter().filter(|r| r.method == method && whole(r).contains(part)).count()
    }

    /// Bytes of bodies that were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    fn take(&self, method: &str, target: &str) -> Option<Fault> {
        let mut rules = locked(&self.rules);
        let rule = rules
            .iter_mut()
            .find(|rule| rule.left > 0 && rule.method == method && target.contains(&rule.part))?;
        rule.left -= 1;
        Some(rule.fault.clone())
    }
}

fn whole(request: &Request) -> String {
    format!("{}?{}", request.path, request.query)
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server on a port of its own of 127.0.0.1. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    faults: Arc<Faults>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    listener: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves `service`.
    ///
    /// # Errors
    /// There is no free port.
    pub fn start(service: Arc<dyn Service>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let faults = Arc::new(Faults::default());
        let stop = Arc::new(AtomicBool::new(false));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let handle = {
            let (faults, stop, open) = (Arc::clone(&faults), Arc::clone(&stop), Arc::clone(&open));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    if let Ok(copy) = stream.try_clone() {
                        locked(&open).push(copy);
                    }
                    let (service, faults) = (Arc::clone(&service), Arc::clone(&faults));
                    thread::spawn(move || {
                        // A client that goes away is what many tests are about.
                        let _ = serve(&stream, service.as_ref(), &faults);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
            })
        };
        Ok(Server { address, faults, stop, open, listener: Some(handle) })
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// What goes wrong.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for stream in locked(&self.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(stream: &TcpStream, service: &dyn Service, faults: &Faults) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BufReader::with_capacity(64 << 10, stream.try_clone()?);
    let mut output = stream.try_clone()?;
    while let Some(mut request) = read_head(&mut input)? {
        let fault = faults.take(&request.method, &whole(&request));
        let asked = request.clone();
        locked(&faults.log).push(asked.clone());
        if let Some(Fault::CutRequest(n)) = fault {
            let mut some = vec![0; n];
            input.read_exact(&mut some)?;
            request.body = some;
            request.cut = true;
            service.answer(&request);
            return Ok(());
        }
        if matches!(fault, Some(Fault::Refuse)) {
            return Ok(());
        }
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        read_body(&mut input, &mut request)?;
        if matches!(fault, Some(Fault::IgnoreRange)) {
            request.headers.retain(|(name, _)| name != "range");
        }
        let answer = match &fault {
            Some(Fault::Status(status, headers)) => Answer {
                status: *status,
                headers: headers.clone(),
                body: br#"{"errors":[{"code":"TEST","message":"as told"}]}"#.to_vec(),
            },
            Some(Fault::Redirect(to)) => {
                let query =
                    if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
                Answer::new(307).header("Location", format!("{to}{}{query}", request.path))
            }
            _ => service.answer(&request),
        };
        if matches!(fault, Some(Fault::LoseAnswer)) {
            return Ok(());
        }
        if request.cut {
            return Ok(());
        }
        locked(&faults.answers).push((asked, answer.status, answer.body.len() as u64));
        if !write_answer(&mut output, &request, answer, fault.as_ref(), faults)? {
            return Ok(());
        }
        if request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

/// The request line and headers; `None` at the end of the connection.
pub(crate) fn read_head(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = read_line(input)? else { return Ok(None) };
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    Ok(Some(Request { method, path, query, headers: read_headers(input)?, body: Vec::new(), cut: false }))
}

pub(crate) fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if input.take(64 << 10).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end().to_owned()))
}

pub(crate) fn read_headers(input: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    while let Some(line) = read_line(input)?.filter(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    Ok(headers)
}

fn read_body(input: &mut impl BufRead, request: &mut Request) -> io::Result<()> {
    let chunked = request.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    if chunked {
        request.body = read_chunked(input)?;
        return Ok(());
    }
    let length: u64 = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let read = input.take(length).read_to_end(&mut request.body);
    request.cut = read.map_or(true, |read| (read as u64) < length);
    Ok(())
}

pub(crate) fn read_chunked(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(input)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let end = body.len() as u64 + size;
        input.take(size).read_to_end(&mut body)?;
        if (body.len() as u64) < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if size == 0 {
            read_headers(input)?;
            return Ok(body);
        }
        read_line(input)?;
    }
}

/// Writes an answer; `false` if the connection is to be closed.
fn write_answer(
    output: &mut TcpStream,
    request: &Request,
    mut answer: Answer,
    fault: Option<&Fault>,
    faults: &Faults,
) -> io::Result<bool> {
    let mut announced = None;
    match fault {
        Some(Fault::Flip) if !answer.body.is_empty() => {
            let at = answer.body.len() / 2;
            answer.body[at] ^= 1;
        }
        Some(Fault::Longer(n)) => answer.body.extend(std::iter::repeat_n(b'!', *n)),
        Some(Fault::LieMore(n)) => announced = Some(answer.body.len() + n),
        Some(Fault::Silent(time)) => thread::sleep(*time),
        Some(Fault::WrongPart) => {
            for (name, value) in &mut answer.headers {
                if name.eq_ignore_ascii_case("content-range") {
                    *value = format!("bytes 0-{}/{}", answer.body.len().max(1) - 1, answer.body.len().max(1));
                }
            }
        }
        _ => {}
    }
    let mut head = format!("HTTP/1.1 {} X\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.get("content-length").is_none() && answer.status != 204 && answer.status != 304 {
        head.push_str(&format!("Content-Length: {}\r\n", announced.unwrap_or(answer.body.len())));
    }
    head.push_str("\r\n");
    output.write_all(head.as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    match fault {
        Some(Fault::Cut(at)) => {
            let body = &answer.body[..answer.body.len().min(*at)];
            faults.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
            output.write_all(body)?;
            return Ok(false);
        }
        Some(Fault::Slow(bytes, pause)) => {
            for piece in answer.body.chunks(*bytes) {
                faults.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
                output.write_all(piece)?;
                thread::sleep(*pause);
            }
        }
        _ => {
            // Before, since a client that has it all may look at once.
            faults.sent.fetch_add(answer.body.len() as u64, Ordering::SeqCst);
            output.write_all(&answer.body)?;
        }
    }
    // A connection after a lie is of no use.
    Ok(announced.is_none())
}
