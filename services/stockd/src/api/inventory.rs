//! `InventoryService`: movements, each line of a document by itself.

use std::sync::Arc;

use futures_util::future::join_all;
use stock_api::convert;
use stock_api::documents::{self, Checked, Documents, LINE_BYTES, Whole};
use stock_cluster::GroupId;
use stock_core::{MovementKind, Stamp};
use stock_node::answer::Failure;
use stock_node::entry::CommandsBuilder;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::inventory_service_server::InventoryService;
use tonic::{Request, Response, Status, Streaming};

use super::edge::Edge;
use super::error::ApiError;
use super::front::Front;
use super::seen::Seen;
use crate::listeners::{Fault, Hold};

/// The service.
pub(super) struct Inventory {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

/// What a call is answered.
struct Answered {
    header: Option<api::ResponseHeader>,
    verdicts: Vec<api::LineVerdict>,
}

/// What one shard has recorded.
#[derive(Default)]
struct Recorded {
    /// By the lines' places.
    verdicts: Vec<(usize, api::LineVerdict)>,
    /// The last entry.
    last: Option<(GroupId, u64, Stamp)>,
}

impl Inventory {
    /// On this edge.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front }
    }

    /// A document in one message: whatever is wrong with any line refuses all of them.
    async fn record_whole(&self, whole: Whole<'_>) -> Result<Answered, ApiError> {
        let documents = Documents::whole(&whole, &self.edge.principal)?;
        self.edge.check_locations(&documents.locations()).await?;
        self.record(documents).await
    }

    /// A stream of documents: a bad line is refused, and the others count. A message without lines,
    /// or of nobody, refuses all of it before anything is recorded.
    async fn record_stream(
        &self,
        mut stream: Streaming<api::RecordReceiptsRequest>,
        hold: Option<Hold>,
    ) -> Result<Answered, ApiError> {
        let mut documents = Documents::default();
        while let Some(message) = stream.message().await.map_err(ApiError::Stream)? {
            let source = documents.admit(&message, &self.edge.principal)?;
            let bytes = message.lines.len() * LINE_BYTES;
            if hold.as_ref().is_some_and(|hold| !hold.take(bytes)) {
                return Err(ApiError::Stream(Fault::NoRoom.tell()));
            }
            documents.add(&message, source);
        }
        // This node catches up if need be; after that, what it does not know does not exist.
        let locations = documents.locations();
        if self
            .edge
            .first_unknown_location(&locations)
            .await?
            .is_some()
        {
            let view = &self.edge.view;
            documents.refuse_unknown(|location| view.first_unknown([location]).is_some());
        }
        self.record(documents).await
    }

    /// Has every shard record its lines, and says what became of each and where that is written.
    async fn record(&self, documents: Documents) -> Result<Answered, ApiError> {
        let Documents {
            checked,
            mut verdicts,
        } = documents;
        let shards = self.edge.shards();
        let mut by_shard: Vec<Vec<Checked>> = Vec::new();
        by_shard.resize_with(shards as usize, Vec::new);
        for line in checked {
            by_shard[line.line().sku.shard(shards) as usize].push(line);
        }
        let recorded = by_shard
            .into_iter()
            .enumerate()
            .map(|(shard, lines)| self.record_in_shard(shard as u32, lines));
        // All are waited for: what one shard did not record another may have.
        let recorded = join_all(recorded).await;
        let in_part = recorded
            .iter()
            .any(|shard| shard.as_ref().is_ok_and(|lines| lines.last.is_some()));
        let mut seen = Seen::default();
        for shard in recorded {
            let lines = shard.map_err(|error| {
                if in_part {
                    unknown_if_failed(error)
                } else {
                    error
                }
            })?;
            for (place, verdict) in lines.verdicts {
                verdicts.decide(place, verdict);
            }
            if let Some((group, index, time)) = lines.last {
                seen.wrote(group, index, time);
            }
        }
        Ok(Answered {
            header: Some(self.edge.header(seen)),
            verdicts: verdicts.into_answer(),
        })
    }

    /// One command after the other, so that the lines of one SKU keep their order.
    async fn record_in_shard(&self, shard: u32, lines: Vec<Checked>) -> Result<Recorded, ApiError> {
        let group = GroupId::of_shard(shard);
        let mut recorded = Recorded::default();
        for (command, chunk) in documents::commands(&lines, &self.edge.principal) {
            let mut commands = CommandsBuilder::default();
            commands.push(&command);
            let applied = self.edge.propose(group, commands.take()).await;
            let applied = match recorded.last.is_none() {
                true => applied?,
                false => applied.map_err(|failure| unknown_if_failed(failure.into()))?,
            };
            recorded.last = Some((group, applied.applied_index, applied.stamp));
            let verdicts = convert::verdicts(applied.only()?.of_stock()?)?;
            recorded.verdicts.extend(documents::told(chunk, &verdicts));
        }
        Ok(recorded)
    }
}

/// A failure that says "nothing was done" is not true of a call of which a part was.
fn unknown_if_failed(error: ApiError) -> ApiError {
    match error {
        ApiError::Failed(_) => ApiError::Failed(Failure::OutcomeUnknown),
        other => other,
    }
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn record_receipts(
        &self,
        request: Request<Streaming<api::RecordReceiptsRequest>>,
    ) -> Result<Response<api::RecordReceiptsResponse>, Status> {
        let record = async |stream, hold| {
            let Answered { header, verdicts } = self.record_stream(stream, hold).await?;
            Ok(api::RecordReceiptsResponse { header, verdicts })
        };
        self.front.run_stream(request, record).await
    }

    async fn record_sale(
        &self,
        request: Request<api::RecordSaleRequest>,
    ) -> Result<Response<api::RecordSaleResponse>, Status> {
        let record = async |call: api::RecordSaleRequest, _| {
            let whole = Whole {
                kind: MovementKind::Sale,
                source: call.source.as_deref(),
                document: &call.document,
                reason: None,
                lines: &call.lines,
            };
            let Answered { header, verdicts } = self.record_whole(whole).await?;
            Ok(api::RecordSaleResponse { header, verdicts })
        };
        self.front.run(request, record).await
    }

    async fn adjust(
        &self,
        request: Request<api::AdjustRequest>,
    ) -> Result<Response<api::AdjustResponse>, Status> {
        let record = async |call: api::AdjustRequest, _| {
            let whole = Whole {
                kind: MovementKind::Adjustment,
                source: call.source.as_deref(),
                document: &call.document,
                reason: Some(&call.reason),
                lines: &call.lines,
            };
            let Answered { header, verdicts } = self.record_whole(whole).await?;
            Ok(api::AdjustResponse { header, verdicts })
        };
        self.front.run(request, record).await
    }
}
