//! Answers for people.

use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::reservation::State;
use stock_proto::stock::v1::{
    Availability, Discrepancy, LineVerdict, ListReservationsResponse, Location, MovementLine,
    Reservation, ResponseHeader, SetPositionPolicyResponse, Shortage, location,
};

use crate::answer::{Answer, Movement};
use crate::columns::{Columns, whole_seconds};
use crate::notation::moment;

impl Answer {
    /// Text without a last line break.
    pub(crate) fn table(&self) -> String {
        match self {
            Self::Reservation {
                header,
                reservation,
            } => as_of(reservation_table(reservation), header.as_ref()),
            Self::Shortage { header, shortage } => as_of(shortage_table(shortage), header.as_ref()),
            Self::Listed(answer) => as_of(listed_table(answer), answer.header.as_ref()),
            Self::Availability(answer) => {
                as_of(availability_table(&answer.items), answer.header.as_ref())
            }
            Self::Movements {
                header,
                movement,
                document,
                lines,
                verdicts,
            } => {
                let text = verdict_table(lines, verdicts);
                let at = lines.first().and_then(|line| line.occurred_at);
                let at = at.map_or_else(String::new, |at| format!(" of {}", moment(at)));
                let text = format!("{} {document}{at}\n\n{text}", document_name(*movement));
                as_of(text, header.as_ref())
            }
            Self::Location(answer) => location_table(answer.location.as_slice()),
            Self::Locations(answer) => {
                if answer.locations.is_empty() {
                    return "No locations yet. Put one: stockctl location put ID --type store"
                        .into();
                }
                location_table(&answer.locations)
            }
            Self::Policy(answer) => as_of(policy_table(answer), answer.header.as_ref()),
            Self::Operation(operation) => operation.table(),
            Self::Context(told) => told.table(),
            Self::Text(text) => text.trim_end().to_owned(),
        }
    }
}

fn reservation_table(reservation: &Reservation) -> String {
    let mut text = format!(
        "Reservation {}  {}\n",
        reservation.reservation_id,
        state_name(reservation.state())
    );
    if let Some(created_at) = &reservation.created_at {
        text.push_str(&format!("created  {created_at}\n"));
    }
    if let Some(expires_at) = &reservation.expires_at {
        text.push_str(&format!("expires  {expires_at}"));
        if let Some(left) = reservation.expires_in.and_then(whole_seconds) {
            text.push_str(&format!("  (in {left})"));
        }
        text.push('\n');
    }
    if let Some(order) = &reservation.order_reference {
        text.push_str(&format!("order    {order}\n"));
    }
    if let Some(channel) = &reservation.channel {
        text.push_str(&format!("channel  {channel}\n"));
    }
    let mut table = Columns::new(&[
        "SKU",
        "LOCATION",
        ">QUANTITY",
        ">OPEN",
        ">FULFILLED",
        ">RELEASED",
        ">EXPIRED",
    ]);
    for line in &reservation.lines {
        table.row([
            line.sku.clone(),
            line.location.clone(),
            line.quantity.to_string(),
            line.open.to_string(),
            line.fulfilled.to_string(),
            line.released.to_string(),
            line.expired.to_string(),
        ]);
    }
    format!("{text}\n{}", table.finish())
}

fn listed_table(answer: &ListReservationsResponse) -> String {
    let mut table = Columns::new(&[
        "RESERVATION",
        "STATE",
        "ORDER",
        "CHANNEL",
        "CREATED",
        "EXPIRES",
        "OPEN",
    ]);
    for reservation in &answer.reservations {
        let open = reservation.lines.iter().filter(|line| line.open > 0);
        let open = open.map(|line| format!("{}@{}={}", line.sku, line.location, line.open));
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        let time = |at: Option<prost_types::Timestamp>| at.map_or_else(|| "-".into(), moment);
        table.row([
            reservation.reservation_id.clone(),
            state_name(reservation.state()).to_owned(),
            or_dash(&reservation.order_reference),
            or_dash(&reservation.channel),
            time(reservation.created_at),
            time(reservation.expires_at),
            open.collect::<Vec<_>>().join(" "),
        ]);
    }
    let text = match answer.reservations.len() {
        0 => "No reservation is like that.".to_owned(),
        _ => table.finish(),
    };
    match answer.next_page_token.is_empty() {
        true => text,
        false => format!("{text}\n\nThere may be more: raise --limit."),
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Unspecified => "-",
        State::Held => "HELD",
        State::Confirmed => "CONFIRMED",
        State::Fulfilled => "FULFILLED",
        State::Released => "RELEASED",
        State::Expired => "EXPIRED",
        State::Pending => "PENDING",
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "-",
        Verdict::Recorded => "RECORDED",
        Verdict::AlreadyRecorded => "ALREADY_RECORDED",
        Verdict::Refused => "REFUSED",
    }
}

fn shortage_table(shortage: &Shortage) -> String {
    let mut table = Columns::new(&["SKU", "LOCATION", ">REQUESTED", ">AVAILABLE", ">RESERVABLE"]);
    for line in &shortage.lines {
        table.row([
            line.sku.clone(),
            line.location.clone(),
            line.requested.to_string(),
            line.available.to_string(),
            line.reservable.to_string(),
        ]);
    }
    let (count, verb) = match shortage.lines.len() {
        1 => ("1 line".to_owned(), "is"),
        more => (format!("{more} lines"), "are"),
    };
    format!(
        "Nothing was held: {count} {verb} short.\n\n{}",
        table.finish()
    )
}

fn availability_table(items: &[Availability]) -> String {
    let mut table = Columns::new(&[
        "SKU",
        "LOCATION",
        ">AVAILABLE",
        ">ON HAND",
        ">RESERVED",
        ">SAFETY",
        ">BACKORDER",
    ]);
    for item in items {
        let location = match (item.known, &item.location) {
            (_, None) => "(unknown SKU)".to_owned(),
            (false, Some(location)) => format!("{location} (never stocked)"),
            (true, Some(location)) => location.to_owned(),
        };
        table.row([
            item.sku.clone(),
            location,
            item.available.to_string(),
            item.on_hand.to_string(),
            item.reserved.to_string(),
            item.safety_stock.to_string(),
            item.backorder_limit.to_string(),
        ]);
    }
    table.finish()
}

fn verdict_table(lines: &[MovementLine], verdicts: &[LineVerdict]) -> String {
    let mut table = Columns::new(&[">LINE", "SKU", "LOCATION", ">QUANTITY", "VERDICT", "REMARK"]);
    for (line, verdict) in lines.iter().zip(verdicts) {
        table.row([
            line.line.clone(),
            line.sku.clone(),
            line.location.clone(),
            line.quantity.to_string(),
            verdict_name(verdict.verdict()).to_owned(),
            remark(verdict),
        ]);
    }
    table.finish()
}

fn remark(verdict: &LineVerdict) -> String {
    if let Some(error) = &verdict.error {
        let field = if error.field.is_empty() {
            String::new()
        } else {
            format!("{}: ", error.field)
        };
        return format!("{field}{} ({})", error.message, error.reason().text());
    }
    let mut remarks = Vec::new();
    if let Some(ahead) = &verdict.clock_ahead {
        remarks.push(format!(
            "the clock it was taken from is {} s ahead",
            ahead.seconds
        ));
    }
    remarks.extend(verdict.discrepancy.as_ref().map(amiss));
    remarks.join("; ")
}

fn amiss(discrepancy: &Discrepancy) -> String {
    let endangered = &discrepancy.endangered_reservation_ids;
    let mut text = format!(
        "available is now {}, {} too few",
        discrepancy.available, discrepancy.short_by
    );
    if !endangered.is_empty() {
        text.push_str(&format!("; endangers {}", endangered.join(", ")));
    }
    text
}

fn location_table(locations: &[Location]) -> String {
    let mut table = Columns::new(&["ID", "TYPE", "NAME", ">LATITUDE", ">LONGITUDE", "GLN"]);
    for location in locations {
        let kind = match location.r#type() {
            location::Type::Warehouse => "warehouse",
            location::Type::Store => "store",
            location::Type::Unspecified => "-",
        };
        let degrees = |value: Option<f64>| value.map_or_else(|| "-".into(), |d| format!("{d:.6}"));
        table.row([
            location.location_id.clone(),
            kind.to_owned(),
            location.name.clone(),
            degrees(location.coordinates.map(|place| place.latitude)),
            degrees(location.coordinates.map(|place| place.longitude)),
            location.gln.clone().unwrap_or_default(),
        ]);
    }
    table.finish()
}

fn policy_table(answer: &SetPositionPolicyResponse) -> String {
    let mut table = Columns::new(&[">SAFETY", ">BACKORDER", ">AVAILABLE"]);
    let policy = answer.policy.unwrap_or_default();
    table.row([
        policy.safety_stock.to_string(),
        policy.backorder_limit.to_string(),
        answer.available.to_string(),
    ]);
    match &answer.discrepancy {
        None => table.finish(),
        Some(found) => format!("{}\n\n{}", table.finish(), amiss(found)),
    }
}

fn document_name(movement: Movement) -> &'static str {
    match movement {
        Movement::Receipt => "Receipt",
        Movement::Sale => "Sale",
        Movement::Adjustment => "Adjustment",
    }
}

/// What is told, and what to pass on to read after it.
fn as_of(text: String, header: Option<&ResponseHeader>) -> String {
    match header {
        Some(header) => format!("{text}\n\nas of {}", header.to_text()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::{
        ErrorReason, GetAvailabilityResponse, LineError, ReservationLine, ShardIndex, ShortLine,
        reservation,
    };

    use super::*;

    fn header() -> ResponseHeader {
        let (shard, index) = (3, 17);
        ResponseHeader {
            indexes: vec![ShardIndex { shard, index }],
            ..ResponseHeader::default()
        }
    }

    #[test]
    fn a_reservation_reads_from_top_to_bottom() {
        let mut reservation = Reservation {
            reservation_id: "01997a3c".into(),
            lines: vec![ReservationLine {
                sku: "milk-1l".into(),
                location: "store-7".into(),
                quantity: 12,
                open: 10,
                fulfilled: 2,
                ..ReservationLine::default()
            }],
            expires_at: Some(prost_types::Timestamp {
                seconds: 1_800_000_000,
                nanos: 0,
            }),
            expires_in: Some(prost_types::Duration {
                seconds: 899,
                nanos: 900_000_000,
            }),
            ..Reservation::default()
        };
        reservation.set_state(reservation::State::Held);
        let answer = Answer::Reservation {
            header: Some(header()),
            reservation,
        };
        assert_eq!(
            answer.table(),
            "\
Reservation 01997a3c  HELD
expires  2027-01-15T08:00:00Z  (in 15m)

SKU      LOCATION  QUANTITY  OPEN  FULFILLED  RELEASED  EXPIRED
milk-1l  store-7         12    10          2         0        0

as of HEADER"
                .replace("HEADER", &header().to_text())
        );
    }

    #[test]
    fn a_shortage_says_what_there_is() {
        let answer = Answer::Shortage {
            shortage: Shortage {
                lines: vec![ShortLine {
                    sku: "milk-1l".into(),
                    location: "store-7".into(),
                    requested: 5,
                    available: -1,
                    reservable: 0,
                }],
            },
            header: Some(header()),
        };
        assert_eq!(
            answer.table(),
            "\
Nothing was held: 1 line is short.

SKU      LOCATION  REQUESTED  AVAILABLE  RESERVABLE
milk-1l  store-7           5         -1           0

as of HEADER"
                .replace("HEADER", &header().to_text())
        );
    }

    #[test]
    fn a_refused_line_says_why() {
        let lines = vec![MovementLine {
            line: "1".into(),
            sku: "milk".into(),
            location: "S9".into(),
            quantity: 3,
            occurred_at: Some(prost_types::Timestamp {
                seconds: 1_796_000_000,
                nanos: 0,
            }),
        }];
        let mut verdict = LineVerdict {
            error: Some(LineError {
                reason: ErrorReason::UnknownLocation.into(),
                field: "location".into(),
                message: "there is no location S9".into(),
            }),
            ..LineVerdict::default()
        };
        verdict.set_verdict(Verdict::Refused);
        let answer = Answer::Movements {
            header: None,
            movement: Movement::Receipt,
            document: "note-1".into(),
            lines,
            verdicts: vec![verdict],
        };
        assert_eq!(
            answer.table(),
            "\
Receipt note-1 of 2026-11-30T00:53:20.000Z

LINE  SKU   LOCATION  QUANTITY  VERDICT  REMARK
   1  milk  S9               3  REFUSED  location: there is no location S9 \
             (UNKNOWN_LOCATION)"
        );
    }

    #[test]
    fn unknown_things_are_marked() {
        let answer = Answer::Availability(GetAvailabilityResponse {
            header: None,
            items: vec![Availability {
                sku: "nothing".into(),
                ..Availability::default()
            }],
        });
        assert!(answer.table().contains("(unknown SKU)"));
    }
}
