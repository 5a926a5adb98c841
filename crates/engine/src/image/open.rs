//! From a name to a place.

use std::path::PathBuf;
use std::sync::Arc;

use coracle_codec::compress;
use coracle_codec::oci::{Limits, Platform};
use coracle_registry::Client;
use tokio::runtime::Handle;

use super::archive::TarFiles;
use super::daemon::{self, DaemonDestination, Engine};
use super::dir::{DirDestination, DirSource};
use super::docker_archive::{DockerDestination, DockerSource};
use super::layout::{LayoutDestination, LayoutSource};
use super::oci_archive::{ArchiveDestination, ArchiveSource};
use super::registry::{RegistryDestination, RegistrySource, Wire};
use super::rootfs::{self, RootfsDestination, RootfsSource, Sharing};
use super::stop::Stop;
use super::storage::{StorageDestination, StorageSource};
use super::store::{Place, StoreDestination, StoreSource};
use super::{Destination, ImageName, Source, Transport};
use crate::subset::Selection;
use crate::trust::Trust;
use crate::{Context, Error};

/// What work on images needs from its caller besides a [`Context`].
#[derive(Debug, Clone)]
pub struct Environment {
    /// The client for `docker://`.
    pub client: Client,
    /// What its calls run on. Must not be the thread that calls.
    pub runtime: Handle,
    /// Socket of the Docker engine.
    pub docker_socket: PathBuf,
    /// What images are chosen for, where one has to be chosen.
    pub host: Platform,
    /// The store of this machine; made when something is put there.
    pub store: PathBuf,
    /// How files of the store become files of a tree.
    pub sharing: Sharing,
    /// What of an image goes into a tree of files; by default what the tree that is there has of its image.
    pub selection: Option<Selection>,
    /// Seconds since 1970-01-01 UTC.
    pub now: u64,
    /// What images are accepted.
    pub trust: Trust,
    /// Bounds for documents.
    pub limits: Limits,
    /// Bounds for compressed layers and archives.
    pub archive_limits: compress::Limits,
}

impl Environment {
    pub(crate) fn source(
        &self,
        name: &ImageName,
        stop: &Stop,
        context: &Context<'_>,
    ) -> Result<Arc<dyn Source>, Error> {
        let (text, limits) = (name.to_string(), self.limits);
        Ok(match name.transport() {
            Transport::Registry(reference) => Arc::new(RegistrySource {
                name: text,
                wire: self.wire(stop),
                reference: reference.clone(),
                limits,
                hosts: std::sync::Mutex::default(),
            }),
            Transport::Layout { path, image } => {
                Arc::new(LayoutSource { name: text, path: path.clone(), image: image.clone(), limits })
            }
            Transport::OciArchive { path, image } => Arc::new(ArchiveSource {
                name: text,
                image: image.clone(),
                files: TarFiles::open(path, self.archive_limits, context)?,
                limits,
            }),
            Transport::DockerArchive { path, image } => {
                let files = TarFiles::open(path, self.archive_limits, context)?;
                Arc::new(DockerSource::open(&text, files, image.as_ref(), &limits)?)
            }
            Transport::Dir(path) => Arc::new(DirSource { name: text, path: path.clone(), limits }),
            Transport::Rootfs(path) => {
                Arc::new(RootfsSource::open(&text, path, &self.host, &limits, context)?)
            }
            Transport::Daemon(image) => {
                Arc::new(daemon::open(&text, image, &self.engine(stop), &limits, context)?)
            }
            Transport::Storage(_) => Arc::new(StorageSource::open(&text, &limits, stop, context)?),
            Transport::Store(reference) => {
                Arc::new(StoreSource::open(&text, reference, &self.store, &self.host, &limits)?)
            }
        })
    }

    pub(crate) fn destination(
        &self,
        name: &ImageName,
        stop: &Stop,
        context: &Context<'_>,
    ) -> Result<Box<dyn Destination>, Error> {
        let text = name.to_string();
        Ok(match name.transport() {
            Transport::Registry(reference) => Box::new(RegistryDestination {
                name: text,
                wire: self.wire(stop),
                reference: reference.clone(),
            }),
            Transport::Layout { path, image } => {
                Box::new(LayoutDestination::create(&text, path, image.as_deref())?)
            }
            Transport::OciArchive { path, image } => {
                Box::new(ArchiveDestination::create(&text, path, image.as_deref(), context)?)
            }
            Transport::DockerArchive { path, image } => Box::new(DockerDestination::create(
                &text,
                path,
                image.as_ref(),
                self.archive_limits,
                context,
            )?),
            Transport::Dir(path) => Box::new(DirDestination::create(&text, path)?),
            Transport::Rootfs(path) => {
                let (limits, archive_limits, sharing) = (self.limits, self.archive_limits, self.sharing);
                let selection = self.selection.as_ref();
                let place = rootfs::Place { selection, path, limits, archive_limits, sharing };
                Box::new(RootfsDestination::create(&text, &place)?)
            }
            Transport::Daemon(image) => {
                let engine = self.engine(stop);
                Box::new(DaemonDestination::create(&text, image, &engine, self.archive_limits, context)?)
            }
            Transport::Storage(_) => Box::new(StorageDestination::create(&text, stop, context)?),
            Transport::Store(reference) => {
                let place = Place {
                    path: &self.store,
                    limits: self.limits,
                    archive_limits: self.archive_limits,
                    now: self.now,
                };
                Box::new(StoreDestination::create(&text, reference, &place, stop)?)
            }
        })
    }

    pub(crate) fn wire(&self, stop: &Stop) -> Wire {
        Wire { client: self.client.clone(), runtime: self.runtime.clone(), stop: stop.clone() }
    }

    fn engine(&self, stop: &Stop) -> Engine {
        Engine { socket: self.docker_socket.clone(), runtime: self.runtime.clone(), stop: stop.clone() }
    }
}
