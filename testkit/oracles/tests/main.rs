//! Other implementations judge: the golden deltas, and ours.
#![allow(missing_docs)]

mod artifacts;
mod chunked;
mod composefs;
mod golden;
mod written;
