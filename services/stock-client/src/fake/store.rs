//! What is in a fake: the state machines of a cluster with one shard, driven as a log would.

use std::time::{Duration, SystemTime};

use stock_api::basket::Asker;
use stock_api::changes::{Change, check};
use stock_api::convert::{self, Held};
use stock_api::documents::{self, Documents, Whole};
use stock_api::fields::Fields;
use stock_api::page::{self, List};
use stock_api::rejection::embedded;
use stock_api::{Rejection, answer_size, basket, catalog, filter, keys, time};
use stock_core::{
    Action, At, Catalog, Command, Filter, Location, Operation, Outcome, Principal, PutLocation,
    Refusal, Request, ReservationId, Secret, Shard,
};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::batch_reserve_result::Result as Slot;
use tonic::Status;
use uuid::Uuid;

use super::clock::{Clock, machine_ms};

/// One shard has every SKU.
const SHARDS: u32 = 1;
const SHARD: u32 = 0;
const NODE: u64 = 1;
const CLUSTER: &str = "fake";

/// The answer to a change of a reservation.
pub(super) type Changed = (Option<api::ResponseHeader>, Option<api::Reservation>);

/// The state, and how it got there.
pub(super) struct Store {
    catalog: Catalog,
    shard: Shard,
    clock: Clock,
    /// Entries carried out, as a log would count them.
    index: u64,
    principal: Principal,
    incarnation: [u8; 16],
}

impl Store {
    pub(super) fn new() -> Self {
        let principal = Principal::new("anonymous").expect("it is a name");
        Self {
            catalog: Catalog::new(Secret(0)),
            shard: Shard::new(Secret(0)),
            clock: Clock::default(),
            index: 0,
            principal,
            incarnation: rand::random(),
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.clock.pass(time);
    }

    /// Brings the shard to now: what is due ends.
    fn advance(&mut self) {
        let now = self.clock.now();
        loop {
            // What changed is nobody's concern here.
            self.shard.advance(now, &mut Vec::new());
            match self.shard.next_expiry() {
                Some(due) if due <= self.shard.stamp() => {}
                _ => return,
            }
        }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.advance();
        self.index += 1;
        let at = At {
            index: self.index,
            ordinal: 0,
            moment: self.shard.moment(),
        };
        self.shard.apply(at, command, &mut Vec::new())
    }

    fn carry_out(&mut self, request: Request, operation: Operation) -> Outcome {
        let action = Action::Request(request, operation);
        let principal = self.principal.clone();
        self.apply(Command { principal, action })
    }

    fn header(&self, shard: u32) -> Option<api::ResponseHeader> {
        Some(api::ResponseHeader {
            indexes: vec![api::ShardIndex {
                shard,
                index: self.index,
            }],
            cluster_time: Some(time::timestamp(self.shard.stamp())),
            incarnation: self.incarnation.to_vec().into(),
        })
    }

    fn stock_header(&self) -> Option<api::ResponseHeader> {
        self.header(SHARD)
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            principal: &self.principal,
            shards: SHARDS,
            time: self.shard.stamp(),
        }
    }

    fn is_known(&self, location: &Location) -> bool {
        self.catalog.location(location).is_some()
    }

    fn check_locations(&self, command: &Command, prefix: &str) -> Result<(), Rejection> {
        let unknown = basket::locations(command).position(|location| !self.is_known(location));
        basket::check_known(command, unknown, || prefix.to_owned())
    }
}

/// Reservations.
impl Store {
    pub(super) fn reserve(
        &mut self,
        call: api::ReserveRequest,
    ) -> Result<api::ReserveResponse, Rejection> {
        let answer = self.reserve_within(call, "")?;
        Ok(api::ReserveResponse {
            header: self.stock_header(),
            ..answer
        })
    }

    fn reserve_within(
        &mut self,
        mut call: api::ReserveRequest,
        prefix: &str,
    ) -> Result<api::ReserveResponse, Rejection> {
        self.clock.read_id(&mut call.request_id);
        let fields = Fields::within(prefix.to_owned());
        let (_, command) = basket::checked(&call, self.asker(), fields)?;
        self.check_locations(&command, prefix)?;
        let outcome = self.apply(command);
        basket::response(self.shard.stamp(), outcome)
    }

    pub(super) fn batch_reserve(
        &mut self,
        call: api::BatchReserveRequest,
    ) -> Result<api::BatchReserveResponse, Rejection> {
        basket::check_size(call.requests.len())?;
        let unknown = vec![None; call.requests.len()];
        answer_size::check_batch(&call.requests, &unknown, SHARDS)?;
        let requests = call.requests.into_iter().enumerate();
        let results = requests.map(|(number, request)| {
            let prefix = format!("requests[{number}].");
            let slot = match self.reserve_within(request, &prefix) {
                Ok(response) => Slot::Response(response),
                Err(Rejection::Refused(refusal)) => {
                    Slot::Error(embedded(Rejection::RefusedInBatch { number, refusal }))
                }
                Err(rejection) => Slot::Error(embedded(rejection)),
            };
            api::BatchReserveResult { result: Some(slot) }
        });
        let results = results.collect();
        Ok(api::BatchReserveResponse {
            header: self.stock_header(),
            results,
        })
    }

    /// A message of a stream. Requests are numbered from the stream's first on.
    pub(super) fn reserve_stream(
        &mut self,
        first_number: u64,
        message: &api::ReserveStreamRequest,
    ) -> Result<api::ReserveStreamResponse, Rejection> {
        use api::reserve_stream_result::Result as Slot;
        basket::check_size(message.requests.len())?;
        let results = (first_number..)
            .zip(message.read())
            .map(|(number, request)| {
                let answer = match request {
                    Ok(request) => self.reserve_within(request, "").map_err(embedded),
                    Err(unreadable) => Err(embedded(unreadable)),
                };
                let slot = match answer {
                    Ok(response) => Slot::Response(response),
                    Err(error) => Slot::Error(error),
                };
                api::ReserveStreamResult {
                    number,
                    result: Some(slot),
                }
            });
        let results = results.collect();
        Ok(api::ReserveStreamResponse {
            header: self.stock_header(),
            results,
            overload: None,
        })
    }

    /// A change of a reservation.
    pub(super) fn change(&mut self, call: &impl Change) -> Result<Changed, Rejection> {
        let (request, _, operation) = check(call, SHARDS)?;
        let outcome = self.carry_out(request, operation);
        let settled = convert::settled(outcome, self.shard.stamp())?;
        Ok((self.stock_header(), Some(settled)))
    }

    pub(super) fn amend(
        &mut self,
        mut call: api::AmendRequest,
    ) -> Result<api::AmendResponse, Rejection> {
        use api::amend_response::Outcome;
        self.clock.read_id(&mut call.request_id);
        let (_, command) = basket::amendment(&call, self.asker())?;
        self.check_locations(&command, "")?;
        let outcome = self.apply(command);
        let outcome = match convert::held(outcome, self.shard.stamp())? {
            Held::Reservation(reservation) => Outcome::Reservation(reservation),
            Held::Shortage(shortage) => Outcome::Shortage(shortage),
        };
        Ok(api::AmendResponse {
            header: self.stock_header(),
            outcome: Some(outcome),
        })
    }

    pub(super) fn get_reservation(
        &mut self,
        call: &api::GetReservationRequest,
    ) -> Result<api::GetReservationResponse, Rejection> {
        let mut fields = Fields::default();
        let id = fields.reservation_id(&call.reservation_id, SHARDS);
        let id = fields.finish(id)?;
        self.check_read(call.read.as_ref())?;
        self.advance();
        let now = self.shard.stamp();
        match self.shard.reservation(&id) {
            Some(found) => Ok(api::GetReservationResponse {
                reservation: Some(convert::reservation(found, now)),
                header: self.stock_header(),
            }),
            None => Err(Rejection::Refused(Refusal::UnknownReservation)),
        }
    }

    pub(super) fn list_reservations(
        &mut self,
        call: &api::ListReservationsRequest,
    ) -> Result<api::ListReservationsResponse, Rejection> {
        let mut fields = Fields::default();
        let filters = filter::filters(call);
        let list = List::of("ListReservations", &filters, &self.incarnation);
        let filter = filter::check_filter(&mut fields, call);
        let (size, token) = (call.page_size, &call.page_token);
        let asked = page::asked(list, &mut fields, size, token, |name| {
            ReservationId::new(*Uuid::parse_str(name).ok()?.as_bytes()).ok()
        });
        let (filter, asked) = fields.finish(filter.zip(asked))?;
        self.check_read(call.read.as_ref())?;
        self.advance();
        let now = self.shard.stamp();
        let listed = self
            .shard
            .list(&filter, asked.after, asked.size, usize::MAX);
        let found = listed.found.iter();
        let found = found.map(|reservation| convert::reservation(reservation, now));
        let (reservations, has_more) = page::fill(asked.size, found);
        let last = reservations.last().map(|last| last.reservation_id.clone());
        let last = last.filter(|_| has_more || listed.more_after.is_some());
        Ok(api::ListReservationsResponse {
            header: self.stock_header(),
            reservations,
            next_page_token: last.map_or_else(String::new, |last| page::token(list, &last)),
        })
    }

    pub(super) fn reservations(&mut self) -> Vec<api::Reservation> {
        self.advance();
        let now = self.shard.stamp();
        let all = Filter::default();
        let listed = self.shard.list(&all, None, usize::MAX, usize::MAX);
        let found = listed.found.iter();
        found.map(|it| convert::reservation(it, now)).collect()
    }

    /// Reads are as new as can be; what they name of another life is refused.
    fn check_read(&self, read: Option<&api::ReadOptions>) -> Result<(), Rejection> {
        let incarnation = read.map_or(&[][..], |read| &read.incarnation);
        match incarnation.is_empty() || incarnation == self.incarnation {
            true => Ok(()),
            false => Err(Rejection::IncarnationOver),
        }
    }
}

/// Stock and the catalog.
impl Store {
    pub(super) fn get_availability(
        &mut self,
        call: &api::GetAvailabilityRequest,
    ) -> Result<api::GetAvailabilityResponse, Rejection> {
        let mut fields = Fields::default();
        let keys = keys::check_keys(&mut fields, &call.keys, SHARDS);
        let keys = fields.finish(keys)?;
        self.check_read(call.read.as_ref())?;
        self.advance();
        let mut items = Vec::with_capacity(keys.len());
        for key in &keys {
            let before = items.len();
            if let Some(stock) = self.shard.stock(&key.sku) {
                key.read(stock.positions(), &mut items)?;
            }
            if items.len() == before {
                key.read_nothing(&mut items)?;
            }
        }
        Ok(api::GetAvailabilityResponse {
            header: self.stock_header(),
            items,
        })
    }

    pub(super) fn available(&mut self, sku: &str, location: &str) -> Option<i64> {
        let call = api::GetAvailabilityRequest {
            keys: vec![api::PositionKey::at(sku, location)],
            read: None,
        };
        let answer = self.get_availability(&call).ok()?;
        let item = answer.items.into_iter().next()?;
        item.known.then_some(item.available)
    }

    /// A document in one message.
    pub(super) fn record_whole(
        &mut self,
        whole: &Whole<'_>,
    ) -> Result<(Option<api::ResponseHeader>, Vec<api::LineVerdict>), Rejection> {
        let documents = Documents::whole(whole, &self.principal)?;
        let locations = documents.locations();
        let unknown = locations.iter().position(|it| !self.is_known(it));
        if let Some(line) = unknown {
            return Err(Rejection::UnknownLocation {
                field: format!("lines[{line}].location"),
                location: locations[line].to_string(),
            });
        }
        self.record(documents)
    }

    /// All documents of a stream.
    pub(super) fn record_receipts(
        &mut self,
        messages: Vec<api::RecordReceiptsRequest>,
    ) -> Result<api::RecordReceiptsResponse, Rejection> {
        let mut documents = Documents::default();
        for mut message in messages {
            self.read_times(&mut message.lines);
            let source = documents.admit(&message, &self.principal)?;
            documents.add(&message, source);
        }
        documents.refuse_unknown(|location| !self.is_known(location));
        let (header, verdicts) = self.record(documents)?;
        Ok(api::RecordReceiptsResponse { header, verdicts })
    }

    fn record(
        &mut self,
        documents: Documents,
    ) -> Result<(Option<api::ResponseHeader>, Vec<api::LineVerdict>), Rejection> {
        let Documents {
            checked,
            mut verdicts,
        } = documents;
        let principal = self.principal.clone();
        for (command, chunk) in documents::commands(&checked, &principal) {
            let recorded = convert::verdicts(self.apply(command))?;
            for (place, verdict) in documents::told(chunk, &recorded) {
                verdicts.decide(place, verdict);
            }
        }
        Ok((self.stock_header(), verdicts.into_answer()))
    }

    /// Has the lines' times be those of a machine that waited as long as the test let pass.
    pub(super) fn read_times(&self, lines: &mut [api::MovementLine]) {
        for line in lines {
            self.clock.read_time(&mut line.occurred_at);
        }
    }

    /// As [`Self::read_times`], of a request's id.
    pub(super) fn read_id(&self, request_id: &mut String) {
        self.clock.read_id(request_id);
    }

    /// A delivery of its own.
    pub(super) fn receive(&mut self, sku: &str, location: &str, units: i64) -> Result<(), Status> {
        if let Ok(id) = Location::new(location)
            && !self.is_known(&id)
        {
            self.put_location(api::PutLocationRequest {
                request_id: crate::new_request_id(),
                location: Some(api::Location {
                    location_id: location.to_owned(),
                    r#type: api::location::Type::Store.into(),
                    ..api::Location::default()
                }),
            })?;
        }
        let line = api::MovementLine {
            line: "1".to_owned(),
            sku: sku.to_owned(),
            location: location.to_owned(),
            quantity: units,
            occurred_at: Some(SystemTime::now().into()),
        };
        let answer = self.record_receipts(vec![api::RecordReceiptsRequest {
            source: None,
            document: Uuid::now_v7().to_string(),
            lines: vec![line],
        }])?;
        let refused = answer.verdicts.into_iter().find_map(|it| it.error);
        match refused {
            None => Ok(()),
            Some(error) => Err(Status::invalid_argument(format!(
                "{} {}",
                error.field, error.message
            ))),
        }
    }

    pub(super) fn put_location(
        &mut self,
        mut call: api::PutLocationRequest,
    ) -> Result<api::PutLocationResponse, Rejection> {
        self.clock.read_id(&mut call.request_id);
        let command = catalog::put(&call, &self.principal)?;
        let location = convert::location(&command.put);
        self.catalog.advance(self.clock.now());
        self.index += 1;
        let at = At {
            index: self.index,
            ordinal: 0,
            moment: self.catalog.moment(),
        };
        convert::put(self.catalog.apply(at, command))?;
        Ok(api::PutLocationResponse {
            header: self.header(api::ShardIndex::META),
            location: Some(location),
        })
    }

    pub(super) fn list_locations(
        &mut self,
        call: &api::ListLocationsRequest,
    ) -> Result<api::ListLocationsResponse, Rejection> {
        let mut fields = Fields::default();
        let filters = api::ListLocationsRequest::default();
        let list = List::of("ListLocations", &filters, &self.incarnation);
        let (size, token) = (call.page_size, &call.page_token);
        let asked = page::asked(list, &mut fields, size, token, |name| {
            Location::new(name).ok()
        });
        let asked = fields.finish(asked)?;
        let is_behind = |put: &&PutLocation| match &asked.after {
            Some(after) => put.location > *after,
            None => true,
        };
        let behind = self.catalog.locations().filter(is_behind);
        let (locations, has_more) = page::fill(asked.size, behind.map(convert::location));
        let last = locations.last().filter(|_| has_more);
        let next_page_token =
            last.map_or_else(String::new, |last| page::token(list, &last.location_id));
        Ok(api::ListLocationsResponse {
            header: self.header(api::ShardIndex::META),
            locations,
            next_page_token,
        })
    }

    pub(super) fn set_position_policy(
        &mut self,
        mut call: api::SetPositionPolicyRequest,
    ) -> Result<api::SetPositionPolicyResponse, Rejection> {
        self.clock.read_id(&mut call.request_id);
        let (request, set) = catalog::policy(&call)?;
        if !self.is_known(&set.location) {
            return Err(Rejection::UnknownLocation {
                field: "location".to_owned(),
                location: set.location.to_string(),
            });
        }
        let policy = convert::policy(self.carry_out(request, Operation::SetPolicy(set)))?;
        Ok(api::SetPositionPolicyResponse {
            header: self.stock_header(),
            policy: Some(api::PositionPolicy {
                safety_stock: policy.safety_stock,
                backorder_limit: policy.backorder_limit,
            }),
            available: policy.available,
            discrepancy: policy.discrepancy.as_deref().map(convert::discrepancy),
        })
    }

    pub(super) fn topology(&self, endpoint: &str) -> api::GetTopologyResponse {
        let led = |shard| api::Shard {
            shard,
            leader_node_id: Some(NODE),
            replica_node_ids: vec![NODE],
            term: 1,
            applied_index: self.index,
        };
        // Ids are made by the machine's clock: what a test let pass is added when they come.
        let now = Duration::from_millis(machine_ms());
        api::GetTopologyResponse {
            header: self.header(api::ShardIndex::META),
            cluster_id: CLUSTER.to_owned(),
            node_id: NODE,
            nodes: vec![api::Node {
                node_id: NODE,
                endpoint: endpoint.to_owned(),
                reachable: true,
            }],
            shards: vec![led(SHARD)],
            shard_count: SHARDS,
            meta: Some(led(api::ShardIndex::META)),
            time: Some((SystemTime::UNIX_EPOCH + now).into()),
        }
    }
}
