//! Fuzzes the readers of image documents and names; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::oci_parse(data));
