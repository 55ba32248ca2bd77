//! What tables for people are made of.

use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

/// Longer times to their second, the way people say them.
pub(crate) fn whole_seconds(duration: prost_types::Duration) -> Option<String> {
    let exact = Duration::try_from(duration).ok()?;
    let rounded = Duration::from_secs(exact.as_secs() + u64::from(exact.subsec_millis() >= 500));
    Some(humantime::format_duration(rounded).to_string())
}

/// Columns without rules: they stay readable in a terminal and easy to cut in a pipe.
pub(crate) struct Columns(Table);

impl Columns {
    /// A header that begins with `>` heads a column of numbers.
    pub(crate) fn new(headers: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(headers.iter().map(|header| header.trim_start_matches('>')));
        for (column, header) in table.column_iter_mut().zip(headers) {
            column.set_padding((0, 2));
            if header.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self(table)
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.0.add_row(cells);
    }

    /// No blanks at the ends of lines.
    pub(crate) fn finish(&self) -> String {
        let text = self.0.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n")
    }
}
