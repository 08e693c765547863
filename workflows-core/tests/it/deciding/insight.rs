//! Asking why, and what if.

use std::sync::Arc;

use workflows_core::{
    ErrorKind, Tenant,
    engine::{ConnectionOptions, SimulationRequest, simulate},
    store::{EventQuery, Outcome},
};

use super::world::{CI, World, param, registered, workflow};

const PUSH: &str = "\n  repos: [{ name: code, connection: scm, repo: acme/* }]\n  triggers: [{ \
                    name: push, on: push, branches: [main] }]\n  params: [{ name: revision, \
                    value: $(event.head.sha) }]";

#[tokio::test]
async fn an_explanation_of_an_event_tells_why_each_trigger_ran_or_did_not() {
    let other =
        workflow("docs", "\n  triggers: [{ name: d, on: push, paths: { include: ['docs/**'] } }]");
    let world = World::with(&format!("{CI}\n---\n{other}"));
    let pushed = world.repo.push("alice", "main", &[("a", "1")]);
    let mut redelivered = pushed.clone();
    redelivered.delivery = "again".into();
    let event = world.hears(pushed).await.unwrap();
    world.hears(redelivered).await;

    let handle = world.engine.handle();
    let explanation = handle.explain_event(&Tenant::default(), &event.key).await.unwrap();
    let text = explanation.to_string();
    let key = event.key.to_string();
    assert!(
        text.starts_with(&format!("event {key}\n")) && text.matches(&key).count() == 1,
        "{text}"
    );
    let taken_in = "by alice at acme/api, taken in at 2026-03-01T12:00:00Z from ";
    assert!(text.contains(&format!("push (updated) {taken_in}")), "{text}");
    assert!(text.contains("a duplicate: the subject is already recorded in this state"), "{text}");
    assert!(text.contains("    ci/push: runs, as "), "{text}");
    assert!(text.contains("    docs/d: no: paths wants "), "{text}");
    assert!(text.contains("status workflows/ci on "), "{text}");
    let run = &world.runs().await[0];
    assert!(explanation.run(&run.key).is_some());

    let json = serde_json::to_string(&explanation).unwrap();
    assert_eq!(
        serde_json::from_str::<workflows_core::engine::Explanation>(&json).unwrap(),
        explanation
    );
}

#[tokio::test]
async fn an_explanation_lists_one_by_one_what_the_index_ruled_out_together() {
    let triggers: String =
        (0..40).map(|n| format!("\n  - {{ name: t{n}, on: push, branches: [b{n}] }}")).collect();
    let world = World::with(&workflow("many", &format!("\n  triggers:{triggers}")));
    let event = world.hears(world.repo.push("alice", "b7", &[("a", "1")])).await.unwrap();
    let batch = world.batches(&event.key).await.pop().unwrap();
    assert!(!batch.guards.is_empty() && batch.decisions.len() < 40, "{}", batch.decisions.len());
    let handle = world.engine.handle();
    let explanation = handle.explain_event(&Tenant::default(), &event.key).await.unwrap();
    let decisions = &explanation.events[0].decided[0].decisions;
    assert_eq!(decisions.len(), 40);
    let ran =
        |one: &&workflows_core::store::Decision| matches!(one.outcome, Outcome::Matched { .. });
    assert_eq!(decisions.iter().filter(ran).count(), 1);
}

#[tokio::test]
async fn a_commit_that_nobody_heard_of_has_an_explanation_too() {
    let world = World::with(CI);
    let handle = world.engine.handle();
    let head = world.repo.head("main");
    let repo = world.repo.reference().id;
    let nothing = handle.explain_commit(&Tenant::default(), &repo, &head).await.unwrap();
    assert!(nothing.to_string().contains("The ledger has no event about it."));
    let unknown = handle.explain_event(&Tenant::default(), &"no/such/event".into()).await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::NotFound);

    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let head = world.repo.head("main");
    let known = handle.explain_commit(&Tenant::default(), &repo, &head).await.unwrap();
    assert_eq!(known.events.len(), 1);
    assert_eq!(known.events[0].runs.len(), 1);
}

#[tokio::test]
async fn what_strangers_wrote_cannot_steer_the_terminal_of_who_reads_an_explanation() {
    let world = World::with(CI);
    let event =
        world.hears(world.repo.push("alice", "x\u{1b}[31m\u{202e}", &[("a", "1")])).await.unwrap();
    let handle = world.engine.handle();
    let text = handle.explain_event(&Tenant::default(), &event.key).await.unwrap().to_string();
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}'), "{text:?}");
}

#[tokio::test]
async fn a_workflow_is_tried_out_with_nothing_but_itself_and_an_event() {
    let world = World::with(CI);
    let pushed = world.repo.push("alice", "main", &[("a", "1")]);
    let head = world.repo.head("main");
    world.scm.forget_calls();
    let request = SimulationRequest::new(registered(&workflow("ci", PUSH)), pushed);
    let simulated = simulate(request, Arc::new(world.clock.clone())).await.unwrap();
    assert_eq!(simulated.runs.len(), 1);
    let params = &simulated.runs[0].pipeline_run["spec"]["params"];
    assert_eq!(params[0]["value"], head.as_str());
    assert!(world.scm.all_calls().is_empty());
}

#[tokio::test]
async fn a_simulation_takes_the_changed_files_that_it_is_given() {
    let world = World::with(CI);
    let pushed = world.repo.push("alice", "main", &[("a", "1")]);
    let docs = workflow(
        "docs",
        "\n  repos: [{ name: code, connection: scm, repo: acme/* }]\n  triggers: [{ name: d, on: \
         push, paths: { include: ['docs/**'] } }]",
    );
    let with = |files: &[&str]| {
        SimulationRequest::new(registered(&docs), pushed.clone())
            .with_changed_files(files.iter().map(|path| Arc::from(*path)).collect::<Vec<_>>())
    };
    let clock = || Arc::new(world.clock.clone());
    assert_eq!(simulate(with(&["docs/x"]), clock()).await.unwrap().runs.len(), 1);
    let no = simulate(with(&["src/x"]), clock()).await.unwrap();
    assert!(matches!(&no.decided.decisions[0].outcome, Outcome::Rejected(rejected)
        if &*rejected.filter == "paths"));
}

#[tokio::test]
async fn an_engine_simulates_with_its_repositories_and_writes_nothing() {
    let world = World::with(CI);
    let by_path = "
apiVersion: workflows.tekton.dev/v1alpha1
kind: Workflow
metadata: { name: ci }
spec:
  repos: [{ name: code, connection: scm, repo: acme/api }]
  triggers: [{ name: push, on: push }]
  pipelineRef: { path: build.yaml }
";
    let pipeline = "
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: { name: build }
spec: { tasks: [{ name: x, taskSpec: { steps: [{ name: s, image: i, script: 'true' }] } }] }
";
    let pushed = world.repo.push("alice", "main", &[("build.yaml", pipeline)]);
    let request = SimulationRequest::new(registered(by_path), pushed);
    let simulated = world.engine.handle().simulate(request).await.unwrap();
    assert_eq!(simulated.runs[0].pipeline_run["spec"]["pipelineSpec"]["tasks"][0]["name"], "x");
    assert!(world.runs().await.is_empty());
    let events = workflows_core::Store::events(&*world.store, EventQuery::of(Tenant::default()));
    assert!(events.await.unwrap().items.is_empty());
}

#[tokio::test]
async fn a_replay_tells_what_a_changed_workflow_would_have_done_otherwise() {
    let world = World::built(CI, ConnectionOptions::registered_only(), |builder| {
        builder.workflow(registered(&workflow("ci", PUSH)))
    });
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    world.hears(world.repo.push("alice", "feature", &[("a", "2")])).await;
    assert_eq!(world.runs().await.len(), 1);
    let candidate = registered(&workflow("ci", &PUSH.replace("[main]", "[feature]")));
    let handle = world.engine.handle();
    let replayed = handle.replay(EventQuery::of(Tenant::default()), &[candidate]).await.unwrap();
    let starts: Vec<(usize, usize)> =
        replayed.iter().map(|one| (one.would_start.len(), one.would_not_start.len())).collect();
    assert_eq!(starts, [(0, 1), (1, 0)]);
    assert_eq!(world.runs().await.len(), 1, "nothing was written");
}

#[tokio::test]
async fn a_replay_counts_the_approval_of_a_strangers_head() {
    let pr = "\n  repos: [{ name: code, connection: scm, repo: acme/* }]\n  triggers: [{ name: pr, \
              on: pull_request }]";
    let world = World::built(CI, ConnectionOptions::registered_only(), |builder| {
        builder.workflow(registered(&workflow("ci", pr)))
    });
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    let event = world.hears(opened).await.unwrap();
    world.passes(jiff::SignedDuration::from_secs(1));
    world.hears(world.repo.comment("alice", number, "/ok-to-test")).await;
    assert_eq!(world.runs().await.len(), 1);
    let candidate = registered(&workflow("ci", pr));
    let handle = world.engine.handle();
    let replayed = handle.replay(EventQuery::of(Tenant::default()), &[candidate]).await.unwrap();
    let opened = replayed.iter().find(|one| one.simulation.event.key == event.key).unwrap();
    assert_eq!(opened.simulation.runs.len(), 1);
    assert!(opened.would_start.is_empty() && opened.would_not_start.is_empty());
}

#[tokio::test]
async fn a_workflow_that_is_registered_while_the_engine_runs_counts_from_then_on() {
    let world = World::built(CI, ConnectionOptions::registered_only(), |builder| builder);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    assert!(world.runs().await.is_empty());
    let handle = world.engine.handle();
    handle.register(&Tenant::default(), registered(&workflow("ci", PUSH))).unwrap();
    world.hears(world.repo.push("alice", "main", &[("a", "2")])).await;
    let runs = world.runs().await;
    assert_eq!(runs.len(), 1);
    assert_eq!(param(&runs[0], "revision"), world.repo.head("main").as_str());
    assert!(handle.unregister(&Tenant::default(), "ci"));
    world.hears(world.repo.push("alice", "main", &[("a", "3")])).await;
    assert_eq!(world.runs().await.len(), 1);
}
