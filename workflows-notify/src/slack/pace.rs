//! One message a second in a channel
//! (<https://docs.slack.dev/apis/web-api/rate-limits/#posting-messages>).

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use workflows_core::{Error, ErrorKind, Result};

const APART: SignedDuration = SignedDuration::from_secs(1);

/// When the next message may be posted.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Timestamp>>);

impl Pace {
    /// Takes the place of a message.
    ///
    /// # Errors
    ///
    /// `RateLimited` until there is one.
    pub(super) fn take(&self, now: Timestamp) -> Result<()> {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = next.filter(|next| *next > now) {
            return Err(Error::new(
                ErrorKind::RateLimited { until: Some(until) },
                "post to Slack",
                "other messages are posted to the channel first, one a second",
            ));
        }
        *next = now.checked_add(APART).ok();
        Ok(())
    }

    /// Takes the place of a message that belongs to the one before. Slack allows for short bursts.
    pub(super) fn take_another(&self, now: Timestamp) {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = next.map_or(now, |next| next.max(now));
        *next = from.checked_add(APART).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_a_second_apart_on_average() {
        let at = |millis: i64| Timestamp::from_millisecond(millis).unwrap();
        let pace = Pace::default();
        assert!(pace.take(at(0)).is_ok());
        let error = pace.take(at(400)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited { until: Some(at(1_000)) });
        pace.take_another(at(500));
        assert!(pace.take(at(1_900)).is_err());
        assert!(pace.take(at(2_000)).is_ok());
    }
}
