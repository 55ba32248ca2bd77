//! The outcomes, for a page of the documentation.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Lost, Outcome};

/// A line of a node's log is cut here.
const WORDS_MAX: usize = 260;

/// Markdown.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text =
        String::from("| file | damage | on | what happens | lost |\n|---|---|---|---|---|\n");
    let mut said: BTreeMap<String, String> = BTreeMap::new();
    for Outcome {
        trial,
        deeds,
        lost,
        words,
    } in outcomes
    {
        let deeds = match (deeds.is_empty(), words.is_empty()) {
            (true, true) => "nothing is noticed, and nothing needs it".to_owned(),
            (true, false) => "it is said, and nothing else is needed".to_owned(),
            (false, _) => deeds.join("; "),
        };
        let nodes = match trial.nodes.len() {
            1 => "one node",
            2 => "two nodes",
            _ => "all nodes",
        };
        let lost = match lost {
            Lost::Nothing => "nothing".to_owned(),
            Lost::Told(_) => "what came behind the damage, as was said beforehand".to_owned(),
            Lost::Untold(what) => format!("**{what}**"),
            Lost::Everything(why) => format!("restore from a backup: {}", cleaned(why)),
        };
        let (kind, harm) = (trial.kind.name(), trial.harm.name());
        let _ = writeln!(text, "| {kind} | {harm} | {nodes} | {deeds} | {lost} |");
        for words in words {
            let words: String = cleaned(words).chars().take(WORDS_MAX).collect();
            let of = format!("{kind}, {harm}");
            let is_same =
                |before: &String| before[..40.min(before.len())] == words[..40.min(words.len())];
            if !said.get(&of).is_some_and(is_same) {
                said.entry(of).or_insert(words);
            }
        }
    }
    text.push_str("\nWhat a damaged node says first:\n\n");
    for (of, words) in said {
        let _ = writeln!(text, "- {of}:\n  `{words}`");
    }
    text
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
