//! The crate `oci-delta`, which bootc uses, reads the artifacts that we make and rebuilds their layers.

use std::num::NonZeroUsize;
use std::path::Path;

use coracle_codec::artifact::Dialect;
use coracle_codec::observe::Quiet;
use coracle_codec::oci::{Limits, Platform};
use coracle_codec::{compress, tardiff};
use coracle_engine::Context;
use coracle_engine::artifact::create::{Created, Request, To, run};
use coracle_engine::image::{Environment, Sharing};
use coracle_engine::trust::Trust;
use coracle_oracles::oci_delta_rebuild;
use coracle_registry::{Client, Settings};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, image};
use coracle_testkit::tar_builder::TarBuilder;
use coracle_testkit::tree::extract_layers;

/// Old layers, new layers: one stays, one changes, one is hardly smaller as a delta; names that some readers refuse.
fn layers() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let stays = TarBuilder::new().dir("etc").file("etc/stays", text(1, 50_000)).finish();
    let program = binary(2, 200_000);
    let old = TarBuilder::new()
        .file_mode("usr/program", 0o755, program.clone())
        .file("run/here", text(3, 20_000))
        .file("sysroot/ostree/deploy", text(4, 20_000))
        .file(b"usr/\xff\xfe".as_slice(), text(5, 20_000))
        .file("usr/gone", text(6, 10_000))
        .finish();
    let top = TarBuilder::new().file("usr/.wh.gone", "").finish();
    let new = TarBuilder::new()
        .file_mode("usr/program", 0o755, mutate(&program, 9, 20))
        .file("usr/now-here", text(3, 20_000))
        .file("usr/now-there", text(4, 20_000))
        .file("usr/named", text(5, 20_000))
        .file("usr/back", text(6, 10_000))
        .finish();
    let empty = TarBuilder::new().finish();
    (vec![stays.clone(), old, top], vec![stays, new, empty])
}

/// Makes a delta from the layout `old` to the layout `new` in `dir`, and puts it where `to` says.
pub(crate) fn create(dir: &Path, architecture: &str, to: &str, version: tardiff::Version) -> Created {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let environment = Environment {
        client: Client::new(Settings::default()),
        runtime: runtime.handle().clone(),
        docker_socket: dir.join("none"),
        host: Platform::new("linux", architecture, ""),
        limits: Limits::default(),
        archive_limits: compress::Limits::default(),
        store: "/nonexistent/store".into(),
        now: 0,
        sharing: Sharing::default(),
        trust: Trust::absent(),
        selection: None,
    };
    let name = |folder: &str| format!("oci:{}", dir.join(folder).display()).parse().unwrap();
    let request = Request {
        old: vec![name("old")],
        new: name("new"),
        platform: None,
        dialects: vec![Dialect::OciDelta],
        to: To::Image(to.parse().unwrap()),
        effort: Default::default(),
        version,
        memory: 1 << 28,
        threads: NonZeroUsize::new(2).unwrap(),
        any_mode: false,
        again: false,
        with_image: false,
        classic: false,
    };
    run(&request, &environment, &Context { observer: &Quiet, temp_dir: dir.to_owned() }).unwrap()
}

#[test]
fn oci_delta_rebuilds_what_we_make() {
    let (old, new) = layers();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        for version in [tardiff::Version::V1, tardiff::Version::V2] {
            let what = format!("{compression:?} {version:?}");
            let dir = tempfile::tempdir().unwrap();
            let put = |folder: &str, layers: &[Vec<u8>]| -> Bundle {
                let bundle = image("amd64", layers, compression).unwrap();
                bundle.write_layout(&dir.path().join(folder), "x").unwrap();
                bundle
            };
            let (old_image, new_image) = (put("old", &old), put("new", &new));
            let delta = format!("oci:{}", dir.path().join("delta").display());
            create(dir.path(), "amd64", &delta, version);
            // As an extracted image, with what some keep out of it left out.
            let tree = extract_layers(&old, true).unwrap();
            for gone in ["run", "sysroot"] {
                std::fs::remove_dir_all(tree.path().join(gone)).unwrap();
            }
            let rebuilt = oci_delta_rebuild(&dir.path().join("delta"), tree.path())
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(rebuilt.target, new_image.digest(), "{what}");
            let config = coracle_testkit::oci::digest(old_image.blobs.last().unwrap());
            assert_eq!(rebuilt.source_config, config, "{what}");
            assert!(rebuilt.layers[0].is_none(), "{what}");
            assert_eq!(rebuilt.layers[1].as_ref(), Some(&new[1]), "{what}");
            assert_eq!(rebuilt.layers[2].as_ref(), Some(&new[2]), "{what}");
        }
    }
}
