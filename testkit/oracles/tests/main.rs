//! Other implementations judge: the golden deltas, and ours.
#![allow(missing_docs)]

mod golden;
mod written;
