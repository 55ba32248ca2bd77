//! etcd: a transaction that takes from the position if nobody changed it meanwhile, and writes the
//! hold.
//!
//! Where somebody did, the transaction reads it instead and is tried again. What a call knows of a
//! position it knows from the last one: a reserve without a rival is one call.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use stock_supervisor::ports;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use self::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use self::pb::kv_client::KvClient;
use self::pb::maintenance_client::MaintenanceClient;
use self::pb::request_op::Request;
use self::pb::response_op::Response;
use super::server::{self, HOST, Server};
use super::{LOCATION, PEER_ON_HAND, System, Work, peer_baskets};
use crate::lab::{Call, Caller, Outcome, Processes};

#[expect(unreachable_pub, reason = "generated")]
mod pb {
    tonic::include_proto!("etcdserverpb");
}

/// A call that meets rivals again and again gives up.
const ATTEMPTS_MAX: u32 = 1_000;

/// One member, or three.
pub(crate) struct Etcd {
    members: Vec<Server>,
    leader: KvClient<Channel>,
    _dir: TempDir,
}

/// A position as it was last seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// 0: it was never written.
    revision: i64,
    on_hand: i64,
    reserved: i64,
}

impl Etcd {
    /// Starts so many members.
    pub(crate) async fn start(scratch: &Path, members: usize) -> anyhow::Result<Etcd> {
        let dir = server::scratch_dir("etcd", scratch)?;
        let ports = ports::free(2 * members)?;
        let (client_ports, peer_ports) = ports.split_at(members);
        let peer = |member: usize| format!("member-{member}=http://{HOST}:{}", peer_ports[member]);
        let cluster: Vec<String> = (0..members).map(peer).collect();
        let mut servers = Vec::new();
        for member in 0..members {
            let client = format!("http://{HOST}:{}", client_ports[member]);
            let peer = format!("http://{HOST}:{}", peer_ports[member]);
            let mut command = Command::new("etcd");
            command
                .args(["--name", &format!("member-{member}"), "--data-dir"])
                .arg(dir.path().join(member.to_string()))
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args(["--initial-cluster", &cluster.join(",")])
                .args(["--initial-cluster-state", "new", "--log-level", "error"]);
            let log = dir.path().join(format!("{member}.log"));
            servers.push(Server::start("etcd", command, &log)?);
        }
        let mut leader = None;
        for (server, port) in servers.iter_mut().zip(client_ports) {
            let (channel, leads) = server.ready(async || look(*port).await).await?;
            if leads {
                leader = Some(KvClient::new(channel));
            }
        }
        Ok(Etcd {
            members: servers,
            leader: leader.context("etcd: no member leads")?,
            _dir: dir,
        })
    }
}

impl System for Etcd {
    type Reserve = EtcdReserve;

    fn processes(&self) -> Processes {
        Processes::of(self.members.iter().map(Server::id))
    }

    fn reserves(&self, work: Work) -> Vec<EtcdReserve> {
        let seen = Rc::new(RefCell::new(HashMap::new()));
        let call = |skus: Vec<String>| EtcdReserve {
            leader: self.leader.clone(),
            positions: skus
                .iter()
                .map(|sku| format!("position/{sku}@{LOCATION}"))
                .collect(),
            seen: Rc::clone(&seen),
        };
        peer_baskets(work).into_iter().map(call).collect()
    }

    async fn stop(self) -> anyhow::Result<()> {
        for member in self.members {
            member.stop(Signal::TERM).await?;
        }
        Ok(())
    }
}

/// A reserve of these positions, one unit each.
#[derive(Clone)]
pub(crate) struct EtcdReserve {
    leader: KvClient<Channel>,
    positions: Vec<String>,
    seen: Rc<RefCell<HashMap<String, Seen>>>,
}

impl Caller for EtcdReserve {
    fn last(&self) -> Call {
        Call::of_lines(self.positions.len() as u64)
    }

    async fn call(&mut self) -> Result<Outcome, String> {
        let hold = format!("hold/{}", Uuid::now_v7());
        for _ in 0..ATTEMPTS_MAX {
            let seen = self.positions.iter().map(|position| self.seen(position));
            let seen: Vec<Seen> = seen.collect();
            if let Some(short) = seen.iter().find(|seen| seen.on_hand - seen.reserved < 1) {
                return Err(format!("etcd: short: {short:?}"));
            }
            let answer = self.leader.txn(self.transaction(&hold, &seen)).await;
            let answer = answer
                .map_err(|status| format!("etcd: {status}"))?
                .into_inner();
            let mut known = self.seen.borrow_mut();
            if answer.succeeded {
                let revision = answer.header.unwrap_or_default().revision;
                for (position, seen) in self.positions.iter().zip(seen) {
                    let taken = Seen {
                        revision,
                        reserved: seen.reserved + 1,
                        ..seen
                    };
                    // Another call's answer may have come first.
                    let known = known.entry(position.clone()).or_insert(taken);
                    if known.revision < revision {
                        *known = taken;
                    }
                }
                return Ok(Outcome::Done);
            }
            for (position, answer) in self.positions.iter().zip(answer.responses) {
                if let Some(Response::ResponseRange(range)) = answer.response
                    && let Some(kv) = range.kvs.first()
                {
                    known.insert(position.clone(), read(kv)?);
                }
            }
        }
        Err(format!("etcd: rivals {ATTEMPTS_MAX} times"))
    }
}

impl EtcdReserve {
    fn seen(&self, position: &String) -> Seen {
        let new = Seen {
            revision: 0,
            on_hand: PEER_ON_HAND,
            reserved: 0,
        };
        self.seen.borrow().get(position).copied().unwrap_or(new)
    }

    fn transaction(&self, hold: &str, seen: &[Seen]) -> pb::TxnRequest {
        let positions = || self.positions.iter().zip(seen);
        let put = |key: &str, value: String| pb::RequestOp {
            request: Some(Request::RequestPut(pb::PutRequest {
                key: key.into(),
                value: value.into(),
            })),
        };
        let compare = positions().map(|(position, seen)| pb::Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: position.clone().into(),
            target_union: Some(TargetUnion::ModRevision(seen.revision)),
        });
        let take = positions().map(|(position, seen)| {
            put(position, format!("{} {}", seen.on_hand, seen.reserved + 1))
        });
        let look = positions().map(|(position, _)| pb::RequestOp {
            request: Some(Request::RequestRange(pb::RangeRequest {
                key: position.clone().into(),
            })),
        });
        pb::TxnRequest {
            compare: compare.collect(),
            success: take.chain([put(hold, self.positions.join(" "))]).collect(),
            failure: look.collect(),
        }
    }
}

fn read(kv: &pb::KeyValue) -> Result<Seen, String> {
    let text = str::from_utf8(&kv.value).ok();
    let numbers = text.and_then(|text| {
        let (on_hand, reserved) = text.split_once(' ')?;
        Some((on_hand.parse().ok()?, reserved.parse().ok()?))
    });
    let (on_hand, reserved) = numbers.ok_or("etcd: a position that is none")?;
    Ok(Seen {
        revision: kv.mod_revision,
        on_hand,
        reserved,
    })
}

/// A connection to a member, and whether it leads.
async fn look(port: u16) -> anyhow::Result<(Channel, bool)> {
    let endpoint = Endpoint::from_shared(format!("http://{HOST}:{port}"))?;
    let channel = endpoint.tcp_nodelay(true).connect().await?;
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
    ensure!(status.leader != 0, "there is no leader yet");
    let own = status.header.unwrap_or_default().member_id;
    Ok((channel, own == status.leader))
}
