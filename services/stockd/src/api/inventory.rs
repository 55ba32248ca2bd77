//! `InventoryService`: movements, each line of a document by itself.

use std::sync::Arc;

use futures_util::future::join_all;
use stock_cluster::GroupId;
use stock_core::{
    Action, Command, Document, MovementKind, MovementLine, Movements, Reason, Reporter, Stamp,
};
use stock_node::answer::Failure;
use stock_node::entry::CommandsBuilder;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::inventory_service_server::InventoryService;
use tonic::{Request, Response, Status, Streaming};

use super::convert;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::front::Front;
use super::movement_lines::{check_line, check_reason, check_source};
use super::seen::Seen;
use super::verdicts::Verdicts;
use crate::listeners::{Fault, Hold};

/// Lines of one call.
pub(super) const LINES_MAX: usize = 10_000;

/// Lines of one command: small enough that others get their turn between two.
const LINES_PER_COMMAND_MAX: usize = 256;

/// What a line of a stream takes until the last has come, its names and its verdict included.
const LINE_BYTES: usize = size_of::<Checked>() + size_of::<Option<api::LineVerdict>>() + 256;

/// The service.
pub(super) struct Inventory {
    edge: Arc<Edge>,
    front: Arc<Front>,
}

/// What the lines of a document have in common.
#[derive(Clone, PartialEq, Eq)]
struct Head {
    kind: MovementKind,
    source: Reporter,
    document: Document,
    reason: Option<Reason>,
}

/// A document's message as it came.
struct Whole<'a> {
    kind: MovementKind,
    source: Option<&'a str>,
    document: &'a str,
    reason: Option<&'a str>,
    lines: &'a [api::MovementLine],
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

/// A line that passed every check, and its place in the call.
struct Checked {
    place: usize,
    head: Arc<Head>,
    line: MovementLine,
}

impl Inventory {
    /// On this edge.
    pub(super) fn new(edge: &Arc<Edge>, front: &Arc<Front>) -> Self {
        let (edge, front) = (Arc::clone(edge), Arc::clone(front));
        Self { edge, front }
    }

    /// A document in one message: whatever is wrong with any line refuses all of them.
    async fn record_whole(&self, whole: Whole<'_>) -> Result<Answered, ApiError> {
        let mut fields = Fields::default();
        check_count(&mut fields, whole.lines.len());
        let source = check_source(&mut fields, whole.source, &self.edge.principal);
        let document = fields.check("document", Document::new(whole.document));
        let reason = check_reason(&mut fields, whole.reason);
        let mut lines = Vec::with_capacity(whole.lines.len().min(LINES_MAX));
        for (place, line) in whole.lines.iter().enumerate().take(LINES_MAX) {
            let path = format!("lines[{place}].");
            lines.extend(check_line(&mut fields, &path, whole.kind, line));
        }
        let (source, (document, reason)) = fields.finish(source.zip(document.zip(reason)))?;
        let locations: Vec<_> = lines.iter().map(|line| &line.location).collect();
        self.edge.check_locations(&locations).await?;
        let mut verdicts = Verdicts::default();
        let head = Arc::new(Head {
            kind: whole.kind,
            source,
            document,
            reason,
        });
        let checked = lines.into_iter().map(|line| Checked {
            place: verdicts.wait(),
            head: Arc::clone(&head),
            line,
        });
        let checked = checked.collect();
        let seen = self.record(checked, &mut verdicts).await?;
        Ok(Answered {
            header: Some(self.edge.header(seen)),
            verdicts: verdicts.into_answer(),
        })
    }

    /// A stream of documents: a bad line is refused, and the others count. A message without lines,
    /// or of nobody, refuses all of it before anything is recorded.
    async fn record_stream(
        &self,
        mut stream: Streaming<api::RecordReceiptsRequest>,
        hold: Option<Hold>,
    ) -> Result<Answered, ApiError> {
        let kind = MovementKind::Receipt;
        let mut verdicts = Verdicts::default();
        let mut checked: Vec<Checked> = Vec::new();
        while let Some(message) = stream.message().await.map_err(ApiError::Stream)? {
            let mut fields = Fields::default();
            check_count(&mut fields, message.lines.len());
            let count = verdicts.len() + message.lines.len();
            if count > LINES_MAX {
                fields.refuse(
                    "lines",
                    format!("are more than {LINES_MAX} in all; nothing was recorded"),
                );
            }
            let source = check_source(&mut fields, message.source.as_deref(), &self.edge.principal);
            let source = fields.finish(source)?;
            let bytes = message.lines.len() * LINE_BYTES;
            if hold.as_ref().is_some_and(|hold| !hold.take(bytes)) {
                return Err(ApiError::Stream(Fault::NoRoom.tell()));
            }
            let mut fields = Fields::default();
            let Some(document) = fields.check("document", Document::new(&message.document)) else {
                let violation = fields.into_first();
                for line in &message.lines {
                    verdicts.refuse(&message.document, &line.line, violation.clone());
                }
                continue;
            };
            let head = Arc::new(Head {
                kind,
                source,
                document,
                reason: None,
            });
            for line in &message.lines {
                let mut fields = Fields::default();
                let good = check_line(&mut fields, "", kind, line);
                match (good, fields.into_first()) {
                    (Some(line), None) => checked.push(Checked {
                        place: verdicts.wait(),
                        head: Arc::clone(&head),
                        line,
                    }),
                    (_, violation) => {
                        verdicts.refuse(&message.document, &line.line, violation);
                    }
                }
            }
        }
        self.refuse_unknown_locations(&mut checked, &mut verdicts)
            .await?;
        let seen = self.record(checked, &mut verdicts).await?;
        Ok(Answered {
            header: Some(self.edge.header(seen)),
            verdicts: verdicts.into_answer(),
        })
    }

    async fn refuse_unknown_locations(
        &self,
        checked: &mut Vec<Checked>,
        verdicts: &mut Verdicts,
    ) -> Result<(), ApiError> {
        let locations: Vec<_> = checked
            .iter()
            .map(|checked| &checked.line.location)
            .collect();
        // This node catches up if need be; after that, what it does not know does not exist.
        if self
            .edge
            .first_unknown_location(&locations)
            .await?
            .is_none()
        {
            return Ok(());
        }
        let is_unknown = |checked: &mut Checked| {
            self.edge
                .view
                .first_unknown([&checked.line.location])
                .is_some()
        };
        for bad in checked.extract_if(.., is_unknown) {
            verdicts.refuse_location(bad.place, &bad.head.document, &bad.line);
        }
        Ok(())
    }

    /// Has every shard record its lines, and fills in their verdicts.
    /// Says where they are written.
    async fn record(
        &self,
        checked: Vec<Checked>,
        verdicts: &mut Verdicts,
    ) -> Result<Seen, ApiError> {
        let shards = self.edge.shards();
        let mut by_shard: Vec<Vec<Checked>> = Vec::new();
        by_shard.resize_with(shards as usize, Vec::new);
        for line in checked {
            by_shard[line.line.sku.shard(shards) as usize].push(line);
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
        Ok(seen)
    }

    /// One command after the other, so that the lines of one SKU keep their order.
    async fn record_in_shard(&self, shard: u32, lines: Vec<Checked>) -> Result<Recorded, ApiError> {
        let group = GroupId::of_shard(shard);
        let mut recorded = Recorded::default();
        for of_document in lines.chunk_by(|a, b| a.head == b.head) {
            for chunk in of_document.chunks(LINES_PER_COMMAND_MAX) {
                let head = &chunk[0].head;
                let mut commands = CommandsBuilder::default();
                commands.push(&Command {
                    principal: self.edge.principal.clone(),
                    action: Action::Movements(Movements {
                        kind: head.kind,
                        source: head.source.clone(),
                        document: head.document.clone(),
                        reason: head.reason.clone(),
                        lines: chunk.iter().map(|checked| checked.line.clone()).collect(),
                    }),
                });
                let applied = self.edge.propose(group, commands.take()).await;
                let applied = match recorded.last.is_none() {
                    true => applied?,
                    false => applied.map_err(|failure| unknown_if_failed(failure.into()))?,
                };
                recorded.last = Some((group, applied.applied_index, applied.stamp));
                let verdicts = convert::verdicts(applied.only()?)?;
                for (checked, verdict) in chunk.iter().zip(&verdicts) {
                    let (document, line) = (head.document.as_str(), checked.line.line.as_str());
                    let verdict = convert::line_verdict(document, line, verdict);
                    recorded.verdicts.push((checked.place, verdict));
                }
            }
        }
        Ok(recorded)
    }
}

fn check_count(fields: &mut Fields, lines: usize) {
    if lines == 0 || lines > LINES_MAX {
        fields.refuse(
            "lines",
            format!("has {lines} lines; a call has 1 to {LINES_MAX}"),
        );
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
