//! Every bound of the state machine, with its reason. They are part of the replicated rules: two
//! nodes with different values would come to different states, so none of them is configurable.

/// Longest identifier, in bytes. GTIN, GLN, UUID and house codes fit.
pub const IDENTIFIER_BYTES_MAX: usize = 64;

/// Largest quantity of one line, in the SKU's base unit.
pub const QUANTITY_MAX: i64 = 1_000_000_000;

/// Largest magnitude of a position's counter. A million movements of the largest quantity fit, and
/// sums of a few counters stay far inside `i64`.
pub const COUNTER_MAX: i64 = 1_000_000_000_000_000;

/// Lines of a basket. Of 155,848 real ones (the dunnhumby year) the largest has 161.
pub const LINES_MAX: usize = 256;

/// Shortest and longest time to live of a hold, and of a pickup deadline.
pub const TTL_MS_MIN: u64 = 1_000;
/// See [`TTL_MS_MIN`].
pub const TTL_MS_MAX: u64 = 7 * 24 * 3_600 * 1_000;
/// A hold's time to live where the caller names none.
pub const TTL_MS_DEFAULT: u64 = 15 * 60 * 1_000;

/// Buckets of a shard's state. Fixed, so that nothing ever rehashes, and many, so that the copying
/// or hashing of one is short: at ten million positions over eight shards a bucket holds about 300.
pub const BUCKETS: usize = 4_096;

/// Buckets of a catalog's state: at most some 1,600 locations in one.
pub const CATALOG_BUCKETS: usize = 64;

/// Holds that one entry expires before its commands are applied. What is left is due for the next
/// entry, which the leader then proposes at once: a million holds that end together delay no
/// command by more than this many.
pub const EXPIRIES_PER_ENTRY_MAX: usize = 512;

/// How long a request id is remembered.
pub const REQUEST_MEMORY_MS: u64 = 10 * 60 * 1_000;
/// Bytes that a shard's request ids and their answers may take: four million answers as short as
/// most are. Past this the oldest are forgotten early...
pub const REQUEST_MEMORY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What one request takes of it without its answer: in its bucket, in the order, and what
/// allocators need for it.
pub const REQUEST_BYTES: usize = 128;
/// ...but never ones younger than this: then new requests are refused instead.
pub const REQUEST_MEMORY_MS_MIN: u64 = 60 * 1_000;
/// How far the time inside a request id may lie ahead of both cluster time and the nodes' wall
/// clocks. Callers' clocks differ; an id from further ahead would outlive its memory. A movement
/// that lies further ahead is remarked on.
pub const CLOCK_AHEAD_MS_MAX: u64 = 60 * 1_000;
/// How far a movement's `occurred_at` may lie ahead of them. The goods have moved, so a till's
/// clock that runs ahead is no reason to refuse it: it is taken to have happened now. What claims
/// to be of next week is a mistake.
pub const OCCURRED_AHEAD_MS_MAX: u64 = 24 * 3_600 * 1_000;
/// How far callers' clocks are followed where cluster time lags behind the nodes' wall clocks: 45
/// days.
pub const WALL_AHEAD_MS_MAX: u64 = 45 * 24 * 3_600 * 1_000;
/// Things forgotten while one entry is applied. More than the commands of an entry (1,024), so that
/// forgetting keeps up.
pub const FORGOTTEN_PER_ENTRY_MAX: usize = 2_048;

/// How long a document's lines are remembered. What happened longer ago is refused: whether it was
/// recorded before could not be told.
pub const DOCUMENT_MEMORY_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// Bytes that a shard's document lines may take, with what was found amiss when they were recorded:
/// some 16 million lines. None is forgotten for want of room. Past this receipts and adjustments
/// are refused, which whoever sent them keeps...
pub const DOCUMENT_BYTES_MAX: usize = 768 * 1024 * 1024;
/// ...and past this sales: nobody can take a sale back, so they have room that is their own.
pub const SALE_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Of both, bytes that what was amiss may take with the reservations that it endangered. Past this
/// it is remembered how much was missing, and not whom that endangered.
pub const ENDANGERED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a reservation can be looked up after it has ended.
pub const ENDED_RESERVATION_MS: u64 = 24 * 3_600 * 1_000;
/// Bytes that a shard's ended reservations may take; past this the oldest are dropped early.
pub const ENDED_RESERVATION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that a shard's open reservations may take: four million of one line. Past this what adds
/// to them is refused.
pub const OPEN_RESERVATION_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How long after the edge asked for a basket over several shards its lines may still be held, and
/// how far ahead of the nodes' clocks the edge's may be. So long it is remembered what was refused.
pub const ASKED_WITHIN_MS: u64 = 60 * 1_000;
/// Bytes that a shard's tombstones may take, of parts that will never be held: half a million of
/// them. Past this no further part is held, and none refused for good, until a minute has passed.
pub const TOMBSTONE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// When a participant that heard nothing asks home what became of a part.
pub const ASK_AFTER_MS: u64 = 2_000;
/// When it asks about a part that does not end by itself, or did not: in case home has lost it.
pub const ASK_AGAIN_MS: u64 = 24 * 3_600 * 1_000;
/// How long after the end of a hold a participant asks home what became of it.
pub const ASK_OVERDUE_MS: u64 = 5_000;
/// Versions of a reservation that are kept free for each recovery of its home's group. What home
/// decides after it comes after everything that it may have decided before.
pub const VERSIONS_PER_RECOVERY: u32 = 1 << 20;
/// A basket over several shards that is undecided for so long was left behind by whoever asked for
/// it. Others wait a little for what it holds to come back, or not.
pub const LEFT_BEHIND_MS: u64 = 500;
/// Reservations at a position of which it is looked whether they are undecided, when a basket over
/// several shards is short there: those held last.
pub const UNDECIDED_LOOKED_AT_MAX: usize = 64;
/// Positions of a shard; past this a movement or policy that needs a new one is refused.
pub const POSITIONS_MAX: usize = 16 * 1024 * 1024;
/// Locations of a cluster.
pub const LOCATIONS_MAX: usize = 100_000;

/// Reservations that are named as endangered at one position, by one command.
pub const ENDANGERED_MAX: usize = 100;
/// Reservations that one command names as endangered, over all positions; and that one call's
/// answer names, in the order of its lines. Looking for them takes time on every replica, and
/// telling them room in an answer.
pub const ENDANGERED_PER_CALL_MAX: usize = 1_000;
