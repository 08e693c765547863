//! Events as CDEvents has them.

use serde_json::{Value, json};
use workflows_core::{NotificationView, RunState, Transition};

use crate::describe;

/// The version of the specification, and that of the events of a pipeline run in it.
const SPECIFICATION: &str = "0.4.1";
const PIPELINE_RUN: &str = "0.2.0";

/// The type and the data of the event for a transition; `None` when CDEvents has none for it.
pub(super) fn event(notification: &NotificationView, source: &str) -> Option<(String, Value)> {
    let run = &notification.run;
    let predicate = match notification.transition {
        Transition::Queued => "queued",
        Transition::Started => "started",
        transition if transition.is_end() => "finished",
        _ => return None,
    };
    let kind = format!("dev.cdevents.pipelinerun.{predicate}.{PIPELINE_RUN}");
    let mut content = json!({ "pipelineName": run.workflow });
    if let Some(link) = &run.link {
        content["url"] = json!(link);
    }
    if predicate == "finished" {
        content["outcome"] = json!(match run.state {
            RunState::Succeeded => "success",
            RunState::Failed | RunState::TimedOut => "failure",
            _ => "error",
        });
        if run.state != RunState::Succeeded {
            content["errors"] = json!(describe(notification.transition, run));
        }
    }
    let data = json!({
        "context": {
            "version": SPECIFICATION,
            "id": notification.key,
            "source": source,
            "type": kind,
            "timestamp": notification.at,
        },
        "subject": {
            "id": super::name(notification),
            "source": source,
            "type": "pipelineRun",
            "content": content,
        },
        "customData": { "run": run, "transition": notification.transition },
        "customDataContentType": "application/json",
    });
    Some((kind, data))
}
