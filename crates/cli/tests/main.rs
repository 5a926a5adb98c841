//! The built command on real files. What the pieces do is tested where they are; here is what a user sees: exit codes,
//! messages, output that is there or not.
#![allow(missing_docs)]
#![expect(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]

mod place;

mod archives;
mod damaged;
mod disk;
mod hostile;
mod images;
mod json;
mod long;
mod native;
mod options;
mod outputs;
mod signals;
mod upstream;
mod usage;
