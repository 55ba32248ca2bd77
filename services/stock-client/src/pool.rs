//! The nodes the client knows, one connection each, and the tasks that see to them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use stock_proto::stock::v1::GetTopologyResponse;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tracing::{debug, info};

use crate::connector::Connector;
use crate::error::{Error, StatusError};
use crate::link::{Link, Way};
use crate::request_id::ClusterTime;
use crate::telemetry;
use crate::way::{Budget, Chosen, Leadership, Learnt, Lesson, Overtaken, Router, Target, Topology};

/// Nodes that do not answer are probed as long as the client was used within this; the next call
/// has them probed again.
const UNUSED_FOR: Duration = Duration::from_secs(30);

/// While calls wait for somebody to lead, the topology is looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Nodes = Router<Arc<Link>>;

/// Every node the client knows.
#[derive(Debug)]
pub(crate) struct Pool {
    opened_at: Instant,
    connector: Connector,
    router: Mutex<Nodes>,
    budget: Mutex<Budget>,
    /// Counts what may make a waiting call better off elsewhere.
    news: watch::Sender<u64>,
    /// When a call last asked for a node, in milliseconds since the pool was opened.
    used_ms: AtomicU64,
    /// Calls that wait for somebody to lead.
    waiting: AtomicUsize,
    /// Somebody looks at the topology for them.
    is_looked: AtomicBool,
    /// None before a node has told it.
    time: Mutex<Option<ClusterTime>>,
    /// As every call names it, once it is known.
    cluster: OnceLock<AsciiMetadataValue>,
}

impl Pool {
    /// Of these endpoints, of which nobody has answered yet.
    ///
    /// Fails with [`Error::InvalidEndpoint`].
    pub(crate) fn open(
        endpoints: &[String],
        cluster_id: Option<String>,
        connector: Connector,
    ) -> Result<Arc<Self>, Error> {
        let mut seeds = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            seeds.push((
                Arc::from(endpoint.as_str()),
                Arc::new(Link::open(endpoint, &connector)?),
            ));
        }
        if seeds.is_empty() {
            return Err(Error::InvalidEndpoint {
                endpoint: String::new(),
                why: "at least one endpoint is needed".into(),
            });
        }
        // Clients that start together shall not all read from the same node.
        let turn = rand::random_range(0..1 << 16);
        Ok(Arc::new(Self {
            opened_at: Instant::now(),
            connector,
            router: Mutex::new(Router::new(cluster_id, seeds, turn)),
            budget: Mutex::default(),
            news: watch::Sender::new(0),
            used_ms: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            is_looked: AtomicBool::new(false),
            time: Mutex::default(),
            cluster: OnceLock::new(),
        }))
    }

    /// Waits until it is known who leads what; `false` where that takes longer.
    pub(crate) async fn has_learnt(self: &Arc<Self>, until: Instant) -> bool {
        loop {
            let mut news = self.news();
            if self.router().has_learnt() {
                return true;
            }
            self.use_now();
            self.see_to_nodes();
            let soon = until.min(Instant::now() + UNUSED_FOR / 2);
            if !news.come_until(soon).await && Instant::now() >= until {
                return false;
            }
        }
    }

    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(self.router().topology())
    }

    /// The connection to a node that the topology names.
    pub(crate) fn node_channel(&self, node_id: u64) -> Option<Channel> {
        let router = self.router();
        let mut nodes = router.nodes();
        let (_, link) = nodes.find(|(node, _)| *node == node_id)?;
        Some(link.channel())
    }

    pub(crate) fn node_channels(&self) -> Vec<(u64, Channel)> {
        let router = self.router();
        let nodes = router.nodes();
        nodes.map(|(node, link)| (node, link.channel())).collect()
    }

    /// The cluster's time now, since the Unix epoch; none before a node has told it.
    pub(crate) fn cluster_time(&self) -> Option<Duration> {
        let time = *self.time.lock().unwrap_or_else(PoisonError::into_inner);
        time.map(|time| time.at(self.now()))
    }

    /// As each call names the cluster that it is for.
    pub(crate) fn cluster(&self) -> Option<&AsciiMetadataValue> {
        self.cluster.get()
    }

    /// Where the next attempt at a call goes; none while no node takes calls.
    pub(crate) fn choose(
        self: &Arc<Self>,
        target: Target,
        failures: impl Fn(&str) -> u32,
    ) -> Option<Chosen<Arc<Link>>> {
        let now = self.use_now();
        let mut router = self.router();
        let chosen = router.choose(target, now, failures);
        let is_stale = router.is_stale(now);
        let is_unminded = |link: &Arc<Link>| !link.is_minded.load(Ordering::Relaxed);
        let is_any_unminded = router.probes().any(|(_, link, _)| is_unminded(link));
        drop(router);
        if is_any_unminded {
            self.see_to_nodes();
        }
        if is_stale {
            self.look_again();
        }
        chosen
    }

    /// Tells when something may make a waiting call better off elsewhere.
    pub(crate) fn news(&self) -> News {
        News(self.news.subscribe())
    }

    /// Whether a call that waits is better given up, and why.
    pub(crate) fn overtaken(
        &self,
        target: Target,
        chosen: &Chosen<Arc<Link>>,
        way: &Way,
    ) -> Option<Overtaken> {
        match chosen.link.has_left(way) {
            true => Some(Overtaken::Left),
            false => self.router().overtaken(target, chosen),
        }
    }

    /// Whether somebody else leads than the node `at` which something was sent, who did not then.
    pub(crate) fn is_led_elsewhere(
        &self,
        target: Target,
        then: Leadership,
        at: &Chosen<Arc<Link>>,
    ) -> bool {
        self.router().is_led_elsewhere(target, then, at)
    }

    /// The node has answered, whatever it said.
    pub(crate) fn answered(&self, chosen: &Chosen<Arc<Link>>) {
        self.budget().answered();
        chosen.link.answered();
        let is_news = chosen.is_in_place() || chosen.link.is_watched.load(Ordering::Relaxed);
        if !is_news {
            return;
        }
        let was_trusted = !self.router().answered(chosen);
        chosen.link.is_watched.store(false, Ordering::Relaxed);
        if !was_trusted {
            self.tell();
        }
    }

    /// Another node has answered in its place, which was asked later.
    pub(crate) fn was_slower(&self, chosen: &Chosen<Arc<Link>>) {
        let now = self.now();
        if let Some(standing) = self.router().standing(&chosen.endpoint) {
            standing.was_slower(now);
        }
    }

    /// It was silent for as long as an attempt may take, and then another node has answered.
    pub(crate) fn was_silent(&self, chosen: &Chosen<Arc<Link>>) {
        let now = self.now();
        if let Some(standing) = self.router().standing(&chosen.endpoint) {
            standing.was_silent(now);
        }
    }

    /// A call has waited for long, or was given up before it was answered.
    pub(crate) fn doubt(self: &Arc<Self>, chosen: &Chosen<Arc<Link>>) {
        let now = self.now();
        let mut router = self.router();
        let standing = router.standing(&chosen.endpoint);
        if standing.is_some_and(|standing| standing.doubt(now)) {
            drop(router);
            debug!(endpoint = &*chosen.endpoint, "a node is doubted");
            telemetry::node_doubted();
            self.see_to_nodes();
        }
    }

    /// An attempt has failed, and this is what it says about the node.
    pub(crate) fn note(self: &Arc<Self>, chosen: &Chosen<Arc<Link>>, lesson: Lesson) {
        let now = self.now();
        let mut router = self.router();
        router.did_not_answer_for(chosen);
        let standing = router.standing(&chosen.endpoint);
        let chance = &mut rand::rng();
        let is_lost = standing.is_some_and(|standing| match lesson {
            Lesson::Answers => {
                standing.answered();
                false
            }
            Lesson::Silent => {
                standing.doubt(now);
                false
            }
            Lesson::Lost => standing.lost(now, chance),
            Lesson::NoNode => standing.is_of_no_node(now, chance),
        });
        router.hasten_if_alone(now, chance);
        drop(router);
        if is_lost {
            telemetry::node_lost();
            info!(
                endpoint = &*chosen.endpoint,
                ?lesson,
                "a node is lost: others are asked"
            );
            self.tell();
        }
        self.see_to_nodes();
    }

    /// How long the next repeat of a call has to wait so that all of them are within bounds; none
    /// where it has not that long.
    pub(crate) fn repeat_after(&self, left: Duration) -> Option<Duration> {
        let now = self.now();
        self.budget().take(now, left)
    }

    /// The repeat was not one of those that wait.
    pub(crate) fn repeated_without(&self) {
        self.budget().give_back();
    }

    /// Whether somebody leads who did not then.
    pub(crate) fn is_led_anew(&self, target: Target, then: Leadership) -> bool {
        self.router().is_led_anew(target, then)
    }

    /// Waits for so long, or until somebody leads who did not `then`: `true`.
    pub(crate) async fn is_led_anew_within(
        self: &Arc<Self>,
        pause: Duration,
        target: Target,
        then: Leadership,
    ) -> bool {
        let until = Instant::now() + pause;
        let mut news = self.news();
        let _looks = self.keep_looking();
        loop {
            if self.is_led_anew(target, then) {
                return true;
            }
            if !news.come_until(until).await {
                return false;
            }
        }
    }

    /// Has the topology looked at every [`LOOK_EVERY`], for as long as the result is kept. However
    /// many calls wait for somebody to lead, one task looks for all of them.
    pub(crate) fn keep_looking(self: &Arc<Self>) -> KeepsLooking<'_> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if !self.is_looked.swap(true, Ordering::AcqRel) {
            let mut looker = Looker {
                pool: Arc::downgrade(self),
                looks: true,
            };
            tokio::spawn(async move {
                while looker.looks {
                    tokio::time::sleep(LOOK_EVERY).await;
                    looker.look();
                }
            });
        }
        KeepsLooking(self)
    }

    /// Takes a repeat that does not have to wait, if there is one: for an attempt beside one that
    /// is under way, which can also be left.
    pub(crate) fn takes_repeat(&self) -> bool {
        let now = self.now();
        self.budget().take_if_there(now)
    }

    /// What is in the way, where no node takes calls: what each probe came to.
    pub(crate) fn failure(&self) -> Option<StatusError> {
        let router = self.router();
        let mut links = router.links();
        links.find_map(|link| link.failure().clone())
    }

    /// Learns the topology anew, beside the calls: none of them waits for it, and however many ask,
    /// one look is under way at a time.
    pub(crate) fn look_again(self: &Arc<Self>) {
        let Some(chosen) = self.router().begin_look(self.now()) else {
            return;
        };
        // Dropped with the task whatever happens to it, begun or not, so that a runtime that shuts
        // down does not leave the client blind on the next one.
        let looking = Looking(Arc::clone(self));
        tokio::spawn(async move {
            let pool = &looking.0;
            match chosen.link.look().await {
                Ok(view) => {
                    if pool.learn(&chosen.endpoint, view) != Learnt::Stranger {
                        pool.answered(&chosen);
                    }
                }
                Err(failure) => {
                    let endpoint = &*chosen.endpoint;
                    debug!(endpoint, error = %failure, "no topology from here");
                    pool.note(&chosen, lesson_of(&failure));
                }
            }
        });
    }

    fn learn(self: &Arc<Self>, endpoint: &str, view: GetTopologyResponse) -> Learnt {
        let (now, chance) = (self.now(), &mut rand::rng());
        let mut router = self.router();
        let open = |endpoint: &str| match Link::open(endpoint, &self.connector) {
            Ok(link) => Some(Arc::new(link)),
            Err(error) => {
                debug!(%error, "a node that is reached through the others");
                None
            }
        };
        let had_learnt = router.has_learnt();
        let time = view.time.and_then(|time| ClusterTime::heard(time, now));
        let learnt = router.learn(endpoint, view, now, chance, open);
        let cluster = router.cluster_id().and_then(|id| id.parse().ok());
        drop(router);
        if time.is_some() && learnt != Learnt::Stranger {
            *self.time.lock().unwrap_or_else(PoisonError::into_inner) = time;
        }
        if let Some(cluster) = cluster {
            self.cluster.get_or_init(|| cluster);
        }
        match learnt {
            Learnt::News => {
                debug!(endpoint, "others lead");
                self.tell();
            }
            Learnt::Nothing if !had_learnt => self.tell(),
            Learnt::Nothing => {}
            Learnt::Stranger => debug!(endpoint, "a node of another cluster is not asked"),
        }
        self.see_to_nodes();
        learnt
    }

    /// Has every node probed that is to be, as long as the client is used.
    fn see_to_nodes(self: &Arc<Self>) {
        // A call may be dropped where there is no runtime. The next one sees to it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut minders = Vec::new();
        for (endpoint, link, _) in self.router().probes() {
            link.is_watched.store(true, Ordering::Relaxed);
            match link.is_minded.swap(true, Ordering::AcqRel) {
                true => link.hurry.notify_one(),
                false => minders.push(Minder {
                    pool: Arc::downgrade(self),
                    endpoint: Arc::clone(endpoint),
                    link: Arc::clone(link),
                    minds: true,
                }),
            }
        }
        // The router is let go first: a runtime that shuts down drops them there and then.
        for minder in minders {
            runtime.spawn(minder.mind());
        }
    }

    fn tell(&self) {
        self.news.send_modify(|count| *count += 1);
    }

    fn use_now(&self) -> Duration {
        let now = self.now();
        let now_ms = now.as_millis() as u64;
        self.used_ms.store(now_ms, Ordering::Relaxed);
        now
    }

    fn is_used(&self) -> bool {
        let used = Duration::from_millis(self.used_ms.load(Ordering::Relaxed));
        self.now().saturating_sub(used) < UNUSED_FOR
    }

    fn router(&self) -> MutexGuard<'_, Nodes> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.opened_at.elapsed()
    }
}

/// What a look that failed says about the node.
fn lesson_of(failure: &StatusError) -> Lesson {
    match () {
        () if failure.is_silence => Lesson::Silent,
        () if failure.transport => Lesson::Lost,
        () if failure.is_of_stockd => Lesson::Answers,
        () => Lesson::NoNode,
    }
}

/// News since it was made.
pub(crate) struct News(watch::Receiver<u64>);

impl News {
    /// Waits for some; `false` where none come before that time.
    pub(crate) async fn come_until(&mut self, until: Instant) -> bool {
        tokio::select! {
            changed = self.0.changed() => changed.is_ok(),
            () = sleep_until(until) => false,
        }
    }

    /// Waits for some.
    pub(crate) async fn come(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A call that waits for somebody to lead.
pub(crate) struct KeepsLooking<'a>(&'a Pool);

impl Drop for KeepsLooking<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Looks at the topology for all calls that wait for somebody to lead.
struct Looker {
    pool: Weak<Pool>,
    /// Nobody else does.
    looks: bool,
}

impl Looker {
    fn look(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            self.looks = false;
            return;
        };
        if pool.waiting.load(Ordering::Acquire) > 0 {
            pool.look_again();
            return;
        }
        pool.is_looked.store(false, Ordering::Release);
        // Somebody may have left it to this one just then.
        let is_left = pool.waiting.load(Ordering::Acquire) > 0;
        self.looks = is_left && !pool.is_looked.swap(true, Ordering::AcqRel);
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        if self.looks
            && let Some(pool) = self.pool.upgrade()
        {
            pool.is_looked.store(false, Ordering::Release);
        }
    }
}

/// Marks the look as over.
struct Looking(Arc<Pool>);

impl Drop for Looking {
    fn drop(&mut self) {
        let now = self.0.now();
        self.0.router().end_look(now);
    }
}

/// Sees to the probes of one endpoint until it is trusted, or gone from the cluster.
struct Minder {
    pool: Weak<Pool>,
    endpoint: Arc<str>,
    link: Arc<Link>,
    /// Nobody else does.
    minds: bool,
}

impl Drop for Minder {
    fn drop(&mut self) {
        if !self.minds {
            return;
        }
        // Its runtime may have ended in the middle of a probe.
        if let Some(pool) = self.pool.upgrade()
            && let Some(standing) = pool.router().standing(&self.endpoint)
        {
            standing.probe_dropped();
        }
        self.link.is_minded.store(false, Ordering::Release);
    }
}

impl Minder {
    async fn mind(mut self) {
        while self.minds {
            self.mind_while_due().await;
            self.minds = false;
            self.link.is_minded.store(false, Ordering::Release);
            // Somebody may have left a probe to this one just then.
            let is_left = self.due().is_some();
            self.minds = is_left && !self.link.is_minded.swap(true, Ordering::AcqRel);
        }
    }

    async fn mind_while_due(&self) {
        while let Some(due) = self.due() {
            if !due.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(due) => {}
                    () = self.link.hurry.notified() => {}
                }
                continue;
            }
            let Some((is_connected, usual)) = self.begin() else {
                continue;
            };
            let began = Instant::now();
            let answer = self.link.probe(is_connected, usual).await;
            let Some(pool) = self.pool.upgrade() else {
                return;
            };
            self.learn(&pool, answer, began.elapsed());
        }
    }

    /// How long it is until the next probe; none where there is to be none.
    fn due(&self) -> Option<Duration> {
        let pool = self.pool.upgrade().filter(|pool| pool.is_used())?;
        let now = pool.now();
        let at = pool.router().standing(&self.endpoint)?.probe_at()?;
        Some(at.saturating_sub(now))
    }

    /// Begins a probe: whether there is a connection that may answer it, and how long that takes.
    fn begin(&self) -> Option<(bool, Duration)> {
        let pool = self.pool.upgrade()?;
        let now = pool.now();
        let mut router = pool.router();
        let standing = router.standing(&self.endpoint)?;
        let begins = standing.begin_probe(now);
        begins.then(|| (standing.takes_calls(), standing.latency()))
    }

    fn learn(
        &self,
        pool: &Arc<Pool>,
        answer: Result<GetTopologyResponse, StatusError>,
        took: Duration,
    ) {
        let (now, chance) = (pool.now(), &mut rand::rng());
        match answer {
            Ok(view) => {
                if let Some(standing) = pool.router().standing(&self.endpoint) {
                    standing.took(took);
                }
                let whose = view.cluster_id.clone();
                if pool.learn(&self.endpoint, view) == Learnt::Stranger {
                    let own = pool.router().cluster_id().map(str::to_owned);
                    let failure = StatusError::of_another_cluster(&whose, &own.unwrap_or_default());
                    *self.link.failure() = Some(failure);
                    return;
                }
                let mut router = pool.router();
                if let Some(standing) = router.standing(&self.endpoint) {
                    standing.probe_answered();
                    self.link.is_watched.store(false, Ordering::Relaxed);
                }
                drop(router);
                pool.tell();
            }
            Err(failure) => {
                let mut router = pool.router();
                let Some(standing) = router.standing(&self.endpoint) else {
                    return;
                };
                let was_used = match lesson_of(&failure) {
                    Lesson::NoNode => standing.is_of_no_node(now, chance),
                    _ => standing.probe_failed(now, chance),
                };
                router.hasten_if_alone(now, chance);
                drop(router);
                let endpoint = &*self.endpoint;
                if was_used {
                    telemetry::node_lost();
                    info!(endpoint, error = %failure, "a node is lost: others are asked");
                    pool.tell();
                    pool.look_again();
                } else {
                    debug!(endpoint, error = %failure, "a node is not there");
                }
            }
        }
    }
}
