//! What callers write often, in one line each.

use prost_types::Timestamp;

use crate::stock::v1::{
    AllLocations, Consistency, ErrorReason, Line, PositionKey, ReadOptions, ResponseHeader,
    ShardIndex, line, position_key,
};

impl Line {
    /// So many units of a SKU at a location.
    pub fn at(sku: impl Into<String>, location: impl Into<String>, quantity: i64) -> Self {
        Self {
            sku: sku.into(),
            place: Some(line::Place::Location(location.into())),
            quantity,
        }
    }

    /// The location that it names; empty if it names none.
    pub fn location(&self) -> &str {
        match &self.place {
            Some(line::Place::Location(location)) => location,
            None => "",
        }
    }
}

impl PositionKey {
    /// A SKU at a location.
    pub fn at(sku: impl Into<String>, location: impl Into<String>) -> Self {
        Self {
            sku: sku.into(),
            place: Some(position_key::Place::Location(location.into())),
        }
    }

    /// A SKU at every location that has a position of it.
    pub fn everywhere(sku: impl Into<String>) -> Self {
        Self {
            sku: sku.into(),
            place: Some(position_key::Place::AllLocations(AllLocations {})),
        }
    }
}

impl ResponseHeader {
    /// The index of a shard; 0 if it was not touched.
    pub fn index_of(&self, shard: u32) -> u64 {
        let mut indexes = self.indexes.iter();
        let found = indexes.find(|it| it.shard == shard);
        found.map_or(0, |found| found.index)
    }
}

impl ResponseHeader {
    /// This header and another one: what both have seen.
    pub fn join(&mut self, other: Self) {
        for seen in other.indexes {
            match self
                .indexes
                .binary_search_by_key(&seen.shard, |it| it.shard)
            {
                Ok(at) => self.indexes[at].index = self.indexes[at].index.max(seen.index),
                Err(at) => self.indexes.insert(at, seen),
            }
        }
        let time = |header: &Option<Timestamp>| header.map(|at| (at.seconds, at.nanos));
        if time(&self.cluster_time) < time(&other.cluster_time) {
            self.cluster_time = other.cluster_time;
        }
        self.incarnation = other.incarnation;
    }
}

impl ReadOptions {
    /// States as new as every answer anyone had received when the question was asked.
    pub fn linearizable() -> Self {
        Self {
            consistency: Consistency::Linearizable.into(),
            ..Self::default()
        }
    }

    /// States that have seen what an answer with this header has seen.
    pub fn at_least(header: &ResponseHeader) -> Self {
        Self {
            at_least: header.indexes.clone(),
            incarnation: header.incarnation.clone(),
            ..Self::default()
        }
    }
}

impl ShardIndex {
    /// The number of the group that keeps locations and membership.
    pub const META: u32 = u32::MAX;
}

impl ErrorReason {
    /// As it stands in a `google.rpc.ErrorInfo`: without the name of the enum.
    pub fn text(self) -> &'static str {
        let name = self.as_str_name();
        name.strip_prefix("ERROR_REASON_").unwrap_or(name)
    }

    /// Reads what [`Self::text`] says; unspecified where that is no known reason.
    pub fn from_text(text: &str) -> Self {
        Self::from_str_name(&format!("ERROR_REASON_{text}")).unwrap_or(Self::Unspecified)
    }
}
