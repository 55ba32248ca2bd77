//! Which cluster a client is of, and which life of it.

use std::time::Duration;

use prost_types::Timestamp;
use stock_proto::stock::v1::GetTopologyResponse;

/// Where nobody of the life that is known has said anything for so long, another one is believed
/// whatever its clock says: the cluster was founded anew on machines whose clocks are behind.
const SILENT_FOR: Duration = Duration::from_secs(5);

/// A client is of one cluster for as long as it lives: of the one it was told, or else of the first
/// that answers. Addresses are used again, and whoever answers there now may be of another.
#[derive(Debug)]
pub(super) struct Life {
    cluster_id: Option<String>,
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    incarnation: Vec<u8>,
    /// The latest cluster time that was told: seconds and nanoseconds.
    time: (i64, i32),
    heard_at: Duration,
}

/// Whose word something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// A node's of the life that is known.
    OfThisLife,
    /// A node's of a later one: of a cluster that was recovered, or founded anew.
    OfAnother,
    /// Somebody else's.
    ByAStranger,
}

impl Life {
    pub(super) fn new(cluster_id: Option<String>) -> Self {
        let known = None;
        Self { cluster_id, known }
    }

    /// Takes note of what somebody said.
    pub(super) fn hear(&mut self, view: &GetTopologyResponse, now: Duration) -> Said {
        let header = view.header.as_ref();
        let incarnation = header.map_or(&[][..], |header| &header.incarnation);
        let time = header.and_then(|header| header.cluster_time.as_ref());
        let time = time.map_or((0, 0), |&Timestamp { seconds, nanos }| (seconds, nanos));
        let is_ours = self
            .cluster_id
            .as_ref()
            .is_none_or(|it| *it == view.cluster_id);
        if !is_ours || incarnation.is_empty() {
            return Said::ByAStranger;
        }
        let said = match &mut self.known {
            Some(known) if known.incarnation == incarnation => {
                known.time = known.time.max(time);
                known.heard_at = now;
                return Said::OfThisLife;
            }
            // One that was left behind by a recovery stands where it stood.
            Some(known) => {
                let is_silent = now.saturating_sub(known.heard_at) > SILENT_FOR;
                if time <= known.time && !is_silent {
                    return Said::ByAStranger;
                }
                Said::OfAnother
            }
            None => Said::OfThisLife,
        };
        self.cluster_id
            .get_or_insert_with(|| view.cluster_id.clone());
        self.known = Some(Known {
            incarnation: incarnation.to_vec(),
            time,
            heard_at: now,
        });
        said
    }

    /// The cluster's name, once it is known.
    pub(super) fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use stock_proto::stock::v1::ResponseHeader;

    use super::*;

    fn view(cluster: &str, life: u8, seconds: i64) -> GetTopologyResponse {
        GetTopologyResponse {
            header: Some(ResponseHeader {
                indexes: Vec::new(),
                cluster_time: Some(Timestamp { seconds, nanos: 0 }),
                incarnation: vec![life; 16].into(),
            }),
            cluster_id: cluster.into(),
            ..GetTopologyResponse::default()
        }
    }

    #[test]
    fn the_first_one_that_answers_is_the_one_for_ever() {
        let mut life = Life::new(None);
        let second = Duration::from_secs(1);
        assert_eq!(life.hear(&view("shop", 1, 10), second), Said::OfThisLife);
        assert_eq!(life.cluster_id(), Some("shop"));
        for later in [second, second * 10_000] {
            assert_eq!(life.hear(&view("other", 9, 99), later), Said::ByAStranger);
        }
        assert_eq!(life.hear(&view("shop", 1, 5), second * 2), Said::OfThisLife);

        let mut configured = Life::new(Some("shop".into()));
        assert_eq!(
            configured.hear(&view("other", 1, 1), second),
            Said::ByAStranger
        );
        assert_eq!(
            configured.hear(&view("shop", 1, 1), second),
            Said::OfThisLife
        );
    }

    #[test]
    fn another_life_is_believed_where_it_is_later_or_nobody_speaks_for_this_one() {
        let mut life = Life::new(None);
        let second = Duration::from_secs(1);
        life.hear(&view("shop", 1, 10), second);
        assert_eq!(life.hear(&view("shop", 2, 9), second), Said::ByAStranger);
        assert_eq!(life.hear(&view("shop", 2, 11), second), Said::OfAnother);
        // Whoever was left behind is of the past.
        assert_eq!(life.hear(&view("shop", 1, 10), second), Said::ByAStranger);
        let silent = second + SILENT_FOR;
        assert_eq!(life.hear(&view("shop", 3, 2), silent), Said::ByAStranger);
        let longer = silent + second;
        assert_eq!(life.hear(&view("shop", 3, 2), longer), Said::OfAnother);
    }

    #[test]
    fn a_node_without_a_life_is_of_no_cluster_yet() {
        let mut life = Life::new(Some("shop".into()));
        let unborn = GetTopologyResponse {
            cluster_id: "shop".into(),
            ..GetTopologyResponse::default()
        };
        assert_eq!(life.hear(&unborn, Duration::ZERO), Said::ByAStranger);
    }
}
