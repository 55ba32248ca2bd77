//! A cluster in memory, for the tests of programs that use stockd.
//!
//! It is one node with one shard: the same checks, stock rules, words and reasons as a real one,
//! and none of its machinery. It listens on no port, and ends with its last client.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), stock_client::Error> {
//! use stock_client::fake::{Fake, Fault};
//! use stock_client::v1::{Line, ReserveRequest, reserve_response::Outcome};
//!
//! let fake = Fake::new();
//! fake.receive("milk-1l", "store-7", 3);
//! let client = fake.client()?;
//!
//! // The answer is lost on its way. The client asks again, and two units are held once.
//! fake.fail_next::<ReserveRequest>(Fault::LostAfter);
//! let request = ReserveRequest {
//!     request_id: client.new_request_id(),
//!     lines: vec![Line::at("milk-1l", "store-7", 2)],
//!     ..ReserveRequest::default()
//! };
//! let answer = client.reserve(request).await?;
//! assert!(matches!(answer.outcome, Some(Outcome::Reservation(_))));
//! assert_eq!(fake.available("milk-1l", "store-7"), Some(1));
//! assert_eq!(fake.calls_of::<ReserveRequest>(), 2);
//!
//! // Holds end by cluster time, which goes on as the test says.
//! fake.pass(std::time::Duration::from_secs(15 * 60));
//! assert_eq!(fake.available("milk-1l", "store-7"), Some(3));
//! # Ok(())
//! # }
//! ```
//!
//! What it does not have: other nodes, so nothing of routing and no basket over several shards;
//! operators' calls (`stock.admin.v1`), which fail with the code `UNIMPLEMENTED`; and a disk. Tests
//! may have as many of them as they like: none knows of another.

mod clock;
mod fault;
mod services;
mod store;
mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use fault::Fault;
use prost::Name;
use tokio::io::DuplexStream;
use tonic::service::Routes;

use self::fault::Faults;
use self::services::Services;
use self::store::Store;
use self::wire::Wire;
use crate::{Client, ClientBuilder, Error, v1};

/// Where its clients think it is.
const ENDPOINT: &str = "http://fake:7401";

/// A cluster in memory. Clones are the same one.
#[derive(Clone)]
pub struct Fake {
    shared: Arc<Shared>,
}

/// What a fake's connections share.
struct Shared {
    store: Mutex<Store>,
    faults: Faults,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

/// The cluster, and who is connected to it.
impl Fake {
    /// One without locations and stock.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                store: Mutex::new(Store::new()),
                faults: Faults::default(),
            }),
        }
    }

    /// A client of it, with the usual options.
    ///
    /// # Errors
    ///
    /// None but what the compiler cannot see.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime: `#[tokio::test]` is one.
    pub fn client(&self) -> Result<Client, Error> {
        self.builder().connect_lazy()
    }

    /// For a client with other options: of a program that takes a [`ClientBuilder`], or in a test
    /// of its deadlines.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = stock_client::fake::Fake::new();
    /// let builder = fake.builder().call_timeout(std::time::Duration::from_secs(1));
    /// let client = builder.connect().await?;
    /// assert_eq!(client.topology().cluster_id(), "fake");
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(&self) -> ClientBuilder {
        let wire = self.wire();
        Client::builder()
            .endpoint(ENDPOINT)
            .connector(move |endpoint| wire.channel(&endpoint))
    }

    /// A connection for a client of another kind: HTTP/2 without TLS, as over a socket. It must be
    /// called inside a tokio runtime.
    pub fn open(&self) -> DuplexStream {
        self.wire().open()
    }

    fn wire(&self) -> Wire {
        let services = Services::new(&self.shared);
        Wire::to(services.add_to(Routes::default()))
    }
}

/// Its stock.
impl Fake {
    /// Puts units on hand, as a delivery of its own. A location that is not there becomes a store.
    ///
    /// ```
    /// # let fake = stock_client::fake::Fake::new();
    /// fake.receive("milk-1l", "store-7", 3);
    /// fake.receive("milk-1l", "store-7", 3);
    /// assert_eq!(fake.available("milk-1l", "store-7"), Some(6));
    /// assert_eq!(fake.available("milk-1l", "store-8"), None);
    /// ```
    ///
    /// # Panics
    ///
    /// Where a name is none, or the units are not between 1 and 10^9.
    pub fn receive(&self, sku: &str, location: &str, units: i64) {
        let received = self.shared.store().receive(sku, location, units);
        if let Err(status) = received {
            panic!("{}", status.message());
        }
    }

    /// Units that can be sold there now; none where nothing is known of such a position.
    pub fn available(&self, sku: &str, location: &str) -> Option<i64> {
        self.shared.store().available(sku, location)
    }

    /// Every reservation there is, as of now, those that ended within the last day included.
    pub fn reservations(&self) -> Vec<v1::Reservation> {
        self.shared.store().reservations()
    }

    /// Cluster time goes on by this: holds end, ids become old. Ids that are made from now on are
    /// as new as they would be on a machine that had waited. Timeouts of calls go by the machine's
    /// clock, and know nothing of it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::fake::Fake;
    /// # use stock_client::v1::{ErrorReason, Line, ReserveRequest};
    /// # let fake = Fake::new();
    /// # fake.receive("milk-1l", "store-7", 3);
    /// # let client = fake.client()?;
    /// let request = ReserveRequest {
    ///     request_id: client.new_request_id(),
    ///     lines: vec![Line::at("milk-1l", "store-7", 2)],
    ///     ..ReserveRequest::default()
    /// };
    /// client.reserve(request.clone()).await?;
    /// fake.pass(std::time::Duration::from_secs(11 * 60));
    /// let error = client.reserve(request).await.unwrap_err();
    /// assert_eq!(error.reason(), ErrorReason::RequestTooOld);
    /// # Ok(())
    /// # }
    /// ```
    pub fn pass(&self, time: Duration) {
        self.shared.store().pass(time);
    }
}

/// What goes wrong, and what has come.
impl Fake {
    /// The next call with a request of this kind fails. Of several faults for one kind each takes
    /// one attempt: the client's own repeats are attempts, too. A kind is the request's type; a
    /// stream's is [`v1::ReserveStreamRequest`], one for each of its messages.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::fake::{Fake, Fault};
    /// # let fake = Fake::new();
    /// # let client = fake.client()?;
    /// use stock_client::v1::{GetAvailabilityRequest, PositionKey};
    ///
    /// fake.fail_next::<GetAvailabilityRequest>(Fault::NoLeader);
    /// fake.fail_next::<GetAvailabilityRequest>(Fault::Overloaded);
    /// let keys = vec![PositionKey::everywhere("milk-1l")];
    /// client.get_availability(GetAvailabilityRequest { keys, read: None }).await?;
    /// assert_eq!(fake.calls_of::<GetAvailabilityRequest>(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fail_next<M: Name>(&self, fault: Fault) {
        self.shared.faults.add(M::NAME, fault);
    }

    /// Every call with a request of this kind fails, behind those that [`Fake::fail_next`] told of,
    /// until [`Fake::mend`]. [`Error`] has an example.
    pub fn fail_all<M: Name>(&self, fault: Fault) {
        self.shared.faults.add_for_good(M::NAME, fault);
    }

    /// Nothing fails any more, what [`Fake::fail_next`] told of included.
    pub fn mend(&self) {
        self.shared.faults.forget();
    }

    /// Attempts at calls with requests of this kind, those that failed included, since the fake was
    /// made.
    pub fn calls_of<M: Name>(&self) -> usize {
        self.shared.faults.calls_of(M::NAME)
    }
}
