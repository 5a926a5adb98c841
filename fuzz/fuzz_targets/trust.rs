//! Fuzzes the readers of policies, keys and signatures; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::trust(data));
