//! Numbers as people read them.

/// `1,560,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits without exponent: `0.130`, `12.6`, `1,340`.
pub fn three_digits(x: f64) -> String {
    if !x.is_finite() {
        return x.to_string();
    }
    let sign = if x < 0.0 { "-" } else { "" };
    let size = x.abs();
    if size == 0.0 {
        return "0".into();
    }
    // Rounded first, so that 9.996 is taken for the 10.0 that it prints as.
    let rounded: f64 = format!("{size:.2e}").parse().unwrap_or(size);
    if rounded >= 1000.0 {
        return format!("{sign}{}", count(rounded.round() as u64));
    }
    let decimals = (2 - rounded.log10().floor() as i32).clamp(0, 12) as usize;
    format!("{sign}{rounded:.decimals$}")
}

/// Three significant digits and k, M, G or T: `4.20 G`.
pub fn with_prefix(x: f64) -> String {
    for (unit, name) in [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")] {
        if x.abs() >= 0.9995 * unit {
            return format!("{}{name}", three_digits(x / unit));
        }
    }
    three_digits(x)
}

/// A time in the two units that fit it: `22 h 05 min`, `4 min 09 s`, `12.6 s`, `3.21 ms`.
pub fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return "unknown".into();
    }
    let minutes = (seconds / 60.0).round();
    let hours = (seconds / 3600.0).round();
    if hours >= 1000.0 {
        format!("{} h", count(hours as u64))
    } else if minutes >= 60.0 {
        format!("{} h {:02} min", (minutes / 60.0) as u64, minutes as u64 % 60)
    } else if seconds.round() >= 100.0 {
        let seconds = seconds.round() as u64;
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    } else if seconds >= 0.9995 {
        format!("{} s", three_digits(seconds))
    } else if seconds >= 0.9995e-3 {
        format!("{} ms", three_digits(seconds * 1e3))
    } else {
        format!("{} us", three_digits(seconds * 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_eye() {
        assert_eq!(count(1_560_000), "1,560,000");
        assert_eq!(count(7), "7");
        assert_eq!(three_digits(0.13), "0.130");
        assert_eq!(three_digits(9.996), "10.0");
        assert_eq!(three_digits(1336.4), "1,340");
        assert_eq!(three_digits(-0.0012345), "-0.00123");
        assert_eq!(three_digits(f64::NAN), "NaN");
        assert_eq!(with_prefix(4.2e9), "4.20 G");
        assert_eq!(with_prefix(999.9e3), "1.00 M");
        assert_eq!(duration(79_500.0), "22 h 05 min");
        assert_eq!(duration(2132.5 * 3600.0), "2,133 h");
        assert_eq!(duration(249.0), "4 min 09 s");
        assert_eq!(duration(12.6), "12.6 s");
        assert_eq!(duration(0.000_8), "800 us");
        assert_eq!(duration(0.00321), "3.21 ms");
        assert_eq!(duration(3599.0), "1 h 00 min");
    }
}
