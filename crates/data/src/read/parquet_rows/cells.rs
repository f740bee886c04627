//! The cells of a batch of rows: keys, periods and units, in the few forms that are read.

use super::dates::{Clock, days};
use super::types::{dictionary, is_text, value_type};
use crate::read::csv_rows::whole_units;
use crate::read::keys::Keys;
use crate::read::panel_builder::MAX_UNITS;
use crate::read::periods::{NO_PERIOD, PERIOD_TOO_LARGE, Period, PeriodKind, parse_period};
use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type, Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType};

/// The problem with a number that should be whole.
const FRACTION: &str = "the number has a fraction";
/// The problem with a number that does not fit in 128 bits.
const TOO_LONG: &str = "the number has more than 38 digits";

/// The limit up to which each float of a type represents one whole number.
#[derive(Clone, Copy)]
pub(super) struct Exact {
    end: f64,
    /// The problem with a whole float beyond the limit, which may have been rounded from another number.
    beyond: &'static str,
}

impl Exact {
    fn of(data_type: &DataType) -> Self {
        let (digits, beyond) = match data_type {
            DataType::Float16 => (
                11,
                "the number is a 16-bit float of 2^11 or beyond, where such floats leave whole numbers out",
            ),
            DataType::Float32 => (
                24,
                "the number is a 32-bit float of 2^24 or beyond, where such floats leave whole numbers out",
            ),
            _ => (
                53,
                "the number is a 64-bit float of 2^53 or beyond, where such floats leave whole numbers out",
            ),
        };
        Exact {
            end: (1u64 << digits) as f64,
            beyond,
        }
    }
}

/// Why a row has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// Its cell is null or blank.
    Empty,
    /// Its cell is not UTF-8.
    NotText,
    /// Its number is not whole.
    Number(&'static str),
}

impl NoKey {
    /// Problem and remedy; `empty` is the problem text for an empty cell.
    pub(super) fn texts(self, empty: &'static str) -> (&'static str, &'static str) {
        match self {
            NoKey::Empty => (empty, "fill it in or remove the row"),
            NoKey::NotText => ("the cell is not UTF-8 text", "store the column as UTF-8 text"),
            NoKey::Number(problem) => (problem, "store whole numbers or text"),
        }
    }
}

/// A column of keys or periods.
pub(super) enum Cells {
    /// Codes of texts, and the texts.
    Text(Int32Array, BinaryArray),
    Number(Int64Array),
    /// Numbers beyond 64 bits, or with decimals that should be 0; the file's own array shows which are null.
    Wide(Decimal128Array, ArrayRef),
    Real(Float64Array, Exact),
}

/// A cell that is not empty.
enum Cell<'a> {
    Text(usize, &'a [u8]),
    Number(i64),
    /// From a column whose numbers may exceed 64 bits.
    Wide(i128),
}

impl Cells {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        let data_type = value_type(array.data_type()).clone();
        if is_text(&data_type) {
            return Cells::texts(&cast(array, &dictionary(&data_type))?);
        }
        Ok(match &data_type {
            // Such a number may exceed Int64.
            DataType::UInt64 => wide(array, 20, 0)?,
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => wide(array, *precision, *scale)?,
            _ if data_type.is_floating() => Cells::Real(
                cast(array, &DataType::Float64)?.as_primitive().clone(),
                // The cast hides the number of digits of the file's type.
                Exact::of(&data_type),
            ),
            _ => Cells::Number(cast(array, &DataType::Int64)?.as_primitive().clone()),
        })
    }

    fn texts(array: &ArrayRef) -> Result<Self, ArrowError> {
        let array: &DictionaryArray<Int32Type> = array.as_dictionary();
        let values = match array.values().data_type() {
            DataType::Utf8 => BinaryArray::from(array.values().as_string::<i32>().clone()),
            _ => array.values().as_binary::<i32>().clone(),
        };
        Ok(Cells::Text(array.keys().clone(), values))
    }

    /// A row's cell, `None` if it is null, or the problem with it.
    fn cell(&self, row: usize) -> Result<Option<Cell<'_>>, &'static str> {
        Ok(match self {
            Cells::Text(codes, values) if codes.is_valid(row) => {
                let code = codes.value(row) as usize;
                values
                    .is_valid(code)
                    .then(|| Cell::Text(code, values.value(code)))
            }
            Cells::Number(array) if array.is_valid(row) => Some(Cell::Number(array.value(row))),
            Cells::Wide(array, _) if array.is_valid(row) => Some(whole(array, row)?),
            // The cast drops values that do not fit in 128 bits.
            Cells::Wide(_, source) if source.is_valid(row) => return Err(TOO_LONG),
            Cells::Real(array, exact) if array.is_valid(row) => {
                let number = array.value(row);
                // If floats represent whole numbers, gaps are NaN.
                if number.is_nan() {
                    return Ok(None);
                }
                if number.fract() != 0.0 || number.is_infinite() {
                    return Err(FRACTION);
                }
                if number.abs() >= exact.end {
                    return Err(exact.beyond);
                }
                Some(Cell::Number(number as i64))
            }
            _ => None,
        })
    }
}

/// A column as decimals of 128 bits.
fn wide(array: &ArrayRef, precision: u8, scale: i8) -> Result<Cells, ArrowError> {
    let source = cast(array, value_type(array.data_type()))?;
    let wide = cast(&source, &DataType::Decimal128(precision.clamp(20, 38), scale))?;
    Ok(Cells::Wide(wide.as_primitive::<Decimal128Type>().clone(), source))
}

fn whole(array: &Decimal128Array, row: usize) -> Result<Cell<'static>, &'static str> {
    let number = array.value(row);
    let scale = array.scale();
    let number = match u32::try_from(scale)
        .ok()
        .and_then(|scale| 10i128.checked_pow(scale))
    {
        Some(1) => number,
        Some(unit) if number % unit == 0 => number / unit,
        _ => return Err(FRACTION),
    };
    Ok(Cell::Wide(number))
}

/// Codes of the keys of the current dictionary, which stays the same over many batches.
#[derive(Default)]
pub(super) struct KeyCodes {
    dictionary: Option<BinaryArray>,
    codes: Vec<u32>,
    last: Option<(i64, u32)>,
    last_wide: Option<(i128, u32)>,
}

const UNKNOWN: u32 = u32::MAX;

impl KeyCodes {
    pub(super) fn enter(&mut self, cells: &Cells) {
        let Cells::Text(_, values) = cells else { return };
        let same = self.dictionary.as_ref().is_some_and(|held| {
            held.len() == values.len()
                && held.value_data().as_ptr() == values.value_data().as_ptr()
                && held.value_offsets().as_ptr() == values.value_offsets().as_ptr()
        });
        if !same {
            self.codes.clear();
            self.codes.resize(values.len(), UNKNOWN);
            self.dictionary = Some(values.clone());
        }
    }

    /// Code of a row's key, or why it has none.
    #[inline]
    pub(super) fn code(&mut self, cells: &Cells, row: usize, keys: &mut Keys) -> Result<u32, NoKey> {
        match cells {
            Cells::Text(codes, _) => {
                if codes.is_null(row) {
                    return Err(NoKey::Empty);
                }
                let slot = codes.value(row) as usize;
                match self.codes[slot] {
                    UNKNOWN => self.text(slot, keys),
                    code => Ok(code),
                }
            }
            Cells::Number(array) => {
                if array.is_null(row) {
                    return Err(NoKey::Empty);
                }
                Ok(self.number(array.value(row), keys))
            }
            _ => match cells.cell(row).map_err(NoKey::Number)? {
                None => Err(NoKey::Empty),
                Some(Cell::Number(number)) => Ok(self.number(number, keys)),
                Some(Cell::Wide(number)) => Ok(self.wide(number, keys)),
                Some(Cell::Text(slot, _)) => self.text(slot, keys),
            },
        }
    }

    /// Code of a text of the dictionary, when it has none yet.
    fn text(&mut self, slot: usize, keys: &mut Keys) -> Result<u32, NoKey> {
        let values = self.dictionary.as_ref().expect("entered");
        if values.is_null(slot) || values.value(slot).trim_ascii().is_empty() {
            return Err(NoKey::Empty);
        }
        let code = keys.text(values.value(slot)).map_err(|_| NoKey::NotText)?;
        self.codes[slot] = code;
        Ok(code)
    }

    #[inline]
    fn number(&mut self, number: i64, keys: &mut Keys) -> u32 {
        if let Some((last, code)) = self.last
            && last == number
        {
            return code;
        }
        let code = keys.integer(number);
        self.last = Some((number, code));
        code
    }

    /// Code of a number that may exceed 64 bits: as text it is still the same key, and a column has one kind of keys.
    fn wide(&mut self, number: i128, keys: &mut Keys) -> u32 {
        if let Some((last, code)) = self.last_wide
            && last == number
        {
            return code;
        }
        let code = keys
            .text(number.to_string().as_bytes())
            .expect("digits are UTF-8");
        self.last_wide = Some((number, code));
        code
    }
}

/// The periods of a batch.
pub(super) struct PeriodCells {
    cells: Cells,
    kind: PeriodKind,
}

impl PeriodCells {
    pub(super) fn new(array: &ArrayRef, clock: &mut Clock) -> Result<Self, ArrowError> {
        use DataType::{Date32, Date64, Timestamp};
        if matches!(value_type(array.data_type()), Date32 | Date64 | Timestamp(..)) {
            return Ok(PeriodCells {
                cells: Cells::Number(days(array, clock)?),
                kind: PeriodKind::Date,
            });
        }
        Ok(PeriodCells {
            cells: Cells::new(array)?,
            kind: PeriodKind::Integer,
        })
    }

    /// The periods, if they are whole numbers of 64 bits.
    pub(super) fn whole_numbers(&self) -> Option<&Int64Array> {
        match &self.cells {
            Cells::Number(array) if self.kind == PeriodKind::Integer => Some(array),
            _ => None,
        }
    }

    /// A row's period, or why it has none.
    #[inline]
    pub(super) fn period(&self, row: usize) -> Result<Period, &'static str> {
        const DATE_TOO_FAR: &str = "the period is a date millions of years away";
        if let Cells::Number(array) = &self.cells
            && self.kind == PeriodKind::Integer
            && array.is_valid(row)
        {
            return Ok((self.kind, array.value(row)));
        }
        match self.cells.cell(row)? {
            Some(Cell::Number(day)) if self.kind == PeriodKind::Date && i32::try_from(day).is_err() => {
                Err(DATE_TOO_FAR)
            }
            Some(Cell::Number(number)) => Ok((self.kind, number)),
            Some(Cell::Wide(number)) => match i64::try_from(number) {
                Ok(number) => Ok((self.kind, number)),
                Err(_) => Err(PERIOD_TOO_LARGE),
            },
            Some(Cell::Text(_, text)) => parse_period(text.trim_ascii()),
            None => Err(NO_PERIOD),
        }
    }
}

/// The units of a batch.
pub(super) enum UnitCells {
    Whole(Int64Array),
    Real(Float64Array),
}

impl UnitCells {
    pub(super) fn new(array: &ArrayRef) -> Result<Self, ArrowError> {
        // Unsigned 64-bit numbers may exceed Int64; as floats they are refused as too large, not as missing.
        if value_type(array.data_type()).is_integer() && *value_type(array.data_type()) != DataType::UInt64 {
            Ok(UnitCells::Whole(
                cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            ))
        } else {
            Ok(UnitCells::Real(
                cast(array, &DataType::Float64)?
                    .as_primitive::<Float64Type>()
                    .clone(),
            ))
        }
    }

    #[inline]
    pub(super) fn units(&self, row: usize) -> Result<u32, &'static str> {
        const MISSING: &str = "the units are missing";
        match self {
            UnitCells::Whole(array) if array.is_valid(row) => {
                let units = array.value(row);
                if (0..=i64::from(MAX_UNITS)).contains(&units) {
                    Ok(units as u32)
                } else {
                    whole_units(units as f64)
                }
            }
            UnitCells::Real(array) if array.is_valid(row) => whole_units(array.value(row)),
            _ => Err(MISSING),
        }
    }
}
