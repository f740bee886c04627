//! The dates of timestamps: the day that a clock in their zone shows.

use super::types::value_type;
use crate::read::defect::{Findings, Place};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;
use std::cell::Cell;

const DAY: i64 = 86_400;
const HOUR: i64 = 3_600;

/// How far clocks are ahead of UTC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Zone {
    /// By as many seconds always.
    Fixed(i64),
    /// By what the place uses at the time.
    Place(Tz),
}

impl Zone {
    /// The zone that a file names: a place of the IANA database, or an offset such as `+05:30`.
    pub(super) fn named(name: &str) -> Option<Self> {
        if matches!(name, "UTC" | "Z" | "Etc/UTC") {
            return Some(Zone::Fixed(0));
        }
        offset(name)
            .map(Zone::Fixed)
            .or_else(|| name.parse().ok().map(Zone::Place))
    }

    /// Days since 1970-01-01 on the clocks of the zone.
    fn day(self, seconds: i64) -> i64 {
        let ahead = match self {
            Zone::Fixed(ahead) => ahead,
            // Beyond the years of chrono there are no rules either.
            Zone::Place(place) => DateTime::from_timestamp(seconds, 0).map_or(0, |time| {
                let offset = place.offset_from_utc_datetime(&time.naive_utc());
                i64::from(offset.fix().local_minus_utc())
            }),
        };
        seconds.saturating_add(ahead).div_euclid(DAY)
    }
}

/// Seconds of `+05:30`, `+0530` or `+05`.
fn offset(name: &str) -> Option<i64> {
    let (sign, digits) = match name.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let number = |digits: &str, end: i64| {
        let sound = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse::<i64>().ok().filter(|number| sound && *number < end)
    };
    let (hours, minutes) = match digits.len() {
        2 => (digits, "00"),
        4 => digits.split_at_checked(2)?,
        _ => digits.split_once(':')?,
    };
    Some(sign * (HOUR * number(hours, 24)? + 60 * number(minutes, 60)?))
}

/// Days since 1970-01-01 of a column of dates or timestamps. `clock` watches the times of those in UTC.
pub(super) fn days(array: &ArrayRef, clock: &mut Clock) -> Result<Int64Array, ArrowError> {
    let array = cast(array, value_type(array.data_type()))?;
    let DataType::Timestamp(unit, zone) = array.data_type() else {
        let days = cast(&array, &DataType::Date32)?;
        return Ok(days.as_primitive::<Date32Type>().unary(i64::from));
    };
    let zone = match zone.as_deref() {
        None => Zone::Fixed(0),
        Some(name) => {
            let zone = Zone::named(name);
            zone.ok_or_else(|| ArrowError::ParseError(format!("the zone {name:?} is not known")))?
        }
    };
    let per_second = match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    };
    let watched = zone == Zone::Fixed(0) && matches!(array.data_type(), DataType::Timestamp(_, Some(_)));
    let times = cast(&array, &DataType::Int64)?;
    let times = times.as_primitive::<Int64Type>();
    // Rows of a period often follow each other.
    let last = Cell::new((0, zone.day(0)));
    let days: Int64Array = times.unary(|time| {
        let seconds = time.div_euclid(per_second);
        if last.get().0 != seconds {
            last.set((seconds, zone.day(seconds)));
        }
        last.get().1
    });
    if watched {
        clock.watch(times, &days, per_second);
    }
    Ok(days)
}

/// The times of day of a column in UTC. Some writers store a date as midnight where they run, and say UTC.
#[derive(Debug, Default, Clone)]
pub(super) struct Clock {
    times: Vec<i64>,
    mixed: bool,
}

impl Clock {
    /// Takes note of the times of day, of which a second has `per_second` parts; `days` are those of the times in UTC.
    fn watch(&mut self, times: &Int64Array, days: &Int64Array, per_second: i64) {
        let mut last = None;
        for (row, (time, day)) in times.values().iter().zip(days.values()).enumerate() {
            if self.mixed {
                return;
            }
            // What is left of the time is less than a day, even where the start of the day is beyond the numbers.
            let time = time.wrapping_sub(day.wrapping_mul(DAY * per_second));
            if last != Some(time) && times.is_valid(row) {
                last = Some(time);
                self.note(time / per_second, time % (HOUR / 4 * per_second) == 0);
            }
        }
    }

    /// Takes note of a time of day, in seconds; `quarter` says whether it is that of a whole quarter of an hour.
    fn note(&mut self, time: i64, quarter: bool) {
        // Midnight has one time in UTC, or two with daylight saving; where the clocks show UTC in winter, one is 00:00.
        let may_be = quarter && (time == 0 || time >= 10 * HOUR);
        let known = self.times.contains(&time);
        if !may_be || (self.times.len() == 2 && !known) {
            self.mixed = true;
        } else if !known {
            self.times.push(time);
            self.times.sort_unstable();
        }
    }

    /// Says so when all times are midnights of a place ahead of UTC, whose date in UTC is that of the day before.
    pub(super) fn check(&self, column: &str, findings: &mut Findings) {
        let midnights = match self.times[..] {
            // Midnight is as it should be, and noon marks a day whatever the zone of who reads it.
            [time] => time != 0 && time != 12 * HOUR,
            [first, second] => second - first == HOUR || (first, second) == (0, 23 * HOUR),
            _ => false,
        };
        if self.mixed || !midnights {
            return;
        }
        let shown: Vec<String> = self
            .times
            .iter()
            .map(|time| format!("{:02}:{:02}", time / HOUR, time % HOUR / 60))
            .collect();
        findings.push(Place::File, column, None, || {
            (
                format!(
                    "all timestamps are at {} UTC, which may be midnight in a zone ahead of UTC, a day later",
                    shown.join(" or ")
                ),
                "store dates, or timestamps that name their zone".into(),
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_places_or_offsets() {
        for (name, seconds) in [
            ("UTC", 0),
            ("+05:30", 19_800),
            ("-0800", -28_800),
            ("+02", 7_200),
            ("Z", 0),
        ] {
            assert_eq!(Zone::named(name), Some(Zone::Fixed(seconds)), "{name}");
        }
        assert!(matches!(Zone::named("America/New_York"), Some(Zone::Place(_))));
        for name in [
            "",
            "+",
            "+5",
            "+25:00",
            "+0a:00",
            "+05:60",
            "Mars/Olympus",
            "+\u{e9}5",
        ] {
            assert_eq!(Zone::named(name), None, "{name}");
        }
    }

    #[test]
    fn the_day_is_that_of_the_place() {
        let day = |zone: &str, seconds| Zone::named(zone).unwrap().day(seconds);
        // 2024-01-08 00:00 is 05:00 UTC in New York and 23:00 UTC of the day before in Berlin; in July 04:00 and 22:00.
        let (january, july) = (1_704_672_000, 1_720_396_800);
        assert_eq!(day("America/New_York", january + 5 * HOUR), january / DAY);
        assert_eq!(day("America/New_York", january + 5 * HOUR - 1), january / DAY - 1);
        assert_eq!(day("Europe/Berlin", january - HOUR), january / DAY);
        assert_eq!(day("Europe/Berlin", january - HOUR - 1), january / DAY - 1);
        assert_eq!(day("Europe/Berlin", july - 2 * HOUR), july / DAY);
        assert_eq!(day("+05:30", january - 19_800), january / DAY);
        assert_eq!(day("UTC", -1), -1);
        assert_eq!(day("Europe/Berlin", i64::MAX), i64::MAX / DAY);
    }
}
