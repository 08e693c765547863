//! Which events a workflow runs for, and what is recorded of those that it does not run for.

use workflows_core::{
    ErrorKind, EventKind, conformance::ScmCall, engine::Submission, event::PullRequestState,
    repo::StatusState, store::Outcome,
};

use super::world::{CI, World, param, registered, workflow};

fn rejected_by(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Rejected(rejected) => &rejected.filter,
        other => panic!("expected a rejection, got {other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_its_redelivery_and_a_poll_make_one_run() {
    let world = World::with(CI);
    let pushed = world.repo.push("alice", "main", &[("a", "1")]);
    let mut redelivered = pushed.clone();
    redelivered.delivery = "again".into();
    world.hears(pushed.clone()).await;
    world.hears(pushed).await;
    world.hears(redelivered).await;
    let position = workflows_core::Store::position(&*world.store).await.unwrap();
    world.hears(world.repo.read_ref("refs/heads/main", position)).await;
    assert_eq!(world.runs().await.len(), 1);
    assert_eq!(world.sink.created().len(), 1);
}

#[tokio::test]
async fn changed_files_are_fetched_once_and_only_when_a_filter_hangs_on_them() {
    let two = format!(
        "{}\n---\n{}",
        workflow("docs", "\n  triggers: [{ name: p, on: push, paths: { include: ['docs/**'] } }]"),
        workflow(
            "code",
            "\n  triggers: [{ name: q, on: push, branches: [main], paths: { exclude: ['**/*.md'] \
             }, whenSkipped: neutral }]"
        )
    );
    let world = World::with(&two);
    world.hears(world.repo.push("alice", "main", &[("src/x.rs", "1")])).await;
    let names = world.run_names().await;
    assert_eq!(names.len(), 1);
    assert!(names[0].starts_with("code/q@"), "{names:?}");
    assert_eq!(world.scm.calls(ScmCall::ChangedFiles), 1);

    let event = world.hears(world.repo.push("alice", "main", &[("README.md", "2")])).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&event, "p").await), "paths");
    assert_eq!(rejected_by(&world.outcome(&event, "q").await), "paths");
    let head = world.repo.head("main");
    assert_eq!(world.shows(&head, "workflows/code"), Some(StatusState::Neutral));
    assert_eq!(world.shows(&head, "workflows/docs"), None);
}

#[tokio::test]
async fn a_new_branch_changed_what_it_has_over_the_default_branch() {
    let docs = "\n  triggers: [{ name: p, on: push, paths: { include: ['docs/**'] } }]";
    let world = World::with(&workflow("docs", docs));
    world.hears(world.repo.push("alice", "main", &[("docs/old.md", "1")])).await;
    assert_eq!(world.runs().await.len(), 1);
    let event = world.hears(world.repo.push("alice", "code", &[("src/x", "1")])).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&event, "p").await), "paths");
    world.hears(world.repo.push("alice", "text", &[("docs/new.md", "1")])).await;
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_pull_request_changed_what_it_has_since_it_parted_from_its_base() {
    let docs = "\n  triggers: [{ name: p, on: pull_request, paths: { include: ['docs/**'] } }]";
    let world = World::with(&workflow("docs", docs));
    world.repo.push("alice", "main", &[("docs/old.md", "1")]);
    world.repo.push("alice", "code", &[("src/x", "1")]);
    world.repo.push("alice", "text", &[("docs/new.md", "1")]);
    world.repo.push("alice", "main", &[("docs/old.md", "2")]);
    let (_, opened) = world.repo.open_pull_request("alice", "code", "main");
    let event = world.hears(opened).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&event, "p").await), "paths");
    assert_eq!(world.scm.calls(ScmCall::MergeBase), 1);
    let (_, opened) = world.repo.open_pull_request("alice", "text", "main");
    world.hears(opened).await;
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn files_of_a_commit_that_was_forced_away_are_unknown_and_path_filters_hold() {
    let docs = "\n  triggers: [{ name: p, on: push, paths: { include: ['docs/**'] } }]";
    let world = World::with(&workflow("docs", docs));
    world.hears(world.repo.push("alice", "feature", &[("x", "1")])).await;
    let old = world.repo.head("feature");
    let forced = world.repo.force_push("alice", "feature", &[("x", "2")]);
    world.repo.lose_commit(&old);
    let event = world.hears(forced).await.unwrap();
    assert!(matches!(world.outcome(&event, "p").await, Outcome::Matched { .. }));
    let batch = world.batches(&event.key).await.pop().unwrap();
    assert!(batch.judged_by["changedFiles"].starts_with("unknown"), "{batch:?}");
}

#[tokio::test]
async fn reopening_and_retargeting_are_events_of_their_own() {
    let world = World::with(CI);
    world.repo.push("alice", "release", &[("r", "1")]);
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    let to = |base: &'static str| {
        world.repo.edit_pull_request("alice", number, move |one| one.base.reference = base.into())
    };
    world.hears(to("refs/heads/release")).await;
    world.hears(to("refs/heads/main")).await;
    let close = |state| world.repo.edit_pull_request("alice", number, move |one| one.state = state);
    let closed = world.hears(close(PullRequestState::Closed)).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&closed, "pull-request").await), "actions");
    world.hears(close(PullRequestState::Open)).await;
    assert_eq!(world.runs().await.len(), 4, "opened, retargeted twice, reopened");
}

#[tokio::test]
async fn a_label_starts_what_listens_for_it_and_the_same_label_later_again() {
    let e2e = workflow("e2e", "\n  triggers: [{ name: l, on: label, labels: [e2e] }]");
    let world = World::with(&e2e);
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    let other = world.hears(world.repo.label("alice", number, "bug")).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&other, "l").await), "labels");
    world.hears(world.repo.label("alice", number, "e2e")).await;
    let off = world.hears(world.repo.unlabel("alice", number, "e2e")).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&off, "l").await), "actions");
    world.hears(world.repo.label("alice", number, "e2e")).await;
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_ref_that_is_gone_runs_nothing_and_the_record_says_so() {
    let clean = workflow("clean", "\n  triggers: [{ name: d, on: push, branches: [feature] }]");
    let repos = "\n  repos: [{ name: code, connection: scm, repo: acme/api }]\n  triggers";
    let world = World::built(CI, workflows_core::engine::ConnectionOptions::default(), |builder| {
        builder.workflow(registered(&clean.replacen("\n  triggers", repos, 1)))
    });
    world.hears(world.repo.push("alice", "feature", &[("a", "1")])).await;
    let event = world.hears(world.repo.delete_branch("alice", "feature")).await.unwrap();
    assert_eq!(rejected_by(&world.outcome(&event, "d").await), "actions");
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn a_push_that_arrives_after_its_successor_is_superseded() {
    let world = World::with(CI);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    let lost = world.repo.push("alice", "main", &[("a", "2")]);
    let late = world.repo.reset("alice", "main", &world.repo.head("main"));
    drop(late);
    let next = world.repo.push("alice", "main", &[("a", "3")]);
    world.hears(next).await;
    let newest = world.repo.head("main");
    world.hears(lost).await;
    let names = world.run_names().await;
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[1].ends_with(newest.short()), "{names:?}");
}

#[tokio::test]
async fn a_push_out_of_order_whose_ref_has_moved_on_is_superseded_by_what_the_host_says() {
    let world = World::with(CI);
    world.hears(world.repo.push("alice", "main", &[("a", "1")])).await;
    // Two pushes whose webhooks are swapped, and one before them that is lost.
    drop(world.repo.push("alice", "main", &[("a", "2")]));
    let second = world.repo.push("alice", "main", &[("a", "3")]);
    drop(world.repo.push("alice", "main", &[("a", "4")]));
    let fourth = world.repo.push("alice", "main", &[("a", "5")]);
    world.hears(fourth).await;
    let event = world.hears(second).await.unwrap();
    assert!(event.unchained);
    assert!(matches!(world.outcome(&event, "push").await, Outcome::Superseded { .. }));
    assert_eq!(world.runs().await.len(), 2);
    // The correction leaves the ref where the host has it, so that the next push is in order.
    let after = world.hears(world.repo.push("alice", "main", &[("a", "6")])).await.unwrap();
    assert!(!after.unchained);
    assert_eq!(world.runs().await.len(), 3);
}

#[tokio::test]
async fn hostile_branch_names_and_titles_stay_strings() {
    let text = workflow(
        "ci",
        "\n  triggers: [{ name: pr, on: pull_request }]\n  params:\n  - { name: branch, value: \
         $(event.head.branch) }\n  - { name: title, value: 'T: $(event.pull_request.title)' }",
    );
    let world = World::with(&text);
    let branch = "x\"; rm -rf ~; echo ${IFS}'}]}#";
    world.repo.push("alice", branch, &[("a", "1")]);
    let (number, _) = world.repo.open_pull_request("alice", branch, "main");
    let title = "\"}\nmetadata: {name: pwned}\n- !!x '";
    let titled = world.repo.edit_pull_request("alice", number, |one| one.title = title.to_owned());
    world.hears(titled).await;
    let run = world.runs().await.remove(0);
    assert_eq!(param(&run, "branch"), branch);
    assert_eq!(param(&run, "title"), format!("T: {title}"));
    assert_eq!(run.pipeline_run["metadata"]["name"], *run.name);
    assert_eq!(
        run.pipeline_run["metadata"]["annotations"]["workflows.tekton.dev/ref"],
        format!("refs/heads/{branch}")
    );
    for (name, value) in run.pipeline_run["metadata"]["labels"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        assert!(value.len() <= 63, "{name}: {value}");
        assert!(value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)), "{value}");
    }
}

#[tokio::test]
async fn a_run_carries_what_finds_it_and_no_owner() {
    let world = World::with(CI);
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    let run = world.runs().await.remove(0);
    let metadata = &run.pipeline_run["metadata"];
    assert!(run.name.len() <= 63 && run.name.starts_with("ci-"));
    assert!(run.key.as_str().starts_with(&run.name["ci-".len()..]));
    assert!(metadata.get("ownerReferences").is_none() && metadata.get("generateName").is_none());
    let annotations = &metadata["annotations"];
    assert_eq!(annotations["workflows.tekton.dev/run-key"], run.key.as_str());
    assert_eq!(annotations["workflows.tekton.dev/event"], event.key.as_str());
    assert_eq!(annotations["workflows.tekton.dev/repository"], "acme/api");
    let results = annotations["results.tekton.dev/resultAnnotations"].as_str().unwrap();
    assert_eq!(annotations["results.tekton.dev/recordSummaryAnnotations"], results);
    let results: serde_json::Value = serde_json::from_str(results).unwrap();
    assert_eq!(results["repo"], "scripted.example/acme/api");
    assert_eq!(results["commit"], world.repo.head("main").as_str());
}

/// What the proof of concept got wrong: a ref filter that read `body.ref`, which pull requests do
/// not have; a split at `/` that cut `feature/x`; tags taken for branches; a pattern pasted into an
/// expression.
#[tokio::test]
async fn branch_filters_hold_for_pull_requests_slashes_tags_and_quotes() {
    let text = workflow(
        "ci",
        "\n  triggers:\n  - { name: pr, on: pull_request, branches: ['release/*'] }\n  - { name: \
         push, on: push, branches: [feature/x] }\n  - { name: tag, on: tag, tags: ['v*'] }\n  - { \
         name: quote, on: push, branches: [\"it's\"] }",
    );
    let world = World::with(&text);
    world.repo.push("alice", "release/1", &[("r", "1")]);
    world.repo.push("alice", "topic", &[("t", "1")]);
    let (_, opened) = world.repo.open_pull_request("alice", "topic", "release/1");
    world.hears(opened).await;
    world.hears(world.repo.push("alice", "feature/x", &[("a", "1")])).await;
    world.hears(world.repo.push("alice", "feature", &[("b", "1")])).await;
    world.hears(world.repo.push("alice", "feature/x/y", &[("c", "1")])).await;
    world.hears(world.repo.push("alice", "it's", &[("d", "1")])).await;
    world.hears(world.repo.push("alice", "v1", &[("e", "1")])).await;
    world.hears(world.repo.tag("alice", "v1", "feature/x")).await;
    let names: Vec<String> = world.runs().await.iter().map(|run| run.trigger.to_string()).collect();
    assert_eq!(names, ["pr", "push", "quote", "tag"]);
}

#[tokio::test]
async fn a_filter_that_fails_is_recorded_and_told_and_never_a_match() {
    let text =
        workflow("ci", "\n  triggers: [{ name: push, on: push, filter: 'event.data.size > 3' }]");
    let world = World::with(&text);
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    assert!(matches!(world.outcome(&event, "push").await, Outcome::Failed { .. }));
    assert_eq!(world.shows(&world.repo.head("main"), "workflows/ci"), Some(StatusState::Failure));
}

#[tokio::test]
async fn a_skipped_trigger_shows_neutral_however_many_others_there_are() {
    let triggers: String = (0..40)
        .map(|n| {
            format!(
                "\n  - {{ name: t{n}, on: push, filter: 'event.sender == \"s{n}\"', whenSkipped: {} }}",
                if n == 7 { "neutral" } else { "silent" }
            )
        })
        .collect();
    let world = World::with(&format!(
        "{}\n---\n{}",
        workflow("many", &format!("\n  triggers:{triggers}")),
        workflow("other", "\n  triggers: [{ name: p, on: push }]")
    ));
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    let batch = world.batches(&event.key).await.pop().unwrap();
    assert!(!batch.guards.is_empty(), "the silent ones are ruled out together");
    assert_eq!(rejected_by(&world.outcome(&event, "t7").await), "filter");
    let head = world.repo.head("main");
    assert_eq!(world.shows(&head, "workflows/many"), Some(StatusState::Neutral));
}

#[tokio::test]
async fn a_request_gives_the_run_its_parameters() {
    let spec = "\n  triggers: [{ name: deploy, on: manual }]\n  params:\n  - { name: environment, \
                default: staging }\n  - { name: workflow, default: none }\n  - { name: by, value: \
                $(event.data.params.environment), default: nobody }";
    let world = World::with(&workflow("deploy", spec));
    let ask = async |key: &str, params: &[(&str, &str)]| {
        let connection = world.scm.connection();
        let mut asked = Submission::new(connection, "acme/api", key, "bob");
        for (name, value) in params {
            asked = asked.with_param(*name, *value);
        }
        world.engine.handle().submit(asked).await.unwrap();
        world.settles().await;
        let run = world.runs().await.pop().unwrap();
        ["environment", "workflow", "by"].map(|name| param(&run, name).as_str().unwrap().to_owned())
    };
    assert_eq!(ask("1", &[("environment", "prod")]).await, ["prod", "none", "prod"]);
    assert_eq!(ask("2", &[]).await, ["staging", "none", "nobody"]);
    assert_eq!(world.runs().await.len(), 2);
}

#[tokio::test]
async fn a_parameter_without_a_value_is_a_recorded_failure_and_not_a_lost_event() {
    let text = workflow(
        "ci",
        "\n  triggers: [{ name: push, on: push }]\n  params: [{ name: x, value: $(event.data.x) }]",
    );
    let world = World::with(&text);
    let event = world.hears(world.repo.push("alice", "main", &[("a", "1")])).await.unwrap();
    assert!(matches!(world.outcome(&event, "push").await, Outcome::Failed { .. }));
    assert!(world.runs().await.is_empty());
}

#[tokio::test]
async fn a_changed_file_list_that_the_host_cannot_give_now_is_waited_for() {
    let docs = "\n  triggers: [{ name: p, on: push, paths: { include: ['docs/**'] } }]";
    let world = World::with(&workflow("docs", docs));
    world.scm.fail_next(ScmCall::ChangedFiles, ErrorKind::RateLimited { until: None }, "429");
    let event = world.hears(world.repo.push("alice", "main", &[("docs/x", "1")])).await.unwrap();
    assert_eq!(event.kind, EventKind::PUSH);
    assert!(world.runs().await.is_empty());
    world.passes(jiff::SignedDuration::from_mins(10));
    world.settles().await;
    assert_eq!(world.runs().await.len(), 1);
}
