//! A checkout: reserve, take the money, confirm; release where no money comes. Whatever ends it in
//! between, the same command goes on where it was.
#![expect(clippy::print_stdout, reason = "a command line tool says what it did")]

mod journal;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Parser;
use stock_client::v1::reservation::State;
use stock_client::v1::reserve_response::Outcome;
use stock_client::v1::{
    ConfirmRequest, ErrorReason, Line, ListReservationsRequest, ReleaseRequest, Reservation,
    ReserveRequest,
};
use stock_client::{Client, Error};

use crate::journal::{Journal, Order};

/// One order, from the basket to the receipt
#[derive(Debug, Clone, Parser)]
struct Cli {
    /// A node of the cluster
    #[arg(long, default_value = "http://127.0.0.1:7401")]
    endpoint: String,

    /// The folder in which orders are kept
    #[arg(long, default_value = "orders")]
    journal: PathBuf,

    /// No money comes
    #[arg(long)]
    declined: bool,

    /// The shop's name for the order
    order: String,

    /// What is in the basket, as SKU@LOCATION=QUANTITY
    #[arg(required = true)]
    lines: Vec<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let lines: Result<Vec<Line>> = cli.lines.iter().map(|text| line(text)).collect();
    let client = Client::connect(&cli.endpoint).await?;
    check_out(&client, &cli, lines?).await
}

async fn check_out(client: &Client, cli: &Cli, lines: Vec<Line>) -> Result<()> {
    // The id of its reserve is kept before the reserve is sent.
    let (journal, mut order) = Journal::open(&cli.journal, &cli.order, client)?;

    let held = reserve(client, &order, lines).await?;
    if held.state() == State::Confirmed {
        println!(
            "{}: was confirmed before as {}",
            order.reference, held.reservation_id
        );
        return Ok(());
    }
    if held.state() != State::Held {
        bail!("{}: the hold is over ({:?})", order.reference, held.state());
    }
    println!("{}: held as {}", order.reference, held.reservation_id);

    if !order.is_paid {
        if cli.declined {
            release(client, &order, &held).await?;
            bail!("{}: not paid, and released", order.reference);
        }
        order.is_paid = true;
        journal.keep(&order)?;
    }
    confirm(client, &order, &held).await?;
    println!("{}: confirmed", order.reference);
    Ok(())
}

/// Holds the basket, or finds what was held for this order before.
async fn reserve(client: &Client, order: &Order, lines: Vec<Line>) -> Result<Reservation> {
    let request = ReserveRequest {
        request_id: order.reserve_id.clone(),
        order_reference: Some(order.reference.clone()),
        channel: Some("web".to_owned()),
        lines,
        ..ReserveRequest::default()
    };
    match client.reserve(request).await {
        // The same id brings the same answer: the hold as it was made. What became of it since is
        // looked up.
        Ok(answer) => match answer.outcome {
            Some(Outcome::Reservation(_)) => find(client, order).await,
            Some(Outcome::Shortage(_)) => {
                bail!("{}: there is not enough left", order.reference)
            }
            None => bail!("an answer without an outcome"),
        },
        // Ids are remembered for ten minutes; reservations are found by their order for longer.
        Err(error) if error.reason() == ErrorReason::RequestTooOld => find(client, order).await,
        Err(error) => Err(unknown(error, order)),
    }
}

async fn find(client: &Client, order: &Order) -> Result<Reservation> {
    let request = ListReservationsRequest {
        order_reference: Some(order.reference.clone()),
        channel: Some("web".to_owned()),
        read: Some(stock_client::v1::ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    };
    let found = client.list_reservations(request).await?;
    found.reservations.into_iter().next().with_context(|| {
        format!(
            "{}: nothing is held for it, and it is too old to be asked for again: begin a new order",
            order.reference
        )
    })
}

/// Needs no id that is kept: whether it was done before, the state told that was looked up.
async fn confirm(client: &Client, order: &Order, held: &Reservation) -> Result<()> {
    let request = ConfirmRequest {
        reservation_id: held.reservation_id.clone(),
        ..ConfirmRequest::default()
    };
    let confirmed = client.confirm(request).await;
    confirmed.map_err(|error| unknown(error, order))?;
    Ok(())
}

async fn release(client: &Client, order: &Order, held: &Reservation) -> Result<()> {
    let request = ReleaseRequest {
        reservation_id: held.reservation_id.clone(),
        ..ReleaseRequest::default()
    };
    let released = client.release(request).await;
    released.map_err(|error| unknown(error, order))?;
    Ok(())
}

/// What is said where a call has no answer.
fn unknown(error: Error, order: &Order) -> anyhow::Error {
    let what = match error.outcome_unknown() {
        true => "it is not known yet what became of it: run the same command again",
        false => "nothing was done",
    };
    anyhow::Error::from(error).context(format!("{}: {what}", order.reference))
}

fn line(text: &str) -> Result<Line> {
    let parse = || {
        let (place, quantity) = text.rsplit_once('=')?;
        let (sku, location) = place.rsplit_once('@')?;
        Some(Line::at(sku, location, quantity.parse().ok()?))
    };
    parse().with_context(|| format!("`{text}` is not SKU@LOCATION=QUANTITY"))
}

/// A shop's own tests need no cluster.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use stock_client::CallOptions;
    use stock_client::fake::{Fake, Fault};

    use super::*;

    /// An order for two units, in a folder of its own, where ten are there.
    fn shop() -> (Fake, Client, Cli, tempfile::TempDir) {
        let fake = Fake::new();
        fake.receive("milk-1l", "store-7", 10);
        let client = fake.client().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().display().to_string();
        let cli = [
            "checkout",
            "--journal",
            &journal,
            "A-1",
            "milk-1l@store-7=2",
        ];
        (fake, client, Cli::parse_from(cli), dir)
    }

    fn basket() -> Vec<Line> {
        vec![Line::at("milk-1l", "store-7", 2)]
    }

    #[tokio::test]
    async fn an_order_whose_answer_was_lost_is_confirmed_by_the_same_command() {
        let (fake, client, cli, _dir) = shop();
        fake.fail_all::<ReserveRequest>(Fault::LostAfter);
        let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(100)));
        let error = check_out(&hurried, &cli, basket()).await.unwrap_err();
        assert!(error.to_string().contains("run the same command again"));
        fake.mend();
        // Longer than ids are remembered, and shorter than a hold lasts.
        fake.pass(Duration::from_secs(11 * 60));
        check_out(&client, &cli, basket()).await.unwrap();
        let there = fake.reservations();
        assert_eq!(there.len(), 1);
        assert_eq!(there[0].state(), State::Confirmed);
        assert_eq!(fake.available("milk-1l", "store-7"), Some(8));
    }

    #[tokio::test]
    async fn an_order_that_never_came_to_a_node_is_not_said_to_be_short() {
        let (fake, client, cli, _dir) = shop();
        fake.fail_all::<ReserveRequest>(Fault::LostBefore);
        let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(100)));
        check_out(&hurried, &cli, basket()).await.unwrap_err();
        fake.mend();
        // A later order, whose id the cluster forgets: earlier ones are too old from then on.
        let mut later = cli.clone();
        later.order = "A-2".to_owned();
        check_out(&client, &later, basket()).await.unwrap();
        fake.pass(Duration::from_secs(11 * 60));
        let error = check_out(&client, &cli, basket()).await.unwrap_err();
        assert!(error.to_string().contains("begin a new order"), "{error}");
        assert_eq!(fake.available("milk-1l", "store-7"), Some(8));
    }

    #[tokio::test]
    async fn what_is_not_paid_is_for_others_to_buy() {
        let (fake, client, cli, _dir) = shop();
        let cli = Cli {
            declined: true,
            ..cli
        };
        check_out(&client, &cli, basket()).await.unwrap_err();
        assert_eq!(fake.available("milk-1l", "store-7"), Some(10));
    }
}
