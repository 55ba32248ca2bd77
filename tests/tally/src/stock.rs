//! Locations and stock for a run, and reading it back.

use futures_util::{StreamExt, TryStreamExt, stream};
use stock_client::{Client, Error};
use stock_proto::stock::v1::line_verdict::Verdict;
use stock_proto::stock::v1::{
    Availability, Consistency, GetAvailabilityRequest, LineVerdict, Location, MovementLine,
    PositionKey, PutLocationRequest, ReadOptions, RecordReceiptsRequest, location,
};

use crate::Position;

/// Lines of one `RecordReceipts` call; the API takes 10,000.
pub const LINES_PER_CALL: usize = 10_000;
/// Lines of one message inside such a call.
const LINES_PER_MESSAGE: usize = 2_500;
/// Keys of one `GetAvailability` call, as many as the API takes.
pub const KEYS_PER_READ: usize = 2_000;
const READS_IN_FLIGHT: usize = 4;
const LOCATIONS_IN_FLIGHT: usize = 16;

/// Why stock could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A call had no answer.
    #[error(transparent)]
    Call(#[from] Error),
    /// An answer is not what it must be.
    #[error("{0}")]
    Answer(String),
}

/// A store, named as its id is. The client makes the request's id.
pub fn store(location_id: &str) -> PutLocationRequest {
    PutLocationRequest {
        request_id: String::new(),
        location: Some(Location {
            location_id: location_id.to_owned(),
            name: location_id.to_owned(),
            r#type: location::Type::Store.into(),
            ..Location::default()
        }),
    }
}

/// Puts stores.
///
/// # Errors
///
/// The first call that had no answer.
pub async fn put_stores<'a>(
    client: &Client,
    location_ids: impl IntoIterator<Item = &'a String>,
) -> Result<(), Error> {
    stream::iter(location_ids)
        .map(|location_id| client.put_location(store(location_id)))
        .buffer_unordered(LOCATIONS_IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// A line of a document: so many units of a SKU at a location, now.
pub fn movement(line: String, sku: &str, location: &str, quantity: i64) -> MovementLine {
    MovementLine {
        line,
        sku: sku.to_owned(),
        location: location.to_owned(),
        quantity,
        occurred_at: Some(stock_client::now()),
    }
}

/// Has stock arrive: one document. Nodes refuse one of more than [`LINES_PER_CALL`] lines. Lines
/// that are recorded already are those of a call that was repeated: the document must be the run's
/// own.
///
/// # Errors
///
/// The call had no answer, or a line was refused.
pub async fn receive(
    client: &Client,
    document: &str,
    lines: &[MovementLine],
) -> Result<(), Failure> {
    let messages = lines.chunks(LINES_PER_MESSAGE);
    let messages = messages.map(|lines| RecordReceiptsRequest {
        source: None,
        document: document.to_owned(),
        lines: lines.to_vec(),
    });
    let answer = client.record_receipts(messages).await?;
    check_recorded(lines.len(), &answer.verdicts)
}

/// Whether so many lines were all recorded, by this call or one before it.
///
/// # Errors
///
/// [`Failure::Answer`], with the first that was not.
pub fn check_recorded(lines: usize, verdicts: &[LineVerdict]) -> Result<(), Failure> {
    if verdicts.len() != lines {
        let verdicts = verdicts.len();
        let what = format!("{lines} lines were sent, {verdicts} verdicts came");
        return Err(Failure::Answer(what));
    }
    let is_recorded = |verdict: &&LineVerdict| {
        let verdict = verdict.verdict();
        matches!(verdict, Verdict::Recorded | Verdict::AlreadyRecorded)
    };
    match verdicts.iter().find(|verdict| !is_recorded(verdict)) {
        None => Ok(()),
        Some(bad) => Err(Failure::Answer(format!("a line was not recorded: {bad:?}"))),
    }
}

/// A question for positions: SKUs and locations.
pub fn question<'a>(
    positions: impl IntoIterator<Item = (&'a str, &'a str)>,
    consistency: Consistency,
) -> GetAvailabilityRequest {
    let key = |(sku, location)| PositionKey::at(sku, location);
    GetAvailabilityRequest {
        keys: positions.into_iter().map(key).collect(),
        read: Some(ReadOptions {
            consistency: consistency.into(),
            ..ReadOptions::default()
        }),
    }
}

/// At most [`KEYS_PER_READ`] positions as the cluster has them now, in the same order.
///
/// # Errors
///
/// The call had no answer, or not one for each position.
pub async fn read(client: &Client, positions: &[&Position]) -> Result<Vec<Availability>, Failure> {
    let keys = positions.iter().map(|it| (&*it.sku, &*it.location));
    let request = question(keys, Consistency::Linearizable);
    let items = client.get_availability(request).await?.items;
    if items.len() == positions.len() {
        return Ok(items);
    }
    Err(Failure::Answer(format!(
        "{} positions were asked for, {} answered",
        positions.len(),
        items.len()
    )))
}

/// Any number of positions, as [`read`] reads them.
///
/// # Errors
///
/// As [`read`].
pub async fn read_all(
    client: &Client,
    positions: &[&Position],
) -> Result<Vec<Availability>, Failure> {
    let pages = stream::iter(positions.chunks(KEYS_PER_READ))
        .map(|some| read(client, some))
        .buffered(READS_IN_FLIGHT);
    pages.try_concat().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(verdict: Verdict) -> LineVerdict {
        LineVerdict {
            verdict: verdict.into(),
            ..LineVerdict::default()
        }
    }

    #[test]
    fn a_line_that_is_refused_or_has_no_verdict_is_a_failure() {
        let (recorded, again) = (Verdict::Recorded, Verdict::AlreadyRecorded);
        let good = [recorded, again].map(verdict);
        assert!(check_recorded(2, &good).is_ok());
        assert!(check_recorded(3, &good).is_err());
        assert!(check_recorded(1, &good).is_err());
        let refused = [recorded, Verdict::Refused].map(verdict);
        assert!(check_recorded(2, &refused).is_err());
    }
}
