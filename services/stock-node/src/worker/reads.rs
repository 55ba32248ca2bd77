//! Reads that wait until the state is new enough. All that wait share one round to a quorum.

use stock_replica::{ReadReady, Replica};

use crate::answer::{Freshness, Question};

/// A round that has brought no answer after this many ticks was lost: the reads join the next one.
const ROUND_TICKS_MAX: u64 = 4;

/// A read waits at most this many ticks: 5 s.
const READ_TICKS_MAX: u64 = 100;

/// Makes contexts that no other node, and no earlier boot of this one, has used.
#[derive(Debug)]
pub(super) struct ContextSource {
    prefix: [u8; 16],
    next: u64,
}

impl ContextSource {
    /// `boot` must differ between boots of the node.
    pub(super) fn new(node: u64, boot: u64) -> Self {
        let mut prefix = [0; 16];
        prefix[..8].copy_from_slice(&node.to_le_bytes());
        prefix[8..].copy_from_slice(&boot.to_le_bytes());
        Self { prefix, next: 0 }
    }

    pub(super) fn next(&mut self) -> Vec<u8> {
        self.next += 1;
        [self.prefix.as_slice(), &self.next.to_le_bytes()].concat()
    }
}

/// A read that waits.
#[derive(Debug)]
pub(super) struct PendingRead<R> {
    /// What is asked.
    pub question: Question,
    /// Where the answer goes.
    pub reply: R,
    index: u64,
    since_tick: u64,
}

/// The reads of one group that wait.
#[derive(Debug)]
pub(super) struct Reads<R> {
    tick: u64,
    /// Need a round and are in none.
    unasked: Vec<PendingRead<R>>,
    rounds: Vec<Round<R>>,
    /// Wait for their index to be applied.
    unapplied: Vec<PendingRead<R>>,
    /// A read that only needs an index missed it; a round makes the leader tell its commit.
    nudge: bool,
}

#[derive(Debug)]
struct Round<R> {
    context: Vec<u8>,
    since_tick: u64,
    reads: Vec<PendingRead<R>>,
}

impl<R> Default for Reads<R> {
    fn default() -> Self {
        Self {
            tick: 0,
            unasked: Vec::new(),
            rounds: Vec::new(),
            unapplied: Vec::new(),
            nudge: false,
        }
    }
}

impl<R> Reads<R> {
    /// Takes a read that cannot be answered at once.
    pub(super) fn wait(&mut self, freshness: Freshness, question: Question, reply: R) {
        let mut read = PendingRead {
            question,
            reply,
            index: 0,
            since_tick: self.tick,
        };
        match freshness {
            Freshness::Near => self.unapplied.push(read),
            Freshness::AtLeast(index) => {
                read.index = index;
                self.unapplied.push(read);
                self.nudge = true;
            }
            Freshness::Linearizable { at_least } => {
                read.index = at_least;
                self.unasked.push(read);
            }
        }
    }

    /// Begins a round for all that wait for one.
    pub(super) fn ask(&mut self, replica: &mut Replica, contexts: &mut ContextSource) {
        if self.unasked.is_empty() && !self.nudge {
            return;
        }
        let context = contexts.next();
        if replica.read_index(context.clone()) {
            self.nudge = false;
            self.rounds.push(Round {
                context,
                since_tick: self.tick,
                reads: std::mem::take(&mut self.unasked),
            });
        }
    }

    /// A round came back.
    pub(super) fn ready(&mut self, ready: &ReadReady) {
        if let Some(at) = self
            .rounds
            .iter()
            .position(|round| round.context == ready.context)
        {
            let round = self.rounds.swap_remove(at);
            self.unapplied
                .extend(round.reads.into_iter().map(|mut read| {
                    read.index = read.index.max(ready.index);
                    read
                }));
        }
    }

    /// Those whose index is applied.
    pub(super) fn take_applied(&mut self, applied_index: u64) -> Vec<PendingRead<R>> {
        if self.unapplied.is_empty() {
            return Vec::new();
        }
        self.unapplied
            .extract_if(.., |read| read.index <= applied_index)
            .collect()
    }

    /// Time passes: lost rounds are asked again. Returns the reads that have waited too long.
    pub(super) fn tick(&mut self) -> Vec<PendingRead<R>> {
        self.tick += 1;
        let tick = self.tick;
        let lost = |round: &mut Round<R>| round.since_tick + ROUND_TICKS_MAX <= tick;
        for round in self.rounds.extract_if(.., lost) {
            self.unasked.extend(round.reads);
        }
        let late = |read: &mut PendingRead<R>| read.since_tick + READ_TICKS_MAX <= tick;
        let mut expired: Vec<_> = self.unasked.extract_if(.., late).collect();
        expired.extend(self.unapplied.extract_if(.., late));
        expired
    }

    /// Everybody who waits.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = R> + use<R> {
        let mut reads = std::mem::take(&mut self.unasked);
        reads.append(&mut self.unapplied);
        reads.extend(self.rounds.drain(..).flat_map(|round| round.reads));
        reads.into_iter().map(|read| read.reply)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let asked: usize = self.rounds.iter().map(|round| round.reads.len()).sum();
        self.unasked.len() + asked + self.unapplied.len()
    }
}
