//! What becomes of a run in the cluster.

use futures::StreamExt;
use serde_json::json;
use workflows_core::{
    CancelMode, ErrorKind, LogRef, RunPhase, RunSink,
    sink::{LogSource, RunRequest, TaskPhase},
};
use workflows_k8s::{Namespaces, TektonSink};
use workflows_kube_standin::{Fault, Refusal};

use crate::world::{TEAM, World, key, request, sink_run};

#[tokio::test]
async fn a_run_is_created_with_its_identity_and_without_an_owner() {
    let world = World::new().await;
    let ensured = world.sink.ensure(&request("ci-1")).await.unwrap();
    assert!(ensured.created);
    assert_eq!(ensured.link, None);
    let run = world.run("ci-1");
    assert_eq!(
        run["metadata"]["annotations"]["workflows.tekton.dev/run-key"],
        key("ci-1").as_str()
    );
    assert_eq!(
        run["metadata"]["annotations"]["results.tekton.dev/recordSummaryAnnotations"],
        "{\"repo\":\"git.example.com/acme/api\"}"
    );
    assert_eq!(run["metadata"]["labels"]["workflows.tekton.dev/run"], key("ci-1").as_str()[..40]);
    assert!(run["metadata"].get("ownerReferences").is_none());
    assert_eq!(world.requests("POST"), 1, "nothing else was asked for");
}

#[tokio::test]
async fn a_dashboard_is_linked() {
    let world = World::new().await;
    let sink = world.sink.clone().dashboard("https://tekton.example.com/").unwrap();
    let ensured = sink.ensure(&request("ci-1")).await.unwrap();
    let link = "https://tekton.example.com/#/namespaces/team-a/pipelineruns/ci-1";
    assert_eq!(ensured.link.as_deref(), Some(link));
    let error = world.sink.clone().dashboard("javascript:alert(1)").unwrap_err();
    assert_eq!(
        error.to_string(),
        "set up the Tekton sink: the dashboard's address must begin with https:// or http:// \
         (address: \"javascript:alert(1)\")"
    );
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_run() {
    let world = World::new().await;
    world.cluster.fail("POST", 1, Fault::AnswerLost);
    let error = world.sink.ensure(&request("ci-1")).await.unwrap_err();
    assert!(error.kind().is_retryable(), "{error}");
    let again = world.sink.ensure(&request("ci-1")).await.unwrap();
    assert!(!again.created);
    assert_eq!(world.tekton.runs().len(), 1);
}

#[tokio::test]
async fn a_run_of_somebody_else_is_left_alone() {
    let world = World::new().await;
    let other = request("ci-1");
    world.sink.ensure(&other).await.unwrap();
    let mut mine = request("ci-2");
    mine.name = "ci-1".into();
    let mut pipeline_run = (*mine.pipeline_run).clone();
    pipeline_run["metadata"]["name"] = "ci-1".into();
    mine.pipeline_run = pipeline_run.into();

    let error = world.sink.ensure(&mine).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "create a run: there is a PipelineRun of that name which is not this run's; remove it, and \
         run again (namespace: team-a, name: ci-1)"
    );
    let run = workflows_core::sink::SinkRun {
        key: mine.key.clone(),
        tenant: mine.tenant.clone(),
        name: mine.name.clone(),
        handle: None,
    };
    world.sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
    assert!(world.run("ci-1")["spec"].get("status").is_none(), "it was not told to end");
    let state = world.sink.state(&run).await.unwrap_err();
    assert_eq!(state.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn tasks_steps_and_logs_are_seen() {
    let world = World::new().await;
    let ensured = world.sink.ensure(&request("ci-1")).await.unwrap();
    let run = sink_run(&request("ci-1"), &ensured);
    assert_eq!(world.sink.state(&run).await.unwrap().phase, RunPhase::Pending);

    world.tekton.start(TEAM, "ci-1");
    let status = world.sink.state(&run).await.unwrap();
    assert_eq!(status.phase, RunPhase::Running);
    assert_eq!(status.tasks.len(), 2);

    world.tekton.end_step(TEAM, "ci-1", "build", "compile", 0, "compiled\n");
    world.tekton.end_step(TEAM, "ci-1", "test", "run", 3, "one\ntwo\nthree\n");
    world.tekton.finish(TEAM, "ci-1", false);
    let status = world.sink.state(&run).await.unwrap();
    assert_eq!(status.phase, RunPhase::Failed);
    let test = status.tasks.iter().find(|task| &*task.name == "test").unwrap();
    assert_eq!(test.phase, TaskPhase::Failed);
    assert_eq!(test.steps[0].exit_code, Some(3));
    assert_eq!(test.message, "\"step-run\" exited with code 3: Error");

    let step = LogRef { task: "test".into(), step: "run".into() };
    let logs = world.sink.logs().unwrap();
    assert_eq!(&logs.tail(&run, &step, 10).await.unwrap()[..], b"two\nthree\n");
    let whole: Vec<u8> = LogSource::stream(&world.sink, &run, &step, false)
        .map(|chunk| chunk.unwrap())
        .fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            all
        })
        .await;
    assert_eq!(whole, b"one\ntwo\nthree\n");
    let nowhere = LogRef { task: "test".into(), step: "nope".into() };
    let error = logs.tail(&run, &nowhere, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_run_that_was_deleted_and_made_anew_is_another_one() {
    let world = World::new().await;
    let ensured = world.sink.ensure(&request("ci-1")).await.unwrap();
    let run = sink_run(&request("ci-1"), &ensured);
    let client = world.cluster.client();
    let runs: kube::Api<kube::core::DynamicObject> = kube::Api::namespaced_with(
        client,
        TEAM,
        &kube::core::ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(
            "tekton.dev",
            "v1",
            "PipelineRun",
        )),
    );
    runs.delete("ci-1", &Default::default()).await.unwrap();
    assert_eq!(world.sink.state(&run).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.sink.ensure(&request("ci-1")).await.unwrap();
    assert_eq!(world.sink.state(&run).await.unwrap_err().kind(), ErrorKind::NotFound);
    world.sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
    assert!(world.run("ci-1")["spec"].get("status").is_none());
}

/// A request for a run whose second task waits for the first, and which does something at its end.
fn with_finally(name: &str) -> RunRequest {
    let mut request = request(name);
    let mut run = (*request.pipeline_run).clone();
    run["spec"]["pipelineSpec"]["tasks"][1]["runAfter"] = json!(["build"]);
    run["spec"]["pipelineSpec"]["finally"] = json!([
        {"name": "tell", "taskSpec": {"steps": [{"name": "run", "image": "rust", "script": "true"}]}},
    ]);
    request.pipeline_run = run.into();
    request
}

#[tokio::test]
async fn each_way_to_cancel_is_tektons_own_and_a_weaker_one_changes_nothing() {
    let world = World::new().await;
    let request = with_finally("ci-1");
    let ensured = world.sink.ensure(&request).await.unwrap();
    let run = sink_run(&request, &ensured);
    world.tekton.start(TEAM, "ci-1");
    let asked = || world.run("ci-1")["spec"]["status"].as_str().unwrap_or_default().to_owned();
    for (mode, status) in [
        (CancelMode::AfterRunningTasks, "StoppedRunFinally"),
        (CancelMode::RunFinally, "CancelledRunFinally"),
        (CancelMode::AfterRunningTasks, "CancelledRunFinally"),
        (CancelMode::AtOnce, "Cancelled"),
        (CancelMode::RunFinally, "Cancelled"),
    ] {
        world.sink.cancel(&run, mode).await.unwrap();
        assert_eq!(asked(), status, "{mode:?}");
    }
}

#[tokio::test]
async fn each_way_to_cancel_ends_a_run_that_is_under_way() {
    let world = World::new().await;
    for (name, mode) in [
        ("ci-1", CancelMode::AfterRunningTasks),
        ("ci-2", CancelMode::RunFinally),
        ("ci-3", CancelMode::AtOnce),
    ] {
        let request = with_finally(name);
        let ensured = world.sink.ensure(&request).await.unwrap();
        world.tekton.start(TEAM, name);
        let run = sink_run(&request, &ensured);
        world.sink.cancel(&run, mode).await.unwrap();
        world.tekton.obey();
        let status = world.sink.state(&run).await.unwrap();
        assert_eq!(status.phase, RunPhase::Cancelled, "{mode:?}: {}", status.message);
        assert!(status.finished_at.is_some());
    }
}

#[tokio::test]
async fn a_run_that_ends_while_it_is_told_to_is_left_as_it_ended() {
    let world = World::new().await;
    let ensured = world.sink.ensure(&request("ci-1")).await.unwrap();
    let run = sink_run(&request("ci-1"), &ensured);
    // It has ended between the read and the patch: Tekton refuses the patch.
    let over = "validation failed: invalid value: Once the PipelineRun is complete, no updates are \
                allowed: spec";
    let refusal = Refusal::denied("validation.webhook.pipeline.tekton.dev", over);
    world.cluster.fail("PATCH", 1, Fault::Refused(refusal));
    world.sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
    assert_eq!(world.requests("PATCH"), 1);
}

#[tokio::test]
async fn a_conflict_is_read_and_decided_again() {
    let world = World::new().await;
    let ensured = world.sink.ensure(&request("ci-1")).await.unwrap();
    let run = sink_run(&request("ci-1"), &ensured);
    // Nobody else writes to one whose steps are running.
    world.tekton.start(TEAM, "ci-1");
    let modified = Refusal::new(409, "Conflict", "the object has been modified", json!({}));
    world.cluster.fail("PATCH", 2, Fault::Refused(modified.clone()));
    world.sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
    assert_eq!(world.requests("PATCH"), 3);
    world.sink.ensure(&request("ci-2")).await.unwrap();
    let other = workflows_core::sink::SinkRun {
        key: key("ci-2"),
        tenant: run.tenant.clone(),
        name: "ci-2".into(),
        handle: None,
    };
    world.cluster.fail("PATCH", 100, Fault::Refused(modified));
    let error = world.sink.cancel(&other, CancelMode::AtOnce).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn changes_go_on_after_the_server_forgot_where_they_were() {
    let world = World::stand_in("the server forgets at once").await;
    let mut changes = world.sink.changes().unwrap();
    world.sink.ensure(&request("ci-1")).await.unwrap();
    assert_eq!(changes.next().await.unwrap().key, key("ci-1"));
    world.cluster.compact();
    world.sink.ensure(&request("ci-2")).await.unwrap();
    loop {
        let change = changes.next().await.unwrap();
        assert_eq!(change.tenant.as_str(), TEAM);
        if change.key == key("ci-2") {
            break;
        }
    }
}

#[tokio::test]
async fn runs_of_others_are_not_told() {
    let world = World::new().await;
    let mut changes = world.sink.changes().unwrap();
    let client = world.cluster.client();
    let foreign = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "theirs"},
        "spec": {"pipelineRef": {"name": "x"}},
    });
    let request_to = http::Request::post("/apis/tekton.dev/v1/namespaces/team-a/pipelineruns")
        .header("content-type", "application/json")
        .body(foreign.to_string().into_bytes())
        .unwrap();
    client.request::<serde_json::Value>(request_to).await.unwrap();
    world.sink.ensure(&request("ci-1")).await.unwrap();
    assert_eq!(changes.next().await.unwrap().key, key("ci-1"));
}

#[tokio::test]
async fn tenants_can_share_a_namespace() {
    let world = World::new().await;
    world.cluster.namespace("shared");
    let sink = TektonSink::new(world.cluster.client(), Namespaces::one("shared"));
    sink.ensure(&request("ci-1")).await.unwrap();
    assert!(world.tekton.run("shared", "ci-1").is_some());
    assert!(world.tekton.run(TEAM, "ci-1").is_none());
}

#[tokio::test]
async fn a_notification_can_be_a_pipeline_run_in_the_platforms_namespace() {
    use workflows_core::{DeliveryKey, NotificationView, Notifier, Tenant};
    let world = World::new().await;
    world.cluster.namespace("platform");
    let mail = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "spec": {
            "pipelineRef": {"name": "mail"},
            "params": [{"name": "summary", "value": ""}, {"name": "workflow", "value": ""}],
        },
    });
    let notifier =
        workflows_notify::PipelineNotifier::new(std::sync::Arc::new(world.sink.clone()), mail)
            .unwrap()
            .in_tenant(Tenant::new("platform").unwrap());
    let sample = NotificationView::sample("one", workflows_core::Clock::now(&*world.clock));
    let first = notifier.deliver(&sample).await.unwrap();
    assert_eq!(notifier.deliver(&sample).await.unwrap(), first);
    let mut other = sample;
    other.key = DeliveryKey::new("another");
    assert_ne!(notifier.deliver(&other).await.unwrap(), first);
    let runs = world.tekton.runs();
    assert_eq!(runs.len(), 2);
    for run in &runs {
        assert_eq!(run["metadata"]["namespace"], "platform");
        assert_eq!(run["spec"]["params"][1]["value"], "sample");
    }
}
