//! A call from its head to the last byte of its answer that leaves: how much it holds, and whether
//! it was given up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::usage::Usage;

/// What a call takes besides its headers and messages: its task, and what the transport keeps of
/// it.
pub(super) const CALL_BYTES: usize = 4 * 1024;

/// A message up to this is a part of [`CALL_BYTES`]: most calls are counted once, and no more.
const SMALL_BYTES: usize = 1024;

/// A message is read, checked, and made something else of before it is gone: while a call is
/// carried out, what it asked for counts twice, and as much again for each of so many parts of
/// it...
const PARTS: usize = 8;
/// ...up to this, since no call takes more items than a few thousand.
const PARTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers and questions of this size keep the node busy for a millisecond or more: the other calls
/// of the connection let everybody else have a turn before they go on.
const LARGE_BYTES: usize = 64 * 1024;

/// One call.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) usage: Arc<Usage>,
    began: std::time::Instant,
    pub(super) deadline: Option<Instant>,
    /// Up to its end.
    held: AtomicUsize,
    /// Its request has come, and was waited for.
    pub(super) came_late: AtomicBool,
    /// A part of its answer was handed to the transport, which has not asked for the next one
    /// since.
    pub(super) is_taken: AtomicBool,
    /// Bytes of its answer that were handed to the transport.
    pub(super) given: AtomicU64,
    is_over: AtomicBool,
}

impl UnderWay {
    pub(super) fn begin(usage: &Arc<Usage>, time: Option<Duration>) -> Arc<Self> {
        usage.begin();
        Arc::new(Self {
            usage: Arc::clone(usage),
            began: std::time::Instant::now(),
            deadline: time.and_then(|time| Instant::now().checked_add(time)),
            held: AtomicUsize::new(0),
            came_late: AtomicBool::new(false),
            is_taken: AtomicBool::new(false),
            given: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        })
    }

    /// Takes what the call needs before anything is known but its headers. `false` if there is no
    /// room.
    pub(super) fn take_place(&self, headers: usize) -> bool {
        let bytes = CALL_BYTES + headers;
        let is_taken = self.usage.share.take_to_begin(bytes);
        if is_taken {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        is_taken
    }

    /// Takes so much more until the call is over. `false` if there is no room.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        let is_held = bytes == 0 || self.usage.share.take(bytes);
        if is_held {
            self.held.fetch_add(bytes, Ordering::Relaxed);
        }
        is_held
    }

    /// Gives back so much of what it took.
    pub(super) fn give_back(&self, bytes: usize) {
        self.usage.share.give_back(bytes);
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// For a request of so many bytes that is the only one of its call.
    pub(super) fn hold_request(&self, bytes: usize) -> bool {
        if bytes >= LARGE_BYTES {
            self.usage.is_heavy();
        }
        bytes <= SMALL_BYTES || self.hold(2 * bytes + PARTS_BYTES_MAX.min(PARTS * bytes))
    }

    /// For an answer, or a message of it: so much is to be given back when it has been taken. None
    /// if there is no room.
    pub(super) fn hold_answer(&self, bytes: usize) -> Option<usize> {
        if bytes >= LARGE_BYTES {
            self.usage.is_heavy();
        }
        let bytes = if bytes <= SMALL_BYTES { 0 } else { bytes };
        self.hold(bytes).then_some(bytes)
    }

    /// Its answer has come to its end.
    pub(super) fn is_over(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.usage.share.give_back(*self.held.get_mut());
        let given_up = !*self.is_over.get_mut();
        self.usage.end(given_up.then_some(self.began));
    }
}

/// A part of an answer. Its call counts for as long as the transport has it.
#[derive(Debug)]
pub(super) struct Part {
    bytes: Bytes,
    call: Arc<UnderWay>,
    /// What is given back with it: the last part of a message has all of it, since parts share
    /// their memory.
    held: usize,
    since: usize,
}

impl Part {
    pub(super) fn new(bytes: Bytes, held: usize, call: &Arc<UnderWay>) -> Self {
        call.is_taken.store(true, Ordering::Relaxed);
        call.given.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Self {
            bytes,
            held,
            since: call.usage.untaken.enter(),
            call: Arc::clone(call),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.call.usage.untaken.leave(self.since);
        if self.held > 0 {
            self.call.give_back(self.held);
        }
    }
}

impl Buf for Part {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

/// What a call with many messages may hold for itself, beside the one that is just coming.
#[derive(Debug, Clone)]
pub struct Hold(Arc<UnderWay>);

impl Hold {
    pub(super) fn new(call: &Arc<UnderWay>) -> Self {
        Self(Arc::clone(call))
    }

    /// Of a call that came over a connection.
    pub fn of(extensions: &http::Extensions) -> Option<Self> {
        extensions.get().cloned()
    }

    /// Takes so much more, up to the end of the call. `false` if there is no room.
    pub fn take(&self, bytes: usize) -> bool {
        self.0.hold(bytes)
    }

    /// Takes what is there already, whether there is room or not.
    pub fn take_anyway(&self, bytes: usize) {
        self.0.usage.share.take_anyway(bytes);
        self.0.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives back so much of what was taken.
    pub fn give_back(&self, bytes: usize) {
        self.0.give_back(bytes);
    }

    /// Whether there is room for any more.
    pub fn has_room(&self) -> bool {
        self.0.usage.share.has_room()
    }
}
