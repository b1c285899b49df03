//! A table for people: a header, aligned columns, a line per row. What its cells mean is for the commands to say.

use std::time::Duration;

/// Lays out `rows` below `header`.
pub(super) fn table(
    header: &[impl AsRef<str>],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let header: Vec<String> = header.iter().map(|cell| plain(cell.as_ref())).collect();
    let rows = rows.into_iter();
    let rows = rows.map(|row| row.iter().map(|cell| plain(cell)).collect());
    let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
    let mut widths = vec![0; lines[0].len()];
    for (width, cell) in lines.iter().flat_map(|line| std::iter::zip(0.., line)) {
        if let Some(width) = widths.get_mut(width) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Shows a number of seconds.
pub(super) fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

/// Shows a number of milliseconds.
pub(super) fn millis(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

/// Shows a number of bytes.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize(bytes).to_string()
}

/// Escapes what would end the line, or do something to the terminal: cells may hold what guests wrote.
fn plain(cell: &str) -> String {
    let escaped = cell.chars().map(|char| match char {
        char if char.is_control() => char.escape_default().to_string(),
        char => char.to_string(),
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let text = table(&["A", "LONG"], [row(["größer", "x"]), row(["y", ""])]);
        assert_eq!(text, "A       LONG\ngrößer  x\ny\n");
    }

    #[test]
    fn cell_cannot_end_its_line_or_move_the_cursor() {
        let text = table(&["A"], [row(["a\nb\u{1b}[2J"])]);
        assert_eq!(text, "A\na\\nb\\u{1b}[2J\n");
    }
}
