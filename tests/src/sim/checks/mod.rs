//! What the system promises, each as a check with a name.
//!
//! | check | promise |
//! |---|---|
//! | `one founding` | nobody founds a cluster with some of those with whom another founds one |
//! | `one life` | a node follows the latest life of its cluster, and no other |
//! | `who is who` | nobody is refused who is the node that it says it is, and forgot nothing |
//! | `forgotten` | a log that was cut at a damage counts for nothing, and its node joins anew |
//! | `recovery` | a recovery goes on from what is left, and from nothing that another has decided |
//! | `one history` | what was committed once is committed for ever, the same on every node |
//! | `one leader` | a term has one leader |
//! | `ready` | who says that it is ready has come as far as its groups were when it started |
//! | `room to lead` | who has no room leads nothing that another could lead |
//! | `fit to lead` | nobody leads before it has replayed its log |
//! | `as sent` | the log holds the commands as their callers sent them |
//! | `the rules` | outcomes and ledger are what an independent model of the rules says |
//! | `no oversell` | no accepted basket leaves available below its limit |
//! | `conservation` | each counter is the sum of its ledger; each held unit has one end |
//! | `answers` | who was answered was told what the log says, at the index it says |
//! | `real time` | what was answered before something began comes before it in the log |
//! | `reads` | a read is of the state at the index it names, and as new as was asked for |
//! | `one outcome` | a basket over shards comes to one thing, whoever asks, and however often |
//! | `held is held` | who was told that a basket is held has it held, whatever dies then |
//! | `all or nothing` | of a basket over shards that is open, all lines are set aside |
//! | `no early end` | no hold ends before 0.99 of its time to live, after whatever outage |
//! | `taken in time` | no caller whose clock is right is told that it is ahead |
//! | `equal replicas` | replicas of equal index have equal states |
//! | `no panic`, `no stop` | a node neither panics nor gives up, unless its disk gave it reason |
//! | `no failed replica` | only a disk that was damaged makes a replica fail |
//! | `gapless history` | the ledger has no hole, and begins anew only behind a snapshot or damage |
//! | `routing` | clients repeat what may help; in the end each call finds its way, past a cut |
//! | `liveness` | once nothing goes wrong any more, all is answered, and every group is whole |

pub(crate) mod answers;
pub(crate) mod baskets;
pub(crate) mod history;
pub(crate) mod holds;
pub(crate) mod leaders;
pub(crate) mod replicas;

#[path = "../../../../services/stock-core/tests/audit/mod.rs"]
mod audit;
#[path = "../../../../services/stock-core/tests/model/naive.rs"]
#[expect(dead_code, reason = "the tests of the core use the rest")]
mod naive;
#[path = "../../../../services/stock-core/tests/model/naive_baskets.rs"]
mod naive_baskets;

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The check's name.
    pub check: &'static str,
    /// What was seen.
    pub seen: String,
}

/// A check has passed, or something was seen that must not be.
pub(crate) type Checked = Result<(), Broken>;

/// Says so.
pub(crate) fn broken<T>(check: &'static str, seen: impl Into<String>) -> Result<T, Broken> {
    Err(Broken {
        check,
        seen: seen.into(),
    })
}
