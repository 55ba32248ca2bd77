//! Checking what a caller sent, field by field. Every violation is collected, so that one answer
//! names them all.

use std::fmt::Display;
use std::sync::Arc;

use prost_types::{Duration, FieldMask, Timestamp};
use stock_core::limits::{LINES_MAX, TTL_MS_MAX, TTL_MS_MIN};
use stock_core::{
    Channel, Labels, Line, Location, OrderReference, PartialLine, Quantity, RequestId,
    ReservationId, Sku, Stamp,
};
use stock_proto::stock::v1 as api;
use tonic_types::FieldViolation;
use uuid::Uuid;

use crate::Rejection;

/// Violations named in one answer: a thousand bad lines need not all be told.
const VIOLATIONS_MAX: usize = 20;

/// What is wrong with a message, so far.
#[derive(Debug, Default)]
pub struct Fields {
    violations: Vec<FieldViolation>,
    prefix: String,
}

impl Fields {
    /// Fields of a message inside another: `prefix` comes before their names.
    pub fn within(prefix: String) -> Self {
        Self {
            violations: Vec::new(),
            prefix,
        }
    }

    /// Says that a field is wrong.
    pub fn refuse(&mut self, field: &str, description: impl Display) {
        if self.violations.len() < VIOLATIONS_MAX {
            let field = format!("{}{field}", self.prefix);
            self.violations
                .push(FieldViolation::new(field, description.to_string()));
        }
    }

    /// The value, or a violation.
    pub fn check<T, E: Display>(&mut self, field: &str, checked: Result<T, E>) -> Option<T> {
        checked.map_err(|error| self.refuse(field, error)).ok()
    }

    /// As [`Self::check`], for a field of a repeated message.
    pub fn check_at<T, E: Display>(
        &mut self,
        list: &str,
        number: usize,
        field: &str,
        checked: Result<T, E>,
    ) -> Option<T> {
        checked
            .map_err(|error| self.refuse(&format!("{list}[{number}].{field}"), error))
            .ok()
    }

    /// The message, if nothing was wrong with it.
    pub fn finish<T>(self, message: Option<T>) -> Result<T, Rejection> {
        match message {
            Some(message) if self.violations.is_empty() => Ok(message),
            _ => Err(Rejection::Invalid(self.violations)),
        }
    }

    /// The first violation, if there is one.
    pub fn into_first(self) -> Option<FieldViolation> {
        self.violations.into_iter().next()
    }

    /// All of them that are told.
    pub fn into_all(self) -> Vec<FieldViolation> {
        self.violations
    }

    /// A request's id, however it is spelled.
    pub fn request_id(&mut self, request_id: &str) -> Option<RequestId> {
        let uuid = match Uuid::parse_str(request_id) {
            Ok(uuid) => uuid,
            Err(_) if request_id.is_empty() => {
                self.refuse(
                    "request_id",
                    "must not be empty: make a UUIDv7 for each request",
                );
                return None;
            }
            Err(error) => {
                self.refuse("request_id", format!("is no UUID: {error}"));
                return None;
            }
        };
        self.check("request_id", RequestId::new(*uuid.as_bytes()))
    }

    /// A reservation's id.
    pub fn reservation_id(&mut self, text: &str, shards: u32) -> Option<ReservationId> {
        if text.is_empty() {
            self.refuse("reservation_id", "must not be empty");
            return None;
        }
        let uuid = self.check(
            "reservation_id",
            Uuid::parse_str(text).map_err(|e| format!("is no UUID: {e}")),
        )?;
        let id = self.check("reservation_id", ReservationId::new(*uuid.as_bytes()))?;
        if id.shard() >= shards {
            self.refuse(
                "reservation_id",
                "names a shard that this cluster does not have",
            );
            return None;
        }
        Some(id)
    }

    /// What a caller calls a reservation; `None` inside if it calls it nothing.
    pub fn labels(
        &mut self,
        order_reference: Option<&str>,
        channel: Option<&str>,
    ) -> Option<Option<Arc<Labels>>> {
        let reference = order_reference.map(OrderReference::new).transpose();
        let channel = channel.map(Channel::new).transpose();
        let reference = self.check("order_reference", reference);
        let channel = self.check("channel", channel);
        Some(Labels::new(reference?, channel?))
    }

    /// A time to live in milliseconds; `None` inside if it was left out.
    pub fn ttl_ms(&mut self, field: &str, ttl: Option<&Duration>) -> Option<Option<u64>> {
        let Some(ttl) = ttl else {
            return Some(None);
        };
        let is_normal = (0..1_000_000_000).contains(&ttl.nanos) && ttl.seconds >= 0;
        let whole = u64::try_from(ttl.seconds)
            .ok()
            .and_then(|s| s.checked_mul(1_000));
        let ms = whole.map(|ms| ms.saturating_add(ttl.nanos.unsigned_abs() as u64 / 1_000_000));
        match ms.filter(|ms| is_normal && (TTL_MS_MIN..=TTL_MS_MAX).contains(ms)) {
            Some(ms) => Some(Some(ms)),
            None => {
                self.refuse(field, "must be between 1 second and 7 days");
                None
            }
        }
    }

    /// When something happened, in milliseconds since the Unix epoch.
    pub fn occurred_at(&mut self, field: &str, at: Option<&Timestamp>) -> Option<Stamp> {
        let Some(at) = at else {
            self.refuse(
                field,
                "must be given: when it happened, so that the line is known again for what it is",
            );
            return None;
        };
        let whole = u64::try_from(at.seconds)
            .ok()
            .and_then(|s| s.checked_mul(1_000));
        let ms = whole.map(|ms| ms.saturating_add(at.nanos.max(0) as u64 / 1_000_000));
        match ms.filter(|ms| *ms > 0 && (0..1_000_000_000).contains(&at.nanos)) {
            Some(ms) => Some(Stamp(ms)),
            None => {
                self.refuse(field, "must be a time after 1970");
                None
            }
        }
    }

    /// Which of these fields a mask names: all, where there is none. A mask that names none, or
    /// another one, is refused.
    pub fn mask<const N: usize>(
        &mut self,
        field: &str,
        mask: Option<&FieldMask>,
        names: [&str; N],
    ) -> Option<[bool; N]> {
        let Some(mask) = mask else {
            return Some([true; N]);
        };
        if let [all] = &mask.paths[..]
            && all == "*"
        {
            return Some([true; N]);
        }
        let known = names.join(", ");
        if mask.paths.is_empty() {
            self.refuse(field, format!("names nothing; it may name {known}"));
            return None;
        }
        let mut set = [false; N];
        for (number, path) in mask.paths.iter().enumerate() {
            match names.iter().position(|name| name == path) {
                Some(at) => set[at] = true,
                None => {
                    let field = format!("{field}.paths[{number}]");
                    self.refuse(&field, format!("is {path:?}, which is none of {known}"));
                    return None;
                }
            }
        }
        Some(set)
    }

    /// A time to compare with; `None` inside if it was left out. One before 1970 is before all.
    pub fn moment(&mut self, field: &str, at: Option<&Timestamp>) -> Option<Option<Stamp>> {
        let Some(at) = at else {
            return Some(None);
        };
        if !(0..1_000_000_000).contains(&at.nanos) {
            self.refuse(field, "has nanoseconds that are none");
            return None;
        }
        let seconds = u64::try_from(at.seconds).unwrap_or(0);
        let ms = u64::from(at.nanos.unsigned_abs()) / 1_000_000;
        Some(Some(Stamp(
            seconds.saturating_mul(1_000).saturating_add(ms),
        )))
    }

    /// The lines of a basket.
    pub fn basket(&mut self, lines: &[api::Line]) -> Option<Vec<Line>> {
        if lines.is_empty() || lines.len() > LINES_MAX {
            let found = lines.len();
            self.refuse(
                "lines",
                format!("has {found} lines; a basket has 1 to {LINES_MAX}"),
            );
            return None;
        }
        let lines = lines.iter().enumerate().map(|(number, line)| {
            let sku = self.check_at("lines", number, "sku", Sku::new(&line.sku));
            let location = match &line.place {
                Some(api::line::Place::Location(name)) => {
                    self.check_at("lines", number, "location", Location::new(name))
                }
                None => {
                    self.refuse(&format!("lines[{number}].location"), "must be given");
                    None
                }
            };
            let quantity = self.check_at("lines", number, "quantity", Quantity::new(line.quantity));
            Some(Line {
                sku: sku?,
                location: location?,
                quantity: quantity?,
            })
        });
        // Every line is looked at, also after a bad one.
        let lines: Vec<_> = lines.collect();
        lines.into_iter().collect()
    }

    /// The lines of a partial release or fulfilment; none means all.
    pub fn partial_lines(&mut self, lines: &[api::PartialLine]) -> Option<Vec<PartialLine>> {
        if lines.len() > LINES_MAX {
            let found = lines.len();
            self.refuse(
                "lines",
                format!("has {found} lines; at most {LINES_MAX} are allowed"),
            );
            return None;
        }
        let lines = lines.iter().enumerate().map(|(number, line)| {
            let sku = self.check_at("lines", number, "sku", Sku::new(&line.sku));
            let location = match &line.location {
                None => Some(None),
                Some(name) => self
                    .check_at("lines", number, "location", Location::new(name))
                    .map(Some),
            };
            let quantity = self.check_at("lines", number, "quantity", Quantity::new(line.quantity));
            Some(PartialLine {
                sku: sku?,
                location: location?,
                quantity: quantity?,
            })
        });
        let lines: Vec<_> = lines.collect();
        lines.into_iter().collect()
    }
}
