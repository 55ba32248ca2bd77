//! A look at a reserve that is not read yet.

use prost::decode_length_delimiter;
use stock_core::Sku;

/// `ReserveRequest.lines` and `Line.sku`, by their numbers in `stock/v1/reservation.proto`.
const LINES: usize = 2;
const SKU: usize = 1;

/// How a text, some bytes and a message begin: with their length.
/// See <https://protobuf.dev/programming-guides/encoding/#structure>.
const LENGTH_DELIMITED: usize = 2;

/// The shard of the first line's SKU, for a fraction of what it costs to read it all. None where
/// that cannot be told: why, is found by reading it.
pub(super) fn shard(request: &[u8], shards: u32) -> Option<u32> {
    let line = field(request, LINES)?;
    Some(Sku::shard_of_name(field(line, SKU)?, shards))
}

/// The first field of this number, in a message whose fields before it have lengths, too.
fn field(mut message: &[u8], number: usize) -> Option<&[u8]> {
    loop {
        let key = decode_length_delimiter(&mut message).ok()?;
        if key & 0b111 != LENGTH_DELIMITED {
            return None;
        }
        let length = decode_length_delimiter(&mut message).ok()?;
        let (value, rest) = message.split_at_checked(length)?;
        if key >> 3 == number {
            return Some(value);
        }
        message = rest;
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use stock_proto::stock::v1::{Line, ReserveRequest};

    use super::*;

    const SHARDS: u32 = 16;

    fn request(skus: &[&str]) -> ReserveRequest {
        let line = |sku: &&str| Line::at(*sku, "here", -1);
        ReserveRequest {
            request_id: "an id".to_owned(),
            lines: skus.iter().map(line).collect(),
            ..ReserveRequest::default()
        }
    }

    #[test]
    fn it_is_the_shard_of_the_first_line() {
        for number in 0..100 {
            let sku = format!("SKU-{number}");
            let request = request(&[&sku, "another"]).encode_to_vec();
            let expected = Sku::new(&sku).unwrap().shard(SHARDS);
            assert_eq!(shard(&request, SHARDS), Some(expected));
        }
    }

    #[test]
    fn fields_in_another_order_are_found() {
        let id_alone = ReserveRequest {
            request_id: "an id".to_owned(),
            ..ReserveRequest::default()
        };
        let lines_alone = ReserveRequest {
            request_id: String::new(),
            ..request(&["SKU"])
        };
        let turned = [lines_alone.encode_to_vec(), id_alone.encode_to_vec()].concat();
        let whole = request(&["SKU"]);
        assert_eq!(ReserveRequest::decode(&turned[..]), Ok(whole.clone()));
        assert_eq!(
            shard(&turned, SHARDS),
            shard(&whole.encode_to_vec(), SHARDS)
        );
    }

    #[test]
    fn of_what_is_no_request_nothing_is_said() {
        let whole = request(&["SKU"]).encode_to_vec();
        let line_begins = whole.len() - request(&["SKU"]).lines[0].encoded_len();
        for cut in 0..whole.len() {
            assert_eq!(shard(&whole[..cut], SHARDS), None, "cut at {cut}");
        }
        // A line of nothing but a quantity; a key of another type; a length beyond everything.
        let mut no_sku = whole[..line_begins - 1].to_vec();
        no_sku.extend([2, 0x18, 1]);
        for message in [&no_sku[..], &[0x11], &[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert_eq!(shard(message, SHARDS), None, "{message:?}");
        }
    }
}
