//! What a header says besides the fields of an [`Entry`](super::Entry): for documents that repeat it.

use std::collections::BTreeMap;

use super::block::{Block, Layout, number, text};
use super::pax::{self, Records};

/// Keyword prefix of extended attributes in PAX headers, as star and all container tools write it.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// A time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Seconds since 1970-01-01 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds above them, below 1,000,000,000.
    pub nanos: u32,
}

/// What a header says besides an [`Entry`](super::Entry).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Modification time.
    pub mtime: Time,
    /// Time of the last access, if it is there.
    pub atime: Option<Time>,
    /// Time of the last change, if it is there.
    pub ctime: Option<Time>,
    /// Major and minor number; 0 but for devices.
    pub device: (i64, i64),
    /// Name of the owner.
    pub user_name: Vec<u8>,
    /// Name of the group.
    pub group_name: Vec<u8>,
    /// Extended attributes by their names.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Details {
    pub(super) fn new(
        header: &Block,
        layout: Layout,
        records: &Records,
        mtime: i64,
    ) -> Result<Self, &'static str> {
        let mut details = Details { mtime: Time { seconds: mtime, nanos: 0 }, ..Details::default() };
        let whole = |seconds| Time { seconds, nanos: 0 };
        if layout != Layout::V7 {
            details.user_name = text(&header[265..297]).to_vec();
            details.group_name = text(&header[297..329]).to_vec();
            details.device = (number(&header[329..337])?, number(&header[337..345])?);
        }
        match layout {
            Layout::Star => {
                details.atime = Some(whole(number(&header[476..488])?));
                details.ctime = Some(whole(number(&header[488..500])?));
            }
            Layout::Gnu => {
                let times = [&header[345..357], &header[357..369]];
                let read = times.map(|field| match field[0] {
                    0 => Ok(None),
                    _ => number(field).map(|seconds| Some(whole(seconds))),
                });
                // As for the prefix of a name: where one makes no sense there is neither.
                if let [Ok(atime), Ok(ctime)] = read {
                    (details.atime, details.ctime) = (atime, ctime);
                }
            }
            Layout::V7 | Layout::Ustar => {}
        }
        for (key, value) in records {
            if let Some(name) = key.strip_prefix(XATTR) {
                details.xattrs.insert(name.to_vec(), value.clone());
            }
            if value.is_empty() {
                continue;
            }
            let time = || {
                let (seconds, nanos) = pax::time(value).ok_or("malformed number in a PAX header")?;
                Ok::<Time, &'static str>(Time { seconds, nanos })
            };
            match key.as_slice() {
                b"mtime" => details.mtime = time()?,
                b"atime" => details.atime = Some(time()?),
                b"ctime" => details.ctime = Some(time()?),
                b"uname" => details.user_name.clone_from(value),
                b"gname" => details.group_name.clone_from(value),
                _ => {}
            }
        }
        Ok(details)
    }
}
