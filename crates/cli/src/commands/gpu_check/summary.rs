//! `summary.md`: what a step found, in a line for each part, with the tables and ends of logs that it quotes.

/// The text of `summary.md`, which grows part by part.
#[derive(Debug)]
pub(super) struct Summary(String);

impl Summary {
    /// A summary with nothing but its title.
    pub(super) fn titled(title: &str) -> Self {
        Summary(format!("# {title}\n\n"))
    }

    /// Adds a point.
    pub(super) fn point(&mut self, text: &str) {
        self.0 += &format!("- {text}\n");
    }

    /// Adds `text` between empty lines, each of its lines cut to `width` characters; nothing where it is blank.
    pub(super) fn quote(&mut self, text: &str, width: usize) {
        if text.trim().is_empty() {
            return;
        }
        self.0.push('\n');
        for line in text.trim_end().trim_start_matches('\n').lines() {
            self.0.extend(line.chars().take(width));
            self.0.push('\n');
        }
        self.0.push('\n');
    }

    /// All of it.
    pub(super) fn text(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotations_stand_between_empty_lines_and_are_cut() {
        let mut summary = Summary::titled("speed of a card");
        summary.point("first");
        summary.quote(" \n", 10);
        summary.quote("\n\n| a | \u{e9}\u{e9}\u{e9} |\n| b |\n\n", 8);
        summary.point("second");
        assert_eq!(
            summary.text(),
            "# speed of a card\n\n- first\n\n| a | \u{e9}\u{e9}\n| b |\n\n- second\n"
        );
    }
}
