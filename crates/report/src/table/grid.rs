//! A Markdown table whose columns line up as plain text too.

use infermark_model::printable;

/// Rows of text under a header.
pub(crate) struct Grid {
    header: Vec<String>,
    right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// Column names, and whether the column is aligned right.
    pub(crate) fn new(columns: &[(&str, bool)]) -> Self {
        Grid {
            header: columns.iter().map(|c| c.0.to_owned()).collect(),
            right: columns.iter().map(|c| c.1).collect(),
            rows: Vec::new(),
        }
    }

    /// Their number.
    pub(crate) fn columns(&self) -> usize {
        self.header.len()
    }

    pub(crate) fn push(&mut self, row: Vec<String>) {
        assert_eq!(row.len(), self.header.len(), "a cell for each column");
        // A bar would end the cell, a line feed the row.
        let shown = |cell: String| printable(&cell).replace('|', "\\|");
        self.rows.push(row.into_iter().map(shown).collect());
    }

    /// The table under `heading`, unless it has no rows.
    pub(crate) fn section(&self, heading: &str) -> Option<String> {
        (!self.rows.is_empty()).then(|| format!("{heading}\n{}", self.render()))
    }

    pub(crate) fn render(&self) -> String {
        let length = |cell: &String| cell.chars().count();
        let widths: Vec<usize> = (0..self.header.len())
            .map(|c| {
                let cells = self.rows.iter().map(|r| length(&r[c]));
                cells.chain([length(&self.header[c]), 3]).max().unwrap_or(3)
            })
            .collect();
        let line = |cells: &[String]| -> String {
            let padded: Vec<String> = cells
                .iter()
                .enumerate()
                .map(|(c, cell)| {
                    let space = " ".repeat(widths[c] - length(cell));
                    if self.right[c] {
                        space + cell
                    } else {
                        cell.clone() + &space
                    }
                })
                .collect();
            format!("| {} |\n", padded.join(" | "))
        };
        let rule: Vec<String> = widths
            .iter()
            .zip(&self.right)
            .map(|(w, right)| {
                if *right {
                    format!("{}:", "-".repeat(w - 1))
                } else {
                    "-".repeat(*w)
                }
            })
            .collect();
        let mut text = line(&self.header) + &line(&rule);
        for row in &self.rows {
            text.push_str(&line(row));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut grid = Grid::new(&[("name", false), ("it/s", true)]);
        assert!(grid.section("x").is_none());
        grid.push(vec!["a|b".into(), "12.6".into()]);
        grid.push(vec!["longer".into(), "1,340".into()]);
        assert_eq!(
            grid.render(),
            "| name   |  it/s |\n| ------ | ----: |\n| a\\|b   |  12.6 |\n| longer | 1,340 |\n"
        );
    }
}
