//! One copy of each name that many records share.

use std::collections::BTreeSet;

use crate::ids::{Channel, IdentifierError, Location, Principal};
use crate::labels::Labels;
use crate::sku::Sku;

/// Makes names of texts. Whoever knows a name already gives a copy that shares it: that is quicker,
/// and nothing is checked twice.
pub trait Naming {
    /// A SKU of this name.
    ///
    /// # Errors
    ///
    /// [`Sku::new`]'s.
    fn sku(&self, text: &str) -> Result<Sku, IdentifierError>;

    /// A location of this name.
    ///
    /// # Errors
    ///
    /// [`Location::new`]'s.
    fn location(&self, text: &str) -> Result<Location, IdentifierError>;

    /// A principal of this name.
    ///
    /// # Errors
    ///
    /// [`Principal::new`]'s.
    fn principal(&self, text: &str) -> Result<Principal, IdentifierError>;

    /// A channel of this name.
    ///
    /// # Errors
    ///
    /// [`Channel::new`]'s.
    fn channel(&self, text: &str) -> Result<Channel, IdentifierError>;
}

/// Knows no name.
#[derive(Debug, Clone, Copy)]
pub struct NewNames;

impl Naming for NewNames {
    fn sku(&self, text: &str) -> Result<Sku, IdentifierError> {
        Sku::new(text)
    }

    fn location(&self, text: &str) -> Result<Location, IdentifierError> {
        Location::new(text)
    }

    fn principal(&self, text: &str) -> Result<Principal, IdentifierError> {
        Principal::new(text)
    }

    fn channel(&self, text: &str) -> Result<Channel, IdentifierError> {
        Channel::new(text)
    }
}

/// Makes names that a state keeps of texts. Whoever keeps them gives each once, and copies of it
/// from then on.
pub(crate) trait Interning {
    fn location_named(&mut self, text: &str) -> Result<Location, IdentifierError>;

    fn principal_named(&mut self, text: &str) -> Result<Principal, IdentifierError>;

    fn channel_named(&mut self, text: &str) -> Result<Channel, IdentifierError>;
}

/// Keeps none.
impl Interning for NewNames {
    fn location_named(&mut self, text: &str) -> Result<Location, IdentifierError> {
        Location::new(text)
    }

    fn principal_named(&mut self, text: &str) -> Result<Principal, IdentifierError> {
        Principal::new(text)
    }

    fn channel_named(&mut self, text: &str) -> Result<Channel, IdentifierError> {
        Channel::new(text)
    }
}

/// Not part of the canonical state: it is made again from the rest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    locations: BTreeSet<Location>,
    principals: BTreeSet<Principal>,
    channels: BTreeSet<Channel>,
}

impl Names {
    /// A copy of a location's name, if it is known.
    pub(crate) fn known_location(&self, text: &str) -> Option<Location> {
        self.locations.get(text).cloned()
    }

    /// A copy of a principal's name, if it is known.
    pub(crate) fn known_principal(&self, text: &str) -> Option<Principal> {
        self.principals.get(text).cloned()
    }

    pub(crate) fn location(&mut self, location: &Location) -> Location {
        if let Some(shared) = self.locations.get(location) {
            return shared.clone();
        }
        self.locations.insert(location.clone());
        location.clone()
    }

    pub(crate) fn principal(&mut self, principal: Principal) -> Principal {
        if let Some(shared) = self.principals.get(&principal) {
            return shared.clone();
        }
        self.principals.insert(principal.clone());
        principal
    }

    /// A copy of a channel's name, if it is known.
    pub(crate) fn known_channel(&self, text: &str) -> Option<Channel> {
        self.channels.get(text).cloned()
    }

    /// Keeps the names of what is held.
    pub(crate) fn keep(&mut self, labels: &Labels) {
        if let Some(channel) = &labels.channel
            && !self.channels.contains(channel)
        {
            self.channels.insert(channel.clone());
        }
    }

    /// Takes over the principals and channels of another, and none of its locations.
    pub(crate) fn adopt_callers(&mut self, other: Self) {
        self.principals = other.principals;
        self.channels = other.channels;
    }
}

impl Interning for Names {
    fn location_named(&mut self, text: &str) -> Result<Location, IdentifierError> {
        match self.locations.get(text) {
            Some(shared) => Ok(shared.clone()),
            None => Ok(self.location(&Location::new(text)?)),
        }
    }

    fn principal_named(&mut self, text: &str) -> Result<Principal, IdentifierError> {
        match self.principals.get(text) {
            Some(shared) => Ok(shared.clone()),
            None => Ok(self.principal(Principal::new(text)?)),
        }
    }

    fn channel_named(&mut self, text: &str) -> Result<Channel, IdentifierError> {
        if let Some(shared) = self.channels.get(text) {
            return Ok(shared.clone());
        }
        let channel = Channel::new(text)?;
        self.channels.insert(channel.clone());
        Ok(channel)
    }
}
