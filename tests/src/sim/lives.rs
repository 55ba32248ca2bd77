//! The lives of a cluster.

/// Which life of the cluster a run is.
pub(crate) const LIFE: u128 = 1;

/// The life before which a founder founded another cluster; see [`FaultKind::EarlierLife`].
pub(crate) const FOUNDED_BEFORE: u128 = LIFE + 1;

/// A recovery that has been.
#[derive(Debug, Clone)]
pub(crate) struct Recovered {
    /// The node that was left.
    pub(crate) left: u64,
    /// Those that were not.
    pub(crate) lost: Vec<u64>,
    pub(crate) looks: u32,
}
