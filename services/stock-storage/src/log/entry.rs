//! One log entry as it lies in a file.

use std::any::Any;
use std::sync::LazyLock;

use protobuf::reflect::MessageDescriptor;
use protobuf::wire_format::WireType;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufError, ProtobufResult,
    UnknownFields, rt,
};
use raft_engine::MessageExt;

// On disk for ever: these numbers never change their meaning.
const FIELD_INDEX: u32 = 1;
const FIELD_PAYLOAD: u32 = 2;

/// A log entry: its index, which the engine asks for, and the bytes the caller gave.
///
/// The engine insists on a protobuf message. This one is written by hand, because it has two fields
/// and because a generator would bring a build step. Both fields are always written, and reading
/// fails without both, so that no cut-off entry passes for a whole one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct StoredEntry {
    pub(super) index: u64,
    /// A `Vec` and not `Bytes`: it is filled again and again when writing, and turns into `Bytes`
    /// without a copy when reading.
    pub(super) payload: Vec<u8>,
    /// Fields of a later version, which are carried along.
    unknown: UnknownFields,
}

impl StoredEntry {
    /// The size of this entry in a file, in bytes.
    pub(super) fn encoded_len(&self) -> u64 {
        u64::from(self.compute_size())
    }
}

/// Tells the engine how to find an entry's index.
pub(super) struct StoredEntries;

impl MessageExt for StoredEntries {
    type Entry = StoredEntry;

    fn index(entry: &StoredEntry) -> u64 {
        entry.index
    }
}

impl Message for StoredEntry {
    fn merge_from(&mut self, is: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        let (mut index_seen, mut payload_seen) = (false, false);
        while !is.eof()? {
            let (field, wire_type) = is.read_tag_unpack()?;
            match field {
                FIELD_INDEX => {
                    if wire_type != WireType::WireTypeVarint {
                        return Err(rt::unexpected_wire_type(wire_type));
                    }
                    self.index = is.read_uint64()?;
                    index_seen = true;
                }
                FIELD_PAYLOAD => {
                    rt::read_singular_proto3_bytes_into(wire_type, is, &mut self.payload)?;
                    payload_seen = true;
                }
                _ => rt::read_unknown_or_skip_group(field, wire_type, is, &mut self.unknown)?,
            }
        }
        if index_seen && payload_seen {
            Ok(())
        } else {
            // The runtime's own check for required fields names the message through reflection,
            // which a hand-made message has not.
            Err(ProtobufError::WireError(
                protobuf::error::WireError::UnexpectedEof,
            ))
        }
    }

    fn write_to_with_cached_sizes(&self, os: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        os.write_uint64(FIELD_INDEX, self.index)?;
        os.write_bytes(FIELD_PAYLOAD, &self.payload)?;
        os.write_unknown_fields(&self.unknown)
    }

    fn compute_size(&self) -> u32 {
        rt::value_size(FIELD_INDEX, self.index, WireType::WireTypeVarint)
            + rt::bytes_size(FIELD_PAYLOAD, &self.payload)
            + rt::unknown_fields_size(&self.unknown)
    }

    /// Nothing is nested, so there is nothing to remember between computing a size and writing.
    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> StoredEntry {
        StoredEntry::default()
    }

    /// Panics, as in every message made without reflection; nothing here or in the engine calls it.
    fn descriptor(&self) -> &'static MessageDescriptor {
        Self::descriptor_static()
    }

    fn default_instance() -> &'static StoredEntry {
        static EMPTY: LazyLock<StoredEntry> = LazyLock::new(StoredEntry::default);
        &EMPTY
    }
}

impl Clear for StoredEntry {
    fn clear(&mut self) {
        self.index = 0;
        self.payload.clear();
        self.unknown.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, payload: &[u8]) -> StoredEntry {
        StoredEntry {
            index,
            payload: payload.to_vec(),
            ..StoredEntry::default()
        }
    }

    #[test]
    fn an_entry_survives_the_round_trip() {
        for entry in [
            entry(0, b""),
            entry(1, b""),
            entry(127, b"a"),
            entry(128, &[0; 127]),
            entry(u64::from(u32::MAX) + 1, &[0xff; 128]),
            entry(u64::MAX, &vec![7; 1 << 20]),
        ] {
            let bytes = entry.write_to_bytes().unwrap();
            assert_eq!(bytes.len() as u64, entry.encoded_len());
            assert_eq!(StoredEntry::parse_from_bytes(&bytes).unwrap(), entry);
        }
    }

    #[test]
    fn the_bytes_on_disk_do_not_change() {
        assert_eq!(
            entry(300, b"ab").write_to_bytes().unwrap(),
            [0x08, 0xac, 0x02, 0x12, 0x02, b'a', b'b']
        );
    }

    #[test]
    fn a_cut_off_entry_is_an_error_wherever_it_is_cut() {
        for whole in [
            entry(300, b""),
            entry(300, b"twelve bytes"),
            entry(1, &[0x12; 200]),
        ] {
            let bytes = whole.write_to_bytes().unwrap();
            for len in 0..bytes.len() {
                assert!(
                    StoredEntry::parse_from_bytes(&bytes[..len]).is_err(),
                    "{len} of {}",
                    bytes.len()
                );
            }
        }
    }

    #[test]
    fn nonsense_is_an_error_and_not_an_allocation() {
        for bytes in [
            // A payload of 4 GiB is announced.
            &[0x08_u8, 0x01, 0x12, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
            &[0x08; 12],
            &[0xff; 12],
            &[0x0a, 0x01, 0x01, 0x12, 0x00], // The index as bytes.
            &[0x08, 0x01, 0x10, 0x00],       // The payload as a number.
            &[0x00],
        ] {
            assert!(StoredEntry::parse_from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_kept() {
        let later = [0x08, 0x05, 0x12, 0x01, b'x', 0x18, 0x2a];
        let entry = StoredEntry::parse_from_bytes(&later).unwrap();
        assert_eq!((entry.index, &entry.payload[..]), (5, &b"x"[..]));
        assert_eq!(entry.write_to_bytes().unwrap(), later);
    }
}
