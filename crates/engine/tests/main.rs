//! The engine on real files: golden deltas, cancellation, inputs that change.
#![allow(missing_docs)]

mod cancelled;
mod changed;
mod described;
mod golden;
mod place;
