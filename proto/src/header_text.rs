//! A header as one opaque text: what the command line prints and takes, and JSON shows.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::Message;

use crate::stock::v1::ResponseHeader;

/// Bytes in front that tell a text from one with a typing error.
const CHECK_BYTES: usize = 3;

/// A text that no header was written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHeader;

impl fmt::Display for NoHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is none that an answer told: copy all of it")
    }
}

impl std::error::Error for NoHeader {}

impl ResponseHeader {
    /// What it takes to read after it: indexes and incarnation. The time is left out, so that one
    /// state has one text.
    pub fn to_text(&self) -> String {
        let lasting = Self {
            cluster_time: None,
            ..self.clone()
        };
        let message = lasting.encode_to_vec();
        let mut bytes = check(&message).to_vec();
        bytes.extend(message);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The header that was written as this text.
    ///
    /// # Errors
    ///
    /// [`NoHeader`].
    pub fn from_text(text: &str) -> Result<Self, NoHeader> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NoHeader)?;
        let (given, message) = bytes.split_at_checked(CHECK_BYTES).ok_or(NoHeader)?;
        if given != check(message) {
            return Err(NoHeader);
        }
        Self::decode(message).map_err(|_| NoHeader)
    }
}

fn check(message: &[u8]) -> [u8; CHECK_BYTES] {
    let [first, second, third, ..] = xxhash_rust::xxh3::xxh3_64(message).to_be_bytes();
    [first, second, third]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::v1::ShardIndex;

    #[test]
    fn a_header_is_read_as_it_was_written_and_nothing_else_is_one() {
        let header = ResponseHeader {
            indexes: vec![ShardIndex {
                shard: 7,
                index: 4_711,
            }],
            cluster_time: None,
            incarnation: vec![7; 16].into(),
        };
        let text = header.to_text();
        assert_eq!(ResponseHeader::from_text(&text), Ok(header));
        for (at, _) in text.char_indices() {
            let mut wrong = text.clone();
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            wrong.replace_range(at..=at, other);
            assert_eq!(ResponseHeader::from_text(&wrong), Err(NoHeader), "{wrong}");
        }
        for wrong in ["", "AAAA", &text[1..], &text[..text.len() - 1], "é"] {
            assert_eq!(ResponseHeader::from_text(wrong), Err(NoHeader), "{wrong}");
        }
    }
}
