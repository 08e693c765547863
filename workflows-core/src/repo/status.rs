//! What shows on a commit, and who makes a host show it.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{CommitId, Result, run::Annotation};

/// Check runs or commit statuses.
///
/// It is level-triggered: the engine says what should show, as often as it takes.
#[async_trait]
pub trait StatusReporter: Debug + Send + Sync {
    /// Makes the host show this status for its context at its commit. Repeating a call changes
    /// nothing that people see, also when the answer to the first was lost.
    ///
    /// # Errors
    ///
    /// Besides the usual: `Conflict` when the host shows a later state that must not be undone.
    async fn report(&self, status: &Status, earlier: EarlierReport<'_>) -> Result<ReportedStatus>;
}

/// What the engine knows of earlier calls for the same context and commit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlierReport<'a> {
    /// [`ReportedStatus::id`] of the last call whose answer was recorded. It may be of another
    /// attempt.
    pub id: Option<&'a str>,
    /// Whether a call since then may have reached the host: its answer was lost, or the engine died
    /// before it recorded it. A reporter whose host does not create twice by itself looks for what
    /// that call made before it makes it again.
    pub may_have_reached: bool,
}

impl<'a> EarlierReport<'a> {
    /// A call whose answer was recorded, and none since.
    pub fn recorded(id: &'a str) -> Self {
        Self { id: Some(id), may_have_reached: false }
    }

    /// The same, and a call since may have reached the host.
    #[must_use]
    pub fn and_maybe_another(mut self) -> Self {
        self.may_have_reached = true;
        self
    }
}

/// What should show on a commit.
///
/// The texts of the engine are bounded so that hosts take them whole. Whatever in them came from
/// outside (names, messages, lines of logs) is inside code spans and blocks that it cannot end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The commit.
    pub commit: CommitId,
    /// The name it has there: `<prefix>/<workflow>`, and `/<trigger>` where asked.
    pub context: Arc<str>,
    /// The state.
    pub state: StatusState,
    /// One line of plain text, at most 140 characters: what a commit status shows.
    pub title: String,
    /// Markdown for hosts that show more, at most 60,000 bytes: the message, and a table of tasks
    /// with their states, durations and links.
    pub summary: String,
    /// Markdown to look at when the summary does not suffice, at most 60,000 bytes: the last lines
    /// of the failing step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// What the failing step said about lines of files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
    /// What people are offered to do. Running again is not among them: hosts with check runs offer
    /// that by themselves, and the id leads back to the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<StatusAction>,
    /// Where to look further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The run's key, or another id that stays: lets a host find what a lost answer created.
    pub external_id: Arc<str>,
    /// When the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// The state of a status. Hosts with fewer states map them and say how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StatusState {
    /// It will run.
    Queued,
    /// Somebody must approve first.
    ActionRequired,
    /// It runs.
    InProgress,
    /// It succeeded.
    Success,
    /// It failed.
    Failure,
    /// It was cancelled or superseded.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// It did not have to run; a required check is satisfied.
    Neutral,
}

impl StatusState {
    /// Whether nothing more is to come in this attempt.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::ActionRequired | Self::InProgress)
    }

    /// How far along it is; within an attempt this never falls.
    pub fn rank(self) -> u8 {
        match self {
            Self::ActionRequired | Self::Queued => 0,
            Self::InProgress => 1,
            _ => 2,
        }
    }
}

/// Something that people are offered to do, with a button where the host has them. A driver whose
/// host tells that a button was pressed makes the [`Command`](crate::engine::Command) of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "action")]
#[non_exhaustive]
pub enum StatusAction {
    /// Approve the head of a pull request: the very commit that the status is on.
    Approve {
        /// Its number.
        pull_request: u64,
    },
    /// End the run.
    Cancel,
}

/// What the host said it shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedStatus {
    /// The reporter's id of it, with whatever it needs to know at the next call, to which it is
    /// handed back; opaque to the engine.
    pub id: String,
    /// Where people see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
}
