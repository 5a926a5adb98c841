//! What the fuzz targets check.
//!
//! One function for each target. It takes any bytes and returns, or panics when a property of the reader under test
//! does not hold; that a reader does not panic itself is only the first of them. The functions build on stable Rust
//! and know nothing of libFuzzer, so that `tests/replay.rs` runs the stored inputs with plain `cargo test`. How to
//! fuzz, and where inputs come from, is in `fuzz/README.md`.
//!
//! | target | reader | judged by |
//! |---|---|---|
//! | [`tar_read`] | `tar::Reader`, `source::Tree`, `source::TarSource` | the bytes of the archive |
//! | [`compress_detect`] | `compress::decoder` | a second run over small pieces, and its bounds |
//! | [`chunked_parse`] | `chunked::Toc`, `chunked::TarSplit`, `chunked::Layer`, footers | its own sums; other bounds; writing footers again |
//! | [`chunked_predict`] | `chunked::Style` | the tar it was learned from; the reader of TOCs and tar-splits |
//! | [`oci_parse`] | `oci::Document`, `oci::ImageConfig`, `oci::Reference`, `oci::Platform` | a second run, other bounds, their own print |
//! | [`artifact_parse`] | `artifact::Artifact`, `artifact::Target`, `artifact::flatpak` | what is said twice in it, and writing it again |
//! | [`tardiff_parse`] | `tardiff::OpReader` | [`model::parse`] |
//! | [`tardiff_apply`] | `tardiff::apply` | [`model::apply`] |
//! | [`rpm_database`] | `rpm::packages` | a second run, other bounds |
//! | [`rsync()`] | `rsync::OpReader`, `rsync::apply`, `rsync::Signature` | writing it again, small pieces, both writers |
//! | [`native_head`] | `native::Head` | writing it again |
//! | [`native_apply`] | `native::apply` | the second decoder of the testkit |
//! | [`native_entropy`] | `native::entropy` | the second decoder, and encoding |
//! | [`native_members`] | `native::packed`, `native::deflate` | the second encoders, and other decoders |
//! | [`store_layer`] | `layer_file::LayerFile` of the store | its own sums, and its digest |
//! | [`native_references`] | `native::exec::references` | the second decoder |
//! | [`trust`] | `trust`: policies, keys, payloads, bundles, names | a key whose one signature is known |
//! | [`native_program`] | `native::apply`, with programs | the second decoder |
//! | [`native_tokens`] | `native::deflate::coded` | the second decoder |

mod artifact;
mod chunked;
mod compress;
mod frame;
pub mod model;
mod native;
mod oci;
mod pieces;
mod predict;
mod program;
mod rpm;
mod rsync;
mod store;
mod tar;
mod tardiff;
mod tokens;
pub mod tree;
mod trust;

pub use artifact::artifact_parse;
pub use chunked::chunked_parse;
pub use compress::compress_detect;
pub use frame::stored_frame;
pub use native::{native_apply, native_entropy, native_head, native_members, old_archive};
pub use oci::oci_parse;
pub use predict::chunked_predict;
pub use program::{native_program, native_references};
pub use rpm::rpm_database;
pub use rsync::rsync;
pub use store::store_layer;
pub use tar::tar_read;
pub use tardiff::{tardiff_apply, tardiff_parse};
pub use tokens::native_tokens;
pub use trust::trust;

/// A target: takes any bytes, panics when a property does not hold.
pub type Target = fn(&[u8]);

/// Every target by the name of its folder in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 19] = [
    ("tar_read", tar_read),
    ("compress_detect", compress_detect),
    ("chunked_parse", chunked_parse),
    ("chunked_predict", chunked_predict),
    ("oci_parse", oci_parse),
    ("artifact_parse", artifact_parse),
    ("tardiff_parse", tardiff_parse),
    ("tardiff_apply", tardiff_apply),
    ("rpm_database", rpm_database),
    ("rsync", rsync),
    ("native_head", native_head),
    ("native_apply", native_apply),
    ("native_entropy", native_entropy),
    ("native_members", native_members),
    ("store_layer", store_layer),
    ("native_references", native_references),
    ("native_program", native_program),
    ("trust", trust),
    ("native_tokens", native_tokens),
];
