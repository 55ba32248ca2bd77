//! A disk that becomes slow: its node is led by others soon.

use std::time::{Duration, Instant};

use tests::cluster::{Cluster, Disks, NODES, Options};
use tests::operator::Operator;
use tests::shop::Shop;
use tests::wait::until;

use crate::can_mount;

const SEED: u64 = 20_261_101;

/// Twice what is called slow, and far more than the other disks take.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// A few seconds until enough slow writes are seen, three until they are believed, and the
/// hand-overs; twice, if the leader of group 0 is the slow one.
const AWAY_WITHIN: Duration = Duration::from_secs(60);

/// Calls that are answered before, and afterwards.
const CALLS: u64 = 100;

#[tokio::test]
async fn a_node_whose_disk_becomes_slow_under_load_leads_nothing_soon() {
    if !can_mount() {
        return;
    }
    let cluster = Cluster::start(Options {
        shards: 5,
        disks: Disks::Forgetful { seed: SEED },
        ..Options::default()
    })
    .await;
    cluster.wait_until_spread().await;
    let shop = Shop::open(&cluster).await;
    let operator = Operator::new(cluster.client().await);
    // The hardest case: who decides is the one to go.
    let slow = cluster.agreed_leaders().await.unwrap()[0];
    let trouble = async {
        shop.more_calls(CALLS).await;
        cluster.disk(slow).delay_syncs(SLOW_SYNC);
        let began = Instant::now();
        until("leaders on good disks", AWAY_WITHIN, async || {
            let leaders = cluster.agreed_leaders().await?;
            let nodes = operator.nodes().await?;
            let said: Vec<u64> = nodes
                .iter()
                .filter(|node| node.slow_disk)
                .map(|node| node.node_id)
                .collect();
            let is_away = !leaders.contains(&slow) && said == [slow];
            let writes_us: Vec<u64> = nodes.iter().filter_map(|node| node.write_p50_us).collect();
            is_away.then_some(()).ok_or(format!(
                "node {slow} is slow: {leaders:?}, said {said:?}, writes take {writes_us:?} us"
            ))
        })
        .await;
        eprintln!("node {slow} leads nothing after {:?}", began.elapsed());
        let (_, waiting) = operator.groups().await.unwrap();
        let leads_nothing = format!("node {slow} leads nothing");
        assert!(
            waiting.iter().any(|text| text.contains(&leads_nothing)),
            "{waiting:?}"
        );
        shop.more_calls(CALLS).await;
        let leaders = cluster.agreed_leaders().await.unwrap();
        assert!(!leaders.contains(&slow), "{leaders:?}");
    };
    shop.trade_during(SEED, trouble).await;
    NODES.iter().for_each(|node| cluster.disk(*node).heal());
    shop.account_for_all(&cluster).await;
    assert_eq!(shop.failures(), 0, "failed calls");
}
