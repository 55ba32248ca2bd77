//! Addresses that a client no longer reaches: what it sends there is lost without a word, as behind
//! a firewall.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// Which addresses are swallowed. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct Holes {
    swallowed: Arc<Mutex<BTreeSet<String>>>,
}

impl Holes {
    /// From now on nothing goes to `host:port`, nor comes from there.
    pub fn swallow(&self, address: &str) {
        self.swallowed().insert(address.to_owned());
    }

    /// A channel for a client's connector.
    pub fn channel(&self, endpoint: &Endpoint) -> Channel {
        let holes = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |to: Uri| {
            let holes = holes.clone();
            async move { holes.connect(&to).await.map(TokioIo::new) }
        }))
    }

    async fn connect(self, to: &Uri) -> io::Result<Leaky> {
        let address = to.authority().map_or("", |it| it.as_str()).to_owned();
        if self.swallowed().contains(&address) {
            return pending().await;
        }
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        Ok(Leaky {
            stream,
            address,
            holes: self,
        })
    }

    fn swallowed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.swallowed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that may come to lead nowhere.
struct Leaky {
    stream: TcpStream,
    address: String,
    holes: Holes,
}

impl Leaky {
    fn leads_nowhere(&self) -> bool {
        self.holes.swallowed().contains(&self.address)
    }
}

impl AsyncRead for Leaky {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() && self.leads_nowhere() {
            buffer.set_filled(before);
            return Poll::Pending;
        }
        read
    }
}

impl AsyncWrite for Leaky {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.leads_nowhere() {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
