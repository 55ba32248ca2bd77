//! Connections that go over no network.

use std::sync::Arc;

use futures_util::future::{Ready, ready};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::Notify;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::{ServiceBuilder, service_fn};

use crate::telemetry;

/// Bytes on their way in one direction.
const PIPE_BYTES: usize = 64 * 1024;

/// The way to a fake.
#[derive(Clone)]
pub(super) struct Wire {
    routes: Routes,
}

/// The connection a call came over.
#[derive(Clone, Default)]
pub(super) struct Connection {
    broken: Arc<Notify>,
}

impl Connection {
    /// Breaks it: calls on it end without an answer.
    pub(super) fn break_now(&self) {
        self.broken.notify_one();
    }
}

impl Wire {
    pub(super) fn to(routes: Routes) -> Self {
        Self {
            routes: routes.prepare(),
        }
    }

    /// A channel that connects when it is first used, and again when a connection broke.
    pub(super) fn channel(&self, endpoint: &Endpoint) -> Channel {
        let wire = self.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| wire.connect()))
    }

    /// A connection that is open.
    pub(super) fn open(&self) -> DuplexStream {
        let (near, far) = duplex(PIPE_BYTES);
        tokio::spawn(serve(far, self.routes.clone()));
        near
    }

    fn connect(&self) -> Ready<Result<TokioIo<DuplexStream>, std::io::Error>> {
        telemetry::connects();
        ready(Ok(TokioIo::new(self.open())))
    }
}

async fn serve(stream: DuplexStream, routes: Routes) {
    let connection = Connection::default();
    let broken = Arc::clone(&connection.broken);
    let told = connection.clone();
    let calls = ServiceBuilder::new()
        .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(told.clone());
            request
        })
        .service(routes);
    let conversation = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(calls));
    tokio::select! {
        // That is the other side's concern.
        _ = conversation => {}
        () = broken.notified() => {}
    }
}
