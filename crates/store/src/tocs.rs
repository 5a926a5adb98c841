//! Which layer a table of contents is known to make: pairs of digests that were verified
//! (`docs/formats/store.md`, section 2.3).

use std::fs::{self, File};
use std::io::{self, Read};

use coracle_codec::digest::Digest;

use crate::error::Error;
use crate::lease::Lease;
use crate::store::{Store, publish};

/// Bytes of a pair: a digest as text, and the end of the line.
const PAIR: u64 = 72;

impl Store {
    /// The diff_id of the layer that a table of contents was seen to make, and that is here. A pair that is damaged is
    /// none: it can be made again.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn made_of_toc(&self, toc: &Digest) -> Result<Option<Digest>, Error> {
        let path = self.layout().toc(toc);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut text = String::new();
        match file.take(PAIR + 1).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
        let pair: Option<Digest> = text.strip_suffix('\n').and_then(|line| line.parse().ok());
        Ok(pair.filter(|diff_id| self.has_layer(diff_id)))
    }
}

impl Lease {
    /// Remembers that the tar put together from a table of contents had this diff_id.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn remember_toc(&self, toc: &Digest, diff_id: &Digest) -> Result<(), Error> {
        let store = self.store();
        if store.made_of_toc(toc)? == Some(*diff_id) {
            return Ok(());
        }
        let (folder, path) = (store.layout().tocs(), store.layout().toc(toc));
        let _shared = store.share()?;
        fs::create_dir_all(&folder).map_err(Error::io("make", &folder))?;
        publish(&path, format!("{diff_id}\n").as_bytes())
    }
}
