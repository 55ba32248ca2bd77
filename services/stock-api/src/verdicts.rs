//! The answer to a call of many lines: a verdict for each, in their order, and never more than a
//! client takes.

use std::collections::{BTreeMap, BTreeSet};

use stock_core::limits::{ENDANGERED_MAX, ENDANGERED_PER_CALL_MAX, IDENTIFIER_BYTES_MAX};
use stock_core::{Document, MovementLine};
use stock_proto::codec::MESSAGE_BYTES_MAX;
use stock_proto::stock::v1 as api;
use tonic_types::FieldViolation;

use crate::answer_size::HEADER_BYTES_MAX;
use crate::movement_lines::LINES_MAX;

/// Verdicts as they come.
#[derive(Default)]
pub struct Verdicts {
    lines: Vec<Option<api::LineVerdict>>,
}

impl Verdicts {
    /// Of how many lines, decided or not.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The place of a line that is decided later.
    pub fn wait(&mut self) -> usize {
        self.lines.push(None);
        self.lines.len() - 1
    }

    /// What became of the line at this place.
    pub fn decide(&mut self, place: usize, verdict: api::LineVerdict) {
        self.lines[place] = Some(verdict);
    }

    /// The next line is refused for this. Names, which may be what is wrong, are told as far as a
    /// name may be long.
    pub fn refuse(&mut self, document: &str, line: &str, violation: Option<FieldViolation>) {
        let error = violation.map(|violation| api::LineError {
            reason: api::ErrorReason::FieldInvalid.into(),
            field: violation.field,
            message: violation.description,
        });
        self.lines.push(Some(refused(document, line, error)));
    }

    /// The line at this place is refused: there is no such location.
    pub fn refuse_location(&mut self, place: usize, document: &Document, line: &MovementLine) {
        let error = api::LineError {
            reason: api::ErrorReason::UnknownLocation.into(),
            field: "location".to_owned(),
            message: format!("there is no location {}; put it first", line.location),
        };
        let verdict = refused(document.as_str(), line.line.as_str(), Some(error));
        self.decide(place, verdict);
    }

    /// All of them. Whoever is endangered is named once, though several lines endanger him and
    /// their shards decided about some of them apart from the others.
    pub fn into_answer(self) -> Vec<api::LineVerdict> {
        let mut verdicts: Vec<api::LineVerdict> = self.lines.into_iter().flatten().collect();
        let mut named = Named::default();
        for verdict in &mut verdicts {
            if let Some(found) = &mut verdict.discrepancy {
                named.keep_new(found);
            }
        }
        verdicts
    }
}

fn refused(document: &str, line: &str, error: Option<api::LineError>) -> api::LineVerdict {
    api::LineVerdict {
        document: beginning(document).to_owned(),
        line: beginning(line).to_owned(),
        verdict: api::line_verdict::Verdict::Refused.into(),
        error,
        ..Default::default()
    }
}

/// As much of a text as a name may have.
fn beginning(text: &str) -> &str {
    let mut end = text.len().min(IDENTIFIER_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Who was named as endangered, by position.
#[derive(Default)]
struct Named {
    positions: BTreeMap<(String, String), BTreeSet<String>>,
    in_all: usize,
}

impl Named {
    fn keep_new(&mut self, found: &mut api::Discrepancy) {
        if found.endangered_reservation_ids.is_empty() {
            return;
        }
        let position = (found.sku.clone(), found.location.clone());
        let here = self.positions.entry(position).or_default();
        found.endangered_reservation_ids.retain(|id| {
            let is_new = self.in_all < ENDANGERED_PER_CALL_MAX
                && here.len() < ENDANGERED_MAX
                && here.insert(id.clone());
            self.in_all += usize::from(is_new);
            is_new
        });
    }
}

/// Bytes of a verdict in an answer but for whom it names as endangered: four names of the largest
/// length, or two and why the line is refused.
const VERDICT_BYTES_MAX: usize = 391;

/// Bytes of the reservations that an answer names: each has 36 digits, their number and a key.
const ENDANGERED_BYTES_MAX: usize = ENDANGERED_PER_CALL_MAX * 38;

/// Whatever becomes of a call's lines, its answer can be received.
const _: () = assert!(
    LINES_MAX * VERDICT_BYTES_MAX + ENDANGERED_BYTES_MAX + HEADER_BYTES_MAX <= MESSAGE_BYTES_MAX
);

#[cfg(test)]
mod tests {
    use prost::Message;
    use stock_core::{
        Discrepancy, LineVerdict, Location, MovementKind, Refusal, ReservationId, Sku, Stamp,
    };

    use super::*;
    use crate::convert;
    use crate::fields::Fields;
    use crate::movement_lines::check_line;

    fn name() -> String {
        "n".repeat(IDENTIFIER_BYTES_MAX)
    }

    fn discrepancy(endangered: Vec<ReservationId>) -> Box<Discrepancy> {
        Box::new(Discrepancy {
            sku: Sku::new(&name()).unwrap(),
            location: Location::new(&name()).unwrap(),
            available: i64::MIN,
            short_by: i64::MAX,
            endangered,
        })
    }

    /// In an answer: with its key and its length.
    fn bytes(verdict: api::LineVerdict) -> usize {
        let verdicts = vec![verdict];
        api::RecordSaleResponse {
            header: None,
            verdicts,
        }
        .encoded_len()
    }

    #[test]
    fn no_verdict_is_larger_than_the_answer_has_room_for() {
        let largest = Stamp(u64::MAX);
        let (line, horizon) = (u32::MAX, largest);
        let verdicts = [
            LineVerdict::Recorded {
                discrepancy: Some(discrepancy(Vec::new())),
                ahead_ms: u64::MAX,
            },
            LineVerdict::Refused(Refusal::DocumentTooOld { horizon }),
            LineVerdict::Refused(Refusal::DocumentReused),
            LineVerdict::Refused(Refusal::DocumentMemoryFull),
            LineVerdict::Refused(Refusal::OccurredInFuture),
            LineVerdict::Refused(Refusal::UnknownSku { line }),
            LineVerdict::Refused(Refusal::CounterOutOfRange { line }),
            LineVerdict::Refused(Refusal::TooManyPositions),
        ];
        for verdict in verdicts {
            let told = convert::line_verdict(&name(), &name(), &verdict);
            let bytes = bytes(told);
            assert!(bytes <= VERDICT_BYTES_MAX, "{bytes}: {verdict:?}");
        }
        // Bad lines, whatever is wrong with them.
        let wild = "\u{10ffff}".repeat(99);
        let bad = api::MovementLine {
            line: wild.clone(),
            sku: wild.clone(),
            location: wild.clone(),
            quantity: i64::MIN,
            occurred_at: None,
        };
        for kind in [MovementKind::Receipt, MovementKind::Adjustment] {
            let mut fields = Fields::default();
            assert!(check_line(&mut fields, "", kind, &bad).is_none());
            for violation in fields.into_all() {
                let mut verdicts = Verdicts::default();
                verdicts.refuse(&wild, &bad.line, Some(violation));
                let told = verdicts.into_answer().remove(0);
                let bytes = bytes(told);
                assert!(bytes <= VERDICT_BYTES_MAX, "{bytes}");
            }
        }
    }

    #[test]
    fn whoever_is_endangered_is_named_once_and_there_is_a_bound_on_them_all() {
        let id = |number| ReservationId::compose(Stamp(1), 0, number);
        let mut verdicts = Verdicts::default();
        let mut tell = |line: &str, sku: &str, from: u64, to: u64| {
            let place = verdicts.wait();
            let found = Discrepancy {
                sku: Sku::new(sku).unwrap(),
                location: Location::new("A").unwrap(),
                ..*discrepancy((from..to).map(id).collect())
            };
            let recorded = LineVerdict::Recorded {
                discrepancy: Some(Box::new(found)),
                ahead_ms: 0,
            };
            verdicts.decide(place, convert::line_verdict("D", line, &recorded));
        };
        tell("1", "MUG", 0, 3);
        tell("2", "MUG", 0, 5);
        tell("3", "PEN", 0, 2);
        for sku in 0..11 {
            tell("4", &format!("S{sku}"), 0, 100);
        }
        let named: Vec<usize> = verdicts
            .into_answer()
            .iter()
            .map(|verdict| {
                let found = verdict.discrepancy.as_ref().unwrap();
                found.endangered_reservation_ids.len()
            })
            .collect();
        assert_eq!(named[..3], [3, 2, 2]);
        assert_eq!(named.iter().sum::<usize>(), ENDANGERED_PER_CALL_MAX);
        assert_eq!(named[named.len() - 2..], [93, 0]);
    }
}
