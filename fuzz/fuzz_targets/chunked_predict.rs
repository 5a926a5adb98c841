//! Fuzzes the prediction of headers from an old tar; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::chunked_predict(data));
