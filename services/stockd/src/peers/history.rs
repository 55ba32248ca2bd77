//! History between nodes: a ledger that begins later than another node's is filled from it.
//!
//! A ledger that was damaged, and one of a replica that was installed from a snapshot, begin anew.
//! What they lack is fetched backwards from where they begin, a page at a time, so that history is
//! without a gap at every moment and goes back further with each page.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use stock_cluster::GroupId;
use stock_storage::{Cursor, Ledger, LedgerError};
use stock_wire::cluster::v1 as cluster;
use tokio::time::timeout;

use super::blocking::{self, read_message, write_message};
use super::error::{HELLO_WITHIN, PeerError};
use super::slots::Slots;
use super::{Peers, wire};
use crate::history::{HistoryHandle, OpenLedger, Stretch};
use crate::listeners::Accepted;
use crate::peers::introductions::Introductions;

/// How often it is looked whether something is missing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where nobody has more, or nobody can be reached, everybody is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Indexes of a page; fewer, if they have changed too much.
const PAGE_INDEXES_MAX: u64 = 4_096;

/// Bytes of changes on a page, unless it is of one index.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A page of one index on the wire: all the changes of one entry of the log, and what is around
/// them.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A page has come within this.
const PAGE_WITHIN: Duration = Duration::from_secs(60);

/// Who asks says so in a few bytes...
const WANTED_BYTES_MAX: usize = 64;
/// ...and asks again within this, or gives its place to another.
const ASKS_WITHIN: Duration = Duration::from_secs(10);

/// Nodes that are told history at a time; others try again later.
const TELLING_MAX: usize = 2;

/// Tells other nodes what this node's ledger has.
pub struct HistoryServer {
    open_ledger: OpenLedger,
    telling: Arc<Slots>,
}

impl HistoryServer {
    /// Of this ledger.
    pub fn new(open_ledger: OpenLedger) -> Self {
        Self {
            open_ledger,
            telling: Slots::new(TELLING_MAX),
        }
    }

    /// Answers over a connection on which both sides have introduced themselves, on a thread of its
    /// own. Who has not asked for anything takes neither thread nor place.
    pub(super) async fn tell(self: &Arc<Self>, mut accepted: Accepted) -> Result<(), PeerError> {
        let wanted = wire::read_message(&mut accepted.stream, WANTED_BYTES_MAX);
        let wanted = timeout(HELLO_WITHIN, wanted);
        let wanted = wanted.await.map_err(|_| PeerError::Silent)??;
        let Some(slot) = self.telling.take() else {
            return Ok(());
        };
        let history_server = Arc::clone(self);
        let Accepted { stream, guest, .. } = accepted;
        let stream = stream.into_std()?;
        std::thread::Builder::new()
            .name("history_server".to_owned())
            .spawn(move || {
                if let Err(error) = history_server.converse(stream, wanted) {
                    tracing::debug!(%error, "a node asks for history no more");
                }
                drop((slot, guest));
            })?;
        Ok(())
    }

    fn converse(
        &self,
        mut stream: TcpStream,
        mut wanted: cluster::HistoryWanted,
    ) -> Result<(), PeerError> {
        blocking::prepare(&stream)?;
        loop {
            let ledger = self.open_ledger.ledger();
            let page = ledger.and_then(|ledger| page(&ledger, u64::from(wanted.group), wanted.to));
            write_message(&mut stream, &page.unwrap_or_default())?;
            wanted = read_message(&mut stream, WANTED_BYTES_MAX, ASKS_WITHIN)?;
        }
    }
}

/// What the ledger has of the last indexes up to `to`; nothing if it lacks that one.
fn page(ledger: &Ledger, group: u64, to: u64) -> Option<cluster::HistoryPage> {
    let coverage = ledger.coverage(group)?;
    if !(coverage.from..=coverage.to).contains(&to) {
        return None;
    }
    let mut indexes_max = PAGE_INDEXES_MAX;
    loop {
        let from = coverage.from.max((to + 1).saturating_sub(indexes_max));
        match changes(ledger, group, from, to) {
            Ok(Some(indexes)) => return Some(cluster::HistoryPage { from, indexes }),
            Ok(None) => indexes_max = (to - from).div_ceil(4).max(1),
            Err(error) => {
                tracing::debug!(%error, "history that another node asks for cannot be read");
                return None;
            }
        }
    }
}

/// What these indexes have changed; nothing if it is too much for a page of several.
fn changes(
    ledger: &Ledger,
    group: u64,
    from: u64,
    to: u64,
) -> Result<Option<Vec<cluster::IndexChanges>>, LedgerError> {
    let mut indexes: Vec<cluster::IndexChanges> = Vec::new();
    let (mut cursor, end) = (Cursor::after_index(from - 1), Cursor::after_index(to));
    let mut bytes = 0;
    while cursor < end {
        let page = ledger.read(group, cursor, usize::MAX, PAGE_BYTES_MAX)?;
        let is_last = page.entries.is_empty();
        for entry in page.entries {
            if entry.index > to {
                return Ok(Some(indexes));
            }
            bytes += entry.bytes.len();
            if bytes > PAGE_BYTES_MAX && from < to {
                return Ok(None);
            }
            match indexes.last_mut() {
                Some(last) if last.index == entry.index => last.changes.push(entry.bytes),
                _ => indexes.push(cluster::IndexChanges {
                    index: entry.index,
                    changes: vec![entry.bytes],
                }),
            }
        }
        if is_last {
            break;
        }
        cursor = page.next;
    }
    Ok(Some(indexes))
}

/// Fetches what this node's ledger lacks, on a thread of its own.
pub struct HistoryFetcher {
    introductions: Arc<Introductions>,
    open_ledger: OpenLedger,
    handle: HistoryHandle,
    peers: Weak<Peers>,
    /// By group: where its ledger began when nobody had more, and when that was.
    asked: BTreeMap<u64, (u64, Instant)>,
}

impl HistoryFetcher {
    /// Begins. The thread ends when nobody keeps history any more.
    pub fn start(
        introductions: Arc<Introductions>,
        open_ledger: OpenLedger,
        handle: HistoryHandle,
        peers: &Arc<Peers>,
    ) -> io::Result<()> {
        let mut fetcher = Self {
            introductions,
            open_ledger,
            handle,
            peers: Arc::downgrade(peers),
            asked: BTreeMap::new(),
        };
        std::thread::Builder::new()
            .name("fetcher".to_owned())
            .spawn(move || {
                while fetcher.handle.is_open() {
                    fetcher.look();
                    std::thread::sleep(LOOK_EVERY);
                }
            })?;
        Ok(())
    }

    fn look(&mut self) {
        for group in 1..=self.introductions.identity.shards {
            let begins = self.begins(group);
            let asked = self.asked.get(&u64::from(group));
            let is_answered = asked
                .is_some_and(|(from, at)| Some(*from) == begins && at.elapsed() < ASK_AGAIN_AFTER);
            if is_answered || begins.is_none_or(|from| from <= 1) {
                continue;
            }
            let Some(peers) = self.peers.upgrade() else {
                return;
            };
            let nodes: Vec<(u64, String)> = peers
                .nodes()
                .into_iter()
                .filter_map(|node| Some((node, peers.address(node)?)))
                .collect();
            drop(peers);
            for (node, address) in nodes {
                match self.fetch(group, node, &address) {
                    Ok(0) => {}
                    Ok(indexes) => tracing::info!(
                        group,
                        node,
                        indexes,
                        "history that was missing came from another node"
                    ),
                    Err(error) => {
                        tracing::debug!(group, node, %error, "no history from there");
                    }
                }
            }
            if let Some(from) = self.begins(group) {
                self.asked.insert(u64::from(group), (from, Instant::now()));
            }
        }
    }

    /// The first index of a group's ledger.
    fn begins(&self, group: u32) -> Option<u64> {
        let coverage = self.open_ledger.ledger()?.coverage(u64::from(group))?;
        Some(coverage.from)
    }

    /// Fetches what a node has, and says how many indexes that were.
    fn fetch(&self, group: u32, node: u64, address: &str) -> Result<u64, PeerError> {
        let mut stream = blocking::connect(
            &self.introductions,
            node,
            address,
            cluster::Purpose::History,
        )?;
        let mut fetched = 0;
        while let Some(from) = self.begins(group).filter(|from| *from > 1) {
            let to = from - 1;
            write_message(&mut stream, &cluster::HistoryWanted { group, to })?;
            let page: cluster::HistoryPage =
                read_message(&mut stream, MESSAGE_BYTES_MAX, PAGE_WITHIN)?;
            if page.from == 0 || page.from > to {
                break;
            }
            let indexes = to + 1 - page.from;
            let changes = page.indexes.into_iter();
            let stretch = Stretch {
                group: GroupId(group),
                from: page.from,
                to,
                changes: changes.map(|it| (it.index, it.changes)).collect(),
            };
            if !self.handle.fill(stretch) {
                break;
            }
            metrics::counter!("stockd_ledger_filled_indexes_total").increment(indexes);
            fetched += indexes;
        }
        Ok(fetched)
    }
}
