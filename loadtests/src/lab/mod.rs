//! The laboratory: load on whatever can be called, in windows that are all measured alike.
//!
//! ```text
//! Caller        one piece of work against one system
//! closed_loop   so many callers, each waiting for its answer      -> how much, and how long alone
//! open_loop     calls on a schedule that waits for nobody         -> how long under a given load
//! Window        one of them for some seconds: times, processor, bytes written, stolen time
//! Detail        a window by kind of call, and a point for every second or so
//! Figures       medians over the windows of a kind
//! ```

mod call;
mod closed_loop;
mod detail;
mod figures;
pub(crate) mod fsync;
mod load;
pub(crate) mod machine;
mod open_loop;
mod pacer;
mod patience;
mod recorder;
mod series;
pub(crate) mod stolen;
mod table;
mod usage;
mod window;

pub(crate) use self::call::{BEHIND_MAX, Call, Caller, Outcome, histogram};
pub(crate) use self::detail::{Point, Summary};
pub(crate) use self::figures::{Figures, ratio};
pub(crate) use self::load::{Load, WindowTimes};
pub(crate) use self::open_loop::Departures;
pub(crate) use self::pacer::Pacer;
pub(crate) use self::patience::Patience;
pub(crate) use self::recorder::Recorder;
pub(crate) use self::series::Series;
pub(crate) use self::table::table;
pub(crate) use self::usage::Processes;
pub(crate) use self::window::Window;
