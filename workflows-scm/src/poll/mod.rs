//! Finding by looking what no webhook tells: [`RefPoller`] for branches and tags,
//! [`PullRequestPoller`] for pull requests, their labels and their comments.
//!
//! They work with any driver, need no inbound port, and also find what webhooks missed.

mod agenda;
mod interval;
mod poller;
mod pull_request_reading;
mod pull_requests;
mod ref_reading;
mod refs;
mod rounds;

use jiff::{SignedDuration, Timestamp};

#[cfg(feature = "webhook")]
pub(crate) use self::interval::Pace;
pub use self::{
    poller::Poller,
    pull_requests::{PullRequestPoller, PullRequests},
    refs::{RefPoller, Refs},
};

/// What the first look at a repository makes of the refs that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstSight {
    /// They are recorded, and nothing runs: only what changes from now on does.
    #[default]
    Baseline,
    /// Each of them is news, as if it had just been created.
    Run,
}

pub(crate) fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}
