//! Group 0's state: the locations of a cluster.

use std::collections::BTreeMap;

use crate::command::Request;
use crate::ids::{At, Location, Principal, Stamp};
use crate::limits::{LOCATIONS_MAX, REQUESTS_REMEMBERED_MAX};
use crate::memory::{Recall, RequestKey, RequestMemory};
use crate::outcome::Refusal;

/// What is known of every location. Driven like a [`Shard`](crate::Shard).
#[derive(Debug)]
pub struct Catalog {
    locations: BTreeMap<Location, PutLocation>,
    requests: RequestMemory<CatalogOutcome>,
}

/// One command of a log entry of group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogCommand {
    /// Who asked.
    pub principal: Principal,
    /// What makes it the same request.
    pub request: Request,
    /// What for.
    pub put: PutLocation,
}

/// Creates a location or replaces what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutLocation {
    /// Its id.
    pub location: Location,
    /// What it is.
    pub kind: LocationType,
    /// For people.
    pub name: String,
    /// Where it is.
    pub coordinates: Option<Coordinates>,
    /// GS1 Global Location Number, or empty.
    pub gln: String,
}

/// What a location is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocationType {
    /// Ships to customers and stores.
    Warehouse,
    /// Sells to customers who come in.
    Store,
}

/// WGS 84, in millionths of a degree: a float in replicated state invites two answers to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Coordinates {
    pub latitude_e6: i32,
    pub longitude_e6: i32,
}

/// How a command of group 0 ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatalogOutcome {
    /// The location is as the command says.
    Put,
    /// Nothing changed.
    Refused(Refusal),
}

impl Catalog {
    /// No location.
    pub fn new() -> Self {
        Self {
            locations: BTreeMap::new(),
            requests: RequestMemory::new(1, REQUESTS_REMEMBERED_MAX),
        }
    }

    /// Time passes. Called once for each entry, before its commands.
    pub fn advance(&mut self, stamp: Stamp) {
        self.requests.forget(stamp);
    }

    /// Carries out one command, or refuses it.
    pub fn apply(&mut self, at: At, command: CatalogCommand) -> CatalogOutcome {
        let key = RequestKey {
            id: command.request.id,
            principal: command.principal,
        };
        match self
            .requests
            .recall(&key, command.request.fingerprint, at.stamp)
        {
            Recall::Answered(outcome) => return *outcome,
            Recall::Refused(refusal) => return CatalogOutcome::Refused(refusal),
            Recall::New => {}
        }
        let known = self.locations.contains_key(&command.put.location);
        if !known && self.locations.len() >= LOCATIONS_MAX {
            // Not remembered: a retry may find room.
            return CatalogOutcome::Refused(Refusal::TooManyLocations);
        }
        self.locations
            .insert(command.put.location.clone(), command.put);
        let outcome = CatalogOutcome::Put;
        self.requests
            .remember(key, command.request, at.stamp, outcome);
        outcome
    }

    /// Every location, in the order of their ids.
    pub fn locations(&self) -> impl Iterator<Item = &PutLocation> {
        self.locations.values()
    }

    /// What is known of one.
    pub fn location(&self, id: &Location) -> Option<&PutLocation> {
        self.locations.get(id)
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Fingerprint, RequestId};

    const NOW: u64 = 1_790_000_000_000;

    /// Puts a location; the fingerprint is of its name.
    fn put(catalog: &mut Catalog, now: u64, request: u32, id: &str, name: &str) -> CatalogOutcome {
        let bits = u128::from(NOW) << 80 | 0x7 << 76 | u128::from(request);
        let at = At {
            index: 1,
            ordinal: 0,
            stamp: Stamp(now),
        };
        let put = PutLocation {
            location: Location::new(id).unwrap(),
            kind: LocationType::Store,
            name: name.to_string(),
            coordinates: None,
            gln: String::new(),
        };
        let command = CatalogCommand {
            principal: Principal::new("ops").unwrap(),
            request: Request {
                id: RequestId::new(bits.to_be_bytes()).unwrap(),
                fingerprint: Fingerprint::of(name.as_bytes()),
            },
            put,
        };
        catalog.advance(at.stamp);
        catalog.apply(at, command)
    }

    fn names(catalog: &Catalog) -> Vec<&str> {
        catalog.locations().map(|put| put.name.as_str()).collect()
    }

    #[test]
    fn a_location_is_put_and_replaced() {
        let mut catalog = Catalog::new();
        assert_eq!(
            put(&mut catalog, NOW, 1, "B", "Berlin"),
            CatalogOutcome::Put
        );
        assert_eq!(
            put(&mut catalog, NOW, 2, "A", "Aachen"),
            CatalogOutcome::Put
        );
        assert_eq!(put(&mut catalog, NOW, 3, "B", "Bonn"), CatalogOutcome::Put);
        assert_eq!(names(&catalog), ["Aachen", "Bonn"]);
        let bonn = catalog.location(&Location::new("B").unwrap()).unwrap();
        assert_eq!(bonn.name, "Bonn");
    }

    #[test]
    fn a_request_sent_again_does_not_put_back_what_was_replaced() {
        let mut catalog = Catalog::new();
        put(&mut catalog, NOW, 1, "B", "Berlin");
        put(&mut catalog, NOW, 2, "B", "Bonn");
        assert_eq!(
            put(&mut catalog, NOW, 1, "B", "Berlin"),
            CatalogOutcome::Put
        );
        assert_eq!(names(&catalog), ["Bonn"]);
        let reused = CatalogOutcome::Refused(Refusal::RequestReused);
        assert_eq!(put(&mut catalog, NOW, 1, "B", "Bremen"), reused);
        let horizon = Stamp(NOW + 1);
        let too_old = CatalogOutcome::Refused(Refusal::RequestTooOld { horizon });
        assert_eq!(put(&mut catalog, NOW + 600_001, 1, "B", "Berlin"), too_old);
        assert_eq!(names(&catalog), ["Bonn"]);
    }

    #[test]
    fn past_its_bound_a_catalog_takes_no_more_locations() {
        let mut catalog = Catalog::new();
        for number in 0..LOCATIONS_MAX as u32 {
            let id = format!("L{number}");
            assert_eq!(
                put(&mut catalog, NOW, number, &id, "a"),
                CatalogOutcome::Put
            );
        }
        let too_many = CatalogOutcome::Refused(Refusal::TooManyLocations);
        assert_eq!(put(&mut catalog, NOW, 200_000, "M", "b"), too_many);
        assert_eq!(
            put(&mut catalog, NOW, 200_001, "L7", "c"),
            CatalogOutcome::Put
        );
    }
}
