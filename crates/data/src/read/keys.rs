//! Product and category keys: each distinct key is held once and rows carry its code.

use infermark_model::Labels;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Codes of the keys of one column, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_text: HashMap<Box<str>, u32, BuildHasherDefault<WordHasher>>,
    by_integer: HashMap<i64, u32, BuildHasherDefault<WordHasher>>,
    last_text: Vec<u8>,
    last_code: Option<u32>,
}

impl Keys {
    pub(crate) fn len(&self) -> usize {
        self.by_text.len() + self.by_integer.len()
    }

    /// Code of a text key; `Err` when it is not UTF-8.
    pub(crate) fn text(&mut self, key: &[u8]) -> Result<u32, std::str::Utf8Error> {
        // Rows of a product mostly follow each other.
        if let Some(code) = self.last_code
            && self.last_text == key
        {
            return Ok(code);
        }
        let text = std::str::from_utf8(key)?;
        let code = match self.by_text.get(text) {
            Some(code) => *code,
            None => {
                let code = self.next_code();
                self.by_text.insert(text.into(), code);
                code
            }
        };
        self.last_text.clear();
        self.last_text.extend_from_slice(key);
        self.last_code = Some(code);
        Ok(code)
    }

    /// Code of an integer key.
    pub(crate) fn integer(&mut self, key: i64) -> u32 {
        if let Some(code) = self.by_integer.get(&key) {
            return *code;
        }
        let code = self.next_code();
        self.by_integer.insert(key, code);
        code
    }

    fn next_code(&self) -> u32 {
        u32::try_from(self.len()).expect("a panel has fewer rows than 2^32, checked where rows are stored")
    }

    /// The key of a code, as text; for messages.
    pub(crate) fn name(&self, code: u32) -> String {
        let text = self
            .by_text
            .iter()
            .find(|(_, c)| **c == code)
            .map(|(k, _)| k.to_string());
        let integer = || {
            self.by_integer
                .iter()
                .find(|(_, c)| **c == code)
                .map(|(k, _)| k.to_string())
        };
        text.or_else(integer).unwrap_or_default()
    }

    /// Sorted labels of the keys that `kept` wants, and the rank of every code among them (`u32::MAX` for others).
    ///
    /// Text becomes integers when every kept key is a whole number written as it would be printed.
    pub(crate) fn into_labels(self, kept: impl Fn(u32) -> bool) -> (Labels, Vec<u32>) {
        let mut rank = vec![u32::MAX; self.len()];
        let mut integers: Vec<(i64, u32)> = self.by_integer.into_iter().filter(|(_, c)| kept(*c)).collect();
        let mut texts: Vec<(Box<str>, u32)> = self.by_text.into_iter().filter(|(_, c)| kept(*c)).collect();
        if !texts.is_empty() {
            let parsed: Option<Vec<(i64, u32)>> = texts
                .iter()
                .map(|(text, code)| Some((canonical_integer(text)?, *code)))
                .collect();
            match parsed {
                Some(parsed) => integers = parsed,
                None => {
                    texts.sort_unstable();
                    for (i, (_, code)) in texts.iter().enumerate() {
                        rank[*code as usize] = i as u32;
                    }
                    return (
                        Labels::Text(texts.into_iter().map(|(text, _)| text).collect()),
                        rank,
                    );
                }
            }
        }
        integers.sort_unstable();
        for (i, (_, code)) in integers.iter().enumerate() {
            rank[*code as usize] = i as u32;
        }
        (
            Labels::Integer(integers.into_iter().map(|(key, _)| key).collect()),
            rank,
        )
    }
}

/// The whole number that `text` prints, `None` for `007`, `+7`, `-0` and whatever else would be printed differently.
fn canonical_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

/// A multiply-rotate hash of eight bytes at a time: the keys are the user's own, so no attack is feared.
#[derive(Debug, Default)]
pub(crate) struct WordHasher(u64);

impl WordHasher {
    fn mix(&mut self, word: u64) {
        // The multiplier is 2^64 over the golden ratio; the shift carries high bits into the low ones that pick the
        // bucket.
        let product = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(u64::from_le_bytes(word.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        self.mix(u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56);
    }

    fn write_u8(&mut self, byte: u8) {
        self.mix(u64::from(byte));
    }

    fn write_i64(&mut self, word: i64) {
        self.mix(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(keys: &[&str]) -> Vec<String> {
        let mut interned = Keys::default();
        for key in keys {
            interned.text(key.as_bytes()).unwrap();
        }
        interned
            .into_labels(|_| true)
            .0
            .iter()
            .map(|l| l.to_string())
            .collect()
    }

    #[test]
    fn whole_numbers_sort_by_value_and_the_rest_by_code_point() {
        assert_eq!(labels(&["10", "9", "-3", "0"]), ["-3", "0", "9", "10"]);
        assert_eq!(labels(&["10", "9", "x"]), ["10", "9", "x"]);
        // As numbers 07 and 7 would be one product.
        assert_eq!(labels(&["7", "10", "07"]), ["07", "10", "7"]);
        assert_eq!(labels(&["é", "z", "Z", "a"]), ["Z", "a", "z", "é"]);
        assert_eq!(
            labels(&["9223372036854775808", "5"]),
            ["5", "9223372036854775808"]
        );
    }

    #[test]
    fn a_key_keeps_its_code() {
        let mut keys = Keys::default();
        let codes: Vec<u32> = ["a", "b", "a", "a", "c", "b"]
            .iter()
            .map(|k| keys.text(k.as_bytes()).unwrap())
            .collect();
        assert_eq!(codes, [0, 1, 0, 0, 2, 1]);
        assert_eq!(keys.name(2), "c");
        assert!(keys.text(b"caf\xe9").is_err());
    }
}
