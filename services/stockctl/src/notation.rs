//! `SKU@LOC=QTY` and its shorter forms. The last `@` and the last `=` count, since SKUs may have
//! both, and locations neither. Only the form is checked here; which names and quantities
//! are good is the cluster's to say, so that there is one rule and one message.

use std::str::FromStr;
use std::time::SystemTime;

use prost_types::Timestamp;
use stock_proto::stock::v1::{Line, MovementLine, PartialLine, PositionKey};

/// `SKU@LOC=QTY`; the quantity may carry a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Units {
    pub(crate) position: Position,
    pub(crate) quantity: i64,
}

/// `SKU@LOC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) sku: String,
    pub(crate) location: String,
}

/// `SKU=QTY` or `SKU@LOC=QTY`, of a reservation's open units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenUnits {
    key: Key,
    quantity: i64,
}

/// In place of a location: all of them. For SKUs that have an `@` themselves.
const EVERYWHERE: &str = "*";

/// `SKU`, `SKU@*` or `SKU@LOC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    sku: String,
    /// None for every location.
    location: Option<String>,
}

impl FromStr for Units {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (position, quantity) = text
            .rsplit_once('=')
            .ok_or("write it as SKU@LOC=QTY, for example milk-1l@store-7=2")?;
        Ok(Self {
            position: position.parse()?,
            quantity: parse_quantity(quantity)?,
        })
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sku, location) = text
            .rsplit_once('@')
            .ok_or("the location is missing: write SKU@LOC, for example milk-1l@store-7")?;
        Ok(Self {
            sku: sku.into(),
            location: location.into(),
        })
    }
}

impl FromStr for OpenUnits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, quantity) = text
            .rsplit_once('=')
            .ok_or("write it as SKU=QTY, for example milk-1l=2")?;
        Ok(Self {
            key: key.parse()?,
            quantity: parse_quantity(quantity)?,
        })
    }
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.rsplit_once('@') {
            Some((sku, EVERYWHERE)) => Ok(Self {
                sku: sku.into(),
                location: None,
            }),
            Some((_, "")) => Err("the location after `@` is missing".into()),
            Some((sku, location)) => Ok(Self {
                sku: sku.into(),
                location: Some(location.into()),
            }),
            None => Ok(Self {
                sku: text.into(),
                location: None,
            }),
        }
    }
}

fn parse_quantity(text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a whole number of units"))
}

impl From<Units> for Line {
    fn from(units: Units) -> Self {
        let Position { sku, location } = units.position;
        Self::at(sku, location, units.quantity)
    }
}

impl From<OpenUnits> for PartialLine {
    fn from(units: OpenUnits) -> Self {
        Self {
            sku: units.key.sku,
            location: units.key.location,
            quantity: units.quantity,
        }
    }
}

impl From<Key> for PositionKey {
    fn from(key: Key) -> Self {
        match key.location {
            Some(location) => Self::at(key.sku, location),
            None => Self::everywhere(key.sku),
        }
    }
}

/// As `--occurred-at` takes it, to the millisecond, which is as much of it as counts.
pub(crate) fn moment(at: Timestamp) -> String {
    SystemTime::try_from(at).map_or_else(
        |_| at.to_string(),
        |at| humantime::format_rfc3339_millis(at).to_string(),
    )
}

/// Each with its place in the command, from 1.
pub(crate) fn numbered(units: Vec<Units>) -> Vec<(u32, Units)> {
    (1..).zip(units).collect()
}

/// The lines of one document, named by their numbers in it: the same command again names the same
/// lines, and changes nothing.
pub(crate) fn movement_lines(
    units: Vec<(u32, Units)>,
    occurred_at: Timestamp,
) -> Vec<MovementLine> {
    units
        .into_iter()
        .map(|(number, units)| MovementLine {
            line: number.to_string(),
            sku: units.position.sku,
            location: units.position.location,
            quantity: units.quantity,
            occurred_at: Some(occurred_at),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(text: &str) -> Result<(String, String, i64), String> {
        let units: Units = text.parse()?;
        Ok((units.position.sku, units.position.location, units.quantity))
    }

    #[test]
    fn units_are_a_sku_a_place_and_a_number() {
        let of = |sku: &str, location: &str, quantity| Ok((sku.into(), location.into(), quantity));
        assert_eq!(units("milk@S7=2"), of("milk", "S7", 2));
        assert_eq!(units("milk@S7=-3"), of("milk", "S7", -3));
        assert_eq!(units("milk@S7=+3"), of("milk", "S7", 3));
        assert_eq!(
            units("a.b_c:d-e@x.y_z:1-2=0"),
            of("a.b_c:d-e", "x.y_z:1-2", 0)
        );
        assert_eq!(
            units("50% off @ noon=1@S7=2"),
            of("50% off @ noon=1", "S7", 2)
        );
        for wrong in [
            "milk",
            "milk@S7",
            "milk=2",
            "milk@S7=",
            "milk@S7=two",
            "milk@S7=1.5",
        ] {
            assert!(units(wrong).is_err(), "{wrong}");
        }
        assert!(units("milk@S7=9223372036854775808").is_err());
    }

    #[test]
    fn a_key_may_leave_the_location_out() {
        let key: Key = "milk".parse().expect("a SKU");
        assert_eq!(PositionKey::from(key), PositionKey::everywhere("milk"));
        let key: Key = "milk@S7".parse().expect("a position");
        assert_eq!(PositionKey::from(key), PositionKey::at("milk", "S7"));
        let key: Key = "m@lk@*".parse().expect("a SKU");
        assert_eq!(PositionKey::from(key), PositionKey::everywhere("m@lk"));
        assert!("milk@".parse::<Key>().is_err());
        let open: OpenUnits = "milk=1".parse().expect("units");
        assert_eq!(PartialLine::from(open).quantity, 1);
    }
}
