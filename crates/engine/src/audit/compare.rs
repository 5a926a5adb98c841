//! How two images differ, file by file.

use coracle_codec::digest::Digest;

use super::packages::{PackageChange, changes, packages};
use super::tree::Member;
use super::{FileKind, How, Request, counted, files};
use crate::image::Environment;
use crate::subset::Subset;
use crate::{Context, Error};

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added(Member),
    /// It is gone.
    Removed(Member),
    /// Its content, its type or what is said about it is another.
    Changed {
        /// As it was.
        old: Member,
        /// As it is.
        new: Member,
        /// Whether the content is another one.
        content: bool,
    },
}

/// How two images differ.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Digest of the old manifest.
    pub old: Digest,
    /// Digest of the new one.
    pub new: Digest,
    /// What the old one and the new one are parts of, if they are only parts of images.
    pub subsets: (Option<Subset>, Option<Subset>),
    /// Files that differ, in order of their paths.
    pub changes: Vec<Change>,
    /// Files that are the same.
    pub same: u64,
    /// Packages that differ.
    pub packages: Vec<PackageChange>,
    /// Packages of the old image and of the new one.
    pub package_counts: (u64, u64),
    /// What a user should know: databases that cannot be read.
    pub notes: Vec<String>,
    /// How layers were read.
    pub how: How,
}

/// Compares two images. Modification times do not count: they change whenever an image is built.
///
/// # Errors
/// See [`Error`].
pub fn compare(
    old: &Request,
    new: &Request,
    environment: &Environment,
    context: &Context<'_>,
) -> Result<Compared, Error> {
    let (compared, how) = counted(environment, context, |progress| {
        let old = files(old, true, environment, progress, context)?;
        let new = files(new, true, environment, progress, context)?;
        let mut how = old.how;
        how.stored += new.how.stored;
        how.ranged += new.how.ranged;
        how.whole += new.how.whole;
        let mut notes = Vec::new();
        let before = packages(&old, &mut notes)?;
        let mut notes: Vec<String> = notes.into_iter().map(|note| format!("old image: {note}")).collect();
        let mut of_new = Vec::new();
        let after = packages(&new, &mut of_new)?;
        notes.extend(of_new.into_iter().map(|note| format!("new image: {note}")));
        let mut compared = Compared {
            old: old.digest(),
            new: new.digest(),
            subsets: (old.subset(), new.subset()),
            changes: Vec::new(),
            same: 0,
            packages: changes(&before, &after),
            package_counts: (before.len() as u64, after.len() as u64),
            notes,
            how,
        };
        let (mut olds, mut news) = (old.tree.iter().peekable(), new.tree.iter().peekable());
        loop {
            let change = match (olds.peek(), news.peek()) {
                (None, None) => break,
                (Some((path, _)), Some((other, _))) if path == other => {
                    let (old, new) = (olds.next(), news.next());
                    let (Some((_, old)), Some((_, new))) = (old, new) else { break };
                    match differs(old, new) {
                        None => {
                            compared.same += 1;
                            continue;
                        }
                        Some(content) => Change::Changed { old: old.clone(), new: new.clone(), content },
                    }
                }
                (Some((path, _)), other) if other.is_none_or(|(other, _)| path < other) => {
                    let Some((_, member)) = olds.next() else { break };
                    Change::Removed(member.clone())
                }
                _ => {
                    let Some((_, member)) = news.next() else { break };
                    Change::Added(member.clone())
                }
            };
            compared.changes.push(change);
        }
        Ok((compared, how))
    })?;
    Ok(Compared { how, ..compared })
}

/// Whether two files differ, and if so whether it is in their contents.
fn differs(old: &Member, new: &Member) -> Option<bool> {
    let file = old.kind == FileKind::File && new.kind == FileKind::File;
    let content = old.kind != new.kind
        || old.link != new.link
        || (file && (old.size != new.size || old.digest.is_none() || old.digest != new.digest));
    let said = (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid);
    (content || said).then_some(content)
}
