//! What a command answered, and what that means for a script.

use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::{
    ErrorReason, GetAvailabilityResponse, LineError, LineVerdict, ListLocationsResponse,
    ListReservationsResponse, MovementLine, PutLocationResponse, Reservation, ResponseHeader,
    SetPositionPolicyResponse, Shortage,
};

use crate::context::Told;
use crate::exit_code::{DONE, FAILED, INVALID, SHORT};
use crate::operate::answer::Operation;

#[derive(Debug)]
pub(crate) enum Answer {
    Reservation {
        header: Option<ResponseHeader>,
        reservation: Reservation,
    },
    Shortage {
        header: Option<ResponseHeader>,
        shortage: Shortage,
    },
    /// Those that were found; with a token where there may be more.
    Listed(ListReservationsResponse),
    Availability(GetAvailabilityResponse),
    /// One verdict for each line, in order.
    Movements {
        header: Option<ResponseHeader>,
        movement: Movement,
        document: String,
        lines: Vec<MovementLine>,
        verdicts: Vec<LineVerdict>,
    },
    Location(PutLocationResponse),
    Locations(ListLocationsResponse),
    Policy(SetPositionPolicyResponse),
    Operation(Operation),
    Context(Told),
    /// What is of no cluster.
    Text(String),
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
            | Self::Listed(_)
            | Self::Availability(_)
            | Self::Location(_)
            | Self::Locations(_)
            | Self::Policy(_)
            | Self::Context(_)
            | Self::Text(_) => DONE,
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
    let reason = verdict.error.as_ref().map(LineError::reason);
    matches!(
        reason,
        Some(ErrorReason::FieldInvalid | ErrorReason::OccurredInFuture)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: ErrorReason) -> LineVerdict {
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
            of_verdicts(&[recorded.clone(), refused(ErrorReason::FieldInvalid)]),
            INVALID
        );
        assert_eq!(
            of_verdicts(&[
                refused(ErrorReason::UnknownLocation),
                refused(ErrorReason::FieldInvalid)
            ]),
            FAILED
        );
        assert_eq!(
            of_verdicts(&[recorded, refused(ErrorReason::DocumentTooOld)]),
            FAILED
        );
    }
}
