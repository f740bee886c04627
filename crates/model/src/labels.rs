//! The names of products, categories and periods, in sorted order.

use std::fmt;

/// The labels of one axis of the panel, sorted: integers by value, dates by time, text by Unicode code point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// Free text.
    Text(Vec<Box<str>>),
    /// Whole numbers.
    Integer(Vec<i64>),
    /// Calendar dates as days since 1970-01-01 (proleptic Gregorian).
    Date(Vec<i32>),
    /// `prefix` followed by the zero-padded index; what the generators use, since a million strings are not needed.
    Numbered {
        /// Text before the number.
        prefix: &'static str,
        /// Digits, padded with zeros, so that text order is numeric order.
        width: usize,
        /// How many labels there are.
        count: usize,
    },
}

impl Labels {
    /// Labels `prefix000..prefix{count-1}` with as many digits as the largest needs.
    pub fn numbered(prefix: &'static str, count: usize) -> Self {
        let width = count.saturating_sub(1).max(1).ilog10() as usize + 1;
        Labels::Numbered { prefix, width, count }
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        match self {
            Labels::Text(v) => v.len(),
            Labels::Integer(v) => v.len(),
            Labels::Date(v) => v.len(),
            Labels::Numbered { count, .. } => *count,
        }
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The label at `index` as it is printed in result files.
    ///
    /// # Panics
    /// When `index` is out of range.
    pub fn get(&self, index: usize) -> Label<'_> {
        assert!(index < self.len(), "label {index} of {}", self.len());
        match self {
            Labels::Text(v) => Label::Text(&v[index]),
            Labels::Integer(v) => Label::Integer(v[index]),
            Labels::Date(v) => Label::Date(v[index]),
            Labels::Numbered { prefix, width, .. } => Label::Numbered {
                prefix,
                width: *width,
                index,
            },
        }
    }

    /// The labels at these places, ascending.
    ///
    /// # Panics
    /// When a place is out of range.
    pub fn at(&self, places: &[u32]) -> Labels {
        let places = places.iter().map(|place| *place as usize);
        match self {
            Labels::Text(all) => Labels::Text(places.map(|place| all[place].clone()).collect()),
            Labels::Integer(all) => Labels::Integer(places.map(|place| all[place]).collect()),
            Labels::Date(all) => Labels::Date(places.map(|place| all[place]).collect()),
            Labels::Numbered { .. } => Labels::Text(
                places
                    .map(|place| self.get(place).to_string().into_boxed_str())
                    .collect(),
            ),
        }
    }

    /// All labels in order.
    pub fn iter(&self) -> impl Iterator<Item = Label<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }
}

/// One label, printed by `Display`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label<'a> {
    /// Free text.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// Days since 1970-01-01, printed as `YYYY-MM-DD`.
    Date(i32),
    /// Prefix and zero-padded index.
    Numbered {
        /// Text before the number.
        prefix: &'a str,
        /// Digits.
        width: usize,
        /// The number.
        index: usize,
    },
}

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Label::Text(s) => f.write_str(s),
            Label::Integer(i) => write!(f, "{i}"),
            Label::Date(days) => {
                let (y, m, d) = civil_from_days(days);
                write!(f, "{y:04}-{m:02}-{d:02}")
            }
            Label::Numbered { prefix, width, index } => write!(f, "{prefix}{index:0width$}"),
        }
    }
}

/// Year, month and day of a day count since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let z = i64::from(days) + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    let year = yoe + era * 400 + i64::from(month <= 2);
    (year as i32, month, day)
}

/// Day count since 1970-01-01 of a calendar date, `None` when there is no such day.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
pub fn days_from_civil(year: i32, month: u32, day: u32) -> Option<i32> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if day == 0 || day > length {
        return None;
    }
    let y = i64::from(year) - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from(if month > 2 { month - 3 } else { month + 9 });
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    i32::try_from(era * 146_097 + doe - 719_468).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_round_trip_over_eight_centuries() {
        for days in (-150_000..150_000).step_by(7) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), Some(days));
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(days_from_civil(2024, 2, 29), Some(19_782));
        assert_eq!(days_from_civil(2023, 2, 29), None);
    }

    #[test]
    fn numbered_labels_sort_as_text() {
        let labels = Labels::numbered("p", 1000);
        let text: Vec<String> = labels.iter().map(|l| l.to_string()).collect();
        assert_eq!(text[7], "p007");
        assert!(text.is_sorted());
        assert_eq!(Labels::numbered("p", 1).get(0).to_string(), "p0");
    }
}
