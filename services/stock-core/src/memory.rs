//! What makes a retry harmless: remembered requests. For documents see `documents.rs`.

use crate::buckets::{Buckets, Key};
use crate::command::Request;
use crate::ids::{Fingerprint, Moment, Principal, RequestId, Secret, Stamp};
use crate::limits::{
    CLOCK_AHEAD_MS_MAX, FORGOTTEN_PER_ENTRY_MAX, REQUEST_BYTES, REQUEST_MEMORY_MS,
    REQUEST_MEMORY_MS_MIN,
};
use crate::order::{Order, Place};
use crate::outcome::Refusal;
use crate::timeline::Timeline;

/// Ids are unique for each caller only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    pub(crate) id: RequestId,
    pub(crate) principal: Principal,
}

impl Key for RequestKey {
    fn bucket(&self, secret: Secret, buckets: usize) -> usize {
        self.id.bucket(secret, buckets)
    }
}

/// What is remembered of an answer.
pub(crate) trait Weigh {
    /// Bytes that it takes beyond its own size, about: of replicated rules, so not what an
    /// allocator says.
    fn bytes(&self) -> usize;
}

#[derive(Debug, Clone)]
pub(crate) struct Remembered<V> {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) place: Place,
    pub(crate) verdict: V,
}

/// What is known of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Recall<'a, V> {
    /// It was answered; this was the verdict.
    Answered(&'a V),
    /// It is new and may be carried out.
    New,
    /// It may not be carried out.
    Refused(Refusal),
}

/// Verdicts by request, for [`REQUEST_MEMORY_MS`].
///
/// An id is forgotten in the order of stamps, but its age is judged by the time inside it. So the
/// horizon is the latest time inside any id forgotten: whatever is older is refused, and no id can
/// be carried out twice.
#[derive(Debug, Clone)]
pub(crate) struct RequestMemory<V> {
    pub(crate) buckets: Buckets<RequestKey, Remembered<V>, Timeline<RequestKey, Remembered<V>>>,
    pub(crate) order: Order<RequestKey>,
    pub(crate) horizon: Stamp,
    pub(crate) bytes: usize,
    pub(crate) bytes_max: usize,
}

impl<V: Clone + Weigh> Remembered<V> {
    pub(crate) fn bytes(&self) -> usize {
        REQUEST_BYTES + self.verdict.bytes()
    }
}

impl<V: Clone + Weigh> RequestMemory<V> {
    pub(crate) fn new(secret: Secret, buckets: usize, bytes_max: usize) -> Self {
        Self {
            buckets: Buckets::new(secret, buckets),
            order: Order::new(),
            horizon: Stamp(0),
            bytes: 0,
            bytes_max,
        }
    }

    pub(crate) fn recall(
        &self,
        key: &RequestKey,
        fingerprint: Fingerprint,
        now: Moment,
    ) -> Recall<'_, V> {
        if let Some(remembered) = self.buckets.get(key) {
            return if remembered.fingerprint != fingerprint {
                Recall::Refused(Refusal::RequestReused)
            } else {
                Recall::Answered(&remembered.verdict)
            };
        }
        let made_at = key.id.made_at();
        if made_at < self.horizon {
            return Recall::Refused(Refusal::RequestTooOld {
                horizon: self.horizon,
            });
        }
        if made_at > now.latest().plus_ms(CLOCK_AHEAD_MS_MAX) {
            return Recall::Refused(Refusal::RequestFromFuture);
        }
        if self.is_full() && !self.may_forget_oldest_early(now) {
            return Recall::Refused(Refusal::RequestMemoryFull);
        }
        Recall::New
    }

    /// Makes room first by forgetting what may be forgotten early. Where that is not enough the
    /// answer is remembered all the same: it was given, and the next one finds that there is no
    /// room.
    pub(crate) fn remember(&mut self, key: RequestKey, request: Request, now: Moment, verdict: V) {
        while self.is_full() && self.may_forget_oldest_early(now) && self.order.len() > 0 {
            self.forget_oldest();
        }
        let remembered = Remembered {
            fingerprint: request.fingerprint,
            place: self.order.push(now.stamp, key.clone()),
            verdict,
        };
        self.bytes += remembered.bytes();
        self.buckets.insert(key, remembered);
    }

    /// Remembers another answer in place of one that is as said.
    pub(crate) fn replace(
        &mut self,
        key: &RequestKey,
        verdict: V,
        is_replaced: impl FnOnce(&V) -> bool,
    ) {
        let known = self.buckets.get(key);
        if known.is_some_and(|known| is_replaced(&known.verdict))
            && let Some(known) = self.buckets.get_mut(key)
        {
            self.bytes -= known.bytes();
            known.verdict = verdict;
            self.bytes += known.bytes();
        }
    }

    /// Forgets what is older than it need be remembered. An id whose time has not come yet, as
    /// after clocks were wrong for a while, is remembered once more: forgotten, it would have
    /// everybody's ids refused until its time.
    pub(crate) fn forget(&mut self, now: Moment) {
        let keep_from = now.stamp.minus_ms(REQUEST_MEMORY_MS);
        let ahead = now.latest().plus_ms(CLOCK_AHEAD_MS_MAX);
        for _ in 0..FORGOTTEN_PER_ENTRY_MAX {
            match self.order.oldest() {
                Some((stamp, key)) if *stamp < keep_from => match key.id.made_at() > ahead {
                    true => self.remember_oldest_again(now.stamp),
                    false => self.forget_oldest(),
                },
                _ => break,
            }
        }
    }

    fn remember_oldest_again(&mut self, now: Stamp) {
        if let Some(key) = self.order.pop() {
            let place = self.order.push(now, key.clone());
            if let Some(remembered) = self.buckets.get_mut(&key) {
                remembered.place = place;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// Whether the horizon stays a minute behind when the oldest id is forgotten before its time.
    /// The time inside an id may lie ahead of its stamp, and it is that time which moves the
    /// horizon.
    fn may_forget_oldest_early(&self, now: Moment) -> bool {
        self.order.oldest().is_none_or(|(stamp, key)| {
            stamp.plus_ms(REQUEST_MEMORY_MS_MIN) <= now.stamp
                && key.id.made_at().plus_ms(REQUEST_MEMORY_MS_MIN) <= now.latest()
        })
    }

    fn forget_oldest(&mut self) {
        if let Some(key) = self.order.pop() {
            self.horizon = self.horizon.max(key.id.made_at().plus_ms(1));
            self.bytes -= self.buckets.get(&key).map_or(0, Remembered::bytes);
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000_000;

    fn key(made_at: u64, n: u8) -> RequestKey {
        let mut bytes = [n; 16];
        bytes[..6].copy_from_slice(&made_at.to_be_bytes()[2..]);
        bytes[6] = 0x70;
        RequestKey {
            id: RequestId::new(bytes).unwrap(),
            principal: Principal::new("web").unwrap(),
        }
    }

    /// Takes nothing beyond its own size.
    impl Weigh for u8 {
        fn bytes(&self) -> usize {
            0
        }
    }

    fn memory(requests_max: usize) -> RequestMemory<u8> {
        RequestMemory::new(Secret(1), 4, requests_max * REQUEST_BYTES)
    }

    fn remember(memory: &mut RequestMemory<u8>, key: &RequestKey, now: u64, verdict: u8) {
        let request = Request {
            id: key.id,
            fingerprint: Fingerprint([1; 8]),
        };
        memory.remember(key.clone(), request, Stamp(now).into(), verdict);
    }

    fn recall(memory: &RequestMemory<u8>, key: &RequestKey, now: u64) -> Recall<'static, u8> {
        recall_at(memory, key, Stamp(now).into())
    }

    fn recall_at(memory: &RequestMemory<u8>, key: &RequestKey, now: Moment) -> Recall<'static, u8> {
        match memory.recall(key, Fingerprint([1; 8]), now) {
            Recall::Answered(verdict) => Recall::Answered(Box::leak(Box::new(*verdict))),
            Recall::New => Recall::New,
            Recall::Refused(refusal) => Recall::Refused(refusal),
        }
    }

    #[test]
    fn a_forgotten_id_is_refused_even_when_its_clock_ran_ahead() {
        let mut memory = memory(100);
        let ahead = key(NOW + CLOCK_AHEAD_MS_MAX, 1);
        assert_eq!(recall(&memory, &ahead, NOW), Recall::New);
        remember(&mut memory, &ahead, NOW, 7);
        assert_eq!(recall(&memory, &ahead, NOW + 1), Recall::Answered(&7));

        let later = NOW + REQUEST_MEMORY_MS + 1;
        memory.forget(Stamp(later).into());
        assert_eq!(memory.len(), 0);
        let horizon = Stamp(NOW + CLOCK_AHEAD_MS_MAX + 1);
        assert_eq!(
            recall(&memory, &ahead, later),
            Recall::Refused(Refusal::RequestTooOld { horizon })
        );
        assert_eq!(recall(&memory, &key(horizon.0, 2), later), Recall::New);
    }

    #[test]
    fn an_id_from_too_far_ahead_is_refused() {
        let memory = memory(100);
        let ahead = key(NOW + CLOCK_AHEAD_MS_MAX + 1, 1);
        assert_eq!(
            recall(&memory, &ahead, NOW),
            Recall::Refused(Refusal::RequestFromFuture)
        );
    }

    #[test]
    fn while_cluster_time_lags_ids_are_judged_by_the_nodes_wall_clocks() {
        let hours = 3 * 3_600_000;
        let mut memory = memory(1);
        let lagging = |ms| Moment {
            stamp: Stamp(NOW + ms),
            wall: Stamp(NOW + hours + ms),
        };
        let made = key(NOW + hours, 1);
        assert_eq!(recall_at(&memory, &made, lagging(0)), Recall::New);
        let ahead = key(NOW + hours + CLOCK_AHEAD_MS_MAX + 1, 2);
        assert_eq!(
            recall_at(&memory, &ahead, lagging(0)),
            Recall::Refused(Refusal::RequestFromFuture)
        );
        // A full memory makes room as it does otherwise, and the horizon stays behind what comes
        // next.
        remember(&mut memory, &made, NOW, 1);
        let full = Recall::Refused(Refusal::RequestMemoryFull);
        let next = |ms| key(NOW + hours + ms, 3);
        let early = REQUEST_MEMORY_MS_MIN - 1;
        assert_eq!(recall_at(&memory, &next(early), lagging(early)), full);
        let later = REQUEST_MEMORY_MS_MIN;
        assert_eq!(
            recall_at(&memory, &next(later), lagging(later)),
            Recall::New
        );
    }

    #[test]
    fn an_id_that_was_taken_while_clocks_were_wrong_refuses_nobody_when_they_are_right_again() {
        let hours = 3 * 3_600_000;
        let mut memory = memory(9);
        let wrong = Moment {
            stamp: Stamp(NOW),
            wall: Stamp(NOW + hours),
        };
        let early = key(NOW + hours, 1);
        assert_eq!(recall_at(&memory, &early, wrong), Recall::New);
        remember(&mut memory, &early, NOW, 7);
        remember(&mut memory, &key(NOW, 2), NOW, 8);
        for minutes in [11, 22, 33] {
            let now = NOW + minutes * 60_000;
            memory.forget(Stamp(now).into());
            assert_eq!(recall(&memory, &key(now, 3), now), Recall::New);
            assert_eq!(recall(&memory, &early, now), Recall::Answered(&7));
        }
        assert_eq!(memory.len(), 1);
        // Its time has come: it is forgotten as any other, and not taken again.
        let later = NOW + hours + REQUEST_MEMORY_MS + 1;
        memory.forget(Stamp(later).into());
        assert_eq!((memory.len(), memory.bytes), (0, 0));
        let horizon = Stamp(NOW + hours + 1);
        assert_eq!(
            recall(&memory, &early, later),
            Recall::Refused(Refusal::RequestTooOld { horizon })
        );
    }

    #[test]
    fn a_full_memory_forgets_the_oldest_but_never_a_young_one() {
        let mut memory = memory(2);
        remember(&mut memory, &key(NOW, 1), NOW, 1);
        remember(&mut memory, &key(NOW, 2), NOW, 2);
        let full = Recall::Refused(Refusal::RequestMemoryFull);
        assert_eq!(
            recall(&memory, &key(NOW + 5, 3), NOW + REQUEST_MEMORY_MS_MIN - 1),
            full
        );
        let later = NOW + REQUEST_MEMORY_MS_MIN;
        assert_eq!(recall(&memory, &key(later, 3), later), Recall::New);
        remember(&mut memory, &key(later, 3), later, 3);
        assert_eq!(memory.len(), 2);
        assert_eq!(recall(&memory, &key(NOW, 2), later), Recall::Answered(&2));
        assert!(matches!(
            recall(&memory, &key(NOW, 1), later),
            Recall::Refused(Refusal::RequestTooOld { .. })
        ));
    }

    #[test]
    fn a_full_memory_keeps_a_minute_of_ids_whose_clock_ran_ahead() {
        let mut memory = memory(1);
        remember(&mut memory, &key(NOW + CLOCK_AHEAD_MS_MAX, 1), NOW, 1);
        let later = NOW + CLOCK_AHEAD_MS_MAX + REQUEST_MEMORY_MS_MIN;
        assert_eq!(
            recall(&memory, &key(later - 1, 2), later - 1),
            Recall::Refused(Refusal::RequestMemoryFull)
        );
        assert_eq!(recall(&memory, &key(later, 2), later), Recall::New);
        remember(&mut memory, &key(later, 2), later, 2);
        assert_eq!(memory.horizon, Stamp(NOW + CLOCK_AHEAD_MS_MAX + 1));
    }
}
