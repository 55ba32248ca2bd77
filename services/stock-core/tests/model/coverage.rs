//! A run that never met a case proves nothing about it: what happened is counted.

use std::collections::BTreeMap;
use std::fmt;

use stock_core::{
    Action, BasketCommand, BasketOutcome, Decision, LedgerEntry, LineVerdict, MovementKind,
    NotHeld, Operation, Outcome, Refusal, State,
};

use crate::world::Step;

/// How often each case must occur at least.
const ENOUGH: usize = 20;

#[derive(Default)]
pub(crate) struct Coverage {
    cases: BTreeMap<String, usize>,
}

impl Coverage {
    pub(crate) fn count(&mut self, step: &Step, outcome: &Outcome) {
        let what = match &step.command.action {
            Action::Request(_, operation) => operation_name(operation),
            Action::Movements(movements) => movement_name(movements.kind),
            Action::Basket(command) => basket_name(command),
        };
        if let Outcome::Movements(verdicts) = outcome {
            for verdict in verdicts {
                self.add(format!("{what}: {}", verdict_name(verdict)));
            }
        } else {
            let again = if step.again { ", again" } else { "" };
            self.add(format!("{what}: {}{again}", outcome_name(outcome)));
        }
    }

    pub(crate) fn count_entries(&mut self, ledger: &[LedgerEntry]) {
        for entry in ledger {
            self.add(format!("ledger: {:?}", entry.kind));
            if entry.discrepancy.is_some() {
                self.add(format!("ledger: {:?} with a discrepancy", entry.kind));
            }
        }
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        for (case, count) in other.cases {
            *self.cases.entry(case).or_default() += count;
        }
    }

    fn add(&mut self, case: String) {
        *self.cases.entry(case).or_default() += 1;
    }

    pub(crate) fn assert_enough(&self) {
        let mut seldom = Vec::new();
        for case in expected() {
            let count = self.cases.get(&case).copied().unwrap_or_default();
            if count < ENOUGH {
                seldom.push(format!("{case}: {count}"));
            }
        }
        assert!(seldom.is_empty(), "seen too seldom: {seldom:#?}");
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (case, count) in &self.cases {
            writeln!(f, "{count:>7}  {case}")?;
        }
        Ok(())
    }
}

fn expected() -> impl Iterator<Item = String> {
    let of = |what: &'static str, cases: &'static str| {
        cases
            .split('|')
            .map(move |case| format!("{what}: {}", case.trim()))
    };
    let requests = [
        (
            "reserve",
            "held | shortage | UnknownSku | ReservationIdTaken | held, again | shortage, again
             | UnknownSku, again | prepared | prepared, again | TooLate | Reconciling",
        ),
        (
            "confirm",
            "confirmed | confirmed, again | UnknownReservation | is confirmed | is fulfilled
             | is released | is expired",
        ),
        (
            "release",
            "held | confirmed | released | released, again | UnknownReservation | is fulfilled
             | is released | is expired | LineNotInReservation | LineAmbiguous | LineExceedsOpen",
        ),
        (
            "fulfill",
            "confirmed | fulfilled | fulfilled, again | UnknownReservation | is held
             | is fulfilled | is released | is expired | LineNotInReservation | LineAmbiguous
             | LineExceedsOpen | CounterOutOfRange",
        ),
        (
            "extend",
            "held | held, again | confirmed | UnknownReservation | NothingToExtend | is fulfilled
             | is released | is expired",
        ),
        (
            "amend",
            "held | held, again | shortage | UnknownSku | UnknownReservation | is confirmed
             | is fulfilled | is released | is expired | prepared | undecided | TooLate
             | Reconciling",
        ),
        ("policy", "policy | policy, again | CounterOutOfRange"),
    ];
    let movements = "recorded | recorded with a discrepancy | recorded, ahead | already recorded
         | already recorded with a discrepancy | DocumentReused | DocumentTooOld | \
         OccurredInFuture | CounterOutOfRange";
    let ledger = "Reserved | Confirmed | Released | Fulfilled | Expired | Extended | Receipt | Sale
         | Adjustment | Policy | Receipt with a discrepancy | Sale with a discrepancy
         | Adjustment with a discrepancy | Policy with a discrepancy";
    let baskets = [
        (
            "hold part",
            "held | short | shortage | UnknownSku | never | over | Reconciling | TooLate",
        ),
        ("probe", "held | short | never | over"),
        ("follow", "done | missing"),
        ("decide held", "done"),
        ("decide short", "done"),
        ("decide refused", "done"),
        ("decide gone", "done"),
        ("acknowledge", "done"),
        ("ask", "known | ended | gone"),
        ("recovered", "done"),
        ("tell anew", "done | telling"),
        ("told anew", "done"),
    ];
    let every_request = "RequestReused | RequestTooOld | RequestFromFuture";
    requests
        .into_iter()
        .flat_map(move |(what, cases)| of(what, cases).chain(of(what, every_request)))
        .chain(
            ["receipt", "sale", "adjustment"]
                .into_iter()
                .flat_map(move |what| of(what, movements)),
        )
        .chain(of("sale", "UnknownSku").chain(of("adjustment", "UnknownSku")))
        .chain(of("ledger", ledger))
        .chain(
            baskets
                .into_iter()
                .flat_map(move |(what, cases)| of(what, cases)),
        )
}

fn operation_name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Reserve(_) => "reserve",
        Operation::Confirm(_) => "confirm",
        Operation::Release(_) => "release",
        Operation::Fulfill(_) => "fulfill",
        Operation::Extend(_) => "extend",
        Operation::Amend(_) => "amend",
        Operation::SetPolicy(_) => "policy",
    }
}

fn movement_name(kind: MovementKind) -> &'static str {
    match kind {
        MovementKind::Receipt => "receipt",
        MovementKind::Sale => "sale",
        MovementKind::Adjustment => "adjustment",
    }
}

fn outcome_name(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reservation(reservation) => state_name(reservation.state),
        Outcome::Shortage(_) => "shortage".to_string(),
        Outcome::Policy(_) => "policy".to_string(),
        Outcome::Movements(_) => "movements".to_string(),
        Outcome::Refused(refusal) => refusal_name(refusal),
        Outcome::Prepared(_) => "prepared".to_string(),
        Outcome::Undecided(_) => "undecided".to_string(),
        Outcome::Basket(BasketOutcome::NotHeld(why)) => match why {
            NotHeld::Short(_) => "short".to_string(),
            NotHeld::Refused(refusal) => refusal_name(refusal),
            NotHeld::Gone => "never".to_string(),
        },
        Outcome::Basket(BasketOutcome::AllHeld(_)) => "all held".to_string(),
        Outcome::Basket(BasketOutcome::Ended(follow)) => match follow.lines.is_empty() {
            true => "gone".to_string(),
            false => "ended".to_string(),
        },
        Outcome::Basket(outcome) => format!("{outcome:?}").to_lowercase(),
    }
}

fn basket_name(command: &BasketCommand) -> &'static str {
    match command {
        BasketCommand::HoldPart(_) => "hold part",
        BasketCommand::Probe(_) => "probe",
        BasketCommand::Follow(_) => "follow",
        BasketCommand::Decide(decide) => match decide.decision {
            Decision::Held => "decide held",
            Decision::NotHeld(NotHeld::Short(_)) => "decide short",
            Decision::NotHeld(NotHeld::Refused(_)) => "decide refused",
            Decision::NotHeld(NotHeld::Gone) => "decide gone",
        },
        BasketCommand::Acknowledge(_) => "acknowledge",
        BasketCommand::Ask(_) => "ask",
        BasketCommand::Recovered(_) => "recovered",
        BasketCommand::TellAnew(_) => "tell anew",
        BasketCommand::ToldAnew(_) => "told anew",
        BasketCommand::AllHeld(_) => "all held",
    }
}

fn verdict_name(verdict: &LineVerdict) -> String {
    match verdict {
        LineVerdict::Recorded { ahead_ms: 1.., .. } => "recorded, ahead".to_string(),
        LineVerdict::Recorded {
            discrepancy: None, ..
        } => "recorded".to_string(),
        LineVerdict::Recorded { .. } => "recorded with a discrepancy".to_string(),
        LineVerdict::AlreadyRecorded { discrepancy: None } => "already recorded".to_string(),
        LineVerdict::AlreadyRecorded { .. } => "already recorded with a discrepancy".to_string(),
        LineVerdict::Refused(refusal) => refusal_name(refusal),
    }
}

fn refusal_name(refusal: &Refusal) -> String {
    if let Refusal::WrongState { state } = refusal {
        return format!("is {}", state_name(*state));
    }
    // The name of the variant, without its fields.
    let text = format!("{refusal:?}");
    text.split(' ').next().unwrap_or_default().to_string()
}

fn state_name(state: State) -> String {
    format!("{state:?}").to_lowercase()
}
