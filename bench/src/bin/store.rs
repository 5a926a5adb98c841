//! Measures the store on real layers: how many objects, how much room, how fast.
//!
//! ```text
//! cargo run --release -p coracle-bench --bin store -- FOLDER NEW.tar... [--old OLD.tar...]
//! ```
//!
//! Makes stores in FOLDER, which the caller removes, for each inline limit, puts the new layers into it, reads them back and checks the store;
//! then once more with the old layers as hints. Speeds are 10^6 bytes of tar a second of wall clock, the best of two
//! runs, the tars in the page cache. The line `sha256` is what one thread hashes in the same run. Processor time is in
//! nanoseconds for each byte of tar, all threads and the kernel's part, which other programs disturb less.
#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::error::Error;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coracle_codec::digest::{Digest, Hasher, Hashing};
use coracle_codec::observe::Quiet;
use coracle_store::{Count, FsckOptions, Layer, LayerInfo, LayerWriter, Options, Store};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const LIMITS: [u64; 7] = [0, 64, 1024, 4096, 8192, 16384, 65536];
const RUNS: u32 = 2;
const BLOCK: usize = 256 << 10;

struct Tar {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.split(|argument| argument == "--old");
    let Some([folder, new @ ..]) = parts.next() else {
        return Err("FOLDER NEW.tar... [--old OLD.tar...]".into());
    };
    let folder = Path::new(folder);
    let tars = |paths: &[String]| paths.iter().map(|path| tar(Path::new(path))).collect::<Outcome<Vec<_>>>();
    let (new, old) = (tars(new)?, tars(parts.next().unwrap_or_default())?);
    let bytes: u64 = new.iter().map(|tar| tar.size).sum();
    println!("{bytes} bytes in {} layers", new.len());
    let hash = best(|| new.iter().try_for_each(|tar| hash(&tar.path).map(drop)))?;
    let before = cpu();
    new.iter().try_for_each(|tar| self::hash(&tar.path).map(drop))?;
    println!(
        "sha256 {:.0} MB/s, {:.2} ns of processor a byte",
        speed(bytes, hash),
        per_byte(cpu() - before, bytes)
    );
    println!("limit objects disk-MiB inline-MiB layer-files-KiB write publish ingest rebuild fsck MB/s ns");
    for limit in LIMITS {
        row(folder, &new, limit, bytes)?;
    }
    if !old.is_empty() {
        hinted(folder, &new, &old, bytes)?;
    }
    println!("peak {} MiB", coracle_sys::usage::self_usage().peak_rss >> 20);
    Ok(())
}

fn tar(path: &Path) -> Outcome<Tar> {
    let (digest, size) = hash(path)?;
    Ok(Tar { path: path.to_owned(), digest, size })
}

fn hash(path: &Path) -> Outcome<(Digest, u64)> {
    let (mut hasher, mut size) = (Hasher::new(), 0);
    read(path, |block| {
        hasher.update(block);
        size += block.len() as u64;
        Ok(())
    })?;
    Ok((hasher.finish(), size))
}

fn read(path: &Path, mut take: impl FnMut(&[u8]) -> Outcome) -> Outcome {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(()),
            n => take(&block[..n])?,
        }
    }
}

fn best(mut work: impl FnMut() -> Outcome) -> Outcome<Duration> {
    let mut least = Duration::MAX;
    for _ in 0..RUNS {
        let begin = Instant::now();
        work()?;
        least = least.min(begin.elapsed());
    }
    Ok(least)
}

fn speed(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn cpu() -> Duration {
    coracle_sys::usage::self_usage().cpu
}

fn per_byte(time: Duration, bytes: u64) -> f64 {
    time.as_secs_f64() * 1e9 / bytes as f64
}

/// A new store beside those before: ext4 makes files slowly for some seconds after others were removed, since it looks
/// for inodes that were not in use of late.
fn fresh(folder: &Path, limit: u64) -> Outcome<Store> {
    std::fs::create_dir_all(folder)?;
    let number = std::fs::read_dir(folder)?.count();
    coracle_sys::sync::sync_file_system(folder)?;
    Ok(Store::open_or_create(&folder.join(number.to_string()), Options { inline_limit: limit })?)
}

struct Times {
    write: Duration,
    publish: Duration,
}

fn put(store: &Store, tars: &[Tar], hints: &[Layer]) -> Outcome<(Vec<LayerInfo>, Times)> {
    let lease = store.lease()?;
    let mut times = Times { write: Duration::ZERO, publish: Duration::ZERO };
    let mut infos = Vec::new();
    for tar in tars {
        let begin = Instant::now();
        let mut out = Hashing::new(lease.layer_writer(hints, Default::default())?);
        read(&tar.path, |block| Ok(out.write_all(block)?))?;
        times.write += begin.elapsed();
        let begin = Instant::now();
        infos.push(LayerWriter::publish(out, &tar.digest)?);
        times.publish += begin.elapsed();
    }
    Ok((infos, times))
}

fn row(folder: &Path, tars: &[Tar], limit: u64, bytes: u64) -> Outcome {
    let mut least = Times { write: Duration::MAX, publish: Duration::MAX };
    let mut used = Duration::MAX;
    let mut store = fresh(folder, limit)?;
    for run in 0..RUNS {
        if run > 0 {
            store = fresh(folder, limit)?;
        }
        let before = cpu();
        let (_, times) = put(&store, tars, &[])?;
        used = used.min(cpu() - before);
        if times.write + times.publish < least.write.saturating_add(least.publish) {
            least = times;
        }
    }
    let rebuild = best(|| {
        tars.iter().try_for_each(|tar| {
            let layer = store.layer(&tar.digest)?.ok_or("no layer")?;
            let mut reader = Hashing::new(layer.reader());
            std::io::copy(&mut reader, &mut std::io::sink())?;
            if reader.digest() == tar.digest { Ok(()) } else { Err("other bytes".into()) }
        })
    })?;
    let jobs = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let fsck = best(|| match store.fsck(&FsckOptions::new(jobs), &Quiet)?.damages.len() {
        0 => Ok(()),
        _ => Err("damage".into()),
    })?;
    let usage = store.usage()?;
    println!(
        "{limit} {} {:.1} {:.1} {} {:.0} {:.3}s {:.0} {:.0} {:.0} {:.2}",
        usage.object_count,
        (usage.objects + usage.layers) as f64 / 1048576.0,
        usage.inline as f64 / 1048576.0,
        usage.layers >> 10,
        speed(bytes, least.write),
        least.publish.as_secs_f64(),
        speed(bytes, least.write + least.publish),
        speed(bytes, rebuild),
        speed(bytes, fsck),
        per_byte(used, bytes),
    );
    Ok(())
}

fn hinted(folder: &Path, new: &[Tar], old: &[Tar], bytes: u64) -> Outcome {
    let mut best: Option<(Vec<LayerInfo>, Times)> = None;
    for _ in 0..RUNS {
        let store = fresh(folder, Options::default().inline_limit)?;
        put(&store, old, &[])?;
        let opened = old.iter().map(|tar| store.layer(&tar.digest)?.ok_or_else(|| "no layer".into()));
        let hints = opened.collect::<Outcome<Vec<_>>>()?;
        let result = put(&store, new, &hints)?;
        let total = |times: &Times| times.write + times.publish;
        if best.as_ref().is_none_or(|known| total(&result.1) < total(&known.1)) {
            best = Some(result);
        }
    }
    let Some((infos, times)) = best else { return Ok(()) };
    let sum = |part: fn(&LayerInfo) -> Count| {
        let counts = infos.iter().map(part);
        counts.fold((0, 0), |(n, bytes), count| (n + count.objects, bytes + count.bytes))
    };
    let (linked, existing, written) =
        (sum(|info| info.linked), sum(|info| info.existing), sum(|info| info.written));
    println!(
        "with hints: linked {linked:?} existing {existing:?} written {written:?}: {:.0} MB/s, {:.0} with publishing",
        speed(bytes, times.write),
        speed(bytes, times.write + times.publish)
    );
    Ok(())
}
