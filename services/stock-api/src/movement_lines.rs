//! A document's parts, checked: nothing of what a caller sent is copied before it is known to be
//! short.

use stock_core::limits::QUANTITY_MAX;
use stock_core::{
    Document, Location, MovementKind, MovementLine, Principal, Quantity, Reason, Reporter, Sku,
};
use stock_proto::stock::v1 as api;

use crate::fields::Fields;

/// Lines of one call.
pub const LINES_MAX: usize = 10_000;

/// Refuses a call without lines, or with too many.
pub fn check_count(fields: &mut Fields, lines: usize) {
    if lines == 0 || lines > LINES_MAX {
        fields.refuse(
            "lines",
            format!("has {lines} lines; a call has 1 to {LINES_MAX}"),
        );
    }
}

/// Who reports a document: the caller, unless somebody else is named.
pub fn check_source(
    fields: &mut Fields,
    source: Option<&str>,
    caller: &Principal,
) -> Option<Reporter> {
    let name = source.unwrap_or(caller.as_str());
    fields.check("source", Reporter::new(name))
}

/// None inside where documents of the kind have none.
pub fn check_reason(fields: &mut Fields, reason: Option<&str>) -> Option<Option<Reason>> {
    match reason {
        None => Some(None),
        Some(text) => fields.check("reason", Reason::new(text)).map(Some),
    }
}

/// A line of a document of this kind. `path` comes before the names of its fields.
pub fn check_line(
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
    })
}
