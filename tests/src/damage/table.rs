//! The outcomes, for a page of the documentation.

use std::fmt::Write as _;

use super::Outcome;

/// A line is cut here: what follows is the place in the code, and paths.
const WORDS_MAX: usize = 300;

/// Markdown.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| file | damage | nodes | what the cluster does, and what is left for an operator | lost |\n|---|---|---|---|---|\n",
    );
    for Outcome {
        trial, deeds, lost, ..
    } in outcomes
    {
        let deeds = match deeds.is_empty() {
            true => "nothing is to be done".to_owned(),
            false => deeds.join("; "),
        };
        let nodes = match trial.nodes.len() {
            1 => "one",
            2 => "two",
            _ => "all",
        };
        let lost = lost.as_deref().unwrap_or("nothing");
        let _ = writeln!(
            text,
            "| {} | {} | {nodes} | {deeds} | {lost} |",
            trial.kind.name(),
            trial.harm.name()
        );
    }
    text.push_str("\nWhat the damaged nodes said first:\n\n");
    let mut said: Vec<String> = Vec::new();
    for Outcome { trial, words, .. } in outcomes
        .iter()
        .filter(|outcome| outcome.trial.nodes.len() == 1)
    {
        for words in words {
            let words: String = words.chars().take(WORDS_MAX).collect();
            said.push(format!(
                "- {}, {}: `{words}`",
                trial.kind.name(),
                trial.harm.name()
            ));
        }
    }
    text.push_str(&said.join("\n"));
    text.push('\n');
    text
}
