//! What a read of availability asks for, and its items.

use stock_core::{Location, Position, Sku};
use stock_proto::codec::MESSAGE_BYTES_MAX;
use stock_proto::stock::v1 as api;
use stock_proto::stock::v1::position_key::Place;

use crate::fields::Fields;
use crate::{Rejection, answer_size, convert};

/// Keys of one call.
const KEYS_MAX: usize = 2_000;

/// Items of one answer: with the longest names and the largest counts they stay below the largest
/// message.
const ITEMS_MAX: usize = 20_000;
const _: () = assert!(
    ITEMS_MAX * answer_size::ITEM_BYTES_MAX + answer_size::HEADER_BYTES_MAX <= MESSAGE_BYTES_MAX
);

/// What a caller asks for, and where: one SKU at one location or at all of them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The SKU.
    pub sku: Sku,
    /// There; none: everywhere.
    pub location: Option<Location>,
    /// The SKU's.
    pub shard: u32,
}

impl Key {
    /// Adds what a SKU's positions, which are in the order of their locations, say of it. Says
    /// nothing of a location where there is none.
    ///
    /// # Errors
    ///
    /// [`Rejection::TooManyItems`].
    pub fn read(
        &self,
        positions: &[Position],
        items: &mut Vec<api::Availability>,
    ) -> Result<(), Rejection> {
        let of_key = match &self.location {
            Some(location) => {
                let at = positions.binary_search_by(|p| p.location.cmp(location));
                at.map_or(&[][..], |at| &positions[at..=at])
            }
            None => positions,
        };
        check_room(items.len() + of_key.len())?;
        let sku = self.sku.as_str();
        items.extend(of_key.iter().map(|it| convert::availability(sku, it)));
        Ok(())
    }

    /// Adds that nothing is known of it.
    ///
    /// # Errors
    ///
    /// [`Rejection::TooManyItems`].
    pub fn read_nothing(&self, items: &mut Vec<api::Availability>) -> Result<(), Rejection> {
        check_room(items.len() + 1)?;
        items.push(api::Availability {
            sku: self.sku.as_str().to_owned(),
            location: self.location.as_ref().map(ToString::to_string),
            ..Default::default()
        });
        Ok(())
    }
}

/// The keys of a call to a cluster with so many shards.
pub fn check_keys(fields: &mut Fields, keys: &[api::PositionKey], shards: u32) -> Option<Vec<Key>> {
    if keys.is_empty() || keys.len() > KEYS_MAX {
        let found = keys.len();
        fields.refuse(
            "keys",
            format!("has {found} keys; a call has 1 to {KEYS_MAX}"),
        );
        return None;
    }
    let checked = keys.iter().enumerate().map(|(number, key)| {
        let sku = fields.check_at("keys", number, "sku", Sku::new(&key.sku));
        let location = match &key.place {
            Some(Place::AllLocations(api::AllLocations {})) => Some(None),
            Some(Place::Location(name)) => fields
                .check_at("keys", number, "location", Location::new(name))
                .map(Some),
            None => {
                let field = format!("keys[{number}].location");
                fields.refuse(&field, "or all_locations must be given");
                None
            }
        };
        let sku = sku?;
        Some(Key {
            shard: sku.shard(shards),
            sku,
            location: location?,
        })
    });
    let checked: Vec<_> = checked.collect();
    checked.into_iter().collect()
}

/// Refuses an answer of so many items, if that is too many.
pub fn check_room(items: usize) -> Result<(), Rejection> {
    match items > ITEMS_MAX {
        true => Err(Rejection::TooManyItems {
            items,
            items_max: ITEMS_MAX,
        }),
        false => Ok(()),
    }
}
