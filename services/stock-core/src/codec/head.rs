//! What belongs to no bucket.

use crate::codec::{Read, Reader, VERSION, Writer};
use crate::error::Flaw;
use crate::ids::{At, Moment, Secret, Stamp};
use crate::order::Order;
use crate::recoveries::Recoveries;

/// The head of a shard. The counts follow from the buckets; that they are here tells when one is
/// not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShardHead {
    pub(crate) applied: At,
    pub(crate) secret: Secret,
    pub(crate) requests: MemoryHead,
    pub(crate) documents: MemoryHead,
    pub(crate) ended: OrderHead,
    pub(crate) ended_bytes: u64,
    pub(crate) open: u64,
    pub(crate) open_bytes: u64,
    pub(crate) parts: u64,
    pub(crate) part_bytes: u64,
    pub(crate) tombstone_bytes: u64,
    pub(crate) skus: u64,
    pub(crate) positions: u64,
    pub(crate) recoveries: Recoveries,
}

/// The head of a catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CatalogHead {
    pub(crate) applied: At,
    pub(crate) secret: Secret,
    pub(crate) requests: MemoryHead,
    pub(crate) locations: u64,
}

/// What a memory knows beyond what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryHead {
    pub(crate) horizon: Stamp,
    /// That what it remembers takes of its room.
    pub(crate) bytes: u64,
    pub(crate) order: OrderHead,
}

/// How many records have an order, and the sequence number of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OrderHead {
    pub(crate) len: u64,
    pub(crate) next: u64,
}

impl OrderHead {
    pub(crate) fn of<K>(order: &Order<K>) -> Self {
        Self {
            len: order.len() as u64,
            next: order.next(),
        }
    }
}

/// The numbers are kept on disk: never change them, never use one again.
const SHARD: u8 = 1;
const CATALOG: u8 = 2;

/// No order counts so far; there is always a next number.
const SEQUENCE_MAX: u64 = u64::MAX >> 1;

impl ShardHead {
    pub(crate) fn write(&self, writer: &mut Writer, buckets: usize) {
        writer.start(SHARD, buckets);
        writer.at(self.applied);
        writer.secret(self.secret);
        writer.memory(self.requests);
        writer.memory(self.documents);
        writer.order(self.ended);
        writer.number(self.ended_bytes);
        writer.number(self.open);
        writer.number(self.open_bytes);
        writer.number(self.skus);
        writer.number(self.positions);
        let of_parts = [self.parts, self.part_bytes, self.tombstone_bytes];
        let is_whole = self.recoveries == Recoveries::default();
        if of_parts != [0; 3] || !is_whole {
            of_parts
                .into_iter()
                .for_each(|number| writer.number(number));
        }
        if !is_whole {
            writer.recoveries(&self.recoveries);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, buckets: usize) -> Read<Self> {
        reader.start(SHARD, buckets)?;
        let mut head = Self {
            applied: reader.at()?,
            secret: reader.secret()?,
            requests: reader.memory()?,
            documents: reader.memory()?,
            ended: reader.order()?,
            ended_bytes: reader.number()?,
            open: reader.number()?,
            open_bytes: reader.number()?,
            skus: reader.number()?,
            positions: reader.number()?,
            parts: 0,
            part_bytes: 0,
            tombstone_bytes: 0,
            recoveries: Recoveries::default(),
        };
        // They stand there only if there are any.
        if !reader.is_empty() {
            head.parts = reader.number()?;
            head.part_bytes = reader.number()?;
            head.tombstone_bytes = reader.number()?;
            if reader.is_empty() && [head.parts, head.part_bytes, head.tombstone_bytes] == [0; 3] {
                return Err(Flaw::TooLong { bytes: 3 });
            }
        }
        if !reader.is_empty() {
            head.recoveries = reader.recoveries()?;
            if head.recoveries == Recoveries::default() {
                return Err(Flaw::TooLong { bytes: 3 });
            }
        }
        Ok(head)
    }
}

impl CatalogHead {
    pub(crate) fn write(&self, writer: &mut Writer, buckets: usize) {
        writer.start(CATALOG, buckets);
        writer.at(self.applied);
        writer.secret(self.secret);
        writer.memory(self.requests);
        writer.number(self.locations);
    }

    pub(crate) fn read(reader: &mut Reader<'_>, buckets: usize) -> Read<Self> {
        reader.start(CATALOG, buckets)?;
        Ok(Self {
            applied: reader.at()?,
            secret: reader.secret()?,
            requests: reader.memory()?,
            locations: reader.number()?,
        })
    }
}

impl Writer {
    fn start(&mut self, kind: u8, buckets: usize) {
        self.tag(VERSION);
        self.tag(kind);
        self.number(buckets as u64);
    }

    fn at(&mut self, at: At) {
        self.number(at.index);
        self.number(u64::from(at.ordinal));
        self.stamp(at.moment.stamp);
        self.stamp(at.moment.wall);
    }

    fn secret(&mut self, secret: Secret) {
        self.fixed(&secret.0.to_be_bytes());
    }

    fn memory(&mut self, memory: MemoryHead) {
        self.stamp(memory.horizon);
        self.number(memory.bytes);
        self.order(memory.order);
    }

    fn order(&mut self, order: OrderHead) {
        self.number(order.len);
        self.number(order.next);
    }
}

impl Reader<'_> {
    fn start(&mut self, kind: u8, buckets: usize) -> Read<()> {
        match self.tag()? {
            VERSION => {}
            version => return Err(Flaw::UnknownVersion { version }),
        }
        match self.tag()? {
            found if found == kind => {}
            tag => {
                let what = "kind of state";
                return Err(Flaw::UnknownTag { what, tag });
            }
        }
        match self.number()? {
            found if found == buckets as u64 => Ok(()),
            found => Err(Flaw::OtherBuckets { found, buckets }),
        }
    }

    fn at(&mut self) -> Read<At> {
        Ok(At {
            index: self.number()?,
            ordinal: self.line()?,
            moment: Moment {
                stamp: self.stamp()?,
                wall: self.stamp()?,
            },
        })
    }

    fn secret(&mut self) -> Read<Secret> {
        Ok(Secret(u64::from_be_bytes(self.fixed()?)))
    }

    fn memory(&mut self) -> Read<MemoryHead> {
        Ok(MemoryHead {
            horizon: self.stamp()?,
            bytes: self.number()?,
            order: self.order()?,
        })
    }

    fn order(&mut self) -> Read<OrderHead> {
        let len = self.number()?;
        match self.number()? {
            next if next <= SEQUENCE_MAX => Ok(OrderHead { len, next }),
            value => {
                let what = "next sequence number";
                Err(Flaw::NumberOutOfRange { what, value })
            }
        }
    }
}
