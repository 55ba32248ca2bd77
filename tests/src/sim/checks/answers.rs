//! Who was answered was told the truth, and as new a truth as was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use stock_core::{
    CatalogOutcome, Filter, Listed, Outcome, Position, Principal, PutLocation, Reservation,
    ReservationId, Sku,
};
use stock_node::answer::{Freshness, Listing, Outcome as GroupOutcome};

use super::history::{AnyCommand, History};
use super::{Checked, broken};

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Positions(Sku, Option<Vec<Position>>),
    Reservation(ReservationId, Option<Arc<Reservation>>),
    Listed(Arc<Listing>, Listed),
    Locations(Vec<PutLocation>),
}

/// Commands were answered: with what the log says of them, at the index it says, and after
/// everything that had been answered before they were sent.
pub(crate) fn commands(
    history: &History,
    sent: &[AnyCommand],
    index: u64,
    outcomes: &[GroupOutcome],
    answered_before: u64,
) -> Checked {
    if index <= answered_before {
        return broken(
            "real time",
            format!(
                "{sent:?} is answered at index {index}, but index {answered_before} was answered \
                 before it was sent"
            ),
        );
    }
    let Some(entry) = history.entry(index) else {
        return broken(
            "answers",
            format!("{sent:?} is answered at index {index}, which nobody has committed"),
        );
    };
    let is_told = |window: &[(AnyCommand, GroupOutcome)]| {
        window
            .iter()
            .zip(sent.iter().zip(outcomes))
            .all(|((command, outcome), (sent, told))| {
                command == sent && as_forwarded(outcome) == as_forwarded(told)
            })
    };
    if outcomes.len() == sent.len() && entry.commands.windows(sent.len()).any(is_told) {
        return Ok(());
    }
    broken(
        "answers",
        format!(
            "{sent:?} is answered {outcomes:?} at index {index}, where the log has {:?}",
            entry.commands
        ),
    )
}

/// A read was answered.
pub(crate) fn read(
    history: &History,
    freshness: Freshness,
    index: u64,
    found: &Found,
    answered_before: u64,
) -> Checked {
    let least = match freshness {
        Freshness::Near => 0,
        Freshness::AtLeast(least) => least,
        Freshness::Linearizable { at_least } => answered_before.max(at_least),
    };
    if index < least {
        return broken(
            "reads",
            format!("{found:?} is of index {index}; {freshness:?} needs {least}"),
        );
    }
    let is_so = match found {
        Found::Positions(sku, positions) => history.positions(sku, index) == positions.as_deref(),
        Found::Reservation(id, reservation) => {
            history.reservation(id, index) == reservation.as_ref()
        }
        Found::Listed(asked, listed) => are_listed(history, index, asked, listed),
        Found::Locations(locations) => history.locations(index) == locations.as_slice(),
    };
    if is_so {
        return Ok(());
    }
    let truth = match found {
        Found::Positions(sku, _) => format!("{:?}", history.positions(sku, index)),
        Found::Reservation(id, _) => format!("{:?}", history.reservation(id, index)),
        Found::Listed(asked, _) => format!("{:?}", wanted(history, index, &asked.filter)),
        Found::Locations(_) => format!("{:?}", history.locations(index)),
    };
    broken(
        "reads",
        format!("{found:?} was read at index {index}; the log says {truth}"),
    )
}

/// A page holds nothing twice and nothing that was not looked for. Where it was asked for from the
/// beginning and is the last, it holds all; of an order, where ids are in order, all that belongs
/// on it.
fn are_listed(history: &History, index: u64, asked: &Listing, listed: &Listed) -> bool {
    let all = wanted(history, index, &asked.filter);
    let found: BTreeMap<_, _> = listed.found.iter().map(|it| (it.id, it)).collect();
    let are_true = found.iter().all(|(id, it)| all.get(id) == Some(it));
    let is_a_page = found.len() == listed.found.len() && found.len() <= asked.found_max;
    let is_whole = match &asked.filter.order_reference {
        Some(_) => {
            let behind = all
                .keys()
                .filter(|id| asked.after.is_none_or(|after| **id > after));
            let rest = behind.clone().count() > found.len();
            found.keys().eq(behind.take(asked.found_max)) && listed.more_after.is_some() == rest
        }
        None => asked.after.is_some() || listed.more_after.is_some() || found.keys().eq(all.keys()),
    };
    are_true && is_a_page && is_whole
}

/// What was looked for, as it was when this index was applied.
fn wanted<'a>(
    history: &'a History,
    index: u64,
    filter: &Filter,
) -> BTreeMap<ReservationId, &'a Arc<Reservation>> {
    let all = history.reservations(index);
    let wanted = all.filter(|reservation| filter.takes(reservation));
    wanted
        .map(|reservation| (reservation.id, reservation))
        .collect()
}

/// What is left of an outcome on its way over another node: not who holds, and of a refusal not in
/// which kind of group.
fn as_forwarded(outcome: &GroupOutcome) -> GroupOutcome {
    match (outcome, Principal::new("anybody")) {
        (GroupOutcome::Stock(Outcome::Reservation(reservation)), Ok(principal)) => {
            let mut reservation = Reservation::clone(reservation);
            reservation.principal = principal;
            GroupOutcome::Stock(Outcome::Reservation(Arc::new(reservation)))
        }
        (GroupOutcome::Catalog(CatalogOutcome::Refused(refusal)), _) => {
            GroupOutcome::Stock(Outcome::Refused(*refusal))
        }
        _ => outcome.clone(),
    }
}
