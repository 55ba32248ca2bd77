//! What operators ask of a cluster: its nodes, its replicas, and where they go.

use stock_proto::stock::admin::v1::cluster_service_client::ClusterServiceClient;
use stock_proto::stock::admin::v1::reservation_admin_service_client::ReservationAdminServiceClient;
use stock_proto::stock::admin::v1::{
    AddNodeRequest, AddNodeResponse, DrainNodeRequest, DrainNodeResponse, ForceReleaseRequest,
    ForceReleaseResponse, GetAuditRequest, GetAuditResponse, ListNodesRequest, ListNodesResponse,
    ListShardsRequest, ListShardsResponse, MoveReplicaRequest, MoveReplicaResponse,
    RaiseVersionRequest, RaiseVersionResponse, RebuildReplicaRequest, RebuildReplicaResponse,
    RemoveNodeRequest, RemoveNodeResponse, ReplaceNodeRequest, ReplaceNodeResponse,
    SetReplicationRequest, SetReplicationResponse, TransferLeadershipRequest,
    TransferLeadershipResponse, UndrainNodeRequest, UndrainNodeResponse,
};

use crate::client::Client;
use crate::error::Error;
use crate::way::{self, Target};

/// Nodes and replicas. The group that keeps them is asked, whoever leads it. What changes something
/// is written down when the call returns, and done later: [`Client::list_shards`] tells how far it
/// is. Changes have request ids as those of stock have, and are repeated likewise; lists have the
/// time of a call for each page. What each is refused with, variants of
/// [`ErrorReason`](crate::v1::ErrorReason) say.
///
/// A cluster in memory does not have these calls. Here is one of each kind, which is not run:
///
/// ```no_run
/// # async fn example(client: stock_client::Client) -> Result<(), stock_client::Error> {
/// use stock_client::admin::v1::{DrainNodeRequest, ListNodesRequest};
///
/// for node in client.list_nodes(ListNodesRequest::default()).await?.nodes {
///     println!("{} holds {} replicas", node.node_id, node.replicas);
/// }
/// let request = DrainNodeRequest {
///     request_id: client.new_request_id(),
///     node_id: 3,
/// };
/// let answer = client.drain_node(request).await?;
/// println!("{} replicas are to go", answer.replicas);
/// # Ok(())
/// # }
/// ```
impl Client {
    /// Every node: its state, how well it is, and how much it holds. All pages, one after the
    /// other.
    pub async fn list_nodes(
        &self,
        mut request: ListNodesRequest,
    ) -> Result<ListNodesResponse, Error> {
        let mut all = self.nodes_page(request.clone()).await?;
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            let page = self.nodes_page(request.clone()).await?;
            all.nodes.extend(page.nodes);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    async fn nodes_page(&self, request: ListNodesRequest) -> Result<ListNodesResponse, Error> {
        self.small(Target::Meta, request, |channel, request| async {
            ClusterServiceClient::new(channel).list_nodes(request).await
        })
        .await
    }

    /// Announces a node that is not running yet; the answer is the id to start it under.
    ///
    /// Refused with `NodeKnown`, `AddressTaken`, `TooManyNodes`.
    pub async fn add_node(&self, request: AddNodeRequest) -> Result<AddNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async { ClusterServiceClient::new(channel).add_node(request).await },
        )
        .await
    }

    /// Lets a node's replicas and leaderships go to other nodes. The answer says how many replicas;
    /// it does not wait for them.
    ///
    /// Refused with `UnknownNode`, `NodeRemoved`, `NodeNotActive`, `TooFewNodes`.
    pub async fn drain_node(&self, request: DrainNodeRequest) -> Result<DrainNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel).drain_node(request).await
            },
        )
        .await
    }

    /// Gives a reservation's units back in its holder's place, all that are open or so many of the
    /// lines named. The history of changes keeps who did it, and the reason.
    ///
    /// Refused as [`Client::release`].
    pub async fn force_release(
        &self,
        request: ForceReleaseRequest,
    ) -> Result<ForceReleaseResponse, Error> {
        let target = way::of_reservation(&request.reservation_id);
        self.mutate(
            target,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ReservationAdminServiceClient::new(channel)
                    .force_release(request)
                    .await
            },
        )
        .await
    }

    /// Takes a drain back; where none is under way, it does nothing. What has moved stays where it
    /// is.
    ///
    /// Refused with `UnknownNode`, `NodeRemoved`.
    pub async fn undrain_node(
        &self,
        request: UndrainNodeRequest,
    ) -> Result<UndrainNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .undrain_node(request)
                    .await
            },
        )
        .await
    }

    /// Has the cluster speak the next version, once every node does. It is not taken back.
    ///
    /// Refused with `VersionNotNext`, `NodeTooOld`.
    pub async fn raise_version(
        &self,
        request: RaiseVersionRequest,
    ) -> Result<RaiseVersionResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .raise_version(request)
                    .await
            },
        )
        .await
    }

    /// Says how many voters each group shall have: 1, 3, 5 or 7.
    ///
    /// Refused with `TooFewNodes`.
    pub async fn set_replication(
        &self,
        request: SetReplicationRequest,
    ) -> Result<SetReplicationResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .set_replication(request)
                    .await
            },
        )
        .await
    }

    /// Lets the next data directory that joins under a node's id take its place, though the node is
    /// heard from.
    ///
    /// Refused with `UnknownNode`, `NodeRemoved`.
    pub async fn replace_node(
        &self,
        request: ReplaceNodeRequest,
    ) -> Result<ReplaceNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .replace_node(request)
                    .await
            },
        )
        .await
    }

    /// Takes a drained, empty node out for ever.
    ///
    /// Refused with `UnknownNode`, `NodeNotDraining`, `NodeHoldsReplicas`.
    pub async fn remove_node(
        &self,
        request: RemoveNodeRequest,
    ) -> Result<RemoveNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .remove_node(request)
                    .await
            },
        )
        .await
    }

    /// Every shard: replicas, leader, what is being moved, and what waits for what. All pages, one
    /// after the other.
    pub async fn list_shards(
        &self,
        mut request: ListShardsRequest,
    ) -> Result<ListShardsResponse, Error> {
        let mut all = self.shards_page(request.clone()).await?;
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            let page = self.shards_page(request.clone()).await?;
            all.shards.extend(page.shards);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    async fn shards_page(&self, request: ListShardsRequest) -> Result<ListShardsResponse, Error> {
        self.small(Target::Meta, request, |channel, request| async {
            ClusterServiceClient::new(channel)
                .list_shards(request)
                .await
        })
        .await
    }

    /// Moves one replica of a shard to another node.
    ///
    /// Refused with `UnknownShard`, `UnknownNode`, `NodeNotActive`, `NoReplicaThere`,
    /// `ReplicaThere`, `MoveUnderWay`, `TooManyMoves`.
    pub async fn move_replica(
        &self,
        request: MoveReplicaRequest,
    ) -> Result<MoveReplicaResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .move_replica(request)
                    .await
            },
        )
        .await
    }

    /// Has a shard led by one of the nodes that hold it, now and whenever that node can; without
    /// one, by whichever balance chooses.
    ///
    /// Refused with `UnknownShard`, `UnknownNode`, `NodeNotActive`, `NoReplicaThere`.
    pub async fn transfer_leadership(
        &self,
        request: TransferLeadershipRequest,
    ) -> Result<TransferLeadershipResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .transfer_leadership(request)
                    .await
            },
        )
        .await
    }

    /// Makes a replica anew, from the others, where it is.
    ///
    /// Refused with `UnknownShard`, `NoReplicaThere`, `MoveUnderWay`, `TooManyMoves`.
    pub async fn rebuild_replica(
        &self,
        request: RebuildReplicaRequest,
    ) -> Result<RebuildReplicaResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async {
                ClusterServiceClient::new(channel)
                    .rebuild_replica(request)
                    .await
            },
        )
        .await
    }

    /// What the last comparison of each shard's replicas found. All pages, one after the other.
    pub async fn get_audit(&self, mut request: GetAuditRequest) -> Result<GetAuditResponse, Error> {
        let mut all = self.audit_page(request.clone()).await?;
        while !all.next_page_token.is_empty() {
            request.page_token = std::mem::take(&mut all.next_page_token);
            let page = self.audit_page(request.clone()).await?;
            all.audits.extend(page.audits);
            all.next_page_token = page.next_page_token;
        }
        Ok(all)
    }

    async fn audit_page(&self, request: GetAuditRequest) -> Result<GetAuditResponse, Error> {
        self.small(Target::Meta, request, |channel, request| async {
            ClusterServiceClient::new(channel).get_audit(request).await
        })
        .await
    }
}
