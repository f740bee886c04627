//! Numbers in text cells: short ones, which nearly all are, without the general parser.

/// The whole number of a cell of one to nine digits.
pub(crate) fn small_number(cell: &[u8]) -> Option<u32> {
    if cell.is_empty() || cell.len() > 9 {
        return None;
    }
    cell.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| 10 * number + u32::from(digit))
    })
}

/// The number in a cell, correctly rounded; `None` if it is not a number.
pub(crate) fn parse_number(cell: &[u8]) -> Option<f64> {
    short_decimal(cell).or_else(|| std::str::from_utf8(cell).ok()?.parse().ok())
}

/// Powers of ten that are exact in `f64`.
const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Digits with at most one point among them. Fifteen digits and their power of ten are exact, so that the one division
/// rounds correctly (W. Clinger, "How to read floating point numbers accurately", 1990).
fn short_decimal(cell: &[u8]) -> Option<f64> {
    if cell.len() > 16 {
        return None;
    }
    let (mut number, mut digits, mut decimals) = (0u64, 0usize, None);
    for byte in cell {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            number = 10 * number + u64::from(digit);
            digits += 1;
            decimals = decimals.map(|d: usize| d + 1);
        } else if *byte == b'.' && decimals.is_none() {
            decimals = Some(0);
        } else {
            return None;
        }
    }
    (1..=15)
        .contains(&digits)
        .then(|| number as f64 / POWERS[decimals.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_decimals_are_those_of_the_general_parser() {
        for text in [
            "0",
            "2.5",
            "125.95",
            "0.1",
            ".5",
            "5.",
            "999999999999999",
            "0.00000000000001",
            "123456789.012345",
        ] {
            let short = short_decimal(text.as_bytes()).unwrap();
            assert_eq!(short.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
        }
        for cents in (1..2_000_000u64).step_by(37) {
            let text = format!("{}.{:02}", cents / 100, cents % 100);
            assert_eq!(short_decimal(text.as_bytes()), text.parse().ok());
        }
        for text in ["", ".", "-1", "1e3", "1.2.3", "1234567890123456", "nan", "1 2"] {
            assert_eq!(short_decimal(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_number(b"-1.5e3"), Some(-1500.0));
        assert_eq!(
            parse_number(b"12345678901234567890"),
            Some(12_345_678_901_234_567_890.0)
        );
    }

    #[test]
    fn small_numbers_are_digits_only() {
        assert_eq!(small_number(b"007"), Some(7));
        assert_eq!(small_number(b"999999999"), Some(999_999_999));
        for text in ["", "-1", "1.0", "1234567890", "1x"] {
            assert_eq!(small_number(text.as_bytes()), None, "{text}");
        }
    }
}
