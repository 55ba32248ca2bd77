//! What a recovery would do and has done, for people.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::plan::{Candidate, Fate, GroupPlan, Plan};

/// What would be done, and what may be lost by it.
pub(super) fn plan(plan: &Plan, dirs: &[PathBuf]) -> String {
    if plan.is_needless() {
        return format!(
            "Nothing to recover: every group of cluster {} has most of its replicas on {}. Start \
             {}.",
            plan.cluster_id,
            nodes(&plan.nodes),
            match plan.nodes.len() {
                1 => "it",
                _ => "them",
            }
        );
    }
    let mut text = format!("Cluster {}: {} left", plan.cluster_id, are(&plan.nodes));
    text.push_str(&match plan.lost_nodes.len() {
        0 => ".\n".to_owned(),
        _ => format!(
            ", {} lost for good, with all that only they had.\n",
            are(&plan.lost_nodes)
        ),
    });
    if plan.is_marked_only {
        text.push_str(
            "A recovery was interrupted when all was done: only its marks are taken away, and the \
             nodes may start.\n",
        );
        return text;
    }
    if plan.resumed.is_some() {
        text.push_str("A recovery was interrupted: this goes on with it.\n");
    }
    for dir in plan.outdated.iter().filter_map(|at| dirs.get(*at)) {
        let _ = writeln!(
            text,
            "Nothing in {} is used: it is of a life that is not kept. What only it has is lost, \
             and its node joins anew.",
            dir.display()
        );
    }
    text.push('\n');
    for group in &plan.groups {
        text.push_str(&of_group(group, dirs));
    }
    text.push_str(
        "\nWhat callers were told and no directory above has is lost: how much that is, nobody can \
         know. What a log has beyond its last known commit becomes committed: it may bring back \
         what was never acknowledged, and a retry with the same request id then gets that answer.\n\
         Every lost node must stay away, and be switched off before this is done: as long as it \
         reaches no node that goes on from here, it sells the same units once more. One that does \
         reach it ends; empty its data directory, and it joins anew.",
    );
    text
}

/// What has been done, and what comes next.
pub(super) fn done(plan: &Plan, dirs: &[PathBuf]) -> String {
    let kept = dirs.iter().map(|dir| format!("\n  {}", dir.display()));
    let mut text = format!(
        "\nDone. What was given up is written in recovered-*.json in each of these directories, \
         and `stockd inspect` shows it:{}\n\nStart {}; clients are served at once, with no second \
         copy of the data. Then start fresh nodes with empty data directories, under the ids of \
         the lost ones or others, with `stockd serve --join HOST:PORT` in place of a list of \
         nodes: founders ask only each other, and without one that is left they would found a \
         second cluster. Replicas are made there by themselves. Watch them: stockctl shard list",
        kept.collect::<String>(),
        nodes(&plan.nodes)
    );
    if !plan.lost_nodes.is_empty() {
        let _ = write!(
            text,
            "\nThe ids and addresses of {} stay theirs. Where one will never come back: stockctl \
             node drain ID, stockctl node remove ID",
            nodes(&plan.lost_nodes)
        );
    }
    text
}

fn of_group(plan: &GroupPlan, dirs: &[PathBuf]) -> String {
    let name = plan.group;
    let mut text = match (plan.fate, plan.candidates.split_first()) {
        (Fate::Recovered, Some((chosen, others))) => {
            let mut text = format!("{name}: goes on with {}\n", of_candidate(chosen, dirs));
            if let Some(lack) = &chosen.lack {
                let _ = writeln!(text, "    it would not go on by itself: {lack}");
            }
            match plan.lost() {
                Some((first, last)) => {
                    let _ = writeln!(text, "    LOST: {}, committed once", entries(first, last));
                }
                None => text.push_str(
                    "    nothing is missing that these directories know to be committed\n",
                ),
            }
            if chosen.lack.is_some() && plan.group.shard().is_some() {
                text.push_str("    its history may begin anew there\n");
            }
            let (commit, last) = (chosen.ending.ballot.commit, chosen.ending.point.index);
            if last > commit {
                let what = entries(commit + 1, last);
                let _ = match last - commit {
                    1 => writeln!(
                        text,
                        "    {what} is not known to be committed, and becomes so"
                    ),
                    _ => writeln!(
                        text,
                        "    {what} are not known to be committed, and become so"
                    ),
                };
            }
            for other in others {
                let _ = writeln!(
                    text,
                    "    given up, to be made anew: {}",
                    of_candidate(other, dirs)
                );
            }
            text
        }
        (Fate::Kept, _) => {
            let mut text = format!("{name}: has most of its replicas and goes on as it is\n");
            let lacking = plan.candidates.iter();
            for (one, lack) in lacking.filter_map(|one| Some((one, one.lack.as_ref()?))) {
                let _ = writeln!(
                    text,
                    "    to be made anew from the others: replica {}: {lack}",
                    one.replica
                );
            }
            text
        }
        (Fate::Lost | Fate::Recovered, _) => format!("{name}: LOST, no replica is left\n"),
    };
    for (node, why) in &plan.unusable {
        let _ = writeln!(text, "    of no use: the replica on node {node}: {why}");
    }
    text
}

fn of_candidate(candidate: &Candidate, dirs: &[PathBuf]) -> String {
    let point = &candidate.ending.point;
    let dir = dirs.get(candidate.dir);
    format!(
        "replica {} in {}: its log ends at index {} of term {}",
        candidate.replica,
        dir.map_or_else(String::new, |dir| dir.display().to_string()),
        point.index,
        point.term
    )
}

/// Of a stretch of the log.
pub(super) fn entries(first: u64, last: u64) -> String {
    match first == last {
        true => format!("the entry {first}"),
        false => format!("the entries {first} to {last}"),
    }
}

fn nodes(nodes: &[u64]) -> String {
    let ids: Vec<String> = nodes.iter().map(u64::to_string).collect();
    match ids.len() {
        1 => format!("node {}", ids.concat()),
        _ => format!("nodes {}", ids.join(", ")),
    }
}

fn are(of: &[u64]) -> String {
    match of.len() {
        1 => format!("{} is", nodes(of)),
        _ => format!("{} are", nodes(of)),
    }
}
