//! How long until the next look.

use jiff::SignedDuration;

/// After failures, a repository is looked at again within this time.
const LONGEST_AFTER_FAILURE: SignedDuration = SignedDuration::from_mins(30);

/// The interval while something happens, and while nothing does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) shortest: SignedDuration,
    pub(crate) longest: SignedDuration,
}

impl Pace {
    /// After a look that got through, when the last change was so long ago.
    pub(crate) fn next(self, jitter: u8, unchanged_for: SignedDuration) -> SignedDuration {
        jittered(jitter, (unchanged_for / 20).clamp(self.shortest, self.longest))
    }

    /// After the first look: somewhere between the shortest interval and the one that is due, each
    /// repository at a place of its own, so that those that were first looked at together are not
    /// looked at together ever after.
    pub(crate) fn after_first(self, jitter: u8, unchanged_for: SignedDuration) -> SignedDuration {
        let due = self.next(jitter, unchanged_for);
        let share = due.checked_mul(i32::from(jitter)).map_or(due, |share| share / 255);
        share.clamp(self.shortest.min(due), due)
    }

    /// After so many failed looks in a row.
    pub(crate) fn after_failures(self, jitter: u8, failures: u32) -> SignedDuration {
        let longest = LONGEST_AFTER_FAILURE.max(self.shortest);
        let factor = 1_i32 << failures.min(20);
        let wait = self.shortest.checked_mul(factor).unwrap_or(longest);
        jittered(jitter, wait.min(longest))
    }
}

/// Up to a tenth more.
fn jittered(jitter: u8, interval: SignedDuration) -> SignedDuration {
    let share = (interval / 10).checked_mul(i32::from(jitter)).map(|share| share / 255);
    share.and_then(|share| interval.checked_add(share)).unwrap_or(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: SignedDuration = SignedDuration::from_mins(1);

    #[test]
    fn the_interval_grows_while_nothing_happens_and_stays_within_its_bounds() {
        let pace = Pace { shortest: MINUTE, longest: MINUTE * 30 };
        assert_eq!(pace.next(0, SignedDuration::ZERO), MINUTE);
        assert_eq!(pace.next(0, MINUTE * 200), MINUTE * 10);
        assert_eq!(pace.next(0, MINUTE * 10_000), MINUTE * 30);
        assert_eq!(pace.next(255, SignedDuration::ZERO), MINUTE + MINUTE / 10);
        assert_eq!(pace.next(0, -MINUTE), MINUTE, "a clock that goes back");
    }

    #[test]
    fn the_second_looks_are_spread() {
        let pace = Pace { shortest: MINUTE, longest: MINUTE * 30 };
        let long = MINUTE * 10_000;
        assert_eq!(pace.after_first(0, long), MINUTE);
        assert_eq!(pace.after_first(255, long), MINUTE * 33);
        assert_eq!(pace.after_first(51, long).as_mins(), 6);
        assert_eq!(pace.after_first(0, SignedDuration::ZERO), MINUTE);
        let steady = Pace { shortest: MINUTE, longest: MINUTE };
        assert!(steady.after_first(255, long) >= MINUTE);
    }

    #[test]
    fn failures_double_the_wait_up_to_half_an_hour() {
        let pace = Pace { shortest: MINUTE, longest: MINUTE };
        let waits: Vec<i64> =
            (1..=7).map(|failures| pace.after_failures(0, failures).as_mins()).collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(pace.after_failures(0, u32::MAX).as_mins(), 30);
        let slow = Pace { shortest: MINUTE * 90, longest: MINUTE * 90 };
        assert_eq!(slow.after_failures(0, 3).as_mins(), 90);
    }
}
