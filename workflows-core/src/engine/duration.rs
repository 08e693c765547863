//! Lengths of time, as documents write them.

use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::{Error, Result};

/// Reads a length of time such as `30m`, `1h30m` or `7d`; a day has 24 hours.
///
/// # Errors
///
/// `Invalid` when it is none, is negative, or counts months or years.
pub(crate) fn parse(text: &str) -> Result<SignedDuration> {
    const OPERATION: &str = "read a length of time";
    let invalid =
        |message: &str| Error::invalid(OPERATION, message).with("text", format!("{text:?}"));
    let span: Span = text.trim().parse().map_err(|_| invalid("write it as 30m, 1h30m or 7d"))?;
    let length = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| invalid("count it in days, hours, minutes and seconds"))?;
    if length.is_negative() {
        return Err(invalid("it must not be negative"));
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_and_days_are_understood() {
        for (text, seconds) in
            [("90s", 90), ("1h30m", 5_400), ("7d", 604_800), ("1.5h", 5_400), ("2w", 1_209_600)]
        {
            assert_eq!(parse(text).unwrap(), SignedDuration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused_with_the_text() {
        for text in ["", "soon", "7", "-1h", "1mo", "1y"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
