//! How many messages stand in the channel itself, so that many runs at once do not fill it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};

/// In the time in which messages are grouped. The second half is left for what somebody should look
/// at.
const MOST: usize = 20;

/// What showed in the channel lately.
#[derive(Debug, Default)]
pub(super) struct Allowance(Mutex<VecDeque<Timestamp>>);

impl Allowance {
    /// Whether one more may show in the channel: one that somebody should look at, or another one.
    pub(super) fn is_left(
        &self,
        now: Timestamp,
        within: SignedDuration,
        ended_badly: bool,
    ) -> bool {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|at| now.duration_since(*at) < within);
        shown.len() < if ended_badly { MOST } else { MOST / 2 }
    }

    /// Counts one that shows there.
    pub(super) fn spend(&self, now: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_show_within_the_time_and_more_when_it_is_over() {
        let within = SignedDuration::from_mins(10);
        let at = |second| Timestamp::from_second(second).unwrap();
        let allowance = Allowance::default();
        let take = |at, within, ended_badly| {
            let is_left = allowance.is_left(at, within, ended_badly);
            if is_left {
                allowance.spend(at);
            }
            is_left
        };
        assert_eq!((0..100).filter(|second| take(at(*second), within, false)).count(), MOST / 2);
        assert_eq!((0..100).filter(|second| take(at(*second), within, true)).count(), MOST / 2);
        assert!(!take(at(599), within, true));
        assert!(take(at(600), within, true));
        assert!(!take(at(600), within, false));
        assert!((0..100).all(|_| take(at(700), SignedDuration::ZERO, false)), "no time, no limit");
    }
}
