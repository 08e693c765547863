//! Who tells somebody about a run: [`Notifier`].

use std::{fmt, fmt::Debug};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeliveryKey, Result, RunView};

/// Tells somebody about a run.
///
/// # Implementing
///
/// `deliver` is called from the outbox, in order for one run, at least once; the delivery key is the
/// same when a delivery is repeated, and an implementation that can should use it to tell nobody
/// twice. `Transient` and `RateLimited` errors are tried again by the engine with back-off until the
/// notification is too old; other kinds make a dead letter.
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Tells about one transition.
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered>;
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationView {
    /// What makes this delivery the same one when it is repeated.
    pub key: DeliveryKey,
    /// What happened to the run.
    pub transition: Transition,
    /// The run as it was then.
    pub run: RunView,
}

/// What a notifier says of a delivery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// The receiver's id of it, such as a message's; recorded with the delivery.
    pub reference: Option<String>,
}

/// What happened to a run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transition {
    /// It waits in a queue.
    Queued,
    /// It started.
    Started,
    /// Another of its tasks ended, or a while passed; at most one in 30 seconds.
    Progress,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It was stopped on request.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// A newer run took its place.
    Superseded,
    /// It waited in its queue for too long.
    Expired,
    /// It was refused.
    Refused,
    /// It ended well, and the one before it for the same ref or pull request had not.
    Recovered,
}

impl Transition {
    /// The word for it, as it stands in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Recovered => "recovered",
        }
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
