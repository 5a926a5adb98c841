//! Which files of an image go into a tree, and where contents may be besides.

use std::path::PathBuf;

use clap::Args;
use coracle_engine::subset::{Patterns, Selection, SelectionError};

/// Of `coracle pull` and `coracle copy`.
#[derive(Debug, Args)]
pub struct SubsetOptions {
    /// Into a tree (rootfs:DIR) only files that match, and what is below folders that do; * and ? stop at slashes, ** does not
    /// (may be repeated) [default: as the tree was made]
    #[arg(long, value_name = "GLOB")]
    pub only: Vec<String>,
    /// Into a tree (rootfs:DIR) no files that match, and nothing below folders that do (may be repeated) [default: as the tree
    /// was made]
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// All files, although only some are in the tree now
    #[arg(long, conflicts_with_all = ["only", "exclude"])]
    pub all_files: bool,
}

impl SubsetOptions {
    /// What was asked for; `None` if nothing was.
    pub fn selection(&self) -> Result<Option<Selection>, SelectionError> {
        if self.all_files {
            return Ok(Some(Selection::everything()));
        }
        let patterns = Patterns { only: self.only.clone(), exclude: self.exclude.clone() };
        let selection = Selection::new(&patterns)?;
        Ok((!selection.is_everything()).then_some(selection))
    }
}

/// Of `coracle pull`.
#[derive(Debug, Args)]
pub struct Dedupe {
    /// A folder of this machine, such as /: files in it that all may read, and that are what a chunked layer has under the same
    /// name, are not fetched. What is asked for tells the registry which these are (may be repeated)
    #[arg(long, value_name = "PATH")]
    pub dedupe_from: Vec<PathBuf>,
}
