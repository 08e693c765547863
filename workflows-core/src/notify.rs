//! Who tells somebody about a run: [`Notifier`].

use std::{fmt, fmt::Debug};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use jiff::Timestamp;

use crate::{DeliveryKey, Result, RunState, RunView};

/// Tells somebody about a run.
///
/// # Implementing
///
/// `deliver` is called from the outbox, in order for one run, at least once; the delivery key is the
/// same when a delivery is repeated, and an implementation that can should use it to tell nobody
/// twice. `Transient`, `RateLimited` and `Denied` errors are tried again by the engine with back-off
/// until the notification is too old; other kinds make a dead letter. An error after a part of the
/// delivery was made says so ([`Error::having_done_some`](crate::Error::having_done_some)), so that
/// whoever tries again looks for that part. A notifier whose deliveries fail several times in a row,
/// or are told to wait, is left alone for a while, by all runs, unless the error says that others may
/// get through ([`Error::of_this_alone`](crate::Error::of_this_alone)).
///
/// A notifier has one destination. It needs no engine: a program may call it with a [`RunView`] of a
/// run that nobody here created.
///
/// # Example
///
/// ```
/// use async_trait::async_trait;
/// use workflows_core::{Delivered, NotificationView, Notifier, Result};
///
/// #[derive(Debug)]
/// struct Log;
///
/// #[async_trait]
/// impl Notifier for Log {
///     async fn deliver(&self, notification: &NotificationView) -> Result<Delivered> {
///         let NotificationView { run, transition, .. } = notification;
///         tracing::info!(run = %run.key, %transition, "{}", run.message);
///         Ok(Delivered::default())
///     }
/// }
/// ```
#[async_trait]
pub trait Notifier: Debug + Send + Sync + 'static {
    /// Tells about one transition.
    async fn deliver(&self, notification: &NotificationView) -> Result<Delivered>;

    /// Asks the destination whether what is configured would work, and tells nobody anything.
    ///
    /// # Errors
    ///
    /// What is wrong, in words for whoever configured it.
    async fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it shows what a commit says about itself, which may have to be fetched
    /// ([`RunView::title`] of runs without a pull request).
    fn wants_commit(&self) -> bool {
        false
    }
}

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NotificationView {
    /// What makes this delivery the same one when it is repeated.
    pub key: DeliveryKey,
    /// What happened to the run.
    pub transition: Transition,
    /// When it was found to have happened.
    pub at: Timestamp,
    /// The run as it was then.
    pub run: RunView,
    /// What came of the latest earlier delivery about this run to this notifier
    /// ([`Delivered::reference`]), such as the message that can be edited now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earlier: Option<String>,
    /// Whether this very notification, or a part of it, may have reached the receiver before: an
    /// answer was lost, a later part failed, or the process died before it recorded anything. A notifier whose receiver does not drop repetitions
    /// by itself looks for what that delivery made before it makes it again.
    #[serde(default)]
    pub may_have_reached: bool,
    /// What else waits to be told about this run after this, or was told when this was given up and
    /// is sent again. A notifier that shows how a run stands rather than what happened leaves this one
    /// out then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followed_by: Vec<Transition>,
}

impl NotificationView {
    /// That something happened to a run, told for the first time.
    pub fn new(key: DeliveryKey, transition: Transition, at: Timestamp, run: RunView) -> Self {
        Self {
            key,
            transition,
            at,
            run,
            earlier: None,
            may_have_reached: false,
            followed_by: Vec::new(),
        }
    }

    /// What a notifier is asked to tell when somebody wants to see whether it works. `id` makes it
    /// another one each time.
    pub fn sample(id: &str, at: Timestamp) -> Self {
        let key = crate::hash_of(&["sample", id]);
        let mut run =
            RunView::new(key.as_str(), "example/repository", "sample", RunState::Succeeded, at);
        run.trigger = "test-delivery".into();
        run.reference = Some("refs/heads/main".into());
        run.title = Some("This is a test of this notifier".to_owned());
        run.message = "somebody asked to see whether this arrives; nothing ran".to_owned();
        run.started_at = Some(at);
        run.finished_at = Some(at);
        Self::new(DeliveryKey::new(key), Transition::Succeeded, at, run)
    }
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
    /// Nothing runs before somebody has approved it.
    WaitingForApproval,
    /// It waits in a queue.
    Queued,
    /// It started.
    Started,
    /// Another of its tasks ended, or a while passed; at most one in 30 seconds.
    Progress,
    /// It runs for more than twice as long as such runs usually take, and for a minute more.
    RunningLong,
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
    /// It was refused: by the policy, or because no run could be made of what is defined.
    Refused,
    /// It ended well, and the one before it for the same ref or pull request had not.
    Recovered,
    /// It failed or took too long, and so did the one before it for the same ref or pull request.
    StillFailing,
}

impl Transition {
    /// The word for it, as it stands in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForApproval => "waiting_for_approval",
            Self::Queued => "queued",
            Self::Started => "started",
            Self::Progress => "progress",
            Self::RunningLong => "running_long",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Recovered => "recovered",
            Self::StillFailing => "still_failing",
        }
    }

    /// Every transition.
    pub const ALL: [Self; 14] = [
        Self::WaitingForApproval,
        Self::Queued,
        Self::Started,
        Self::Progress,
        Self::RunningLong,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Superseded,
        Self::Expired,
        Self::Refused,
        Self::Recovered,
        Self::StillFailing,
    ];

    /// Whether nothing more is to be told about a run after this.
    pub fn is_end(self) -> bool {
        !matches!(
            self,
            Self::WaitingForApproval
                | Self::Queued
                | Self::Started
                | Self::Progress
                | Self::RunningLong
        )
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
