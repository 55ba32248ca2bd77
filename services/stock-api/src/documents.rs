//! Documents of a call, line by line: checked, and turned into commands that shards record.

use std::sync::Arc;

use stock_core::{
    Action, Command, Document, LineVerdict, Location, MovementKind, MovementLine, Movements,
    Principal, Reason, Reporter,
};
use stock_proto::stock::v1 as api;

use crate::fields::Fields;
use crate::movement_lines::{LINES_MAX, check_count, check_line, check_reason, check_source};
use crate::verdicts::Verdicts;
use crate::{Rejection, convert};

/// Lines of one command: small enough that others get their turn between two.
const LINES_PER_COMMAND_MAX: usize = 256;

/// What a line of a stream takes until the last has come, its names and its verdict included.
pub const LINE_BYTES: usize = size_of::<Checked>() + size_of::<Option<api::LineVerdict>>() + 256;

/// A document's message as it came.
pub struct Whole<'a> {
    /// What it tells.
    pub kind: MovementKind,
    /// Who reports it, if not the caller.
    pub source: Option<&'a str>,
    /// Its name.
    pub document: &'a str,
    /// Where documents of the kind have one.
    pub reason: Option<&'a str>,
    /// Its lines.
    pub lines: &'a [api::MovementLine],
}

/// What the lines of a document have in common.
#[derive(Clone, PartialEq, Eq)]
struct Head {
    kind: MovementKind,
    source: Reporter,
    document: Document,
    reason: Option<Reason>,
}

/// A line that passed every check, and its place in the call.
pub struct Checked {
    place: usize,
    head: Arc<Head>,
    line: MovementLine,
}

impl Checked {
    /// What the document says.
    pub fn line(&self) -> &MovementLine {
        &self.line
    }
}

/// The documents of a call.
#[derive(Default)]
pub struct Documents {
    /// What is to be recorded.
    pub checked: Vec<Checked>,
    /// What is answered.
    pub verdicts: Verdicts,
}

impl Documents {
    /// A document in one message: whatever is wrong with any line refuses all of them.
    ///
    /// # Errors
    ///
    /// [`Rejection::Invalid`].
    pub fn whole(whole: &Whole<'_>, caller: &Principal) -> Result<Self, Rejection> {
        let mut fields = Fields::default();
        check_count(&mut fields, whole.lines.len());
        let source = check_source(&mut fields, whole.source, caller);
        let document = fields.check("document", Document::new(whole.document));
        let reason = check_reason(&mut fields, whole.reason);
        let mut lines = Vec::with_capacity(whole.lines.len().min(LINES_MAX));
        for (place, line) in whole.lines.iter().enumerate().take(LINES_MAX) {
            let path = format!("lines[{place}].");
            lines.extend(check_line(&mut fields, &path, whole.kind, line));
        }
        let (source, (document, reason)) = fields.finish(source.zip(document.zip(reason)))?;
        let head = Arc::new(Head {
            kind: whole.kind,
            source,
            document,
            reason,
        });
        let mut documents = Self::default();
        for line in lines {
            documents.take(&head, line);
        }
        Ok(documents)
    }

    /// Says who reports a stream's next document. One without lines, with too many of them, or of
    /// nobody, refuses all of the stream before anything is recorded.
    ///
    /// # Errors
    ///
    /// [`Rejection::Invalid`].
    pub fn admit(
        &self,
        message: &api::RecordReceiptsRequest,
        caller: &Principal,
    ) -> Result<Reporter, Rejection> {
        let mut fields = Fields::default();
        check_count(&mut fields, message.lines.len());
        if self.verdicts.count() + message.lines.len() > LINES_MAX {
            fields.refuse(
                "lines",
                format!("are more than {LINES_MAX} in all; nothing was recorded"),
            );
        }
        let source = check_source(&mut fields, message.source.as_deref(), caller);
        fields.finish(source)
    }

    /// Takes in a document that was admitted: a bad line is refused, and the others count.
    pub fn add(&mut self, message: &api::RecordReceiptsRequest, source: Reporter) {
        let kind = MovementKind::Receipt;
        let mut fields = Fields::default();
        let Some(document) = fields.check("document", Document::new(&message.document)) else {
            let violation = fields.into_first();
            for line in &message.lines {
                self.verdicts
                    .refuse(&message.document, &line.line, violation.clone());
            }
            return;
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
                (Some(line), None) => self.take(&head, line),
                (_, violation) => {
                    self.verdicts
                        .refuse(&message.document, &line.line, violation);
                }
            }
        }
    }

    fn take(&mut self, head: &Arc<Head>, line: MovementLine) {
        self.checked.push(Checked {
            place: self.verdicts.wait(),
            head: Arc::clone(head),
            line,
        });
    }

    /// Where the lines say that something moved.
    pub fn locations(&self) -> Vec<&Location> {
        let lines = self.checked.iter();
        lines.map(|checked| &checked.line.location).collect()
    }

    /// Refuses the lines at locations that do not exist.
    pub fn refuse_unknown(&mut self, mut is_unknown: impl FnMut(&Location) -> bool) {
        let is_bad = |checked: &mut Checked| is_unknown(&checked.line.location);
        for bad in self.checked.extract_if(.., is_bad) {
            self.verdicts
                .refuse_location(bad.place, &bad.head.document, &bad.line);
        }
    }
}

/// The commands that record lines of one shard, each with its lines. One is to be carried out after
/// the other, so that the lines of one SKU keep their order.
pub fn commands<'a>(
    lines: &'a [Checked],
    principal: &'a Principal,
) -> impl Iterator<Item = (Command, &'a [Checked])> {
    let of_documents = lines.chunk_by(|a, b| a.head == b.head);
    let chunks = of_documents.flat_map(|lines| lines.chunks(LINES_PER_COMMAND_MAX));
    chunks.map(|chunk| {
        let head = &chunk[0].head;
        let command = Command {
            principal: principal.clone(),
            action: Action::Movements(Movements {
                kind: head.kind,
                source: head.source.clone(),
                document: head.document.clone(),
                reason: head.reason.clone(),
                lines: chunk.iter().map(|checked| checked.line.clone()).collect(),
            }),
        };
        (command, chunk)
    })
}

/// What became of a command's lines, by their places in the call.
pub fn told(chunk: &[Checked], verdicts: &[LineVerdict]) -> Vec<(usize, api::LineVerdict)> {
    let told = chunk.iter().zip(verdicts).map(|(checked, verdict)| {
        let (document, line) = (checked.head.document.as_str(), checked.line.line.as_str());
        let verdict = convert::line_verdict(document, line, verdict);
        (checked.place, verdict)
    });
    told.collect()
}
