//! The client against registries: one in memory and the real docker-registry, both behind a server that can spoil any
//! answer.
#![allow(missing_docs)]
#![expect(clippy::print_stdout, reason = "shown when a test fails, or with --nocapture")]

mod place;

mod auth;
mod faults;
mod mirrors;
mod protocol;
mod pushes;
mod referrers;
mod tls;
