//! At its start a node asks everybody what they know of it. Who does not answer at once is no
//! evidence of anything: a cluster that has lost its power must elect as soon as a majority is
//! back.

use std::time::Duration;

use futures_util::future::join_all;
use stock_cluster::identity::Refusal;
use stock_cluster::identity::refusal::{Told, ToldKind};
use stock_wire::cluster::v1 as cluster;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::PeerError;
use super::wire;
use crate::peers::introductions::Introductions;

/// Who has said nothing until then has nothing to say.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Asks these nodes, each by id and address, all at once. Returns what this node must act upon, the
/// worst of it.
pub async fn roll_call(introductions: &Introductions, others: Vec<(u64, String)>) -> Option<Told> {
    let asked = others.iter().map(|(node, address)| async move {
        match timeout(ANSWER_WITHIN, ask(introductions, *node, address)).await {
            Ok(Err(PeerError::Told(told))) => Some(told),
            Ok(Err(PeerError::Refused(refusal @ Refusal::LaterLife { .. }))) => Some(Told {
                from: format!("node {node} at {address}"),
                kind: ToldKind::Over,
                reason: refusal.to_string(),
            }),
            Ok(Err(error)) => {
                tracing::debug!(node, %address, %error, "no word of this node");
                None
            }
            Ok(Ok(())) | Err(_) => None,
        }
    });
    let told = join_all(asked).await.into_iter().flatten();
    let told = told.filter(|told| told.kind != ToldKind::NotNow);
    // That the directory is over outweighs that it has forgotten something, and both that it is in
    // use.
    told.min_by_key(|told| match told.kind {
        ToldKind::Over => 0,
        ToldKind::Forgotten => 1,
        ToldKind::Twin | ToldKind::NotNow => 2,
    })
}

/// Introduces this node to another one, and takes in what that says of it. The other one knows from
/// then on where this one is.
pub(super) async fn ask(
    introductions: &Introductions,
    node: u64,
    address: &str,
) -> Result<(), PeerError> {
    let mut stream = TcpStream::connect(address).await?;
    let own = introductions.hello(cluster::Purpose::Acquaintance);
    wire::write_message(&mut stream, &own).await?;
    let hello = wire::read_hello(&mut stream).await?;
    let verdict = wire::read_verdict(&mut stream).await?;
    introductions.heed_node(node, &format!("node {node} at {address}"), &hello, &verdict)
}
