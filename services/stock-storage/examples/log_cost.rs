//! What the log costs on a given disk.
//!
//! ```text
//! cargo run --release -p stock-storage --example log_cost [DIR]
//! ```
//!
//! The log and a bare `pwrite` + `fdatasync` of the same bytes take turns, since the second is the
//! floor and disks have moods. `DIR` is where the files go while it runs, by default `target`.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use stock_storage::{Durability, Log, LogOptions, OsVolume, WriteBatch};

const ENTRY_BYTES: usize = 150;
const ENTRIES_PER_BATCH: usize = 128;
const GROUPS: u64 = 8;
const ROUNDS: usize = 10;
const WRITES_PER_ROUND: usize = 500;
/// What the log adds around one entry: framing, index and checksums.
const FRAME_BYTES: usize = 48;

type Nanos = Histogram<u64>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::fs::create_dir_all(&parent)?;
    let dir = tempfile::tempdir_in(&parent)?;
    let mut log = Log::open(
        Arc::new(OsVolume),
        &dir.path().join("node"),
        &LogOptions::default(),
    )?;
    let floor = reserved_file(&dir.path().join("floor"))?;
    let mut floor_end = 0;

    let mut batch = WriteBatch::new();
    let many: Vec<Bytes> = (1..=ENTRIES_PER_BATCH as u64).map(entry).collect();
    let one = [many[0].clone()];
    let spread = ENTRIES_PER_BATCH / GROUPS as usize;
    let mut ends = vec![0_u64; GROUPS as usize];

    let mut bare = histogram()?;
    let mut single = histogram()?;
    let mut lazy = histogram()?;
    let mut batched = histogram()?;
    let mut grouped = histogram()?;
    let mut last_read = histogram()?;
    let mut read = Vec::new();

    for round in 0..=ROUNDS {
        if round == 1 {
            // The first round has warmed up files, buffers and caches.
            for histogram in [
                &mut bare,
                &mut single,
                &mut lazy,
                &mut batched,
                &mut grouped,
                &mut last_read,
            ] {
                histogram.reset();
            }
        }
        for _ in 0..WRITES_PER_ROUND {
            timed(&mut bare, || {
                floor.write_all_at(&[0xa5; ENTRY_BYTES + FRAME_BYTES], floor_end)?;
                floor_end += (ENTRY_BYTES + FRAME_BYTES) as u64;
                floor.sync_data()
            })?;
        }
        for (histogram, durability) in [
            (&mut single, Durability::Sync),
            (&mut lazy, Durability::Lazy),
        ] {
            for _ in 0..WRITES_PER_ROUND {
                timed(histogram, || {
                    batch.append(0, ends[0] + 1, &one);
                    log.write(&mut batch, durability)
                })?;
                ends[0] += 1;
            }
        }
        for _ in 0..WRITES_PER_ROUND {
            let last = ends[0];
            read.clear();
            timed(&mut last_read, || {
                log.read(0, last, last + 1, u64::MAX, &mut read)
            })?;
            batch.append(0, last + 1, &one);
            log.write(&mut batch, Durability::Lazy)?;
            ends[0] += 1;
        }
        for _ in 0..WRITES_PER_ROUND / 5 {
            timed(&mut batched, || {
                batch.append(0, ends[0] + 1, &many);
                log.write(&mut batch, Durability::Sync)
            })?;
            ends[0] += ENTRIES_PER_BATCH as u64;
            timed(&mut grouped, || {
                for ((group, end), part) in (0..).zip(&mut ends).zip(many.chunks(spread)) {
                    batch.append(group, *end + 1, part);
                    batch.put_state(group, &[0xa5; 20]);
                    *end += spread as u64;
                }
                log.write(&mut batch, Durability::Sync)
            })?;
        }
    }

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{ENTRY_BYTES}-byte entries, in {}",
        dir.path().display()
    )?;
    let report = |out: &mut io::StdoutLock<'_>, what: &str, entries: usize, times: &Nanos| {
        let micros = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
        let rate = entries as f64 * 1e9 / times.mean();
        writeln!(
            out,
            "{what:<44} p50 {:>8.1} us   p99 {:>8.1} us   {rate:>10.0} entries/s",
            micros(0.5),
            micros(0.99)
        )
    };
    report(&mut out, "bare pwrite + fdatasync (the floor)", 1, &bare)?;
    report(&mut out, "durable append of one", 1, &single)?;
    report(&mut out, "lazy append of one", 1, &lazy)?;
    report(
        &mut out,
        &format!("durable append of {ENTRIES_PER_BATCH}, one group"),
        ENTRIES_PER_BATCH,
        &batched,
    )?;
    report(
        &mut out,
        &format!("durable append of {ENTRIES_PER_BATCH}, {GROUPS} groups with state"),
        ENTRIES_PER_BATCH,
        &grouped,
    )?;
    report(&mut out, "read of the entry last written", 1, &last_read)?;

    drop(log);
    let started = Instant::now();
    let log = Log::open(
        Arc::new(OsVolume),
        &dir.path().join("node"),
        &LogOptions::default(),
    )?;
    writeln!(
        out,
        "reopen with {} entries: {:.1} ms",
        log.groups()
            .iter()
            .filter_map(|&group| log.bounds(group))
            .map(|(first, last)| last - first + 1)
            .sum::<u64>(),
        started.elapsed().as_secs_f64() * 1e3
    )?;
    Ok(())
}

/// Half of it names, which repeat from entry to entry, half of it request ids and hashes, which do
/// not.
fn entry(seed: u64) -> Bytes {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let text = format!("reserve store-{:04} web checkout ", seed % 457).repeat(3);
    let mut bytes = text.into_bytes();
    bytes.truncate(ENTRY_BYTES / 2);
    while bytes.len() < ENTRY_BYTES {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        bytes.push(random as u8);
    }
    Bytes::from(bytes)
}

fn reserved_file(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)?;
    let len = (ROUNDS + 1) * WRITES_PER_ROUND * (ENTRY_BYTES + FRAME_BYTES);
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len as u64)?;
    file.sync_all()?;
    Ok(file)
}

fn timed<E>(histogram: &mut Nanos, work: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let started = Instant::now();
    let result = work();
    histogram.saturating_record(duration_ns(started.elapsed()));
    result
}

/// Up to a minute, to three digits.
fn histogram() -> Result<Nanos, hdrhistogram::CreationError> {
    Nanos::new_with_bounds(1, 60_000_000_000, 3)
}

fn duration_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
