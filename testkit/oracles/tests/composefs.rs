//! composefs pulls the artifacts that we make, into a repository that has the old image.

use std::path::Path;

use coracle_codec::tardiff::Version;
use coracle_oracles::{Pulled, composefs_pull};
use coracle_testkit::image::{binary, mutate, text};
use coracle_testkit::oci::{Bundle, Compression, digest, image};
use coracle_testkit::tar_builder::TarBuilder;

use crate::artifacts::create;

/// composefs takes images for the machine's own platform only.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Old layers, new layers: one stays, one changes, one is hardly smaller as a delta. Among the old files is one of two
/// names, one behind a link, one that composefs leaves out because it lies below `run`, one whose name is no text, one
/// that a whiteout removes, and one so short that composefs keeps it with the names.
fn layers() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let stays = TarBuilder::new()
        .dir("etc")
        .file("etc/stays", text(1, 50_000))
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .finish();
    let (program, library) = (binary(2, 200_000), binary(7, 100_000));
    let old = TarBuilder::new()
        .dir("run")
        .dir("sysroot")
        .dir("sysroot/ostree")
        .file_mode("usr/program", 0o755, program.clone())
        .hardlink("usr/alias", "usr/program")
        .file("usr/lib/library", library.clone())
        .file("run/here", text(3, 20_000))
        .file("sysroot/ostree/deploy", text(4, 20_000))
        .file(b"usr/\xff\xfe".as_slice(), text(5, 20_000))
        .file("usr/gone", text(6, 10_000))
        .file("usr/short", text(8, 60))
        .finish();
    let top = TarBuilder::new().file("usr/.wh.gone", "").finish();
    let new = TarBuilder::new()
        .file_mode("usr/program", 0o755, mutate(&program, 9, 20))
        .file("usr/lib/library", mutate(&library, 10, 5))
        .file("usr/now-here", text(3, 20_000))
        .file("usr/now-there", text(4, 20_000))
        .file("usr/named", text(5, 20_000))
        .file("usr/back", text(6, 10_000))
        .file("usr/short", text(8, 60))
        .finish();
    let empty = TarBuilder::new().finish();
    (vec![stays.clone(), old, top], vec![stays, new, empty])
}

fn put(dir: &Path, layers: &[Vec<u8>], compression: Compression) -> Bundle {
    let bundle = image(architecture(), layers, compression).unwrap();
    bundle.write_layout(dir, "x").unwrap();
    bundle
}

#[test]
fn composefs_pulls_what_we_make() {
    let (old, new) = layers();
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let layout = |folder: &str| format!("oci:{}", dir.join(folder).display());
        put(&dir.join("old"), &old, compression);
        let target = put(&dir.join("new"), &new, compression);
        let whole = composefs_pull(&dir.join("whole"), &[&layout("new")]).unwrap();
        assert_eq!(whole.manifest_digest, target.digest());
        for (version, transport) in [(Version::V1, "oci"), (Version::V2, "oci"), (Version::V2, "oci-archive")]
        {
            let what = format!("{compression:?} {version:?} {transport}");
            let delta = format!("{transport}:{}", dir.join(format!("{transport}{version:?}")).display());
            create(dir, architecture(), &delta, version);
            let by_delta = dir.join(format!("by-{transport}{version:?}"));
            let pulled = composefs_pull(&by_delta, &[&layout("old"), &delta])
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let config = target.blobs.last().unwrap();
            let expected = Pulled {
                manifest_digest: target.digest(),
                config_digest: digest(config),
                manifest: target.root.1.clone(),
                config: config.clone(),
                layers: new.clone(),
                mounted: whole.mounted.clone(),
                present: 1,
            };
            assert!(pulled == expected, "{what}: {} {}", pulled.manifest_digest, pulled.mounted);
        }
    }
}

#[test]
fn composefs_wants_the_old_image() {
    let (old, new) = layers();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    put(&dir.join("new"), &new, Compression::Gzip);
    let source = put(&dir.join("old"), &old, Compression::Gzip);
    let delta = format!("oci:{}", dir.join("delta").display());
    create(dir, architecture(), &delta, Version::V1);
    let refusal = composefs_pull(&dir.join("empty"), &[&delta]).unwrap_err();
    assert!(refusal.contains(&digest(source.blobs.last().unwrap())), "{refusal}");
    assert!(refusal.contains("not present in the repository"), "{refusal}");
}
