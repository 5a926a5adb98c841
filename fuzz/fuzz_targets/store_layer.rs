//! Fuzzes the reader of layer files; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::store_layer(data));
