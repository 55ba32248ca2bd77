//! One entry of a log, applied to the state it belongs to: the same way by a replica that runs and
//! where the state of a stopped one is brought back.

use stock_cluster::registry::codec;
use stock_core::{At, Command, LedgerEntry, Location};

use crate::answer::{Outcome, Outcomes};
use crate::entry::{self, DecodeError, Entry};
use crate::state::State;

/// What entries have changed, for whoever wants to know.
#[derive(Debug, Default)]
pub struct Changed {
    /// Positions, in the order in which they changed.
    pub ledger: Vec<LedgerEntry>,
    /// Locations that are there now. Some may have been before.
    pub locations: Vec<Location>,
    /// The memory for an entry's commands.
    commands: Vec<Command>,
}

/// Applies the entry of this index. Time never goes back, though a new leader's clock may. Returns
/// an outcome for each command.
///
/// # Errors
///
/// A command is not understood. The state is then of no further use.
pub fn apply(
    state: &mut State,
    index: u64,
    entry: &Entry<'_>,
    changed: &mut Changed,
) -> Result<Outcomes, DecodeError> {
    let moment = entry.moment.after(state.moment());
    let at = |ordinal: usize| At {
        index,
        ordinal: ordinal as u32,
        moment,
    };
    let mut commands = entry.commands.clone();
    let mut outcomes = Outcomes::new();
    match state {
        State::Stock(shard) => {
            shard.advance(moment, &mut changed.ledger);
            // What an entry that could not be read has left there.
            changed.commands.clear();
            while let Some(command) = commands.next_stock(&**shard)? {
                changed.commands.push(command);
            }
            std::hint::black_box(shard.look_ahead(&changed.commands));
            for command in changed.commands.drain(..) {
                let at = at(outcomes.len());
                let outcome = shard.apply(at, command, &mut changed.ledger);
                outcomes.push(Outcome::Stock(outcome));
            }
        }
        State::Meta(meta) => {
            meta.catalog.advance(moment);
            meta.registry.advance(moment);
            while let Some(command) = commands.next_meta()? {
                let ordinal = outcomes.len();
                if codec::is_registry_command(&command) {
                    let command = codec::decode_command(&command)?;
                    let outcome = meta.registry.apply(at(ordinal), command);
                    outcomes.push(Outcome::Registry(outcome));
                    continue;
                }
                let command = entry::decode_catalog(ordinal, &command)?;
                let location = command.put.location.clone();
                let outcome = meta.catalog.apply(at(ordinal), command);
                if meta.catalog.location(&location).is_some() {
                    changed.locations.push(location);
                }
                outcomes.push(Outcome::Catalog(outcome));
            }
        }
    }
    Ok(outcomes)
}
