//! The zones that timestamps name.

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;
/// Seconds of an hour.
pub(super) const HOUR: i64 = 3_600;

/// The offset of clocks from UTC.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Zone {
    /// A fixed number of seconds.
    Fixed(i64),
    /// The offset in use at the place at that time.
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

    /// Days since 1970-01-01 in local time of the zone.
    pub(super) fn day(self, seconds: i64) -> i64 {
        let ahead = match self {
            Zone::Fixed(ahead) => ahead,
            // Beyond the years of chrono there are no zone rules either.
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
