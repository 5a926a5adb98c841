//! Tests of the store as others use it.
#![allow(missing_docs)]
#![expect(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]

mod crowd;
mod damage;
mod keeping;
mod round_trip;
mod shop;
