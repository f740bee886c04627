//! Untrusted text, from files and their names, made safe to print.

use std::borrow::Cow;

/// `text` with its control characters written out (`\u{1b}`): on a terminal they would be commands, in SVG
/// they are not allowed, and a line feed would start a new line. Characters that change the direction of
/// reading are written out too, because they can make one text look like another.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unprintable(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// [`printable`] line by line: line feeds and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let is_kept = |character: char| matches!(character, '\n' | '\t');
    if !text.contains(|character| is_unprintable(character) && !is_kept(character)) {
        return Cow::Borrowed(text);
    }
    let pieces = text.split_inclusive(is_kept);
    Cow::Owned(
        pieces.fold(String::with_capacity(text.len()), |mut shown, piece| {
            let line = piece.trim_end_matches(is_kept);
            shown += &printable(line);
            shown += &piece[line.len()..];
            shown
        }),
    )
}

fn is_unprintable(character: char) -> bool {
    // Besides control characters: line and paragraph separators, directional marks and overrides, and code
    // points that are not XML characters.
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_written_out_and_all_else_stays() {
        for text in ["", "tea & ink <1>", "Brötchen 300 g", "パン", "a\\b"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(
            printable("a\u{1b}[2Jb\u{7}\r\n\tc"),
            "a\\u{1b}[2Jb\\u{7}\\r\\n\\tc"
        );
        assert_eq!(
            printable("\u{85}\u{9b}x\u{202e}y\0"),
            "\\u{85}\\u{9b}x\\u{202e}y\\u{0}"
        );
    }

    #[test]
    fn lines_stay_lines() {
        let table = "| a |\tb\n\n| c |\n";
        assert!(matches!(printable_lines(table), Cow::Borrowed(same) if same == table));
        assert_eq!(
            printable_lines("\u{1b}c\n\n\tb\r\n\u{7f}"),
            "\\u{1b}c\n\n\tb\\r\n\\u{7f}"
        );
    }
}
