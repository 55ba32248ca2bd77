//! What is in the data directory of a node that does not run.
//!
//! Nothing on the disk changes: what opening would tidy up is tidied up in memory, and the ledger
//! is looked at in a copy.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;
use stock_cluster::{GroupId, ReplicaId};
use stock_core::Stamp;
use stock_node::worker::Standing;
use stock_replica::{Configuration, Extent};
use stock_storage::{OnDamage, ReadOnlyVolume};

use super::account::Account;
use super::ledger_copy::LedgerCopy;
use super::replay::{bring_back, read_entries};
use super::{DataDir, OfflineError};
use crate::config::Node;
use crate::directory::checkpoint_files;
use crate::directory::node_record::Membership;

/// What to look at.
#[derive(Debug, Args)]
pub struct Options {
    /// The data directory of a node that does not run
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Read every byte, and bring every state back: takes as long as a start of the node
    #[arg(long)]
    pub verify: bool,
    /// Leave the ledger out: it is copied in order to be looked at
    #[arg(long)]
    pub no_ledger: bool,
    /// Where the copy of the ledger goes; it is deleted afterwards
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    pub scratch: PathBuf,
    /// How to show it
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// For whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where.
    pub data_dir: PathBuf,
    /// The cluster's name.
    pub cluster_id: String,
    /// The node's id.
    pub node_id: u64,
    /// Stock shards of the cluster.
    pub shards: u32,
    /// The number of the directory, hexadecimal.
    pub directory: String,
    /// Which life of the cluster the data are of, hexadecimal.
    pub incarnation: String,
    /// How the node became a member.
    pub membership: Membership,
    /// The nodes as last heard of.
    pub nodes: Vec<Node>,
    /// Something in it was damaged once: what it has counts for nothing, and its node joins anew.
    pub has_forgotten: bool,
    /// What was given up when the cluster was recovered with this directory, once for each time.
    pub recoveries: Vec<Account>,
    /// Whether every byte was read.
    pub verified: bool,
    /// A write at the end of the log that is not whole, and is cut at the next start. One that was
    /// interrupted had not been acknowledged; one of which the disk has lost the end may have been.
    pub torn_write: Option<TornWrite>,
    /// Every group, group 0 first.
    pub groups: Vec<GroupReport>,
    /// What is damaged; nothing where all is well.
    pub damage: Vec<Damage>,
}

/// An interrupted write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TornWrite {
    /// The file.
    pub file: PathBuf,
    /// Where in it, in bytes.
    pub offset: u64,
    /// How much of it is there, in bytes.
    pub bytes: u64,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The group, where it is one's.
    pub group: Option<u32>,
    /// The file, where it is one.
    pub file: Option<PathBuf>,
    /// What is wrong.
    pub what: String,
}

/// Whether a replica is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// It is here.
    Here,
    /// It is here, and is not used any more: see the group's fault.
    Faulty,
    /// It was here, and was taken away for ever.
    Gone,
    /// There never was one.
    Vacant,
}

/// A group in this directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupReport {
    /// 0 is meta, n + 1 is stock shard n.
    pub group: u32,
    /// What people call it.
    pub name: String,
    /// Whether a replica is here.
    pub presence: Presence,
    /// The newest replica that was here: NODE or NODE.GENERATION.
    pub replica: Option<String>,
    /// Why it is not used any more, where that is so.
    pub fault: Option<String>,
    /// Where the log begins, where there is one.
    pub log: Option<LogReport>,
    /// The checkpoints, newest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// The ledger; none for group 0, and where none was kept or looked at.
    pub ledger: Option<LedgerReport>,
    /// The state as of what is known to be committed. Only with `verified`.
    pub state: Option<StateReport>,
}

/// The log of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogReport {
    /// It holds the entries after this index; 0: it waits for a first snapshot.
    pub origin_index: u64,
    /// The term of the entry there.
    pub origin_term: u64,
    /// The voters there: NODE or NODE.GENERATION.
    pub origin_voters: Vec<String>,
    /// The index of the last entry; that of the origin, where there is none.
    pub last_index: u64,
    /// The latest term heard of.
    pub term: u64,
    /// For whom the replica voted in that term.
    pub vote: Option<String>,
    /// Known to be committed when the log was last written.
    pub commit: u64,
}

/// A checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckpointReport {
    /// The file.
    pub file: PathBuf,
    /// As of this index.
    pub index: u64,
    /// The term there.
    pub term: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Whether every byte of it was read and is as it was written.
    pub is_whole: Option<bool>,
    /// It was received, and the log was not brought to it yet.
    pub is_incoming: bool,
}

/// The ledger of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerReport {
    /// It is kept from this index on...
    pub from: u64,
    /// ...to this one.
    pub to: u64,
    /// How many entries. Only with `verified`.
    pub entries: Option<u64>,
    /// Stretches of indexes, first and last, that are lost in between. Complete only with
    /// `verified`.
    pub holes: Vec<(u64, u64)>,
}

/// The state of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StateReport {
    /// After the entry of this index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Cluster time there, in milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// Equal on all replicas at the same index: hexadecimal.
    pub hash: String,
    /// The voters there: NODE or NODE.GENERATION.
    pub voters: Vec<String>,
}

/// Looks, and says what it found.
///
/// # Errors
///
/// [`OfflineError`], where there is nothing that could be looked at: the directory is in use, or
/// its log is damaged as a whole.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let report = look(options)?;
    match options.output {
        Output::Table => println!("{}", super::inspect_table::table(&report)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(match report.damage.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Looks into a data directory, and changes nothing in it.
///
/// # Errors
///
/// As [`run`]. Damage that leaves something to look at is in the report.
pub fn look(options: &Options) -> Result<Report, OfflineError> {
    let volume = Arc::new(ReadOnlyVolume::default());
    let dir = DataDir::open(volume, &options.data_dir, OnDamage::Look)?;
    let mut damage: Vec<Damage> = dir
        .checkpoints
        .damaged()
        .iter()
        .map(|damaged| Damage {
            group: None,
            file: Some(damaged.path.clone()),
            what: damaged.reason.clone(),
        })
        .collect();
    let (recoveries, unreadable) = Account::all_in(&*dir.volume, &dir.path);
    let of_accounts = unreadable.into_iter().map(|(file, what)| Damage {
        group: None,
        file: Some(file),
        what,
    });
    damage.extend(of_accounts);
    let of_log = dir.disk.salvage().map(|salvage| Damage {
        group: None,
        file: Some(salvage.file),
        what: format!(
            "the log is damaged, what is shown is what comes before: {}",
            salvage.reason
        ),
    });
    damage.extend(of_log);
    if let Some(recovery) = &dir.record.recovery {
        let what = format!(
            "a recovery into life {:x} was interrupted: run `stockd recover` once more with the \
             directories of the nodes {:?}",
            recovery.life(),
            recovery.nodes
        );
        damage.push(Damage {
            group: None,
            file: None,
            what,
        });
    }
    let ledger = match options.no_ledger {
        true => None,
        false => LedgerCopy::of(&options.data_dir, &options.scratch)?,
    };
    if let Some(reason) = ledger.as_ref().and_then(LedgerCopy::damage) {
        damage.push(Damage {
            group: None,
            file: Some(options.data_dir.join("ledger")),
            what: format!("the ledger begins anew at the next start: {reason}"),
        });
    }
    let groups = dir.groups().map(|group| {
        let look = Look {
            dir: &dir,
            ledger: ledger.as_ref(),
            verify: options.verify,
            group,
        };
        look.group(&mut damage)
    });
    let groups = groups.collect();
    let record = &dir.record;
    Ok(Report {
        data_dir: options.data_dir.clone(),
        cluster_id: record.cluster_id.clone(),
        node_id: record.node_id,
        shards: record.shards,
        directory: format!("{:032x}", record.directory()),
        incarnation: format!("{:x}", record.incarnation()),
        membership: record.membership.clone(),
        nodes: record.nodes.clone(),
        has_forgotten: dir.has_forgotten,
        recoveries,
        verified: options.verify,
        torn_write: dir.disk.tail_cut().map(|cut| TornWrite {
            file: cut.file,
            offset: cut.offset,
            bytes: cut.len,
        }),
        groups,
        damage,
    })
}

/// A look at one group.
struct Look<'a> {
    dir: &'a DataDir,
    ledger: Option<&'a LedgerCopy>,
    verify: bool,
    group: GroupId,
}

impl Look<'_> {
    fn group(&self, damage: &mut Vec<Damage>) -> GroupReport {
        let mut report = GroupReport {
            group: self.group.0,
            name: self.group.to_string(),
            presence: Presence::Vacant,
            replica: None,
            fault: None,
            log: None,
            checkpoints: self.checkpoints(damage),
            ledger: None,
            state: None,
        };
        let slot = match self.dir.slot(self.group) {
            Ok(Some(slot)) => slot,
            Ok(None) => return report,
            Err(error) => {
                damage.push(self.damage(None, &error));
                return report;
            }
        };
        report.replica = Some(slot.newest.to_string());
        (report.presence, report.fault) = match slot.standing {
            Standing::Gone => {
                report.presence = Presence::Gone;
                return report;
            }
            Standing::Begun => (Presence::Here, None),
            Standing::Failed(why) | Standing::Disputed(why) => (Presence::Faulty, Some(why)),
        };
        report.ledger = self.ledger(damage);
        match self.log() {
            Ok(log) => report.log = Some(log),
            Err(error) => damage.push(self.damage(None, &error)),
        }
        if let Some(log) = &report.log {
            self.check_ledger(log, report.ledger.as_ref(), damage);
            // Nothing is wrong with a replica that has yet to get its first snapshot.
            if self.verify && log.origin_index > 0 {
                report.state = self.state(slot.newest, log, damage);
            }
        }
        report
    }

    fn log(&self) -> Result<LogReport, OfflineError> {
        let record = self.dir.replica(self.group)?;
        let ballot = record.ballot;
        let origin = record.origin;
        Ok(LogReport {
            origin_index: origin.index,
            origin_term: origin.term,
            origin_voters: voters(&origin.configuration),
            last_index: record.last_index,
            term: ballot.map_or(origin.term, |ballot| ballot.term),
            vote: ballot
                .filter(|ballot| ballot.vote != 0)
                .map(|ballot| ReplicaId(ballot.vote).to_string()),
            commit: ballot.map_or(origin.index, |ballot| ballot.commit),
        })
    }

    fn checkpoints(&self, damage: &mut Vec<Damage>) -> Vec<CheckpointReport> {
        let number = u64::from(self.group.0);
        let own = self.dir.checkpoints.list(number).into_iter();
        let incoming = self.dir.checkpoints.incoming(number).into_iter();
        let files = own
            .map(|info| (info, false))
            .chain(incoming.map(|info| (info, true)));
        files
            .map(|(info, is_incoming)| {
                let is_whole = self.verify.then(|| {
                    let read = checkpoint_files::read(&self.dir.checkpoints, &info);
                    if let Err(error) = &read {
                        damage.push(self.damage(Some(info.path.clone()), error));
                    }
                    read.is_ok()
                });
                CheckpointReport {
                    index: info.meta.index,
                    term: info.meta.term,
                    bytes: info.bytes,
                    file: info.path,
                    is_whole,
                    is_incoming,
                }
            })
            .collect()
    }

    fn ledger(&self, damage: &mut Vec<Damage>) -> Option<LedgerReport> {
        let number = u64::from(self.group.0);
        let ledger = self.ledger?;
        let coverage = ledger.coverage(number)?;
        let mut report = LedgerReport {
            from: coverage.from,
            to: coverage.to,
            entries: None,
            holes: ledger.known_holes(number),
        };
        if self.verify {
            match ledger.read_all(number) {
                Ok((entries, holes)) => {
                    report.entries = Some(entries);
                    report.holes = holes;
                }
                Err(error) => damage.push(self.damage(None, &error)),
            }
        }
        for (from, to) in &report.holes {
            let what = format!("the ledger has lost the indexes {from} to {to}");
            damage.push(self.damage(None, &what));
        }
        Some(report)
    }

    /// What the log lacks and the ledger has not got can only be had from another node. And a
    /// ledger has nothing that its log has not had: where it goes on behind the end, the end is
    /// lost.
    fn check_ledger(
        &self,
        log: &LogReport,
        ledger: Option<&LedgerReport>,
        damage: &mut Vec<Damage>,
    ) {
        if let Some(ledger) = ledger
            && ledger.to < log.origin_index
        {
            let what = format!(
                "the ledger ends at index {}, and the log begins only after {}",
                ledger.to, log.origin_index
            );
            damage.push(self.damage(None, &what));
        }
        if let Some(ledger) = ledger
            && log.origin_index > 0
            && ledger.to > log.last_index
        {
            let what = format!(
                "the ledger reaches to index {}, and the log ends at {}: its end is lost",
                ledger.to, log.last_index
            );
            damage.push(self.damage(None, &what));
        }
    }

    fn state(
        &self,
        own: ReplicaId,
        log: &LogReport,
        damage: &mut Vec<Damage>,
    ) -> Option<StateReport> {
        // All of it, also what no state needs any more.
        let read = read_entries(
            self.dir,
            self.group,
            log.origin_index + 1,
            log.last_index,
            |_| {},
        );
        if let Err(error) = read {
            damage.push(self.damage(None, &error));
            return None;
        }
        match bring_back(self.dir, self.group, own, Extent::Committed) {
            Ok(back) => {
                let Stamp(stamp_ms) = back.stamp;
                let (hash, _) = back.state.freeze().hash();
                Some(StateReport {
                    index: back.ending.point.index,
                    term: back.ending.point.term,
                    stamp_ms,
                    hash: format!("{hash:032x}"),
                    voters: voters(&back.ending.point.configuration),
                })
            }
            Err(error) => {
                damage.push(self.damage(None, &error));
                None
            }
        }
    }

    fn damage(&self, file: Option<PathBuf>, what: &dyn std::fmt::Display) -> Damage {
        Damage {
            group: Some(self.group.0),
            file,
            what: what.to_string(),
        }
    }
}

impl Options {
    /// A look at everything, with the copy of the ledger in a temporary directory.
    pub fn verifying(data_dir: &Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            verify: true,
            no_ledger: false,
            scratch: std::env::temp_dir(),
            output: Output::Json,
        }
    }
}

fn voters(configuration: &Configuration) -> Vec<String> {
    let voters = configuration.voters.iter();
    voters.map(|voter| ReplicaId(*voter).to_string()).collect()
}
