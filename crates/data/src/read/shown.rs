//! Texts of a file, as messages show them.

/// How many characters of a value are shown.
const SHOWN_CHARACTERS: usize = 60;

/// A value cut to a printable length: a broken quote may turn half the file into one cell.
pub(super) fn shortened(value: String) -> String {
    match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &value[..end]),
        None => value,
    }
}

/// Text in quotes for a message: escaped, and cut if it is long. A file's cells and names may have any
/// length.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN_BYTES: usize = 120;
    let mut shown = String::from("\"");
    for (i, c) in text.chars().enumerate() {
        // As `{:?}` escapes it.
        let escaped = match c {
            '\'' => "'".to_owned(),
            c => c.escape_debug().to_string(),
        };
        // Three more for the dots of a text that was already cut.
        if i == SHOWN_CHARACTERS + 3 || shown.len() + escaped.len() > SHOWN_BYTES {
            shown += "...";
            break;
        }
        shown += &escaped;
    }
    shown.push('"');
    shown
}
