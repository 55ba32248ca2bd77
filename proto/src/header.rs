//! The head of every answer, with an encoding by hand.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, bytes as bytes_field, encoded_len_varint, message};
use prost::{DecodeError, Message, Name};
use prost_types::Timestamp;

use crate::stock::v1::ShardIndex;

/// `stock.v1.ResponseHeader`. It is the same on the wire; every answer begins with one, and what
/// the generated code does for it is a third of what an answer takes to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResponseHeader {
    /// Of every shard that the call wrote to or read, once each, in ascending order.
    pub indexes: Vec<ShardIndex>,
    /// The latest cluster time among those states.
    pub cluster_time: Option<Timestamp>,
    /// 16 bytes: the life of the cluster that the indexes are of.
    pub incarnation: Bytes,
}

impl Name for ResponseHeader {
    const NAME: &'static str = "ResponseHeader";
    const PACKAGE: &'static str = "stock.v1";
}

/// The fields by their numbers.
const INDEXES: u32 = 1;
const CLUSTER_TIME: u32 = 2;
const INCARNATION: u32 = 3;

/// A header of one shard takes at most 61 bytes.
const USUAL_BYTES_MAX: usize = 64;

impl Message for ResponseHeader {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if self.indexes.len() > 1 || self.incarnation.len() > 16 {
            return self.write(buffer);
        }
        // Into one piece at first: a buffer asks with each number whether it has room.
        let mut bytes = [0; USUAL_BYTES_MAX];
        let mut rest = &mut bytes[..];
        self.write(&mut rest);
        let length = USUAL_BYTES_MAX - rest.len();
        buffer.put_slice(&bytes[..length]);
    }

    fn merge_field(
        &mut self,
        number: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match number {
            INDEXES => message::merge_repeated(wire_type, &mut self.indexes, buffer, context),
            CLUSTER_TIME => {
                let time = self.cluster_time.get_or_insert_default();
                message::merge(wire_type, time, buffer, context)
            }
            INCARNATION => bytes_field::merge(wire_type, &mut self.incarnation, buffer, context),
            _ => prost::encoding::skip_field(wire_type, number, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let part = |length: usize| 1 + encoded_len_varint(length as u64) + length;
        let indexes = self.indexes.iter();
        let indexes: usize = indexes.map(|it| part(index_len(it))).sum();
        let time = self
            .cluster_time
            .as_ref()
            .map_or(0, |it| part(time_len(it)));
        let incarnation = match self.incarnation.len() {
            0 => 0,
            length => part(length),
        };
        indexes + time + incarnation
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl ResponseHeader {
    fn write(&self, buffer: &mut impl BufMut) {
        for index in &self.indexes {
            begin(INDEXES, index_len(index), buffer);
            number(1, u64::from(index.shard), buffer);
            number(2, index.index, buffer);
        }
        if let Some(time) = &self.cluster_time {
            begin(CLUSTER_TIME, time_len(time), buffer);
            number(1, time.seconds as u64, buffer);
            number(2, i64::from(time.nanos) as u64, buffer);
        }
        if !self.incarnation.is_empty() {
            begin(INCARNATION, self.incarnation.len(), buffer);
            buffer.put_slice(&self.incarnation);
        }
    }
}

fn index_len(index: &ShardIndex) -> usize {
    number_len(u64::from(index.shard)) + number_len(index.index)
}

fn time_len(time: &Timestamp) -> usize {
    number_len(time.seconds as u64) + number_len(i64::from(time.nanos) as u64)
}

/// What a number in a field takes: one that is 0 is left out.
fn number_len(value: u64) -> usize {
    match value {
        0 => 0,
        value => 1 + encoded_len_varint(value),
    }
}

fn number(field: u32, value: u64, buffer: &mut impl BufMut) {
    if value != 0 {
        buffer.put_u8((field << 3) as u8 | WireType::Varint as u8);
        varint(value, buffer);
    }
}

/// The key and the length of a field that holds bytes.
fn begin(field: u32, length: usize, buffer: &mut impl BufMut) {
    buffer.put_u8((field << 3) as u8 | WireType::LengthDelimited as u8);
    varint(length as u64, buffer);
}

fn varint(mut value: u64, buffer: &mut impl BufMut) {
    while value >= 0x80 {
        buffer.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.put_u8(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the schema has it.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(message, repeated, tag = "1")]
        indexes: Vec<ShardIndex>,
        #[prost(message, optional, tag = "2")]
        cluster_time: Option<Timestamp>,
        #[prost(bytes = "bytes", tag = "3")]
        incarnation: Bytes,
    }

    #[test]
    fn it_is_on_the_wire_what_the_schema_says() {
        let indexes = [0, 1, 127, 128, u64::MAX >> 1, u64::MAX].map(|index| {
            let shards = [0, 7, 4_095, ShardIndex::META];
            shards.map(|shard| ShardIndex { shard, index })
        });
        let mut several: Vec<Vec<ShardIndex>> = vec![Vec::new(), indexes.concat()];
        several.extend(indexes.concat().into_iter().map(|one| vec![one]));
        let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let times = [
            None,
            time(0, 0),
            time(-1, -1),
            time(1_790_000_000, 999_000_000),
        ];
        let longest = time(i64::MIN, i32::MIN);
        for indexes in several {
            for cluster_time in times.into_iter().chain([longest]) {
                for incarnation in [0, 15, 16, 17, 300] {
                    let incarnation = Bytes::from(vec![9; incarnation]);
                    let generated = Generated {
                        indexes: indexes.clone(),
                        cluster_time,
                        incarnation: incarnation.clone(),
                    };
                    let header = ResponseHeader {
                        indexes: indexes.clone(),
                        cluster_time,
                        incarnation,
                    };
                    let bytes = header.encode_to_vec();
                    assert_eq!(bytes, generated.encode_to_vec());
                    assert_eq!(bytes.len(), header.encoded_len());
                    assert_eq!(ResponseHeader::decode(&bytes[..]), Ok(header));
                }
            }
        }
    }

    #[test]
    fn what_it_does_not_know_is_passed_over() {
        let header = ResponseHeader {
            incarnation: Bytes::from_static(&[1; 16]),
            ..ResponseHeader::default()
        };
        let mut bytes = header.encode_to_vec();
        number(9, 300, &mut bytes);
        assert_eq!(ResponseHeader::decode(&bytes[..]), Ok(header));
    }
}
