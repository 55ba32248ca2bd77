//! raft's contract with its storage, held against a log that is nothing but a list.
//!
//! Ranges, size limits, caches, truncations, restarts and snapshots are drawn; every answer must be
//! what the list says. An answer may be shorter than the range only where the size limit forces it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use raft::{GetEntriesContext, Storage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{EntryReader, LogView, ReadError};
use crate::point::{Configuration, Point};
use crate::ready::to_bytes;

/// Draws of a log; each lives through [`STEPS`].
const LOGS: u64 = 200;
const STEPS: usize = 120;

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<u64, Bytes>>>);

impl Disk {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Bytes>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl EntryReader for Disk {
    fn read(
        &self,
        low: u64,
        high: u64,
        bytes_max: u64,
        out: &mut Vec<Bytes>,
    ) -> Result<(), ReadError> {
        self.with(|entries| {
            let mut bytes = 0;
            for index in low..high {
                let Some(entry) = entries.get(&index) else {
                    let message = format!("{index} is not there");
                    return Err(ReadError { message });
                };
                bytes += entry.len() as u64;
                if bytes > bytes_max && index > low {
                    break;
                }
                out.push(entry.clone());
            }
            Ok(())
        })
    }
}

/// The log as a list: what every answer is held against.
struct Naive {
    origin: Point,
    entries: Vec<Entry>,
}

impl Naive {
    fn last(&self) -> u64 {
        self.origin.index + self.entries.len() as u64
    }

    fn term(&self, index: u64) -> Option<u64> {
        match index.checked_sub(self.origin.index)? {
            0 => Some(self.origin.term),
            after => Some(self.entries.get(after as usize - 1)?.term),
        }
    }

    /// Every entry of a range, as many as fit, but at least one.
    fn range(&self, low: u64, high: u64, bytes_max: u64) -> Option<Vec<Entry>> {
        if low <= self.origin.index || high > self.last() + 1 {
            return None;
        }
        let from = (low - self.origin.index - 1) as usize;
        let mut bytes = 0;
        let mut out = Vec::new();
        for entry in &self.entries[from..from + high.saturating_sub(low) as usize] {
            bytes += u64::from(entry.compute_size());
            if bytes > bytes_max && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        Some(out)
    }
}

struct Pair {
    dice: StdRng,
    naive: Naive,
    view: LogView,
    disk: Disk,
    cache_bytes_max: usize,
    term: u64,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let origin = Point {
            index: dice.random_range(1..50),
            term: 1,
            configuration: Configuration::of_voters(vec![1, 2, 3]),
        };
        let disk = Disk::default();
        let cache_bytes_max = *[0, 40, 200, 1 << 20]
            .get(dice.random_range(0..4))
            .unwrap_or(&0);
        let mut pair = Self {
            dice,
            view: restored(&origin, origin.index, &disk, cache_bytes_max),
            naive: Naive {
                origin,
                entries: Vec::new(),
            },
            disk,
            cache_bytes_max,
            term: 1,
        };
        pair.append();
        pair
    }

    fn step(&mut self) {
        match self.dice.random_range(0..10) {
            0..5 => self.append(),
            5 => self.begin_later(),
            6 => self.restart(),
            7 if self.dice.random_bool(0.2) => self.install(),
            _ => {}
        }
    }

    /// Entries behind the last, or in the place of some.
    fn append(&mut self) {
        let last = self.naive.last();
        let replaced = match self.dice.random_bool(0.2) {
            true => self.dice.random_range(0..=last - self.naive.origin.index),
            false => 0,
        };
        self.term += u64::from(replaced > 0 || self.dice.random_bool(0.1));
        let first = last + 1 - replaced;
        let entries: Vec<Entry> = (first..first + self.dice.random_range(1..8))
            .map(|index| Entry {
                index,
                term: self.term,
                data: vec![7; self.dice.random_range(0..60)].into(),
                ..Entry::default()
            })
            .collect();
        self.view.append(&entries);
        self.disk.with(|disk| {
            disk.split_off(&first);
            disk.extend(entries.iter().map(|entry| (entry.index, to_bytes(entry))));
        });
        let kept = (first - self.naive.origin.index - 1) as usize;
        self.naive.entries.truncate(kept);
        self.naive.entries.extend(entries);
    }

    fn begin_later(&mut self) {
        let (first, last) = (self.naive.origin.index, self.naive.last());
        let index = self.dice.random_range(first..=last);
        let Some(term) = self.naive.term(index) else {
            return;
        };
        let origin = Point {
            index,
            term,
            configuration: self.naive.origin.configuration.clone(),
        };
        self.naive.entries.drain(..(index - first) as usize);
        self.naive.origin = origin.clone();
        self.disk.with(|disk| *disk = disk.split_off(&(index + 1)));
        self.view.begin_at(origin);
    }

    fn install(&mut self) {
        self.term += 1;
        let origin = Point {
            index: self.naive.last() + self.dice.random_range(1..20),
            term: self.term,
            configuration: self.naive.origin.configuration.clone(),
        };
        self.disk.with(BTreeMap::clear);
        self.naive.entries.clear();
        self.naive.origin = origin.clone();
        self.view.install(origin);
    }

    fn restart(&mut self) {
        let last = self.naive.last();
        self.view = restored(&self.naive.origin, last, &self.disk, self.cache_bytes_max);
    }

    fn check(&mut self) {
        let (origin, last) = (self.naive.origin.index, self.naive.last());
        assert_eq!(self.view.first_index().unwrap(), origin + 1);
        assert_eq!(self.view.last_index().unwrap(), last);
        for index in origin.saturating_sub(2)..=last + 2 {
            assert_eq!(
                self.view.term(index).ok(),
                self.naive.term(index),
                "{index}"
            );
        }
        for _ in 0..20 {
            let low = self.dice.random_range(origin.saturating_sub(1)..=last + 1);
            let high = self.dice.random_range(low..=last + 2);
            let bytes_max = match self.dice.random_range(0..3) {
                0 => u64::MAX,
                1 => self.dice.random_range(0..100),
                _ => self.dice.random_range(0..2_000),
            };
            let context = GetEntriesContext::empty(false);
            let answer = self.view.entries(low, high, bytes_max, context).ok();
            assert_eq!(
                answer,
                self.naive.range(low, high, bytes_max),
                "[{low}, {high}) in {bytes_max} bytes; recent from {} on",
                self.view.first_recent()
            );
        }
    }
}

fn restored(origin: &Point, last: u64, disk: &Disk, cache_bytes_max: usize) -> LogView {
    let members = origin.configuration.clone();
    let reader = Box::new(disk.clone());
    let state = HardState::default();
    let mut view = LogView::new(origin.clone(), members, state, last, reader);
    view.cache_bytes_max = cache_bytes_max;
    view
}

#[test]
fn every_answer_is_what_a_list_of_entries_says() {
    for seed in 0..LOGS {
        let mut pair = Pair::new(seed);
        for _ in 0..STEPS {
            pair.step();
            pair.check();
        }
    }
}

#[test]
fn a_range_that_runs_from_the_disk_into_memory_is_answered_whole() {
    let mut pair = Pair::new(0);
    pair.restart();
    pair.append();
    let (low, high) = (pair.naive.origin.index + 1, pair.naive.last() + 1);
    let context = GetEntriesContext::empty(false);
    let whole = pair.view.entries(low, high, None, context).unwrap();
    assert_eq!(whole, pair.naive.entries);
}
