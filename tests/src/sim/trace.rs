//! What happened: always as a hash, and as text for whoever wants to read it.

use std::collections::VecDeque;

use xxhash_rust::xxh3::Xxh3Default;

/// Lines kept for the report of a failure.
const LAST_LINES_MAX: usize = 120;

/// What becomes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// No text is made. A run can be repeated for it.
    Silent,
    /// The last lines are kept.
    Last,
    /// Every line goes to the standard error as it happens.
    Everything,
}

/// Follows a run.
pub(crate) struct Trace {
    hash: Xxh3Default,
    verbosity: Verbosity,
    lines: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(verbosity: Verbosity) -> Self {
        Self {
            hash: Xxh3Default::new(),
            verbosity,
            lines: VecDeque::new(),
        }
    }

    /// Takes note of an event. The numbers must tell it apart; the text is only made if it is
    /// shown.
    pub(crate) fn note(
        &mut self,
        at_us: u64,
        what: &'static str,
        numbers: &[u64],
        text: impl FnOnce() -> String,
    ) {
        self.hash.update(&at_us.to_le_bytes());
        self.hash.update(what.as_bytes());
        for number in numbers {
            self.hash.update(&number.to_le_bytes());
        }
        if self.verbosity != Verbosity::Silent {
            self.show(format!(
                "{:>4}.{:06} {what} {}",
                at_us / 1_000_000,
                at_us % 1_000_000,
                text()
            ));
        }
    }

    /// The hash of everything so far.
    pub(crate) fn digest(&self) -> u64 {
        self.hash.digest()
    }

    /// The last lines.
    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }

    #[expect(clippy::print_stderr, reason = "asked for with --trace")]
    fn show(&mut self, line: String) {
        if self.verbosity == Verbosity::Everything {
            eprintln!("{line}");
        }
        if self.lines.len() >= LAST_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}
