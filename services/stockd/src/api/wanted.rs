//! How new the states must be that a read is answered from.

use std::collections::BTreeMap;

use stock_node::answer::Freshness;
use stock_proto::stock::v1 as api;

use stock_api::fields::Fields;

/// Indexes of one call: two for each shard that there can be.
const INDEXES_MAX: usize = 8_192;

/// Bytes of an incarnation.
const INCARNATION_BYTES: usize = 16;

/// What a read's options ask for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    everywhere: Freshness,
    at_least: &'a [api::ShardIndex],
    /// The life that the indexes are of; empty where there are none.
    pub(super) incarnation: &'a [u8],
}

impl<'a> Wanted<'a> {
    /// As a call says it, of a cluster with so many shards.
    pub(super) fn check(
        fields: &mut Fields,
        read: Option<&'a api::ReadOptions>,
        shards: u32,
    ) -> Option<Self> {
        let Some(read) = read else {
            return Some(Self {
                everywhere: Freshness::Near,
                at_least: &[],
                incarnation: &[],
            });
        };
        let everywhere = match api::Consistency::try_from(read.consistency) {
            Ok(api::Consistency::Linearizable) => Some(Freshness::LINEARIZABLE),
            Ok(api::Consistency::Unspecified | api::Consistency::Near) => Some(Freshness::Near),
            Err(_) => {
                let why = format!("is {}, which is not known", read.consistency);
                fields.refuse("read.consistency", why);
                None
            }
        };
        let indexes = read.at_least.len();
        let mut is_good = indexes <= INDEXES_MAX;
        if !is_good {
            let why = format!("has {indexes} indexes; at most {INDEXES_MAX} are allowed");
            fields.refuse("read.at_least", why);
        }
        for (number, at_least) in read.at_least.iter().enumerate().take(INDEXES_MAX) {
            if at_least.shard >= shards && at_least.shard != api::ShardIndex::META {
                is_good = false;
                let field = format!("read.at_least[{number}].shard");
                let why = format!("is {}; this cluster has {shards} shards", at_least.shard);
                fields.refuse(&field, why);
            }
        }
        let incarnation_bytes = read.incarnation.len();
        let is_needed = !read.at_least.is_empty();
        if incarnation_bytes != INCARNATION_BYTES && (is_needed || incarnation_bytes > 0) {
            is_good = false;
            let why = format!(
                "has {incarnation_bytes} bytes; it must be that of the header which told \
                 `at_least`: {INCARNATION_BYTES} bytes"
            );
            fields.refuse("read.incarnation", why);
        }
        is_good.then_some(Self {
            everywhere: everywhere?,
            at_least: &read.at_least,
            incarnation: &read.incarnation,
        })
    }

    /// How new the states of these shards must be; those that may be as they are, are left out.
    pub(super) fn of_shards(&self, shards: impl Iterator<Item = u32>) -> BTreeMap<u32, Freshness> {
        if self.is_near() {
            return BTreeMap::new();
        }
        let mut wanted: BTreeMap<u32, Freshness> =
            shards.map(|shard| (shard, self.everywhere)).collect();
        for at_least in self.at_least {
            // What nobody asks for need not be waited for.
            if let Some(freshness) = wanted.get_mut(&at_least.shard) {
                *freshness = freshness.and_at_least(at_least.index);
            }
        }
        wanted.retain(|_, freshness| *freshness != Freshness::Near);
        wanted
    }

    /// How new the state of a shard must be.
    pub(super) fn of_shard(&self, shard: u32) -> Freshness {
        let of_shard = self.at_least.iter().filter(|it| it.shard == shard);
        let least = of_shard.map(|it| it.index).max().unwrap_or(0);
        self.everywhere.and_at_least(least)
    }

    /// Whether any state will do.
    fn is_near(&self) -> bool {
        self.everywhere == Freshness::Near && self.at_least.is_empty()
    }
}
