//! The outcomes, for a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Lost, Outcome};

/// A line of a node's log is cut here.
const WORDS_MAX: usize = 260;

const PAGE: &str = "\
# What damage costs

Every kind of file that a node keeps, damaged in every way that disks and people damage files, on \
one node of three, on
two and on all. What is lost is what was acknowledged and is not there any more, as every node \
says that is asked.

This page is written by one command, which fails if anything is lost of which nobody was told \
beforehand:

```sh
cargo run -p tests --bin damage > docs/damage.md
```

For each cell a cluster of two shards, with states that were written down and files of the log \
that were purged, is killed,
damaged and started. A node that ends is started again, three times at most, as systemd and \
Kubernetes do. Where the
cluster is not whole after half a minute, an operator does what [recovery.md](recovery.md) says: \
`stockd recover`, with
every directory that it takes. *Yesterday's* is the same file as it was some thousand entries \
before.

- **not noticed**: it is not read, or not yet; an entry is when somebody needs it.
- **said**: the node says what is damaged and needs nothing: it goes on from an older state, or \
has nothing to lose there.
- **made anew**: a replica is built again from its peers. **joined anew**: all of that node's are.
- Two nodes whose logs are damaged at once are no quorum any more, and nobody can know what they \
have forgotten: the third
  has everything, and an operator says that it is to go on from what is left.

";

/// Markdown: a line for each kind of file and damage, with a column each for one node, two and all;
/// and what the damaged nodes said of it.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for outcome in outcomes {
        let of = (outcome.trial.kind.name(), outcome.trial.harm.name());
        let head = format!("| {} | {} |", of.0, of.1);
        match rows.last_mut() {
            Some((last, cells)) if *last == head => cells.push(cell(outcome)),
            _ => rows.push((head, vec![cell(outcome)])),
        }
        let words = said.entry(format!("{}, {}", of.0, of.1)).or_default();
        for line in &outcome.words {
            let line: String = cleaned(line).chars().take(WORDS_MAX).collect();
            let begin = |line: &str| line.chars().take(50).collect::<String>();
            if !words.iter().any(|known| begin(known) == begin(&line)) {
                words.push(line);
            }
        }
    }
    let mut text = PAGE.to_owned();
    text.push_str(
        "| file | damage | on one node | on two nodes | on all nodes |\n|---|---|---|---|---|\n",
    );
    for (head, cells) in rows {
        let _ = writeln!(text, "{head} {} |", cells.join(" | "));
    }
    text.push_str("\n## What the damaged nodes say\n\n");
    for (of, words) in said.into_iter().filter(|(_, words)| !words.is_empty()) {
        let _ = writeln!(text, "{of}:\n\n```text\n{}\n```\n", words.join("\n"));
    }
    text
}

fn cell(outcome: &Outcome) -> String {
    let Outcome {
        deeds, lost, words, ..
    } = outcome;
    let deeds = match (deeds.is_empty(), words.is_empty()) {
        (true, true) => "not noticed".to_owned(),
        (true, false) => "said".to_owned(),
        (false, _) => deeds.join("; "),
    };
    match lost {
        Lost::Nothing => deeds,
        Lost::Told(_) => {
            format!("{deeds}; **lost**, as was said before: what came behind the damage")
        }
        Lost::Untold(what) => format!("{deeds}; **LOST UNTOLD**: {what}"),
        Lost::Everything(_) => {
            "**lost**: `stockd recover` finds nothing to go on from, and says why".to_owned()
        }
    }
}

/// Without the time, and with `DIR` for the data directory.
fn cleaned(words: &str) -> String {
    let words = match words.split_once("Z ") {
        Some((time, rest)) if time.len() < 32 => rest.trim_start(),
        _ => words,
    };
    let mut cleaned = String::new();
    for (at, word) in words.split_whitespace().enumerate() {
        if at > 0 {
            cleaned.push(' ');
        }
        match (word.find('/'), word.find("/node-")) {
            (Some(begin), Some(end)) => {
                cleaned.push_str(&word[..begin]);
                cleaned.push_str("DIR");
                let rest = &word[end + "/node-".len()..];
                cleaned.push_str(rest.trim_start_matches(|digit: char| digit.is_ascii_digit()));
            }
            _ => cleaned.push_str(word),
        }
    }
    cleaned
}
