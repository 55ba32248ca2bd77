//! How large an answer can be, known before anything is done. A gRPC client takes 4 MiB unless it
//! is told otherwise: with a larger answer the work would be done, nobody could receive what came
//! of it, and each retry would fail the same way.

use prost::Message;
use stock_core::ReservationId;
use stock_core::limits::{COUNTER_MAX, IDENTIFIER_BYTES_MAX, LINES_MAX, QUANTITY_MAX};
use stock_proto::codec::MESSAGE_BYTES_MAX;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;

use crate::Rejection;

/// Bytes of the largest answer.
const ANSWER_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// The head of an answer that has seen every shard there can be, and group 0.
pub const HEADER_BYTES_MAX: usize = header(ReservationId::SHARDS_MAX as usize);

/// The head of an answer that has seen so many shards, and group 0: an index of each, the time and
/// the incarnation.
const fn header(shards: usize) -> usize {
    let index = inside(number(u32::MAX as u64) + number(u64::MAX));
    inside((shards + 1) * index + inside(2 * SIGNED) + text(16))
}

/// One position in an answer: names and counts.
pub const ITEM_BYTES_MAX: usize = inside(
    2 * text(IDENTIFIER_BYTES_MAX) + 2 * SIGNED + 3 * number(COUNTER_MAX as u64) + number(1),
);

/// A line of a basket in an answer but for its names. A line that is short tells more than one that
/// is held.
const LINE_BYTES_MAX: usize = number(LINES_MAX as u64 * QUANTITY_MAX as u64)
    + SIGNED
    + number((COUNTER_MAX + QUANTITY_MAX) as u64);

/// A reservation but for its lines: id, state, and three times, each of two numbers; and what its
/// caller calls it.
const RESERVATION_BYTES: usize =
    text(36) + number(1) + 3 * inside(2 * SIGNED) + 2 * text(IDENTIFIER_BYTES_MAX);

/// What the edge tells of a request that its shard refuses, or that it could not get an answer to.
pub const REFUSAL_BYTES_MAX: usize = 1_024;

/// A number that may be negative.
const SIGNED: usize = number(u64::MAX);

/// A basket of the longest names has an answer that can be received.
const _: () = assert!(
    LINES_MAX * inside(2 * text(IDENTIFIER_BYTES_MAX) + LINE_BYTES_MAX)
        + RESERVATION_BYTES
        + HEADER_BYTES_MAX
        < ANSWER_BYTES_MAX / 2
);

/// Refuses a batch whose answers, of which some are known already, could be larger than a client
/// takes.
pub fn check_batch(
    requests: &[api::ReserveRequest],
    known: &[Option<Slot>],
    shards: u32,
) -> Result<(), Rejection> {
    let of_each = requests.iter().zip(known).map(|(request, known)| {
        inside(match known {
            Some(Slot::Response(response)) => inside(response.encoded_len()),
            Some(Slot::Error(error)) => inside(error.encoded_len()),
            None => reserve(request).max(REFUSAL_BYTES_MAX),
        })
    });
    let bytes = header(shards as usize) + of_each.sum::<usize>();
    match bytes > ANSWER_BYTES_MAX {
        true => Err(Rejection::AnswerTooLarge {
            bytes,
            bytes_max: ANSWER_BYTES_MAX,
        }),
        false => Ok(()),
    }
}

/// The answer to a reserve, held or short, at most.
fn reserve(request: &api::ReserveRequest) -> usize {
    let lines = request
        .lines
        .iter()
        .map(|line| inside(text(line.sku.len()) + text(line.location().len()) + LINE_BYTES_MAX));
    let outcome = inside(lines.sum::<usize>() + RESERVATION_BYTES);
    inside(outcome)
}

/// A field with a number up to this. Fields up to 15 have a key of one byte.
const fn number(max: u64) -> usize {
    1 + varint(max)
}

/// A field with a text of so many bytes, or a message.
const fn text(bytes: usize) -> usize {
    1 + varint(bytes as u64) + bytes
}

/// As [`text`]: a message of so many bytes in another.
const fn inside(bytes: usize) -> usize {
    text(bytes)
}

const fn varint(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::embedded;
    use prost_types::{Duration, Timestamp};

    const LONGEST: usize = IDENTIFIER_BYTES_MAX;

    fn request(lines: usize, name_bytes: usize) -> api::ReserveRequest {
        let line = api::Line::at("s".repeat(name_bytes), "l".repeat(name_bytes), QUANTITY_MAX);
        api::ReserveRequest {
            lines: vec![line; lines],
            ..Default::default()
        }
    }

    fn held(request: &api::ReserveRequest) -> api::reserve_response::Outcome {
        let lines = request.lines.iter().map(|line| api::ReservationLine {
            sku: line.sku.clone(),
            location: line.location().to_owned(),
            quantity: QUANTITY_MAX * 100,
            open: QUANTITY_MAX * 100,
            ..Default::default()
        });
        let at = Timestamp {
            seconds: 253_402_300_799,
            nanos: 999_999_999,
        };
        api::reserve_response::Outcome::Reservation(api::Reservation {
            reservation_id: uuid::Uuid::max().to_string(),
            state: api::reservation::State::Expired.into(),
            lines: lines.collect(),
            expires_at: Some(at),
            expires_in: Some(Duration {
                seconds: 604_800,
                nanos: 999_999_999,
            }),
            created_at: Some(at),
            order_reference: Some("o".repeat(LONGEST)),
            channel: Some("c".repeat(LONGEST)),
        })
    }

    fn short(request: &api::ReserveRequest) -> api::reserve_response::Outcome {
        let lines = request.lines.iter().map(|line| api::ShortLine {
            sku: line.sku.clone(),
            location: line.location().to_owned(),
            requested: QUANTITY_MAX * 100,
            available: -COUNTER_MAX,
            reservable: COUNTER_MAX,
        });
        api::reserve_response::Outcome::Shortage(api::Shortage {
            lines: lines.collect(),
        })
    }

    fn answer(outcome: api::reserve_response::Outcome) -> Slot {
        Slot::Response(api::ReserveResponse {
            header: None,
            outcome: Some(outcome),
        })
    }

    fn bytes(slots: Vec<Slot>) -> usize {
        let results = slots
            .into_iter()
            .map(|slot| api::BatchReserveResult { result: Some(slot) });
        let results = results.collect();
        api::BatchReserveResponse {
            header: None,
            results,
        }
        .encoded_len()
    }

    #[test]
    fn no_answer_to_a_reserve_is_larger_than_was_thought() {
        for (lines, name_bytes) in [(1, 1), (1, LONGEST), (7, 30), (LINES_MAX, LONGEST)] {
            let request = request(lines, name_bytes);
            for outcome in [held(&request), short(&request)] {
                let found = bytes(vec![answer(outcome)]);
                let thought = inside(reserve(&request));
                assert!(found <= thought, "{found} of {thought}");
                // And not much smaller, so that nothing is refused that could be received.
                let more = RESERVATION_BYTES + 24 * lines;
                assert!(thought <= found + more, "{found} of {thought}");
            }
        }
    }

    #[test]
    fn a_batch_is_refused_where_its_answers_could_be_too_large_and_only_there() {
        let full = vec![request(LINES_MAX, 18); 960];
        let refused = check_batch(&full, &vec![None; 960], 8);
        assert!(matches!(refused, Err(Rejection::AnswerTooLarge { .. })));
        assert!(bytes(full.iter().map(|it| answer(held(it))).collect()) > ANSWER_BYTES_MAX);
        // What a shop's largest baskets are like, most of them.
        let usual = vec![request(24, 18); 1_000];
        assert!(check_batch(&usual, &vec![None; 1_000], 8).is_ok());
        // What is refused already has an answer of its own size.
        let error = embedded(Rejection::IncarnationOver);
        let known = vec![Some(Slot::Error(error)); 960];
        assert!(check_batch(&full, &known, 8).is_ok());
    }

    #[test]
    fn no_position_is_larger_than_was_thought() {
        let item = api::Availability {
            sku: "s".repeat(LONGEST),
            location: Some("l".repeat(LONGEST)),
            on_hand: -COUNTER_MAX,
            reserved: COUNTER_MAX,
            safety_stock: QUANTITY_MAX,
            backorder_limit: QUANTITY_MAX,
            available: -COUNTER_MAX,
            known: true,
        };
        let answer = api::GetAvailabilityResponse {
            header: None,
            items: vec![item],
        };
        let found = answer.encoded_len();
        assert!(found <= ITEM_BYTES_MAX, "{found} of {ITEM_BYTES_MAX}");
    }
}
