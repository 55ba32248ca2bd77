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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other_beside_wide_and_combining_characters() {
        let mut table = Columns::new(&["SKU", ">UNITS"]);
        for (sku, units) in [
            ("abc", "1"),
            // Each as wide as two.
            ("\u{65e5}\u{672c}", "20"),
            // Accents of their own, which take no room.
            ("e\u{301}te\u{301}", "3"),
            // From right to left.
            ("\u{5d0}\u{5d1}", "4"),
        ] {
            table.row([sku.to_owned(), units.to_owned()]);
        }
        let expected = [
            "SKU   UNITS",
            "abc       1",
            "\u{65e5}\u{672c}     20",
            "e\u{301}te\u{301}       3",
            "\u{5d0}\u{5d1}        4",
        ];
        assert_eq!(table.finish(), expected.join("\n"));
    }
}
