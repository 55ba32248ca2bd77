//! Who nodes are to each other.

use stock_cluster::identity::{Addresses, Identity, Listed};
use stock_cluster::{Directory, Founder};
use stock_node::worker::Founding;

use super::machine::{Machine, first_address};
use super::plan::Plan;

/// Who a node is to the others.
pub(crate) fn identity(node: u64, machine: &Machine, plan: &Plan, since: u64) -> Identity {
    Identity {
        cluster_id: "sim".to_owned(),
        node,
        shards: plan.shards,
        directory: machine.directory,
        since,
        boot: machine.boots,
        founders: match machine.is_founder {
            true => machine.founders.clone(),
            false => Vec::new(),
        },
        listed: Listed {
            nodes: machine.lists.clone().unwrap_or_default(),
            replicas: plan.replication,
        },
        has_joined: !machine.is_founder,
        incarnation: Some(machine.lives[0]),
        earlier_lives: machine.lives[1..].to_vec(),
        speaks: machine.speaks,
        addresses: Addresses {
            grpc: format!("http://{}", machine.address),
            peers: machine.address.clone(),
        },
    }
}

/// The first nodes, each with its first directory.
pub(crate) fn founding(plan: &Plan, machine: &Machine) -> Founding {
    let founders = machine.founders.iter().map(|founder| Founder {
        node: founder.node,
        directory: Directory(founder.directory),
        grpc: format!("http://{}", first_address(founder.node)),
        peers: first_address(founder.node),
    });
    Founding {
        incarnation: machine.lives[0],
        replication: plan.replication,
        nodes: founders.collect(),
        version: plan.first_build().newest,
    }
}
