//! Cron lines: when a schedule fires.

use chrono::TimeZone as _;
use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};

/// Reads a cron line: five fields as a Kubernetes CronJob has them, or a name such as `@daily`.
///
/// A line that never fires is refused, with a sentence for the user.
pub(crate) fn parse_cron(line: &str) -> Result<Cron, String> {
    const LONGEST: usize = 200;
    if line.len() > LONGEST {
        return Err(format!("a cron line has at most {LONGEST} characters"));
    }
    let cron = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(line)
        .map_err(|error| format!("this is no cron line: {error}"))?;
    if !has_a_day(line) {
        return Err(NEVER.into());
    }
    // Any instant will do: what has not come within the library's horizon from here never comes.
    let from = chrono::Utc.timestamp_opt(1_700_000_000, 0).single().unwrap_or_default();
    match cron.find_next_occurrence(&from, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(NEVER.into()),
    }
}

const NEVER: &str = "this cron line never fires";

/// Whether the line has a day at all. The library looks for one that never comes through centuries,
/// but the days of 28 years are all that there are: weekdays and leap years repeat.
fn has_a_day(line: &str) -> bool {
    const DAYS: i64 = 28 * 1461 / 4;
    let days: Vec<&str> = line.split_whitespace().skip(2).collect();
    if days.is_empty() {
        return true;
    }
    let Ok(daily) = CronParser::new().parse(&format!("0 0 {}", days.join(" "))) else {
        return true;
    };
    // From the first of January 2000.
    (0..DAYS)
        .filter_map(|day| chrono::Utc.timestamp_opt(946_684_800 + day * 86_400, 0).single())
        .any(|midnight| daily.is_time_matching(&midnight).unwrap_or(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_fire_are_read() {
        for line in [
            "0 3 * * *",
            "*/5 * * * 1-5",
            "@daily",
            "@hourly",
            "0 0 29 2 *",
            "0 0 1 JAN *",
            "5 4 L * *",
            "0 0 * 2 5#5",
        ] {
            assert!(parse_cron(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_line_that_never_fires_is_refused() {
        for line in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *"] {
            assert_eq!(parse_cron(line).unwrap_err(), "this cron line never fires", "{line}");
        }
    }

    #[test]
    fn other_text_is_refused() {
        let five = "Invalid pattern: Pattern must have 5 fields when seconds are disallowed.";
        for (line, why) in [
            ("", "CronPattern cannot be an empty string."),
            ("* * * *", five),
            ("0 0 3 * * *", five),
            ("61 * * * *", "Component error: Number out of bounds."),
            ("daily", five),
            ("@sometimes", five),
        ] {
            let error = parse_cron(line).unwrap_err();
            assert_eq!(error, format!("this is no cron line: {why}"), "{line}");
        }
    }
}
