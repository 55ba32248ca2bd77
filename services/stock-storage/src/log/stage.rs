//! From a batch to what the engine writes.

use raft_engine::{Command, LogBatch};

use super::batch::{BATCH_BYTES_MAX, Step, WriteBatch};
use super::entry::StoredEntries;
use super::{Log, RECORD_FLOOR, RECORD_ORIGIN, RECORD_REPLICA, RECORD_STATE};
use crate::LogError;

/// A batch as the engine takes it. Kept for its buffers.
#[derive(Default)]
pub(super) struct Stage {
    pub(super) engine: LogBatch,
    /// The groups that begin again, and whether their origin and state go too.
    pub(super) begun: Vec<Begun>,
    /// A group begins again or has entries overwritten, which no purge may be in the middle of.
    pub(super) is_rewriting: bool,
    /// The groups with steps, and the first and last index of each after those seen so far.
    bounds: Vec<(u64, Option<(u64, u64)>)>,
}

/// A group that begins again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) group: u64,
    forget: bool,
}

impl Stage {
    /// Fills the stage, or says why the batch is refused.
    ///
    /// The engine finds a hole only after the batch is durable, panics, and panics again at every
    /// start. So each append is held against what the log will have when it comes to it.
    pub(super) fn fill(&mut self, log: &Log, batch: &WriteBatch) -> Result<(), LogError> {
        if batch.bytes > BATCH_BYTES_MAX {
            return Err(LogError::TooLarge {
                bytes: batch.bytes,
                bytes_max: BATCH_BYTES_MAX,
            });
        }
        for step in &batch.steps {
            match step {
                Step::Append {
                    group,
                    first,
                    entries,
                } => {
                    let last = first + (entries.len() as u64 - 1);
                    let begin = match *self.bounds(log, *group) {
                        Some((low, high)) if *first < low || *first > high + 1 => {
                            return Err(LogError::OutOfOrder {
                                group: *group,
                                index: *first,
                                first: low,
                                last: high,
                            });
                        }
                        Some((low, high)) => {
                            self.is_rewriting |= *first <= high;
                            low
                        }
                        None => *first,
                    };
                    *self.bounds(log, *group) = Some((begin, last));
                    self.engine
                        .add_entries::<StoredEntries>(*group, batch.entries(entries))
                        .expect("only past 2 GiB, which is beyond the limit of a batch");
                }
                Step::Truncate { group, index } => {
                    let bounds = self.bounds(log, *group);
                    match *bounds {
                        Some((low, high)) if (low + 1..=high).contains(index) => {
                            *bounds = Some((*index, high));
                            self.engine
                                .add_command(*group, Command::Compact { index: *index });
                            self.put(*group, RECORD_FLOOR, &index.to_be_bytes());
                        }
                        Some((_, high)) if *index > high => self.begin_again(log, *group, false),
                        // Nothing lies before it.
                        Some(_) | None => {}
                    }
                }
                Step::Reset { group, forget } => self.begin_again(log, *group, *forget),
            }
        }
        // The engine drops a group's records with the group. Those that stay come behind.
        for at in 0..self.begun.len() {
            let Begun { group, forget } = self.begun[at];
            let stay: &[&[u8]] = if forget {
                &[RECORD_REPLICA]
            } else {
                &[RECORD_STATE, RECORD_ORIGIN, RECORD_REPLICA]
            };
            for record in stay {
                if let Some(bytes) = log.engine().get(group, record) {
                    self.put(group, record, &bytes);
                }
            }
        }
        for put in &batch.puts {
            self.put(put.group, put.record, batch.record_bytes(put));
        }
        Ok(())
    }

    /// Makes the stage ready for the next batch, when the engine's part has been written.
    pub(super) fn written(&mut self) {
        self.begun.clear();
        self.is_rewriting = false;
        self.bounds.clear();
    }

    /// Makes the stage ready for the next batch, when nothing was written.
    pub(super) fn clear(&mut self) {
        // The engine has no way to empty a batch other than writing it.
        self.engine = LogBatch::default();
        self.written();
    }

    fn begin_again(&mut self, log: &Log, group: u64, forget: bool) {
        *self.bounds(log, group) = None;
        self.is_rewriting = true;
        self.engine.add_command(group, Command::Clean);
        match self.begun.iter_mut().find(|begun| begun.group == group) {
            Some(begun) => begun.forget |= forget,
            None => self.begun.push(Begun { group, forget }),
        }
    }

    /// A batch has few steps, so a search from end to end is fast.
    fn bounds(&mut self, log: &Log, group: u64) -> &mut Option<(u64, u64)> {
        let found = self.bounds.iter().position(|(other, _)| *other == group);
        let at = found.unwrap_or_else(|| {
            self.bounds.push((group, log.bounds(group)));
            self.bounds.len() - 1
        });
        &mut self.bounds[at].1
    }

    /// The engine keeps records in memory and wants to own key and value: two small allocations
    /// each.
    fn put(&mut self, group: u64, record: &[u8], bytes: &[u8]) {
        self.engine
            .put(group, record.to_vec(), bytes.to_vec())
            .expect("only keys that begin with two underscores are refused");
    }
}
