//! How a client is opened, the cluster as it sees it, and the ids that it makes.

use std::sync::Arc;

use stock_proto::stock::v1::topology_service_client::TopologyServiceClient;
use stock_proto::stock::v1::{GetTopologyRequest, GetTopologyResponse};
use tonic::transport::Channel;

use super::Client;
use crate::builder::ClientBuilder;
use crate::error::Error;
use crate::options::CallOptions;
use crate::request_id::{made_at, new_request_id};
use crate::way::{Target, Topology};

/// The cluster as the client sees it.
impl Client {
    /// Opens a client with the usual limits; `endpoint` is any node's, as `http://HOST:PORT`, or an
    /// address in front of some.
    ///
    /// Fails as [`ClientBuilder::connect`] does.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), stock_client::Error> {
    /// let client = stock_client::Client::connect("http://10.0.0.1:7401").await?;
    /// # drop(client);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::builder().endpoint(endpoint).connect().await
    }

    /// Options first, then [`ClientBuilder::connect`].
    ///
    /// ```
    /// let builder = stock_client::Client::builder().endpoint("http://10.0.0.1:7401");
    /// assert!(builder.check().is_ok());
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The same client with other options for the calls that are made through it: cheap, so that
    /// each call may have its own. What the options leave out is as it was in this one; connections
    /// and places for calls ([`ClientBuilder::calls_at_once`]) are shared.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # use stock_client::v1::ReserveRequest;
    /// # let fake = Fake::new();
    /// # let client = fake.client()?;
    /// use std::time::Duration;
    /// use stock_client::fake::Fault;
    /// use stock_client::{CallOptions, Error};
    ///
    /// fake.fail_all::<ReserveRequest>(Fault::Silent);
    /// let hurried = client.with(CallOptions::new().timeout(Duration::from_millis(200)));
    /// let error = hurried.reserve(ReserveRequest::default()).await.unwrap_err();
    /// assert!(matches!(error, Error::Timeout { .. }) && error.outcome_unknown());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with(&self, options: CallOptions) -> Self {
        Self::of(Arc::clone(&self.pool), options.over(&self.options))
    }

    /// The cluster as it was last seen; without shards and nodes until one has answered. It asks
    /// nobody: [`Client::get_topology`] does.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.builder().connect().await?;
    /// assert_eq!(client.topology().cluster_id(), "fake");
    /// assert_eq!(client.topology().shard_count(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn topology(&self) -> Arc<Topology> {
        self.pool.topology()
    }

    /// The shard a SKU lives in: lines of one basket must share it. 0 until a node has answered, as
    /// one has behind [`Client::connect`], though not behind [`ClientBuilder::connect_lazy`].
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.builder().connect().await?;
    /// let shards = client.topology().shard_count();
    /// assert_eq!(client.shard_of("milk-1l"), stock_client::shard_of_sku("milk-1l", shards));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shard_of(&self, sku: &str) -> u32 {
        self.pool.topology().shard_of(sku)
    }

    /// The connection to the node that leads a stock shard; `None` while that is unknown. It is for
    /// what the client has no method for: calls over it are the program's own, without retries,
    /// timeouts and metrics. It is the connection of the moment: ask for it anew for each call.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let fake = Fake::new();
    /// # let client = fake.builder().connect().await?;
    /// use stock_client::v1::GetTopologyRequest;
    /// use stock_client::v1::topology_service_client::TopologyServiceClient;
    ///
    /// let leader = client.leader_channel(0).expect("the shard has a leader");
    /// let answer = TopologyServiceClient::new(leader).get_topology(GetTopologyRequest {}).await?;
    /// assert_eq!(Some(answer.into_inner().node_id), client.topology().leader_of(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn leader_channel(&self, shard: u32) -> Option<Channel> {
        let leader = self.pool.topology().leader_of(shard)?;
        self.pool.node_channel(leader)
    }

    /// The connection to each node, by node id; empty until a node has answered. Calls over them
    /// are the program's own, as over [`Client::leader_channel`].
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.builder().connect().await?;
    /// let nodes: Vec<u64> = client.node_channels().into_iter().map(|(node, _)| node).collect();
    /// assert_eq!(nodes, [1]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn node_channels(&self) -> Vec<(u64, Channel)> {
        self.pool.node_channels()
    }

    /// The cluster as a node sees it now.
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.client()?;
    /// let answer = client.get_topology().await?;
    /// assert_eq!(answer.shards[0].leader_node_id, Some(answer.node_id));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_topology(&self) -> Result<GetTopologyResponse, Error> {
        self.small(
            Target::Any,
            GetTopologyRequest {},
            |channel, request| async {
                TopologyServiceClient::new(channel)
                    .get_topology(request)
                    .await
            },
        )
        .await
    }
}

/// Ids.
impl Client {
    /// A new request id, made by the cluster's time as soon as a node has told it: a clock of this
    /// machine that is wrong does no harm. Otherwise as [`new_request_id`].
    ///
    /// ```
    /// # use stock_client::fake::Fake;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), stock_client::Error> {
    /// # let fake = Fake::new();
    /// # let client = fake.client()?;
    /// // Stored with the order, before the call.
    /// let request_id = client.new_request_id();
    /// assert_ne!(request_id, client.new_request_id());
    /// # Ok(())
    /// # }
    /// ```
    pub fn new_request_id(&self) -> String {
        let time = self.pool.cluster_time();
        time.map_or_else(new_request_id, made_at)
    }

    /// A retry is only safe under an id, so every mutation gets one before it is sent for the first
    /// time.
    pub(crate) fn fill_request_id(&self, request_id: &mut String) {
        if request_id.is_empty() {
            *request_id = self.new_request_id();
        }
    }
}
