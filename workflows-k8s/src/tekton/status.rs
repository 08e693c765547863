//! How a run stands, from its PipelineRun and TaskRuns.
//!
//! The condition's `status` decides whether and how a run ended; its `reason` only refines that, so
//! that a reason which is unknown here ends a run all the same. See
//! <https://tekton.dev/docs/pipelines/pipelineruns/#monitoring-execution-status>.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use workflows_core::{
    RunPhase, RunStatus, TaskStatus,
    sink::{RunResult, StepStatus, TaskPhase},
};

/// What of a PipelineRun says how it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PipelineRun {
    status: PipelineRunStatus,
}

/// The part that Tekton writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PipelineRunStatus {
    conditions: Vec<Condition>,
    start_time: Option<Timestamp>,
    completion_time: Option<Timestamp>,
    child_references: Vec<ChildReference>,
    skipped_tasks: Vec<SkippedTask>,
    results: Vec<NamedValue>,
    pipeline_spec: PipelineSpec,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ChildReference {
    name: String,
    pipeline_task_name: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct SkippedTask {
    name: String,
    reason: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct NamedValue {
    name: String,
    value: Value,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct PipelineSpec {
    tasks: Vec<PipelineTask>,
    finally: Vec<PipelineTask>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct PipelineTask {
    name: String,
}

/// What of a TaskRun says how it stands.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskRun {
    metadata: Metadata,
    status: TaskRunStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TaskRunStatus {
    conditions: Vec<Condition>,
    start_time: Option<Timestamp>,
    completion_time: Option<Timestamp>,
    pod_name: String,
    steps: Vec<StepState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StepState {
    name: String,
    container: String,
    terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Terminated {
    exit_code: i32,
}

/// The label by which Tekton tells which task of the pipeline a TaskRun is.
const PIPELINE_TASK: &str = "tekton.dev/pipelineTask";
/// The condition of runs and tasks alike.
const SUCCEEDED: &str = "Succeeded";

impl TaskRun {
    /// The task's name in the pipeline.
    pub(super) fn task(&self) -> &str {
        self.metadata.labels.get(PIPELINE_TASK).map_or("", String::as_str)
    }

    /// The pod that executes, or executed, it; the container of a step in it.
    pub(super) fn container(&self, step: &str) -> Option<(&str, &str)> {
        let found = self.status.steps.iter().find(|one| one.name == step)?;
        let pod = self.status.pod_name.as_str();
        (!pod.is_empty() && !found.container.is_empty()).then_some((pod, &found.container))
    }

    /// How it stands, as the task of this name.
    pub(super) fn status(&self, name: &str) -> TaskStatus {
        let condition = condition(&self.status.conditions);
        let phase = match condition.map(|one| (one.status.as_str(), one.reason.as_str())) {
            Some(("True", _)) => TaskPhase::Succeeded,
            Some(("False", "TaskRunCancelled")) => TaskPhase::Cancelled,
            Some(("False", "TaskRunTimeout")) => TaskPhase::TimedOut,
            Some(("False", _)) => TaskPhase::Failed,
            _ if self.status.start_time.is_some() => TaskPhase::Running,
            _ => TaskPhase::Pending,
        };
        let ended_badly = matches!(phase, TaskPhase::Failed | TaskPhase::TimedOut);
        let message = condition.filter(|_| ended_badly).map_or("", |one| &one.message);
        let step = |step: &StepState| StepStatus {
            name: step.name.as_str().into(),
            exit_code: step.terminated.as_ref().map(|terminated| terminated.exit_code),
        };
        TaskStatus {
            name: name.into(),
            phase,
            message: first_line(message),
            started_at: self.status.start_time,
            finished_at: self.status.completion_time,
            link: None,
            steps: self.status.steps.iter().map(step).collect(),
        }
    }
}

impl PipelineRunStatus {
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        self.completion_time
    }
}

impl From<PipelineRunStatus> for PipelineRun {
    fn from(status: PipelineRunStatus) -> Self {
        Self { status }
    }
}

impl PipelineRun {
    /// Whether Tekton says that it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.phase().is_terminal()
    }

    /// Whether it has tasks whose TaskRuns say more.
    pub(super) fn has_children(&self) -> bool {
        !self.status.child_references.is_empty()
    }

    fn phase(&self) -> RunPhase {
        let Some(condition) = condition(&self.status.conditions) else { return RunPhase::Pending };
        match (condition.status.as_str(), condition.reason.as_str()) {
            ("True", _) => RunPhase::Succeeded,
            ("False", "Cancelled" | "TaskRunCancelled" | "CustomRunCancelled") => {
                RunPhase::Cancelled
            }
            (
                "False",
                "PipelineRunTimeout" | "TaskRunTimeout" | "CustomRunTimedOut" | "TimedOut",
            ) => RunPhase::TimedOut,
            ("False", _) => RunPhase::Failed,
            (_, "PipelineRunPending") => RunPhase::Pending,
            _ => RunPhase::Running,
        }
    }

    /// How it stands, with its TaskRuns in any order.
    pub(super) fn run_status(&self, task_runs: &[TaskRun]) -> RunStatus {
        let mut status = RunStatus::new(self.phase());
        let condition = condition(&self.status.conditions);
        if let Some(condition) = condition.filter(|_| status.phase.is_terminal()) {
            status.message = first_line(&condition.message);
        }
        status.started_at = self.status.start_time;
        status.finished_at = self.status.completion_time;
        status.tasks = self.tasks(task_runs);
        let result = |one: &NamedValue| RunResult {
            name: one.name.as_str().into(),
            value: one.value.clone(),
        };
        status.results = self.status.results.iter().map(result).collect();
        status
    }

    /// Its tasks: first those that have started, by time, then those that were skipped, then those
    /// that wait.
    fn tasks(&self, task_runs: &[TaskRun]) -> Vec<TaskStatus> {
        let by_name: BTreeMap<&str, &TaskRun> =
            task_runs.iter().map(|one| (one.metadata.name.as_str(), one)).collect();
        let mut started: Vec<TaskStatus> = self
            .status
            .child_references
            .iter()
            .map(|child| match by_name.get(child.name.as_str()) {
                Some(task_run) => task_run.status(&child.pipeline_task_name),
                None => waiting(&child.pipeline_task_name, TaskPhase::Pending, ""),
            })
            .collect();
        started.sort_by_key(|task| task.started_at.unwrap_or(Timestamp::MAX));
        let skipped: Vec<TaskStatus> = self
            .status
            .skipped_tasks
            .iter()
            .map(|task| waiting(&task.name, TaskPhase::Skipped, &task.reason))
            .collect();
        let spec = &self.status.pipeline_spec;
        let known = |name: &str| started.iter().chain(&skipped).any(|task| &*task.name == name);
        let ended = self.has_ended();
        let rest: Vec<TaskStatus> = spec
            .tasks
            .iter()
            .chain(&spec.finally)
            .filter(|task| !ended && !known(&task.name))
            .map(|task| waiting(&task.name, TaskPhase::Pending, ""))
            .collect();
        started.into_iter().chain(skipped).chain(rest).collect()
    }
}

/// How an object stands that says so as all of Tekton's kinds do: by the condition `Succeeded`, when it
/// started and ended, and results.
pub(super) fn of_condition(object: &Value) -> RunStatus {
    let run: PipelineRun = serde_json::from_value(object.clone()).unwrap_or_default();
    let mut status = run.run_status(&[]);
    status.tasks.clear();
    status
}

fn waiting(name: &str, phase: TaskPhase, message: &str) -> TaskStatus {
    TaskStatus {
        name: name.into(),
        phase,
        message: first_line(message),
        started_at: None,
        finished_at: None,
        link: None,
        steps: Vec::new(),
    }
}

fn condition(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.kind == SUCCEEDED)
}

/// A status has one line. The rest of a long message is in the cluster.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(1_000).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline_run(status: Value) -> PipelineRun {
        serde_json::from_value(json!({"metadata": {"name": "ci-1"}, "status": status})).unwrap()
    }

    fn ended(status: &str, reason: &str, message: &str) -> RunStatus {
        let condition =
            json!({"type": "Succeeded", "status": status, "reason": reason, "message": message});
        pipeline_run(json!({"conditions": [condition]})).run_status(&[])
    }

    #[test]
    fn a_run_that_nobody_picked_up_is_pending() {
        assert_eq!(pipeline_run(json!({})).run_status(&[]).phase, RunPhase::Pending);
        let run: PipelineRun = serde_json::from_value(json!({})).unwrap();
        assert_eq!(run.run_status(&[]).phase, RunPhase::Pending);
    }

    #[test]
    fn the_conditions_status_decides_and_the_reason_refines() {
        let table = [
            ("Unknown", "Started", RunPhase::Running),
            ("Unknown", "Running", RunPhase::Running),
            ("Unknown", "PipelineRunPending", RunPhase::Pending),
            ("Unknown", "CancelledRunningFinally", RunPhase::Running),
            ("Unknown", "Cancelled", RunPhase::Running),
            ("True", "Succeeded", RunPhase::Succeeded),
            ("True", "Completed", RunPhase::Succeeded),
            ("True", "SomethingNew", RunPhase::Succeeded),
            ("False", "Failed", RunPhase::Failed),
            ("False", "Cancelled", RunPhase::Cancelled),
            ("False", "PipelineRunTimeout", RunPhase::TimedOut),
            ("False", "CouldntGetPipeline", RunPhase::Failed),
            ("False", "SomethingNew", RunPhase::Failed),
        ];
        for (status, reason, phase) in table {
            assert_eq!(ended(status, reason, "").phase, phase, "{status} {reason}");
        }
    }

    #[test]
    fn only_the_end_has_a_message_and_it_has_one_line() {
        let failed = ended("False", "ParameterMissing", "[User error] no value for `x`\nmore");
        assert_eq!(failed.message, "[User error] no value for `x`");
        assert_eq!(ended("Unknown", "Running", "Tasks Completed: 1").message, "");
    }

    #[test]
    fn tasks_come_in_the_order_in_which_they_started_and_those_to_come_last() {
        let run = pipeline_run(json!({
            "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}],
            "startTime": "2026-01-01T00:00:00Z",
            "childReferences": [
                {"kind": "TaskRun", "name": "ci-1-test", "pipelineTaskName": "test"},
                {"kind": "TaskRun", "name": "ci-1-clone", "pipelineTaskName": "clone"},
            ],
            "skippedTasks": [{"name": "bench", "reason": "When Expressions evaluated to false"}],
            "pipelineSpec": {
                "tasks": [{"name": "clone"}, {"name": "test"}, {"name": "bench"}, {"name": "push"}],
                "finally": [{"name": "tidy"}],
            },
        }));
        let task_runs: Vec<TaskRun> = serde_json::from_value(json!([
            {
                "metadata": {"name": "ci-1-clone", "labels": {"tekton.dev/pipelineTask": "clone"}},
                "status": {
                    "startTime": "2026-01-01T00:00:01Z", "completionTime": "2026-01-01T00:00:05Z",
                    "podName": "ci-1-clone-pod",
                    "conditions": [{"type": "Succeeded", "status": "True", "reason": "Succeeded"}],
                    "steps": [{"name": "git", "container": "step-git", "terminated": {"exitCode": 0}}],
                },
            },
            {
                "metadata": {"name": "ci-1-test", "labels": {"tekton.dev/pipelineTask": "test"}},
                "status": {
                    "startTime": "2026-01-01T00:00:06Z",
                    "conditions": [{"type": "Succeeded", "status": "Unknown", "reason": "Running"}],
                    "steps": [{"name": "run", "container": "step-run", "running": {}}],
                },
            },
        ]))
        .unwrap();
        let status = run.run_status(&task_runs);
        let tasks: Vec<_> = status.tasks.iter().map(|task| (&*task.name, task.phase)).collect();
        assert_eq!(
            tasks,
            [
                ("clone", TaskPhase::Succeeded),
                ("test", TaskPhase::Running),
                ("bench", TaskPhase::Skipped),
                ("push", TaskPhase::Pending),
                ("tidy", TaskPhase::Pending),
            ]
        );
        assert_eq!(status.tasks[0].steps[0].exit_code, Some(0));
        assert_eq!(task_runs[0].task(), "clone");
        assert_eq!(task_runs[0].container("git"), Some(("ci-1-clone-pod", "step-git")));
        assert_eq!(task_runs[1].container("run"), None, "it has no pod yet");
    }

    #[test]
    fn a_failed_task_says_why() {
        let task_run: TaskRun = serde_json::from_value(json!({"status": {"conditions": [{
            "type": "Succeeded", "status": "False", "reason": "TaskRunImagePullFailed",
            "message": "the step \"run\" in TaskRun \"t\" failed to pull the image \"nope\"",
        }]}}))
        .unwrap();
        let status = task_run.status("t");
        assert_eq!(status.phase, TaskPhase::Failed);
        assert!(status.message.contains("failed to pull the image"));
    }
}
