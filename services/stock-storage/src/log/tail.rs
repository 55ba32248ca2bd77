//! Whether the end of a log file that cannot be read is a write that was cut short, or damage.
//!
//! After a power cut the last write may lie half on the disk. Nobody was told that it is durable,
//! so cutting it off forgets nothing. The same unreadable bytes *with a later write behind them*
//! are something else: the loop syncs one write before it begins the next, so what comes before a
//! later write had been acknowledged. The engine cuts both without a word; this module tells them
//! apart.
//!
//! It reads the engine's framing, all in one file of one sequence number:
//!
//! ```text
//! batch  = u56 length, u8 compression, u64 offset of the footer, entries, footer    (big endian)
//! footer = items, u32 (crc32 of the items, xor the low half of the file's number), little endian
//! ```

/// Bytes of a batch's header.
const HEADER_LEN: usize = 16;
/// Bytes of the checksum that ends a footer.
const CHECKSUM_LEN: usize = 4;
/// The highest number that stands for a way of compressing.
const COMPRESSION_MAX: u64 = 1;

/// What an unreadable end of a file turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing was written there: space reserved ahead of the writes, left by a process that was
    /// killed.
    Reserved,
    /// One write that was cut short, of which something remains up to `len`.
    Torn { len: usize },
    /// A whole write begins at `offset` behind the unreadable one.
    Damaged { offset: usize },
}

/// Judges `bytes`, which begin where the engine stopped reading and end with the file.
///
/// The one kind of damage this cannot see is to the very last write of a file, which looks as if it
/// had been cut short. That is caught, if at all, by whoever knows how far the log must reach.
pub(super) fn judge(bytes: &[u8], file_number: u64) -> Tail {
    let len = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    if len == 0 {
        return Tail::Reserved;
    }
    // From the second byte on: the batch at the first one is the one that could not be read, though
    // its footer may be whole.
    match (1..len).find(|&offset| is_batch(&bytes[offset..], file_number)) {
        Some(offset) => Tail::Damaged { offset },
        None => Tail::Torn { len },
    }
}

fn is_batch(bytes: &[u8], file_number: u64) -> bool {
    batch_len(bytes, file_number).is_some()
}

/// How long the whole batch is that `bytes` begin with, if they do.
fn batch_len(bytes: &[u8], file_number: u64) -> Option<usize> {
    let (header, _) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let number = |at: usize| {
        header[at..at + 8]
            .iter()
            .fold(0, |number, &byte| number << 8 | u64::from(byte))
    };
    let (length_and_compression, footer) = (number(0), number(8));
    let (length, compression) = (length_and_compression >> 8, length_and_compression & 0xff);
    // Nearly every offset ends here.
    if compression > COMPRESSION_MAX || length > bytes.len() as u64 || footer < HEADER_LEN as u64 {
        return None;
    }
    // No sum: the footer's offset may be any number. From here on both are at most the length of
    // `bytes`.
    if footer >= length.saturating_sub(CHECKSUM_LEN as u64) {
        return None;
    }
    let footer = &bytes[footer as usize..length as usize];
    let (items, checksum) = footer.split_last_chunk::<CHECKSUM_LEN>()?;
    let is_whole = crc32fast::hash(items) == u32::from_le_bytes(*checksum) ^ file_number as u32;
    is_whole.then_some(length as usize)
}

/// The name of the format; its version follows, and in all versions but the first an alignment.
const FORMAT: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FIRST_VERSION: [u8; 8] = 1_u64.to_be_bytes();

/// Whether a whole file of the log is one write behind the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// It is, and behind the last one nothing was written.
    Whole,
    /// There is something else from here on.
    Broken { offset: usize },
}

impl Framing {
    /// Of a file with this number. Entries are not looked into.
    pub(super) fn of(bytes: &[u8], file_number: u64) -> Self {
        let version = bytes.strip_prefix(FORMAT);
        let Some((version, rest)) = version.and_then(<[u8]>::split_first_chunk::<8>) else {
            return Self::Broken { offset: 0 };
        };
        let alignment = match *version == FIRST_VERSION {
            true => 0,
            false => size_of::<u64>().min(rest.len()),
        };
        let mut at = bytes.len() - rest.len() + alignment;
        while let Some(len) = batch_len(&bytes[at..], file_number) {
            at += len;
        }
        match bytes[at..].iter().all(|byte| *byte == 0) {
            true => Self::Whole,
            false => Self::Broken { offset: at },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_NUMBER: u64 = 7;

    fn batch(entries: &[u8]) -> Vec<u8> {
        let items = b"items";
        let footer = HEADER_LEN + entries.len();
        let length = footer + items.len() + CHECKSUM_LEN;
        let mut bytes = ((length as u64) << 8).to_be_bytes().to_vec();
        bytes.extend((footer as u64).to_be_bytes());
        bytes.extend(entries);
        bytes.extend(items);
        bytes.extend((crc32fast::hash(items) ^ FILE_NUMBER as u32).to_le_bytes());
        bytes
    }

    #[test]
    fn a_file_is_whole_or_broken_from_some_write_on() {
        for version in [1_u64, 2] {
            let mut bytes = [FORMAT, &version.to_be_bytes()].concat();
            if version > 1 {
                bytes.extend([0; 8]);
            }
            let mut ends = vec![bytes.len()];
            for entries in [b"the first".as_slice(), b"the second", b"the third"] {
                bytes.extend(batch(entries));
                ends.push(bytes.len());
            }
            bytes.resize(1_000, 0);
            assert_eq!(Framing::of(&bytes, FILE_NUMBER), Framing::Whole);
            for write in 0..3 {
                let mut damaged = bytes.clone();
                // In its footer.
                damaged[ends[write + 1] - CHECKSUM_LEN - 1] ^= 1;
                let broken = Framing::Broken {
                    offset: ends[write],
                };
                assert_eq!(Framing::of(&damaged, FILE_NUMBER), broken, "{write}");
            }
        }
        assert_eq!(Framing::of(b"", FILE_NUMBER), Framing::Broken { offset: 0 });
        let cut = FORMAT;
        assert_eq!(Framing::of(cut, FILE_NUMBER), Framing::Broken { offset: 0 });
    }

    #[test]
    fn zeros_are_reserved_space() {
        assert_eq!(judge(&[], FILE_NUMBER), Tail::Reserved);
        assert_eq!(judge(&[0; 100_000], FILE_NUMBER), Tail::Reserved);
    }

    #[test]
    fn one_write_cut_anywhere_is_torn() {
        let whole = batch(b"entries");
        // The length's upper bytes are zeros, like space never used.
        for len in 7..whole.len() {
            let mut bytes = whole[..len].to_vec();
            bytes.resize(10_000, 0);
            assert!(
                matches!(judge(&bytes, FILE_NUMBER), Tail::Torn { .. }),
                "{len}"
            );
        }
    }

    #[test]
    fn a_write_behind_an_unreadable_one_is_damage() {
        let first = batch(b"the first");
        for flipped in 0..first.len() {
            let mut bytes = first.clone();
            bytes[flipped] ^= 0x40;
            bytes.extend(batch(b"the second"));
            bytes.resize(10_000, 0);
            assert_eq!(
                judge(&bytes, FILE_NUMBER),
                Tail::Damaged {
                    offset: first.len()
                },
                "{flipped}"
            );
        }
    }

    #[test]
    fn a_page_that_never_arrived_is_torn_and_not_damage() {
        let mut bytes = batch(&[0xaa; 12_000]);
        bytes[4096..8192].fill(0);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        assert_eq!(judge(&bytes, FILE_NUMBER), Tail::Torn { len: bytes.len() });
    }

    #[test]
    fn what_looks_like_a_header_may_hold_any_number() {
        for footer in [u64::MAX, u64::MAX - 1, u64::MAX - 3, 1 << 63] {
            let mut bytes = vec![0xff];
            bytes.extend((100_u64 << 8).to_be_bytes());
            bytes.extend(footer.to_be_bytes());
            bytes.resize(200, 0xff);
            let torn = Tail::Torn { len: bytes.len() };
            assert_eq!(judge(&bytes, FILE_NUMBER), torn, "{footer}");
        }
    }

    #[test]
    fn a_write_of_another_file_is_not_taken_for_one_of_this() {
        let mut bytes = vec![0xff];
        bytes.extend(batch(b"stale"));
        assert_eq!(
            judge(&bytes, FILE_NUMBER + 1),
            Tail::Torn { len: bytes.len() }
        );
    }
}
