//! A network between a client and a node, that can fall silent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes on what comes, unless it is silent: then connections come about, and nothing is heard on
/// them, as where a host stands still or a firewall has forgotten them.
pub(crate) struct Gate {
    pub(crate) endpoint: String,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    is_silent: AtomicBool,
    connections: AtomicUsize,
    /// One flag for each connection: whether it is forgotten.
    forgotten: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Gate {
    /// In front of an endpoint, `http://HOST:PORT`.
    pub(crate) async fn before(endpoint: &str) -> Self {
        let target = endpoint.trim_start_matches("http://").to_owned();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let listener = TcpListener::bind(any).await.expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("bound"));
        let state = Arc::new(State::default());
        let accepted = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                accepted.connections.fetch_add(1, Ordering::Relaxed);
                let is_forgotten = Arc::new(AtomicBool::new(false));
                accepted.all().push(Arc::clone(&is_forgotten));
                tokio::spawn(pass(
                    client,
                    target.clone(),
                    Arc::clone(&accepted),
                    is_forgotten,
                ));
            }
        });
        Self {
            endpoint,
            state,
            server,
        }
    }

    /// Nothing is heard any more, or everything again.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Nothing is heard any more on the connections that there are.
    pub(crate) fn forget(&self) {
        for connection in self.state.all().iter() {
            connection.store(true, Ordering::Relaxed);
        }
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<AtomicBool>>> {
        self.forgotten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass(client: TcpStream, target: String, state: Arc<State>, is_forgotten: Arc<AtomicBool>) {
    let Ok(node) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), node.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_node, mut to_node) = node.into_split();
    let is_silent =
        || state.is_silent.load(Ordering::Relaxed) || is_forgotten.load(Ordering::Relaxed);
    let there = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
            if !is_silent() && to_node.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut bytes = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from_node.read(&mut bytes).await {
            if !is_silent() && to_client.write_all(&bytes[..length]).await.is_err() {
                return;
            }
        }
        // A node that ends is not heard to end.
        if is_silent() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
