//! The calls that change a reservation in place: what each asks for.

use stock_core::{Confirm, Extend, Fulfill, Operation, Reason, Release, Request, ReservationId};
use stock_proto::stock::admin::v1 as admin;
use stock_proto::stock::v1 as api;

use crate::Rejection;
use crate::fields::Fields;

/// A message that asks for a change of one reservation.
pub trait Change {
    /// The caller's id for the request.
    fn request_id(&self) -> &str;
    /// Which reservation.
    fn reservation_id(&self) -> &str;
    /// What to do with it, if the fields are good.
    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation>;
}

/// The request, the reservation and the operation; or everything that is wrong with the message.
pub fn check(
    call: &impl Change,
    shards: u32,
) -> Result<(Request, ReservationId, Operation), Rejection> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(call.request_id());
    let id = fields.reservation_id(call.reservation_id(), shards);
    // The other fields are looked at also where the id is bad.
    let any_id = id.unwrap_or(ReservationId::compose(stock_core::Stamp(0), 0, 0));
    let operation = call.operation(any_id, &mut fields);
    let checked = request_id.zip(id).zip(operation);
    let ((request_id, id), operation) = fields.finish(checked)?;
    Ok((Request::of(request_id, &operation), id, operation))
}

impl Change for api::ConfirmRequest {
    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn reservation_id(&self) -> &str {
        &self.reservation_id
    }

    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation> {
        let pickup_within_ms = fields.ttl_ms("pickup_within", self.pickup_within.as_ref())?;
        Some(Operation::Confirm(Confirm {
            id,
            pickup_within_ms,
        }))
    }
}

impl Change for api::ReleaseRequest {
    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn reservation_id(&self) -> &str {
        &self.reservation_id
    }

    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation> {
        let lines = fields.partial_lines(&self.lines)?;
        Some(Operation::Release(Release {
            id,
            lines,
            forced: None,
        }))
    }
}

impl Change for admin::ForceReleaseRequest {
    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn reservation_id(&self) -> &str {
        &self.reservation_id
    }

    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation> {
        let lines = fields.partial_lines(&self.lines);
        let reason = fields.check("reason", Reason::new(&self.reason));
        Some(Operation::Release(Release {
            id,
            lines: lines?,
            forced: Some(reason?),
        }))
    }
}

impl Change for api::FulfillRequest {
    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn reservation_id(&self) -> &str {
        &self.reservation_id
    }

    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation> {
        let lines = fields.partial_lines(&self.lines)?;
        Some(Operation::Fulfill(Fulfill { id, lines }))
    }
}

impl Change for api::ExtendRequest {
    fn request_id(&self) -> &str {
        &self.request_id
    }

    fn reservation_id(&self) -> &str {
        &self.reservation_id
    }

    fn operation(&self, id: ReservationId, fields: &mut Fields) -> Option<Operation> {
        match fields.ttl_ms("ttl", self.ttl.as_ref())? {
            Some(ttl_ms) => Some(Operation::Extend(Extend { id, ttl_ms })),
            None => {
                fields.refuse("ttl", "must be given");
                None
            }
        }
    }
}
