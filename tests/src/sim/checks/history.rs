//! The committed log of every group, as seen on whichever node knew first, and what it means:
//! replayed through the state machine and through an independent model of its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use stock_cluster::registry::codec;
use stock_cluster::{GroupId, Registry, RegistryCommand};
use stock_core::{
    Action, At, BasketCommand, BasketOutcome, CatalogCommand, Command, EntryKind, LedgerEntry,
    Line, Moment, NewNames, Operation, Outcome, Position, PutLocation, Refusal, Reservation,
    ReservationId, Secret, Shard, Sku, Source, Stamp, limits::CLOCK_AHEAD_MS_MAX,
};
use stock_node::answer::Outcome as GroupOutcome;
use stock_node::entry;
use stock_node::state::{Meta, State as GroupState};
use xxhash_rust::xxh3::xxh3_64;

use super::super::clock::EPOCH_MS;
use super::audit::Audit;
use super::holds::Holds;
use super::naive::Naive;
use super::{Broken, Checked, broken};

/// Groups are founded with an entry of index 1 that nobody sees.
const FIRST_INDEX: u64 = 2;

/// A command of either kind of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AnyCommand {
    Stock(Command),
    Catalog(CatalogCommand),
    /// Said by operators, and by nodes themselves, where nobody waits for it.
    Registry(RegistryCommand),
}

/// One committed entry.
pub(crate) struct Entry {
    pub(crate) term: u64,
    digest: u64,
    /// Each command and how it ended.
    pub(crate) commands: Vec<(AnyCommand, GroupOutcome)>,
}

/// A reservation as it was from each index on.
type Versions = Vec<(u64, Option<Arc<Reservation>>)>;

/// Who saw an entry committed, and what is known of where it came from.
pub(crate) struct Observed<'a> {
    pub(crate) node: u64,
    pub(crate) now_us: u64,
    /// When these commands first got to the loop of the node that led in the entry's term.
    pub(crate) handed_in: &'a dyn Fn(&AnyCommand) -> Option<u64>,
    /// Nobody can say what time it was: the only voter's clock was set while it had forgotten the
    /// time.
    pub(crate) clocks_lie: bool,
}

/// The log of one group.
pub(crate) struct History {
    group: GroupId,
    entries: Vec<Entry>,
    state: State,
    moment: Moment,
}

enum State {
    Stock(Box<Stock>),
    Meta {
        /// As replicas have it; see [`meta`].
        state: GroupState,
        locations: Vec<(u64, Vec<PutLocation>)>,
    },
}

/// A stock shard, replayed.
struct Stock {
    shard: Shard,
    naive: Naive,
    audit: Audit,
    holds: Holds,
    /// Of reservations that are at home here, and of those with a part here.
    ids: Vec<ReservationId>,
    known_ids: BTreeSet<ReservationId>,
    /// What was known of each, from which index on.
    positions: BTreeMap<Sku, Vec<(u64, Vec<Position>)>>,
    /// None from where on it was forgotten, a day after its end.
    reservations: BTreeMap<ReservationId, Versions>,
}

impl History {
    /// Of a group of a cluster with this secret.
    pub(crate) fn new(group: GroupId, secret: Secret) -> Self {
        let state = match group.shard() {
            Some(_) => State::Stock(Box::new(Stock {
                shard: Shard::new(secret),
                naive: Naive::default(),
                audit: Audit::default(),
                holds: Holds::default(),
                ids: Vec::new(),
                known_ids: BTreeSet::new(),
                positions: BTreeMap::new(),
                reservations: BTreeMap::new(),
            })),
            None => State::Meta {
                state: GroupState::new(group, secret),
                locations: Vec::new(),
            },
        };
        Self {
            group,
            entries: Vec::new(),
            state,
            moment: Moment::default(),
        }
    }

    /// The index of the last entry, 1 if there is none.
    pub(crate) fn last_index(&self) -> u64 {
        FIRST_INDEX - 1 + self.entries.len() as u64
    }

    /// The stamp of the last entry that has one.
    pub(crate) fn stamp(&self) -> Stamp {
        self.moment.stamp
    }

    /// An entry of the log.
    pub(crate) fn entry(&self, index: u64) -> Option<&Entry> {
        self.entries.get(index.checked_sub(FIRST_INDEX)? as usize)
    }

    /// A node knows that an entry is committed. Returns whether that is news.
    pub(crate) fn committed(
        &mut self,
        index: u64,
        term: u64,
        data: &Bytes,
        observed: &Observed<'_>,
    ) -> Result<bool, Broken> {
        let digest = xxh3_64(data);
        if let Some(known) = self.entry(index) {
            if (known.term, known.digest) == (term, digest) {
                return Ok(false);
            }
            return broken(
                "one history",
                format!(
                    "node {} has committed another entry {index} of {:?}: of term {term}, and the \
                     one known is of term {}",
                    observed.node, self.group, known.term
                ),
            );
        }
        if index != self.last_index() + 1 {
            return broken(
                "one history",
                format!(
                    "node {} has committed entry {index} of {:?}, of which {} entries are known",
                    observed.node,
                    self.group,
                    self.entries.len()
                ),
            );
        }
        let commands = self.replay(index, data, observed)?;
        self.entries.push(Entry {
            term,
            digest,
            commands,
        });
        Ok(true)
    }

    /// Every SKU that was ever in stock.
    pub(crate) fn skus(&self) -> impl Iterator<Item = &Sku> {
        let stock = match &self.state {
            State::Stock(stock) => Some(&stock.positions),
            State::Meta { .. } => None,
        };
        stock.into_iter().flat_map(BTreeMap::keys)
    }

    /// The positions of a SKU when this index was applied.
    pub(crate) fn positions(&self, sku: &Sku, index: u64) -> Option<&[Position]> {
        match &self.state {
            State::Stock(stock) => as_of(stock.positions.get(sku)?, index).map(Vec::as_slice),
            State::Meta { .. } => None,
        }
    }

    /// A reservation when this index was applied.
    pub(crate) fn reservation(&self, id: &ReservationId, index: u64) -> Option<&Arc<Reservation>> {
        match &self.state {
            State::Stock(stock) => as_of(stock.reservations.get(id)?, index)?.as_ref(),
            State::Meta { .. } => None,
        }
    }

    /// All reservations that were known when this index was applied.
    pub(crate) fn reservations(&self, index: u64) -> impl Iterator<Item = &Arc<Reservation>> {
        let stock = match &self.state {
            State::Stock(stock) => Some(stock),
            State::Meta { .. } => None,
        };
        let all = stock.into_iter().flat_map(|it| it.reservations.values());
        all.filter_map(move |known| as_of(known, index)?.as_ref())
    }

    /// The locations when this index was applied.
    pub(crate) fn locations(&self, index: u64) -> &[PutLocation] {
        match &self.state {
            State::Meta { locations, .. } => as_of(locations, index).map_or(&[], Vec::as_slice),
            State::Stock(_) => &[],
        }
    }

    /// Who is in the cluster, and what belongs where, if this is group 0.
    pub(crate) fn registry(&self) -> Option<&Registry> {
        match &self.state {
            State::Meta {
                state: GroupState::Meta(meta),
                ..
            } => Some(&meta.registry),
            State::Meta { .. } | State::Stock(_) => None,
        }
    }

    /// The hash of the state now.
    pub(crate) fn state_hash(&self) -> Option<u128> {
        match &self.state {
            State::Stock(stock) => Some(stock.shard.freeze().hash()),
            State::Meta { state, .. } => Some(state.freeze().hash().0),
        }
    }

    /// The state now, if this is a stock shard.
    pub(crate) fn shard(&self) -> Option<&Shard> {
        match &self.state {
            State::Stock(stock) => Some(&stock.shard),
            State::Meta { .. } => None,
        }
    }

    /// Holds whose end was timed.
    pub(crate) fn holds_timed(&self) -> u64 {
        match &self.state {
            State::Stock(stock) => stock.holds.timed(),
            State::Meta { .. } => 0,
        }
    }

    /// Commands applied so far, retries included.
    pub(crate) fn commands(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| entry.commands.len() as u64)
            .sum()
    }

    fn replay(
        &mut self,
        index: u64,
        data: &Bytes,
        observed: &Observed<'_>,
    ) -> Result<Vec<(AnyCommand, GroupOutcome)>, Broken> {
        if data.is_empty() {
            return Ok(Vec::new());
        }
        let unreadable = |error: &dyn std::fmt::Display| Broken {
            check: "as sent",
            seen: format!("entry {index} cannot be read: {error}"),
        };
        let entry::Entry {
            moment,
            mut commands,
            ..
        } = entry::decode_entry(data).map_err(|error| unreadable(&error))?;
        let moment = moment.after(self.moment);
        self.moment = moment;
        let at = |ordinal: usize| At {
            index,
            ordinal: ordinal as u32,
            moment,
        };
        let mut ended = Vec::new();
        match &mut self.state {
            State::Stock(stock) => {
                if observed.clocks_lie {
                    stock.holds.forgive();
                }
                let mut changed = stock.advance(moment, observed.now_us)?;
                let mut amended = Vec::new();
                while let Some(command) = commands
                    .next_stock(&NewNames)
                    .map_err(|error| unreadable(&error))?
                {
                    match &command.action {
                        Action::Request(_, Operation::Amend(amend)) => amended.push(amend.id),
                        Action::Basket(BasketCommand::Decide(decide)) => amended.push(decide.id),
                        _ => {}
                    }
                    let outcome = stock.apply(at(ended.len()), &command, observed, &mut changed)?;
                    ended.push((AnyCommand::Stock(command), GroupOutcome::Stock(outcome)));
                }
                stock.finish(index, &changed, &amended)?;
            }
            State::Meta { state, locations } => {
                let Some(Meta { catalog, registry }) = meta(state) else {
                    return Ok(ended);
                };
                catalog.advance(moment);
                registry.advance(moment);
                while let Some(command) =
                    commands.next_meta().map_err(|error| unreadable(&error))?
                {
                    let ordinal = ended.len();
                    if codec::is_registry_command(&command) {
                        let command =
                            codec::decode_command(&command).map_err(|error| unreadable(&error))?;
                        let outcome = registry.apply(at(ordinal), command.clone());
                        let outcome = GroupOutcome::Registry(outcome);
                        ended.push((AnyCommand::Registry(command), outcome));
                        continue;
                    }
                    let command = entry::decode_catalog(ordinal, &command)
                        .map_err(|error| unreadable(&error))?;
                    let outcome = catalog.apply(at(ordinal), command.clone());
                    ended.push((AnyCommand::Catalog(command), GroupOutcome::Catalog(outcome)));
                }
                if !ended.is_empty() {
                    locations.push((index, catalog.locations().cloned().collect()));
                }
            }
        }
        Ok(ended)
    }
}

/// What a caller's clock may be ahead by, with a second for the nodes' own.
const AHEAD_MS: u64 = CLOCK_AHEAD_MS_MAX - 1_000;

/// Whoever's clock is right is never told that it is ahead, however long the cluster was away.
fn taken_in_time(at: At, command: &Command, outcome: &Outcome, observed: &Observed<'_>) -> Checked {
    let (Action::Request(request, _), Outcome::Refused(Refusal::RequestFromFuture)) =
        (&command.action, outcome)
    else {
        return Ok(());
    };
    let handed_in = (observed.handed_in)(&AnyCommand::Stock(command.clone()));
    let Some(handed_in_us) = handed_in.filter(|_| !observed.clocks_lie) else {
        return Ok(());
    };
    let made_at = request.id.made_at();
    if made_at.0 > EPOCH_MS + handed_in_us / 1_000 + AHEAD_MS {
        return Ok(());
    }
    broken(
        "taken in time",
        format!(
            "a request of {made_at:?} was refused as ahead when it was {handed_in_us} us, in {at:?}"
        ),
    )
}

impl Stock {
    fn advance(&mut self, moment: Moment, now_us: u64) -> Result<Vec<LedgerEntry>, Broken> {
        let mut ledger = Vec::new();
        self.shard.advance(moment, &mut ledger);
        self.naive.advance(moment);
        self.same_ledger(&ledger, now_us)?;
        Ok(ledger)
    }

    fn apply(
        &mut self,
        at: At,
        command: &Command,
        observed: &Observed<'_>,
        changed: &mut Vec<LedgerEntry>,
    ) -> Result<Outcome, Broken> {
        let before = self.available(command);
        let mut ledger = Vec::new();
        let outcome = self.shard.apply(at, command.clone(), &mut ledger);
        let expected = self.naive.apply(at, command);
        if outcome != expected {
            return broken(
                "the rules",
                format!(
                    "{command:?} at {at:?} ended as {outcome:?}; by the rules it is {expected:?}"
                ),
            );
        }
        self.same_ledger(&ledger, observed.now_us)?;
        taken_in_time(at, command, &outcome, observed)?;
        let prepared = match &outcome {
            Outcome::Prepared(prepared) => Some(&prepared.reservation),
            Outcome::Reservation(reservation) => Some(reservation),
            _ => None,
        };
        if matches!(outcome, Outcome::Basket(BasketOutcome::Held)) {
            self.not_oversold(command, &before)?;
        }
        match &command.action {
            Action::Basket(BasketCommand::HoldPart(part)) => self.note_id(part.id),
            // What was amended may end at another time, which was given when it was prepared.
            Action::Basket(BasketCommand::Decide(decide)) => {
                let now = self.shard.reservation(&decide.id);
                let expires_at = now.filter(|now| now.state.is_open());
                let expires_at = expires_at.and_then(|now| now.expires_at);
                self.holds.changed(decide.id, expires_at, at.stamp(), None);
            }
            _ => {}
        }
        if let Some(reservation) = prepared {
            self.not_oversold(command, &before)?;
            self.note_id(reservation.id);
            self.reservations.entry(reservation.id).or_default();
            // A retry is told what was, not what is.
            if let Some(now) = self.shard.reservation(&reservation.id) {
                let expires_at = now.expires_at.filter(|_| now.state.is_open());
                let since_us = (observed.handed_in)(&AnyCommand::Stock(command.clone()));
                self.holds
                    .changed(reservation.id, expires_at, at.stamp(), since_us);
                if let Some(known) = self.reservations.get_mut(&reservation.id) {
                    note(known, at.index, &Some(now.clone()));
                }
            }
        }
        changed.extend(ledger);
        Ok(outcome)
    }

    /// Takes down what an entry has changed, and holds everything against its ledger.
    fn finish(
        &mut self,
        index: u64,
        changed: &[LedgerEntry],
        amended: &[ReservationId],
    ) -> Checked {
        for entry in changed {
            if let Some(stock) = self.shard.stock(&entry.sku) {
                let known = self.positions.entry(entry.sku.clone()).or_default();
                note(known, index, &stock.positions().to_vec());
            }
        }
        // Not all that changes them is in this shard's ledger: they may have lines elsewhere. What
        // ended a day ago is forgotten.
        for (id, known) in &mut self.reservations {
            let now = self.shard.reservation(id);
            let before = known.last().and_then(|(_, before)| before.as_ref());
            let is_as_before = match (before, now) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            if !is_as_before {
                note(known, index, &now.cloned());
            }
        }
        self.audit
            .check(&self.shard, &self.ids, amended)
            .or_else(|seen| broken("conservation", seen))
    }

    fn same_ledger(&mut self, ledger: &[LedgerEntry], now_us: u64) -> Checked {
        let expected = std::mem::take(&mut self.naive.ledger);
        if ledger != expected {
            return broken(
                "the rules",
                format!("the ledger is {ledger:?}; by the rules it is {expected:?}"),
            );
        }
        self.audit.take(ledger);
        for entry in ledger {
            if let (EntryKind::Expired, Source::Reservation(id)) = (entry.kind, &entry.source) {
                self.holds.expired(*id, now_us)?;
            }
        }
        Ok(())
    }

    fn note_id(&mut self, id: ReservationId) {
        if self.known_ids.insert(id) {
            self.ids.push(id);
        }
    }

    /// For each line of a basket, what is available there.
    fn available(&self, command: &Command) -> Vec<i64> {
        let lines = lines(command).into_iter();
        lines
            .map(|line| {
                self.shard
                    .stock(&line.sku)
                    .and_then(|stock| stock.position(&line.location))
                    .map_or(0, Position::available)
            })
            .collect()
    }

    fn not_oversold(&self, command: &Command, before: &[i64]) -> Checked {
        for (line, before) in lines(command).into_iter().zip(before) {
            let Some(position) = self
                .shard
                .stock(&line.sku)
                .and_then(|stock| stock.position(&line.location))
            else {
                return broken("no oversell", format!("{line:?} is held and nowhere"));
            };
            let available = position.available();
            if available < -position.backorder_limit && available < *before {
                return broken(
                    "no oversell",
                    format!("{line:?} was held and leaves {position:?}"),
                );
            }
        }
        Ok(())
    }
}

fn meta(state: &mut GroupState) -> Option<&mut Meta> {
    match state {
        GroupState::Meta(meta) => Some(meta),
        GroupState::Stock(_) => None,
    }
}

/// What a command would have its shard hold.
fn lines(command: &Command) -> Vec<&Line> {
    let (id, lines, over) = match &command.action {
        Action::Request(_, Operation::Reserve(it)) => (&it.id, &it.lines, &it.over),
        Action::Request(_, Operation::Amend(it)) => (&it.id, &it.lines, &it.over),
        Action::Basket(BasketCommand::HoldPart(part)) => {
            return part.lines.iter().map(|it| &it.line).collect();
        }
        Action::Request(..) | Action::Movements(_) | Action::Basket(_) => return Vec::new(),
    };
    let is_here = |line: &&Line| {
        let shards = over.as_ref().map(|over| over.shards);
        shards.is_none_or(|shards| line.sku.shard(shards) == id.shard())
    };
    lines.iter().filter(is_here).collect()
}

/// Takes down what is known from an index on.
fn note<T: Clone>(known: &mut Vec<(u64, T)>, index: u64, now: &T) {
    match known.last_mut() {
        Some((last, value)) if *last == index => value.clone_from(now),
        _ => known.push((index, now.clone())),
    }
}

/// What was known at an index.
fn as_of<T>(known: &[(u64, T)], index: u64) -> Option<&T> {
    let after = known.partition_point(|(from, _)| *from <= index);
    Some(&known[after.checked_sub(1)?].1)
}
