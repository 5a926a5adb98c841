//! Tests of the store as others use it.
#![allow(missing_docs)]

mod crowd;
mod damage;
mod keeping;
mod round_trip;
mod shop;
