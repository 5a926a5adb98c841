//! Parts of images in trees of files, and trees of files as sources: what docker-registry was asked for, and what is there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coracle_testkit::http::Server;
use coracle_testkit::image::Rng;
use coracle_testkit::oci::{Compression, image};
use coracle_testkit::oracle::run_bounded;
use coracle_testkit::tar_builder::{Header, TarBuilder};
use serde_json::{Value, json};

use super::chunked::{asked, watched};
use super::rootfs::{Found, found};
use super::site::{LIMIT, Site};
use crate::place::Ran;

/// What the patterns of these tests leave out.
const LEFT_OUT: &str = "--exclude /usr/share/doc --exclude /usr/share/locale/*";

/// Content that does not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    Rng::new(seed).bytes(len)
}

/// Files of all kinds. Contents that are left out lie between others, under other names, behind links, and below others.
fn layers(version: u64) -> Vec<Vec<u8>> {
    let mut base = TarBuilder::new();
    base.dir("usr").dir("usr/bin").dir("usr/share").dir("usr/share/doc").dir("usr/lib");
    base.file_mode("usr/bin/tool", 0o4755, noise(1, 200_000));
    base.file("usr/share/doc/manual", noise(2, 300_000));
    base.file("usr/share/doc/also-a-library", noise(3, 150_000));
    base.hardlink("usr/lib/library", "usr/share/doc/also-a-library");
    base.hardlink("usr/share/doc/also-a-tool", "usr/bin/tool");
    base.file("usr/share/locale/de/words", noise(4, 120_000));
    base.file("usr/lib/replaced", noise(5, 400_000)).file("usr/lib/removed", noise(6, 250_000));
    base.file_mode("usr/lib/read-only", 0o400, noise(7, 90_000 + version as usize));
    base.symlink("doc", "usr/share/doc").file("usr/lib/empty", "").fifo("usr/lib/pipe");
    let mut marked = Header::new("usr/lib/marked");
    (marked.mode, marked.size) = (0o640, 70_000);
    base.pax([("SCHILY.xattr.user.note", "kept")]).entry(&marked, noise(8, 70_000));
    let mut upper = TarBuilder::new();
    upper.file("doc/behind-a-link", noise(9, 110_000)).file("usr/lib/.wh.removed", "");
    upper.file("usr/lib/replaced", format!("{version}\n")).file("usr/lib/small", noise(10, 3000));
    vec![base.finish(), upper.finish()]
}

/// Bytes of contents that no tree without [`LEFT_OUT`] needs, those that are replaced or removed among them.
const NOT_NEEDED: u64 = 300_000 + 120_000 + 400_000 + 250_000 + 110_000;

/// Versions 1 and 2 in the registry, in this format.
fn published(site: &Site, format: &str) -> Server {
    for number in 1..=2 {
        let bundle = image("amd64", &layers(number), Compression::Gzip).unwrap();
        bundle.write_layout(&site.place.path(&format!("in/v{number}")), "image").unwrap();
        site.json(&format!(
            "convert --tls-verify=false --compression {format} oci:in/v{number}:image {{registry}}/app:{number}"
        ));
    }
    watched(site)
}

/// Pulls a version to where the options say; the last object.
fn pull(site: &Site, server: &Server, version: u64, options: &str) -> Value {
    server.faults().forget();
    let line = format!("coracle pull --tls-verify=false --json {}/app:{version} {options}", server.host());
    // Each tree has its own store, unless the options name one.
    let mut command = site.place.command(&line);
    let ran = Ran::new(&line, run_bounded(command.env_remove("CORACLE_STORE"), LIMIT).unwrap());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    serde_json::from_str(ran.text().lines().last().unwrap()).unwrap()
}

fn from(told: &Value) -> Vec<&str> {
    told["layers"].as_array().unwrap().iter().map(|layer| layer["from"].as_str().unwrap()).collect()
}

/// The whole tree of a version, by GNU tar's rules as another test compares them, without what [`LEFT_OUT`] leaves out.
fn expected(site: &Site, version: u64) -> BTreeMap<PathBuf, Found> {
    let dir = format!("out/whole{version}");
    site.place.json(&format!("copy oci:in/v{version}:image rootfs:{dir}"));
    let mut all = found(&site.place.path(&dir));
    let gone = |path: &Path| {
        path.starts_with("usr/share/doc")
            || path.starts_with("usr/share/locale") && path != Path::new("usr/share/locale")
    };
    all.retain(|path, _| !gone(path));
    for file in all.values_mut() {
        file.names.retain(|path| !gone(path));
    }
    all
}

/// Folders that no layer names have the time at which they were made.
fn check_tree(site: &Site, dir: &str, version: u64) {
    let (mut ours, mut whole) = (found(&site.place.path(dir)), expected(site, version));
    for side in [&mut ours, &mut whole] {
        side.get_mut(Path::new("usr/share/locale")).unwrap().mtime = 0;
    }
    assert_eq!(ours, whole);
}

/// Bytes of the blobs of a version's layers.
fn layer_bytes(told: &Value) -> u64 {
    told["plan"]["layers"].as_array().unwrap().iter().map(|layer| layer["full_bytes"].as_u64().unwrap()).sum()
}

#[test]
fn what_is_left_out_is_not_fetched() {
    for format in ["zstd:chunked", "estargz"] {
        let site = Site::new();
        let server = published(&site, format);
        let told = pull(&site, &server, 1, &format!("--to rootfs:out/part {LEFT_OUT}"));
        assert_eq!(from(&told), ["chunks"; 2], "{told}");
        assert_eq!(told["fallbacks"], json!([]));
        let (ranged, whole) = asked(&server);
        assert_eq!(whole, 1, "the config alone is fetched whole");
        let all = layer_bytes(&told);
        assert!(ranged + NOT_NEEDED <= all, "{format}: {ranged} of {all}");
        let fetched: u64 =
            told["layers"].as_array().unwrap().iter().map(|l| l["bytes"].as_u64().unwrap()).sum();
        assert_eq!(fetched, ranged);
        check_tree(&site, "out/part", 1);
        let left = fs::read_dir(site.place.path("out/.part.coracle/store/objects"));
        assert!(left.is_err() || left.unwrap().next().is_none(), "nothing is kept beside it");
        // A link that lost its target stays what it is.
        assert!(site.place.path("out/part/doc").symlink_metadata().is_ok());
        // What was there is a source of the next version: the file that changed, and the documents, are all that is asked
        // for. The patterns are those of the tree.
        let told = pull(&site, &server, 2, "--to rootfs:out/part");
        assert_eq!(told["subset"]["exclude"], json!(["/usr/share/doc", "/usr/share/locale/*"]));
        let (ranged, _) = asked(&server);
        assert!(ranged < 110_000, "{format}: {ranged}");
        check_tree(&site, "out/part", 2);
        assert_eq!(pull(&site, &server, 2, "--to rootfs:out/part")["up_to_date"], true);
        // Other patterns make another tree of the same image; a file that was left out is fetched now.
        let told = pull(&site, &server, 2, "--to rootfs:out/part --only /usr/share/doc/manual");
        assert_eq!(told["up_to_date"], false);
        assert!(asked(&server).0 > 300_000);
        let paths: Vec<PathBuf> = found(&site.place.path("out/part")).into_keys().collect();
        let names = ["usr", "usr/share", "usr/share/doc", "usr/share/doc/manual"];
        assert_eq!(paths, names.map(PathBuf::from));
        assert_eq!(fs::read(site.place.path("out/part/usr/share/doc/manual")).unwrap(), noise(2, 300_000));
    }
}

/// A part of an image says what it is, wherever it is shown or goes.
#[test]
fn a_part_never_passes_for_the_image() {
    let site = Site::new();
    let server = published(&site, "zstd:chunked");
    let told = pull(&site, &server, 1, &format!("--to rootfs:out/part {LEFT_OUT} --only usr"));
    let subset = json!({
        "of": told["config"],
        "only": ["usr"],
        "exclude": ["/usr/share/doc", "/usr/share/locale/*"],
    });
    assert_eq!(told["subset"], subset);
    assert!(!site.place.path("out/part/doc").exists(), "it lies beside usr");
    let place = &site.place;
    assert_eq!(place.json("inspect rootfs:out/part")["subset"], subset);
    assert!(place.ok("inspect rootfs:out/part").text().contains("is a subset of the image sha256:"));
    assert_eq!(place.json("ls rootfs:out/part")["subset"], subset);
    assert!(place.ok("ls rootfs:out/part").stderr.contains("is a subset of the image sha256:"));
    let compared = place.json("compare oci:in/v1:image rootfs:out/part");
    assert_eq!((&compared["old"]["subset"], &compared["new"]["subset"]), (&Value::Null, &subset));
    // Elsewhere it is an image of its own, with the mark in its labels.
    let copied = site.json("copy --tls-verify=false rootfs:out/part {registry}/part:1");
    assert_ne!(copied["digest"], told["digest"]);
    let notes = copied["notes"].as_array().unwrap();
    assert!(
        notes.iter().any(|note| note.as_str().unwrap().contains("only a subset of an image")),
        "{copied}"
    );
    assert_eq!(site.json("inspect --tls-verify=false {registry}/part:1")["subset"], subset);
    let labels = site.program("skopeo inspect --tls-verify=false --config docker://{registry}/part:1");
    assert!(labels.contains("dev.coracle.subset.of"), "{labels}");
    // The whole of the same image is not there.
    let told = pull(&site, &server, 1, "--to rootfs:out/part --all-files");
    assert_eq!((&told["up_to_date"], &told["subset"]), (&json!(false), &Value::Null));
    assert_eq!(place.json("inspect rootfs:out/part")["subset"], Value::Null);
    place.json("copy oci:in/v1:image rootfs:out/whole");
    let mut sides = [found(&place.path("out/part")), found(&place.path("out/whole"))];
    for side in &mut sides {
        side.get_mut(Path::new("usr/share/locale")).unwrap().mtime = 0;
        side.get_mut(Path::new("usr/share/locale/de")).unwrap().mtime = 0;
    }
    assert_eq!(sides[0], sides[1]);
}

/// Ordinary layers come whole, and are compared before anything of them is shown.
#[test]
fn ordinary_layers_are_unpacked_in_part() {
    let site = Site::new();
    let server = published(&site, "gzip");
    let told = pull(&site, &server, 1, &format!("--to rootfs:out/part {LEFT_OUT}"));
    assert_eq!(from(&told), ["full"; 2]);
    assert_eq!(asked(&server).1, 3);
    check_tree(&site, "out/part", 1);
    // By way of a store, and kept there: what did not change is not fetched again.
    let options = format!("--to rootfs:out/kept {LEFT_OUT} --keep");
    pull(&site, &server, 1, &options);
    check_tree(&site, "out/kept", 1);
    let told = pull(&site, &server, 1, "--to rootfs:out/kept --only usr/bin --keep");
    assert_eq!(from(&told), ["store"; 2]);
    let paths: Vec<PathBuf> = found(&site.place.path("out/kept")).into_keys().collect();
    assert_eq!(paths, ["usr", "usr/bin", "usr/bin/tool"].map(PathBuf::from));
    // Without a registry, too; and what a tree holds stays the rule until another one is given.
    site.place.json(&format!("copy {LEFT_OUT} oci:in/v1:image rootfs:out/copied"));
    check_tree(&site, "out/copied", 1);
    let copied = site.place.json("copy oci:in/v2:image rootfs:out/copied");
    assert!(copied["notes"].to_string().contains("the tree is a subset of the image"), "{copied}");
    check_tree(&site, "out/copied", 2);
    site.place.json("copy --all-files oci:in/v2:image rootfs:out/copied");
    assert!(site.place.path("out/copied/usr/share/doc/manual").exists());
}

#[test]
fn patterns_are_for_trees() {
    let site = Site::new();
    published(&site, "gzip");
    let place = &site.place;
    let told = "for trees of files";
    place.fails(&site.line("pull --tls-verify=false {registry}/app:1 --only usr"), 2, told);
    place.fails("copy --exclude usr oci:in/v1:image oci:out/a:x", 2, told);
    place.fails("copy --exclude !usr oci:in/v1:image rootfs:out/a", 2, "has no meaning here");
    place.fails("copy --exclude usr/[a oci:in/v1:image rootfs:out/a", 2, "a [ without its ]");
    let both = place.run("copy --exclude usr --all-files oci:in/v1:image rootfs:out/a");
    assert_eq!(both.code, Some(2));
    let error = "is known only when its tree is made";
    place.fails(
        &site.line("pull --dry-run --tls-verify=false {registry}/app:1 --to rootfs:out/a --only usr"),
        2,
        error,
    );
    assert!(!place.path("out/a").exists());
}

/// Files of this machine are used where somebody says so, and never otherwise; nothing outside of the folder is opened.
#[test]
fn contents_come_from_a_tree_that_is_named() {
    let site = Site::new();
    let server = published(&site, "zstd:chunked");
    let host = site.place.path("host");
    for folder in ["usr/bin", "usr/lib", "usr/share/doc"] {
        fs::create_dir_all(host.join(folder)).unwrap();
    }
    let open = |path: &Path| fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    for folder in ["", "usr", "usr/bin", "usr/lib", "usr/share", "usr/share/doc"] {
        open(&host.join(folder));
    }
    let put = |name: &str, content: &[u8], mode: u32| {
        fs::write(host.join(name), content).unwrap();
        fs::set_permissions(host.join(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    // The same; another content of the same length; and what lies outside, or is not for all to read.
    put("usr/bin/tool", &noise(1, 200_000), 0o755);
    put("usr/share/doc/manual", &noise(99, 300_000), 0o644);
    put("usr/lib/library", &noise(3, 150_000), 0o644);
    put("usr/lib/removed", &noise(6, 250_000), 0o644);
    put("usr/share/doc/also-a-library", &noise(3, 150_000), 0o600);
    fs::write(site.place.path("replaced"), noise(5, 400_000)).unwrap();
    symlink("../../../replaced", host.join("usr/lib/replaced")).unwrap();
    let told = pull(&site, &server, 1, "--store s1");
    assert_eq!(from(&told), ["full"; 2], "a machine's files are no source");
    let told = pull(&site, &server, 1, "--store s2 --dedupe-from host");
    assert_eq!(from(&told)[0], "chunks", "{told}");
    let (ranged, _) = asked(&server);
    let all = told["plan"]["layers"][0]["full_bytes"].as_u64().unwrap();
    // Only two are where the image has them, may be read, and are the same.
    assert!(all.abs_diff(ranged + 450_000) < 5000, "{ranged} of {all}");
    let (one, two) = (pull(&site, &server, 1, "--store s1"), pull(&site, &server, 1, "--store s2"));
    assert_eq!((&one["config"], &one["up_to_date"]), (&two["config"], &json!(true)));
    assert_eq!(site.place.json("store fsck --store s2 --deep")["damages"], json!([]));
    // For a part of an image as well.
    pull(&site, &server, 1, &format!("--to rootfs:out/part {LEFT_OUT} --dedupe-from host"));
    let (with, _) = asked(&server);
    check_tree(&site, "out/part", 1);
    pull(&site, &server, 1, &format!("--to rootfs:out/other {LEFT_OUT}"));
    let (without, _) = asked(&server);
    assert!(with + 200_000 <= without, "{with}, {without}");
    // Nothing of the source is a file of the tree.
    let number = |path: &str| fs::metadata(site.place.path(path)).unwrap().ino();
    assert_ne!(number("out/part/usr/bin/tool"), number("host/usr/bin/tool"));
    let missing = format!("pull --tls-verify=false {}/app:2 --dedupe-from nowhere", server.host());
    site.place.fails(&missing, 3, "nowhere: ");
}
