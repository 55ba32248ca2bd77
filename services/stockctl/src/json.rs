//! Answers for programs: the response message with the schema's field names, every count shown.

use serde_json::{Map, Value, json};
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
                reservation,
                shard,
                applied_index,
            } => {
                // Flat: a script wants the id and the state, and there is only one reservation.
                let mut value = message("Reservation", reservation)?;
                if let Value::Object(fields) = &mut value {
                    add_place(fields, *shard, *applied_index);
                }
                Ok(value)
            }
            Self::Shortage {
                shortage,
                shard,
                applied_index,
            } => {
                let mut fields = Map::new();
                fields.insert("shortage".into(), message("Shortage", shortage)?);
                add_place(&mut fields, *shard, *applied_index);
                Ok(fields.into())
            }
            Self::Movements {
                movement, verdicts, ..
            } => {
                let verdicts = verdicts.clone();
                match movement {
                    Movement::Receipt => message(
                        "RecordReceiptsResponse",
                        &RecordReceiptsResponse { verdicts },
                    ),
                    Movement::Sale => {
                        message("RecordSaleResponse", &RecordSaleResponse { verdicts })
                    }
                    Movement::Adjustment => message("AdjustResponse", &AdjustResponse { verdicts }),
                }
            }
            Self::Availability(answer) => message("GetAvailabilityResponse", answer),
            Self::Location(answer) => message("PutLocationResponse", answer),
            Self::Locations(answer) => message("ListLocationsResponse", answer),
            Self::Policy(answer) => message("SetPositionPolicyResponse", answer),
            Self::Cluster(answer) => message("GetTopologyResponse", answer),
            Self::Operation(operation) => operation.value(),
        }
    }
}

fn add_place(fields: &mut Map<String, Value>, shard: u32, applied_index: u64) {
    fields.insert("shard".into(), json!(shard));
    fields.insert("applied_index".into(), json!(applied_index));
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::reservation::State;
    use stock_proto::stock::v1::{
        Availability, GetAvailabilityResponse, GetTopologyResponse, ListLocationsResponse,
        PutLocationResponse, Reservation, ReservationLine, SetPositionPolicyResponse, Shortage,
    };

    use super::*;

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
            reservation,
            shard: 3,
            applied_index: u64::MAX,
        };
        let value = answer.value().expect("it has a JSON form");
        assert_eq!(
            value.to_string(),
            concat!(
                r#"{"reservation_id":"id","state":"HELD","lines":[{"sku":"milk","location":"S7","#,
                r#""quantity":2,"open":2,"fulfilled":0,"released":0,"expired":0}],"#,
                r#""expires_at":"2027-01-15T08:00:00Z","shard":3,"#,
                r#""applied_index":18446744073709551615}"#,
            )
        );
    }

    #[test]
    fn zero_counts_are_shown() {
        let answer = Answer::Availability(GetAvailabilityResponse {
            items: vec![Availability::default()],
        });
        let value = answer.value().expect("it has a JSON form");
        let item = &value["items"][0];
        for count in ["on_hand", "reserved", "available", "shard", "applied_index"] {
            assert_eq!(item[count], 0, "{count}");
        }
        assert_eq!(item["known"], false);
    }

    #[test]
    fn every_answer_has_a_json_form() {
        let movements = |movement| Answer::Movements {
            movement,
            document: String::new(),
            lines: Vec::new(),
            verdicts: Vec::new(),
        };
        for answer in [
            Answer::Shortage {
                shortage: Shortage::default(),
                shard: 1,
                applied_index: 2,
            },
            movements(Movement::Receipt),
            movements(Movement::Sale),
            movements(Movement::Adjustment),
            Answer::Location(PutLocationResponse::default()),
            Answer::Locations(ListLocationsResponse::default()),
            Answer::Policy(SetPositionPolicyResponse::default()),
            Answer::Cluster(GetTopologyResponse::default()),
        ] {
            if let Err(error) = answer.value() {
                panic!("{answer:?}: {error:#}");
            }
        }
    }
}
