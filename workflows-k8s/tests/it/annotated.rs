//! Runs that Workflows did not create, and what their commits show.

use std::{sync::Arc, time::Duration};

use kube::{
    Api,
    api::{ApiResource, DynamicObject, PostParams},
    core::GroupVersionKind,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    conformance::{ScmCall, ScriptedRepo, ScriptedScm},
    repo::StatusState,
};
use workflows_k8s::AnnotatedRuns;
use workflows_notify::StatusNotifier;

use crate::world::{TEAM, World, request};

struct Watched {
    world: World,
    scm: ScriptedScm,
    repo: ScriptedRepo,
}

impl Watched {
    async fn new() -> Self {
        let scm = ScriptedScm::new();
        let repo = scm.create("acme/api");
        repo.push("alice", "main", &[("a", "1")]);
        Self { world: World::new().await, scm, repo }
    }

    /// Begins to tell, until the token is cancelled.
    fn tell(&self) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let notifier = StatusNotifier::new(Arc::new(self.scm.clone()), self.scm.connection(), "ci");
        let runs = AnnotatedRuns::of(self.world.sink.clone());
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let told = tokio::spawn(async move { runs.tell(Arc::new(notifier), until).await });
        (shutdown, told)
    }

    async fn create(&self, name: &str, annotations: Value) {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("tekton.dev", "v1", "PipelineRun"));
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.world.cluster.client(), TEAM, &kind);
        let step = json!({"name": "compile", "image": "rust", "script": "make"});
        let task = json!({"name": "build", "taskSpec": {"steps": [step]}});
        let run: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"pipelineSpec": {"tasks": [task]}},
        }))
        .unwrap();
        api.create(&PostParams::default(), &run).await.unwrap();
    }

    fn annotations(&self, context: &str) -> Value {
        json!({
            "tekton.dev/git-status": "true",
            "tekton.dev/git-repo": "https://git.example.com/acme/api.git",
            "tekton.dev/git-revision": self.repo.head("main").as_str(),
            "tekton.dev/status-context": context,
            "tekton.dev/status-target-url": "https://tekton.example.com/{{.Namespace}}/{{.Name}}",
        })
    }

    /// Waits until the commit shows that.
    async fn shows(&self, context: &str, state: StatusState) {
        let commit = self.repo.head("main");
        let seen = async {
            while self.repo.status(&commit, context).map(|status| status.state) != Some(state) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(30), seen).await;
        assert!(waited.is_ok(), "{context}: {:?}", self.repo.status(&commit, context));
    }
}

#[tokio::test]
async fn a_run_of_somebody_else_shows_on_its_commit_because_its_annotations_ask_for_it() {
    let watched = Watched::new().await;
    let commit = watched.repo.head("main");
    let (shutdown, told) = watched.tell();
    watched.create("theirs", watched.annotations("release")).await;
    watched.create("silent", json!({})).await;
    watched.world.tekton.start(TEAM, "theirs");
    watched.shows("ci/release", StatusState::InProgress).await;

    // Two runs of one commit show beside each other.
    watched.create("other", watched.annotations("lint")).await;
    watched.world.tekton.start(TEAM, "other");
    watched.world.tekton.finish(TEAM, "other", true);
    watched.shows("ci/lint", StatusState::Success).await;

    watched.world.tekton.end_step(TEAM, "theirs", "build", "compile", 1, "");
    watched.world.tekton.finish(TEAM, "theirs", false);
    watched.shows("ci/release", StatusState::Failure).await;
    let status = watched.repo.status(&commit, "ci/release").unwrap();
    assert_eq!(status.link.as_deref(), Some("https://tekton.example.com/team-a/theirs"));
    assert_eq!(watched.repo.status_contexts(&commit).len(), 2, "the others asked for none");
    shutdown.cancel();
    told.await.unwrap();
}

#[tokio::test]
async fn the_engine_s_own_runs_are_left_to_the_engine() {
    let watched = Watched::new().await;
    let mut own = request("ci-1");
    let mut run = (*own.pipeline_run).clone();
    for (name, value) in watched.annotations("own").as_object().unwrap() {
        run["metadata"]["annotations"][name] = value.clone();
    }
    own.pipeline_run = run.into();
    workflows_core::RunSink::ensure(&watched.world.sink, &own).await.unwrap();
    watched.world.tekton.start(TEAM, "ci-1");
    watched.create("theirs", watched.annotations("release")).await;
    watched.world.tekton.start(TEAM, "theirs");
    let (shutdown, told) = watched.tell();
    watched.shows("ci/release", StatusState::InProgress).await;
    let commit = watched.repo.head("main");
    assert!(watched.repo.status(&commit, "ci/own").is_none());
    shutdown.cancel();
    told.await.unwrap();
}

#[tokio::test]
async fn after_a_restart_what_ended_meanwhile_is_told_and_nothing_is_shown_twice() {
    let watched = Watched::new().await;
    watched.create("theirs", watched.annotations("release")).await;
    watched.world.tekton.start(TEAM, "theirs");
    let (shutdown, told) = watched.tell();
    watched.shows("ci/release", StatusState::InProgress).await;
    shutdown.cancel();
    told.await.unwrap();

    watched.world.tekton.finish(TEAM, "theirs", true);
    // A host that fails at first is asked again.
    watched.scm.fail_next(ScmCall::ReportStatus, workflows_core::ErrorKind::Transient, "busy");
    let (shutdown, told) = watched.tell();
    watched.shows("ci/release", StatusState::Success).await;
    assert_eq!(watched.repo.status_contexts(&watched.repo.head("main")).len(), 1);
    shutdown.cancel();
    told.await.unwrap();
}
