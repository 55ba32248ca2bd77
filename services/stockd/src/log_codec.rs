//! Commands to log.v1 and back. The edge encodes a command once; leaders and followers pass its bytes
//! on; every replica decodes them when the entry is applied.

use bytes::{Bytes, BytesMut};
use prost::Message;
use stock_core::{
    Action, Amend, CatalogCommand, Command, Confirm, Coordinates, Document, Extend, Fingerprint,
    Fulfill, Line, Location, LocationType, MovementKind, MovementLine, Movements, Operation,
    PartialLine, Principal, PutLocation, Quantity, Reason, Release, Request, RequestId,
    ReservationId, Reserve, SetPolicy, Sku, Stamp,
};
use stock_proto::log::v1 as log;
use thiserror::Error;

use crate::placement::{self, RegistryCommand};

/// Where `commands` stands in `log.v1.Batch`.
const COMMANDS_FIELD: u32 = 2;

/// Encoded commands for one group, as they will stand in the entry: each with its key and length.
#[derive(Debug, Clone, Default)]
pub struct Commands {
    /// How many.
    pub count: u32,
    /// One after the other.
    pub bytes: Bytes,
    /// Whether they only end or keep what is there already. Such commands are taken even while the disk
    /// is nearly full.
    pub is_relief: bool,
}

/// Collects commands for one group.
#[derive(Debug, Default)]
pub struct CommandsBuilder {
    count: u32,
    bytes: BytesMut,
    adds: bool,
}

impl CommandsBuilder {
    /// Adds a command of a stock shard.
    pub fn push(&mut self, command: &Command) {
        self.adds |= !is_relief(&command.action);
        self.push_encoded(&encode_stock(command));
    }

    /// Adds a command of group 0.
    pub fn push_catalog(&mut self, command: &CatalogCommand) {
        self.adds = true;
        self.push_encoded(&encode_catalog(command));
    }

    /// Adds a command of group 0's registry.
    pub fn push_registry(&mut self, command: &RegistryCommand) {
        self.push_encoded(&placement::codec::encode_command(command));
    }

    fn push_encoded(&mut self, command: &log::Command) {
        prost::encoding::message::encode(COMMANDS_FIELD, command, &mut self.bytes);
        self.count += 1;
    }

    /// How many were added.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What was collected; the builder is empty again.
    pub fn take(&mut self) -> Commands {
        Commands {
            count: std::mem::take(&mut self.count),
            bytes: self.bytes.split().freeze(),
            is_relief: !std::mem::take(&mut self.adds),
        }
    }
}

fn is_relief(action: &Action) -> bool {
    match action {
        Action::Request(_, operation) => matches!(
            operation,
            Operation::Confirm(_) | Operation::Release(_) | Operation::Fulfill(_)
        ),
        // What was sold is sold, whatever the disk says.
        Action::Movements(movements) => movements.kind == MovementKind::Sale,
    }
}

/// The payload of an entry: a stamp and the commands of everybody who waited.
pub fn encode_entry<'a>(
    stamp: Stamp,
    commands: impl Iterator<Item = &'a Commands> + Clone,
) -> Vec<u8> {
    let bytes: usize = commands.clone().map(|commands| commands.bytes.len()).sum();
    // The stamp takes its key and at most ten bytes.
    let mut entry = Vec::with_capacity(11 + bytes);
    prost::encoding::uint64::encode(1, &stamp.0, &mut entry);
    for commands in commands {
        entry.extend_from_slice(&commands.bytes);
    }
    entry
}

/// The payload of an entry that has every replica hash its state.
pub fn encode_audit(stamp: Stamp) -> Vec<u8> {
    let batch = log::Batch {
        at_ms: stamp.0,
        audit: true,
        ..Default::default()
    };
    batch.encode_to_vec()
}

/// The payload of an entry that says what most replicas found.
pub fn encode_finding(stamp: Stamp, index: u64, hash: u128) -> Vec<u8> {
    let batch = log::Batch {
        at_ms: stamp.0,
        finding: Some(log::AuditFinding {
            index,
            hash: hash.to_be_bytes().to_vec().into(),
        }),
        ..Default::default()
    };
    batch.encode_to_vec()
}

/// An entry, its commands still encoded.
#[derive(Debug)]
pub struct Entry {
    /// Cluster time.
    pub stamp: Stamp,
    /// In order.
    pub commands: Vec<log::Command>,
    /// Whether the state is to be hashed after it.
    pub audit: bool,
    /// Most replicas had this hash after the entry of this index.
    pub finding: Option<(u64, u128)>,
}

/// An entry that this version cannot read. The replica must stop: to skip it would be to differ.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It is not a `log.v1.Batch`.
    #[error("the entry is no log.v1.Batch: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A command of the registry holds what no edge of this version would have written.
    #[error(transparent)]
    Registry(#[from] placement::RegistryDecodeError),
    /// A field holds what no edge of this version would have written.
    #[error("the entry's command {ordinal} is not understood: {what}")]
    Command {
        /// Its place in the entry.
        ordinal: usize,
        /// What is wrong.
        what: String,
    },
}

/// What is in an entry.
pub fn decode_entry(entry: Bytes) -> Result<Entry, DecodeError> {
    let batch = log::Batch::decode(entry)?;
    let finding = batch.finding.and_then(|finding| {
        let hash = finding.hash.as_ref().try_into().ok()?;
        Some((finding.index, u128::from_be_bytes(hash)))
    });
    Ok(Entry {
        stamp: Stamp(batch.at_ms),
        commands: batch.commands,
        audit: batch.audit,
        finding,
    })
}

fn encode_stock(command: &Command) -> log::Command {
    let (request_id, fingerprint, operation) = match &command.action {
        Action::Request(request, operation) => {
            let (id, fingerprint) = encode_request(request);
            (id, fingerprint, encode_operation(operation))
        }
        Action::Movements(movements) => {
            let movements = log::command::Operation::Movements(encode_movements(movements));
            (Bytes::new(), Bytes::new(), movements)
        }
    };
    log::Command {
        principal: command.principal.as_str().to_owned(),
        request_id,
        fingerprint,
        operation: Some(operation),
    }
}

fn encode_catalog(command: &CatalogCommand) -> log::Command {
    let (request_id, fingerprint) = encode_request(&command.request);
    let put = &command.put;
    let kind = match put.kind {
        LocationType::Warehouse => log::put_location::Type::Warehouse,
        LocationType::Store => log::put_location::Type::Store,
    };
    log::Command {
        principal: command.principal.as_str().to_owned(),
        request_id,
        fingerprint,
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

fn encode_request(request: &Request) -> (Bytes, Bytes) {
    (
        Bytes::copy_from_slice(request.id.as_bytes()),
        Bytes::copy_from_slice(&request.fingerprint.0),
    )
}

fn encode_operation(operation: &Operation) -> log::command::Operation {
    use log::command::Operation as Out;
    match operation {
        Operation::Reserve(reserve) => Out::Reserve(log::Reserve {
            reservation_id: encode_id(&reserve.id),
            lines: reserve.lines.iter().map(encode_line).collect(),
            ttl_ms: reserve.ttl_ms,
        }),
        Operation::Confirm(confirm) => Out::Confirm(log::Confirm {
            reservation_id: encode_id(&confirm.id),
            pickup_within_ms: confirm.pickup_within_ms.unwrap_or(0),
        }),
        Operation::Release(release) => Out::Release(log::Release {
            reservation_id: encode_id(&release.id),
            lines: release.lines.iter().map(encode_partial).collect(),
        }),
        Operation::Fulfill(fulfill) => Out::Fulfill(log::Fulfill {
            reservation_id: encode_id(&fulfill.id),
            lines: fulfill.lines.iter().map(encode_partial).collect(),
        }),
        Operation::Extend(extend) => Out::Extend(log::Extend {
            reservation_id: encode_id(&extend.id),
            ttl_ms: extend.ttl_ms,
        }),
        Operation::Amend(amend) => Out::Amend(log::Amend {
            reservation_id: encode_id(&amend.id),
            lines: amend.lines.iter().map(encode_line).collect(),
            ttl_ms: amend.ttl_ms.unwrap_or(0),
        }),
        Operation::SetPolicy(policy) => Out::SetPolicy(log::SetPolicy {
            sku: policy.sku.as_str().to_owned(),
            location: policy.location.as_str().to_owned(),
            safety_stock: policy.safety_stock,
            backorder_limit: policy.backorder_limit,
        }),
    }
}

fn encode_id(id: &ReservationId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

fn encode_line(line: &Line) -> log::Line {
    log::Line {
        sku: line.sku.as_str().to_owned(),
        location: line.location.as_str().to_owned(),
        quantity: line.quantity.get(),
    }
}

fn encode_partial(line: &PartialLine) -> log::Line {
    log::Line {
        sku: line.sku.as_str().to_owned(),
        location: line
            .location
            .as_ref()
            .map_or_else(String::new, |at| at.as_str().to_owned()),
        quantity: line.quantity.get(),
    }
}

fn encode_movements(movements: &Movements) -> log::Movements {
    let kind = match movements.kind {
        MovementKind::Receipt => log::movements::Kind::Receipt,
        MovementKind::Sale => log::movements::Kind::Sale,
        MovementKind::Adjustment => log::movements::Kind::Adjustment,
    };
    let sign = sign_of(movements.kind);
    let lines = movements.lines.iter().map(|line| log::MovementLine {
        line: line.line.as_str().to_owned(),
        sku: line.sku.as_str().to_owned(),
        location: line.location.as_str().to_owned(),
        quantity: line.on_hand_delta * sign,
        occurred_at_ms: line.occurred_at.map_or(0, |at| at.0),
        fingerprint: Bytes::copy_from_slice(&line.fingerprint.0),
    });
    log::Movements {
        kind: kind.into(),
        document: movements.document.as_str().to_owned(),
        reason: movements
            .reason
            .as_ref()
            .map_or_else(String::new, |text| text.as_str().to_owned()),
        lines: lines.collect(),
    }
}

/// Documents write a sale's quantity as a positive number.
fn sign_of(kind: MovementKind) -> i64 {
    match kind {
        MovementKind::Receipt | MovementKind::Adjustment => 1,
        MovementKind::Sale => -1,
    }
}

/// A command of a stock shard.
pub fn decode_stock(ordinal: usize, command: &log::Command) -> Result<Command, DecodeError> {
    decode_stock_command(command).map_err(|what| DecodeError::Command { ordinal, what })
}

/// A command of group 0.
pub fn decode_catalog(
    ordinal: usize,
    command: &log::Command,
) -> Result<CatalogCommand, DecodeError> {
    decode_catalog_command(command).map_err(|what| DecodeError::Command { ordinal, what })
}

fn decode_stock_command(command: &log::Command) -> Result<Command, String> {
    use log::command::Operation as In;
    let principal = Principal::new(&command.principal).map_err(at("principal"))?;
    let request = || decode_request(&command.request_id, &command.fingerprint);
    let operation = match command
        .operation
        .as_ref()
        .ok_or("an operation this version does not know")?
    {
        In::Movements(movements) => {
            let action = Action::Movements(decode_movements(movements)?);
            return Ok(Command { principal, action });
        }
        In::Reserve(reserve) => Operation::Reserve(Reserve {
            id: decode_id(&reserve.reservation_id)?,
            lines: reserve
                .lines
                .iter()
                .map(decode_line)
                .collect::<Result<_, _>>()?,
            ttl_ms: reserve.ttl_ms,
        }),
        In::Confirm(confirm) => Operation::Confirm(Confirm {
            id: decode_id(&confirm.reservation_id)?,
            pickup_within_ms: nonzero(confirm.pickup_within_ms),
        }),
        In::Release(release) => Operation::Release(Release {
            id: decode_id(&release.reservation_id)?,
            lines: release
                .lines
                .iter()
                .map(decode_partial)
                .collect::<Result<_, _>>()?,
        }),
        In::Fulfill(fulfill) => Operation::Fulfill(Fulfill {
            id: decode_id(&fulfill.reservation_id)?,
            lines: fulfill
                .lines
                .iter()
                .map(decode_partial)
                .collect::<Result<_, _>>()?,
        }),
        In::Extend(extend) => Operation::Extend(Extend {
            id: decode_id(&extend.reservation_id)?,
            ttl_ms: extend.ttl_ms,
        }),
        In::Amend(amend) => Operation::Amend(Amend {
            id: decode_id(&amend.reservation_id)?,
            lines: amend
                .lines
                .iter()
                .map(decode_line)
                .collect::<Result<_, _>>()?,
            ttl_ms: nonzero(amend.ttl_ms),
        }),
        In::SetPolicy(policy) => Operation::SetPolicy(SetPolicy {
            sku: Sku::new(&policy.sku).map_err(at("sku"))?,
            location: Location::new(&policy.location).map_err(at("location"))?,
            safety_stock: policy.safety_stock,
            backorder_limit: policy.backorder_limit,
        }),
        In::PutLocation(_) | In::RegistryChange(_) => {
            return Err("a command of group 0 in a stock shard".to_owned());
        }
    };
    let action = Action::Request(request()?, operation);
    Ok(Command { principal, action })
}

fn decode_catalog_command(command: &log::Command) -> Result<CatalogCommand, String> {
    let Some(log::command::Operation::PutLocation(put)) = &command.operation else {
        return Err("not a location's command".to_owned());
    };
    let kind = match put.r#type() {
        log::put_location::Type::Warehouse => LocationType::Warehouse,
        log::put_location::Type::Store => LocationType::Store,
        log::put_location::Type::Unspecified => return Err("a location of no type".to_owned()),
    };
    let coordinates = match (put.latitude_e6, put.longitude_e6) {
        (Some(latitude_e6), Some(longitude_e6)) => Some(Coordinates {
            latitude_e6,
            longitude_e6,
        }),
        _ => None,
    };
    Ok(CatalogCommand {
        principal: Principal::new(&command.principal).map_err(at("principal"))?,
        request: decode_request(&command.request_id, &command.fingerprint)?,
        put: PutLocation {
            location: Location::new(&put.location_id).map_err(at("location_id"))?,
            kind,
            name: put.name.clone(),
            coordinates,
            gln: put.gln.clone(),
        },
    })
}

fn decode_request(id: &[u8], fingerprint: &[u8]) -> Result<Request, String> {
    let id = id
        .try_into()
        .map_err(|_| "a request id that has not 16 bytes")?;
    Ok(Request {
        id: RequestId::new(id).map_err(at("request_id"))?,
        fingerprint: decode_fingerprint(fingerprint)?,
    })
}

fn decode_fingerprint(bytes: &[u8]) -> Result<Fingerprint, String> {
    let bytes = bytes
        .try_into()
        .map_err(|_| "a fingerprint that has not 16 bytes")?;
    Ok(Fingerprint(bytes))
}

fn decode_id(bytes: &[u8]) -> Result<ReservationId, String> {
    let bytes = bytes
        .try_into()
        .map_err(|_| "a reservation id that has not 16 bytes")?;
    ReservationId::new(bytes).map_err(at("reservation_id"))
}

fn decode_line(line: &log::Line) -> Result<Line, String> {
    Ok(Line {
        sku: Sku::new(&line.sku).map_err(at("sku"))?,
        location: Location::new(&line.location).map_err(at("location"))?,
        quantity: Quantity::new(line.quantity).map_err(at("quantity"))?,
    })
}

fn decode_partial(line: &log::Line) -> Result<PartialLine, String> {
    let location = match line.location.as_str() {
        "" => None,
        name => Some(Location::new(name).map_err(at("location"))?),
    };
    Ok(PartialLine {
        sku: Sku::new(&line.sku).map_err(at("sku"))?,
        location,
        quantity: Quantity::new(line.quantity).map_err(at("quantity"))?,
    })
}

fn decode_movements(movements: &log::Movements) -> Result<Movements, String> {
    let kind = match movements.kind() {
        log::movements::Kind::Receipt => MovementKind::Receipt,
        log::movements::Kind::Sale => MovementKind::Sale,
        log::movements::Kind::Adjustment => MovementKind::Adjustment,
        log::movements::Kind::Unspecified => return Err("a movement of no kind".to_owned()),
    };
    let reason = match movements.reason.as_str() {
        "" => None,
        text => Some(Reason::new(text).map_err(at("reason"))?),
    };
    let lines = movements.lines.iter().map(|line| {
        Ok::<_, String>(MovementLine {
            line: Document::new(&line.line).map_err(at("line"))?,
            sku: Sku::new(&line.sku).map_err(at("sku"))?,
            location: Location::new(&line.location).map_err(at("location"))?,
            on_hand_delta: Quantity::new(line.quantity.abs())
                .map_err(at("quantity"))?
                .get()
                * line.quantity.signum()
                * sign_of(kind),
            occurred_at: nonzero(line.occurred_at_ms).map(Stamp),
            fingerprint: decode_fingerprint(&line.fingerprint)?,
        })
    });
    Ok(Movements {
        kind,
        document: Document::new(&movements.document).map_err(at("document"))?,
        reason,
        lines: lines.collect::<Result<_, _>>()?,
    })
}

fn nonzero(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

fn at<E: std::fmt::Display>(field: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{field} {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(action: Action) -> Command {
        Command {
            principal: Principal::new("web").unwrap(),
            action,
        }
    }

    fn request(operation: Operation) -> Command {
        let mut id = [9; 16];
        id[6] = 0x71;
        let request = Request {
            id: RequestId::new(id).unwrap(),
            fingerprint: Fingerprint([3; 16]),
        };
        command(Action::Request(request, operation))
    }

    #[test]
    fn every_command_survives_the_log() {
        let sku = Sku::new("MUG").unwrap();
        let location = Location::new("A").unwrap();
        let quantity = Quantity::new(5).unwrap();
        let id = ReservationId::compose(Stamp(77), 3, 5);
        let line = Line {
            sku: sku.clone(),
            location: location.clone(),
            quantity,
        };
        let anywhere = PartialLine {
            sku: sku.clone(),
            location: None,
            quantity,
        };
        let there = PartialLine {
            location: Some(location.clone()),
            ..anywhere.clone()
        };
        let fact = |kind, on_hand_delta| {
            command(Action::Movements(Movements {
                kind,
                document: Document::new("D-1").unwrap(),
                reason: (kind == MovementKind::Adjustment)
                    .then(|| Reason::new("found it").unwrap()),
                lines: vec![MovementLine {
                    line: Document::new("1").unwrap(),
                    sku: sku.clone(),
                    location: location.clone(),
                    on_hand_delta,
                    occurred_at: (on_hand_delta > 0).then_some(Stamp(5)),
                    fingerprint: Fingerprint([4; 16]),
                }],
            }))
        };
        let commands = [
            request(Operation::Reserve(Reserve {
                id,
                lines: vec![line.clone()],
                ttl_ms: 9,
            })),
            request(Operation::Confirm(Confirm {
                id,
                pickup_within_ms: None,
            })),
            request(Operation::Confirm(Confirm {
                id,
                pickup_within_ms: Some(4),
            })),
            request(Operation::Release(Release {
                id,
                lines: vec![anywhere],
            })),
            request(Operation::Fulfill(Fulfill {
                id,
                lines: vec![there],
            })),
            request(Operation::Extend(Extend { id, ttl_ms: 1 })),
            request(Operation::Amend(Amend {
                id,
                lines: vec![line],
                ttl_ms: Some(2),
            })),
            request(Operation::SetPolicy(SetPolicy {
                sku: sku.clone(),
                location: location.clone(),
                safety_stock: Some(0),
                backorder_limit: None,
            })),
            fact(MovementKind::Receipt, 5),
            fact(MovementKind::Sale, -5),
            fact(MovementKind::Adjustment, -1),
        ];
        let mut builder = CommandsBuilder::default();
        commands.iter().for_each(|command| builder.push(command));
        let encoded = builder.take();
        assert_eq!((encoded.count, builder.count()), (commands.len() as u32, 0));

        let entry = encode_entry(Stamp(123), [encoded].iter());
        let decoded = decode_entry(entry.into()).unwrap();
        assert_eq!(decoded.stamp, Stamp(123));
        let decoded = decoded.commands;
        for (ordinal, (command, decoded)) in commands.iter().zip(decoded).enumerate() {
            assert_eq!(*command, decode_stock(ordinal, &decoded).unwrap());
        }
    }

    #[test]
    fn a_command_from_the_future_is_not_skipped() {
        let unknown = log::Command {
            principal: "web".into(),
            ..Default::default()
        };
        let error = decode_stock(4, &unknown).unwrap_err().to_string();
        assert!(error.contains("command 4"), "{error}");
    }
}
