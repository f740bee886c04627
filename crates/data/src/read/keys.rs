//! Product and category keys: each distinct key is stored once, and rows hold its code.

use infermark_model::Labels;
use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

/// Codes of the keys of one column, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    by_text: HashMap<Box<str>, u32, KeyedWords>,
    by_integer: HashMap<i64, u32, KeyedWords>,
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

    /// Keys that are the same whole number written in two ways, such as `1001` and `1001.0`: first the one
    /// with more decimals, then the other, in the order of their appearance.
    pub(crate) fn two_spellings(&self) -> Vec<(&str, &str)> {
        let mut plain: HashMap<&str, &str> = HashMap::new();
        let mut decimal: Vec<(u32, &str)> = self
            .by_text
            .iter()
            .filter(|(text, _)| without_zero_decimals(text).len() < text.len())
            .map(|(text, code)| (*code, &**text))
            .collect();
        decimal.sort_unstable();
        let mut found = Vec::new();
        for (_, text) in decimal {
            let whole = without_zero_decimals(text);
            match (plain.insert(whole, text), self.by_text.get_key_value(whole)) {
                (Some(other), _) => found.push((text, other)),
                (None, Some((other, _))) => found.push((text, &**other)),
                (None, None) => {}
            }
        }
        found
    }

    /// Sorted labels of the keys that `kept` selects, and the rank of every code among them (`u32::MAX` for
    /// others).
    ///
    /// Text becomes integers if every kept key is a whole number in canonical form, except for zero decimals
    /// (`1001.0`), and no two of them are the same number.
    pub(crate) fn into_labels(self, kept: impl Fn(u32) -> bool) -> (Labels, Vec<u32>) {
        let len = self.len();
        let integers = self.by_integer.into_iter().filter(|(_, code)| kept(*code));
        let texts = self.by_text.into_iter().filter(|(_, code)| kept(*code));
        let sorted = Sorted::new(integers.collect(), texts.collect());
        let ranks = sorted.ranks(len);
        let labels = match sorted {
            Sorted::Integers(keys) => Labels::Integer(keys.into_iter().map(|(key, _)| key).collect()),
            Sorted::Texts(keys) => Labels::Text(keys.into_iter().map(|(key, _)| key).collect()),
        };
        (labels, ranks)
    }

    /// The ranks that [`Keys::into_labels`] gives.
    pub(crate) fn ranks(&self, kept: impl Fn(u32) -> bool) -> Vec<u32> {
        let integers = self.by_integer.iter().map(|(key, code)| (*key, *code));
        let texts = self.by_text.iter().map(|(key, code)| (&**key, *code));
        Sorted::new(
            integers.filter(|(_, code)| kept(*code)).collect(),
            texts.filter(|(_, code)| kept(*code)).collect(),
        )
        .ranks(self.len())
    }

    /// A digest of the keys and their codes, the same in every process.
    pub(crate) fn digest(&self) -> u64 {
        // The maps have another order in every process.
        let texts = self.by_text.iter().map(|(key, code)| digest_of(&(&**key, code)));
        let integers = self.by_integer.iter().map(|(key, code)| digest_of(&(key, code)));
        texts.chain(integers).fold(0, u64::wrapping_add)
    }
}

/// A digest that is the same in every process of one program.
pub(crate) fn digest_of(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Keys in order, with their codes.
enum Sorted<T> {
    Integers(Vec<(i64, u32)>),
    Texts(Vec<(T, u32)>),
}

impl<T: Ord + AsRef<str>> Sorted<T> {
    fn new(mut integers: Vec<(i64, u32)>, mut texts: Vec<(T, u32)>) -> Self {
        if !texts.is_empty() {
            let parsed: Option<Vec<(i64, u32)>> = texts
                .iter()
                .map(|(text, code)| Some((canonical_integer(without_zero_decimals(text.as_ref()))?, *code)))
                .collect();
            match parsed.and_then(distinct) {
                Some(parsed) => integers = parsed,
                None => {
                    texts.sort_unstable();
                    return Sorted::Texts(texts);
                }
            }
        }
        integers.sort_unstable();
        Sorted::Integers(integers)
    }

    /// The rank of each of `len` codes, `u32::MAX` of those that are not among the keys.
    fn ranks(&self, len: usize) -> Vec<u32> {
        let mut ranks = vec![u32::MAX; len];
        let mut set = |code: &u32, rank: usize| ranks[*code as usize] = rank as u32;
        match self {
            Sorted::Integers(keys) => keys.iter().enumerate().for_each(|(i, (_, code))| set(code, i)),
            Sorted::Texts(keys) => keys.iter().enumerate().for_each(|(i, (_, code))| set(code, i)),
        }
        ranks
    }
}

/// The sorted numbers; `None` if one occurs twice.
fn distinct(mut numbers: Vec<(i64, u32)>) -> Option<Vec<(i64, u32)>> {
    numbers.sort_unstable();
    numbers.is_sorted_by(|a, b| a.0 < b.0).then_some(numbers)
}

/// `1001` for `1001.0`; the text itself unless it is a whole number with only zero decimals.
pub(crate) fn without_zero_decimals(text: &str) -> &str {
    match text.trim_end_matches('0').strip_suffix('.') {
        Some(whole) if !text.ends_with('.') && canonical_integer(whole).is_some() => whole,
        _ => text,
    }
}

/// The whole number in `text`; `None` for `007`, `+7`, `-0` and anything else that would be printed
/// differently.
fn canonical_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = match digits.as_bytes() {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if canonical { text.parse().ok() } else { None }
}

/// Hashes with a random key per process, so that no file can be constructed whose keys all collide.
#[derive(Debug, Clone)]
struct KeyedWords {
    start: u64,
    multiplier: u64,
}

impl Default for KeyedWords {
    fn default() -> Self {
        let random = RandomState::new();
        KeyedWords {
            start: random.hash_one(0u8),
            multiplier: random.hash_one(1u8) | 1,
        }
    }
}

impl BuildHasher for KeyedWords {
    type Hasher = WordHasher;

    fn build_hasher(&self) -> WordHasher {
        WordHasher {
            state: self.start,
            multiplier: self.multiplier,
        }
    }
}

/// A hash of eight bytes at a time. Each word is multiplied by the secret and both halves of the product are
/// kept, so that the effect of a difference between two words cannot be predicted without the secret.
#[derive(Debug)]
struct WordHasher {
    state: u64,
    multiplier: u64,
}

impl WordHasher {
    fn mix(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(self.multiplier);
        self.state = (product as u64) ^ (product >> 64) as u64;
    }
}

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.state
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
    fn whole_numbers_may_have_zero_decimals() {
        assert_eq!(labels(&["10.0", "9.0", "-3.0", "0.00"]), ["-3", "0", "9", "10"]);
        assert_eq!(labels(&["10.0", "9"]), ["9", "10"]);
        for kept in [
            ["10.0", "9.5"],
            ["10.", "9.0"],
            ["07.0", "7.0"],
            ["-0.0", "0.0"],
            ["1.0.0", "1.0"],
        ] {
            let mut found = labels(&kept);
            found.sort_by_key(|label| kept.iter().position(|k| k == label));
            assert_eq!(found, kept);
        }
        // The same number in two forms is never merged silently.
        assert_eq!(labels(&["1.0", "1", "2.0"]), ["1", "1.0", "2.0"]);
        let mut keys = Keys::default();
        for key in ["1", "1.0", "2.0", "2.00", "3.0", "x"] {
            keys.text(key.as_bytes()).unwrap();
        }
        assert_eq!(keys.two_spellings(), [("1.0", "1"), ("2.00", "2.0")]);
    }

    /// The earlier hash, without a secret.
    fn unkeyed(state: u64, word: u64) -> u64 {
        let product = (state.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ (product >> 32)
    }

    #[test]
    fn keys_made_to_collide_do_not() {
        // Two words each, the second chosen so that the state after it is the same for all.
        let keys: Vec<[u64; 2]> = (0..1000)
            .map(|first| [first, unkeyed(0, first).rotate_left(5)])
            .collect();
        assert!(keys.iter().all(|[a, b]| unkeyed(unkeyed(0, *a), *b) == 0));
        let build = KeyedWords::default();
        let hash = |[a, b]: &[u64; 2]| {
            let mut hasher = build.build_hasher();
            hasher.write(&[a.to_le_bytes(), b.to_le_bytes()].concat());
            hasher.finish()
        };
        let distinct: std::collections::HashSet<u64> = keys.iter().map(hash).collect();
        assert_eq!(distinct.len(), keys.len());
        // Nor do words that differ in high bits, whose products have the same differences under every odd
        // multiplier.
        let high: std::collections::HashSet<u64> = (0..16)
            .map(|i| hash(&[i << 60, (i << 60).rotate_left(5)]))
            .collect();
        assert_eq!(high.len(), 16);
        // Two processes, two orders of buckets.
        assert_ne!(KeyedWords::default().start, build.start);
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
