//! Fuzzes the readers of chunked layers; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::chunked_parse(data));
