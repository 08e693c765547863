//! How much may be asked how often (<https://docs.slack.dev/apis/web-api/rate-limits/>).

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// How much may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// So many messages may come together in a channel; then one a second. Slack says "short bursts"
    /// and no number.
    pub burst: u32,
    /// Calls of a method of tier 3 in a minute: `chat.update`, `conversations.history`,
    /// `conversations.replies`.
    pub tier_3: u32,
    /// What apps have that are sold outside the marketplace
    /// (<https://docs.slack.dev/changelog/2025/05/29/rate-limit-changes-for-non-marketplace-apps>): one
    /// call of each of the methods that read messages in a minute, and 15 messages a page.
    pub reads_little: bool,
}

/// Calls of a method in a minute, and messages a page, of an app that reads little.
const LITTLE: (u32, usize) = (1, 15);

impl Limits {
    fn calls(&self, method: &str) -> usize {
        match method.starts_with("conversations.") && self.reads_little {
            true => LITTLE.0 as usize,
            false => self.tier_3 as usize,
        }
    }

    /// Messages a page.
    pub(crate) fn page(&self) -> usize {
        if self.reads_little { LITTLE.1 } else { 999 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { burst: 5, tier_3: 50, reads_little: false }
    }
}

/// What was asked.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    /// By channel: how many messages could come now, and since when that is so.
    posts: BTreeMap<String, (f64, Timestamp)>,
    calls: BTreeMap<String, Vec<Timestamp>>,
}

impl Spent {
    /// Counts a message; the seconds to wait when there were too many.
    pub(crate) fn post(&mut self, limits: &Limits, channel: &str, now: Timestamp) -> Option<u64> {
        let most = f64::from(limits.burst);
        let (left, since) = self.posts.entry(channel.to_owned()).or_insert((most, now));
        let passed = now.duration_since(*since).as_secs_f64().max(0.0);
        *left = (*left + passed).min(most);
        *since = now;
        if *left < 1.0 {
            return Some(1);
        }
        *left -= 1.0;
        None
    }

    /// Counts a call of a method; the seconds to wait when there were too many.
    pub(crate) fn call(&mut self, limits: &Limits, method: &str, now: Timestamp) -> Option<u64> {
        let minute = SignedDuration::from_mins(1);
        let calls = self.calls.entry(method.to_owned()).or_default();
        calls.retain(|at| now.duration_since(*at) < minute);
        if calls.len() >= limits.calls(method) {
            let oldest = calls.first().copied().unwrap_or(now);
            let wait = (minute - now.duration_since(oldest)).as_secs().max(0);
            return Some(wait.unsigned_abs() + 1);
        }
        calls.push(now);
        None
    }
}
