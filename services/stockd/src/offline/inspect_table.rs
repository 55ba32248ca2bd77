//! The report on a data directory, for people.

use std::fmt::Write as _;

use super::account::{Account, FateOfGroup};
use super::inspect::{GroupReport, LogReport, Presence, Report};
use super::recover_words::entries;

const COLUMNS: [&str; 9] = [
    "GROUP",
    "REPLICA",
    "TERM",
    "VOTE",
    "LOG",
    "COMMIT",
    "CHECKPOINTS",
    "LEDGER",
    "STATE",
];

/// The report as a table, without a last line break.
pub(super) fn table(report: &Report) -> String {
    let mut text = format!(
        "Node {} of cluster {}, {} shards, incarnation {}\nDirectory {} ({})\n\n",
        report.node_id,
        report.cluster_id,
        report.shards,
        report.incarnation,
        report.data_dir.display(),
        report.directory,
    );
    if report.has_forgotten {
        text.push_str(
            "It has forgotten something: what it has counts for nothing, and its node joins anew \
             at its next start.\n\n",
        );
    }
    for recovery in &report.recoveries {
        text.push_str(&of_recovery(recovery));
    }
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(report.groups.iter().map(row));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line = cells.fold(String::new(), |line, (cell, width)| {
            format!("{line}{cell:<width$}  ")
        });
        text.push_str(line.trim_end());
        text.push('\n');
    }
    // Writing to a string never fails.
    if let Some(torn) = &report.torn_write {
        let _ = write!(
            text,
            "\nA torn write would be cut at the next start: {}, {} bytes at {}. If it was \
             interrupted, nobody was told that it was done; if the disk has lost its end, \
             somebody may have been.\n",
            torn.file.display(),
            torn.bytes,
            torn.offset
        );
    }
    text.push('\n');
    for damage in &report.damage {
        let group = report
            .groups
            .iter()
            .find(|group| Some(group.group) == damage.group);
        let group = group.map_or_else(String::new, |group| format!("{}: ", group.name));
        let file = damage.file.as_ref();
        let file = file.map_or_else(String::new, |file| format!(" ({})", file.display()));
        let _ = writeln!(text, "DAMAGED  {group}{}{file}", damage.what);
    }
    text.push_str(match (report.damage.is_empty(), report.verified) {
        (true, true) => "Every byte was read; no damage was found.",
        (true, false) => "No damage was found. To read every byte: --verify",
        (false, _) => {
            "A damaged replica is built again from the others: start the node, and watch \
             `stockctl shard list`."
        }
    });
    text
}

fn of_recovery(recovery: &Account) -> String {
    let mut text = format!(
        "Recovered into life {}, with the directories of the nodes {:?}; lost for good: {:?}\n",
        recovery.life, recovery.nodes, recovery.lost_nodes
    );
    for group in &recovery.groups {
        let what = match (group.fate, &group.replica, group.index) {
            (FateOfGroup::Recovered, Some(replica), Some(index)) => {
                format!("went on with replica {replica} as of index {index}")
            }
            (FateOfGroup::Kept, ..) => "had most of its replicas".to_owned(),
            _ => "LOST".to_owned(),
        };
        // Writing to a string never fails.
        let _ = write!(text, "  {}: {what}", group.name);
        if let Some((first, last)) = group.lost {
            let _ = write!(text, "; LOST: {}", entries(first, last));
        }
        text.push('\n');
    }
    text.push('\n');
    text
}

fn row(group: &GroupReport) -> [String; 9] {
    let none = || "-".to_owned();
    let log = |show: fn(&LogReport) -> String| group.log.as_ref().map_or_else(none, show);
    let replica = group.replica.clone().unwrap_or_else(none);
    let checkpoints = group.checkpoints.iter().map(|file| {
        let mark = match (file.is_whole, file.is_incoming) {
            (Some(false), _) => "!",
            (_, true) => "+",
            _ => "",
        };
        format!("{}{mark}", file.index)
    });
    let checkpoints: Vec<String> = checkpoints.collect();
    [
        group.name.clone(),
        match group.presence {
            Presence::Here => replica,
            Presence::Faulty => format!("{replica} (not used)"),
            Presence::Gone => format!("{replica} (gone)"),
            Presence::Vacant => none(),
        },
        log(|log| log.term.to_string()),
        log(|log| log.vote.clone().unwrap_or_else(|| "-".to_owned())),
        log(|log| match log.origin_index {
            0 => "waits for a snapshot".to_owned(),
            origin => format!("{}..{}", origin + 1, log.last_index),
        }),
        log(|log| log.commit.to_string()),
        match checkpoints.is_empty() {
            true => none(),
            false => checkpoints.join(","),
        },
        group.ledger.as_ref().map_or_else(none, |ledger| {
            let holes = match ledger.holes.len() {
                0 => String::new(),
                holes => format!(" ({holes} holes)"),
            };
            format!("{}..{}{holes}", ledger.from, ledger.to)
        }),
        group.state.as_ref().map_or_else(none, |state| {
            format!(
                "{} @ {}",
                &state.hash[..8.min(state.hash.len())],
                state.index
            )
        }),
    ]
}
