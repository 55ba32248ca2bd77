//! Who looks after the nodes while load is put on them: kills leaders, and looks at memory and
//! disk.

use std::cell::Cell;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;
use stock_client::Client;
use tokio::time::sleep;

use super::disk::Disk;
use super::profile::Profile;
use crate::nodes::Nodes;
use crate::recovery::directory_bytes;

/// A killed node stays away for this long.
const AWAY: Duration = Duration::from_secs(1);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Replicas of each group.
const VOTERS: usize = 3;

pub(crate) struct Attendance {
    pub(crate) nodes: Nodes,
    client: Client,
    kill_every: Option<Duration>,
    sample_every: Option<Duration>,
    began: Instant,
    pub(crate) kills: Vec<Kill>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Kill {
    pub(crate) at_seconds: f64,
    pub(crate) node: u64,
    /// It led this one, among others.
    pub(crate) shard: u32,
    /// When every group had a leader again and the node was back.
    pub(crate) led_at_seconds: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_seconds: f64,
    pub(crate) nodes: Vec<NodeSample>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct NodeSample {
    pub(crate) node: u64,
    pub(crate) resident_bytes: u64,
    /// Of everything in its data directory.
    pub(crate) disk_bytes: u64,
    #[serde(flatten)]
    pub(crate) disk: Disk,
}

impl Attendance {
    pub(crate) fn new(nodes: Nodes, client: &Client, profile: &Profile) -> Attendance {
        let seconds = |seconds: Option<u32>| seconds.map(|s| Duration::from_secs(s.into()));
        Attendance {
            nodes,
            client: client.clone(),
            kill_every: seconds(profile.kill_leader_every_seconds),
            sample_every: seconds(profile.sample_seconds),
            began: Instant::now(),
            kills: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Does so until it is over, with all times from `began`.
    pub(crate) async fn attend(
        &mut self,
        began: Instant,
        is_over: &Cell<bool>,
    ) -> anyhow::Result<()> {
        self.began = began;
        let attended = self.attend_until(is_over).await;
        if attended.is_err() {
            self.nodes.keep();
        }
        attended
    }

    async fn attend_until(&mut self, is_over: &Cell<bool>) -> anyhow::Result<()> {
        let mut next_sample = self.began;
        let mut next_kill = self.began + self.kill_every.unwrap_or_default();
        while !is_over.get() {
            if let Some(every) = self.sample_every.filter(|_| Instant::now() >= next_sample) {
                self.sample()?;
                next_sample = (next_sample + every).max(Instant::now());
            }
            if let Some(every) = self.kill_every.filter(|_| Instant::now() >= next_kill) {
                self.kill().await?;
                next_kill = (next_kill + every).max(Instant::now());
            }
            sleep(LOOK_EVERY).await;
        }
        if !self.kills.is_empty() {
            self.nodes.wait_until_settled(&self.client, VOTERS).await?;
        }
        Ok(())
    }

    /// Each time the leader of another shard.
    async fn kill(&mut self) -> anyhow::Result<()> {
        // What was killed before has caught up, so that a majority has everything.
        self.nodes.wait_until_settled(&self.client, VOTERS).await?;
        let shards = self.client.topology().shard_count();
        let shard = self.kills.len() as u32 % shards;
        let topology = self.client.get_topology().await?;
        let group = topology.shards.get(shard as usize);
        let node = group.and_then(|group| group.leader_node_id);
        let node = node.context("a shard has no leader")?;
        let at_seconds = self.began.elapsed().as_secs_f64();
        self.nodes.kill(node);
        sleep(AWAY).await;
        self.nodes.start(node)?;
        self.nodes.wait_until_led().await?;
        self.kills.push(Kill {
            at_seconds,
            node,
            shard,
            led_at_seconds: self.began.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    fn sample(&mut self) -> anyhow::Result<()> {
        let at_seconds = self.began.elapsed().as_secs_f64();
        let look = |node| {
            Ok(NodeSample {
                node,
                resident_bytes: self.nodes.resident_bytes(node)?,
                disk_bytes: directory_bytes(&self.nodes.data_dir(node)),
                disk: Disk::of(&self.nodes.data_dir(node)),
            })
        };
        let nodes = self.nodes.running().into_iter().map(look);
        let nodes = nodes.collect::<anyhow::Result<_>>()?;
        self.samples.push(Sample { at_seconds, nodes });
        Ok(())
    }
}
