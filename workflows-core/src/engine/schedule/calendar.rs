//! When a schedule fires.

use chrono::{DateTime, NaiveDateTime};
use croner::Cron;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{
    Error, Result,
    workflow::{Schedule, parse_cron},
};

/// When a schedule fires: a cron line, read on the wall clock of a time zone.
///
/// Where clocks are put forward, a slot that falls into the hour that does not exist fires once,
/// that much later: with an hour left out at 02:00, a slot at 02:30 fires at 03:30. Where clocks are
/// put back, a slot in the hour that comes twice fires once, the first time. A line whose hour is
/// `*` means every hour that passes, and fires both times.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    cron: Cron,
    zone: TimeZone,
    every_hour: bool,
}

impl Calendar {
    /// The calendar of a schedule.
    ///
    /// # Errors
    ///
    /// `Invalid` when the cron line or the time zone is not known.
    pub(super) fn of(schedule: &Schedule) -> Result<Self> {
        const OPERATION: &str = "read a schedule";
        let line = &schedule.cron;
        let cron = parse_cron(line)
            .map_err(|message| Error::invalid(OPERATION, message).with("cron", line))?;
        let name = schedule.time_zone.as_deref().unwrap_or("UTC");
        let zone = TimeZone::get(name).map_err(|error| {
            Error::invalid(OPERATION, "there is no such time zone")
                .with("timeZone", name)
                .caused_by(error)
        })?;
        let hour = line.split_whitespace().nth(1);
        let every_hour = matches!(hour, Some("*" | "*/1")) || line.trim() == "@hourly";
        Ok(Self { cron, zone, every_hour })
    }

    /// The first slot after an instant; `None` when there is none any more.
    pub(super) fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        /// More changes of a zone's offset than lie between two slots of any line that fires.
        const CHANGES: usize = 1_000;
        let mut from = instant.as_second().checked_add(1)?;
        for _ in 0..CHANGES {
            let stretch = Stretch::around(&self.zone, from)?;
            if let Some(slot) = self.first_in(&stretch, from)? {
                return Timestamp::from_second(slot).ok();
            }
            from = stretch.end?;
        }
        None
    }

    /// The last slot after an instant and not after another; `None` when there is none.
    pub(super) fn last_within(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut last = self.next_after(after).filter(|slot| *slot <= until)?;
        // No slot lies after `bound`; halve what lies between.
        let mut bound = until;
        while bound.duration_since(last) >= SignedDuration::from_secs(1) {
            let middle = last.checked_add(bound.duration_since(last) / 2).ok()?;
            match self.next_after(middle) {
                Some(slot) if slot <= until => last = slot,
                _ => bound = middle,
            }
        }
        Some(last)
    }

    /// The first slot of a stretch at or after a second of it. The outer `None` when the line does
    /// not fire any more.
    fn first_in(&self, stretch: &Stretch, from: i64) -> Option<Option<i64>> {
        let mut of_the_gap = None;
        let mut regular_from = from;
        if let Some((start, before)) = stretch.start {
            let gained = stretch.offset - before;
            if gained > 0 && from < start + gained {
                // The wall clock times that do not exist, as if the clocks had not been changed.
                of_the_gap = Some(self.first_on_wall(from + before)? - before)
                    .filter(|slot| *slot < start + gained);
            }
            if gained < 0 && !self.every_hour {
                regular_from = from.max(start - gained);
            }
        }
        let regular = self.first_on_wall(regular_from + stretch.offset)? - stretch.offset;
        let first = of_the_gap.map_or(regular, |slot| slot.min(regular));
        Some((stretch.end.is_none_or(|end| first < end)).then_some(first))
    }

    /// The first slot on the wall clock at or after a second, both counted from 1970 on the wall
    /// clock.
    fn first_on_wall(&self, second: i64) -> Option<i64> {
        let from: NaiveDateTime = DateTime::from_timestamp(second, 0)?.naive_utc();
        let slot = self.cron.find_next_occurrence(&from, true).ok()?;
        Some(slot.and_utc().timestamp())
    }
}

/// A stretch of time in which a zone's offset does not change. Everything in seconds.
#[derive(Debug)]
struct Stretch {
    /// When it began, and the offset before.
    start: Option<(i64, i64)>,
    offset: i64,
    end: Option<i64>,
}

impl Stretch {
    fn around(zone: &TimeZone, second: i64) -> Option<Self> {
        let at = |second| Timestamp::from_second(second).ok();
        let offset = |second| Some(i64::from(zone.to_offset(at(second)?).seconds()));
        let start = zone.preceding(at(second.checked_add(1)?)?).next();
        let start = match start.map(|change| change.timestamp().as_second()) {
            Some(start) => Some((start, offset(start.checked_sub(1)?)?)),
            None => None,
        };
        let end = zone.following(at(second)?).next();
        Some(Self {
            start,
            offset: offset(second)?,
            end: end.map(|change| change.timestamp().as_second()),
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil;

    use super::*;

    fn calendar(cron: &str, zone: &str) -> Calendar {
        Calendar::of(&schedule(cron, zone)).unwrap()
    }

    fn schedule(cron: &str, zone: &str) -> Schedule {
        serde_json::from_value(serde_json::json!({ "cron": cron, "timeZone": zone })).unwrap()
    }

    /// All slots of a year, as the wall clock shows them.
    fn year(cron: &str, zone: &str, year: i16) -> Vec<String> {
        let calendar = calendar(cron, zone);
        let begin = civil::date(year, 1, 1).at(0, 0, 0, 0).in_tz(zone).unwrap().timestamp();
        let end = civil::date(year + 1, 1, 1).at(0, 0, 0, 0).in_tz(zone).unwrap().timestamp();
        let mut slots = Vec::new();
        let mut at = begin - SignedDuration::from_secs(1);
        while let Some(slot) = calendar.next_after(at).filter(|slot| *slot < end) {
            assert!(slot > at);
            slots.push(slot.in_tz(zone).unwrap().strftime("%m-%d %H:%M%z").to_string());
            at = slot;
        }
        slots
    }

    fn of_day<'a>(slots: &'a [String], day: &str) -> Vec<&'a str> {
        slots.iter().filter_map(|slot| slot.strip_prefix(day)).map(str::trim).collect()
    }

    #[test]
    fn a_daily_slot_fires_once_on_each_day_of_a_year_in_every_zone() {
        for zone in ["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "UTC"] {
            for hour in 0..5 {
                for minute in [0, 15, 30] {
                    let slots = year(&format!("{minute} {hour} * * *"), zone, 2026);
                    assert_eq!(slots.len(), 365, "{minute} {hour} in {zone}");
                    let mut days: Vec<&str> = slots.iter().map(|slot| &slot[..5]).collect();
                    days.dedup();
                    assert_eq!(days.len(), 365, "{minute} {hour} in {zone}");
                }
            }
        }
    }

    #[test]
    fn a_slot_in_the_hour_that_does_not_exist_fires_that_much_later() {
        let paris = year("30 2 * * *", "Europe/Paris", 2026);
        assert_eq!(of_day(&paris, "03-29"), ["03:30+0200"]);
        assert_eq!(of_day(&paris, "03-28"), ["02:30+0100"]);
        assert_eq!(of_day(&paris, "03-30"), ["02:30+0200"]);
        let new_york = year("30 2 * * *", "America/New_York", 2026);
        assert_eq!(of_day(&new_york, "03-08"), ["03:30-0400"]);
        // Lord Howe changes its clocks by half an hour.
        let lord_howe = year("15 2 * * *", "Australia/Lord_Howe", 2026);
        assert_eq!(of_day(&lord_howe, "10-04"), ["02:45+1100"]);
    }

    #[test]
    fn a_slot_in_the_hour_that_comes_twice_fires_the_first_time_only() {
        let paris = year("30 2 * * *", "Europe/Paris", 2026);
        assert_eq!(of_day(&paris, "10-25"), ["02:30+0200"]);
        let new_york = year("30 1 * * *", "America/New_York", 2026);
        assert_eq!(of_day(&new_york, "11-01"), ["01:30-0400"]);
        let lord_howe = year("45 1 * * *", "Australia/Lord_Howe", 2026);
        assert_eq!(of_day(&lord_howe, "04-05"), ["01:45+1100"]);
        let several = year("0 2,14 * * *", "Europe/Paris", 2026);
        assert_eq!(of_day(&several, "10-25"), ["02:00+0200", "14:00+0100"]);
    }

    #[test]
    fn every_hour_means_every_hour_that_passes() {
        let paris = year("0 * * * *", "Europe/Paris", 2026);
        assert_eq!(paris.len(), 365 * 24);
        assert_eq!(
            of_day(&paris, "03-29")[..4],
            ["00:00+0100", "01:00+0100", "03:00+0200", "04:00+0200"]
        );
        assert_eq!(
            of_day(&paris, "10-25")[..5],
            ["00:00+0200", "01:00+0200", "02:00+0200", "02:00+0100", "03:00+0100"]
        );
        let quarters = year("*/15 * * * *", "Australia/Lord_Howe", 2026);
        assert_eq!(quarters.len(), 365 * 24 * 4);
    }

    #[test]
    fn days_that_not_every_month_or_year_has_are_skipped() {
        let last_days = year("0 0 31 * *", "UTC", 2026);
        let months: Vec<&str> = last_days.iter().map(|slot| &slot[..2]).collect();
        assert_eq!(months, ["01", "03", "05", "07", "08", "10", "12"]);
        let leap = calendar("0 0 29 2 *", "Europe/Paris");
        let next = leap.next_after("2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), "2028-02-28T23:00:00Z");
        assert_eq!(leap.next_after(next).unwrap().to_string(), "2032-02-28T23:00:00Z");
    }

    #[test]
    fn names_of_days_months_and_lines_are_understood() {
        assert_eq!(year("0 12 * JUL MON", "UTC", 2026).len(), 4);
        assert_eq!(year("@weekly", "UTC", 2026).len(), 52);
        assert_eq!(year("@daily", "America/New_York", 2026).len(), 365);
    }

    #[test]
    fn the_last_slot_before_an_instant_is_found_however_many_lie_between() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let minutely = calendar("* * * * *", "Europe/Paris");
        let (then, now) = (at("2016-01-01T00:00:00Z"), at("2026-03-29T01:30:30Z"));
        assert_eq!(minutely.last_within(then, now), Some(at("2026-03-29T01:30:00Z")));
        let nightly = calendar("0 3 * * *", "Europe/Paris");
        assert_eq!(
            nightly.last_within(then, at("2026-07-01T12:00:00Z")),
            Some(at("2026-07-01T01:00:00Z"))
        );
        assert_eq!(
            nightly.last_within(at("2026-07-01T01:00:00Z"), at("2026-07-02T00:59:59Z")),
            None
        );
        assert_eq!(
            nightly.last_within(at("2026-07-01T00:59:59Z"), at("2026-07-01T01:00:00Z")),
            Some(at("2026-07-01T01:00:00Z"))
        );
    }

    #[test]
    fn a_time_zone_that_is_not_known_is_refused_by_name() {
        let error = Calendar::of(&schedule("0 3 * * *", "Europe/Atlantis")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "read a schedule: there is no such time zone (timeZone: Europe/Atlantis)"
        );
    }
}
