//! What is taken though there is hardly any room.

use stock_core::{Action, Command, Line, Location, Operation, ReservationLine, Sku};

use crate::entry::{self, Commands};
use crate::state::State;

/// Whether commands only end or keep what is there already, or state facts. One that amends a hold
/// to no more than it has keeps it.
pub(super) fn is_relief(state: &State, commands: &Commands) -> bool {
    let State::Stock(shard) = state else {
        return commands.is_relief;
    };
    let is_relief = |command: &Command| match &command.action {
        Action::Request(_, Operation::Amend(amend)) => {
            let held = shard.reservation(&amend.id);
            held.is_some_and(|held| is_no_more(&amend.lines, &held.lines))
        }
        action => entry::is_relief(action),
    };
    let mut read = commands.read();
    commands.is_relief
        || loop {
            match read.next_stock(&**shard) {
                Ok(Some(command)) if is_relief(&command) => {}
                Ok(Some(_)) | Err(_) => break false,
                Ok(None) => break true,
            }
        }
}

/// Whether lines ask at each place for no more than is held there.
fn is_no_more(wanted: &[Line], held: &[ReservationLine]) -> bool {
    wanted.iter().all(|line| {
        let at_place =
            |sku: &Sku, location: &Location| *sku == line.sku && *location == line.location;
        let wanted = wanted.iter().filter(|it| at_place(&it.sku, &it.location));
        let held = held.iter().filter(|it| at_place(&it.sku, &it.location));
        let wanted: i64 = wanted.map(|it| it.quantity.get()).sum();
        wanted <= held.map(|it| it.open).sum()
    })
}
