//! Commands of group 0: as protobuf, since there are few of them.

use bytes::Bytes;
use stock_core::{
    CatalogCommand, Coordinates, Fingerprint, Location, LocationType, Principal, PutLocation,
    Request, RequestId,
};
use stock_wire::log::v1 as log;

use super::{DecodeError, Misread, Read, at};

pub(super) fn encode_catalog(command: &CatalogCommand) -> log::Command {
    let put = &command.put;
    let kind = match put.kind {
        LocationType::Warehouse => log::put_location::Type::Warehouse,
        LocationType::Store => log::put_location::Type::Store,
    };
    log::Command {
        principal: command.principal.as_str().to_owned(),
        request_id: Bytes::copy_from_slice(command.request.id.as_bytes()),
        fingerprint: Bytes::copy_from_slice(&command.request.fingerprint.0),
        operation: Some(log::command::Operation::PutLocation(log::PutLocation {
            location_id: put.location.as_str().to_owned(),
            r#type: kind.into(),
            name: put.name.clone(),
            latitude_e6: put.coordinates.map(|at| at.latitude_e6),
            longitude_e6: put.coordinates.map(|at| at.longitude_e6),
            gln: put.gln.clone(),
        })),
    }
}

/// A command of group 0 that is for the catalog.
///
/// # Errors
///
/// [`DecodeError::Command`].
pub fn decode_catalog(
    ordinal: usize,
    command: &log::Command,
) -> Result<CatalogCommand, DecodeError> {
    read_catalog(command).map_err(|Misread(what)| DecodeError::Command { ordinal, what })
}

fn read_catalog(command: &log::Command) -> Read<CatalogCommand> {
    let Some(log::command::Operation::PutLocation(put)) = &command.operation else {
        return Err("not a location's command".into());
    };
    let kind = match put.r#type() {
        log::put_location::Type::Warehouse => LocationType::Warehouse,
        log::put_location::Type::Store => LocationType::Store,
        log::put_location::Type::Unspecified => return Err("a location of no type".into()),
    };
    let coordinates = match (put.latitude_e6, put.longitude_e6) {
        (Some(latitude_e6), Some(longitude_e6)) => Some(Coordinates {
            latitude_e6,
            longitude_e6,
        }),
        _ => None,
    };
    let id = command.request_id.as_ref().try_into();
    let id = id.map_err(|_| "a request id that has not 16 bytes")?;
    let fingerprint = command.fingerprint.as_ref().try_into();
    let fingerprint = fingerprint.map_err(|_| "a fingerprint that has not 8 bytes")?;
    Ok(CatalogCommand {
        principal: Principal::new(&command.principal).map_err(at("principal"))?,
        request: Request {
            id: RequestId::new(id).map_err(at("request_id"))?,
            fingerprint: Fingerprint(fingerprint),
        },
        put: PutLocation {
            location: Location::new(&put.location_id).map_err(at("location_id"))?,
            kind,
            name: put.name.clone(),
            coordinates,
            gln: put.gln.clone(),
        },
    })
}

#[cfg(test)]
mod tests {
    use stock_core::Stamp;

    use super::super::{CommandsBuilder, decode_entry, encode_entry};
    use super::*;

    #[test]
    fn a_location_survives_the_log() {
        let mut id = [9; 16];
        id[6] = 0x71;
        let command = CatalogCommand {
            principal: Principal::new("ops").unwrap(),
            request: Request {
                id: RequestId::new(id).unwrap(),
                fingerprint: Fingerprint([3; 8]),
            },
            put: PutLocation {
                location: Location::new("WH-1").unwrap(),
                kind: LocationType::Store,
                name: "Köln".to_owned(),
                coordinates: Some(Coordinates {
                    latitude_e6: 50_938_056,
                    longitude_e6: -6_956_944,
                }),
                gln: "4012345000009".to_owned(),
            },
        };
        let mut builder = CommandsBuilder::default();
        builder.push_catalog(&command);
        let entry = encode_entry(Stamp(5).into(), [builder.take()].iter());
        let mut commands = decode_entry(&entry).unwrap().commands;
        let encoded = commands.next_meta().unwrap().unwrap();
        assert_eq!(decode_catalog(0, &encoded).unwrap(), command);
        assert!(commands.next_meta().unwrap().is_none());
    }
}
