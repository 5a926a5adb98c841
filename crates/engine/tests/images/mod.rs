//! Whole images: one suite for all transports, hostile images, and runs that are cut short.

mod conformance;
mod hostile;
mod resume;
pub mod site;
