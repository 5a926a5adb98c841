//! Layers of an image in a registry that are in the store of this machine.

use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError};

use coracle_codec::chunked::{Limits, Place};
use coracle_codec::digest::{Digest, Hashing};
use coracle_codec::oci::Descriptor;
use coracle_store::{Layer, Lease, Store};

use crate::Error;
use crate::image::Environment;
use crate::image::copy::in_parallel;
use crate::image::stop::Stop;

/// What the store has of some layers.
#[derive(Debug, Default)]
pub(super) struct Here {
    /// Each layer, if it is there and has its diff_id.
    layers: Vec<Option<Layer>>,
    /// Keeps them while they are read.
    _lease: Option<Lease>,
}

impl Here {
    /// The layer of this number, if it is here.
    pub(super) fn layer(&self, number: usize) -> Option<&Layer> {
        self.layers.get(number)?.as_ref()
    }

    /// Looks for layers, with their blobs, and hashes those that are there. A store or a layer that cannot be read is no
    /// reason to fail: what is not here is fetched.
    ///
    /// # Errors
    /// It was stopped.
    pub(super) fn find(
        diff_ids: &[Digest],
        blobs: &[Descriptor],
        jobs: usize,
        environment: &Environment,
        stop: &Stop,
    ) -> Result<Here, Error> {
        let nothing = Here { layers: vec![None; diff_ids.len()], _lease: None };
        let Ok(store) = Store::open(&environment.store) else { return Ok(nothing) };
        if !diff_ids.iter().any(|diff_id| store.has_layer(diff_id)) {
            return Ok(nothing);
        }
        let Ok(lease) = store.lease() else { return Ok(nothing) };
        let layers = Mutex::new(nothing.layers);
        let numbers: Vec<usize> = (0..diff_ids.len()).collect();
        in_parallel(&numbers, jobs, stop, |&number| {
            let diff_id = &diff_ids[number];
            // A config that is wrong about a blob does not decide what is in it.
            let place = blobs.get(number).and_then(|blob| Place::of(blob, &Limits::default()).ok().flatten());
            let made = place.and_then(|place| store.made_of_toc(&place.digest).ok().flatten());
            if made.is_some_and(|made| made != *diff_id) {
                return Ok(());
            }
            if lease.keep_layer(diff_id).unwrap_or(false)
                && let Ok(Some(layer)) = store.layer(diff_id)
                && hashed(&layer, stop).is_ok_and(|actual| actual == *diff_id)
            {
                layers.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(layer);
            }
            Ok(())
        })?;
        Ok(Here { layers: layers.into_inner().unwrap_or_else(PoisonError::into_inner), _lease: Some(lease) })
    }
}

/// The digest of the tar as it comes out of the store.
fn hashed(layer: &Layer, stop: &Stop) -> io::Result<Digest> {
    let (mut reader, mut out) = (layer.reader(), Hashing::new(io::sink()));
    let mut piece = vec![0; 1 << 17];
    loop {
        match reader.read(&mut piece)? {
            0 => return Ok(out.digest()),
            _ if stop.raised() => return Err(io::ErrorKind::Interrupted.into()),
            n => out.write_all(&piece[..n])?,
        }
    }
}
