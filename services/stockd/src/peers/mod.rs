//! The other nodes: one TCP connection to each, carrying batches.
//!
//! Of two nodes the one with the higher id dials; the other tells it where it is, for as long as it
//! has not. Each side begins with a `Hello`; frames follow, each a length and a `cluster.v1.Frame`.
//! A frame is written at once, from wherever the loop is, and only what the socket does not take is
//! left to a task. Nothing is sent twice: Raft repeats what matters, and a forwarded call whose
//! connection breaks is answered "outcome unknown".

mod answers;
mod blocking;
pub(crate) mod error;
pub mod frames;
pub mod history;
pub mod introductions;
mod link;
pub mod notices;
mod roll_call;
mod slots;
pub mod snapshots;
pub mod whereabouts;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use stock_cluster::GroupId;
use stock_cluster::identity::Refusal;
use stock_cluster::identity::wire::{boot, known};
use stock_node::answer::{Answer, Failure};
use stock_node::entry::Commands;
use stock_node::event::Event;
use stock_node::standing::ClusterState;
use stock_wire::cluster::v1 as cluster;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use self::error::HELLO_WITHIN;
pub use self::error::PeerError;
use self::history::HistoryServer;
use self::introductions::Introductions;
use self::link::Link;
use self::snapshots::SnapshotReceiver;
use self::whereabouts::Whereabouts;
use crate::clocks;
use crate::inbox::Inbox;
use crate::inbox::reply::{Destination, ReplyTo};
use crate::listeners::calls::Remote;
use crate::listeners::{Accepted, Listener};

/// Between two attempts to reach a peer. Short: while it is down, nothing else costs anything.
const REDIAL_AFTER: Duration = Duration::from_millis(100);

/// A peer that should dial, and has not, is told so often where this node is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// The connections to all other nodes.
pub struct Peers {
    introductions: Arc<Introductions>,
    members: RwLock<BTreeMap<u64, Member>>,
    inbox: Arc<Inbox<ReplyTo>>,
    cluster: Arc<ClusterState>,
    receiver: Arc<SnapshotReceiver>,
    history_server: Arc<HistoryServer>,
    /// Takes connections over which another node makes calls.
    calls: mpsc::Sender<(Accepted, Remote)>,
    /// Where nodes are, as the configuration says.
    configured: BTreeMap<u64, String>,
    next_forward: AtomicU64,
}

/// Connections with calls that may wait for the edge to take them.
pub const CALLS_WAITING_MAX: usize = 16;

/// Another node.
struct Member {
    link: Arc<Link>,
    /// Where it may listen for peers.
    at: Whereabouts,
    /// Dials it, or tells it where to dial, for as long as it is a member.
    seeking: AbortHandle,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.seeking.abort();
        self.link.close();
    }
}

impl Peers {
    /// No connection yet.
    pub fn new(
        introductions: Arc<Introductions>,
        inbox: Arc<Inbox<ReplyTo>>,
        cluster: Arc<ClusterState>,
        receiver: Arc<SnapshotReceiver>,
        history_server: Arc<HistoryServer>,
        calls: mpsc::Sender<(Accepted, Remote)>,
        configured: BTreeMap<u64, String>,
    ) -> Self {
        Self {
            calls,
            configured,
            introductions,
            members: RwLock::default(),
            inbox,
            cluster,
            receiver,
            history_server,
            // A peer may still owe an answer to what this node forwarded before it was restarted:
            // its number must not mean anything now.
            next_forward: AtomicU64::new(rand::random()),
        }
    }

    /// Keeps connections to these nodes, by id and address as the registry has it, and to no
    /// others.
    pub fn set_members(self: &Arc<Self>, nodes: &[(u64, String)]) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let own = self.introductions.identity.node;
        members.retain(|id, _| nodes.iter().any(|(node, _)| node == id));
        for (id, address) in nodes.iter().filter(|(id, _)| *id != own) {
            let member = members.entry(*id).or_insert_with(|| Member {
                link: Arc::new(Link::new(*id)),
                at: Whereabouts {
                    configured: self.configured.get(id).cloned().unwrap_or_default(),
                    ..Whereabouts::default()
                },
                seeking: match *id < own {
                    true => tokio::spawn(Arc::clone(self).dial(*id)).abort_handle(),
                    false => tokio::spawn(Arc::clone(self).be_dialled(*id)).abort_handle(),
                },
            });
            member.at.listed.clone_from(address);
        }
    }

    /// The nodes there should be a connection to.
    pub fn nodes(&self) -> Vec<u64> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.keys().copied().collect()
    }

    /// Where a node listens for peers, most likely.
    pub fn address(&self, node: u64) -> Option<String> {
        self.addresses(node).into_iter().next()
    }

    fn addresses(&self, node: u64) -> Vec<String> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members
            .get(&node)
            .map_or_else(Vec::new, |member| member.at.all())
    }

    /// A node has said where it listens for peers.
    fn is_at(&self, node: u64, address: &str) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get_mut(&node)
            && member.at.heard != address
        {
            address.clone_into(&mut member.at.heard);
        }
    }

    fn link(&self, node: u64) -> Option<Arc<Link>> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&members.get(&node)?.link))
    }

    /// Takes connections from peers with higher ids, for as long as the node runs.
    pub async fn listen(self: Arc<Self>, listener: Listener) {
        loop {
            let accepted = listener.accept().await;
            let peers = Arc::clone(&self);
            tokio::spawn(async move {
                let from = accepted.from;
                match peers.welcome(accepted).await {
                    Ok(()) => {}
                    // Whoever dialled has hung up.
                    Err(PeerError::Io(error)) => {
                        tracing::debug!(%from, %error, "a connection ended");
                    }
                    Err(error) => tracing::warn!(%from, %error, "refused a connection"),
                }
            });
        }
    }

    /// Gives up forwarded calls that are not answered, for as long as the node runs.
    pub async fn give_up_unanswered(self: Arc<Self>) {
        loop {
            sleep(link::ROUND).await;
            for node in self.nodes() {
                if let Some(link) = self.link(node) {
                    link.next_round();
                }
            }
        }
    }

    /// Keeps a connection to a peer with a lower id, for as long as the node runs.
    async fn dial(self: Arc<Self>, node: u64) {
        let mut last_error = String::new();
        loop {
            for address in self.addresses(node) {
                match self.introduce(node, &address).await {
                    Ok(()) => last_error.clear(),
                    Err(error) => {
                        // Once for each reason, not ten times a second.
                        let error = format!("{address}: {error}");
                        if error != last_error {
                            tracing::info!(node, %error, "cannot reach a peer; trying again");
                            last_error = error;
                        }
                    }
                }
            }
            sleep(REDIAL_AFTER).await;
        }
    }

    /// Sees to it that a peer with a higher id, which dials, knows where this node is: it may have
    /// moved, and the peer have been away when it said so.
    async fn be_dialled(self: Arc<Self>, node: u64) {
        loop {
            sleep(TELL_EVERY).await;
            if self.cluster.is_reachable(node) {
                continue;
            }
            for address in self.addresses(node) {
                let told = roll_call::ask(&self.introductions, node, &address);
                if let Ok(Err(error)) = timeout(HELLO_WITHIN, told).await {
                    tracing::debug!(node, %address, %error, "no word of this node");
                }
            }
        }
    }

    /// A connection over which this node makes calls of another's public API: it needs no other
    /// address than that of the peer, and both know each other.
    pub async fn connect_for_calls(&self, node: u64) -> Result<TcpStream, PeerError> {
        let mut last_error = PeerError::Refused(Refusal::Unknown { node });
        for address in self.addresses(node) {
            let asked = self.ask_in(node, &address, cluster::Purpose::Calls);
            match timeout(HELLO_WITHIN, asked).await {
                Ok(Ok((stream, _))) => {
                    wire::tune(&stream)?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last_error = error,
                Err(_) => last_error = PeerError::Silent,
            }
        }
        Err(last_error)
    }

    async fn introduce(&self, node: u64, address: &str) -> Result<(), PeerError> {
        let asked = self.ask_in(node, address, cluster::Purpose::Frames);
        let (stream, hello) = timeout(HELLO_WITHIN, asked)
            .await
            .map_err(|_| PeerError::Silent)??;
        self.attend(node, stream, &hello).await
    }

    /// Dials, and introduces both sides.
    async fn ask_in(
        &self,
        node: u64,
        address: &str,
        purpose: cluster::Purpose,
    ) -> Result<(TcpStream, cluster::Hello), PeerError> {
        let address: SocketAddr = tokio::net::lookup_host(address)
            .await?
            .next()
            .ok_or_else(|| std::io::Error::other("the name has no address"))?;
        let mut stream = TcpStream::connect(address).await?;
        let own = self.introductions.hello(purpose);
        wire::write_message(&mut stream, &own).await?;
        let hello = wire::read_hello(&mut stream).await?;
        let verdict = wire::read_verdict(&mut stream).await?;
        let whom = format!("node {node} at {address}");
        self.introductions
            .heed_node(node, &whom, &hello, &verdict)?;
        let judged = self.judge(&hello, purpose);
        wire::write_verdict(&mut stream, &judged).await?;
        judged?;
        Ok((stream, hello))
    }

    fn judge(&self, hello: &cluster::Hello, purpose: cluster::Purpose) -> Result<(), Refusal> {
        let node = hello.node_id;
        let heard = self.link(node).and_then(|link| link.heard_boot());
        match purpose {
            cluster::Purpose::Frames => {}
            cluster::Purpose::Acquaintance => {
                self.introductions.look_at(hello, heard)?;
                self.is_at(node, &hello.peers);
                return Ok(());
            }
            // Who that is was judged where it is connected.
            _ => return self.introductions.look_at(hello, None),
        }
        let judged = self.introductions.judge(hello, heard);
        // What was said of others, or by another who speaks for the same directory, may end who is
        // connected.
        for node in self.introductions.overtaken() {
            self.disconnect(node);
        }
        judged?;
        self.is_at(node, &hello.peers);
        Ok(())
    }

    async fn welcome(&self, mut accepted: Accepted) -> Result<(), PeerError> {
        let from = accepted.from;
        let hello = tokio::select! {
            hello = timeout(HELLO_WITHIN, self.let_in(&mut accepted.stream, from)) => {
                hello.map_err(|_| PeerError::Silent)??
            }
            () = accepted.guest.asked_to_leave() => return Err(PeerError::Crowded),
        };
        let purpose = cluster::Purpose::try_from(hello.purpose);
        // A later version may want something that this one does not know.
        let purpose = purpose.map_err(|error| PeerError::Malformed(error.to_string()))?;
        accepted.guest.introduced();
        match purpose {
            cluster::Purpose::Frames => {
                let Accepted { stream, guest, .. } = accepted;
                let attended = self.attend(hello.node_id, stream, &hello).await;
                drop(guest);
                attended
            }
            cluster::Purpose::Acquaintance => Ok(()),
            cluster::Purpose::Snapshot => {
                let identity = &self.introductions.identity;
                self.receiver.receive(accepted, identity).await
            }
            cluster::Purpose::Calls => self.serve(accepted, Remote::Node),
            cluster::Purpose::Joining => self.serve(accepted, Remote::Newcomer),
            cluster::Purpose::History => self.history_server.tell(accepted).await,
        }
    }

    /// Has the edge answer calls over a connection. Who gets no place is disconnected, and tries
    /// again.
    fn serve(&self, accepted: Accepted, remote: Remote) -> Result<(), PeerError> {
        wire::tune(&accepted.stream)?;
        let _ = self.calls.try_send((accepted, remote));
        Ok(())
    }

    /// Is dialled, and introduces both sides. Who is no member yet may ask who is here, and join.
    async fn let_in(
        &self,
        stream: &mut TcpStream,
        from: SocketAddr,
    ) -> Result<cluster::Hello, PeerError> {
        let hello = wire::read_hello(stream).await?;
        let identity = &self.introductions.identity;
        let only_asks = hello.purpose() == cluster::Purpose::Acquaintance;
        let judged = match hello.purpose() {
            cluster::Purpose::Acquaintance if hello.incarnation.is_empty() => {
                identity.check(&hello)
            }
            cluster::Purpose::Joining => identity
                .check_newcomer(&hello)
                .and_then(|()| identity.check_version(&hello, &self.cluster.registry())),
            purpose => self.judge(&hello, purpose),
        };
        let own = self.introductions.hello(hello.purpose());
        wire::write_message(stream, &own).await?;
        wire::write_verdict(stream, &judged).await?;
        judged?;
        if !only_asks {
            let verdict = wire::read_verdict(stream).await?;
            let whom = format!("node {} at {from}", hello.node_id);
            self.introductions.heed(&whom, &verdict)?;
        }
        Ok(hello)
    }

    /// Reads from a connection until it breaks.
    async fn attend(
        &self,
        node: u64,
        stream: TcpStream,
        hello: &cluster::Hello,
    ) -> Result<(), PeerError> {
        let Some(link) = self.link(node) else {
            return Err(Refusal::Unknown { node }.into());
        };
        wire::tune(&stream)?;
        let (connection, reader) = link.connect(stream, boot(hello));
        // Something may have been heard of it since it was judged.
        if let Some(theirs) = known(hello) {
            self.introductions.connected(node, theirs);
        }
        if self.introductions.overtaken().contains(&node) {
            link.close();
        }
        tracing::info!(node, "connected");
        self.cluster.set_reachable(node, true);
        self.inbox.push(Event::PeerUp { node });
        let read = self.read_frames(node, &link, reader).await;
        // A connection that was replaced in the meantime takes nothing down with it.
        if link.disconnect(&connection) {
            tracing::info!(node, "disconnected");
            self.cluster.set_reachable(node, false);
            self.introductions.parted(node);
            self.inbox.push(Event::PeerDown { node });
        }
        read
    }

    async fn read_frames(
        &self,
        node: u64,
        link: &Link,
        mut stream: OwnedReadHalf,
    ) -> Result<(), PeerError> {
        let mut reader = wire::FrameReader::default();
        let mut events = Vec::new();
        loop {
            let bytes = reader.fill(&mut stream).await?;
            if bytes == 0 {
                return Ok(());
            }
            link.is_heard();
            let mut taken = 0;
            while let Some((frame, length)) = reader.next()? {
                self.take(node, link, frame, &mut events);
                taken += length;
            }
            if !events.is_empty() {
                self.inbox.push_from_peer(&mut events, taken).await;
            }
        }
    }

    fn take(
        &self,
        node: u64,
        link: &Link,
        frame: cluster::Frame,
        events: &mut Vec<Event<ReplyTo>>,
    ) {
        events.push(Event::PeerClock {
            node,
            wall_ms: frame.wall_clock_ms,
        });
        let is_known = |group: u32| group < self.cluster.groups();
        for message in frame
            .messages
            .into_iter()
            .filter(|message| is_known(message.group))
        {
            events.push(Event::Message {
                group: GroupId(message.group),
                cluster_time: cluster_time(&message),
                payload: message.payload,
                from: node,
            });
        }
        for forward in frame
            .forwards
            .into_iter()
            .filter(|forward| is_known(forward.group))
        {
            let to = Destination::Peer {
                node,
                forward_id: forward.forward_id,
            };
            let group = GroupId(forward.group);
            let count = forward.command_count;
            let bytes = forward.commands;
            let is_relief = forward.is_relief;
            let several_principals = forward.several_principals;
            match self.inbox.admit(group, count as usize, bytes.len()) {
                Some(permit) => events.push(Event::Propose {
                    group,
                    commands: Commands {
                        count,
                        bytes,
                        is_relief,
                        several_principals,
                    },
                    reply: ReplyTo::new(to, permit),
                }),
                None => {
                    let overloaded = Answer::Failed(Failure::Overloaded);
                    self.send(node, &reply_frame(forward.forward_id, overloaded));
                }
            }
        }
        let notices = frame.notices.map(notices::read);
        for notice in notices.into_iter().flatten() {
            events.push(Event::Notice { from: node, notice });
        }
        for reply in frame.replies {
            link.answered(reply.forward_id, answers::answer(reply));
        }
    }

    /// Ends the connection to a node; it may introduce itself again.
    pub fn disconnect(&self, node: u64) {
        if let Some(link) = self.link(node) {
            link.close();
        }
    }

    /// Sends a frame, if there is a connection. `false` if it is lost.
    pub fn send(&self, node: u64, frame: &cluster::Frame) -> bool {
        self.link(node).is_some_and(|link| link.send(frame))
    }

    /// Has everything leave that is to be sent soon.
    pub fn flush(&self) {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.values().for_each(|member| member.link.flush());
    }

    /// Has a peer's group carry commands out. What is not answered in time may or may not have been
    /// done.
    pub async fn forward(&self, node: u64, group: GroupId, commands: Commands) -> Answer {
        let Some(link) = self.link(node) else {
            return Answer::Failed(Failure::NotLeader { leader: None });
        };
        let forward_id = self.next_forward.fetch_add(1, Ordering::Relaxed);
        let Some(forwarded) = link.expect(forward_id) else {
            return Answer::Failed(Failure::Overloaded);
        };
        let frame = cluster::Frame {
            wall_clock_ms: clocks::wall_ms(),
            forwards: vec![cluster::Forward {
                forward_id,
                group: group.0,
                command_count: commands.count,
                commands: commands.bytes,
                is_relief: commands.is_relief,
                several_principals: commands.several_principals,
            }],
            ..Default::default()
        };
        if !link.send_soon(&frame) {
            return Answer::Failed(Failure::NotLeader { leader: None });
        }
        forwarded.answer().await
    }
}

/// A frame with one reply and nothing else.
pub fn reply_frame(forward_id: u64, answer: Answer) -> cluster::Frame {
    cluster::Frame {
        wall_clock_ms: clocks::wall_ms(),
        replies: vec![answers::reply(forward_id, answer)],
        ..Default::default()
    }
}

pub use answers::{answer, cluster_time, group_message, reply};
pub(crate) use link::OUTGOING_BYTES_MAX;
pub use roll_call::roll_call;
