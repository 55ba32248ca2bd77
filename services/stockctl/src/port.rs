//! What is at an address where no node answers: whoever took one port for another is told which.
//!
//! What the transport says of it depends on who was faster, and tells a person nothing. So the
//! address is spoken to once more: as a browser would, which web servers and a node's metrics
//! answer, and, where that is hung up on, as who speaks TLS.

use std::io::{self, ErrorKind};
use std::time::Duration;

use stock_client::StatusError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Uri;

/// A connection takes no longer, as in the client.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Who has said nothing for so long is silent.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// So much of an answer shows what it is: a node's metrics say so in their first line.
const ANSWER_BYTES_MAX: usize = 4096;

/// So much of an answer that is not understood is shown.
const SHOWN_BYTES_MAX: usize = 24;

/// Every metric of a node is named so.
const OF_STOCKD: &[u8] = b"# TYPE stockd_";

/// What somebody says who speaks TLS 1.2, as short as it can be: whoever speaks TLS answers, and be
/// it with a refusal.
const TLS_HELLO: [u8; 50] = {
    let mut hello = [0; 50];
    // A record with a handshake in it, and a hello in that, of version 1.2. The 32 bytes that
    // should be random are zero.
    let (start, end) = (
        [0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3],
        [0, 0, 2, 0xc0, 0x2f, 1, 0],
    );
    let mut at = 0;
    while at < start.len() {
        hello[at] = start[at];
        at += 1;
    }
    at = 0;
    while at < end.len() {
        hello[start.len() + 32 + at] = end[at];
        at += 1;
    }
    hello
};

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nobody listens there.
    Nothing,
    /// The host is not there, or cannot be reached: why.
    NoHost(String),
    /// It takes connections, and says nothing.
    Silence,
    /// It ends connections without a word.
    HangsUp,
    /// A node's metrics.
    Metrics,
    /// A web server.
    Web,
    /// Who speaks TLS.
    Tls,
    /// Who speaks HTTP/2, as nodes do.
    Http2,
    /// Somebody else, who begins like this.
    Other(String),
}

/// Looks at all of them at the same time, and returns what is there in their order.
pub(crate) async fn look(endpoints: &[String]) -> Vec<(String, Found)> {
    let mut looks = JoinSet::new();
    for (number, endpoint) in endpoints.iter().cloned().enumerate() {
        looks.spawn(async move {
            let found = at(&endpoint).await;
            (number, endpoint, found)
        });
    }
    let mut all = looks.join_all().await;
    all.sort_by_key(|(number, ..)| *number);
    let all = all.into_iter();
    all.map(|(_, endpoint, found)| (endpoint, found)).collect()
}

async fn at(endpoint: &str) -> Found {
    let url = match endpoint.contains("://") {
        true => endpoint.to_owned(),
        false => format!("http://{endpoint}"),
    };
    let uri = url.parse::<Uri>().ok();
    let Some(host) = uri.as_ref().and_then(Uri::host) else {
        return Found::NoHost("it names no host".into());
    };
    let port = uri.as_ref().and_then(Uri::port_u16).unwrap_or(80);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    match answer(host, port, request.as_bytes()).await {
        Err(found) => found,
        Ok(Said::Nothing) => Found::Silence,
        Ok(Said::Goodbye) => match answer(host, port, &TLS_HELLO).await {
            Ok(Said::Bytes(bytes)) if is_tls(&bytes) => Found::Tls,
            _ => Found::HangsUp,
        },
        Ok(Said::Bytes(bytes)) => judge(&bytes),
    }
}

/// What somebody says to something that was said.
enum Said {
    Nothing,
    Goodbye,
    Bytes(Vec<u8>),
}

async fn answer(host: &str, port: u16, words: &[u8]) -> Result<Said, Found> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let mut stream = match timeout(CONNECT_WITHIN, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => {
            return Err(Found::Nothing);
        }
        Ok(Err(error)) => return Err(Found::NoHost(error.to_string())),
        Err(_) => {
            let seconds = CONNECT_WITHIN.as_secs();
            return Err(Found::NoHost(format!("no connection within {seconds} s")));
        }
    };
    let mut bytes = Vec::new();
    let heard: Result<io::Result<()>, _> = timeout(ANSWER_WITHIN, async {
        stream.write_all(words).await?;
        let mut part = [0; ANSWER_BYTES_MAX];
        while bytes.len() < ANSWER_BYTES_MAX {
            match stream.read(&mut part).await? {
                0 => break,
                read => bytes.extend_from_slice(&part[..read]),
            }
        }
        Ok(())
    })
    .await;
    Ok(match (bytes.is_empty(), heard) {
        (false, _) => Said::Bytes(bytes),
        (true, Ok(_)) => Said::Goodbye,
        (true, Err(_)) => Said::Nothing,
    })
}

fn judge(bytes: &[u8]) -> Found {
    let has = |words: &[u8]| bytes.windows(words.len()).any(|part| part == words);
    match bytes {
        _ if bytes.starts_with(b"HTTP/") && has(OF_STOCKD) => Found::Metrics,
        // Some say in plain words that they were not spoken to in TLS.
        _ if bytes.starts_with(b"HTTP/") && has(b"HTTPS") => Found::Tls,
        _ if bytes.starts_with(b"HTTP/") => Found::Web,
        _ if is_tls(bytes) => Found::Tls,
        // A frame with settings: three bytes of length, and its kind. HTTP/2 begins with it.
        [0, _, _, 4, ..] => Found::Http2,
        _ => {
            let shown = &bytes[..bytes.len().min(SHOWN_BYTES_MAX)];
            Found::Other(shown.escape_ascii().to_string())
        }
    }
}

/// A handshake, or an alert.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [0x15 | 0x16, 3, ..])
}

impl Found {
    /// What follows the address in a sentence; `last` is what the client's last attempt failed
    /// with.
    pub(crate) fn words(&self, last: Option<&StatusError>) -> String {
        match self {
            Self::Http2 => match last {
                Some(last) if last.transport => format!("gives no answer: {last}"),
                Some(last) => format!("answers, but not as a node of stockd does: {last}"),
                None => "gives no answer".into(),
            },
            Self::Nothing => "is closed: nobody listens there".into(),
            Self::NoHost(why) => format!("is not reached: {why}"),
            Self::Silence => {
                "takes connections and says nothing: a node that is stopped or has too much to do, \
                 or another program"
                    .into()
            }
            Self::HangsUp => {
                "answers, but not as a node's port for clients does: it hangs up. Most probably it \
                 is a node's port for other nodes (listen.peers), or another program's"
                    .into()
            }
            Self::Metrics => "is a node's port for metrics (listen.metrics)".into(),
            Self::Web => "answers as a web server does, and not as a node of stockd".into(),
            Self::Tls => "speaks TLS, and stockctl does not".into(),
            Self::Other(bytes) => {
                format!("answers, but not as a node of stockd does: it begins with \"{bytes}\"")
            }
        }
    }

    /// Whether somebody is there who is no node's port for clients.
    pub(crate) fn is_another_port(&self) -> bool {
        match self {
            Self::HangsUp | Self::Metrics | Self::Web | Self::Tls | Self::Other(_) => true,
            Self::Nothing | Self::NoHost(_) | Self::Silence | Self::Http2 => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_answers_is_known_by_the_first_bytes() {
        let page = b"HTTP/1.1 200 OK\r\n\r\n# TYPE stockd_skus gauge";
        for (bytes, found) in [
            (&page[..], Found::Metrics),
            (b"HTTP/1.1 404 Not Found\r\n\r\n", Found::Web),
            (
                b"HTTP/1.1 400 Bad Request\r\n\r\nplain HTTP sent to an HTTPS port",
                Found::Tls,
            ),
            (&[0x15, 3, 1, 0, 2, 2, 70], Found::Tls),
            (&[0, 0, 24, 4, 0, 0, 0, 0, 0], Found::Http2),
            (b"SSH-2.0-x\r\n", Found::Other("SSH-2.0-x\\r\\n".into())),
        ] {
            assert_eq!(judge(bytes), found);
        }
    }

    #[test]
    fn the_hello_says_how_long_it_is() {
        let length = |at: usize| usize::from(TLS_HELLO[at]);
        assert_eq!(5 + length(4), TLS_HELLO.len(), "the record");
        assert_eq!(9 + length(8), TLS_HELLO.len(), "the handshake");
    }
}
