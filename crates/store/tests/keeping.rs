//! What stays, what goes, and what it takes.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use coracle_codec::digest::Digest;
use coracle_codec::observe::{Observer, Quiet};
use coracle_codec::oci::Unverified;
use coracle_store::{Error, FsckOptions, GcOptions, GcReport, Options, Store};
use coracle_testkit::oci::{self, Compression};

use crate::shop::{image_of, layer, put, store, try_put};

fn gc(store: &Store) -> GcReport {
    store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap()
}

fn fsck_is_clean(store: &Store) {
    let mut options = FsckOptions::new(NonZeroUsize::new(2).unwrap());
    options.deep = true;
    let report = store.fsck(&options, &Quiet).unwrap();
    assert_eq!(report.damages, []);
}

fn files(store: &Store, folder: &str) -> usize {
    fn count(path: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
    }
    count(&store.path().join(folder))
}

#[test]
fn tables_of_contents_are_known_as_long_as_their_layers_are_here() {
    let (_dir, store) = store();
    let (one, two) = (layer(1, 0), layer(2, 0));
    let (toc, other) = (Digest::of(b"toc"), Digest::of(b"other"));
    let lease = store.lease().unwrap();
    assert_eq!(store.made_of_toc(&toc).unwrap(), None);
    image_of(vec![one.clone()]).put(&store, "example.com/a:1");
    put(&lease, &two);
    lease.remember_toc(&toc, &Digest::of(&one)).unwrap();
    lease.remember_toc(&toc, &Digest::of(&one)).unwrap();
    lease.remember_toc(&other, &Digest::of(&two)).unwrap();
    assert_eq!(store.made_of_toc(&toc).unwrap(), Some(Digest::of(&one)));
    assert_eq!(store.made_of_toc(&other).unwrap(), Some(Digest::of(&two)));
    // Of a layer that is not here nothing is known.
    lease.remember_toc(&Digest::of(b"third"), &Digest::of(b"no layer")).unwrap();
    assert_eq!(store.made_of_toc(&Digest::of(b"third")).unwrap(), None);
    drop(lease);
    gc(&store);
    assert_eq!(files(&store, "tocs"), 1, "the second layer has no name, the third pair no layer");
    assert_eq!(store.made_of_toc(&toc).unwrap(), Some(Digest::of(&one)));
    assert_eq!(store.made_of_toc(&other).unwrap(), None);
    fsck_is_clean(&store);
    let path = store.path().join("tocs").join(toc.hex());
    let two_lines = format!("{0}\n{0}\n", Digest::of(&one));
    for damaged in [&b""[..], b"sha256:00\n", b"\xff\xfe", two_lines.as_bytes()] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(store.made_of_toc(&toc).unwrap(), None);
    }
    store.lease().unwrap().remember_toc(&toc, &Digest::of(&one)).unwrap();
    assert_eq!(store.made_of_toc(&toc).unwrap(), Some(Digest::of(&one)));
}

#[test]
fn a_store_is_made_once_and_nowhere_else() {
    let (dir, store) = store();
    let other = Options { inline_limit: 1 };
    let again = Store::open_or_create(store.path(), other).unwrap();
    assert_eq!(again.inline_limit(), Options::default().inline_limit);
    assert!(matches!(Store::open(dir.path()), Err(Error::NotAStore { .. })));
    // The folder holds something else.
    assert!(matches!(Store::open_or_create(dir.path(), other), Err(Error::NotAStore { .. })));
    let format = store.path().join("format");
    for bad in ["", "{}", r#"{"version":2,"inlineLimit":0}"#, r#"{"version":1}"#] {
        std::fs::write(&format, bad).unwrap();
        assert!(matches!(Store::open(store.path()), Err(Error::Format { .. })), "{bad}");
    }
    assert!(store.free_bytes().unwrap() > 0);
}

#[test]
fn names_keep_what_they_lead_to() {
    let (_dir, store) = store();
    let (one, two) = (image_of(vec![layer(1, 1), layer(2, 1)]), image_of(vec![layer(1, 1), layer(2, 2)]));
    one.put(&store, "quay.io/a/b:one");
    two.put(&store, "quay.io/a/b:two");
    assert_eq!(gc(&store).bytes(), 0);
    let names: Vec<_> = store.refs().unwrap().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["quay.io/a/b:one", "quay.io/a/b:two"]);
    assert_eq!(store.images().unwrap().count(), 2);
    let name = "quay.io/a/b:one".parse().unwrap();
    assert_eq!(store.reference(&name).unwrap().unwrap(), one.entry("quay.io/a/b:one"));

    let usage = store.usage().unwrap();
    assert_eq!((usage.layer_count, usage.unused), (3, 0));
    let both = &usage.refs;
    assert!(both.iter().all(|entry| entry.unclear.is_none() && entry.layers == 2));
    assert!(both[0].unique > 0 && both[0].shared == both[1].shared && both[0].shared == usage.shared);
    assert_eq!(usage.objects + usage.layers, usage.shared + both[0].unique + both[1].unique);

    let before = (files(&store, "objects"), files(&store, "layers"));
    assert!(store.remove_ref(&name).unwrap() && !store.remove_ref(&name).unwrap());
    let dry = GcOptions { dry_run: true, ..GcOptions::new(SystemTime::now()) };
    let dry = store.gc(&dry, &Quiet).unwrap();
    assert_eq!(before, (files(&store, "objects"), files(&store, "layers")));
    let real = gc(&store);
    assert_eq!((dry.objects, dry.layers), (real.objects, real.layers));
    assert_eq!(real.objects.bytes + real.layers.bytes, both[0].unique);
    assert_eq!((real.layers.count, real.documents.count), (1, 2));
    fsck_is_clean(&store);
    assert!(store.remove_ref(&"quay.io/a/b:two".parse().unwrap()).unwrap());
    gc(&store);
    for folder in ["objects", "layers", "documents", "refs", "leases", "partial"] {
        assert_eq!(files(&store, folder), 0, "{folder}");
    }
    assert_eq!(std::fs::read_dir(store.path().join("refs")).unwrap().count(), 0);
}

#[test]
fn leases_keep_what_is_under_way() {
    let (_dir, store) = store();
    let (first, second) = (layer(1, 1), layer(1, 2));
    let lease = store.lease().unwrap();
    put(&lease, &first);
    assert_eq!(gc(&store).bytes(), 0);
    // Another lease takes it over.
    let other = store.lease().unwrap();
    assert!(other.keep_layer(&Digest::of(&first)).unwrap());
    assert!(!other.keep_layer(&Digest::of(b"absent")).unwrap());
    drop(lease);
    assert_eq!(gc(&store).bytes(), 0);
    assert!(store.has_layer(&Digest::of(&first)));
    // Objects that were linked before gc takes them away are there when the new layer is published.
    let old = store.layer(&Digest::of(&first)).unwrap().unwrap();
    let later = store.lease().unwrap();
    let mut writer =
        coracle_codec::digest::Hashing::new(later.layer_writer(&[old], Default::default()).unwrap());
    std::io::Write::write_all(&mut writer, &second).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(other);
    assert!(gc(&store).layers.count == 1 && files(&store, "objects") == 0);
    coracle_store::LayerWriter::publish(writer, &Digest::of(&second)).unwrap();
    drop(later);
    fsck_is_clean(&store);
    assert_eq!(gc(&store).layers.count, 1);
    assert_eq!(files(&store, "objects") + files(&store, "leases"), 0);
}

#[test]
fn a_layer_that_is_another_leaves_nothing() {
    let (_dir, store) = store();
    let lease = store.lease().unwrap();
    let mut out = coracle_codec::digest::Hashing::new(lease.layer_writer(&[], Default::default()).unwrap());
    std::io::Write::write_all(&mut out, &layer(1, 1)).unwrap();
    let wanted = Digest::of(&layer(1, 2));
    let error = coracle_store::LayerWriter::publish(out, &wanted).unwrap_err();
    assert!(matches!(error, Error::WrongLayer { expected, .. } if expected == wanted), "{error}");
    // And one that is given up.
    let mut out = lease.layer_writer(&[], Default::default()).unwrap();
    std::io::Write::write_all(&mut out, &layer(1, 1)).unwrap();
    drop(out);
    assert_eq!(files(&store, "objects") + files(&store, "layers"), 0);
    assert_eq!(files(&store, "leases"), 2, "lock and keeps");
}

#[test]
fn a_name_needs_all_that_it_leads_to() {
    let (_dir, store) = store();
    let image = image_of(vec![layer(1, 1), layer(2, 1)]);
    let entry = image.entry("quay.io/a:t");
    let lease = store.lease().unwrap();
    let missing = |what: &str| match lease.set_ref(&entry) {
        Err(Error::Missing { what: found, .. }) => assert_eq!(found, what),
        other => panic!("{other:?}"),
    };
    missing("document");
    lease.put_document(&Unverified::new(image.manifest()).identify()).unwrap();
    missing("document");
    lease.put_document(&Unverified::new(image.config()).identify()).unwrap();
    put(&lease, &image.layers[0]);
    missing("layer");
    put(&lease, &image.layers[1]);
    lease.set_ref(&entry).unwrap();
    // Work under way keeps what a document leads to, as far as it is here.
    store.remove_ref(&entry.name).unwrap();
    let other = store.lease().unwrap();
    assert!(other.keep_document(&entry.root.digest).unwrap());
    drop(lease);
    assert_eq!(gc(&store).bytes(), 0);
}

#[test]
fn an_index_keeps_what_is_here_of_it() {
    let (_dir, store) = store();
    let image = image_of(vec![layer(1, 1)]);
    let absent = oci::image("arm64", &[layer(9, 1)], Compression::None).unwrap();
    let index = oci::index(&[("amd64", image.bundle.clone()), ("arm64", absent)]);
    let raw = Unverified::new(index.root.1.clone()).identify();
    let lease = store.lease().unwrap();
    put(&lease, &image.layers[0]);
    for document in [image.config(), image.manifest(), index.root.1.clone()] {
        lease.put_document(&Unverified::new(document).identify()).unwrap();
    }
    let mut entry = image.entry("quay.io/a:t");
    entry.root = coracle_codec::oci::Descriptor::new(&index.root.0, raw.digest(), raw.size());
    lease.set_ref(&entry).unwrap();
    drop(lease);
    assert_eq!(gc(&store).bytes(), 0);
    fsck_is_clean(&store);
}

#[test]
fn what_is_unclear_is_not_removed() {
    let (_dir, store) = store();
    let image = image_of(vec![layer(1, 1)]);
    image.put(&store, "quay.io/a:t");
    let config = store.path().join("documents").join(Digest::of(&image.config()).hex());
    let kept = std::fs::read(&config).unwrap();
    let forced = GcOptions { force: true, dry_run: true, ..GcOptions::new(SystemTime::now()) };
    for damage in [None, Some(&b"{}"[..])] {
        match damage {
            None => std::fs::remove_file(&config).unwrap(),
            Some(bytes) => std::fs::write(&config, bytes).unwrap(),
        }
        let error = store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap_err();
        assert!(matches!(&error, Error::Unclear { name, .. } if name == "quay.io/a:t"), "{error}");
        assert_eq!(files(&store, "layers"), 1);
        assert_eq!(store.gc(&forced, &Quiet).unwrap().unclear.len(), 1);
    }
    std::fs::write(&config, kept).unwrap();
    // A name that cannot be read, and a layer file.
    let entry = store.path().join("refs/quay.io/a/:t");
    let text = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, "{").unwrap();
    assert!(matches!(gc_error(&store), Error::Unclear { .. }));
    std::fs::write(&entry, text).unwrap();
    let file = store.path().join("layers").join(Digest::of(&image.layers[0]).hex());
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(gc_error(&store), Error::Unclear { .. }));
    // A layer that is missing is told, and the rest goes on.
    std::fs::remove_file(&file).unwrap();
    let missing = gc(&store).missing_layers;
    assert_eq!(missing, [(Digest::of(&image.layers[0]), Digest::of(&image.manifest()))]);
}

fn gc_error(store: &Store) -> Error {
    store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap_err()
}

#[test]
fn blobs_in_flight_go_when_they_are_old_and_unused() {
    let (_dir, store) = store();
    let path = store.partial(&Digest::of(b"blob"));
    let mut blob = coracle_sys::resume::Resumable::open(&path).unwrap().unwrap();
    std::io::Write::write_all(&mut blob, b"half").unwrap();
    let late = GcOptions::new(SystemTime::now() + Duration::from_secs(30 * 24 * 3600));
    assert_eq!(store.gc(&late, &Quiet).unwrap().partial.count, 0, "it is open");
    drop(blob);
    assert_eq!(gc(&store).partial.count, 0, "it is young");
    assert_eq!(store.gc(&late, &Quiet).unwrap().partial.count, 1);
    assert!(!path.exists());

    let diff_id = Digest::of(b"layer");
    let claim = store.claim_layer(&diff_id).unwrap().unwrap();
    assert!(store.claim_layer(&diff_id).unwrap().is_none());
    assert_eq!(gc(&store).partial.count, 0);
    drop(claim);
    assert!(store.claim_layer(&diff_id).unwrap().is_some());
    assert_eq!(files(&store, "partial"), 0);
}

#[test]
fn gc_waits_only_so_long_and_can_be_stopped() {
    struct Stop;
    impl Observer for Stop {
        fn cancelled(&self) -> bool {
            true
        }
    }
    let (_dir, store) = store();
    try_put(&store.lease().unwrap(), &layer(1, 1), &[], Default::default()).unwrap();
    assert!(matches!(store.gc(&GcOptions::new(SystemTime::now()), &Stop), Err(Error::Cancelled)));
    let _publishing = coracle_sys::lock::FileLock::shared(&store.path().join("lock")).unwrap();
    let short = GcOptions { patience: Duration::from_millis(40), ..GcOptions::new(SystemTime::now()) };
    assert!(matches!(store.gc(&short, &Quiet), Err(Error::Busy { .. })));
    assert!(matches!(store.gc(&short, &Stop), Err(Error::Cancelled)));
}

/// All lists of the store are empty folders after a lease ends with its process, whatever was staged.
#[test]
fn what_a_dead_process_left_goes() {
    let (_dir, store) = store();
    let left = store.path().join("leases/dead");
    std::fs::create_dir_all(left.join("objects-0")).unwrap();
    std::fs::write(left.join("lock"), "").unwrap();
    std::fs::write(left.join("keeps"), format!("layer {}\n", Digest::of(b""))).unwrap();
    std::fs::write(left.join("objects-0/x"), "x").unwrap();
    std::fs::write(store.path().join("documents/.half.tmp"), "x").unwrap();
    std::fs::create_dir_all(store.path().join("refs/quay.io/a/b")).unwrap();
    std::fs::write(store.path().join("refs/quay.io/.half"), "x").unwrap();
    let report = gc(&store);
    assert_eq!((report.leases.count, report.documents.count, report.refs.count), (1, 1, 4));
    for folder in ["leases", "documents", "refs"] {
        assert_eq!(files(&store, folder), 0, "{folder}");
    }
}
