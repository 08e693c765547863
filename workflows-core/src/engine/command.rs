//! What programs and hosts tell the engine: [`Command`].

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    CancelMode, CommitId, DeliveryKey, Error, Event, EventKey, EventKind, GroupKey, Observation,
    RepoRef, Result, Run, RunKey, SubjectClaim, Tenant, WorkflowId,
    event::{Occurrence, Seen},
};

/// Something that the engine is told to do.
///
/// A command enters as an observation of kind [`EventKind::COMMAND`], so that it is durable before
/// it is acknowledged, is executed once whatever its sender repeats, and survives a restart. Its id
/// is the sender's idempotency key. Who sent it is the observation's sender.
///
/// Commands of the embedding program come from the source [`Command::SOURCE`], and are trusted as
/// [`FactsOrigin::Caller`](crate::policy::FactsOrigin::Caller). A driver may send commands too (the
/// "re-run" button of a check); they come from another source, and their sender's permission is
/// asked for as for a command in a comment.
///
/// ```
/// use workflows_core::{RepoRef, Tenant, engine::Command};
///
/// let repo = RepoRef { connection: "scm".into(), id: "1".into(), name: "acme/api".into() };
/// let command = Command::Approve {
///     pull_request: 7,
///     head: "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap(),
/// };
/// let observation = command.observed(Tenant::default(), repo, "request-1", "alice");
/// assert_eq!(observation.claim.subject().as_str(), "command/request-1");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "command")]
#[non_exhaustive]
pub enum Command {
    /// Ends a run.
    Cancel {
        /// The run.
        run: RunKey,
        /// How.
        mode: CancelMode,
    },
    /// Approves the head of a pull request: what waits for it is decided again. Another head needs
    /// another approval.
    Approve {
        /// The pull request.
        pull_request: u64,
        /// The very commit that is approved.
        head: CommitId,
    },
    /// Runs something again, as another attempt whose id is the command's.
    Rerun {
        /// What.
        of: RerunOf,
    },
    /// Keeps the runs of a workflow waiting until it is released.
    Hold {
        /// The workflow.
        workflow: WorkflowId,
        /// Why, for people.
        reason: String,
    },
    /// Releases the runs of a held workflow.
    Unhold {
        /// The workflow.
        workflow: WorkflowId,
    },
    /// Ends every run that waits in a concurrency group.
    ClearQueue {
        /// The group, by its whole key.
        group: GroupKey,
    },
    /// Delivers a notification again that was given up.
    Resend {
        /// The notification.
        delivery: DeliveryKey,
    },
    /// Takes up a run that a sink has and the ledger does not know. Of one that is known nothing
    /// changes. The engine tells itself this when it starts with a ledger that is new.
    Adopt {
        /// The run, as it is known by what its PipelineRun carries.
        run: Box<Run>,
    },
}

/// What is run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "what")]
#[non_exhaustive]
pub enum RerunOf {
    /// The workflow and trigger of a run, for the same event.
    Run {
        /// The run.
        run: RunKey,
    },
    /// Whatever matches an event.
    Event {
        /// The event.
        event: EventKey,
    },
    /// What a status stands for: its run, or, where it is a note, whatever did not succeed for its
    /// commit.
    Shown {
        /// [`Status::external_id`](crate::repo::Status::external_id).
        external_id: Arc<str>,
        /// The commit that shows it.
        commit: CommitId,
    },
    /// Whatever ran last for a commit, of each trigger of a workflow.
    All {
        /// The commit.
        commit: CommitId,
    },
    /// Whatever matched the newest event that led to a commit and did not succeed.
    Unsuccessful {
        /// The commit.
        commit: CommitId,
    },
}

impl Command {
    /// The source of the embedding program's own commands. No other event source may have this
    /// name.
    pub const SOURCE: &'static str = "engine";

    /// The command as an observation of the embedding program. `key` is the caller's idempotency
    /// key: a second command with the same key about the same repository is the same command.
    /// `by` says who, as the embedding program knows them.
    pub fn observed(self, tenant: Tenant, repo: RepoRef, key: &str, by: &str) -> Observation {
        let delivery = format!("command/{}/{key}", repo.id);
        let claim = SubjectClaim::Occurrence(Box::new(self.occurrence(key)));
        Observation::new(
            tenant,
            repo,
            Self::SOURCE.into(),
            delivery.as_str().into(),
            Seen::Told,
            claim,
        )
        .by(by)
    }

    /// The command as an occurrence, for drivers that decode one from a host's event.
    pub fn occurrence(self, id: &str) -> Occurrence {
        let mut occurrence = Occurrence::new(EventKind::COMMAND, id);
        occurrence.data = self.into_data();
        occurrence
    }

    /// The repository of commands that are about none.
    pub fn engine_repo() -> RepoRef {
        RepoRef { connection: "engine".into(), id: "engine".into(), name: "engine".into() }
    }

    /// Reads the command that an event of kind [`EventKind::COMMAND`] carries.
    ///
    /// # Errors
    ///
    /// `Invalid` when it carries none that is known.
    pub fn of_event(event: &Event) -> Result<Self> {
        let data: serde_json::Map<String, Value> = event.data.clone().into_iter().collect();
        serde_json::from_value(Value::Object(data)).map_err(|error| {
            Error::invalid("read a command", error.to_string()).with("event", &event.key)
        })
    }

    fn into_data(self) -> BTreeMap<String, Value> {
        // A command holds names and numbers only, which always have a JSON form.
        match serde_json::to_value(self) {
            Ok(Value::Object(data)) => data.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Fold, Folded, fold};

    fn event_of(command: &Command) -> Event {
        let observation =
            command.clone().observed(Tenant::default(), Command::engine_repo(), "k", "alice");
        let Folded::News(news) = fold(&observation, Fold { recorded: None, seen_before: false })
        else {
            panic!("a command is news")
        };
        news.into_event(&observation, 1, 1, Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn every_command_comes_back_from_its_event() {
        let run = RunKey::from("r".to_owned());
        let commit: CommitId = "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d".parse().unwrap();
        let workflow = WorkflowId::in_repository("1".into(), "ci");
        let commands = [
            Command::Cancel { run: run.clone(), mode: CancelMode::RunFinally },
            Command::Approve { pull_request: 7, head: commit.clone() },
            Command::Rerun { of: RerunOf::Run { run } },
            Command::Rerun { of: RerunOf::Event { event: "t/r/s/x/1".into() } },
            Command::Rerun {
                of: RerunOf::Shown { external_id: "r".into(), commit: commit.clone() },
            },
            Command::Rerun { of: RerunOf::All { commit: commit.clone() } },
            Command::Rerun { of: RerunOf::Unsuccessful { commit } },
            Command::Hold { workflow: workflow.clone(), reason: "incident".into() },
            Command::Unhold { workflow },
            Command::ClearQueue { group: "g".into() },
            Command::Resend { delivery: "d".into() },
        ];
        for command in commands {
            let event = event_of(&command);
            assert_eq!(event.kind, EventKind::COMMAND);
            assert_eq!(event.sender.as_deref(), Some("alice"));
            assert_eq!(Command::of_event(&event).unwrap(), command);
        }
    }

    #[test]
    fn an_event_that_carries_no_known_command_is_invalid() {
        let mut event = event_of(&Command::ClearQueue { group: "g".into() });
        event.data.insert("command".into(), "explode".into());
        let error = Command::of_event(&event).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        assert!(error.to_string().contains("unknown variant `explode`"), "{error}");
    }
}
