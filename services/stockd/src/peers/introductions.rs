//! How nodes introduce themselves: a hello each way, and a verdict each way on the other's.
//!
//! ```text
//! dials       hello                         verdict
//! is dialled          hello, verdict                 what the hello announced
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use stock_cluster::identity::refusal::{self, Told, ToldKind};
use stock_cluster::identity::{Identity, Known, Refusal, number, same, wire};
use stock_node::standing::ClusterState;
use stock_wire::cluster::v1 as cluster;
use tokio::sync::Notify;

use super::error::PeerError;

/// Introduces this node, and judges who introduces himself to it.
pub struct Introductions {
    /// Who this node is.
    pub identity: Identity,
    cluster: Arc<ClusterState>,
    /// The worst that others have said of this node, until somebody has asked.
    told: Mutex<Option<Told>>,
    was_told: Notify,
    /// Somebody has believed this process.
    was_believed: AtomicBool,
}

impl Introductions {
    /// Of this node.
    pub fn new(identity: Identity, cluster: Arc<ClusterState>) -> Self {
        Self {
            identity,
            cluster,
            told: Mutex::default(),
            was_told: Notify::new(),
            was_believed: AtomicBool::new(false),
        }
    }

    /// How this node introduces itself now.
    pub fn hello(&self, purpose: cluster::Purpose) -> cluster::Hello {
        let hello = self
            .cluster
            .acquaintances(|acquaintances| self.identity.hello(purpose, acquaintances));
        cluster::Hello {
            was_believed: self.was_believed.load(Ordering::Relaxed),
            ..hello
        }
    }

    /// Who a member is that introduces itself and wants to be connected; `heard` is the boot of it
    /// that is connected and heard. Whoever is believed is remembered, and what he has heard of
    /// others.
    pub fn judge(&self, hello: &cluster::Hello, heard: Option<u64>) -> Result<Known, Refusal> {
        let registry = self.cluster.registry();
        let node = hello.node_id;
        self.look_at_life(&format!("node {node}"), hello)?;
        self.cluster.acquaintances(|acquaintances| {
            let known = acquaintances.known(node);
            let judged = self.identity.judge(hello, &registry, known, heard);
            match &judged {
                Ok(theirs) => {
                    let memory = hello.memory.iter().filter_map(wire::decode_known);
                    acquaintances.passed_on(self.identity.node, memory);
                    acquaintances.met(node, theirs);
                }
                // Of two that speak for one directory, and were both believed by somebody, the one
                // that is heard may be the older: then it has to go, too. One that nobody has
                // believed has promised nothing.
                Err(Refusal::Forgotten { .. } | Refusal::Twin { .. })
                    if heard.is_some() && hello.was_believed =>
                {
                    let theirs = wire::decode_beats(&hello.beats).latest();
                    let directory = number(&hello.directory);
                    if let (Some(beat), Some(directory)) = (theirs, directory) {
                        acquaintances.heard(node, directory, hello.since, beat);
                    }
                }
                Err(_) => {}
            }
            judged
        })
    }

    /// A node is connected, and both believe each other.
    pub fn connected(&self, node: u64, theirs: Known) {
        self.was_believed.store(true, Ordering::Relaxed);
        self.cluster
            .acquaintances(|acquaintances| acquaintances.connected(node, theirs));
    }

    /// Nodes that are connected and should not be, after what was heard of them since.
    pub fn overtaken(&self) -> Vec<u64> {
        self.cluster
            .acquaintances(|acquaintances| acquaintances.overtaken())
    }

    /// A connection has ended.
    pub fn parted(&self, node: u64) {
        self.cluster
            .acquaintances(|acquaintances| acquaintances.parted(node));
    }

    /// As [`Self::judge`], where nothing is to be remembered: who only asks has promised nothing
    /// yet, and who brings a snapshot is known from another connection.
    pub fn look_at(&self, hello: &cluster::Hello, heard: Option<u64>) -> Result<(), Refusal> {
        let registry = self.cluster.registry();
        self.look_at_life(&format!("node {}", hello.node_id), hello)?;
        self.cluster.acquaintances(|acquaintances| {
            let known = acquaintances.known(hello.node_id);
            self.identity.judge(hello, &registry, known, heard)
        })?;
        Ok(())
    }

    /// Takes what the node at the other end says of this one, if that is the node that was meant,
    /// and not this one itself: an address may have become another's.
    ///
    /// # Errors
    ///
    /// What it says, where it does not talk to this one; and where it is not the one.
    pub fn heed_node(
        &self,
        node: u64,
        from: &str,
        hello: &cluster::Hello,
        verdict: &cluster::Verdict,
    ) -> Result<(), PeerError> {
        same("the node's id", &hello.node_id, &node)?;
        self.look_at_life(from, hello)?;
        Ok(self.heed(from, verdict)?)
    }

    /// Refuses whoever is of another cluster or life. Where his goes on from this one, it is this
    /// node that is over: with a quorum or without, since what was recovered acknowledges the same
    /// units.
    fn look_at_life(&self, from: &str, hello: &cluster::Hello) -> Result<(), Refusal> {
        let checked = self.identity.check(hello);
        if let Err(refusal @ Refusal::LaterLife { .. }) = &checked {
            self.is_told(Told {
                from: from.to_owned(),
                kind: ToldKind::Over,
                reason: refusal.to_string(),
            });
        }
        checked
    }

    fn is_told(&self, told: Told) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        self.was_told.notify_one();
    }

    /// Takes what another node says of this one.
    ///
    /// # Errors
    ///
    /// What it says, where it does not talk to this one.
    pub fn heed(&self, from: &str, verdict: &cluster::Verdict) -> Result<(), Told> {
        let Some(told) = refusal::told(from, verdict) else {
            return Ok(());
        };
        if told.kind != ToldKind::NotNow {
            self.is_told(told.clone());
        }
        Err(told)
    }

    /// Waits for what another node says of this one that this one must act upon.
    pub async fn refused(&self) -> Told {
        loop {
            let told = self
                .told
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            match told {
                Some(told) => return told,
                None => self.was_told.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests;
