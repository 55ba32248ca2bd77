//! What is put into the catalog, checked: locations, and the policies of positions.

use stock_core::limits::QUANTITY_MAX;
use stock_core::{
    CatalogCommand, Location, LocationType, Operation, Principal, PutLocation, Request, SetPolicy,
    Sku,
};
use stock_proto::stock::v1 as api;

use crate::fields::Fields;
use crate::{Rejection, convert};

/// Longest name of a location, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Digits of a GS1 Global Location Number.
const GLN_DIGITS: usize = 13;

/// The request, and the operation that sets a policy.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not good.
pub fn policy(call: &api::SetPositionPolicyRequest) -> Result<(Request, SetPolicy), Rejection> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(&call.request_id);
    let sku = fields.check("sku", Sku::new(&call.sku));
    let location = fields.check("location", Location::new(&call.location));
    let values = check_policy(&mut fields, call);
    let checked = request_id.zip(sku.zip(location)).zip(values);
    let ((request_id, (sku, location)), [safety_stock, backorder_limit]) =
        fields.finish(checked)?;
    let set = SetPolicy {
        sku,
        location,
        safety_stock,
        backorder_limit,
    };
    let operation = Operation::SetPolicy(set.clone());
    Ok((Request::of(request_id, &operation), set))
}

/// The command that puts a location in a principal's name.
///
/// # Errors
///
/// [`Rejection::Invalid`] with every field that is not good.
pub fn put(
    call: &api::PutLocationRequest,
    principal: &Principal,
) -> Result<CatalogCommand, Rejection> {
    let mut fields = Fields::default();
    let request_id = fields.request_id(&call.request_id);
    let put = check_location(&mut fields, call.location.as_ref());
    let (id, put) = fields.finish(request_id.zip(put))?;
    let fingerprint = put.fingerprint();
    Ok(CatalogCommand {
        principal: principal.clone(),
        request: Request { id, fingerprint },
        put,
    })
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
