//! Delta artifacts: golden ones of other programs, our own through every place, and lists that several write at once.

mod contended;
mod golden;
pub mod journey;
mod kept;
