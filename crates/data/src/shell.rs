//! Text quoted for a shell, for the commands and options that messages name.

/// A word, in single quotes if necessary.
pub fn quoted_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A text in double quotes, which every shell knows, or as [`quoted_word`] if it has characters that these do not protect.
pub fn quoted_text(text: &str) -> String {
    if text.contains(['"', '\\', '$', '`', '!']) {
        quoted_word(text)
    } else {
        format!("\"{text}\"")
    }
}
