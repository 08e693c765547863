//! How long until the next look.

use jiff::SignedDuration;

/// After failures, a repository is looked at again within this time.
const LONGEST_AFTER_FAILURE: SignedDuration = SignedDuration::from_mins(30);

/// The interval while something happens, and while nothing does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) shortest: SignedDuration,
    pub(super) longest: SignedDuration,
}

impl Pace {
    /// After a look that got through, when the last change was so long ago.
    pub(super) fn next(self, jitter: u8, unchanged_for: SignedDuration) -> SignedDuration {
        jittered(jitter, (unchanged_for / 8).clamp(self.shortest, self.longest))
    }

    /// After so many failed looks in a row.
    pub(super) fn after_failures(self, jitter: u8, failures: u32) -> SignedDuration {
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
        assert_eq!(pace.next(0, MINUTE * 80), MINUTE * 10);
        assert_eq!(pace.next(0, MINUTE * 10_000), MINUTE * 30);
        assert_eq!(pace.next(255, SignedDuration::ZERO), MINUTE + MINUTE / 10);
        assert_eq!(pace.next(0, -MINUTE), MINUTE, "a clock that goes back");
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
