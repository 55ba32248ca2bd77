//! What a client has seen of one node itself: whether its calls go there, and when it is probed.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The first probe of a node that was lost comes after this, and each further one after twice as
/// long.
const PROBE_AFTER_FIRST: Duration = Duration::from_millis(50);

/// The longest time between two probes of a lost node while there are others to ask: so long it may
/// be back before it is noticed.
pub const PROBE_AFTER_MAX: Duration = Duration::from_secs(5);

/// The same where there are none: calls wait for the first one that is back.
const PROBE_AFTER_ALONE: Duration = Duration::from_millis(500);

/// The least time between two doubts of a node that answers its probes: calls that take long since
/// its disk is slow make it no suspect.
pub const DOUBT_EVERY: Duration = Duration::from_millis(500);

/// A call that waits longer than this for its answer makes its node doubted: answers take a
/// millisecond.
pub const PATIENCE_MIN: Duration = Duration::from_millis(50);

/// The same, where the network is slow: so many times as long as a node takes to say what it knows.
const PATIENCE_TIMES: u32 = 4;

/// What is known of one node, by what came of calls and probes.
#[derive(Debug, Clone)]
pub struct Standing {
    trust: Trust,
    /// Probes that failed, one after the other.
    failed: u32,
    /// When the next probe is due, where one is to come.
    probe_at: Duration,
    is_probed: bool,
    /// It was to be doubted too soon after the last time, and will be.
    is_to_be_doubted: bool,
    /// When it was last doubted.
    doubted_at: Option<Duration>,
    /// How long it takes to say what it knows, smoothed.
    latency: Duration,
    /// Until then others are asked what any may answer.
    slow_until: Duration,
    /// Until then others are asked, whatever it is.
    silent_until: Duration,
}

/// A node that was slower than one that was asked later is asked again after this: it may be cut
/// off from those that have what is new.
const SLOW_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Calls go to it.
    Trusted,
    /// A call has waited for long: until a probe tells, others are asked what any may answer.
    Doubted,
    /// It was not reached, or not yet: no call goes to it until a probe is answered.
    Lost,
    /// It is of another cluster, or no stockd at all.
    Stranger,
}

impl Standing {
    /// Of a node that a node of the cluster says it reaches. It is taken to answer as quickly as
    /// that one.
    pub fn introduced(latency: Duration) -> Self {
        Self {
            trust: Trust::Trusted,
            failed: 0,
            probe_at: Duration::ZERO,
            is_probed: false,
            is_to_be_doubted: false,
            doubted_at: None,
            latency,
            slow_until: Duration::ZERO,
            silent_until: Duration::ZERO,
        }
    }

    /// Of one that nobody has reached yet: it is probed at once.
    pub fn unknown() -> Self {
        Self {
            trust: Trust::Lost,
            ..Self::introduced(Duration::ZERO)
        }
    }

    /// Whether calls may go to it.
    pub fn takes_calls(&self) -> bool {
        matches!(self.trust, Trust::Trusted | Trust::Doubted)
    }

    /// Whether others are asked what any may answer, while a probe is under way.
    pub fn is_doubted(&self) -> bool {
        self.trust == Trust::Doubted
    }

    /// Whether others are asked rather what any may answer.
    pub fn is_slow(&self, now: Duration) -> bool {
        self.slow_until > now
    }

    /// Whether others are asked rather, though it answers its probes.
    pub fn is_silent(&self, now: Duration) -> bool {
        self.silent_until > now
    }

    /// It was silent for as long as an attempt may take, and then another node has answered.
    pub fn was_silent(&mut self, now: Duration) {
        self.silent_until = now + SLOW_FOR;
    }

    /// Another node has answered, which was asked later.
    pub fn was_slower(&mut self, now: Duration) {
        self.slow_until = now + SLOW_FOR;
    }

    /// Whether all that is known of it speaks for it.
    pub fn is_trusted(&self) -> bool {
        self.trust == Trust::Trusted
    }

    /// How long it takes to say what it knows; zero where it has not been asked yet.
    pub fn latency(&self) -> Duration {
        self.latency
    }

    /// How long a call waits for it before it is doubted.
    pub fn patience(&self) -> Duration {
        (self.latency * PATIENCE_TIMES).max(PATIENCE_MIN)
    }

    /// It has answered a call.
    pub fn answered(&mut self) {
        self.trust = Trust::Trusted;
        self.failed = 0;
        self.is_to_be_doubted = false;
    }

    /// A call has waited for longer than its patience, or was given up by its caller before. `true`
    /// if the node is to be probed on that account, now or when it may be doubted again.
    pub fn doubt(&mut self, now: Duration) -> bool {
        if self.trust != Trust::Trusted {
            return false;
        }
        let again_at = self.doubted_at.map_or(now, |at| at + DOUBT_EVERY);
        if again_at > now {
            self.is_to_be_doubted = true;
            self.probe_at = again_at;
        } else {
            self.begin_doubt(now);
        }
        true
    }

    fn begin_doubt(&mut self, now: Duration) {
        self.trust = Trust::Doubted;
        self.is_to_be_doubted = false;
        self.doubted_at = Some(now);
        self.probe_at = now;
    }

    /// Its connection broke or came to nothing. `true` if it was not lost before.
    pub fn lost(&mut self, now: Duration, chance: &mut impl Rng) -> bool {
        if !self.takes_calls() {
            return false;
        }
        self.trust = Trust::Lost;
        self.probe_later(now, chance);
        true
    }

    /// What answers there is no node of the cluster: it is probed on, in case one comes back.
    pub fn is_of_no_node(&mut self, now: Duration, chance: &mut impl Rng) -> bool {
        let was_one = self.trust != Trust::Stranger;
        self.trust = Trust::Stranger;
        self.is_probed = false;
        self.probe_later(now, chance);
        was_one
    }

    /// When it is to be probed, if it is.
    pub fn probe_at(&self) -> Option<Duration> {
        let is_to_come = !self.is_trusted() || self.is_to_be_doubted;
        (is_to_come && !self.is_probed).then_some(self.probe_at)
    }

    /// Begins a probe, if one is due and none is under way.
    pub fn begin_probe(&mut self, now: Duration) -> bool {
        let is_due = self.probe_at().is_some_and(|at| at <= now);
        if is_due && self.is_to_be_doubted {
            self.begin_doubt(now);
        }
        self.is_probed |= is_due;
        is_due
    }

    /// It has said what it knows within so long.
    pub fn took(&mut self, latency: Duration) {
        self.latency = match self.latency {
            Duration::ZERO => latency,
            before => (before * 7 + latency) / 8,
        };
    }

    /// The probe was answered.
    pub fn probe_answered(&mut self) {
        self.is_probed = false;
        self.answered();
    }

    /// The probe was not answered. `true` if calls went to the node until now.
    pub fn probe_failed(&mut self, now: Duration, chance: &mut impl Rng) -> bool {
        self.is_probed = false;
        // Somebody was answered meanwhile.
        if self.is_trusted() {
            return false;
        }
        let took_calls = self.takes_calls();
        if took_calls {
            self.trust = Trust::Lost;
        }
        self.probe_later(now, chance);
        took_calls
    }

    /// The probe under way was given up and says nothing.
    pub fn probe_dropped(&mut self) {
        self.is_probed = false;
    }

    /// Somebody who would know says that it is reached: it is probed soon.
    pub fn is_said_to_be_back(&mut self, now: Duration) {
        if self.trust == Trust::Lost {
            self.probe_at = self.probe_at.min(now + PROBE_AFTER_FIRST);
        }
    }

    /// There is nobody else to ask: it is probed soon.
    pub fn hasten(&mut self, now: Duration, chance: &mut impl Rng) {
        let step = PROBE_AFTER_ALONE;
        let soon = now + chance.random_range(step / 2..=step);
        if !self.takes_calls() {
            self.probe_at = self.probe_at.min(soon);
        }
    }

    fn probe_later(&mut self, now: Duration, chance: &mut impl Rng) {
        let step = PROBE_AFTER_FIRST * 2_u32.saturating_pow(self.failed.min(10));
        let step = step.min(PROBE_AFTER_MAX);
        self.failed = self.failed.saturating_add(1);
        self.is_to_be_doubted = false;
        // Between half and all of it, so that clients that lost a node together do not come back
        // together.
        self.probe_at = now + chance.random_range(step / 2..=step);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn chance() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    fn trusted() -> Standing {
        Standing::introduced(Duration::from_millis(1))
    }

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_doubted_node_is_probed_at_once_and_takes_calls_until_the_probe_fails() {
        let mut node = trusted();
        assert!(node.doubt(NOW));
        assert!(node.takes_calls() && node.is_doubted());
        assert!(node.begin_probe(NOW));
        assert!(!node.begin_probe(NOW), "one at a time");
        assert!(node.probe_failed(NOW, &mut chance()));
        assert!(!node.takes_calls());
    }

    #[test]
    fn a_slow_node_that_answers_its_probes_is_not_doubted_again_and_again() {
        let mut node = trusted();
        assert!(node.doubt(NOW));
        assert!(node.begin_probe(NOW));
        node.probe_answered();
        assert!(node.is_trusted());
        let soon = NOW + DOUBT_EVERY / 2;
        assert!(node.doubt(soon));
        assert!(node.is_trusted() && !node.begin_probe(soon), "later");
        node.answered();
        assert_eq!(node.probe_at(), None, "it has answered meanwhile");
    }

    #[test]
    fn a_call_that_waits_soon_after_another_one_did_is_not_forgotten() {
        let mut node = trusted();
        assert!(node.doubt(NOW));
        assert!(node.begin_probe(NOW));
        node.probe_answered();
        assert!(node.doubt(NOW + DOUBT_EVERY / 2));
        assert!(node.begin_probe(NOW + DOUBT_EVERY));
        assert!(node.is_doubted());
        assert!(node.probe_failed(NOW + DOUBT_EVERY, &mut chance()));
    }

    #[test]
    fn a_lost_node_takes_no_calls_though_it_was_to_be_doubted() {
        let mut node = trusted();
        node.doubt(NOW);
        node.answered();
        node.doubt(NOW + DOUBT_EVERY / 2);
        node.lost(NOW + DOUBT_EVERY / 2, &mut chance());
        assert!(node.begin_probe(NOW + DOUBT_EVERY));
        assert!(!node.takes_calls());
    }

    #[test]
    fn probes_of_a_lost_node_become_rarer_up_to_a_bound() {
        let mut node = trusted();
        assert!(node.lost(NOW, &mut chance()));
        assert!(!node.lost(NOW, &mut chance()), "once");
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let due = node.probe_at().unwrap();
            waits.push(due - now);
            now = due;
            assert!(node.begin_probe(now));
            assert!(!node.probe_failed(now, &mut chance()), "it took no calls");
        }
        assert!(waits[0] <= PROBE_AFTER_FIRST, "{waits:?}");
        assert!(waits[11] >= PROBE_AFTER_MAX / 2, "{waits:?}");
        assert!(
            waits.iter().all(|wait| *wait <= PROBE_AFTER_MAX),
            "{waits:?}"
        );
        // Somebody says that it is back.
        node.is_said_to_be_back(now);
        assert!(node.probe_at().unwrap() <= now + PROBE_AFTER_FIRST);
        assert!(node.begin_probe(now + PROBE_AFTER_FIRST));
        node.probe_answered();
        assert_eq!((node.probe_at(), node.is_trusted()), (None, true));
    }

    #[test]
    fn an_answer_to_a_call_is_worth_more_than_a_probe_that_was_under_way() {
        let mut node = trusted();
        node.doubt(NOW);
        assert!(node.begin_probe(NOW));
        node.answered();
        assert!(!node.probe_failed(NOW, &mut chance()));
        assert!(node.is_trusted());
    }

    #[test]
    fn a_stranger_is_probed_on_and_takes_no_calls() {
        let mut node = trusted();
        assert!(node.is_of_no_node(NOW, &mut chance()));
        assert!(!node.is_of_no_node(NOW, &mut chance()));
        assert!(!node.takes_calls());
        assert!(node.begin_probe(NOW + PROBE_AFTER_MAX));
    }

    #[test]
    fn where_the_network_is_slow_patience_is_longer() {
        let mut node = Standing::unknown();
        assert_eq!(node.patience(), PATIENCE_MIN);
        node.took(Duration::from_millis(100));
        assert_eq!(node.patience(), Duration::from_millis(400));
    }
}
