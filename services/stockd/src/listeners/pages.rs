//! The port for metrics: a few pages over HTTP/1, each on a connection of its own that has to be
//! over in time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::timeout;

use super::{Accepted, Listener};
use crate::clocks;
use crate::listeners::liveness::Liveness;

/// From the first byte of a question to the last of its answer.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// The longest head of a question.
const QUESTION_BYTES_MAX: usize = 16 * 1024;

/// What the pages show.
pub struct Pages {
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Whether the loop turns, and whether the node is ready.
    pub liveness: Arc<Liveness>,
}

impl Pages {
    /// Answers whoever asks, for as long as the node runs.
    pub async fn serve(self: Arc<Self>, listener: Listener) {
        loop {
            let accepted = listener.accept().await;
            tokio::spawn(Arc::clone(&self).converse(accepted));
        }
    }

    async fn converse(self: Arc<Self>, accepted: Accepted) {
        let Accepted { stream, guest, .. } = accepted;
        let answer = service_fn(|request| {
            guest.introduced();
            self.answer(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .keep_alive(false)
            .max_buf_size(QUESTION_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::select! {
            // How it ended is the other side's concern.
            _ = timeout(ANSWERED_WITHIN, connection) => {}
            () = guest.asked_to_leave() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<String>, Infallible> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(page(StatusCode::METHOD_NOT_ALLOWED, "GET, or HEAD\n"));
        }
        let page = match request.uri().path() {
            "/metrics" => {
                let metrics = self.metrics.clone();
                // Many histograms take a while to write.
                let text = tokio::task::spawn_blocking(move || metrics.render()).await;
                match text {
                    Ok(text) => page(StatusCode::OK, text),
                    Err(_) => page(StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n"),
                }
            }
            "/live" => match self.liveness.is_live(clocks::now().boot_ms) {
                true => page(StatusCode::OK, "the loop turns\n"),
                false => page(StatusCode::SERVICE_UNAVAILABLE, "the loop stands still\n"),
            },
            "/ready" => match self.liveness.is_ready() {
                true => page(StatusCode::OK, "ready\n"),
                false => page(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "its replicas have yet to catch up, or it stops\n",
                ),
            },
            _ => page(
                StatusCode::NOT_FOUND,
                "there are /metrics, /live and /ready\n",
            ),
        };
        Ok(page)
    }
}

fn page(status: StatusCode, text: impl Into<String>) -> Response<String> {
    let mut page = Response::new(text.into());
    *page.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain");
    page.headers_mut().insert(CONTENT_TYPE, plain);
    page
}
