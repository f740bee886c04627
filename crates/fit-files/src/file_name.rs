//! Names of backends, devices and hosts as parts of file names.

/// Largest number of characters of a part.
const MOST: usize = 64;

/// `text` as a part of a file's name: letters, digits, `-` and `_`, and `-` for everything else. A name read
/// from a file must not lead out of the folder.
pub fn in_file_name(text: &str) -> String {
    let is_kept = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.chars()
        .take(MOST)
        .map(|c| if is_kept(c) { c } else { '-' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_its_folder() {
        assert_eq!(in_file_name("svi-cpu"), "svi-cpu");
        assert_eq!(in_file_name("x/../../a\\b\0.c\u{1b}"), "x-------a-b--c-");
        assert_eq!(in_file_name(&"n".repeat(1000)).len(), MOST);
    }
}
