//! Trees of files: what `rootfs:` holds after a copy or a pull, compared with what umoci and GNU tar make of the same
//! layers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_sys::file::xattrs;
use coracle_testkit::golden::Golden;
use coracle_testkit::image::{Rng, mutate};
use coracle_testkit::oci::{Compression, image};
use coracle_testkit::oracle::{run_bounded, run_ok, tool};
use coracle_testkit::tar_builder::{Header, TarBuilder};

use super::site::{LIMIT, Site};
use crate::place::{Place, digest};

/// Everything about a file that a layer says.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    mode: u32,
    owner: (u32, u32),
    pub mtime: i64,
    what: String,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// All names of the same file.
    pub names: Vec<PathBuf>,
}

/// What is below `dir`, by path; the folder itself is left out, since not every layer says what it is like.
pub fn found(dir: &Path) -> BTreeMap<PathBuf, Found> {
    let mut names: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    let mut all = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        for entry in fs::read_dir(dir.join(&below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            let full = dir.join(&path);
            let meta = fs::symlink_metadata(&full).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                todo.push(path.clone());
                "folder".to_owned()
            } else {
                names.entry(meta.ino()).or_default().push(path.clone());
                if kind.is_symlink() {
                    format!("link to {}", fs::read_link(&full).unwrap().display())
                } else if kind.is_file() {
                    digest(&fs::read(&full).unwrap())
                } else if kind.is_fifo() {
                    "fifo".to_owned()
                } else {
                    format!("device {:?} {}", kind.is_char_device(), meta.rdev())
                }
            };
            let mode = meta.mode() & 0o7777;
            let owner = (meta.uid(), meta.gid());
            let xattrs = xattrs(&full).unwrap();
            all.insert(path, Found { mode, owner, mtime: meta.mtime(), what, xattrs, names: Vec::new() });
        }
    }
    for same in names.into_values() {
        let mut same = same;
        same.sort();
        for path in &same {
            all.get_mut(path).unwrap().names.clone_from(&same);
        }
    }
    all
}

/// `folders` are those whose time the layers do not say.
#[track_caller]
fn assert_same(ours: &Path, theirs: &Path, untimed: &[PathBuf]) {
    let (mut ours, mut theirs) = (found(ours), found(theirs));
    for path in untimed {
        for side in [&mut ours, &mut theirs] {
            side.get_mut(path).unwrap_or_else(|| panic!("{}", path.display())).mtime = 0;
        }
    }
    let names = |side: &BTreeMap<PathBuf, Found>| side.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs));
    for (path, found) in &ours {
        assert_eq!(found, &theirs[path], "{}", path.display());
    }
}

fn layout(place: &Place, name: &str, layers: &[Vec<u8>]) {
    let bundle = image("amd64", layers, Compression::Gzip).unwrap();
    bundle.write_layout(&place.path(name), "x").unwrap();
}

/// A capability as `setcap cap_net_raw+ep` writes it (linux/capability.h, revision 2).
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the builder of tars dates its members.
const MTIME: i64 = 1_700_000_000;

/// Layers with everything that a layer can do to another.
fn thorough() -> Vec<Vec<u8>> {
    let device = |name, typeflag, device| Header {
        typeflag,
        device: Some(device),
        mode: 0o660,
        mtime: 5,
        ..Header::new(name)
    };
    let one = TarBuilder::new()
        .dir("./")
        .dir("etc")
        .file_mode("etc/shadow", 0o640, "root:*:\n")
        .file("etc/removed", "gone")
        .dir("etc/removed.d")
        .file("etc/removed.d/deep", "gone")
        .dir("opaque")
        .file("opaque/lower", "gone")
        .dir("opaque/sub")
        .file("opaque/sub/lower", "gone")
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .file("usr/lib/a", "a")
        .hardlink("usr/lib/b", "usr/lib/a")
        .file("becomes-folder", "file")
        .dir("becomes-file")
        .file("becomes-file/inside", "gone")
        .symlink("becomes-plain", "etc/shadow")
        .symlink("dangling", "/nowhere/at/all")
        .fifo("pipe")
        .entry(&device("null", b'3', (1, 3)), b"")
        .entry(&device("disk", b'4', (8, 17)), b"")
        .file_mode("usr/su", 0o4755, "setuid")
        .owner(1000, 70_000)
        .pax([("SCHILY.xattr.user.note", &b"\0\xffx"[..]), ("SCHILY.xattr.security.capability", CAPABILITY)])
        .file_mode("usr/ping", 0o755, "capable")
        .mtime(1_234_567_890)
        .file("zeros", vec![0; 3 << 20])
        .owner(0, 0)
        .dir("sticky")
        .finish();
    let two = TarBuilder::new()
        .file("etc/.wh.removed", "")
        .file("etc/.wh.removed.d", "")
        .file("etc/.wh.never-there", "")
        .file("opaque/new", "kept")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/sub/new", "kept")
        .file("lib/through-link", "c")
        .dir("becomes-folder")
        .file("becomes-folder/inside", "new")
        .file("becomes-file", "new")
        .file("becomes-plain", "new")
        .hardlink("second-name", "becomes-plain")
        .finish();
    vec![one, two]
}

#[test]
fn a_tree_is_what_umoci_makes_of_the_same_layers() {
    let place = Place::new();
    layout(&place, "in/image", &thorough());
    place.ok("copy oci:in/image:x rootfs:out/ours");
    super::site::program("umoci raw unpack --image in/image:x out/theirs", &place.path(""));
    // umoci lets folders have the time of what the upper layer did in them; here they have the time that is in the tar.
    // One that no layer names in the end has none.
    let changed = ["opaque/sub", "etc", "opaque", "usr/lib"].map(PathBuf::from);
    for folder in &changed[1..] {
        assert_eq!(fs::metadata(place.path("out/ours").join(folder)).unwrap().mtime(), MTIME, "{folder:?}");
    }
    assert_same(&place.path("out/ours"), &place.path("out/theirs"), &changed);
    assert_eq!(fs::metadata(place.path("out/ours")).unwrap().mtime(), MTIME);
    // Again, over what is there; and nothing is left beside it.
    place.json("copy oci:in/image:x rootfs:out/ours");
    assert_same(&place.path("out/ours"), &place.path("out/theirs"), &changed);
    let beside: Vec<_> = fs::read_dir(place.path("out/.ours.coracle")).unwrap().collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
}

/// Where GNU tar, which tools in Go do not follow, makes something else of an archive.
const OTHERWISE: [&str; 10] = [
    // GNU tar believes global headers, Go does not.
    "pax-global",
    // Leaves out what has `..` in its name; here it stays inside.
    "absolute-and-dotdot",
    // A name with a NUL byte ends there for GNU tar.
    "pax-nul-path",
    // A regular file whose name ends with a slash is a folder for GNU tar, and a file for Go.
    "file-name-trailing-slash",
    // Go believes the size in the PAX header for the content, too.
    "pax-size-desync",
    // GNU tar reads on after a lone zero block.
    "one-zero-block",
    "member-after-eoa",
    "sparse-gnu-overlap",
    // Names of a PAX header and of GNU long names together.
    "pax-and-gnu-long",
    // Whiteouts are files for GNU tar.
    "whiteouts",
];

#[test]
fn archives_of_every_kind_are_extracted_as_gnu_tar_does_or_refused_with_nothing_left() {
    let place = Place::new();
    let (mut same, mut refused, mut by_umoci) = (0, 0, 0);
    for case in Golden::built_in().tar().unwrap() {
        let (name, tar) = (&case.name, case.tar().unwrap());
        layout(&place, "in/image", std::slice::from_ref(&tar));
        let ours = place.path("out/ours");
        let ran = place.run("copy oci:in/image:x rootfs:out/ours");
        let outside: Vec<_> =
            fs::read_dir(place.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        let theirs = tempfile::tempdir().unwrap();
        fs::write(theirs.path().join("x.tar"), &tar).unwrap();
        let tree = theirs.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut command = Command::new(tool("tar").unwrap());
        command.args(["-x", "-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-f"]);
        command.arg(theirs.path().join("x.tar")).arg("-C").arg(&tree).env("LC_ALL", "C");
        let by_tar = run_bounded(&mut command, LIMIT).unwrap();
        if ran.code == Some(0) {
            assert!(outside.len() == 2, "{name}: {outside:?}");
            if by_tar.status.success() && !OTHERWISE.contains(&name.as_str()) {
                assert_same(&ours, &tree, &implied(&ours, &tar));
                same += 1;
            }
            let mut command = Command::new(tool("umoci").unwrap());
            command.args(["raw", "unpack", "--image", "in/image:x"]).arg(theirs.path().join("umoci"));
            let unpacked = run_bounded(command.current_dir(place.path("")), LIMIT).unwrap();
            if unpacked.status.success() {
                let umoci = theirs.path().join("umoci");
                assert_same(&ours, &umoci, &implied(&ours, &tar));
                by_umoci += 1;
            }
        } else {
            assert!(!ours.exists(), "{name}: {ran:?}");
            assert!(
                !by_tar.status.success()
                    || OTHERWISE.contains(&name.as_str())
                    || case.listing().unwrap().error.is_some(),
                "{name}: GNU tar can, we cannot: {}",
                ran.stderr
            );
            refused += 1;
        }
        for entry in fs::read_dir(place.path("out")).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    }
    assert!(
        same >= 25 && refused >= 10 && by_umoci >= 25,
        "{same} the same, {refused} refused, {by_umoci} as umoci"
    );
}

/// Folders that no member of the tar names.
fn implied(tree: &Path, tar: &[u8]) -> Vec<PathBuf> {
    let mut reader = coracle_codec::tar::Reader::new(tar, coracle_codec::tar::Limits::default());
    let mut named = std::collections::BTreeSet::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        named.insert(coracle_codec::tar::lexical_path(&entry.name));
    }
    let folders = found(tree).into_iter().filter(|(_, found)| found.what == "folder").map(|(path, _)| path);
    folders.filter(|path| !named.contains(path.as_os_str().as_bytes())).collect()
}

#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let parts: [(u64, &[u8]); 2] = [(0, b"head"), (4 << 20, b"tail")];
    layout(&place, "in/image", &[TarBuilder::new().sparse_gnu("sparse", 5 << 20, &parts).finish()]);
    place.ok("copy oci:in/image:x rootfs:out/tree");
    let sparse = fs::metadata(place.path("out/tree/sparse")).unwrap();
    assert_eq!(sparse.len(), 5 << 20);
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    let content = place.read("out/tree/sparse");
    assert!(content.starts_with(b"head") && content[4 << 20..].starts_with(b"tail"));
}

#[test]
fn hostile_layers_change_nothing_outside() {
    let place = Place::new();
    fs::create_dir(place.path("out/victim")).unwrap();
    fs::write(place.path("out/victim/file"), "precious").unwrap();
    let victim = place.path("out/victim").into_os_string().into_encoded_bytes();
    let evil = |build: &dyn Fn(&mut TarBuilder)| {
        let mut builder = TarBuilder::new();
        build(&mut builder);
        builder.finish()
    };
    let to = |name: &str| [victim.as_slice(), b"/", name.as_bytes()].concat();
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        (
            "a link out, then a file through it",
            vec![evil(&|b| {
                b.symlink("out", &victim).file("out/file", "evil");
            })],
        ),
        (
            "the same over two layers",
            vec![
                evil(&|b| {
                    b.symlink("out", &victim);
                }),
                evil(&|b| {
                    b.file("out/file", "evil");
                }),
            ],
        ),
        (
            "a link up",
            vec![evil(&|b| {
                b.symlink("up", "../../victim").file("up/file", "evil");
            })],
        ),
        (
            "a hardlink to a file outside",
            vec![evil(&|b| {
                b.hardlink("hard", to("file")).file("hard", "evil");
            })],
        ),
        (
            "a hardlink through a link",
            vec![evil(&|b| {
                b.symlink("out", &victim).hardlink("hard", "out/file");
            })],
        ),
        (
            "a hardlink to a link, then written to",
            vec![evil(&|b| {
                b.symlink("s", to("file")).hardlink("h", "s").file("h", "evil");
            })],
        ),
        (
            "dots",
            vec![evil(&|b| {
                b.file("../victim/file", "evil").file("../../../../../../tmp/evil", "evil");
            })],
        ),
        (
            "a whiteout of the folder above",
            vec![evil(&|b| {
                b.file(".wh...", "")
                    .file(".wh..", "")
                    .file("../.wh.victim", "")
                    .file("x/../../.wh.victim", "");
            })],
        ),
        (
            "a whiteout through a link",
            vec![
                evil(&|b| {
                    b.symlink("out", &victim);
                }),
                evil(&|b| {
                    b.file("out/.wh.file", "").file("out/.wh..wh..opq", "");
                }),
            ],
        ),
        (
            "a folder over a link",
            vec![
                evil(&|b| {
                    b.symlink("out", &victim);
                }),
                evil(&|b| {
                    b.dir("out").file_mode("out/file", 0o4755, "evil");
                }),
            ],
        ),
        (
            "a very long name",
            vec![evil(&|b| {
                b.file("d/".repeat(4000) + "file", "deep");
            })],
        ),
    ];
    for (what, layers) in &cases {
        layout(&place, "in/image", layers);
        let ran = place.run("copy oci:in/image:x rootfs:out/tree");
        assert!(matches!(ran.code, Some(0..=20)), "{what}: {ran:?}");
        assert_eq!(place.read("out/victim/file"), b"precious", "{what}: {ran:?}");
        assert_eq!(fs::metadata(place.path("out/victim/file")).unwrap().nlink(), 1, "{what}");
        let outside: Vec<_> = fs::read_dir(place.path("out/victim")).unwrap().collect();
        assert_eq!(outside.len(), 1, "{what}");
        assert!(!Path::new("/tmp/evil").exists(), "{what}");
        let _ = fs::remove_dir_all(place.path("out/tree"));
        let _ = fs::remove_dir_all(place.path("out/.tree.coracle"));
    }
}

#[test]
fn what_others_have_put_there_stays() {
    let place = Place::new();
    layout(&place, "in/image", &thorough());
    fs::create_dir(place.path("out/home")).unwrap();
    fs::write(place.path("out/home/thesis"), "precious").unwrap();
    let error = place.fails("copy oci:in/image:x rootfs:out/home", 2, "no tree written by coracle");
    assert!(error.contains("choose another"), "{error}");
    fs::write(place.path("out/file"), "precious").unwrap();
    place.fails("copy oci:in/image:x rootfs:out/file", 2, "no tree written by coracle");
    // What is no image leaves the tree as it was.
    fs::create_dir(place.path("out/empty")).unwrap();
    place.json("copy oci:in/image:x rootfs:out/empty");
    let bad = TarBuilder::new().file("new", "x").hardlink("hard", "not-there").finish();
    layout(&place, "in/bad", &[bad]);
    let error = place.fails("copy oci:in/bad:x rootfs:out/empty", 4, "there is no not-there");
    assert!(error.contains("layer 0: hard"), "{error}");
    assert!(place.path("out/empty/etc/shadow").exists() && !place.path("out/empty/new").exists());
}

/// Two versions of an image with some weight.
fn version(number: u64) -> Vec<Vec<u8>> {
    let program = fs::read(tool("busybox").unwrap()).unwrap();
    let below = TarBuilder::new().dir("data").file("data/big", Rng::new(7).bytes(700_000)).finish();
    let above = TarBuilder::new()
        .dir("bin")
        .file_mode("bin/busybox", 0o755, mutate(&program, number, 50))
        .hardlink("bin/again", "bin/busybox")
        .file("version", format!("{number}\n"))
        .finish();
    vec![below, above]
}

fn push(site: &Site, number: u64) {
    layout(&site.place, &format!("in/v{number}"), &version(number));
    site.program(&format!(
        "skopeo copy --quiet --dest-tls-verify=false oci:in/v{number}:x docker://{{registry}}/app:{number}"
    ));
}

/// Runs `pull` as a user does who names no store.
fn pull(site: &Site, line: &str) -> serde_json::Value {
    let line = site.line(&format!("coracle pull --tls-verify=false {line} --json"));
    let mut command = site.place.command(&line);
    command
        .env_remove("CORACLE_STORE")
        .env("XDG_DATA_HOME", site.place.path("data"))
        .env("HOME", site.place.path("home"));
    let out = String::from_utf8(run_ok(&mut command, LIMIT).unwrap()).unwrap();
    serde_json::from_str(out.lines().last().unwrap()).unwrap()
}

#[test]
fn a_tree_is_its_own_source() {
    let site = Site::new();
    let place = &site.place;
    (1..=2).for_each(|number| push(&site, number));
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:1 {registry}/app:2");
    pull(&site, "{registry}/app:1 --to rootfs:out/tree");
    let busybox = place.path("out/tree/bin/busybox");
    let first = fs::metadata(&busybox).unwrap().ino();
    let again = pull(&site, "{registry}/app:1 --to rootfs:out/tree");
    assert_eq!(again["up_to_date"], true);
    assert_eq!(fs::metadata(&busybox).unwrap().ino(), first, "it is not written again");

    let told = pull(&site, "{registry}/app:2 --to rootfs:out/tree");
    let from: Vec<&str> =
        told["layers"].as_array().unwrap().iter().map(|l| l["from"].as_str().unwrap()).collect();
    assert_eq!(from, ["store", "native"], "{told}");
    assert_eq!(place.read("out/tree/version"), b"2\n");
    layout(place, "in/check", &version(2));
    super::site::program("umoci raw unpack --image in/check:x out/check", &place.path(""));
    assert_same(&place.path("out/tree"), &place.path("out/check"), &[]);
    // Nothing is there twice: a large file of the tree is the one of the store beside it.
    let links = fs::metadata(place.path("out/tree/data/big")).unwrap().nlink();
    assert_eq!(links, 2);

    // Somebody writes into the tree, and so into the store beside it: that is noticed and fetched again.
    fs::write(&busybox, "broken").unwrap();
    push(&site, 3);
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:2 {registry}/app:3");
    pull(&site, "{registry}/app:3 --to rootfs:out/tree");
    layout(place, "in/check", &version(3));
    super::site::program("umoci raw unpack --image in/check:x out/check3", &place.path(""));
    assert_same(&place.path("out/tree"), &place.path("out/check3"), &[]);
    // Only what the tree needs is kept.
    let images: serde_json::Value = place.json("store images --store out/.tree.coracle/store");
    assert_eq!(images["images"].as_array().unwrap().len(), 1, "{images}");
    assert!(
        !place.path("store").exists() && !place.path("data").exists() && !place.path("home/.local").exists()
    );
}

#[test]
fn other_places_are_their_own_source_and_nothing_stays_in_the_store() {
    let site = Site::new();
    let place = &site.place;
    (1..=2).for_each(|number| push(&site, number));
    site.json("delta create --tls-verify=false --push --codec native {registry}/app:1 {registry}/app:2");
    let pull = |line: &str| {
        let ran = place.ok(&site.line(&format!("pull --tls-verify=false {line} --json")));
        serde_json::from_str::<serde_json::Value>(ran.text().lines().last().unwrap()).unwrap()
    };
    for to in ["oci:out/layout:app", "oci-archive:out/a.tar:app", "docker-archive:out/d.tar:localhost/app:x"]
    {
        pull(&format!("{{registry}}/app:1 --to {to}"));
        assert_eq!(pull(&format!("{{registry}}/app:1 --to {to}"))["up_to_date"], true, "{to}");
        let told = pull(&format!("{{registry}}/app:2 --to {to}"));
        let from: Vec<&str> =
            told["layers"].as_array().unwrap().iter().map(|l| l["from"].as_str().unwrap()).collect();
        // What the destination had came into the store for the delta.
        assert_eq!(from, ["store", "native"], "{to}: {told}");
        assert_eq!(place.json("store images")["images"].as_array().unwrap().len(), 0, "{to}");
        assert_eq!(fs::read_dir(place.path("store/layers")).unwrap().count(), 0, "{to}");
    }
    pull("{registry}/app:1 --to oci:out/other:app --keep");
    assert_eq!(place.json("store images")["images"].as_array().unwrap().len(), 1);
    // What is in the store stays there, and is updated with it.
    pull("{registry}/app:1 --to oci:out/other:app");
    assert_eq!(place.json("store images")["images"].as_array().unwrap().len(), 1);
}
