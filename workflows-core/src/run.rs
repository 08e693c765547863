//! One execution asked for: [`Run`], and what others see of it: [`RunView`].

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    AttemptId, CancelMode, CommitId, EventKey, GroupKey, NotifierName, RepoRef, RunKey, SinkName,
    TaskStatus, Tenant, WorkflowId, event::SubjectKey, policy::Facts, sink::RunResult,
    workflow::Strategy,
};

/// One execution asked for, as the ledger keeps it.
///
/// It is made by the planner, changed by the scheduler, the dispatcher and the observer, and read
/// by everything else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its key.
    pub key: RunKey,
    /// Counts its changes; a change of an older version is refused.
    pub version: i64,
    /// Its tenant.
    pub tenant: Tenant,
    /// The repository that it is for.
    pub repo: RepoRef,
    /// The workflow.
    pub workflow: WorkflowId,
    /// The trigger in it.
    pub trigger: Arc<str>,
    /// The event that caused it.
    pub event: EventKey,
    /// The place of its cause in the order of intake: of the event for a first attempt, of the
    /// request for a later one. The newest run of a subject has the highest.
    pub order: i64,
    /// The event's subject.
    pub subject: SubjectKey,
    /// Whether the place of its event in the subject's chain could not be told at intake.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchained: bool,
    /// The id of the request for this attempt.
    pub attempt: AttemptId,
    /// The commit that it is for.
    pub commit: Option<CommitId>,
    /// The ref at which the commit stood.
    pub reference: Option<Arc<str>>,
    /// The pull request that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// Where its workflow was defined.
    pub origin: Origin,
    /// The PipelineRun's name: at most 63 characters, derived from the key.
    pub name: Arc<str>,
    /// The sink that executes it.
    pub sink: SinkName,
    /// The whole PipelineRun that is, or will be, created.
    pub pipeline_run: Arc<Value>,
    /// The concurrency groups that it is in, in key order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupMembership>,
    /// How it stands.
    pub state: RunState,
    /// Why, in one line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// That it shall end, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<Cancellation>,
    /// Runs that this one replaces: they are told to end before it is created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<RunKey>,
    /// The sink's own name for it, once it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<Arc<str>>,
    /// Where people can watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its tasks as they were seen last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskStatus>,
    /// Its results.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<RunResult>,
    /// The step at which it failed, with its last lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailedStep>,
    /// The secrets that it was given, to be replaced in what is shown of its logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretFingerprint>,
    /// Until when the credential works that it was given; `None` without one, and for one that does
    /// not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_until: Option<Timestamp>,
    /// Remarks for people and programs, such as `approximate` for a commit that was found by
    /// committer date.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub remarks: BTreeMap<String, String>,
    /// Which notifiers are told about which transitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<crate::workflow::Notification>,
    /// Those of these notifiers that its workflow asks for itself, rather than the connection or the
    /// platform for it: the policy is asked about them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked_notifiers: Vec<NotifierName>,
    /// The name of its status on the commit; `None` when it shows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_context: Option<Arc<str>>,
    /// How much of its workflow's history is kept, as the workflow said when this was planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<crate::workflow::Retention>,
    /// What the gate knew about those who caused it: whose change it is, and who asked for it when
    /// that is somebody else. The policy is asked with each again right before the run is created,
    /// and must allow all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Facts>,
    /// Names the document that defined it, and the policy it was judged by, at their generations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub judged_by: BTreeMap<String, String>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it started to execute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it reached its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

/// Where a workflow was defined.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// The content digest of the document.
    pub digest: Arc<str>,
    /// The commit of the directory that it was read from; `None` for a registered one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The file that it was read from, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Arc<str>>,
}

/// A run's place in a concurrency group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupMembership {
    /// The group's key.
    pub group: GroupKey,
    /// What the run asks for in it.
    pub strategy: Strategy,
}

/// That a run shall end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancellation {
    /// How.
    pub mode: CancelMode,
    /// Why.
    pub reason: CancelReason,
    /// Since when.
    pub at: Timestamp,
    /// Whether the sink has been told.
    #[serde(default)]
    pub delivered: bool,
}

/// Why a run shall end. The engine remembers it, because an executor that was asked to end a run
/// may call the outcome something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CancelReason {
    /// A newer run of its group took its place.
    SupersededBy(RunKey),
    /// Somebody asked for it.
    Requested {
        /// Who.
        by: String,
    },
}

/// How a run stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunState {
    /// It is planned, and its groups have not been decided.
    Planned,
    /// It waits in a group for others to end.
    Queued,
    /// It may be created.
    Admitted,
    /// It is created and has not started.
    Created,
    /// It runs.
    Running,
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
    /// It waited in its queue for too long, or the queue was full or cleared.
    Expired,
    /// The policy, a mutator or the sink refused it.
    Refused,
}

impl RunState {
    /// Every state.
    pub const ALL: [Self; 12] = [
        Self::Planned,
        Self::Queued,
        Self::Admitted,
        Self::Created,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Superseded,
        Self::Expired,
        Self::Refused,
    ];

    /// Whether it has reached its end.
    pub fn is_terminal(self) -> bool {
        !matches!(
            self,
            Self::Planned | Self::Queued | Self::Admitted | Self::Created | Self::Running
        )
    }

    /// Whether it occupies a place in its groups: it runs, or will without waiting for anything.
    pub fn holds_a_place(self) -> bool {
        matches!(self, Self::Admitted | Self::Created | Self::Running)
    }

    /// The word for it, as it stands in documents and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Queued => "queued",
            Self::Admitted => "admitted",
            Self::Created => "created",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Superseded => "superseded",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The step at which a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedStep {
    /// The task's name in the pipeline.
    pub task: Arc<str>,
    /// The step's name.
    pub step: Arc<str>,
    /// Its exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The last lines that it wrote, bounded; bytes that are no text are replaced, and so are
    /// secrets that are known or look like one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
    /// What its log said about lines of files, bounded, the errors first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<Annotation>,
}

/// What a tool said about lines of a file of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Annotation {
    /// The file, relative to the root of the repository.
    pub path: Arc<str>,
    /// The first line, from 1.
    pub start_line: u32,
    /// The last line.
    pub end_line: u32,
    /// The column in the line, from 1, when there is one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// How bad it is.
    pub level: AnnotationLevel,
    /// What was said: plain text, secrets replaced.
    pub message: String,
}

/// How bad it is what a tool said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnotationLevel {
    /// An error.
    Failure,
    /// A warning.
    Warning,
    /// A remark.
    Notice,
}

/// By what a secret that a run was given is found in what the run wrote, without being kept: its
/// length and a digest. One is made of long random tokens only, which no search finds by the digest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretFingerprint {
    /// The length in bytes.
    pub length: u32,
    /// The SHA-256 digest, in hexadecimal digits.
    pub sha256: Arc<str>,
}

/// A run as notifiers and other readers see it. It needs no ledger row: a notifier also serves runs
/// that the engine did not create.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RunView {
    /// Its key, or another id that stays.
    pub key: Arc<str>,
    /// The PipelineRun's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Its tenant.
    pub tenant: Tenant,
    /// The repository's full name.
    pub repo: Arc<str>,
    /// The repository's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo_url: Option<String>,
    /// The workflow's name.
    pub workflow: Arc<str>,
    /// The trigger's name.
    pub trigger: Arc<str>,
    /// The event that caused it; `None` when the engine did not create it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventKey>,
    /// The id of the request for this attempt; empty for the first.
    pub attempt: AttemptId,
    /// The commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// The full ref name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<Arc<str>>,
    /// The pull request's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<u64>,
    /// The pull request's page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request_url: Option<String>,
    /// The pull request's title, or the first line of the commit's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Whose change it is, by the host's name: the pull request's author, or who caused the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Arc<str>>,
    /// How it stands.
    pub state: RunState,
    /// How the one before it for the same ref or pull request ended, where somebody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<RunState>,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where people can watch it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Its tasks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskStatus>,
    /// The step at which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailedStep>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
}

impl RunView {
    /// A view of a run that is known by little; the other fields can be set afterwards.
    pub fn new(
        key: impl Into<Arc<str>>,
        repo: impl Into<Arc<str>>,
        workflow: impl Into<Arc<str>>,
        state: RunState,
        created_at: Timestamp,
    ) -> Self {
        Self {
            key: key.into(),
            name: None,
            tenant: Tenant::default(),
            repo: repo.into(),
            repo_url: None,
            workflow: workflow.into(),
            trigger: "".into(),
            event: None,
            attempt: AttemptId::first(),
            commit: None,
            reference: None,
            pull_request: None,
            pull_request_url: None,
            title: None,
            author: None,
            state,
            previous: None,
            message: String::new(),
            link: None,
            tasks: Vec::new(),
            failure: None,
            created_at,
            started_at: None,
            finished_at: None,
        }
    }

    /// How long it ran, or has been running at an instant.
    pub fn ran_for(&self, now: Timestamp) -> Option<SignedDuration> {
        let until = self.finished_at.unwrap_or(now);
        Some(until.duration_since(self.started_at?).max(SignedDuration::ZERO))
    }

    /// What the filter of a notification sees as `run`:
    ///
    /// | path | what |
    /// | --- | --- |
    /// | `repo`, `workflow`, `trigger`, `key`, `attempt` | which |
    /// | `commit`, `ref`, `pull_request` | for what; `pull_request` is the number |
    /// | `transition` | what happened, by the word that stands in documents |
    /// | `state`, `message` | how it stands, and why |
    /// | `previous` | how the one before it for the same ref or pull request ended |
    /// | `failed_task`, `failed_step`, `exit_code` | where it failed |
    /// | `seconds` | how long it ran |
    ///
    /// What a run does not have is `null`.
    pub fn view(&self, transition: crate::Transition, now: Timestamp) -> Value {
        let failure = self.failure.as_ref();
        serde_json::json!({
            "repo": self.repo,
            "workflow": self.workflow,
            "trigger": self.trigger,
            "key": self.key,
            "attempt": self.attempt,
            "commit": self.commit,
            "ref": self.reference,
            "pull_request": self.pull_request,
            "transition": transition,
            "state": self.state,
            "message": self.message,
            "previous": self.previous,
            "failed_task": failure.map(|failure| &failure.task),
            "failed_step": failure.map(|failure| &failure.step),
            "exit_code": failure.and_then(|failure| failure.exit_code),
            "seconds": self.ran_for(now).map(|ran| ran.as_secs()),
        })
    }
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> Self {
        Self {
            key: run.key.as_str().into(),
            name: Some(Arc::clone(&run.name)),
            tenant: run.tenant.clone(),
            repo: Arc::clone(&run.repo.name),
            repo_url: None,
            workflow: Arc::clone(&run.workflow.name),
            trigger: Arc::clone(&run.trigger),
            event: Some(run.event.clone()),
            attempt: run.attempt.clone(),
            commit: run.commit.clone(),
            reference: run.reference.clone(),
            pull_request: run.pull_request,
            pull_request_url: None,
            title: None,
            author: None,
            state: run.state,
            previous: None,
            message: run.message.clone(),
            link: run.link.clone(),
            tasks: run.tasks.clone(),
            failure: run.failure.clone(),
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
        }
    }
}
