//! What is answered, and what is sent, as it is described.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use workflows_core::{
    CancelMode, Event, Run,
    engine::{Explanation, Health, Replayed, ScheduleStatus, Simulation},
    store::OutboxNotification,
};

/// A page, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page<T> {
    /// What is on it.
    pub(super) items: Vec<T>,
    /// What to send as `after` for the next page; nothing when this is the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<i64>,
}

/// A repository.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RepositoryView {
    /// The connection through which it is reached.
    pub(super) connection: String,
    /// Its id, which a rename does not change.
    pub(super) id: String,
    /// Its full name.
    pub(super) name: String,
}

impl From<&workflows_core::RepoRef> for RepositoryView {
    fn from(repo: &workflows_core::RepoRef) -> Self {
        Self {
            connection: repo.connection.to_string(),
            id: repo.id.to_string(),
            name: repo.name.to_string(),
        }
    }
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunView {
    /// Its key.
    pub(super) key: String,
    /// The name of its PipelineRun.
    pub(super) name: String,
    /// The repository that it is for.
    pub(super) repository: RepositoryView,
    /// The workflow's name.
    pub(super) workflow: String,
    /// Whether the repository defines the workflow.
    pub(super) in_repository: bool,
    /// The trigger.
    pub(super) trigger: String,
    /// The event that caused it.
    pub(super) event: String,
    /// The id of the request for this attempt; empty for the first.
    pub(super) attempt: String,
    /// The commit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    /// The ref at which the commit stood.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
    /// The pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pull_request: Option<u64>,
    /// `planned`, `queued`, `admitted`, `created`, `running`, `succeeded`, `failed`, `cancelled`,
    /// `timedOut`, `superseded`, `expired` or `refused`.
    pub(super) state: Value,
    /// Why, in one line.
    pub(super) message: String,
    /// Its concurrency groups.
    pub(super) groups: Vec<String>,
    /// Where people can watch it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<String>,
    /// Its tasks, as they were seen last.
    pub(super) tasks: Vec<Value>,
    /// What it was judged by: the policy, the workflow.
    pub(super) judged_by: BTreeMap<String, String>,
    /// When it was planned.
    #[schemars(with = "String")]
    pub(super) created_at: Timestamp,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(super) started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(super) finished_at: Option<Timestamp>,
}

impl From<Run> for RunView {
    fn from(run: Run) -> Self {
        let text = |text: Arc<str>| text.to_string();
        Self {
            key: run.key.to_string(),
            name: run.name.to_string(),
            repository: RepositoryView::from(&run.repo),
            in_repository: run.workflow.repo.is_some(),
            workflow: run.workflow.name.to_string(),
            trigger: run.trigger.to_string(),
            event: run.event.to_string(),
            attempt: run.attempt.to_string(),
            commit: run.commit.map(|commit| commit.to_string()),
            reference: run.reference.map(text),
            pull_request: run.pull_request,
            state: serde_json::to_value(run.state).unwrap_or_default(),
            message: run.message,
            groups: run.groups.iter().map(|one| one.group.to_string()).collect(),
            link: run.link,
            tasks: run
                .tasks
                .iter()
                .map(|task| serde_json::to_value(task).unwrap_or_default())
                .collect(),
            judged_by: run.judged_by,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}

/// A run with its whole PipelineRun.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct WholeRun {
    /// The run.
    #[serde(flatten)]
    pub(super) run: RunView,
    /// The PipelineRun as it is, or will be, created.
    pub(super) pipeline_run: Value,
}

/// An event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView {
    /// Its key.
    pub(super) key: String,
    /// The repository.
    pub(super) repository: RepositoryView,
    /// What kind of thing happened.
    pub(super) kind: String,
    /// What was done.
    pub(super) actions: Vec<String>,
    /// What it is about.
    pub(super) subject: String,
    /// The commit that it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit: Option<String>,
    /// The pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pull_request: Option<u64>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sender: Option<String>,
    /// When it happened, as far as is known.
    #[schemars(with = "String")]
    pub(super) occurred_at: Timestamp,
    /// When it was taken in.
    #[schemars(with = "String")]
    pub(super) received_at: Timestamp,
    /// Which source brought it.
    pub(super) source: String,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            key: event.key.to_string(),
            repository: RepositoryView::from(&event.repo),
            kind: event.kind.to_string(),
            actions: event.actions.iter().map(ToString::to_string).collect(),
            subject: event.subject.to_string(),
            commit: event.head.map(|head| head.sha.to_string()),
            pull_request: event.pull_request.map(|one| one.number),
            sender: event.sender.map(|sender| sender.to_string()),
            occurred_at: event.occurred_at,
            received_at: event.received_at,
            source: event.source.to_string(),
        }
    }
}

/// Why something ran, or did not.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ExplanationView {
    /// The same for people.
    pub(super) text: String,
    /// What is explained.
    pub(super) about: String,
    /// The events: how each was heard of, what every trigger said to it, which runs came of it.
    pub(super) events: Vec<Value>,
    /// What the commits show.
    pub(super) statuses: Vec<Value>,
}

impl From<Explanation> for ExplanationView {
    fn from(explanation: Explanation) -> Self {
        let values = |value: Value| value.as_array().cloned().unwrap_or_default();
        Self {
            text: explanation.to_string(),
            events: values(serde_json::to_value(&explanation.events).unwrap_or_default()),
            statuses: values(serde_json::to_value(&explanation.statuses).unwrap_or_default()),
            about: explanation.about,
        }
    }
}

/// What would come of an event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SimulationView {
    /// The event.
    pub(super) event: EventView,
    /// What each trigger says to it.
    pub(super) decisions: Vec<Value>,
    /// The runs that would be, with their PipelineRuns.
    pub(super) runs: Vec<Value>,
}

impl From<Simulation> for SimulationView {
    fn from(simulation: Simulation) -> Self {
        let value = |one: &_| serde_json::to_value(one).unwrap_or_default();
        let decisions = simulation.decided.decisions.iter().map(value).collect();
        let value = |one: &_| serde_json::to_value(one).unwrap_or_default();
        let runs = simulation.runs.iter().map(value).collect();
        Self { event: simulation.event.into(), decisions, runs }
    }
}

/// What is tried out, and on what.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SimulateRequest {
    /// Workflow documents, at most 20: as if these were registered and no others were.
    pub(super) workflows: Vec<Value>,
    /// The connection.
    pub(super) connection: String,
    /// The repository's id.
    pub(super) repository_id: String,
    /// The repository's full name.
    pub(super) repository: String,
    /// What happens, as the ledger would be told of it: where a ref stands (`subject: ref`), how a pull
    /// request is (`pullRequest`), whether it has a label (`label`), or anything else that happens
    /// (`occurrence`).
    #[schemars(example = &json!({
        "subject": "ref", "name": "refs/heads/main",
        "after": "3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d3f2a1c5d", "before": {"was": null},
    }))]
    pub(super) claim: Map<String, Value>,
    /// Who does it.
    #[serde(default)]
    pub(super) sender: Option<String>,
    /// The files that it changes, at most 10,000; the repository is asked when they are left out and a
    /// filter hangs on them.
    #[serde(default)]
    pub(super) changed_files: Option<Vec<String>>,
}

/// What would have run for one recorded event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReplayView {
    /// What would have come of it.
    #[serde(flatten)]
    pub(super) simulation: SimulationView,
    /// Triggers, as `workflow/trigger`, that would have started a run and did not.
    pub(super) would_start: Vec<String>,
    /// Triggers that started a run and would not have.
    pub(super) would_not_start: Vec<String>,
}

impl From<Replayed> for ReplayView {
    fn from(replayed: Replayed) -> Self {
        let name = |(workflow, trigger): &(workflows_core::WorkflowId, Arc<str>)| {
            format!("{}/{trigger}", workflow.name)
        };
        Self {
            simulation: replayed.simulation.into(),
            would_start: replayed.would_start.iter().map(name).collect(),
            would_not_start: replayed.would_not_start.iter().map(name).collect(),
        }
    }
}

/// What is tried out on recorded events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ReplayRequest {
    /// Workflow documents. Each stands in for the registered one of its name.
    pub(super) workflows: Vec<Value>,
    /// Only events of the repository with this id.
    #[serde(default)]
    pub(super) repository_id: Option<String>,
    /// So many of the newest events, at most 100; 20 when left out.
    #[serde(default)]
    pub(super) limit: Option<u32>,
}

/// A notification.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct NotificationView {
    /// Its key.
    pub(super) key: String,
    /// The run.
    pub(super) run: String,
    /// The notifier.
    pub(super) notifier: String,
    /// What happened.
    pub(super) transition: String,
    /// `pending`, `delivered` or `dead`.
    pub(super) state: Value,
    /// How often it was tried.
    pub(super) attempts: u32,
    /// The last failure, or the receiver's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<String>,
    /// When it was made.
    #[schemars(with = "String")]
    pub(super) created_at: Timestamp,
}

impl From<OutboxNotification> for NotificationView {
    fn from(one: OutboxNotification) -> Self {
        Self {
            key: one.key.to_string(),
            run: one.run.to_string(),
            notifier: one.notifier.to_string(),
            transition: one.transition.to_string(),
            state: serde_json::to_value(one.state).unwrap_or_default(),
            attempts: one.attempts,
            result: one.result,
            created_at: one.created_at,
        }
    }
}

/// A schedule.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ScheduleView {
    /// The workflow's name.
    pub(super) workflow: String,
    /// The id of the repository that defines the workflow, when one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repository_id: Option<String>,
    /// The trigger.
    pub(super) trigger: String,
    /// When it fires next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(super) next: Option<Timestamp>,
    /// A slot that waits for its repository to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub(super) pending: Option<Timestamp>,
}

impl From<ScheduleStatus> for ScheduleView {
    fn from(status: ScheduleStatus) -> Self {
        Self {
            workflow: status.workflow.name.to_string(),
            repository_id: status.workflow.repo.map(|repo| repo.to_string()),
            trigger: status.trigger.to_string(),
            next: status.next,
            pending: status.pending,
        }
    }
}

/// What is to be run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SubmitRequest {
    /// The connection.
    pub(super) connection: String,
    /// The repository's full name.
    pub(super) repository: String,
    /// The full name of a ref; the default branch when left out.
    #[serde(default, rename = "ref")]
    pub(super) reference: Option<String>,
    /// A commit; the one at which the ref stands when left out.
    #[serde(default)]
    pub(super) commit: Option<String>,
    /// Only this workflow; all with a trigger `on: manual` when left out.
    #[serde(default)]
    pub(super) workflow: Option<String>,
    /// Parameters: `event.data.params`.
    #[serde(default)]
    pub(super) params: BTreeMap<String, Value>,
}

/// How a run is to end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct CancelRequest {
    /// `runFinally` when left out.
    #[serde(default)]
    pub(super) mode: Option<CancelMode>,
}

/// Which head is approved.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ApproveRequest {
    /// The connection.
    pub(super) connection: String,
    /// The repository's id.
    pub(super) repository_id: String,
    /// The repository's full name.
    pub(super) repository: String,
    /// The pull request's number.
    pub(super) pull_request: u64,
    /// The commit that was looked at.
    pub(super) head: String,
}

/// Which workflow is held or released, and why.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HoldRequest {
    /// The id of the repository that defines the workflow; a registered one when left out.
    #[serde(default)]
    pub(super) repository_id: Option<String>,
    /// Why, for people.
    #[serde(default)]
    pub(super) reason: String,
}

/// Which queue is cleared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ClearRequest {
    /// The group's key, as runs show it.
    pub(super) group: String,
}

/// Which notification is sent again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ResendRequest {
    /// Its key.
    pub(super) notification: String,
}

/// Which schedule runs now.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RunScheduleRequest {
    /// The workflow's name.
    pub(super) workflow: String,
    /// The id of the repository that defines the workflow; a registered one when left out.
    #[serde(default)]
    pub(super) repository_id: Option<String>,
    /// The trigger.
    pub(super) trigger: String,
}

/// How the controller gets on.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct HealthView {
    /// What needs somebody's attention.
    pub(super) problems: Vec<String>,
    /// When each source, stage and connection last got through.
    pub(super) details: Value,
}

impl From<Health> for HealthView {
    fn from(health: Health) -> Self {
        Self {
            problems: health.problems(),
            details: serde_json::to_value(&health).unwrap_or_default(),
        }
    }
}
