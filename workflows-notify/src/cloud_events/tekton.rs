//! Events as Tekton's own controller sends them.

use serde_json::{Value, json};
use workflows_core::{NotificationView, RunState, Transition};

/// The type and the data of the event for a transition.
///
/// The PipelineRun in the data is what can be told of it from outside: its name, the annotations
/// that tell whose it is, and the condition that its state is. `run` has the rest.
pub(super) fn event(notification: &NotificationView) -> (String, Value) {
    let run = &notification.run;
    let word = match notification.transition {
        Transition::Queued => "queued",
        Transition::Started => "started",
        Transition::Progress | Transition::RunningLong => "running",
        Transition::Succeeded | Transition::Recovered => "successful",
        transition if transition.is_end() => "failed",
        _ => "unknown",
    };
    let (status, reason) = condition(run.state);
    let annotation = |name: &str| format!("workflows.tekton.dev/{name}");
    let mut annotations = json!({
        annotation("run-key"): run.key,
        annotation("tenant"): run.tenant,
        annotation("repository"): run.repo,
        annotation("workflow"): run.workflow,
        annotation("trigger"): run.trigger,
    });
    if let Some(commit) = &run.commit {
        annotations[annotation("commit")] = json!(commit);
    }
    if let Some(reference) = &run.reference {
        annotations[annotation("ref")] = json!(reference);
    }
    if let Some(number) = run.pull_request {
        annotations[annotation("pull-request")] = json!(number.to_string());
    }
    let pipeline_run = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "name": super::name(notification), "annotations": annotations },
        "status": {
            "conditions": [{
                "type": "Succeeded",
                "status": status,
                "reason": reason,
                "message": run.message,
                "lastTransitionTime": notification.at,
            }],
            "startTime": run.started_at,
            "completionTime": run.finished_at,
        },
    });
    let data = json!({ "pipelineRun": pipeline_run, "run": run });
    (format!("dev.tekton.event.pipelinerun.{word}.v1"), data)
}

/// The condition `Succeeded` of a state. Where Tekton has a word for the reason it is that one.
fn condition(state: RunState) -> (&'static str, &'static str) {
    match state {
        RunState::Succeeded => ("True", "Succeeded"),
        RunState::Failed => ("False", "Failed"),
        RunState::Cancelled => ("False", "Cancelled"),
        RunState::TimedOut => ("False", "PipelineRunTimeout"),
        RunState::Superseded => ("False", "Superseded"),
        RunState::Expired => ("False", "Expired"),
        RunState::Refused => ("False", "Refused"),
        RunState::Running => ("Unknown", "Running"),
        RunState::Created => ("Unknown", "Started"),
        _ => ("Unknown", "PipelineRunPending"),
    }
}
