//! A pipeline that is run to tell somebody.

use std::sync::Arc;

use serde_json::json;
use workflows_core::{ErrorKind, Notifier, Tenant, Transition, conformance::ScriptedSink};
use workflows_notify::PipelineNotifier;

use crate::support::{failed, told};

fn pipeline_run() -> serde_json::Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": { "generateName": "mail-", "labels": { "team": "a" } },
        "spec": {
            "pipelineRef": { "name": "mail" },
            "params": [
                { "name": "summary", "value": "" },
                { "name": "author", "value": "" },
                { "name": "to", "value": "team@example.com" },
            ],
        },
    })
}

#[tokio::test]
async fn a_notification_is_one_run_however_often_it_is_delivered() {
    let sink = ScriptedSink::new();
    let notifier = PipelineNotifier::new(Arc::new(sink.clone()), pipeline_run()).unwrap();
    let mut run = failed("k", "boom");
    run.author = Some("$(params.to) {{ x }}".into());
    let notification = told(Transition::Failed, run);
    sink.lose_next_answer();
    notifier.deliver(&notification).await.unwrap_err();
    let first = notifier.deliver(&notification).await.unwrap();
    let again = notifier.deliver(&notification).await.unwrap();
    assert_eq!(first, again);
    let created = sink.created();
    assert_eq!(created.len(), 1);
    let made = &created[0].pipeline_run;
    assert_eq!(made["metadata"]["name"], *created[0].name);
    assert!(made["metadata"].get("generateName").is_none());
    assert_eq!(made["metadata"]["labels"]["team"], "a");
    let params = &made["spec"]["params"];
    let summary = "failed after 1m 12s in task test, step run (exit code 1)";
    assert_eq!(params[0]["value"], summary);
    assert_eq!(params[1]["value"], "$(params.to) {{ x }}");
    assert_eq!(params[2]["value"], "team@example.com");

    let other = told(Transition::Recovered, failed("k", "boom"));
    notifier.deliver(&other).await.unwrap();
    assert_eq!(sink.created().len(), 2);
    assert_eq!(sink.created()[1].tenant, other.run.tenant);
    let platform = Tenant::new("platform").unwrap();
    notifier
        .in_tenant(platform.clone())
        .deliver(&told(Transition::Failed, failed("l", "boom")))
        .await
        .unwrap();
    assert_eq!(sink.created()[2].tenant, platform);
}

#[test]
fn what_is_no_pipeline_run_is_refused() {
    let sink = || Arc::new(ScriptedSink::new());
    let error = PipelineNotifier::new(sink(), json!({ "kind": "Pipeline" })).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let mut wrong = pipeline_run();
    wrong["spec"]["params"][0]["name"] = json!("summery");
    let error = PipelineNotifier::new(sink(), wrong).unwrap_err().to_string();
    assert!(error.contains("\"summery\"") && error.contains("summary"), "{error}");
}
