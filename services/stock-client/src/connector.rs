//! How connections are made.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use crate::telemetry;

/// Makes the connections of a client.
#[derive(Clone, Default)]
pub(crate) struct Connector {
    /// The program's own way; else TCP.
    own: Option<Arc<dyn Fn(Endpoint) -> Channel + Send + Sync>>,
}

impl Connector {
    /// The program's own way.
    pub(crate) fn of(make: impl Fn(Endpoint) -> Channel + Send + Sync + 'static) -> Self {
        Self {
            own: Some(Arc::new(make)),
        }
    }

    /// Whether it can make connections of that scheme.
    pub(crate) fn takes(&self, scheme: &str) -> bool {
        scheme == "http" || (scheme == "https" && self.own.is_some())
    }

    /// A connection that is made when it is first used.
    pub(crate) fn channel(&self, endpoint: &Endpoint) -> Channel {
        match &self.own {
            Some(make) => make(endpoint.clone()),
            None => endpoint.connect_with_connector_lazy(Tcp::to(endpoint)),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.own.is_some() { "own" } else { "tcp" })
    }
}

/// Plain TCP, each connection counted.
#[derive(Clone)]
struct Tcp(HttpConnector);

impl Tcp {
    fn to(endpoint: &Endpoint) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        // Small messages must leave at once: with Nagle's algorithm p99 is 40 ms.
        connector.set_nodelay(endpoint.get_tcp_nodelay());
        connector.set_connect_timeout(endpoint.get_connect_timeout());
        Self(connector)
    }
}

impl Service<Uri> for Tcp {
    type Response = <HttpConnector as Service<Uri>>::Response;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = <HttpConnector as Service<Uri>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        telemetry::connects();
        Service::call(&mut self.0, uri)
    }
}
