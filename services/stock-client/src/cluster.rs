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
/// is.
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
    pub async fn add_node(&self, request: AddNodeRequest) -> Result<AddNodeResponse, Error> {
        self.mutate(
            Target::Meta,
            request,
            |it| &mut it.request_id,
            |channel, request| async { ClusterServiceClient::new(channel).add_node(request).await },
        )
        .await
    }

    /// Lets a node's replicas and leaderships go to other nodes.
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

    /// Gives a reservation's units back in its holder's place.
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

    /// Takes a drain back.
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

    /// Has the cluster speak the next version.
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

    /// Has a shard led by one of the nodes that hold it, now and whenever that node can.
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
