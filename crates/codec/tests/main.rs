//! Tests of the codec crate on golden data and against reference programs.
#![allow(missing_docs)]

mod chunked;
mod golden_chunked;
mod golden_deflate;
mod golden_exec;
mod golden_kernel;
mod golden_native;
mod golden_oci;
mod golden_packed;
mod golden_rpm;
mod golden_tar;
mod golden_tardiff;
mod golden_trust;
mod native;
mod predict;
mod round_trip;
mod rsync;
mod sources;
