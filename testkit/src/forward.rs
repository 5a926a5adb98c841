//! A server that hands every request on to another one, so that faults can be put before a real registry.

use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::Duration;

use crate::http::{Answer, Request, Service, locked, read_chunked, read_headers, read_line};

/// How long the server behind may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hands requests on to `host:port`, over plain HTTP.
#[derive(Debug)]
pub struct Forward {
    to: Mutex<String>,
}

impl Forward {
    /// Hands on to `host`.
    pub fn new(host: &str) -> Self {
        Forward { to: Mutex::new(host.to_owned()) }
    }

    fn exchange(&self, request: &Request) -> io::Result<Answer> {
        let host = locked(&self.to).clone();
        let mut stream = TcpStream::connect(&host)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        let mut head = format!("{} {}{query} HTTP/1.1\r\n", request.method, request.path);
        for (name, value) in &request.headers {
            if !["connection", "transfer-encoding", "content-length", "expect"].contains(&name.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        // The length of the whole, even if a part is all that came.
        let announced =
            request.header("content-length").map_or_else(|| request.body.len().to_string(), str::to_owned);
        let length = if request.cut { announced } else { request.body.len().to_string() };
        head.push_str(&format!("content-length: {length}\r\nconnection: close\r\n\r\n"));
        stream.write_all(head.as_bytes())?;
        // A server may answer, and close, before it has read everything.
        let written = stream.write_all(&request.body);
        if request.cut {
            return Ok(Answer::new(500));
        }
        let mut input = BufReader::new(stream);
        let first = read_line(&mut input)?
            .ok_or_else(|| written.err().unwrap_or(io::ErrorKind::BrokenPipe.into()))?;
        let status =
            first.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let mut headers = read_headers(&mut input)?;
        let get = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let mut body = Vec::new();
        if request.method != "HEAD" && status != 204 && status != 304 {
            if get("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
                body = read_chunked(&mut input)?;
            } else {
                let length = get("content-length").and_then(|value| value.parse().ok()).unwrap_or(u64::MAX);
                input.take(length).read_to_end(&mut body)?;
            }
        }
        let keep_length = request.method == "HEAD";
        headers.retain(|(name, _)| {
            !["connection", "transfer-encoding"].contains(&name.as_str())
                && (keep_length || name != "content-length")
        });
        Ok(Answer { status, headers, body })
    }
}

impl Service for Forward {
    fn answer(&self, request: &Request) -> Answer {
        self.exchange(request).unwrap_or_else(|error| Answer::new(502).body(error.to_string()))
    }
}
