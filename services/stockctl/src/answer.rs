//! What a command answered, and what that means for a script.

use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::{
    GetAvailabilityResponse, GetTopologyResponse, LineVerdict, ListLocationsResponse, MovementLine,
    PutLocationResponse, Reservation, SetPositionPolicyResponse, Shortage,
};

use crate::exit_code::{DONE, FAILED, INVALID, SHORT};
use crate::operate::answer::Operation;

#[derive(Debug)]
pub(crate) enum Answer {
    Reservation {
        reservation: Reservation,
        shard: u32,
        applied_index: u64,
    },
    Shortage {
        shortage: Shortage,
        shard: u32,
        applied_index: u64,
    },
    Availability(GetAvailabilityResponse),
    /// One verdict for each line, in order.
    Movements {
        movement: Movement,
        document: String,
        lines: Vec<MovementLine>,
        verdicts: Vec<LineVerdict>,
    },
    Location(PutLocationResponse),
    Locations(ListLocationsResponse),
    Policy(SetPositionPolicyResponse),
    Cluster(GetTopologyResponse),
    Operation(Operation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Movement {
    Receipt,
    Sale,
    Adjustment,
}

impl Answer {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Shortage { .. } => SHORT,
            Self::Movements { verdicts, .. } => of_verdicts(verdicts),
            Self::Reservation { .. }
            | Self::Availability(_)
            | Self::Location(_)
            | Self::Locations(_)
            | Self::Policy(_)
            | Self::Cluster(_) => DONE,
            Self::Operation(operation) if operation.is_alarming() => FAILED,
            Self::Operation(_) => DONE,
        }
    }
}

/// Invalid only where nothing but invalid input stood in the way: correcting it is then enough.
fn of_verdicts(verdicts: &[LineVerdict]) -> u8 {
    let refused: Vec<&LineVerdict> = verdicts
        .iter()
        .filter(|verdict| verdict.verdict() == Verdict::Refused)
        .collect();
    if refused.is_empty() {
        DONE
    } else if refused.iter().all(|verdict| is_invalid_input(verdict)) {
        INVALID
    } else {
        FAILED
    }
}

/// Whether the line would be refused in whatever state the stock is.
fn is_invalid_input(verdict: &LineVerdict) -> bool {
    let reason = verdict
        .error
        .as_ref()
        .map_or("", |error| error.reason.as_str());
    reason.starts_with("INVALID") || reason.ends_with("INVALID") || reason == "OCCURRED_IN_FUTURE"
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::LineError;

    use super::*;

    fn refused(reason: &str) -> LineVerdict {
        let mut verdict = LineVerdict {
            error: Some(LineError {
                reason: reason.into(),
                ..LineError::default()
            }),
            ..LineVerdict::default()
        };
        verdict.set_verdict(Verdict::Refused);
        verdict
    }

    #[test]
    fn a_refused_line_is_never_success() {
        let mut recorded = LineVerdict::default();
        recorded.set_verdict(Verdict::Recorded);
        let mut again = LineVerdict::default();
        again.set_verdict(Verdict::AlreadyRecorded);
        assert_eq!(of_verdicts(&[recorded.clone(), again]), DONE);
        assert_eq!(
            of_verdicts(&[recorded.clone(), refused("QUANTITY_INVALID")]),
            INVALID
        );
        assert_eq!(
            of_verdicts(&[refused("UNKNOWN_LOCATION"), refused("QUANTITY_INVALID")]),
            FAILED
        );
        assert_eq!(
            of_verdicts(&[recorded, refused("DOCUMENT_TOO_OLD")]),
            FAILED
        );
    }
}
