//! What the loop wants done with files, or with much memory.

use std::fmt;

use stock_cluster::{GroupId, ReplicaId};

use crate::checkpoint::Image;
use crate::state::Frozen;

/// Something to be done away from the loop: with files, or with much memory.
#[derive(Debug)]
pub enum Chore {
    /// A state is to be written down:
    /// [`Event::CheckpointWritten`](crate::event::Event::CheckpointWritten).
    WriteCheckpoint(Box<Image>),
    /// A state is to be hashed: [`Event::StateHashed`](crate::event::Event::StateHashed).
    HashState {
        /// Of this group.
        group: GroupId,
        /// By this replica.
        replica: ReplicaId,
        /// As it is after the entry of this index.
        index: u64,
        /// The state.
        frozen: Box<Frozen>,
    },
    /// Checkpoints that are needed no more may be deleted.
    DropCheckpoints {
        /// Of this group.
        group: GroupId,
        /// Those of lower indexes. What is newer stays, also if the loop has not yet heard of it.
        before: u64,
    },
    /// The log has been cut: its files may be made smaller.
    FreeLog {
        /// Beyond this it is made smaller at any price.
        room_bytes: u64,
    },
    /// A snapshot was installed: its file is a checkpoint of this node from now on.
    AdoptSnapshot {
        /// Of this group.
        group: GroupId,
        /// As of this index.
        index: u64,
    },
    /// A snapshot came too late to be of use. Until it is dropped no other one is taken in.
    DropSnapshot {
        /// Of this group.
        group: GroupId,
        /// As of this index.
        index: u64,
    },
    /// Memory is to be given back, of which there may be much: it takes as long as a tenth of a
    /// second.
    GiveBack(Unwanted),
}

/// What nobody wants any more, as a state of millions of positions.
pub struct Unwanted(#[expect(dead_code, reason = "it is there to be dropped")] Box<dyn Send>);

impl Unwanted {
    /// This.
    pub fn new(what: impl Send + 'static) -> Self {
        Self(Box::new(what))
    }
}

impl fmt::Debug for Unwanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unwanted")
    }
}

impl Chore {
    /// Whether it takes a processor for long, and nothing that anybody waits for meanwhile.
    pub fn is_long(&self) -> bool {
        matches!(
            self,
            Self::WriteCheckpoint(_) | Self::HashState { .. } | Self::GiveBack(_)
        )
    }
}
