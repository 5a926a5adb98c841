//! Tests of the store as others use it.
#![allow(missing_docs)]

mod round_trip;
