//! What a call has seen of each shard: the header of its answer.

use bytes::Bytes;
use stock_api::time::{stamp, timestamp};
use stock_cluster::GroupId;
use stock_core::Stamp;
use stock_node::answer::Applied;
use stock_proto::stock::v1 as api;

/// The states that a call wrote to or read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// By shard, in ascending order.
    indexes: Vec<api::ShardIndex>,
    time: Stamp,
}

/// Which shard of the API a group is.
pub(super) fn shard_of(group: GroupId) -> u32 {
    group.shard().unwrap_or(api::ShardIndex::META)
}

impl Seen {
    /// What commands of one group came to.
    pub(super) fn of(group: GroupId, applied: &Applied) -> Self {
        let (shard, index) = (shard_of(group), applied.applied_index);
        Self {
            indexes: vec![api::ShardIndex { shard, index }],
            time: applied.stamp,
        }
    }

    /// A group's state after this index.
    pub(super) fn read(group: GroupId, index: u64, time: Stamp) -> Self {
        let mut seen = Self::default();
        seen.read_at(shard_of(group), index, time);
        seen
    }

    /// Something was written at this index. Of several the last one counts: whoever has it has them
    /// all.
    pub(super) fn wrote(&mut self, group: GroupId, index: u64, time: Stamp) {
        let seen = self.place(shard_of(group));
        *seen = (*seen).max(index);
        self.time = self.time.max(time);
    }

    /// Everything was written that another call has written.
    pub(super) fn wrote_all(&mut self, other: &Self) {
        for index in &other.indexes {
            let seen = self.place(index.shard);
            *seen = (*seen).max(index.index);
        }
        self.time = self.time.max(other.time);
    }

    /// Cluster time of what is newest.
    pub(super) fn time(&self) -> Stamp {
        self.time
    }

    /// Something was read of a state that has come so far. Of several the first one counts: all of
    /// them are as new.
    pub(super) fn read_at(&mut self, shard: u32, index: u64, time: Stamp) {
        let seen = self.place(shard);
        *seen = match *seen {
            0 => index,
            before => before.min(index),
        };
        self.time = self.time.max(time);
    }

    /// What another node has read in this one's place.
    pub(super) fn read_elsewhere(&mut self, header: &api::ResponseHeader) {
        let time = header.cluster_time.as_ref().map_or(Stamp(0), stamp);
        for seen in &header.indexes {
            self.read_at(seen.shard, seen.index, time);
        }
    }

    fn place(&mut self, shard: u32) -> &mut u64 {
        let at = self.indexes.binary_search_by_key(&shard, |it| it.shard);
        let at = at.unwrap_or_else(|at| {
            self.indexes.insert(at, api::ShardIndex { shard, index: 0 });
            at
        });
        &mut self.indexes[at].index
    }

    /// As answers begin with it.
    pub(super) fn into_header(self, incarnation: Bytes) -> api::ResponseHeader {
        api::ResponseHeader {
            indexes: self.indexes,
            // Where nothing was written or read, there is no time of it.
            cluster_time: (self.time != Stamp(0)).then(|| timestamp(self.time)),
            incarnation,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_shard_the_last_write_and_the_oldest_read_count() {
        let (stock, meta) = (GroupId::of_shard(7), GroupId::META);
        let mut seen = Seen::default();
        seen.wrote(stock, 5, Stamp(1_500));
        seen.wrote(stock, 9, Stamp(2_750));
        seen.wrote(stock, 8, Stamp(2_000));
        seen.read_at(3, 40, Stamp(10));
        seen.read_at(3, 30, Stamp(10));
        seen.read_at(3, 35, Stamp(10));
        seen.wrote(meta, 2, Stamp(0));
        let header = seen.into_header(Bytes::new());
        let indexes: Vec<_> = header
            .indexes
            .iter()
            .map(|it| (it.shard, it.index))
            .collect();
        assert_eq!(indexes, [(3, 30), (7, 9), (api::ShardIndex::META, 2)]);
        assert_eq!(stamp(&header.cluster_time.unwrap()), Stamp(2_750));
    }
}
