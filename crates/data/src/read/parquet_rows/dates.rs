//! The dates of timestamps: the local day in their zone.

use super::types::value_type;
use super::zone::{DAY, HOUR, Zone};
use crate::read::defect::{Defects, Place};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use std::cell::Cell;

/// Days since 1970-01-01 of a column of dates or timestamps. `clock` records the times of day of those in
/// UTC.
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

/// The times of day of a column in UTC. Some writers store a date as local midnight and label it UTC.
#[derive(Debug, Default, Clone)]
pub(super) struct Clock {
    times: Vec<i64>,
    mixed: bool,
}

impl Clock {
    /// Records the times of day, in units of `1 / per_second` seconds; `days` are those of the times in UTC.
    fn watch(&mut self, times: &Int64Array, days: &Int64Array, per_second: i64) {
        let mut last = None;
        for (row, (time, day)) in times.values().iter().zip(days.values()).enumerate() {
            if self.mixed {
                return;
            }
            // The remaining time is less than a day, even if the start of the day is out of range.
            let time = time.wrapping_sub(day.wrapping_mul(DAY * per_second));
            if last != Some(time) && times.is_valid(row) {
                last = Some(time);
                self.note(time / per_second, time % (HOUR / 4 * per_second) == 0);
            }
        }
    }

    /// Records a time of day, in seconds; `quarter` says whether it is a whole quarter of an hour.
    fn note(&mut self, time: i64, quarter: bool) {
        // Midnight has one time in UTC, or two with daylight saving; if local time is UTC in winter, one is
        // 00:00.
        let may_be = quarter && (time == 0 || time >= 10 * HOUR);
        let known = self.times.contains(&time);
        if !may_be || (self.times.len() == 2 && !known) {
            self.mixed = true;
        } else if !known {
            self.times.push(time);
            self.times.sort_unstable();
        }
    }

    /// Reports when all times are midnights in a zone ahead of UTC, whose UTC date is that of the day before.
    pub(super) fn check(&self, column: &str, defects: &mut Defects) {
        let midnights = match self.times[..] {
            // Midnight is as it should be, and noon denotes the same day in any reader's zone.
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
        defects.push(Place::File, column, None, || {
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
