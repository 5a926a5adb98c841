//! Many at once, killed ones, and a full disk.

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use coracle_codec::digest::Digest;
use coracle_codec::observe::Quiet;
use coracle_store::{Error, FsckOptions, GcOptions, Store, WriterOptions};
use coracle_testkit::image::Rng;

use crate::shop::{self, image_of, layer, try_put};

/// Folder and seed of what [`child`] does; unset in an ordinary run.
const CHILD: &str = "CORACLE_STORE_TEST_CHILD";
/// Images that a child puts into the store.
const IMAGES: u64 = 6;

/// What a process of its own does: puts images with common layers into the store, each with the ones before as hints.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (seed, folder) = task.split_once(' ').unwrap();
    let seed: u64 = seed.parse().unwrap();
    let store = shop::open(Path::new(folder));
    for version in 0..IMAGES {
        let lease = store.lease().unwrap();
        let image = image_of(vec![layer(1, version), layer(2 + seed, version)]);
        let hints: Vec<_> = store.layer(&Digest::of(&layer(1, 0))).unwrap().into_iter().collect();
        for tar in &image.layers {
            let claim = store.claim_layer(&Digest::of(tar)).unwrap();
            if !lease.keep_layer(&Digest::of(tar)).unwrap() {
                try_put(&lease, tar, &hints, WriterOptions::default()).unwrap();
            }
            drop(claim);
        }
        image.put(&store, &format!("quay.io/p{seed}/x:v{version}"));
        if version >= 2 {
            let old = format!("quay.io/p{seed}/x:v{}", version - 2);
            store.remove_ref(&old.parse().unwrap()).unwrap();
        }
    }
}

fn start(folder: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crowd::child", "--nocapture"])
        .env(CHILD, format!("{seed} {}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// All that has a name is whole.
fn check(store: &Store) {
    let mut options = FsckOptions::new(NonZeroUsize::new(2).unwrap());
    options.deep = true;
    let report = store.fsck(&options, &Quiet).unwrap();
    assert_eq!(report.damages, []);
}

/// After the last name, gc leaves nothing.
fn nothing_is_left_over(store: &Store) {
    for entry in store.refs().unwrap() {
        store.remove_ref(&entry.name).unwrap();
    }
    store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.object_count, usage.layer_count, usage.documents, usage.leases), (0, 0, 0, 0));
    assert_eq!(usage.partial, 0);
}

#[test]
fn processes_publish_while_gc_runs() {
    let dir = tempfile::tempdir().unwrap();
    let store = shop::open(dir.path());
    let mut children: Vec<Child> = (0..3).map(|seed| start(dir.path(), seed)).collect();
    let done = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let gc = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap();
                rounds += 1;
            }
            rounds
        });
        let mut outcomes = Vec::new();
        for child in &mut children {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            outcomes.push((child.wait().unwrap(), text));
        }
        done.store(true, Ordering::Relaxed);
        let rounds = gc.join().unwrap();
        for (status, text) in outcomes {
            assert!(status.success(), "{text}");
        }
        rounds
    });
    assert!(rounds > 3, "{rounds}");
    assert_eq!(store.refs().unwrap().len(), 6, "two for each process");
    check(&store);
    nothing_is_left_over(&store);
}

#[test]
fn threads_share_a_lease_and_its_layers() {
    let (_dir, store) = shop::store();
    let lease = store.lease().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (lease, store) = (&lease, &store);
            scope.spawn(move || {
                for version in 0..3 {
                    let tar = layer(thread % 2, version);
                    try_put(lease, &tar, &[], WriterOptions::default()).unwrap();
                    let layer = store.layer(&Digest::of(&tar)).unwrap().unwrap();
                    let mut out = Vec::new();
                    layer.reader().read_to_end(&mut out).unwrap();
                    assert!(out == tar);
                }
            });
        }
    });
    check(&store);
}

#[test]
fn killed_at_any_moment() {
    campaign(20, 11);
}

#[test]
#[ignore = "long"]
fn killed_at_any_moment_many_times() {
    campaign(200, 12);
}

fn campaign(rounds: u32, seed: u64) {
    let mut random = Rng::new(seed);
    // How long a child takes that is left alone.
    let time = || {
        let dir = tempfile::tempdir().unwrap();
        let begin = Instant::now();
        assert!(start(dir.path(), 0).wait().unwrap().success());
        begin.elapsed()
    };
    let whole = time().min(time());
    let mut killed = 0;
    for round in 0..rounds {
        let dir = tempfile::tempdir().unwrap();
        let store = shop::open(dir.path());
        let mut child = start(dir.path(), 0);
        std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1000.0));
        // Its own end may have come first.
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        check(&store);
        store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap();
        let usage = store.usage().unwrap();
        assert_eq!((usage.unused, usage.leases), (0, 0), "round {round}");
        check(&store);
        if round % 5 == 0 {
            // The next run completes what was begun.
            assert!(start(dir.path(), 0).wait().unwrap().success());
            assert_eq!(store.refs().unwrap().len(), 2);
            check(&store);
        }
        nothing_is_left_over(&store);
    }
    assert!(killed > rounds / 4, "{killed} of {rounds}");
}

/// A small file system of its own, unmounted on drop.
struct Small(tempfile::TempDir);

impl Small {
    /// `None` where mounting is not allowed.
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(dir.path());
        match mount.stderr(Stdio::null()).status() {
            Ok(status) if status.success() => Some(Small(dir)),
            _ => None,
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk() {
    let first = layer(1, 0);
    let second = layer(2, 0);
    // From hardly enough for the first layer on, to just too little for both.
    let mut full = 0;
    for part in 0..8 {
        let bytes = (first.len() + part * second.len() / 8 + (96 << 10)) as u64;
        let Some(small) = Small::new(bytes) else {
            println!("file systems cannot be mounted here: not tested");
            return;
        };
        let store = shop::open(small.0.path());
        image_of(vec![first.clone()]).put(&store, "quay.io/a:t");
        let lease = store.lease().unwrap();
        if let Err(error) = try_put(&lease, &second, &[], WriterOptions::default()) {
            assert!(error.is_disk_full(), "{error}");
            full += 1;
        } else {
            continue;
        }
        assert!(!store.has_layer(&Digest::of(&second)));
        // The lease is still good, and so is what was there.
        assert!(lease.keep_layer(&Digest::of(&first)).unwrap());
        drop(lease);
        check(&store);
        store.gc(&GcOptions::new(SystemTime::now()), &Quiet).unwrap();
        assert_eq!(store.usage().unwrap().unused, 0);
        assert!(!matches!(store.lease(), Err(Error::Io { .. })));
    }
    assert!(full >= 6, "{full}");
}
