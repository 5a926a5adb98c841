//! `docker-daemon:`: images of a Docker engine, through its HTTP API on a socket (Docker Engine API, "Export an image"
//! and "Import images"). What goes over it is an archive of docker save.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coracle_codec::compress;
use coracle_codec::oci::{Document, Limits, Reference};
use coracle_sys::spool::spool_file;
use reqwest::{Response, StatusCode};
use tokio::runtime::Handle;

use super::archive::TarFiles;
use super::blob::Blob;
use super::docker_archive::{DockerDestination, DockerSource};
use super::stop::Stop;
use super::{Destination, Outcome, Takes};
use crate::input::Archive;
use crate::{Context, Error};

/// Bytes of an answer that is no archive.
const MAX_ANSWER: usize = 1 << 20;

/// Where the engine is.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    pub(crate) socket: PathBuf,
    pub(crate) runtime: Handle,
    pub(crate) stop: Stop,
}

impl Engine {
    fn fail(&self, reason: impl std::fmt::Display) -> Error {
        Error::Service {
            name: format!("Docker engine at {}", self.socket.display()),
            reason: reason.to_string(),
        }
    }

    fn client(&self) -> Result<reqwest::Client, Error> {
        if !self.socket.exists() {
            return Err(self.fail("there is no such socket"));
        }
        reqwest::Client::builder()
            .unix_socket(self.socket.clone())
            .no_proxy()
            .connect_timeout(Duration::from_secs(10))
            .build()
            .map_err(|e| self.fail(told(&e)))
    }

    fn wait<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.wait() => Err(Error::Cancelled),
                result = call => result,
            }
        })
    }

    /// Fetches an image as an archive into a temporary file.
    fn export(&self, image: &str, shown: &str, context: &Context<'_>) -> Result<(File, u64), Error> {
        let client = self.client()?;
        let temporary = |error| Error::Temporary { dir: context.temp_dir.clone(), error };
        let mut file = spool_file(&context.temp_dir).map_err(temporary)?;
        let url = format!("http://docker/images/{image}/get");
        let len = self.wait(async {
            let mut answer = client.get(&url).send().await.map_err(|e| self.fail(told(&e)))?;
            if answer.status() == StatusCode::NOT_FOUND {
                let reason = message(answer).await;
                return Err(Error::NoSuchImage { image: shown.to_owned(), reason });
            }
            if !answer.status().is_success() {
                let status = answer.status();
                return Err(self.fail(format!("{status}: {}", message(answer).await)));
            }
            let mut len = 0;
            while let Some(piece) = answer.chunk().await.map_err(|e| self.fail(told(&e)))? {
                file.write_all(&piece).map_err(temporary)?;
                len += piece.len() as u64;
            }
            Ok(len)
        })?;
        file.seek(SeekFrom::Start(0)).map_err(temporary)?;
        Ok((file, len))
    }

    /// Gives the engine an archive.
    fn load(&self, file: File, len: u64) -> Result<(), Error> {
        let client = self.client()?;
        self.wait(async {
            let body = reqwest::Body::from(tokio::fs::File::from_std(file));
            let request = client
                .post("http://docker/images/load?quiet=1")
                .header("Content-Type", "application/x-tar")
                .header("Content-Length", len.to_string())
                .body(body);
            let answer = request.send().await.map_err(|e| self.fail(told(&e)))?;
            let status = answer.status();
            let text = message(answer).await;
            // A failure of loading comes as a line of an answer that began with 200.
            if !status.is_success() || text.contains("\"error\"") {
                return Err(self.fail(format!("{status}: {text}")));
            }
            Ok(())
        })
    }
}

async fn message(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_ANSWER {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let value: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let told = value.as_ref().and_then(|value| value["message"].as_str().map(str::to_owned));
    told.unwrap_or(text)
}

fn told(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// Opens an image of the engine for reading.
pub(crate) fn open(
    name: &str,
    image: &str,
    engine: &Engine,
    limits: &Limits,
    context: &Context<'_>,
) -> Result<DockerSource, Error> {
    let (file, len) = engine.export(image, name, context)?;
    let archive = Archive::of_file(Path::new(name), file, len);
    DockerSource::open(name, TarFiles::of(archive, context)?, None, limits)
}

/// An engine to write to: an archive in a temporary folder, which it loads at the end.
#[derive(Debug)]
pub(crate) struct DaemonDestination {
    inner: DockerDestination,
    engine: Engine,
    folder: super::storage::TempFolder,
}

impl DaemonDestination {
    pub(crate) fn create(
        name: &str,
        image: &str,
        engine: &Engine,
        limits: compress::Limits,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        // Better now than after everything was fetched.
        engine.client()?;
        let reference: Reference = image.parse().map_err(|e: coracle_codec::oci::ParseReferenceError| {
            Error::ImageName { text: name.to_owned(), reason: e.to_string() }
        })?;
        let folder = super::storage::TempFolder::create(&context.temp_dir)?;
        let inner = DockerDestination::create(
            name,
            &folder.path().join("image.tar"),
            Some(&reference),
            limits,
            context,
        )?;
        Ok(DaemonDestination { inner, engine: engine.clone(), folder })
    }
}

impl Destination for DaemonDestination {
    fn takes(&self) -> Takes {
        Takes {
            loses: Some("a Docker engine keeps no manifest; the config and so the image ID are kept"),
            ..self.inner.takes()
        }
    }

    fn put_blob(&self, blob: &Arc<Blob>) -> Result<Outcome, Error> {
        self.inner.put_blob(blob)
    }

    fn put_document(&self, document: &Document) -> Result<(), Error> {
        self.inner.put_document(document)
    }

    fn finish(self: Box<Self>, root: &Document) -> Result<Vec<String>, Error> {
        let path = self.folder.path().join("image.tar");
        Box::new(self.inner).finish(root)?;
        let fail = |error| Error::Open { path: path.clone(), error };
        let file = File::open(&path).map_err(fail)?;
        let len = file.metadata().map_err(fail)?.len();
        self.engine.load(file, len)?;
        Ok(Vec::new())
    }
}
