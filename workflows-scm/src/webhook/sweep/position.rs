//! How far a log was looked through.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use workflows_core::{DeliveryId, repo::LoggedDelivery};

use crate::poll::{Pace, later};

/// How far a log was looked through. What was sent up to `newest` is settled: it is in the ledger, or
/// it is one of the few that could not be read, which are remembered one by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// What was sent before is not looked at.
    floor: Timestamp,
    /// Up to when all that was sent is settled.
    newest: Timestamp,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unread: Vec<Unread>,
}

/// A delivery that could not be read when its turn was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unread {
    pub(super) id: String,
    pub(super) delivery: DeliveryId,
    sent_at: Timestamp,
    tries: u32,
    pub(super) next: Timestamp,
}

/// So many are remembered one by one. When more cannot be read, it is the host that fails.
pub(super) const MOST_UNREAD: usize = 100;

/// What was sent so long before the newest delivery that was looked at is looked at again: logs are
/// written after the fact.
const OVERLAP: SignedDuration = SignedDuration::from_mins(10);

/// No host keeps a delivery longer.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How soon what failed is tried again; later and later, at most half an hour apart.
pub(super) const SOON: Pace =
    Pace { shortest: SignedDuration::from_secs(5), longest: SignedDuration::from_secs(5) };

impl Position {
    /// Of a log that was never looked at: what is sent from then on counts.
    pub(super) fn from(floor: Timestamp) -> Self {
        Self { floor, newest: floor, unread: Vec::new() }
    }

    /// From when on the log has to be listed.
    pub(super) fn since(&self) -> Timestamp {
        earlier(self.newest, OVERLAP).max(self.floor)
    }

    /// All that was sent up to then is settled.
    pub(super) fn settled(&mut self, sent_at: Timestamp) {
        self.newest = self.newest.max(sent_at);
    }

    pub(super) fn is_unread(&self, delivery: &DeliveryId) -> bool {
        self.unread.iter().any(|one| one.delivery == *delivery)
    }

    pub(super) fn remember(&mut self, one: LoggedDelivery, now: Timestamp) {
        let LoggedDelivery { id, delivery, sent_at, .. } = one;
        let next = later(now, SOON.after_failures(0, 1));
        self.unread.push(Unread { id, delivery, sent_at, tries: 1, next });
    }

    pub(super) fn forget(&mut self, delivery: &DeliveryId) {
        self.unread.retain(|one| one.delivery != *delivery);
    }

    /// When the first of those that could not be read is tried again.
    pub(super) fn next_try(&self) -> Option<Timestamp> {
        self.unread.iter().map(|one| one.next).min()
    }
}

impl Unread {
    pub(super) fn failed_again(&mut self, now: Timestamp) {
        self.tries = self.tries.saturating_add(1);
        self.next = later(now, SOON.after_failures(0, self.tries));
    }

    /// Whether no log can have it any more.
    pub(super) fn is_hopeless(&self, now: Timestamp) -> bool {
        now.duration_since(self.sent_at) > KEPT
    }
}

pub(super) fn earlier(than: Timestamp, by: SignedDuration) -> Timestamp {
    than.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes)
    }

    fn logged(id: &str, minutes: i64) -> LoggedDelivery {
        LoggedDelivery {
            id: id.to_owned(),
            delivery: format!("guid-{id}").into(),
            sent_at: at(minutes),
            succeeded: false,
            may_matter: true,
        }
    }

    #[test]
    fn a_cursor_that_remembers_nobody_is_read_as_well() {
        let text = r#"{"floor":"1970-01-01T00:10:00Z","newest":"1970-01-01T01:00:00Z"}"#;
        let position: Position = serde_json::from_str(text).unwrap();
        assert_eq!((position.since(), position.next_try()), (at(50), None));
        assert_eq!(serde_json::to_string(&position).unwrap(), text);
        assert_eq!(Position::from(at(10)).since(), at(10), "nothing is older than the floor");
    }

    #[test]
    fn what_cannot_be_read_is_tried_later_and_later_for_a_week() {
        let mut position = Position::from(at(0));
        position.remember(logged("1", 5), at(60));
        position.settled(at(50));
        position.settled(at(40));
        assert_eq!(position.since(), at(40), "what is remembered holds nothing up");
        assert!(position.is_unread(&"guid-1".into()));
        let mut waits = Vec::new();
        let mut now = at(60);
        for _ in 0..12 {
            let next = position.next_try().unwrap();
            waits.push(next.duration_since(now).as_secs());
            now = next;
            position.unread[0].failed_again(now);
        }
        assert_eq!(waits[..4], [10, 20, 40, 80]);
        assert_eq!(waits[11], 1_800);
        assert!(!position.unread[0].is_hopeless(at(7 * 24 * 60)));
        assert!(position.unread[0].is_hopeless(at(7 * 24 * 60 + 6)));
        position.forget(&"guid-1".into());
        assert_eq!(position.next_try(), None);
    }
}
