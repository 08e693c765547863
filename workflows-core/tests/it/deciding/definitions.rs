//! Where workflows come from, and what is told when they are wrong.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use workflows_core::{
    EventKind, EventSource, Result, SourceName, Tenant,
    conformance::ScmCall,
    engine::ConnectionOptions,
    repo::StatusState,
    source::{Interests, SourceContext},
    store::Outcome,
};

use super::world::{CI, World, registered, workflow};

const DEFINITIONS: &str = "workflows/definitions";

#[tokio::test]
async fn a_push_runs_what_its_own_commit_defines() {
    let world = World::with(CI);
    let added = workflow("added", "\n  triggers: [{ name: push, on: push }]");
    world.hears(world.repo.push("alice", "feature", &[(".tekton/added.yaml", &added)])).await;
    let head = world.repo.head("feature");
    assert_eq!(world.run_names().await, [format!("added/push@{}", head.short())]);
    let run = world.runs().await.remove(0);
    assert_eq!(run.origin.commit, Some(head));
    assert_eq!(run.origin.path.as_deref(), Some(".tekton/added.yaml"));
    assert_eq!(run.origin.digest.len(), 64);
}

#[tokio::test]
async fn a_file_that_does_not_load_is_told_once_with_its_place_and_stops_no_other() {
    let world = World::with(CI);
    let broken = "apiVersion: workflows.tekton.dev/v1alpha1\nkind: Workflow\nmetadata: { name: x \
                  }\nspec:\n  trigers: []\n";
    world.hears(world.repo.push("alice", "main", &[(".tekton/broken.yaml", broken)])).await;
    let head = world.repo.head("main");
    assert_eq!(world.runs().await.len(), 1, "the workflow beside it runs");
    let status = world.status(&head, DEFINITIONS);
    assert_eq!(status.state, StatusState::Failure);
    assert!(status.summary.contains(".tekton/broken.yaml:5"), "{}", status.summary);
    assert!(status.summary.contains("triggers"), "{}", status.summary);
    assert_eq!(world.repo.status_history(&head, DEFINITIONS).len(), 1);

    let mended = workflow("x", "\n  triggers: [{ name: push, on: push }]");
    world.hears(world.repo.push("alice", "main", &[(".tekton/broken.yaml", &mended)])).await;
    let head = world.repo.head("main");
    assert_eq!(world.shows(&head, DEFINITIONS), Some(StatusState::Success));
    world.hears(world.repo.push("alice", "main", &[("README.md", "more")])).await;
    assert_eq!(world.shows(&world.repo.head("main"), DEFINITIONS), None);
}

#[tokio::test]
async fn a_registered_workflow_overrules_the_repositorys_of_that_name_and_the_conflict_is_told() {
    let ours = workflow(
        "ci",
        "\n  repos: [{ name: code, connection: scm, repo: acme/* }]\n  triggers: [{ name: ours, \
         on: push }]",
    );
    let world = World::built(CI, ConnectionOptions::default(), |builder| {
        builder.workflow(registered(&ours))
    });
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let head = world.repo.head("main");
    assert_eq!(world.run_names().await, [format!("ci/ours@{}", head.short())]);
    assert_eq!(world.runs().await[0].workflow.repo, None);
    let status = world.status(&head, DEFINITIONS);
    assert_eq!(status.state, StatusState::Neutral);
    assert!(status.summary.contains(".tekton/ci.yaml"), "{}", status.summary);
}

#[tokio::test]
async fn a_registered_workflow_for_another_repository_overrules_nothing() {
    let ours = workflow(
        "ci",
        "\n  repos: [{ name: code, connection: scm, repo: acme/web }]\n  triggers: [{ name: ours, \
         on: push }]",
    );
    let world = World::built(CI, ConnectionOptions::default(), |builder| {
        builder.workflow(registered(&ours))
    });
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let head = world.repo.head("main");
    assert_eq!(world.run_names().await, [format!("ci/push@{}", head.short())]);
}

#[tokio::test]
async fn a_connection_can_say_that_its_repositories_define_nothing() {
    let world = World::built(CI, ConnectionOptions::registered_only(), |builder| builder);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    assert!(world.runs().await.is_empty());
    assert!(world.scm.all_calls().is_empty(), "{:?}", world.scm.all_calls());
}

#[tokio::test]
async fn a_directory_is_read_once_for_its_content() {
    let world = World::with(CI);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    assert_eq!(world.scm.calls(ScmCall::ReadFile), 1);
    world.hears(world.repo.push("alice", "main", &[("a", "2")])).await;
    assert_eq!(world.scm.calls(ScmCall::ReadFile), 1, "the directory is the same");
    assert_eq!(world.scm.calls(ScmCall::ListDirectory), 2);
    world.repo.push("alice", "feature", &[]);
    world.scm.forget_calls();
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    world.hears(world.repo.label("alice", number, "bug")).await;
    assert_eq!(world.scm.calls(ScmCall::ListDirectory), 1, "what a commit holds is kept");
}

#[tokio::test]
async fn a_pipeline_of_a_file_runs_with_the_tasks_of_its_directory() {
    let ci = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  triggers: [{ name: push, on: push }]
  pipelineRef: { path: build/pipeline.yaml }
";
    let pipeline = "
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: { name: build }
spec: { tasks: [{ name: compile, taskRef: { name: compile } }] }
";
    let task = "
apiVersion: tekton.dev/v1
kind: Task
metadata: { name: compile }
spec: { steps: [{ name: make, image: alpine, script: make }] }
";
    let world = World::with(ci);
    let files = [("build/pipeline.yaml", pipeline), ("build/task.yaml", task)];
    world.hears(world.repo.push("alice", "main", &files)).await;
    let run = world.runs().await.remove(0);
    let tasks = &run.pipeline_run["spec"]["pipelineSpec"]["tasks"];
    assert_eq!(tasks[0]["taskSpec"]["steps"][0]["script"], "make", "{tasks}");

    let gone = world.repo.push("alice", "main", &[("build/pipeline.yaml", "")]);
    let event = world.hears(gone).await.unwrap();
    assert!(matches!(
        world.outcome(&event, "push").await,
        Outcome::Failed { filter, error }
            if filter == "pipelineRef" && error.contains("build/pipeline.yaml")
    ));
    let status = world.status(&world.repo.head("main"), "workflows/ci");
    assert_eq!(status.state, StatusState::Failure);
}

#[tokio::test]
async fn a_document_can_refer_to_another_repository() {
    let ci = workflow(
        "ci",
        "\n  repos: [{ name: config, connection: scm, repo: acme/config, ref: main }]\n  \
         triggers: [{ name: push, on: push }]\n  params:\n  - { name: config, value: \
         $(repos.config.revision) }\n  - { name: code, value: $(repos.self.url) }",
    );
    let world = World::with(&ci);
    let config = world.scm.create("acme/config");
    config.push("alice", "main", &[("x", "1")]);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let run = world.runs().await.remove(0);
    assert_eq!(super::world::param(&run, "config"), config.head("main").as_str());
    assert_eq!(super::world::param(&run, "code"), "https://scripted.example/acme/api.git");
}

/// A source that hands on what it is told to look at.
#[derive(Debug)]
struct Looker(Mutex<Option<oneshot::Sender<watch::Receiver<Arc<Interests>>>>>);

#[async_trait]
impl EventSource for Looker {
    fn name(&self) -> SourceName {
        SourceName::new("looker")
    }

    async fn run(&self, context: SourceContext, shutdown: CancellationToken) -> Result<()> {
        let told = self.0.lock().unwrap().take();
        let _ = told.expect("it runs once").send(context.interests);
        shutdown.cancelled().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_repository_is_looked_at_as_far_as_it_may_define_what_runs_and_no_further() {
    let ci = workflow(
        "ours",
        "\n  repos: [{ name: code, connection: scm, repo: acme/api }]\n  triggers: [{ name: p, on: \
         push, branches: [main] }]",
    );
    let (told, interests) = oneshot::channel();
    let looker = Arc::new(Looker(Mutex::new(Some(told))));
    let world = World::built(CI, ConnectionOptions::default(), |builder| {
        builder.workflow(registered(&ci)).source(looker)
    });
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (engine, shutdown) = (world.engine.clone(), shutdown.clone());
        async move { engine.run(shutdown).await }
    });
    let mut interests = interests.await.unwrap();
    let looked_at = |interests: &mut watch::Receiver<Arc<Interests>>| {
        let all = Arc::clone(&interests.borrow_and_update());
        let [one] = all.repos.iter().collect::<Vec<_>>()[..] else { panic!("{all:?}") };
        let prefixes: Vec<String> = one.ref_prefixes.iter().map(ToString::to_string).collect();
        (
            prefixes.join(" "),
            one.kinds.iter().map(EventKind::to_string).collect::<Vec<_>>().join(" "),
        )
    };
    // Registered workflows alone: exactly what they name.
    assert_eq!(looked_at(&mut interests), ("refs/heads/main".to_owned(), "push".to_owned()));
    // The repository defines its own: any branch or tag may, whatever stands on main.
    let handle = world.engine.handle();
    let connection = world.scm.connection();
    handle.watch_repository(&Tenant::default(), &connection, "acme/api").await.unwrap();
    assert_eq!(
        looked_at(&mut interests),
        ("refs/heads/ refs/tags/".to_owned(), "pull_request push tag".to_owned())
    );
    shutdown.cancel();
    running.await.unwrap();
}
