//! `InventoryService`: movements, each line of a document by itself.

use std::sync::Arc;

use futures_util::future::join_all;
use stock_core::limits::QUANTITY_MAX;
use stock_core::{
    Action, Command, Document, Fingerprint, Location, MovementKind, MovementLine, Movements,
    Quantity, Reason, Sku,
};
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::inventory_service_server::InventoryService;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::FieldViolation;

use super::convert;
use super::deadline::Deadline;
use super::edge::Edge;
use super::error::ApiError;
use super::fields::Fields;
use super::meter::Meter;
use crate::listeners::{Fault, Hold};
use crate::log_codec::CommandsBuilder;
use crate::worker::event::{Failure, GroupId};

/// Lines of one call.
const LINES_MAX: usize = 10_000;

/// Lines of one command: small enough that others get their turn between two.
const LINES_PER_COMMAND_MAX: usize = 256;

/// What a line of a stream takes until the last has come, its names and its verdict included.
const LINE_BYTES: usize = size_of::<Checked>() + size_of::<Option<api::LineVerdict>>() + 256;

/// The service.
pub(super) struct Inventory {
    edge: Arc<Edge>,
    receipts: Meter,
    sale: Meter,
    adjust: Meter,
}

/// What the lines of a call have in common.
struct Head<'a> {
    kind: MovementKind,
    reason: Option<&'a str>,
}

/// A line that passed every check, and its place in the call.
struct Checked {
    place: usize,
    document: Document,
    line: MovementLine,
}

impl Inventory {
    /// On this edge.
    pub(super) fn new(edge: Arc<Edge>) -> Self {
        Self {
            edge,
            receipts: Meter::new("RecordReceipts"),
            sale: Meter::new("RecordSale"),
            adjust: Meter::new("Adjust"),
        }
    }

    /// A document in one message: whatever is wrong with any line refuses all of them.
    async fn record_whole(
        &self,
        head: Head<'_>,
        document: &str,
        lines: &[api::MovementLine],
    ) -> Result<Vec<api::LineVerdict>, ApiError> {
        let mut fields = Fields::default();
        if lines.is_empty() || lines.len() > LINES_MAX {
            let found = lines.len();
            fields.refuse(
                "lines",
                format!("has {found} lines; a call has 1 to {LINES_MAX}"),
            );
        }
        let name = fields.check("document", Document::new(document));
        let reason = check_reason(&mut fields, &head);
        let mut checked = Vec::with_capacity(lines.len());
        for (place, line) in lines.iter().enumerate().take(LINES_MAX) {
            let path = format!("lines[{place}].");
            if let Some(line) = check_line(&mut fields, &path, head.kind, line)
                && let Some(document) = &name
            {
                let document = document.clone();
                checked.push(Checked {
                    place,
                    document,
                    line,
                });
            }
        }
        let reason = fields.finish(reason)?;
        let locations: Vec<_> = checked
            .iter()
            .map(|checked| &checked.line.location)
            .collect();
        self.edge.check_locations(&locations).await?;
        let mut verdicts = vec![None; lines.len()];
        self.record(head.kind, reason, checked, &mut verdicts)
            .await?;
        Ok(verdicts.into_iter().flatten().collect())
    }

    /// A stream of documents: a bad line is refused, the others count.
    async fn record_stream(
        &self,
        mut stream: Streaming<api::RecordReceiptsRequest>,
        hold: Option<Hold>,
    ) -> Result<Vec<api::LineVerdict>, Status> {
        let kind = MovementKind::Receipt;
        let mut verdicts = Vec::new();
        let mut checked: Vec<Checked> = Vec::new();
        while let Some(message) = stream.message().await? {
            if verdicts.len() + message.lines.len() > LINES_MAX {
                let mut fields = Fields::default();
                fields.refuse(
                    "lines",
                    format!("are more than {LINES_MAX} in all; nothing was recorded"),
                );
                return Err(fields
                    .finish::<()>(None)
                    .err()
                    .map_or_else(|| Status::invalid_argument("too many lines"), Status::from));
            }
            let bytes = message.lines.len() * LINE_BYTES;
            if hold.as_ref().is_some_and(|hold| !hold.take(bytes)) {
                return Err(Fault::NoRoom.tell());
            }
            for line in &message.lines {
                let mut fields = Fields::default();
                let document = fields.check("document", Document::new(&message.document));
                let good = check_line(&mut fields, "", kind, line);
                match (document.zip(good), fields.into_first()) {
                    (Some((document, line)), None) => {
                        let place = verdicts.len();
                        checked.push(Checked {
                            place,
                            document,
                            line,
                        });
                        verdicts.push(None);
                    }
                    (_, violation) => {
                        verdicts.push(Some(refused(&message.document, &line.line, violation)));
                    }
                }
            }
        }
        self.refuse_unknown_locations(&mut checked, &mut verdicts)
            .await?;
        self.record(kind, None, checked, &mut verdicts).await?;
        Ok(verdicts.into_iter().flatten().collect())
    }

    async fn refuse_unknown_locations(
        &self,
        checked: &mut Vec<Checked>,
        verdicts: &mut [Option<api::LineVerdict>],
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
            let mut verdict = refused(bad.document.as_str(), bad.line.line.as_str(), None);
            verdict.error = Some(api::LineError {
                reason: "UNKNOWN_LOCATION".to_owned(),
                field: "location".to_owned(),
                message: format!("there is no location {}; put it first", bad.line.location),
            });
            verdicts[bad.place] = Some(verdict);
        }
        Ok(())
    }

    /// Has every shard record its lines, and fills in their verdicts.
    async fn record(
        &self,
        kind: MovementKind,
        reason: Option<Reason>,
        checked: Vec<Checked>,
        verdicts: &mut [Option<api::LineVerdict>],
    ) -> Result<(), ApiError> {
        let shards = self.edge.shards();
        let mut by_shard: Vec<Vec<Checked>> = Vec::new();
        by_shard.resize_with(shards as usize, Vec::new);
        for line in checked {
            by_shard[line.line.sku.shard(shards) as usize].push(line);
        }
        let recorded = by_shard
            .into_iter()
            .enumerate()
            .map(|(shard, lines)| self.record_in_shard(shard as u32, kind, reason.clone(), lines));
        // All are waited for: what one shard did not record another may have.
        let recorded = join_all(recorded).await;
        let in_part = recorded
            .iter()
            .any(|shard| shard.as_ref().is_ok_and(|lines| !lines.is_empty()));
        for shard in recorded {
            let lines = shard.map_err(|error| {
                if in_part {
                    unknown_if_failed(error)
                } else {
                    error
                }
            })?;
            for (place, verdict) in lines {
                verdicts[place] = Some(verdict);
            }
        }
        Ok(())
    }

    /// One command after the other, so that the lines of one SKU keep their order.
    async fn record_in_shard(
        &self,
        shard: u32,
        kind: MovementKind,
        reason: Option<Reason>,
        lines: Vec<Checked>,
    ) -> Result<Vec<(usize, api::LineVerdict)>, ApiError> {
        let mut recorded = Vec::with_capacity(lines.len());
        for of_document in lines.chunk_by(|a, b| a.document == b.document) {
            for chunk in of_document.chunks(LINES_PER_COMMAND_MAX) {
                let document = &chunk[0].document;
                let mut commands = CommandsBuilder::default();
                commands.push(&Command {
                    principal: self.edge.principal.clone(),
                    action: Action::Movements(Movements {
                        kind,
                        document: document.clone(),
                        reason: reason.clone(),
                        lines: chunk.iter().map(|checked| checked.line.clone()).collect(),
                    }),
                });
                let applied = self
                    .edge
                    .propose(GroupId::of_shard(shard), commands.take())
                    .await;
                let applied = match recorded.is_empty() {
                    true => applied?,
                    false => applied.map_err(|failure| unknown_if_failed(failure.into()))?,
                };
                let index = applied.applied_index;
                let outcome = applied.outcomes.into_iter().next();
                let outcome = outcome.ok_or(ApiError::Failed(Failure::OutcomeUnknown))?;
                let verdicts = convert::verdicts(outcome)?;
                for (checked, verdict) in chunk.iter().zip(&verdicts) {
                    let line = checked.line.line.as_str();
                    let verdict =
                        convert::line_verdict(document.as_str(), line, verdict, shard, index);
                    recorded.push((checked.place, verdict));
                }
            }
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

fn check_reason(fields: &mut Fields, head: &Head<'_>) -> Option<Option<Reason>> {
    match head.reason {
        None => Some(None),
        Some(text) => fields.check("reason", Reason::new(text)).map(Some),
    }
}

fn check_line(
    fields: &mut Fields,
    path: &str,
    kind: MovementKind,
    line: &api::MovementLine,
) -> Option<MovementLine> {
    let field = |name: &str| format!("{path}{name}");
    let name = fields.check(&field("line"), Document::new(&line.line));
    let sku = fields.check(&field("sku"), Sku::new(&line.sku));
    let location = fields.check(&field("location"), Location::new(&line.location));
    let on_hand_delta = match kind {
        MovementKind::Receipt | MovementKind::Sale => {
            let quantity = fields.check(&field("quantity"), Quantity::new(line.quantity));
            let sign = if kind == MovementKind::Sale { -1 } else { 1 };
            quantity.map(|quantity| sign * quantity.get())
        }
        MovementKind::Adjustment => {
            let is_in_range =
                line.quantity != 0 && (-QUANTITY_MAX..=QUANTITY_MAX).contains(&line.quantity);
            if !is_in_range {
                let found = line.quantity;
                let why = format!(
                    "is {found}; it must be between -{QUANTITY_MAX} and {QUANTITY_MAX}, and not 0"
                );
                fields.refuse(&field("quantity"), why);
            }
            is_in_range.then_some(line.quantity)
        }
    };
    let occurred_at = fields.occurred_at(&field("occurred_at"), line.occurred_at.as_ref());
    Some(MovementLine {
        line: name?,
        sku: sku?,
        location: location?,
        on_hand_delta: on_hand_delta?,
        occurred_at: occurred_at?,
        fingerprint: Fingerprint::of(&prost::Message::encode_to_vec(line)),
    })
}

fn refused(document: &str, line: &str, violation: Option<FieldViolation>) -> api::LineVerdict {
    api::LineVerdict {
        document: document.to_owned(),
        line: line.to_owned(),
        verdict: api::line_verdict::Verdict::Refused.into(),
        error: violation.map(|violation| api::LineError {
            reason: "FIELD_INVALID".to_owned(),
            field: violation.field,
            message: violation.description,
        }),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl InventoryService for Inventory {
    async fn record_receipts(
        &self,
        request: Request<Streaming<api::RecordReceiptsRequest>>,
    ) -> Result<Response<api::RecordReceiptsResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let hold = Hold::of(request.extensions());
        let stream = request.into_inner();
        // A stream fails with whatever status its transport gives, so it is measured around that.
        let mut failed = None;
        let recorded = async {
            match self.record_stream(stream, hold).await {
                Ok(verdicts) => Ok(api::RecordReceiptsResponse { verdicts }),
                Err(status) => {
                    failed = Some(status);
                    Err(ApiError::Failed(Failure::OutcomeUnknown))
                }
            }
        };
        let answer = self.receipts.run(deadline, "", recorded).await;
        match failed {
            Some(status) => Err(status),
            None => answer,
        }
    }

    async fn record_sale(
        &self,
        request: Request<api::RecordSaleRequest>,
    ) -> Result<Response<api::RecordSaleResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let head = Head {
            kind: MovementKind::Sale,
            reason: None,
        };
        let recorded = async {
            let verdicts = self.record_whole(head, &call.document, &call.lines).await?;
            Ok(api::RecordSaleResponse { verdicts })
        };
        self.sale.run(deadline, &call.document, recorded).await
    }

    async fn adjust(
        &self,
        request: Request<api::AdjustRequest>,
    ) -> Result<Response<api::AdjustResponse>, Status> {
        let deadline = Deadline::of(request.metadata());
        deadline.check_mutation()?;
        let call = request.into_inner();
        let head = Head {
            kind: MovementKind::Adjustment,
            reason: Some(&call.reason),
        };
        let recorded = async {
            let verdicts = self.record_whole(head, &call.document, &call.lines).await?;
            Ok(api::AdjustResponse { verdicts })
        };
        self.adjust.run(deadline, &call.document, recorded).await
    }
}
