//! How long a caller waits, as the head of his call says.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

/// The time a caller allows, if he says so.
pub(crate) fn time_allowed(headers: &HeaderMap<HeaderValue>) -> Option<Duration> {
    let header = headers.get("grpc-timeout");
    header.and_then(|value| parse(value.to_str().ok()?))
}

/// As the gRPC specification over HTTP/2 writes it: digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.checked_mul(3_600)?),
        "M" => Duration::from_secs(number.checked_mul(60)?),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("1m"), Some(Duration::from_millis(1)));
        assert_eq!(parse("1999u"), Some(Duration::from_micros(1_999)));
        assert_eq!(parse("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse(""), None);
        assert_eq!(parse("m"), None);
        assert_eq!(parse("5x"), None);
    }
}
