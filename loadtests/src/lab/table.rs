//! Tables as people read them, and Markdown can take them in.

use comfy_table::{CellAlignment, Row, Table, presets};

/// A table without rows yet. The first `words` columns are words; those behind them are figures,
/// which stand to the right.
pub(crate) fn table(words: usize, header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(header);
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_to_the_right() {
        let mut table = table(1, ["call", "calls/s"]);
        table.add_row(["read", "7"]);
        let row = table.to_string().lines().last().map(str::to_owned);
        assert_eq!(row.as_deref(), Some("| read |       7 |"));
    }
}
