//! Runs that are no PipelineRuns.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::{Value, json};
use workflows_core::{
    CancelMode, ErrorKind, LogRef, Result, RunPhase, RunSink, RunStatus,
    conformance::ScriptedScm,
    engine::{Mutation, PlannedPipelineRun, RunMutator},
    repo::StatusState,
    sink::RunRequest,
};
use workflows_k8s::{Namespaces, RunKind, TektonSink};
use workflows_kube_standin::{Cluster, Resource, Subject};

use crate::{
    platform::{ACME, CONTROLLER, Platform, USER, workflow},
    world::{TEAM, World, request, sink_run, tenant},
};

/// A request for one task, as a TaskRun.
fn task_run(name: &str) -> RunRequest {
    of_kind(name, "tekton.dev/v1", "TaskRun", |spec| {
        *spec =
            json!({"taskSpec": {"steps": [{"name": "run", "image": "alpine", "script": "make"}]}});
    })
}

fn of_kind(name: &str, version: &str, kind: &str, change: impl FnOnce(&mut Value)) -> RunRequest {
    let mut request = request(name);
    let mut run = (*request.pipeline_run).clone();
    run["apiVersion"] = json!(version);
    run["kind"] = json!(kind);
    change(&mut run["spec"]);
    request.pipeline_run = run.into();
    request
}

fn task_runs() -> Resource {
    Resource::namespaced("tekton.dev", "v1", "TaskRun", "taskruns")
}

fn builds() -> Resource {
    Resource::namespaced("example.dev", "v1", "Build", "builds")
}

/// A world whose sink knows TaskRuns and Builds, which cannot do without a controller of their own.
async fn world() -> World {
    let mut world = World::stand_in("nothing executes a TaskRun or a Build by itself").await;
    world.cluster.install(builds());
    let build = RunKind::new("example.dev", "v1", "Build", "builds")
        .cancelled_by(json!({"spec": {"cancelled": true}}));
    world.sink = world.sink.kind(RunKind::task_run()).unwrap().kind(build).unwrap();
    world
}

/// What a controller writes into the status of an object.
async fn write_status(cluster: &Cluster, resource: &Resource, name: &str, status: Value) {
    let path = format!(
        "/apis/{}/{}/namespaces/{TEAM}/{}/{name}/status",
        resource.group, resource.version, resource.plural
    );
    let patch = json!({"status": status}).to_string().into_bytes();
    let request = http::Request::patch(path)
        .header("content-type", "application/merge-patch+json")
        .body(patch)
        .unwrap();
    cluster.client().request::<Value>(request).await.unwrap();
}

fn condition(status: &str, reason: &str, message: &str) -> Value {
    json!([{"type": "Succeeded", "status": status, "reason": reason, "message": message}])
}

#[tokio::test]
async fn a_task_run_is_made_once_followed_and_read() {
    let world = world().await;
    let sink = world.sink.clone().dashboard("https://tekton.example.com").unwrap();
    let ensured = sink.ensure(&task_run("ci-1")).await.unwrap();
    assert!(ensured.created);
    let link = "https://tekton.example.com/#/namespaces/team-a/taskruns/ci-1";
    assert_eq!(ensured.link.as_deref(), Some(link));
    assert!(!sink.ensure(&task_run("ci-1")).await.unwrap().created);
    assert_eq!(world.tekton.runs(), Vec::<Value>::new());
    let run = sink_run(&task_run("ci-1"), &ensured);
    assert_eq!(sink.state(&run).await.unwrap().phase, RunPhase::Pending);

    let mut status = json!({
        "conditions": condition("Unknown", "Running", "Not all Steps have finished"),
        "startTime": "2026-01-01T00:00:00Z", "podName": "ci-1-pod",
        "steps": [{"name": "run", "container": "step-run", "running": {}}],
    });
    write_status(&world.cluster, &task_runs(), "ci-1", status.clone()).await;
    assert_eq!(sink.state(&run).await.unwrap().phase, RunPhase::Running);
    // Its handle may have been lost.
    let mut without_handle = run.clone();
    without_handle.handle = None;
    assert_eq!(sink.state(&without_handle).await.unwrap().phase, RunPhase::Running);

    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ci-1-pod"},
        "spec": {"containers": []},
    });
    let pods = format!("/api/v1/namespaces/{TEAM}/pods");
    let made = http::Request::post(pods).header("content-type", "application/json");
    let made = made.body(pod.to_string().into_bytes()).unwrap();
    world.cluster.client().request::<Value>(made).await.unwrap();
    world.cluster.log(TEAM, "ci-1-pod", "step-run", "make: no rule\n");
    status["conditions"] = condition("False", "Failed", "\"step-run\" exited with code 2: Error");
    status["completionTime"] = json!("2026-01-01T00:01:00Z");
    status["steps"][0] =
        json!({"name": "run", "container": "step-run", "terminated": {"exitCode": 2}});
    write_status(&world.cluster, &task_runs(), "ci-1", status).await;
    let ended = sink.state(&run).await.unwrap();
    assert_eq!(ended.phase, RunPhase::Failed);
    assert_eq!(ended.message, "\"step-run\" exited with code 2: Error");
    assert_eq!(ended.tasks[0].steps[0].exit_code, Some(2));
    assert_eq!(ended.finished_at.unwrap().to_string(), "2026-01-01T00:01:00Z");
    let step = LogRef { task: ended.tasks[0].name.clone(), step: "run".into() };
    let log = sink.logs().unwrap().tail(&run, &step, 100).await.unwrap();
    assert_eq!(&log[..], b"make: no rule\n");
}

/// A real cluster has Tekton's controller; for the stand-in it is played, in the same words.
#[tokio::test]
async fn a_task_run_is_executed_by_tekton_and_ends_as_tekton_says() {
    let mut world = World::new().await;
    let is_played = std::env::var_os("WORKFLOWS_TEST_KUBECONFIG").is_none();
    world.sink = world.sink.kind(RunKind::task_run()).unwrap();
    for (name, timeout, reason, message, phase) in [
        ("ci-1", "1h", "TaskRunCancelled", "TaskRun \"ci-1\" was cancelled", RunPhase::Cancelled),
        ("ci-2", "1s", "TaskRunTimeout", "failed to finish within \"1s\"", RunPhase::TimedOut),
    ] {
        let mut wanted = task_run(name);
        let mut object = (*wanted.pipeline_run).clone();
        object["spec"]["timeout"] = json!(timeout);
        wanted.pipeline_run = object.into();
        let ensured = world.sink.ensure(&wanted).await.unwrap();
        assert!(ensured.created && !world.sink.ensure(&wanted).await.unwrap().created);
        let run = sink_run(&wanted, &ensured);
        assert!(!world.sink.state(&run).await.unwrap().phase.is_terminal());
        if phase == RunPhase::Cancelled {
            world.sink.cancel(&run, CancelMode::RunFinally).await.unwrap();
        }
        if is_played {
            let status = json!({"conditions": condition("False", reason, message)});
            write_status(&world.cluster, &task_runs(), name, status).await;
        }
        let ended = |cluster: &Cluster| {
            let object = cluster.object(&task_runs(), TEAM, name)?;
            let told = crate::platform::condition(&object, "Succeeded")?;
            (told["status"] == "False").then_some(told)
        };
        let told = world.cluster.until(&format!("{name} to end"), ended).await;
        assert_eq!(told["reason"], reason);
        let state = world.sink.state(&run).await.unwrap();
        assert_eq!(state.phase, phase);
        assert!(state.message.contains(message), "{}", state.message);
        world.sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
    }
}

#[tokio::test]
async fn each_kind_is_told_to_end_in_its_own_way() {
    let world = world().await;
    let spec = |resource: &Resource, name: &str| {
        world.cluster.object(resource, TEAM, name).unwrap()["spec"].clone()
    };
    let task = world.sink.ensure(&task_run("ci-1")).await.unwrap();
    let task = sink_run(&task_run("ci-1"), &task);
    world.sink.cancel(&task, CancelMode::RunFinally).await.unwrap();
    assert_eq!(spec(&task_runs(), "ci-1")["status"], "TaskRunCancelled");
    let cancelled = condition("False", "TaskRunCancelled", "TaskRun \"ci-1\" was cancelled");
    write_status(&world.cluster, &task_runs(), "ci-1", json!({"conditions": cancelled})).await;
    assert_eq!(world.sink.state(&task).await.unwrap().phase, RunPhase::Cancelled);
    let patches = world.requests("PATCH");
    world.sink.cancel(&task, CancelMode::AtOnce).await.unwrap();
    assert_eq!(world.requests("PATCH"), patches, "it has ended");

    let wanted = of_kind("ci-2", "example.dev/v1", "Build", |spec| *spec = json!({"image": "a"}));
    let build = world.sink.ensure(&wanted).await.unwrap();
    assert_eq!(build.link, None);
    let build = sink_run(&wanted, &build);
    world.sink.cancel(&build, CancelMode::AtOnce).await.unwrap();
    assert_eq!(spec(&builds(), "ci-2"), json!({"image": "a", "cancelled": true}));
    for (status, reason, phase) in [
        ("Unknown", "Anything", RunPhase::Running),
        ("True", "Anything", RunPhase::Succeeded),
        ("False", "TimedOut", RunPhase::TimedOut),
        ("False", "Anything", RunPhase::Failed),
    ] {
        let said = json!({"conditions": condition(status, reason, "")});
        write_status(&world.cluster, &builds(), "ci-2", said).await;
        assert_eq!(world.sink.state(&build).await.unwrap().phase, phase, "{status} {reason}");
    }
}

#[tokio::test]
async fn a_kind_without_a_way_to_end_says_so_and_may_read_its_outcome_itself() {
    let world = World::stand_in("nothing executes a Build").await;
    world.cluster.install(builds());
    let build = RunKind::new("example.dev", "v1", "Build", "builds").read_by(|object| {
        RunStatus::new(match object["status"]["phase"].as_str() {
            Some("done") => RunPhase::Succeeded,
            _ => RunPhase::Running,
        })
    });
    let sink = world.sink.clone().kind(build).unwrap();
    let wanted = of_kind("ci-1", "example.dev/v1", "Build", |_| {});
    let run = sink_run(&wanted, &sink.ensure(&wanted).await.unwrap());
    let error = sink.cancel(&run, CancelMode::AtOnce).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    write_status(&world.cluster, &builds(), "ci-1", json!({"phase": "done"})).await;
    assert_eq!(sink.state(&run).await.unwrap().phase, RunPhase::Succeeded);
    sink.cancel(&run, CancelMode::AtOnce).await.unwrap();
}

#[tokio::test]
async fn kinds_that_the_sink_was_not_told_of_are_refused() {
    let world = world().await;
    let unknown = of_kind("ci-1", "batch/v1", "Job", |_| {});
    let error = world.sink.ensure(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.to_string(),
        "create a run: the sink makes no \"batch/v1\" \"Job\"; it makes: tekton.dev/v1 PipelineRun, \
         tekton.dev/v1 TaskRun, example.dev/v1 Build"
    );
    let plain = TektonSink::new(world.cluster.client(), Namespaces::same_name());
    let error = plain.ensure(&task_run("ci-1")).await.unwrap_err();
    assert!(error.to_string().ends_with("it makes: tekton.dev/v1 PipelineRun"), "{error}");
    let twice = world.sink.clone().kind(RunKind::task_run()).unwrap_err();
    assert!(twice.to_string().contains("TaskRun is known already"), "{twice}");
    assert_eq!(world.cluster.requests(), []);
}

#[tokio::test]
async fn all_kinds_are_watched_and_found_again_and_children_are_not() {
    let world = world().await;
    let mut changes = world.sink.changes().unwrap();
    let pipeline = world.sink.ensure(&request("ci-1")).await.unwrap();
    world.tekton.start(TEAM, "ci-1");
    world.sink.ensure(&task_run("ci-2")).await.unwrap();
    let build = of_kind("ci-3", "example.dev/v1", "Build", |_| {});
    world.sink.ensure(&build).await.unwrap();
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 3 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), changes.next());
        told.insert(next.await.expect("all of them change").unwrap().key);
    }
    let existing: Vec<_> = world.sink.existing().map(|one| one.unwrap()).collect().await;
    let mut found: Vec<_> = existing
        .iter()
        .map(|one| {
            let run = &one.pipeline_run;
            (run["metadata"]["name"].as_str().unwrap(), run["kind"].as_str().unwrap())
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("ci-1", "PipelineRun"), ("ci-2", "TaskRun"), ("ci-3", "Build")]);
    let of_pipeline = existing.iter().find(|one| one.pipeline_run["kind"] == "PipelineRun");
    assert_eq!(of_pipeline.unwrap().handle, pipeline.handle);
    assert_eq!(tenant().as_str(), TEAM);
}

/// Makes a TaskRun of a pipeline of one task.
#[derive(Debug)]
struct OneTask;

#[async_trait]
impl RunMutator for OneTask {
    async fn mutate(&self, run: &mut PlannedPipelineRun<'_>) -> Result<Mutation> {
        let tasks = run.pipeline_run["spec"]["pipelineSpec"]["tasks"].take();
        if let Some([task]) = tasks.as_array().map(Vec::as_slice) {
            run.pipeline_run["kind"] = json!("TaskRun");
            let account = run.pipeline_run["spec"]["taskRunTemplate"]["serviceAccountName"].take();
            let mut spec = json!({"taskSpec": task["taskSpec"]});
            if account.is_string() {
                spec["serviceAccountName"] = account;
            }
            run.pipeline_run["spec"] = spec;
        } else {
            run.pipeline_run["spec"]["pipelineSpec"]["tasks"] = tasks;
        }
        Ok(Mutation::Proceed)
    }
}

#[tokio::test]
async fn from_an_event_to_a_task_run_and_back_and_a_policy_is_asked() {
    let cluster = Cluster::stand_in("nothing executes a TaskRun by itself").await;
    let (cluster, tekton) = Platform::prepared(cluster).await;
    let may = json!({
        "apiGroups": ["tekton.dev"], "resources": ["taskruns"],
        "verbs": ["get", "list", "watch", "create", "patch"],
    });
    cluster.bind(Subject::User(USER.to_owned()), None, &[may]);
    let client = cluster.client_with(CONTROLLER);
    let sink = TektonSink::new(client, Namespaces::same_name()).kind(RunKind::task_run()).unwrap();
    let scm = ScriptedScm::new().under(tenant(), ACME);
    let platform = Platform::with(
        cluster,
        tekton,
        scm,
        |all| all,
        |engine| engine.sink("tekton", Arc::new(sink)).mutator(Arc::new(OneTask)),
    )
    .await;
    let repo = platform.scm.create("acme/api");
    platform.connect(|_| {}).await;
    let policy = json!({
        "apiVersion": "workflows.tekton.dev/v1alpha1", "kind": "Policy",
        "metadata": {"name": "granted"},
        "spec": {"registered": {"serviceAccounts": ["ci"]}, "limits": {"timeout": "1h"}},
    });
    platform.apply("policies", &policy).await;
    platform.ready("Policy", "granted", "InForce").await;
    for (name, account) in [("ci", "ci"), ("mighty", "admin")] {
        let one = workflow(name, |spec| spec["serviceAccountName"] = json!(account));
        platform.apply("workflows", &one).await;
        platform.ready("Workflow", name, "Registered").await;
    }
    platform.hears(repo.push("alice", "main", &[("a", "1")])).await;
    let head = repo.head("main");
    let refused =
        crate::controller::wait_for_status(&platform, &repo, &head, "workflows/mighty").await;
    assert!(refused.1.contains("the service account \"admin\""), "{}", refused.1);
    let made = platform
        .cluster
        .until("a TaskRun", |cluster| cluster.objects(&task_runs()).into_iter().next())
        .await;
    assert_eq!(made["metadata"]["labels"]["workflows.tekton.dev/workflow"], "ci");
    let name = made["metadata"]["name"].as_str().unwrap();
    let status = json!({"conditions": condition("True", "Succeeded", "")});
    write_status(&platform.cluster, &task_runs(), name, status).await;
    let (state, _) =
        crate::controller::wait_for_status(&platform, &repo, &head, "workflows/ci").await;
    assert_eq!(state, StatusState::Success);
    assert_eq!(platform.tekton.runs().len(), 0);
    assert_eq!(platform.cluster.objects(&task_runs()).len(), 1);
    platform.stop().await;
}
