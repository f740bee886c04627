//! Streams of numbers in the encoding DELTA_BINARY_PACKED, followed without being decoded.

use crate::thrift::Compact;

/// Whether `bytes` start with that many streams, one after the other, of at most `values` numbers each.
pub(crate) fn possible(bytes: &[u8], streams: u32, values: u32) -> bool {
    let mut compact = Compact::new(bytes);
    (0..streams).all(|_| pass(&mut compact, u64::from(values)).is_some())
}

/// Passes a stream of at most `most` numbers.
fn pass(compact: &mut Compact<'_>, most: u64) -> Option<()> {
    let block = compact.number()?;
    let minis = compact.number()?;
    let count = compact.number()?;
    compact.signed()?;
    if count > most {
        return None;
    }
    let per_mini = block.checked_div(minis).filter(|numbers| *numbers > 0)?;
    // The first number is in the header.
    let mut left = count.saturating_sub(1);
    while left > 0 {
        compact.signed()?;
        let widths = compact.slice(minis)?;
        for width in widths {
            if left == 0 {
                break;
            }
            let bits = per_mini.checked_mul(u64::from(*width))?;
            // The last stretch of a page may end with its last number.
            if compact.pass(bits / 8).is_none() {
                return (left <= per_mini && u64::from(*width) * left <= 8 * compact.left()).then_some(());
            }
            left = left.saturating_sub(per_mini);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of 128 in 4 stretches, 200 numbers that rise by 5: every width is 0.
    const RISING: [u8; 15] = [128, 1, 4, 200, 1, 2, 10, 0, 0, 0, 0, 10, 0, 0, 0];

    #[test]
    fn streams_are_followed() {
        let mut bytes = RISING.to_vec();
        bytes.push(0);
        assert!(possible(&bytes, 1, 200));
        assert!(!possible(&bytes, 1, 199));
        assert!(!possible(&bytes, 2, 200));
        let twice = [bytes.clone(), bytes.clone()].concat();
        assert!(possible(&twice, 2, 200));
        assert!(!possible(&RISING, 1, 200));
        // Widths of 8 bits need bytes that are missing.
        bytes[7..11].fill(8);
        assert!(!possible(&bytes, 1, 200));
    }
}
