//! What holds for every transport, as source and as destination.

use coracle_codec::observe::Quiet;
use coracle_engine::Context;
use coracle_engine::Error;
use coracle_engine::image::show::{Content, Image, run as show};
use coracle_testkit::oci::{Bundle, Compression, digest, image, index, layers};

use super::site::{Site, files};

/// A transport: where images go by number, and what it keeps.
struct Place {
    /// With `N` for the number.
    name: &'static str,
    /// The manifest and its digest.
    keeps: bool,
    /// Indexes.
    index: bool,
}

const PLACES: [Place; 8] = [
    Place { name: "docker://{double}/x/N:tag", keeps: true, index: true },
    Place { name: "docker://{real}/x/N:tag", keeps: true, index: true },
    Place { name: "oci:{}/layout-N:some/name:tag", keeps: true, index: true },
    Place { name: "oci-archive:{}/oci-N.tar:tag", keeps: true, index: true },
    Place { name: "dir:{}/dir-N", keeps: true, index: true },
    Place { name: "docker-archive:{}/docker-N.tar:x/y:N", keeps: false, index: false },
    Place { name: "docker-daemon:x/y:N", keeps: false, index: false },
    // What skopeo gives has a new manifest; what it gets is kept.
    Place {
        name: "containers-storage:[vfs@{}/storage+{}/storage-run]localhost/x:N",
        keeps: true,
        index: false,
    },
];

impl Place {
    fn at(&self, number: usize) -> String {
        self.name.replace('N', &format!("n{number}"))
    }

    fn is_storage(&self) -> bool {
        self.name.starts_with("containers-storage")
    }
}

fn shown(site: &Site, name: &str) -> (String, Image) {
    let context = Context { observer: &Quiet, temp_dir: site.path("tmp") };
    let shown = show(&site.name(name), None, &site.environment(), &context).unwrap();
    match shown.content {
        Content::Image(image) => (shown.digest.to_string(), *image),
        Content::Index { .. } => panic!("{name} is an index"),
    }
}

/// The same image in every way that counts: config, layers once they are decoded.
#[track_caller]
fn check_same(site: &Site, name: &str, want: &Bundle, number: usize) {
    let out = format!("oci:{{}}/check-{number}:x");
    let copied = site.copy(name, &out).unwrap();
    let (_, image) = shown(site, &out);
    let config: serde_json::Value = serde_json::from_slice(want.blobs.last().unwrap()).unwrap();
    let diff_ids: Vec<String> = image.diff_ids.iter().map(ToString::to_string).collect();
    assert_eq!(serde_json::json!(diff_ids), config["rootfs"]["diff_ids"], "{name}");
    assert_eq!(image.config.digest.to_string(), digest(want.blobs.last().unwrap()), "{name}");
    // Decoding compares each layer with its diff_id.
    let archive = format!("docker-archive:{{}}/check-{number}.tar:x:y");
    site.copy(&out, &archive).unwrap();
    std::fs::remove_file(site.path(&format!("check-{number}.tar"))).unwrap();
    assert_eq!(copied.images, 1);
}

/// From every transport to every other one.
#[test]
fn every_pair() {
    let site = Site::with_programs();
    let bundle = image("amd64", &layers(), Compression::Gzip).unwrap();
    let start = site.put("start", &bundle);
    let mut number = 0;
    for from in &PLACES {
        number += 1;
        let source = from.at(number);
        let put = site.copy(&start, &source).unwrap_or_else(|e| panic!("{source}: {e}"));
        assert_eq!(put.digest_kept, from.keeps, "{source}: {:?}", put.notes);
        assert_eq!(put.notes.is_empty(), from.keeps, "{source}: a loss is said: {:?}", put.notes);
        assert_eq!(put.source_digest.to_string(), bundle.digest());
        for to in &PLACES {
            number += 1;
            let destination = to.at(number);
            let copied =
                site.copy(&source, &destination).unwrap_or_else(|e| panic!("{source} -> {destination}: {e}"));
            let kept = from.keeps && !from.is_storage() && to.keeps;
            assert_eq!(copied.digest_kept, kept, "{source} -> {destination}: {:?}", copied.notes);
            assert_eq!(copied.notes.is_empty(), kept, "{source} -> {destination}: {:?}", copied.notes);
            if kept {
                assert_eq!(copied.digest.to_string(), bundle.digest(), "{source} -> {destination}");
            }
            check_same(&site, &destination, &bundle, number);
        }
    }
    assert_eq!(site.left(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn indexes_survive_bit_for_bit() {
    let site = Site::with_programs();
    let images = [
        ("amd64", image("amd64", &layers(), Compression::Gzip).unwrap()),
        ("arm64", image("arm64", &layers()[..1], Compression::Zstd).unwrap()),
    ];
    let bundle = index(&images);
    let start = site.put("start", &bundle);
    let mut number = 100;
    for from in PLACES.iter().filter(|place| place.index) {
        number += 1;
        let source = from.at(number);
        site.copy(&start, &source).unwrap();
        for to in &PLACES {
            number += 1;
            let destination = to.at(number);
            let copied = site.copy(&source, &destination).unwrap();
            assert_eq!(copied.digest_kept, to.index, "{source} -> {destination}");
            if to.index {
                assert_eq!((copied.images, copied.digest.to_string()), (2, bundle.digest()));
                let back = format!("oci:{{}}/back-{number}:x");
                let again = site.copy(&destination, &back).unwrap();
                assert_eq!(again.digest.to_string(), bundle.digest());
                let stored = files(&site.path(&format!("back-{number}")));
                let digits = digest(&bundle.root.1).replace("sha256:", "");
                assert_eq!(stored[format!("blobs/sha256/{digits}").as_bytes()], bundle.root.1);
            } else {
                assert!(copied.notes.iter().any(|note| note.contains("linux/amd64")), "{:?}", copied.notes);
                check_same(&site, &destination, &images[0].1, number);
            }
        }
    }
    // One of them, if wanted.
    let copied = site.copy_as(&start, "oci:{}/one:x", Some("linux/arm64"), &Quiet).unwrap();
    assert_eq!(copied.digest.to_string(), images[1].1.digest());
    let error = site.copy_as(&start, "oci:{}/two:x", Some("linux/s390x"), &Quiet).unwrap_err();
    assert!(matches!(&error, Error::NoPlatform { has, .. } if has.len() == 2), "{error}");
}

/// A second copy moves nothing, and what others put into a layout stays.
#[test]
fn what_is_there_is_not_copied() {
    let site = Site::new();
    let bundle = image("amd64", &layers(), Compression::Gzip).unwrap();
    let start = site.put("start", &bundle);
    for name in ["docker://{double}/x/y:tag", "oci:{}/layout:a", "dir:{}/dir"] {
        let first = site.copy(&start, name).unwrap();
        assert_eq!((first.blobs.copied, first.blobs.existed), (3, 0), "{name}");
        let second = site.copy(&start, name).unwrap();
        assert_eq!((second.blobs.copied, second.blobs.existed), (0, 3), "{name}");
        assert_eq!(second.digest, first.digest);
    }
    let mounted = site.copy("docker://{double}/x/y:tag", "docker://{double}/z:tag").unwrap();
    assert_eq!((mounted.blobs.mounted, mounted.blobs.copied), (3, 0));
    // Another image under another name, then under the same.
    let other = image("amd64", &layers()[..1], Compression::Gzip).unwrap();
    let second = site.put("second", &other);
    site.copy(&second, "oci:{}/layout:b").unwrap();
    assert_eq!(shown(&site, "oci:{}/layout:a").0, bundle.digest());
    assert_eq!(shown(&site, "oci:{}/layout:b").0, other.digest());
    site.copy(&second, "oci:{}/layout:a").unwrap();
    assert_eq!(shown(&site, "oci:{}/layout:a").0, other.digest());
    let by_digest = format!("oci:{{}}/layout@{}", other.digest());
    assert_eq!(shown(&site, &by_digest).0, other.digest());
    assert!(matches!(site.copy("oci:{}/layout:c", "dir:{}/c"), Err(Error::NoSuchImage { .. })));
}

/// The same image gives the same archive.
#[test]
fn archives_are_reproducible() {
    let site = Site::new();
    let start = site.put("start", &image("amd64", &layers(), Compression::Gzip).unwrap());
    for (kind, file) in [("oci-archive", "o"), ("docker-archive", "d")] {
        let mut made = Vec::new();
        for i in 0..2 {
            site.copy(&start, &format!("{kind}:{{}}/{file}{i}.tar:x:y")).unwrap();
            made.push(std::fs::read(site.path(&format!("{file}{i}.tar"))).unwrap());
        }
        assert!(made[0] == made[1], "{kind}");
    }
}

/// A tree becomes an image whose layer is the tree.
#[test]
fn a_tree_is_an_image() {
    let site = Site::new();
    let tree = coracle_testkit::tree::extract(&layers()[0]).unwrap();
    let source = format!("rootfs:{}", tree.path().display());
    for destination in ["oci:{}/a:x", "oci:{}/b:x"] {
        let copied = site.copy(&source, destination).unwrap();
        assert!(!copied.digest_kept && copied.notes.len() == 1);
    }
    let (digest, found) = shown(&site, "oci:{}/a:x");
    assert_eq!(digest, shown(&site, "oci:{}/b:x").0);
    assert_eq!(found.layers.len(), 1);
    let digits = found.layers[0].digest.to_string().replace("sha256:", "");
    let layer = std::fs::read(site.path("a/blobs/sha256").join(digits)).unwrap();
    let again = coracle_testkit::tree::extract(&layer).unwrap();
    assert_eq!(files(again.path()), files(tree.path()));
    assert_eq!(std::fs::read_link(again.path().join("etc/link")).unwrap(), std::path::Path::new("kept"));
    use std::os::unix::fs::MetadataExt;
    let number = |name: &str| std::fs::metadata(again.path().join(name)).unwrap().ino();
    assert_eq!(number("etc/kept"), number("etc/hard"));
    // For a registry it is compressed, and comes back as the same tree.
    let pushed = site.copy(&source, "docker://{double}/tree:x").unwrap();
    assert!(pushed.notes.iter().any(|note| note.contains("gzip")), "{:?}", pushed.notes);
    let (_, there) = shown(&site, "docker://{double}/tree:x");
    assert_eq!(there.diff_ids, found.diff_ids);
    assert!(there.layers[0].size < found.layers[0].size);
    // Out into a tree, and in again.
    site.copy("oci:{}/a:x", "rootfs:{}/out").unwrap();
    site.copy("rootfs:{}/out", "oci:{}/c:x").unwrap();
    assert_eq!(shown(&site, "oci:{}/c:x").1.diff_ids, found.diff_ids);
}

/// Nothing that is there, and no image, is overwritten by mistake.
#[test]
fn folders_with_other_things_are_left_alone() {
    let site = Site::new();
    let start = site.put("start", &image("amd64", &layers(), Compression::Gzip).unwrap());
    std::fs::create_dir(site.path("mine")).unwrap();
    std::fs::write(site.path("mine/thesis.txt"), "years of work").unwrap();
    for name in ["oci:{}/mine:x", "dir:{}/mine"] {
        assert!(matches!(site.copy(&start, name), Err(Error::Unsupported { .. })), "{name}");
    }
    assert_eq!(std::fs::read_dir(site.path("mine")).unwrap().count(), 1);
    assert!(matches!(site.copy(&start, &start), Err(Error::Unsupported { .. })));
    assert!(matches!(site.copy(&start, "docker-daemon:x:y"), Err(Error::Service { .. })));
}
