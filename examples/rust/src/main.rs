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
#[derive(Debug, Parser)]
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
    // Its ids are kept before the calls that they are for.
    let (journal, mut order) = Journal::open(&cli.journal, &cli.order, &client)?;

    let Some(held) = reserve(&client, &order, lines?).await? else {
        bail!("{}: there is not enough left", order.reference);
    };
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
            release(&client, &order, &held).await?;
            bail!("{}: not paid, and released", order.reference);
        }
        order.is_paid = true;
        journal.keep(&order)?;
    }
    confirm(&client, &order, &held).await?;
    println!("{}: confirmed", order.reference);
    Ok(())
}

/// Holds the basket, or finds what was held for this order before; none where there is not enough.
async fn reserve(client: &Client, order: &Order, lines: Vec<Line>) -> Result<Option<Reservation>> {
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
            Some(Outcome::Shortage(_)) => Ok(None),
            None => bail!("an answer without an outcome"),
        },
        // Ids are remembered for ten minutes; reservations are found by their order for longer.
        Err(error) if error.reason() == ErrorReason::RequestTooOld => find(client, order).await,
        Err(error) => Err(unknown(error, order)),
    }
}

async fn find(client: &Client, order: &Order) -> Result<Option<Reservation>> {
    let request = ListReservationsRequest {
        order_reference: Some(order.reference.clone()),
        channel: Some("web".to_owned()),
        read: Some(stock_client::v1::ReadOptions::linearizable()),
        ..ListReservationsRequest::default()
    };
    let found = client.list_reservations(request).await?;
    Ok(found.reservations.into_iter().next())
}

async fn confirm(client: &Client, order: &Order, held: &Reservation) -> Result<()> {
    let request = ConfirmRequest {
        request_id: order.confirm_id.clone(),
        reservation_id: held.reservation_id.clone(),
        ..ConfirmRequest::default()
    };
    let confirmed = client.confirm(request).await;
    confirmed.map_err(|error| unknown(error, order))?;
    Ok(())
}

async fn release(client: &Client, order: &Order, held: &Reservation) -> Result<()> {
    let request = ReleaseRequest {
        request_id: order.release_id.clone(),
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
