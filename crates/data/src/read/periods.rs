//! Periods: whole numbers or calendar dates, one kind per file.

use super::keys::{digest_of, without_zero_decimals};
use super::numbers::small_number;
use infermark_model::Labels;
use infermark_model::days_from_civil;
use std::collections::HashMap;
use std::num::IntErrorKind;

/// The kind of values in a column of periods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeriodKind {
    Integer,
    Date,
}

impl PeriodKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            PeriodKind::Integer => "a whole number",
            PeriodKind::Date => "a date",
        }
    }
}

/// A period: its kind, and its number or its days since 1970-01-01.
pub(crate) type Period = (PeriodKind, i64);

/// The problem with a cell that holds no period.
pub(crate) const NO_PERIOD: &str = "the period is neither a whole number nor a date";
/// The problem with a whole number that does not fit.
pub(crate) const PERIOD_TOO_LARGE: &str = "the period is a number beyond 64 bits";

/// The period in a cell, or the problem if it is neither a whole number of 64 bits, which may have zero
/// decimals (`202401.0`), nor an existing date as `YYYY-MM-DD`.
pub(crate) fn parse_period(cell: &[u8]) -> Result<Period, &'static str> {
    if let Some(number) = small_number(cell) {
        return Ok((PeriodKind::Integer, i64::from(number)));
    }
    if let Some(days) = parse_date(cell) {
        return Ok((PeriodKind::Date, i64::from(days)));
    }
    let text = std::str::from_utf8(cell).map_err(|_| NO_PERIOD)?;
    match without_zero_decimals(text).parse() {
        Ok(number) => Ok((PeriodKind::Integer, number)),
        Err(e) if matches!(e.kind(), IntErrorKind::PosOverflow | IntErrorKind::NegOverflow) => {
            Err(PERIOD_TOO_LARGE)
        }
        Err(_) => Err(NO_PERIOD),
    }
}

/// Days since 1970-01-01 of a date that exists.
fn parse_date(cell: &[u8]) -> Option<i32> {
    if let [y @ .., b'-', m1, m2, b'-', d1, d2] = cell
        && y.len() == 4
    {
        let number = |digits: &[u8]| {
            digits
                .iter()
                .try_fold(0, |n, d| d.is_ascii_digit().then(|| 10 * n + i32::from(d - b'0')))
        };
        let (year, month, day) = (number(y)?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
        return days_from_civil(year, month as u32, day as u32);
    }
    None
}

/// Span of the table that finds a period's code without hashing.
const WINDOW: i64 = 1 << 16;

/// Codes of the distinct periods, in the order of their first appearance.
#[derive(Debug, Default)]
pub(crate) struct Periods {
    kind: Option<(PeriodKind, u64)>,
    values: Vec<i64>,
    window_start: i64,
    window: Vec<u32>,
    beyond: HashMap<i64, u32>,
}

impl Periods {
    /// Code of a period; `Err` has the kind and row of the first period if the kinds differ.
    pub(crate) fn code(&mut self, (kind, value): Period, row: u64) -> Result<u32, (PeriodKind, u64)> {
        let (first_kind, first_row) = *self.kind.get_or_insert_with(|| {
            self.window_start = value.saturating_sub(WINDOW / 2);
            (kind, row)
        });
        if first_kind != kind {
            return Err((first_kind, first_row));
        }
        let next = self.values.len() as u32;
        let slot = match value.checked_sub(self.window_start) {
            Some(offset @ 0..WINDOW) => {
                let offset = offset as usize;
                if offset >= self.window.len() {
                    self.window.resize(offset + 1, u32::MAX);
                }
                &mut self.window[offset]
            }
            _ => self.beyond.entry(value).or_insert(u32::MAX),
        };
        if *slot == u32::MAX {
            *slot = next;
            self.values.push(value);
        }
        Ok(*slot)
    }

    /// How many distinct periods there are.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    /// A digest of the periods and their codes, the same in every process.
    pub(crate) fn digest(&self) -> u64 {
        let is_date = matches!(self.kind, Some((PeriodKind::Date, _)));
        digest_of(&(is_date, &self.values))
    }

    /// Sorted labels, and the rank of every code.
    pub(crate) fn into_labels(self) -> (Labels, Vec<u32>) {
        let mut order: Vec<u32> = (0..self.values.len() as u32).collect();
        order.sort_unstable_by_key(|code| self.values[*code as usize]);
        let mut rank = vec![0; order.len()];
        for (i, code) in order.iter().enumerate() {
            rank[*code as usize] = i as u32;
        }
        let sorted = order.iter().map(|code| self.values[*code as usize]);
        let labels = match self.kind {
            Some((PeriodKind::Date, _)) => Labels::Date(sorted.map(|v| v as i32).collect()),
            _ => Labels::Integer(sorted.collect()),
        };
        (labels, rank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_whole_numbers_or_existing_dates() {
        assert_eq!(parse_period(b"-12"), Ok((PeriodKind::Integer, -12)));
        assert_eq!(parse_period(b"1970-01-02"), Ok((PeriodKind::Date, 1)));
        assert_eq!(parse_period(b"202401.0"), Ok((PeriodKind::Integer, 202_401)));
        assert_eq!(parse_period(b"-3.00"), Ok((PeriodKind::Integer, -3)));
        for cell in [
            "2024.",
            "2024.05",
            "2024.0.0",
            ".0",
            "2023-02-29",
            "2023-2-28",
            "01/02/2023",
            "1.5",
            "",
            "W1",
            "2023-02-2x",
        ] {
            assert_eq!(parse_period(cell.as_bytes()), Err(NO_PERIOD), "{cell}");
        }
        assert_eq!(
            parse_period(b"9223372036854775807"),
            Ok((PeriodKind::Integer, i64::MAX))
        );
        for cell in ["9223372036854775808", "-99999999999999999999"] {
            assert_eq!(parse_period(cell.as_bytes()), Err(PERIOD_TOO_LARGE), "{cell}");
        }
    }

    #[test]
    fn codes_hold_inside_and_outside_the_window() {
        let mut periods = Periods::default();
        let values = [5, 3, 5, i64::MAX, i64::MIN, 3, 40_000, i64::MAX, 5 + WINDOW];
        let codes: Vec<u32> = values
            .iter()
            .map(|v| periods.code((PeriodKind::Integer, *v), 0).unwrap())
            .collect();
        assert_eq!(codes, [0, 1, 0, 2, 3, 1, 4, 2, 5]);
        let (labels, rank) = periods.into_labels();
        assert_eq!(
            labels,
            Labels::Integer(vec![i64::MIN, 3, 5, 40_000, 5 + WINDOW, i64::MAX])
        );
        assert_eq!(rank, [2, 1, 5, 0, 3, 4]);
    }

    #[test]
    fn kinds_do_not_mix() {
        let mut periods = Periods::default();
        periods.code((PeriodKind::Date, 9), 4).unwrap();
        assert_eq!(
            periods.code((PeriodKind::Integer, 9), 5),
            Err((PeriodKind::Date, 4))
        );
    }
}
