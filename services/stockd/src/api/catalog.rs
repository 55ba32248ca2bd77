//! `CatalogService`: where stock can be, and how much of it may be sold.

use std::sync::Arc;

use stock_cluster::GroupId;
use stock_core::limits::QUANTITY_MAX;
use stock_core::{
    Action, CatalogCommand, Command, Location, LocationType, Operation, PutLocation,
    Request as Asked, SetPolicy, Sku,
};
use stock_node::answer::{Failure, Freshness};
use stock_node::entry::CommandsBuilder;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::catalog_service_server::CatalogService;
use tonic::{Request, Response, Status};

use super::convert;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::front::Front;
use super::page::{self, List};
use super::seen::Seen;

/// Longest name of a location, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Digits of a GS1 Global Location Number.
const GLN_DIGITS: usize = 13;

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
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let put = check_location(&mut fields, call.location.as_ref());
        let (request_id, put) = fields.finish(request_id.zip(put))?;
        let location = convert::location(&put);
        let mut commands = CommandsBuilder::default();
        commands.push_catalog(&CatalogCommand {
            principal: self.edge.principal.clone(),
            request: Asked {
                id: request_id,
                fingerprint: put.fingerprint(),
            },
            put,
        });
        let applied = self.edge.propose(GroupId::META, commands.take()).await?;
        let seen = Seen::of(GroupId::META, &applied);
        convert::put(applied.only()?)?;
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
        let mut fields = Fields::default();
        let request_id = fields.request_id(&call.request_id);
        let sku = fields.check("sku", Sku::new(&call.sku));
        let location = fields.check("location", Location::new(&call.location));
        let policy = check_policy(&mut fields, call);
        let checked = request_id.zip(sku.zip(location)).zip(policy);
        let ((request_id, (sku, location)), [safety_stock, backorder_limit]) =
            fields.finish(checked)?;
        if self
            .edge
            .first_unknown_location(&[&location])
            .await?
            .is_some()
        {
            return Err(ApiError::UnknownLocation {
                field: "location".to_owned(),
                location: location.to_string(),
            });
        }
        let shard = sku.shard(self.edge.shards());
        let operation = Operation::SetPolicy(SetPolicy {
            sku,
            location,
            safety_stock,
            backorder_limit,
        });
        let mut commands = CommandsBuilder::default();
        commands.push(&Command {
            principal: self.edge.principal.clone(),
            action: Action::Request(Asked::of(request_id, &operation), operation),
        });
        let applied = self
            .edge
            .propose(GroupId::of_shard(shard), commands.take())
            .await?;
        let header = self.edge.header_of(shard, &applied);
        let policy = convert::policy(applied.only()?)?;
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

/// What of a policy is to be set: safety stock and backorder limit.
fn check_policy(
    fields: &mut Fields,
    call: &api::SetPositionPolicyRequest,
) -> Option<[Option<i64>; 2]> {
    let names = ["safety_stock", "backorder_limit"];
    let masked = fields.mask("update_mask", call.update_mask.as_ref(), names);
    let Some(policy) = &call.policy else {
        fields.refuse("policy", "must be given");
        return None;
    };
    let set = masked?;
    let values = [policy.safety_stock, policy.backorder_limit];
    for ((name, value), is_set) in names.into_iter().zip(values).zip(set) {
        if is_set && !(0..=QUANTITY_MAX).contains(&value) {
            let why = format!("is {value}; it must be between 0 and {QUANTITY_MAX}");
            fields.refuse(&format!("policy.{name}"), why);
        }
    }
    let [safety_stock, backorder_limit] = set;
    Some([
        safety_stock.then_some(policy.safety_stock),
        backorder_limit.then_some(policy.backorder_limit),
    ])
}

fn check_location(fields: &mut Fields, location: Option<&api::Location>) -> Option<PutLocation> {
    let Some(location) = location else {
        fields.refuse("location", "must be given");
        return None;
    };
    let id = fields.check("location.location_id", Location::new(&location.location_id));
    let kind = match location.r#type() {
        api::location::Type::Warehouse => Some(LocationType::Warehouse),
        api::location::Type::Store => Some(LocationType::Store),
        api::location::Type::Unspecified => {
            fields.refuse("location.type", "must be WAREHOUSE or STORE");
            None
        }
    };
    if location.name.len() > NAME_BYTES_MAX || location.name.chars().any(char::is_control) {
        let why = format!("must be at most {NAME_BYTES_MAX} bytes without control characters");
        fields.refuse("location.name", why);
    }
    let gln = location.gln.as_deref();
    let is_gln = |gln: &str| gln.len() == GLN_DIGITS && gln.bytes().all(|b| b.is_ascii_digit());
    if gln.is_some_and(|gln| !is_gln(gln)) {
        fields.refuse(
            "location.gln",
            format!("must be {GLN_DIGITS} digits, or empty"),
        );
    }
    let coordinates = location.coordinates.as_ref();
    if let Some(at) = coordinates {
        // NaN is in no range.
        if !(-90.0..=90.0).contains(&at.latitude) {
            fields.refuse(
                "location.coordinates.latitude",
                "must be between -90 and 90",
            );
        }
        if !(-180.0..=180.0).contains(&at.longitude) {
            fields.refuse(
                "location.coordinates.longitude",
                "must be between -180 and 180",
            );
        }
    }
    Some(PutLocation {
        location: id?,
        kind: kind?,
        name: location.name.clone(),
        coordinates: coordinates.map(convert::coordinates),
        gln: gln.unwrap_or_default().to_owned(),
    })
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
