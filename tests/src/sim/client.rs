//! Somebody who asks.

use super::calls::CallId;
use super::router::Router;
use super::workload::Wish;

/// Somebody who asks.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) current: Option<Current>,
    /// The node that answered last; a loyal client asks it again.
    pub(crate) home: Option<u64>,
    /// What it wants next, and of whichever node.
    pub(crate) next: Option<Wish>,
    /// It finds its way itself.
    pub(crate) router: Option<Box<Router>>,
}

/// What happens to one that finds its way itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Routed {
    /// An attempt has been silent for as long as its client's patience.
    Late(CallId),
    /// A node may be due for a probe.
    Probe(u64),
    /// A question who leads what gets to a node: a probe's, or a look's.
    Asked { node: u64, is_probe: bool },
    /// The node has not answered it; it does not run, or nothing is heard of it.
    Untold {
        node: u64,
        is_probe: bool,
        runs: bool,
    },
}

/// What it waits for.
pub(crate) struct Current {
    pub(crate) wish: Wish,
    pub(crate) attempts: u32,
    /// The attempt under way.
    pub(crate) call: Option<CallId>,
}

impl Client {
    /// Whether it waits for something.
    pub(crate) fn is_busy(&self) -> bool {
        self.current.is_some()
    }

    /// What it waits for.
    pub(crate) fn describe(&self) -> Option<String> {
        let current = self.current.as_ref()?;
        Some(format!(
            "{:?} ({} attempts)",
            current.wish, current.attempts
        ))
    }
}
