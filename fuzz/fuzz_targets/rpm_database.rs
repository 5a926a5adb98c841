//! Fuzzes the readers of rpm's databases; what is checked is in the harness.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz_harness::rpm_database(data));
