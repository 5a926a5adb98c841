//! Fuzzes the readers and writers of librsync deltas; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::rsync(data));
