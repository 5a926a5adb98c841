//! The engine on real files: golden deltas, cancellation, inputs that change; and on whole images; pulls.
#![allow(missing_docs)]

mod artifacts;
mod cancelled;
mod changed;
mod described;
mod golden;
mod images;
mod place;
mod pulls;
mod trust;
