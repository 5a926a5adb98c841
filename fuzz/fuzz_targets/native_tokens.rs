//! Fuzzes tokens of deflate streams in native deltas; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::native_tokens(data));
