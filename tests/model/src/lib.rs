//! DRAFT
mod identity;
mod model;
mod raft;
mod state;

pub use model::{
    Action, Bounds, Counts, Forgetting, IdentityModel, Rules, property,
};
pub use state::State;
