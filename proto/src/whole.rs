//! Requests are carried out whole or not at all. A field that this node does not know is something
//! that its sender wants and would not get; one that is set twice would count once.
//!
//! Nor is a field known before the cluster speaks the version that it came with: what it asks for
//! would be written for nodes that cannot read it. So all nodes of a cluster answer alike, whatever
//! their builds.

use std::sync::atomic::{AtomicU32, Ordering};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::codec::ERROR_DOMAIN;
use crate::stock::v1::ErrorReason;

/// A message of a call. Requests have a shape: they hold nothing else.
pub trait Whole {
    /// None where whatever is not known may be left out, as in answers.
    const SHAPE: Option<&'static Shape>;
}

/// What a message may hold.
#[derive(Debug)]
pub struct Shape {
    /// By their numbers.
    fields: &'static [Option<Field>],
}

#[derive(Debug)]
struct Field {
    name: &'static str,
    /// The version of the cluster that it came with.
    since: u32,
    is_repeated: bool,
    /// The numbers of the fields that may not be there before it, as bits.
    excludes: u64,
    /// What a message in it may hold.
    inside: Option<&'static Shape>,
}

include!(concat!(env!("OUT_DIR"), "/shapes.rs"));

/// The version that this process's cluster speaks. Whoever is in none knows all that there is.
static SPOKEN: AtomicU32 = AtomicU32::new(u32::MAX);

/// Takes note of the version that the cluster speaks.
pub fn cluster_speaks(version: u32) {
    SPOKEN.store(version, Ordering::Relaxed);
}

/// How a text, some bytes, a message and packed numbers begin: with their length. See
/// <https://protobuf.dev/programming-guides/encoding/#structure>.
const LENGTH_DELIMITED: u64 = 2;

/// Refuses a message that holds more than its shape has. What does not parse is left to whoever
/// reads it.
///
/// # Errors
///
/// UNIMPLEMENTED and `FIELD_UNKNOWN`, or INVALID_ARGUMENT and `MESSAGE_MALFORMED`, with the path of
/// the field.
pub fn check<M: Whole>(message: &[u8]) -> Result<(), Status> {
    let Some(shape) = M::SHAPE else {
        return Ok(());
    };
    look(shape, message, SPOKEN.load(Ordering::Relaxed)).map_err(|found| found.status())
}

/// What a request must not hold.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The way to the message that it is in, from the innermost on.
    path: Vec<String>,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Unknown(u64),
    /// The name of the field, and the version that it came with.
    NotYetSpoken(&'static str, u32),
    /// The name of the field.
    Twice(&'static str),
}

impl Found {
    #[cold]
    fn boxed(what: What) -> Box<Self> {
        let path = Vec::new();
        Box::new(Self { path, what })
    }

    fn status(mut self) -> Status {
        self.path.reverse();
        let place = self.path.join(".");
        let (code, reason, field, why) = match self.what {
            What::Unknown(number) => (
                Code::Unimplemented,
                ErrorReason::FieldUnknown,
                format!("field {number}"),
                "is not known to this node, which may be older than its sender; nothing was done"
                    .to_owned(),
            ),
            What::NotYetSpoken(name, since) => (
                Code::Unimplemented,
                ErrorReason::FieldUnknown,
                name.to_owned(),
                format!(
                    "came with version {since} of the cluster, which does not speak it yet (see \
                     `stockctl cluster version`); nothing was done"
                ),
            ),
            What::Twice(name) => (
                Code::InvalidArgument,
                ErrorReason::MessageMalformed,
                name.to_owned(),
                "is set twice, or beside another field that excludes it".to_owned(),
            ),
        };
        let at = match place.as_str() {
            "" => field,
            place => format!("{place}.{field}"),
        };
        let message = format!("{at} {why}");
        let mut details = ErrorDetails::with_bad_request_violation(at, why);
        details.set_error_info(reason.text(), ERROR_DOMAIN, []);
        Status::with_error_details(code, message, details)
    }
}

/// What is found is seldom needed, and boxed: an answer is a pointer.
fn look(shape: &Shape, message: &[u8], spoken: u32) -> Result<(), Box<Found>> {
    let mut rest = message;
    let mut seen = 0_u64;
    while !rest.is_empty() {
        let Some(key) = varint(&mut rest) else {
            return Ok(());
        };
        let number = key >> 3;
        let field = usize::try_from(number)
            .ok()
            .and_then(|number| shape.fields.get(number)?.as_ref());
        let Some(field) = field else {
            return Err(Found::boxed(What::Unknown(number)));
        };
        if field.since > spoken {
            return Err(Found::boxed(What::NotYetSpoken(field.name, field.since)));
        }
        if seen & field.excludes != 0 {
            return Err(Found::boxed(What::Twice(field.name)));
        }
        seen |= 1_u64.checked_shl(number as u32).unwrap_or(0);
        let before = message.len() - rest.len();
        let Some(value) = value(key & 0b111, &mut rest) else {
            return Ok(());
        };
        if let Some(inside) = field.inside {
            look(inside, value, spoken).map_err(|mut found| {
                let index = match field.is_repeated {
                    true => format!("[{}]", count(&message[..before], number) - 1),
                    false => String::new(),
                };
                found.path.push(format!("{}{index}", field.name));
                found
            })?;
        }
    }
    Ok(())
}

/// How often a field's key is in the beginning of a message, which ends behind one.
fn count(mut message: &[u8], number: u64) -> usize {
    let mut count = 0;
    while let Some(key) = varint(&mut message) {
        count += usize::from(key >> 3 == number);
        if value(key & 0b111, &mut message).is_none() {
            break;
        }
    }
    count
}

/// Takes a value; empty unless it has a length. None where it has no end.
#[inline(always)]
fn value<'a>(kind: u64, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = match kind {
        0 => {
            varint(rest)?;
            return Some(&[]);
        }
        1 => 8,
        LENGTH_DELIMITED => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (value, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(match kind {
        LENGTH_DELIMITED => value,
        _ => &[],
    })
}

#[inline(always)]
fn varint(rest: &mut &[u8]) -> Option<u64> {
    if let [byte @ ..0x80, behind @ ..] = rest {
        *rest = behind;
        return Some(u64::from(*byte));
    }
    long_varint(rest)
}

#[inline(never)]
fn long_varint(rest: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(rest).ok()
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::stock::v1::{
        GetAvailabilityRequest, Line, PositionKey, ReadOptions, ReserveRequest, ReserveResponse,
        ShardIndex,
    };

    fn reserve() -> Vec<u8> {
        ReserveRequest {
            request_id: "id".to_owned(),
            lines: vec![Line::at("a", "b", 1), Line::at("c", "d", i64::MAX)],
            ttl: Some(prost_types::Duration {
                seconds: 900,
                nanos: 1,
            }),
            ..ReserveRequest::default()
        }
        .encode_to_vec()
    }

    fn message<M: Whole>(bytes: &[u8]) -> Option<String> {
        let refused = check::<M>(bytes).err()?;
        Some(refused.message().to_owned())
    }

    fn field(number: u32, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        prost::encoding::encode_varint(u64::from(number) << 3 | LENGTH_DELIMITED, &mut out);
        prost::encoding::encode_varint(value.len() as u64, &mut out);
        out.extend(value);
        out
    }

    #[test]
    fn what_the_schema_has_is_taken() {
        assert_eq!(message::<ReserveRequest>(&reserve()), None);
        let read = GetAvailabilityRequest {
            keys: vec![PositionKey::everywhere("a"), PositionKey::at("a", "b")],
            read: Some(ReadOptions {
                consistency: 2,
                at_least: vec![ShardIndex { shard: 1, index: 1 }; 3],
                incarnation: vec![1; 16].into(),
            }),
        };
        assert_eq!(
            message::<GetAvailabilityRequest>(&read.encode_to_vec()),
            None
        );
        assert_eq!(message::<ReserveRequest>(&[]), None);
    }

    #[test]
    fn what_it_has_not_is_refused_wherever_it_is() {
        let more = |inside: &[u8]| [reserve(), field(9, inside)].concat();
        let told = message::<ReserveRequest>(&more(b"x")).unwrap();
        assert!(told.starts_with("field 9 is not known"), "{told}");
        let large = [reserve(), field(1 << 28, b"")].concat();
        let told = message::<ReserveRequest>(&large).unwrap();
        assert!(told.starts_with("field 268435456 is not known"), "{told}");
        let line = [Line::at("e", "f", 1).encode_to_vec(), field(4, b"")].concat();
        let nested = [reserve(), field(2, &line)].concat();
        let told = message::<ReserveRequest>(&nested).unwrap();
        assert!(told.starts_with("lines[2].field 4 is not known"), "{told}");
        let ttl = ReserveRequest {
            lines: vec![Line::default()],
            ..ReserveRequest::default()
        };
        let ttl = [ttl.encode_to_vec(), field(3, &field(7, b""))].concat();
        let told = message::<ReserveRequest>(&ttl).unwrap();
        assert!(told.starts_with("ttl.field 7 is not known"), "{told}");
    }

    #[test]
    fn what_would_count_once_is_refused() {
        let twice = [reserve(), field(1, b"other")].concat();
        let told = message::<ReserveRequest>(&twice).unwrap();
        assert!(told.starts_with("request_id is set twice"), "{told}");
        let mut key = PositionKey::at("a", "b").encode_to_vec();
        key.extend(field(4, b""));
        let told = message::<GetAvailabilityRequest>(&field(1, &key)).unwrap();
        assert!(
            told.starts_with("keys[0].all_locations is set twice"),
            "{told}"
        );
    }

    #[test]
    fn what_the_cluster_does_not_speak_yet_is_as_good_as_unknown() {
        let field = |name, since, inside| {
            Some(Field {
                name,
                since,
                is_repeated: false,
                excludes: 0,
                inside,
            })
        };
        let inner: &'static Shape = Box::leak(Box::new(Shape {
            fields: Box::leak(Box::new([
                None,
                field("old", 1, None),
                field("new", 3, None),
            ])),
        }));
        let outer = Shape {
            fields: Box::leak(Box::new([None, field("inside", 2, Some(inner))])),
        };
        let old = [0x0a, 2, 0x08, 7];
        let new = [0x0a, 2, 0x10, 7];
        let told = |message: &[u8], spoken| {
            let found = look(&outer, message, spoken).err()?;
            let status = found.status();
            assert_eq!(status.code(), Code::Unimplemented);
            Some(status.message().to_owned())
        };
        for (message, spoken, at) in [
            (old, 1, Some("inside came with version 2")),
            (old, 2, None),
            (new, 1, Some("inside came with version 2")),
            (new, 2, Some("inside.new came with version 3")),
            (new, 3, None),
        ] {
            let told = told(&message, spoken);
            let told = told.as_deref();
            match at {
                None => assert_eq!(told, None, "{message:?} where {spoken} is spoken"),
                Some(at) => assert!(told.unwrap().starts_with(at), "{told:?}"),
            }
        }
    }

    #[test]
    fn what_does_not_parse_is_left_to_the_parser_and_answers_may_say_more() {
        for end in 0..reserve().len() {
            let told = message::<ReserveRequest>(&reserve()[..end]);
            assert_eq!(told, None, "the first {end} bytes");
        }
        assert_eq!(message::<ReserveResponse>(&field(99, b"")), None);
    }
}
