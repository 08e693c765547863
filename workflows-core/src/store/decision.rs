//! What triggers said to an event, and why.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{AttemptId, EventKey, RunKey, Tenant, WorkflowId};

/// What one trigger said to one event, and why. Recorded also when the answer is no.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The workflow.
    pub workflow: WorkflowId,
    /// The trigger in it.
    pub trigger: Arc<str>,
    /// What it said.
    pub outcome: Outcome,
}

/// What a trigger said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
#[non_exhaustive]
pub enum Outcome {
    /// Yes, and this run was planned.
    Matched {
        /// The run.
        run: RunKey,
    },
    /// No, because of this filter.
    Rejected(Rejected),
    /// The policy said no.
    Denied {
        /// By which rule.
        rule: String,
    },
    /// It waits for an approval.
    Waiting {
        /// Who may approve.
        approvers: String,
    },
    /// A filter, a reference or the pipeline could not be evaluated.
    Failed {
        /// What failed.
        filter: String,
        /// With what.
        error: String,
    },
    /// Something newer was there already.
    Superseded {
        /// The run that took its place, where there is one.
        by: Option<RunKey>,
        /// Why, for people.
        reason: String,
    },
}

/// The first filter that said no, and what it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Which filter: `actions`, `branches`, `tags`, `paths`, `labels`, `command`, `filter`,
    /// `customFilter`, `asOf`, `onlyIfChanged`.
    pub filter: Arc<str>,
    /// What the filter wants, as it stands in the document.
    pub wanted: String,
    /// What it saw.
    pub saw: Value,
}

/// All decisions about one event and attempt.
///
/// Triggers whose filter compares one path of the event with a literal are found through an index;
/// what the index ruled out is recorded once for all of them: the guard, and the value it saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionBatch {
    /// Its place in the ledger; set by the store.
    #[serde(default)]
    pub id: i64,
    /// The tenant.
    pub tenant: Tenant,
    /// The event.
    pub event: EventKey,
    /// The attempt.
    pub attempt: AttemptId,
    /// The decisions that were made one by one.
    pub decisions: Vec<Decision>,
    /// What came of commands that the event carried: the platform's own in a comment, or one of a
    /// program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<CommandDecision>,
    /// What the index ruled out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<Guard>,
    /// Names the policy and the definitions that were used, at their generations or digests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub judged_by: BTreeMap<String, String>,
    /// When.
    pub at: Timestamp,
}

impl DecisionBatch {
    /// The keys of the runs that its decisions did not make and that people may have been told about.
    pub(crate) fn runs_that_were_not_made(&self) -> impl Iterator<Item = RunKey> {
        let none_was_made = |one: &&Decision| {
            matches!(
                one.outcome,
                Outcome::Waiting { .. } | Outcome::Denied { .. } | Outcome::Failed { .. }
            )
        };
        self.decisions.iter().filter(none_was_made).map(|one| {
            RunKey::of(&self.tenant, &one.workflow, &one.trigger, &self.event, &self.attempt)
        })
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandDecision {
    /// The command as it was given, such as `/retest ci` or `cancel`.
    pub command: String,
    /// Who gave it, by the host's name or as the embedding program said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// What came of it.
    pub outcome: CommandOutcome,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
#[non_exhaustive]
pub enum CommandOutcome {
    /// It was carried out.
    Done {
        /// What was done, for people.
        effect: String,
    },
    /// The policy said no; nothing was done.
    Denied {
        /// By which rule.
        rule: String,
    },
    /// It cannot be carried out; nothing was done.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// Triggers that the index ruled out together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guard {
    /// The digest of the set of triggers that the index was built from. The set is recorded once
    /// ([`Effects::trigger_sets`](super::Effects::trigger_sets)).
    pub set: Arc<str>,
    /// The path of the event that they compare, such as `event.base.branch`.
    pub path: Arc<str>,
    /// The value that was seen there.
    pub saw: Value,
    /// How many triggers of the set wanted another value.
    pub rejected: u32,
}
