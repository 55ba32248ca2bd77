//! gRPC by hand: bytes on a socket, for what no well-behaved client can send.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};

/// A connection to one node.
pub struct Connection(SendRequest<Bytes>);

impl Connection {
    /// To `host:port`.
    pub async fn open(address: &str) -> Self {
        Self::open_with_window(address, u16::MAX.into()).await
    }

    /// To `host:port`. So many bytes of each answer are taken before somebody asks for more.
    pub async fn open_with_window(address: &str, bytes: u32) -> Self {
        let stream = TcpStream::connect(address).await;
        let stream = stream.unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_nodelay(true).unwrap();
        Self::over(stream, bytes).await
    }

    /// Over what is open already, likewise.
    pub async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        bytes: u32,
    ) -> Self {
        let mut builder = h2::client::Builder::new();
        let shaken = builder.initial_window_size(bytes).handshake(stream).await;
        let (sender, connection) = shaken.unwrap_or_else(|e| panic!("no handshake: {e}"));
        tokio::spawn(connection);
        Self(sender)
    }

    /// Calls a method with whatever `body` is; `path` is `/package.Service/Method`. Returns the
    /// bytes of the answer, or the status.
    pub async fn call(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Bytes, Status> {
        let is_empty = body.is_empty();
        let mut call = self.begin(path, headers, is_empty).await?;
        if !is_empty {
            call.send(body, true).await?;
        }
        call.answer().await
    }

    /// Begins a call, and sends nothing but its head.
    pub async fn begin(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
        is_over: bool,
    ) -> Result<OpenCall, Status> {
        let mut request = Request::post(format!("http://node{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(())
            .map_err(|e| Status::internal(e.to_string()))?;
        let mut sender = self.0.clone().ready().await.map_err(broken)?;
        let (response, stream) = sender.send_request(request, is_over).map_err(broken)?;
        Ok(OpenCall { response, stream })
    }
}

/// A call that has begun.
pub struct OpenCall {
    response: ResponseFuture,
    stream: SendStream<Bytes>,
}

impl OpenCall {
    /// Sends some of the body. `false` if the node has not taken all of it: one that has seen
    /// enough answers before it has read everything.
    pub async fn send(&mut self, bytes: Bytes, is_over: bool) -> Result<bool, Status> {
        let mut rest = bytes;
        while !rest.is_empty() {
            self.stream.reserve_capacity(rest.len());
            let Some(Ok(room)) = poll_fn(|cx| self.stream.poll_capacity(cx)).await else {
                return Ok(false);
            };
            let is_last = is_over && room >= rest.len();
            let part = rest.split_to(room.min(rest.len()));
            self.stream.send_data(part, is_last).map_err(broken)?;
        }
        Ok(true)
    }

    /// Waits until the node ends the call although nobody takes its answer.
    pub async fn reset(&mut self) -> Result<h2::Reason, Status> {
        let reset = poll_fn(|cx| self.stream.poll_reset(cx)).await;
        reset.map_err(broken)
    }

    /// The bytes of the answer, or the status.
    pub async fn answer(self) -> Result<Bytes, Status> {
        // Whoever drops it ends the call.
        let Self { response, stream } = self;
        let _open = stream;
        let response = response.await.map_err(broken)?;
        check(response.headers())?;
        let mut stream = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(data) = stream.data().await {
            let data = data.map_err(broken)?;
            stream
                .flow_control()
                .release_capacity(data.len())
                .map_err(broken)?;
            answer.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await.map_err(broken)?;
        check(&trailers.unwrap_or_default())?;
        Ok(answer.freeze())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn broken(error: h2::Error) -> Status {
    Status::unavailable(format!("the connection: {error}"))
}

/// The head of a message of so many bytes, as gRPC frames it.
pub fn prefix(bytes: u32) -> Bytes {
    let mut prefix = BytesMut::with_capacity(5);
    prefix.put_u8(0);
    prefix.put_u32(bytes);
    prefix.freeze()
}

/// One message as gRPC frames it.
pub fn frame(message: &[u8]) -> Bytes {
    [&prefix(message.len() as u32), message].concat().into()
}

fn check(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

/// Begins calls and resets each at once, as no caller does whose deadline came. Returns after how
/// many the other side ended the connection; none if it took `resets_max`.
pub async fn reset_at_once(address: &str, resets_max: usize) -> Option<usize> {
    /// Calls that are written together.
    const TOGETHER: usize = 100;
    /// Between them: 10,000 a second.
    const EVERY: Duration = Duration::from_millis(10);
    let stream = TcpStream::connect(address).await;
    let mut stream = stream.unwrap_or_else(|e| panic!("{address}: {e}"));
    let begun = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    begun.unwrap_or_else(|e| panic!("{address}: {e}"));
    // An empty frame of settings.
    let begun = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    begun.unwrap_or_else(|e| panic!("{address}: {e}"));
    let (mut reader, mut writer) = stream.into_split();
    // Whatever it says is of no interest, until it hangs up.
    let over = async {
        let mut bytes = vec![0; 64 * 1024];
        while reader.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    };
    tokio::pin!(over);
    let mut path = b"\x83\x86\x44\x2b".to_vec();
    path.extend(b"/stock.v1.ReservationService/ReserveNothing");
    let mut resets = 0;
    while resets < resets_max {
        let mut frames = BytesMut::new();
        for _ in 0..TOGETHER {
            // HEADERS that end here, the call does not; then RST_STREAM with CANCEL.
            let stream_id = 2 * resets as u32 + 1;
            frames.put_slice(&(path.len() as u32).to_be_bytes()[1..]);
            frames.put_slice(&[1, 4]);
            frames.put_u32(stream_id);
            frames.put_slice(&path);
            frames.put_slice(&[0, 0, 4, 3, 0]);
            frames.put_u32(stream_id);
            frames.put_u32(8);
            resets += 1;
        }
        tokio::select! {
            () = &mut over => return Some(resets),
            written = writer.write_all(&frames) => {
                if written.is_err() {
                    return Some(resets);
                }
            }
        }
        if timeout(EVERY, &mut over).await.is_ok() {
            return Some(resets);
        }
    }
    None
}
