//! Durations as documents write them.

use jiff::SignedDuration;

use super::problem::shown;
use crate::{Error, Result};

/// Reads a duration as Go writes it (`1h30m`, `90s`, `1.5h`, `250ms`, `0`), with `d` for days of 24
/// hours besides, as in `7d` or `1d12h`.
///
/// The format is that of Go's `time.ParseDuration`, <https://pkg.go.dev/time#ParseDuration>, without
/// a sign.
///
/// # Errors
///
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for any other text, and for more than a
/// thousand years.
///
/// ```
/// use jiff::SignedDuration;
/// use workflows_core::workflow::parse_duration;
///
/// assert_eq!(parse_duration("1h30m").unwrap(), SignedDuration::from_mins(90));
/// assert_eq!(parse_duration("7d").unwrap(), SignedDuration::from_hours(7 * 24));
/// assert!(parse_duration("3 weeks").is_err());
/// ```
pub fn parse_duration(text: &str) -> Result<SignedDuration> {
    const LONGEST: f64 = 1000.0 * 366.0 * 86_400.0;
    let wrong = || {
        Error::invalid("read a duration", format!("{} is no duration", shown(text)))
            .with("expected", "such as 90s, 30m, 1h30m or 7d")
    };
    if text == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if text.is_empty() || text.len() > 64 {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, behind) = rest.split_at_checked(digits).ok_or_else(wrong)?;
        let letters = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(letters).ok_or_else(wrong)?;
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        seconds += number.parse::<f64>().map_err(|_| wrong())? * unit;
        rest = behind;
    }
    if !(0.0..=LONGEST).contains(&seconds) {
        return Err(wrong().with("longest", "1000 years"));
    }
    SignedDuration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_and_days_are_read() {
        for (text, milliseconds) in [
            ("0", 0),
            ("0s", 0),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("1h0m0s", 3_600_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("1d12h", 129_600_000),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read, SignedDuration::from_millis(milliseconds), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["", "h", "5", "1 h", "-1h", "1w", "1h-", "1..5h", "..h", "9999999999d", "1é"]
        {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains("is no duration"), "{text}: {error}");
        }
    }
}
