//! Answers for programs: the response message with the schema's field names, every count shown.

use serde_json::{Map, Value};
use stock_proto::stock::v1::{AdjustResponse, RecordReceiptsResponse, RecordSaleResponse};

use crate::answer::{Answer, Movement};
use crate::failure::Failure;
use crate::message::message;

impl Answer {
    /// One JSON object.
    pub(crate) fn json(&self) -> Result<String, Failure> {
        let value = self.value().map_err(Failure::Local)?;
        serde_json::to_string_pretty(&value).map_err(|error| Failure::Local(error.into()))
    }

    fn value(&self) -> anyhow::Result<Value> {
        match self {
            Self::Reservation {
                header,
                reservation,
            } => {
                // Flat: a script wants the id and the state, and there is only one reservation.
                let mut value = message(reservation)?;
                if let (Value::Object(fields), Some(header)) = (&mut value, header) {
                    fields.insert("header".into(), header.to_text().into());
                }
                Ok(value)
            }
            Self::Shortage { header, shortage } => {
                let mut fields = Map::new();
                fields.insert("shortage".into(), message(shortage)?);
                if let Some(header) = header {
                    fields.insert("header".into(), header.to_text().into());
                }
                Ok(fields.into())
            }
            Self::Movements {
                header,
                movement,
                verdicts,
                ..
            } => {
                let (header, verdicts) = (header.clone(), verdicts.clone());
                match movement {
                    Movement::Receipt => message(&RecordReceiptsResponse { header, verdicts }),
                    Movement::Sale => message(&RecordSaleResponse { header, verdicts }),
                    Movement::Adjustment => message(&AdjustResponse { header, verdicts }),
                }
            }
            Self::Listed(answer) => message(answer),
            Self::Availability(answer) => message(answer),
            Self::Location(answer) => message(answer),
            Self::Locations(answer) => message(answer),
            Self::Policy(answer) => message(answer),
            Self::Operation(operation) => operation.value(),
            Self::Context(told) => Ok(told.value()),
            Self::Text(text) => Ok(text.as_str().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::reservation::State;
    use stock_proto::stock::v1::{
        Availability, GetAvailabilityResponse, ListLocationsResponse, PutLocationResponse,
        Reservation, ReservationLine, ResponseHeader, SetPositionPolicyResponse, ShardIndex,
        Shortage,
    };

    use super::*;

    fn header() -> ResponseHeader {
        let (shard, index) = (3, u64::MAX);
        ResponseHeader {
            indexes: vec![ShardIndex { shard, index }],
            ..ResponseHeader::default()
        }
    }

    #[test]
    fn a_reservation_is_one_flat_object_in_the_schemas_order() {
        let mut reservation = Reservation {
            reservation_id: "id".into(),
            lines: vec![ReservationLine {
                sku: "milk".into(),
                location: "S7".into(),
                quantity: 2,
                open: 2,
                ..ReservationLine::default()
            }],
            expires_at: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 0,
            }),
            ..Reservation::default()
        };
        reservation.set_state(State::Held);
        let answer = Answer::Reservation {
            header: Some(header()),
            reservation,
        };
        let value = answer.value().expect("it has a JSON form");
        assert_eq!(
            value.to_string(),
            concat!(
                r#"{"reservation_id":"id","state":"STATE_HELD","#,
                r#""lines":[{"sku":"milk","location":"S7","quantity":2,"open":2,"#,
                r#""fulfilled":0,"released":0,"expired":0}],"#,
                r#""expires_at":"2027-01-15T08:00:00Z","header":"HEADER"}"#,
            )
            .replace("HEADER", &header().to_text())
        );
    }

    #[test]
    fn zero_counts_are_shown() {
        let answer = Answer::Availability(GetAvailabilityResponse {
            header: Some(header()),
            items: vec![Availability::default()],
        });
        let value = answer.value().expect("it has a JSON form");
        let item = &value["items"][0];
        for count in ["on_hand", "reserved", "available"] {
            assert_eq!(item[count], 0, "{count}");
        }
        assert_eq!(item["known"], false);
        assert_eq!(value["header"], header().to_text());
    }

    #[test]
    fn every_answer_has_a_json_form() {
        let movements = |movement| Answer::Movements {
            header: Some(header()),
            movement,
            document: String::new(),
            lines: Vec::new(),
            verdicts: Vec::new(),
        };
        for answer in [
            Answer::Shortage {
                header: None,
                shortage: Shortage::default(),
            },
            movements(Movement::Receipt),
            movements(Movement::Sale),
            movements(Movement::Adjustment),
            Answer::Location(PutLocationResponse::default()),
            Answer::Locations(ListLocationsResponse::default()),
            Answer::Policy(SetPositionPolicyResponse::default()),
        ] {
            if let Err(error) = answer.value() {
                panic!("{answer:?}: {error:#}");
            }
        }
    }
}
