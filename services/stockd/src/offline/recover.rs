//! Going on from what is left where most nodes of a cluster are lost for good.
//!
//! For each group that has lost its majority, the surviving replica with the longest log is made
//! the only voter, by entries that are written behind the end of its log. Group 0 is always among
//! them: one more entry tells the registry who is left. What a surviving log holds beyond the last
//! known commit becomes committed with it.
//!
//! A new life of the cluster begins: nodes of the earlier one, should they come back, are turned
//! away. All that is written may be written again, so an interruption is no harm: run it once more
//! with the same directories.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use stock_storage::{OnDamage, OsVolume, ReadOnlyVolume, Volume};

use super::DataDir;
use super::carry_out::carry_out;
use super::error::RecoverError;
use super::plan::plan;

/// What is left, and whether to go on from it.
#[derive(Debug, Args)]
pub struct Options {
    /// The data directory of a surviving node, stopped; repeat the flag for every node that is left
    #[arg(long = "data-dir", value_name = "DIR", required = true)]
    pub data_dirs: Vec<PathBuf>,
    /// Do it: every other node of the cluster is lost for good, with its disk. Without this flag it
    /// is only shown what would be done, and nothing is changed
    #[arg(long)]
    pub lose_everything_else: bool,
    /// Instead of being asked: the cluster's id
    #[arg(long, value_name = "CLUSTER_ID", requires = "lose_everything_else")]
    pub confirm: Option<String>,
    /// Where the directories are of different lives of the cluster, as after two recoveries: the
    /// one to go on from, by the first digits of its number. What only the others have is lost
    #[arg(long, value_name = "LIFE")]
    pub keep_life: Option<String>,
    /// Do not look into the ledgers: whether a log has lost its end is then known from its states
    /// alone
    #[arg(long)]
    pub no_ledger: bool,
    /// Where ledgers are copied to, one after the other, to be looked into; needs as much space as
    /// the largest
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub scratch: PathBuf,
    /// Go on though some shards have no replica on any node that is left; they stay unavailable
    #[arg(long)]
    pub leave_lost_shards: bool,
}

/// Shows what is left and, where it is told to, goes on from it.
///
/// # Errors
///
/// [`RecoverError`]; after one of a disk, run it again with the same directories.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut dirs = open(options, Opened::ToLook)?;
    let mut plan = plan(&dirs, options.keep_life.as_deref())?;
    println!("{}", super::recover_words::plan(&plan, &options.data_dirs));
    if plan.is_needless() {
        return Ok(ExitCode::SUCCESS);
    }
    let lost = match plan.is_marked_only {
        true => Vec::new(),
        false => plan.lost_groups(),
    };
    if !lost.is_empty() && !options.leave_lost_shards {
        return Err(RecoverError::LostShards { groups: lost }.into());
    }
    if !options.lose_everything_else {
        println!("\nNothing was changed. To do it, run this again with --lose-everything-else.");
        return Ok(ExitCode::SUCCESS);
    }
    let said = match &options.confirm {
        Some(said) => said.clone(),
        None => ask(&plan.cluster_id)?,
    };
    if said.trim() != plan.cluster_id {
        let expected = plan.cluster_id;
        return Err(RecoverError::NotConfirmed { expected }.into());
    }
    drop(dirs);
    dirs = open(options, Opened::ToChange)?;
    let shown = super::recover_words::plan(&plan, &options.data_dirs);
    plan = super::plan::plan(&dirs, options.keep_life.as_deref())?;
    let found = super::recover_words::plan(&plan, &options.data_dirs);
    if found != shown {
        return Err(RecoverError::Changed { found }.into());
    }
    carry_out(&mut dirs, &plan, rand::random::<u128>().max(2))?;
    println!("{}", super::recover_words::done(&plan, &options.data_dirs));
    Ok(ExitCode::SUCCESS)
}

/// What directories are opened for.
#[derive(Clone, Copy)]
enum Opened {
    /// Nothing in them is changed.
    ToLook,
    /// A log that is damaged is kept as it was found, and cut.
    ToChange,
}

fn open(options: &Options, to: Opened) -> Result<Vec<DataDir>, RecoverError> {
    let open = |path: &PathBuf| {
        let (volume, on_damage): (Arc<dyn Volume>, _) = match to {
            Opened::ToLook => (Arc::new(ReadOnlyVolume::default()), OnDamage::Look),
            Opened::ToChange => (Arc::new(OsVolume), OnDamage::Salvage),
        };
        let mut dir = DataDir::open(volume, path, on_damage)?;
        if !options.no_ledger {
            dir.look_into_history(&options.scratch)?;
        }
        Ok(dir)
    };
    let dirs: Result<Vec<DataDir>, RecoverError> = options.data_dirs.iter().map(open).collect();
    let mut dirs = dirs?;
    super::find_older_copies(&mut dirs);
    Ok(dirs)
}

#[expect(clippy::print_stdout, reason = "it asks a person")]
fn ask(cluster_id: &str) -> Result<String, RecoverError> {
    let refused = || RecoverError::NotConfirmed {
        expected: cluster_id.to_owned(),
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    print!("\nType the cluster's id to go on: ");
    let mut said = String::new();
    let asked = std::io::stdout().flush();
    let heard = asked.and_then(|()| std::io::stdin().lock().read_line(&mut said));
    heard.map_err(|_| refused())?;
    Ok(said)
}
