//! A catalog from its bytes.

use crate::buckets::Table;
use crate::catalog::Catalog;
use crate::codec::{Bucket, CatalogHead};
use crate::error::{Part, RestoreError};
use crate::ids::Stamp;
use crate::limits::CATALOG_BUCKETS;
use crate::memory::{Remembered, RequestKey};
use crate::names::Names;
use crate::order::Place;
use crate::restore::{Given, StateRestorer, check_count, read_part, restored_order};

/// Makes a [`Catalog`].
#[derive(Debug)]
pub struct CatalogRestorer {
    head: CatalogHead,
    given: Given,
    catalog: Catalog,
    requests: Vec<(Place, RequestKey)>,
    names: Names,
}

impl StateRestorer for CatalogRestorer {
    type State = Catalog;

    fn new(head: &[u8]) -> Result<Self, RestoreError> {
        let head = read_part(Part::Head, head, Stamp(u64::MAX), |reader| {
            CatalogHead::read(reader, CATALOG_BUCKETS)
        })?;
        let mut catalog = Catalog::new(head.secret);
        catalog.applied = head.applied;
        catalog.requests.horizon = head.requests.horizon;
        Ok(Self {
            head,
            given: Given::none_of(CATALOG_BUCKETS),
            catalog,
            requests: Vec::new(),
            names: Names::default(),
        })
    }

    fn buckets(&self) -> usize {
        CATALOG_BUCKETS
    }

    fn bucket(&mut self, number: usize, bytes: &[u8]) -> Result<(), RestoreError> {
        self.given.take(number)?;
        let now = self.head.applied.stamp();
        let names = &mut self.names;
        let place = Bucket {
            number,
            buckets: CATALOG_BUCKETS,
            secret: self.head.secret,
        };
        let (locations, requests) = read_part(Part::Bucket(number), bytes, now, |reader| {
            Ok((
                reader.locations(place)?,
                reader.requests(place, names, |reader, _| reader.catalog_outcome())?,
            ))
        })?;
        let places = requests.iter().map(|(key, it)| (it.place, key.clone()));
        self.requests.extend(places);
        let bytes = requests.iter().map(|(_, it)| Remembered::bytes(it));
        self.catalog.requests.bytes += bytes.sum::<usize>();
        self.catalog.location_count += locations.len();
        self.catalog.locations.set(number, locations);
        self.catalog.requests.buckets.set(number, requests);
        Ok(())
    }

    fn finish(mut self) -> Result<Catalog, RestoreError> {
        self.given.check()?;
        let count = self.catalog.location_count;
        check_count("locations", self.head.locations, count)?;
        let (what, bytes) = ("bytes of requests", self.head.requests.bytes);
        check_count(what, bytes, self.catalog.requests.bytes)?;
        let order = restored_order("requests", self.head.requests.order, self.requests)?;
        self.catalog.requests.order = order;
        Ok(self.catalog)
    }
}
