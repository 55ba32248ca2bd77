//! How a node comes to take part: it becomes a member, if it is none yet, and hears from the others
//! who it is to them.

use std::sync::Arc;
use std::time::Duration;

use stock_cluster::identity::refusal::{Told, ToldKind};
use stock_node::standing::ClusterState;
use tokio::time::Instant;

use super::error::NodeError;
use super::stores::Stores;
use crate::config::Config;
use crate::directory::disk::Disk;
use crate::directory::node_record::{Membership, NodeRecord};
use crate::listeners::Listener;
use crate::membership::first_boot::{self, Verdict};
use crate::membership::join;
use crate::peers::introductions::Introductions;
use crate::peers::roll_call;

/// Who a node is, once it may take part.
pub(super) struct Standing {
    pub(super) introductions: Arc<Introductions>,
    pub(super) cluster: Arc<ClusterState>,
}

/// Another process that uses the directory, or was heard from lately, is given so long to end.
const TWIN_FOR: Duration = Duration::from_secs(10);
/// Between two roll calls meanwhile.
const TWIN_ASK_EVERY: Duration = Duration::from_millis(500);

/// Becomes a member, if this directory is none yet, and asks everybody who answers at once what
/// they know of it. A directory that has forgotten something becomes another one, and joins anew.
pub(super) async fn stand(
    config: &mut Config,
    stores: &mut Stores,
    listener: &Listener,
) -> Result<Standing, NodeError> {
    let began = Instant::now();
    let is_new = stores.is_new(config);
    let (disk, record) = (&stores.disk, &mut stores.record);
    loop {
        // What a node was told when it was let in once, it asks for again.
        if record.node_id != 0 {
            config.node_id = record.node_id;
        }
        if record.shards != 0 {
            config.shards = record.shards;
        }
        if record.must_join() {
            become_member(config, disk, record, listener, is_new).await?;
        }
        config.node_id = record.node_id;
        config.shards = record.shards;
        let boot = rand::random();
        let acquaintances = disk.begin_acquaintances(boot)?;
        let cluster = ClusterState::new(config.node_id, config.shards + 1, acquaintances);
        let cluster = Arc::new(cluster);
        let identity = record.identity(config, boot);
        let introductions = Arc::new(Introductions::new(identity, Arc::clone(&cluster)));
        let known = record.nodes.iter().chain(&config.nodes);
        let others = known.filter(|node| node.id != config.node_id);
        let others = others.map(|node| (node.id, node.peers.clone())).collect();
        let Some(told) = roll_call(&introductions, others).await else {
            return Ok(Standing {
                introductions,
                cluster,
            });
        };
        match told.kind {
            ToldKind::Forgotten => {
                tracing::error!(%told, "this data directory has forgotten something: joining \
                    anew, as an empty one does");
                record.renounce();
                record.write(disk)?;
            }
            ToldKind::Twin if began.elapsed() < TWIN_FOR => {
                tracing::warn!(%told, "waiting for it to end");
                tokio::time::sleep(TWIN_ASK_EVERY).await;
            }
            ToldKind::Over | ToldKind::Twin | ToldKind::NotNow => return Err(told.into()),
        }
    }
}

/// Returns what others say of this node, if it must not go on for it. That somebody else is heard
/// in its place may pass: a connection that broke without a word is not missed at once.
pub(super) async fn refused(introductions: &Introductions) -> Told {
    // Since when it was told without a pause, and when last.
    let mut twin: Option<(Instant, Instant)> = None;
    loop {
        let told = introductions.refused().await;
        let now = Instant::now();
        let before = twin.filter(|(_, last)| now - *last < TWIN_FOR);
        let since = before.map_or(now, |(since, _)| since);
        if told.kind != ToldKind::Twin || now - since >= TWIN_FOR {
            return told;
        }
        twin = Some((since, now));
    }
}

/// An empty directory founds a cluster together with others, or joins one.
async fn become_member(
    config: &Config,
    disk: &Disk,
    record: &mut NodeRecord,
    listener: &Listener,
    is_new: bool,
) -> Result<(), NodeError> {
    let seeds = if record.membership != Membership::None {
        // It was a member, and knows more nodes than its configuration does.
        others(config, record)
    } else if config.join.is_empty() {
        let verdict = first_boot::decide(config, disk, record, listener, is_new).await?;
        if verdict != Verdict::Join {
            return Ok(());
        }
        tracing::warn!(
            node = config.node_id,
            "the cluster is there already, and this data directory is new to it: joining it anew"
        );
        let others = config.nodes.iter().filter(|node| node.id != config.node_id);
        others.map(|node| node.peers.clone()).collect()
    } else {
        config.join.clone()
    };
    let held = record.held(disk);
    Ok(join::join(config, &seeds, disk, record, &held).await?)
}

/// Where other nodes take connections of nodes, as far as configuration and disk know.
pub(super) fn others(config: &Config, record: &NodeRecord) -> Vec<String> {
    let known = record.nodes.iter().chain(&config.nodes);
    let known = known.filter(|node| node.id != config.node_id && !node.peers.is_empty());
    let addresses = known.map(|node| node.peers.clone());
    let mut addresses: Vec<String> = addresses.chain(config.join.iter().cloned()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
