//! `stock.lab.v1`: what other calls are measured against. Served only where the configuration says
//! so.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use stock_proto::stock::lab::v1 as api;
use stock_proto::stock::lab::v1::echo_service_server::EchoService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// The service.
pub(super) struct EchoCalls {
    stop: CancellationToken,
}

impl EchoCalls {
    /// Until told to stop.
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { stop }
    }
}

#[tonic::async_trait]
impl EchoService for EchoCalls {
    async fn echo(
        &self,
        request: Request<api::EchoRequest>,
    ) -> Result<Response<api::EchoResponse>, Status> {
        let payload = request.into_inner().payload;
        Ok(Response::new(api::EchoResponse { payload }))
    }

    type EchoStreamStream = BoxStream<'static, Result<api::EchoStreamResponse, Status>>;

    async fn echo_stream(
        &self,
        request: Request<Streaming<api::EchoStreamRequest>>,
    ) -> Result<Response<Self::EchoStreamStream>, Status> {
        let answers = request.into_inner().map_ok(|message| {
            let payloads = message.payloads;
            api::EchoStreamResponse { payloads }
        });
        let stopped = self.stop.clone().cancelled_owned();
        Ok(Response::new(answers.take_until(stopped).boxed()))
    }
}
