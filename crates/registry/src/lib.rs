//! A client of the OCI distribution protocol (distribution-spec 1.1), and of what registries make of it.
//!
//! It fetches and pushes manifests and blobs, lists tags and referrers, and finds out where and as whom:
//! registries.conf, certs.d, auth files and credential helpers. It knows no delta, no image store and no environment,
//! and does not judge signatures.
//!
//! What holds for every call:
//!
//! * **"Could not ask" is never "there is none".** `Ok(None)` and [`Error::NotFound`] mean that the registry said so.
//! * **Credentials stay with the host they are for.** Redirects are followed here, not by the HTTP library, and drop
//!   the `Authorization` header as soon as scheme, host or port changes. URLs inside manifests are never followed.
//! * **Bytes of a manifest are compared** with the digest asked for before anybody sees them. Blobs come as a stream of
//!   unverified bytes; whoever stores them compares ([`coracle_codec::oci::Verifier`]).
//! * **Everything is bounded**: attempts, waiting, redirects, pages, sizes.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | registries.conf, certs.d, auth files, credential helpers |
//! | `http` | one request: connection, TLS, redirects, authentication, retries |
//! | `token` | challenges and tokens |
//! | `blob` | streams that go on where they broke off; ranges |
//! | `push` | uploads, monolithic and chunked; mounts |
//! | `manifest`, `tags`, `referrers` | the rest of the protocol |

mod blob;
mod client;
pub mod config;
mod error;
mod http;
mod limiter;
mod manifest;
mod multipart;
mod push;
mod range;
mod referrers;
mod several;
mod tags;
mod token;

pub use blob::{BlobStream, RangeAnswer};
pub use client::{Client, Proxies, Retry, Settings, Traffic};
pub use error::Error;
pub use manifest::{Fetched, PushedManifest};
pub use push::{Content, PushOptions, Pushed};
pub use referrers::{Referrers, ReferrersSource, fallback_tag};
