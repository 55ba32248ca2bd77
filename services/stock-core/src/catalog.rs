//! Group 0's state: the locations of a cluster.

use crate::buckets::Buckets;
use crate::codec::{CatalogHead, MemoryHead, OrderHead, Writer};
use crate::command::Request;
use crate::frozen::{FrozenState, Slot};
use crate::ids::{At, Location, Moment, Principal, Secret, Stamp};
use crate::limits::{CATALOG_BUCKETS, LOCATIONS_MAX, REQUEST_MEMORY_BYTES_MAX};
use crate::memory::{Recall, RequestKey, RequestMemory, Weigh};
use crate::outcome::Refusal;

/// What is known of every location. Driven like a [`Shard`](crate::Shard).
#[derive(Debug)]
pub struct Catalog {
    pub(crate) locations: Buckets<Location, PutLocation>,
    pub(crate) location_count: usize,
    pub(crate) requests: RequestMemory<CatalogOutcome>,
    pub(crate) applied: At,
    pub(crate) secret: Secret,
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

/// WGS 84, in millionths of a degree: a float in replicated state invites two answers to one
/// question.
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
    /// No location, in a cluster with this secret.
    pub fn new(secret: Secret) -> Self {
        Self {
            locations: Buckets::new(secret, CATALOG_BUCKETS),
            location_count: 0,
            requests: RequestMemory::new(secret, CATALOG_BUCKETS, REQUEST_MEMORY_BYTES_MAX),
            applied: At::default(),
            secret,
        }
    }

    /// Time passes. Called once for each entry, before its commands.
    pub fn advance(&mut self, moment: Moment) {
        self.applied.moment = moment.not_before(self.applied.stamp());
        self.requests.forget(self.applied.moment);
    }

    /// Carries out one command, or refuses it.
    pub fn apply(&mut self, at: At, command: CatalogCommand) -> CatalogOutcome {
        // As in a shard, stamps never go back.
        let at = At {
            moment: at.moment.not_before(self.applied.stamp()),
            ..at
        };
        self.applied = at;
        let key = RequestKey {
            id: command.request.id,
            principal: command.principal,
        };
        match self
            .requests
            .recall(&key, command.request.fingerprint, at.moment)
        {
            Recall::Answered(outcome) => return *outcome,
            Recall::Refused(refusal) => return CatalogOutcome::Refused(refusal),
            Recall::New => {}
        }
        let known = self.locations.get(&command.put.location).is_some();
        if !known && self.location_count >= LOCATIONS_MAX {
            // Not remembered: a retry may find room.
            return CatalogOutcome::Refused(Refusal::TooManyLocations);
        }
        self.location_count += usize::from(!known);
        self.locations
            .insert(command.put.location.clone(), command.put);
        let outcome = CatalogOutcome::Put;
        self.requests
            .remember(key, command.request, at.moment, outcome);
        outcome
    }

    /// Every location, in the order of their ids.
    pub fn locations(&self) -> impl Iterator<Item = &PutLocation> {
        let mut all: Vec<_> = self.locations.iter().map(|(_, put)| put).collect();
        all.sort_unstable_by(|one, other| one.location.cmp(&other.location));
        all.into_iter()
    }

    /// What is known of one.
    pub fn location(&self, id: &Location) -> Option<&PutLocation> {
        self.locations.get(id)
    }

    /// The stamp of the last entry applied.
    pub fn stamp(&self) -> Stamp {
        self.applied.stamp()
    }

    /// What the last entry applied says of time.
    pub fn moment(&self) -> Moment {
        self.applied.moment
    }

    /// As [`Shard::freeze`](crate::Shard::freeze).
    pub fn freeze(&self) -> FrozenState {
        let mut head = Writer::default();
        self.head().write(&mut head, CATALOG_BUCKETS);
        let slots = (self.locations.share())
            .zip(self.requests.buckets.share())
            .map(|(locations, requests)| Slot::Catalog {
                locations,
                requests,
            });
        FrozenState::new(head, slots)
    }

    fn head(&self) -> CatalogHead {
        CatalogHead {
            applied: self.applied,
            secret: self.secret,
            requests: MemoryHead {
                horizon: self.requests.horizon,
                bytes: self.requests.bytes as u64,
                order: OrderHead::of(&self.requests.order),
            },
            locations: self.location_count as u64,
        }
    }
}

impl Weigh for CatalogOutcome {
    fn bytes(&self) -> usize {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Fingerprint, RequestId};
    use crate::restore::{CatalogRestorer, StateRestorer};

    const NOW: u64 = 1_790_000_000_000;

    /// Puts a location; the fingerprint is of its name.
    fn put(catalog: &mut Catalog, now: u64, request: u32, id: &str, name: &str) -> CatalogOutcome {
        // The higher a request's number, the later it was made.
        let made_at = NOW + u64::from(request / 1_000_000);
        let bits = u128::from(made_at) << 80 | 0x7 << 76 | u128::from(request);
        let at = At {
            index: 1,
            ordinal: 0,
            moment: Stamp(now).into(),
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
        catalog.advance(at.moment);
        catalog.apply(at, command)
    }

    fn names(catalog: &Catalog) -> Vec<&str> {
        catalog.locations().map(|put| put.name.as_str()).collect()
    }

    #[test]
    fn a_location_is_put_and_replaced() {
        let mut catalog = Catalog::new(Secret(1));
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
        let mut catalog = Catalog::new(Secret(1));
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
    fn a_catalog_comes_back_from_its_bytes_and_goes_on() {
        let mut catalog = Catalog::new(Secret(1));
        for number in 0..300 {
            let id = format!("L{}", number * 7 % 200);
            put(&mut catalog, NOW + u64::from(number / 3), number, &id, "a");
        }
        catalog.advance(Stamp(NOW + 600_050).into());
        assert!(catalog.requests.horizon > Stamp(0));
        let mut frozen = catalog.freeze();
        let hash = frozen.hash();
        let mut restorer = CatalogRestorer::new(frozen.head_bytes()).unwrap();
        put(
            &mut catalog,
            NOW + 600_050,
            1_000_900,
            "L3",
            "changed meanwhile",
        );
        for bucket in (0..restorer.buckets()).rev() {
            let bytes = frozen.take_bucket(bucket).unwrap();
            restorer.bucket(bucket, &bytes).unwrap();
        }
        let mut restored = restorer.finish().unwrap();
        assert_eq!(restored.freeze().hash(), hash);
        assert_eq!(frozen.hash(), hash);

        let answer = put(
            &mut restored,
            NOW + 600_050,
            1_000_900,
            "L3",
            "changed meanwhile",
        );
        assert_eq!(answer, CatalogOutcome::Put);
        for catalog in [&mut catalog, &mut restored] {
            catalog.requests.bytes_max = 50 * 128;
            put(catalog, NOW + 600_060, 1_000_901, "M", "b");
            // An earlier stamp counts as the latest.
            put(catalog, NOW, 1_000_902, "N", "c");
        }
        assert_eq!(catalog.stamp(), Stamp(NOW + 600_060));
        assert_eq!(
            restored.freeze().head_bytes(),
            catalog.freeze().head_bytes()
        );
        assert_eq!(restored.freeze().hash(), catalog.freeze().hash());
        assert!(restored.locations().eq(catalog.locations()));
    }

    #[test]
    fn changed_bytes_of_a_catalog_are_an_error_or_another_catalog() {
        let mut catalog = Catalog::new(Secret(1));
        for number in 0..40 {
            put(&mut catalog, NOW, number, &format!("L{number}"), "a");
        }
        let restore = |head: &[u8], bucket: usize, bytes: &[u8]| {
            let frozen = catalog.freeze();
            let mut restorer = CatalogRestorer::new(head)?;
            restorer.bucket(bucket, bytes)?;
            for other in (0..frozen.buckets()).filter(|other| *other != bucket) {
                restorer.bucket(other, &frozen.bucket_bytes(other).unwrap())?;
            }
            restorer.finish()
        };
        let frozen = catalog.freeze();
        let head = frozen.head_bytes();
        let bucket = (0..64).max_by_key(|bucket| frozen.bucket_bytes(*bucket).unwrap().len());
        let bucket = bucket.unwrap();
        let bytes = frozen.bucket_bytes(bucket).unwrap();
        for at in 0..bytes.len() {
            assert!(restore(head, bucket, &bytes[..at]).is_err());
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(other) = restore(head, bucket, &changed) {
                    assert_eq!(other.freeze().bucket_bytes(bucket), Some(changed));
                }
            }
        }
        for at in 0..head.len() {
            assert!(restore(&head[..at], bucket, &bytes).is_err());
            let mut changed = head.to_vec();
            changed[at] ^= 1;
            if let Ok(other) = restore(&changed, bucket, &bytes) {
                assert_eq!(other.freeze().head_bytes(), changed);
            }
        }
    }

    #[test]
    fn past_its_bound_a_catalog_takes_no_more_locations() {
        let mut catalog = Catalog::new(Secret(1));
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
