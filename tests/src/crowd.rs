//! Many connections that want nothing, or that take their time.

use std::net::{IpAddr, SocketAddr};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Connections that are opened at a time.
const AT_A_TIME: usize = 256;

/// Connections from some addresses to others. They end when this is dropped.
#[derive(Debug, Default)]
pub struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens so many connections to `to`, from each of these loopback addresses in turn. Those
    /// which are turned away count, too: that is for the other side to decide.
    pub async fn gather(to: &str, from: &[IpAddr], count: usize) -> Self {
        let to: SocketAddr = to.parse().unwrap_or_else(|e| panic!("{to}: {e}"));
        let mut crowd = Self::default();
        let mut opening = JoinSet::new();
        for number in 0..count {
            if opening.len() >= AT_A_TIME {
                crowd.take(opening.join_next().await);
            }
            opening.spawn(connect(to, from[number % from.len()]));
        }
        while !opening.is_empty() {
            crowd.take(opening.join_next().await);
        }
        crowd
    }

    fn take(&mut self, opened: Option<Result<std::io::Result<TcpStream>, tokio::task::JoinError>>) {
        if let Some(Ok(Ok(stream))) = opened {
            self.0.push(stream);
        }
    }

    /// Writes a byte of `bytes` on each connection, the one of this number. Those which are over
    /// are left out from then on.
    pub fn dribble(&mut self, bytes: &[u8], number: usize) {
        let byte = &bytes[number..][..1];
        self.0.retain(|stream| stream.try_write(byte).is_ok());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody came.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

async fn connect(to: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// So many loopback addresses that nobody else uses.
pub fn addresses(count: u8) -> Vec<IpAddr> {
    let address = |last: u8| IpAddr::from([127, 0, 7, last]);
    (1..=count).map(address).collect()
}

/// Lets this process have as many files open as it may, and says how many that is.
pub fn raise_descriptors() -> u64 {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap_or_else(|e| panic!("no more descriptors: {e}"));
    maximum.unwrap_or(u64::MAX)
}

/// Processor time that a process has used so far, in ticks of the kernel: a hundred a second.
pub fn ticks(process: u32) -> u64 {
    let path = format!("/proc/{process}/stat");
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // The name, in parentheses, may have blanks in it.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |at: usize| -> u64 { fields[at].parse().expect("a number of ticks") };
    ticks(11) + ticks(12)
}
