//! Which reservations a list is of.

use stock_core::{Channel, Filter, Location, OrderReference, Sku, State};
use stock_proto::stock::v1 as api;

use crate::fields::Fields;

/// What a token is bound to: all but the page and how new it is to be.
pub fn filters(call: &api::ListReservationsRequest) -> api::ListReservationsRequest {
    api::ListReservationsRequest {
        page_size: 0,
        page_token: String::new(),
        read: None,
        ..call.clone()
    }
}

/// The filter, if all of it is good.
pub fn check_filter(fields: &mut Fields, call: &api::ListReservationsRequest) -> Option<Filter> {
    let reference = call.order_reference.as_deref().map(OrderReference::new);
    let reference = fields.check("order_reference", reference.transpose());
    let channel = call.channel.as_deref().map(Channel::new);
    let channel = fields.check("channel", channel.transpose());
    let sku = fields.check("sku", call.sku.as_deref().map(Sku::new).transpose());
    let location = call.location.as_deref().map(Location::new);
    let location = fields.check("location", location.transpose());
    let mut states = Vec::new();
    for (number, state) in call.states.iter().enumerate() {
        match state_of(*state) {
            Some(state) if !states.contains(&state) => states.push(state),
            Some(_) => fields.refuse(&format!("states[{number}]"), "is named twice"),
            None => fields.refuse(
                &format!("states[{number}]"),
                format!("is {state}: no state"),
            ),
        }
    }
    let due_before = fields.moment("due_before", call.due_before.as_ref());
    let created_after = fields.moment("created_after", call.created_after.as_ref());
    Some(Filter {
        order_reference: reference?,
        channel: channel?,
        sku: sku?,
        location: location?,
        states,
        due_before: due_before?,
        created_after: created_after?,
    })
}

fn state_of(state: i32) -> Option<State> {
    match api::reservation::State::try_from(state).ok()? {
        // What is undecided is found as held, or confirmed.
        api::reservation::State::Unspecified | api::reservation::State::Pending => None,
        api::reservation::State::Held => Some(State::Held),
        api::reservation::State::Confirmed => Some(State::Confirmed),
        api::reservation::State::Fulfilled => Some(State::Fulfilled),
        api::reservation::State::Released => Some(State::Released),
        api::reservation::State::Expired => Some(State::Expired),
    }
}
