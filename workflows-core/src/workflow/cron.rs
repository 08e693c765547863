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
    // Any instant will do: what has not come within the library's horizon from here never comes.
    let from = chrono::Utc.timestamp_opt(1_700_000_000, 0).single().unwrap_or_default();
    match cron.find_next_occurrence(&from, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err("this cron line never fires".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_fire_are_read() {
        for line in ["0 3 * * *", "*/5 * * * 1-5", "@daily", "@hourly", "0 0 29 2 *", "0 0 1 JAN *"]
        {
            assert!(parse_cron(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn a_line_that_never_fires_is_refused() {
        let error = parse_cron("0 0 30 2 *").unwrap_err();
        assert_eq!(error, "this cron line never fires");
    }

    #[test]
    fn other_text_is_refused() {
        for line in ["", "* * * *", "0 0 3 * * *", "61 * * * *", "daily", "@sometimes"] {
            let error = parse_cron(line).unwrap_err();
            assert!(error.starts_with("this is no cron line: "), "{line}: {error}");
        }
    }
}
