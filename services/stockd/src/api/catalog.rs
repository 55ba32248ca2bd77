//! `CatalogService`: where stock can be, and how much of it may be sold.

use std::sync::Arc;

use stock_api::fields::Fields;
use stock_api::page::{self, List};
use stock_api::{Rejection, convert};
use stock_cluster::GroupId;
use stock_core::{Action, Command, Location, Operation};
use stock_node::answer::{Failure, Freshness};
use stock_node::entry::CommandsBuilder;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status};

use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::seen::Seen;

/// The service.
pub(super) struct CatalogCalls {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

impl CatalogCalls {
    /// On this edge.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front }
    }

    async fn do_put(
        &self,
        call: &api::PutLocationRequest,
    ) -> Result<api::PutLocationResponse, ApiError> {
        let command = stock_api::catalog::put(call, &self.edge.principal)?;
        let location = convert::location(&command.put);
        let mut commands = CommandsBuilder::default();
        commands.push_catalog(&command);
        let applied = self.edge.propose(GroupId::META, commands.take()).await?;
        let seen = Seen::of(GroupId::META, &applied);
        convert::put(applied.only()?.of_catalog()?)?;
        Ok(api::PutLocationResponse {
            header: Some(self.edge.header(seen)),
            location: Some(location),
        })
    }

    /// A page of what this node has published, once that is new enough. The loop is asked for
    /// nothing else.
    async fn do_list(
        &self,
        call: &api::ListLocationsRequest,
    ) -> Result<api::ListLocationsResponse, ApiError> {
        let mut fields = Fields::default();
        let filters = api::ListLocationsRequest::default();
        let list = List::of("ListLocations", &filters, &self.edge.incarnation());
        let asked = page::asked(
            list,
            &mut fields,
            call.page_size,
            &call.page_token,
            |name| Location::new(name).ok(),
        );
        let asked = fields.finish(asked)?;
        let least = self
            .edge
            .reach(GroupId::META, Freshness::LINEARIZABLE)
            .await?;
        let view = &self.edge.view;
        // The index first: what is read after it is at least that new. And one more than the page
        // has, to know whether others follow.
        let (applied_index, time) = view.catalog_reached_at();
        let found = view.locations(asked.after.as_ref(), asked.size + 1);
        if applied_index < least || view.catalog_index() < applied_index {
            return Err(ApiError::Failed(Failure::NotLeader { leader: None }));
        }
        let messages = found.iter().map(|put| convert::location(put));
        let (locations, has_more) = page::fill(asked.size, messages);
        let last = locations.last().filter(|_| has_more);
        let next_page_token =
            last.map_or_else(String::new, |last| page::token(list, &last.location_id));
        let seen = Seen::read(GroupId::META, applied_index, time);
        Ok(api::ListLocationsResponse {
            header: Some(self.edge.header(seen)),
            locations,
            next_page_token,
        })
    }

    async fn do_set_policy(
        &self,
        call: &api::SetPositionPolicyRequest,
    ) -> Result<api::SetPositionPolicyResponse, ApiError> {
        let (request, set) = stock_api::catalog::policy(call)?;
        if self
            .edge
            .first_unknown_location(&[&set.location])
            .await?
            .is_some()
        {
            return Err(Rejection::UnknownLocation {
                field: "location".to_owned(),
                location: set.location.to_string(),
            }
            .into());
        }
        let shard = set.sku.shard(self.edge.shards());
        let mut commands = CommandsBuilder::default();
        commands.push(&Command {
            principal: self.edge.principal.clone(),
            action: Action::Request(request, Operation::SetPolicy(set)),
        });
        let applied = self
            .edge
            .propose(GroupId::of_shard(shard), commands.take())
            .await?;
        let header = self.edge.header_of(shard, &applied);
        let policy = convert::policy(applied.only()?.of_stock()?)?;
        Ok(api::SetPositionPolicyResponse {
            header: Some(header),
            policy: Some(api::PositionPolicy {
                safety_stock: policy.safety_stock,
                backorder_limit: policy.backorder_limit,
            }),
            available: policy.available,
            discrepancy: policy.discrepancy.as_deref().map(convert::discrepancy),
        })
    }
}

#[tonic::async_trait]
impl CatalogService for CatalogCalls {
    async fn put_location(
        &self,
        request: Request<api::PutLocationRequest>,
    ) -> Result<Response<api::PutLocationResponse>, Status> {
        let put = async |call, _| self.do_put(&call).await;
        self.front.run(request, put).await
    }

    async fn list_locations(
        &self,
        request: Request<api::ListLocationsRequest>,
    ) -> Result<Response<api::ListLocationsResponse>, Status> {
        let list = async |call, _| self.do_list(&call).await;
        self.front.run(request, list).await
    }

    async fn set_position_policy(
        &self,
        request: Request<api::SetPositionPolicyRequest>,
    ) -> Result<Response<api::SetPositionPolicyResponse>, Status> {
        let set = async |call, _| self.do_set_policy(&call).await;
        self.front.run(request, set).await
    }
}
