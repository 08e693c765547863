//! Events of which the transport tells less than belongs to them.

use workflows_core::{
    Observation, RepoRef, SubjectClaim, Tenant,
    conformance::ScmCall,
    engine::{Command, ConnectionOptions, RerunOf},
    event::{EventKind, Lacks, NothingClaim, Occurrence, Seen},
    store::{EventQuery, ObservationQuery, Outcome, Store},
};

use super::world::{CI, World, is_done, registered, workflow};

async fn opened(world: &World) -> u64 {
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    number
}

#[tokio::test]
async fn a_comment_gets_its_pull_request_once_and_keeps_it() {
    let world = World::with(CI);
    let number = opened(&world).await;
    world.scm.forget_calls();
    let told = world.repo.comment_without_pull_request("alice", number, "/test");
    let comment = world.hears(told).await.unwrap();
    assert_eq!(comment.lacks, Some(Lacks::PullRequest { number }));
    assert_eq!(world.scm.calls(ScmCall::PullRequest), 1);
    assert!(is_done(&world.commands(&comment).await[0]));
    assert_eq!(world.runs().await.len(), 2);
    assert_eq!(world.repo.acknowledged(&comment.comment.unwrap().id), Some(true));

    let about = EventQuery::of(Tenant::default()).pull_request(Some(number));
    let kept = world.store.events(about).await.unwrap().items;
    let kept = kept.into_iter().find(|event| event.key == comment.key).unwrap();
    assert_eq!(kept.lacks, None);
    assert_eq!(kept.pull_request, Some(world.repo.pull_request(number)));
    assert_eq!(kept.head.unwrap().sha, world.repo.head("feature"));
}

#[tokio::test]
async fn nothing_is_fetched_for_a_comment_on_which_nothing_hangs() {
    let world = World::built(CI, ConnectionOptions::registered_only(), |builder| {
        builder.workflow(registered(&workflow(
            "ci",
            "\n  repos: [{ name: code, connection: scm, repo: acme/api }]\n  triggers: [{ name: pr, \
             on: pull_request }]",
        )))
    });
    let number = opened(&world).await;
    world.scm.forget_calls();
    let comment = world.repo.comment_without_pull_request("alice", number, "Looks good to me.");
    let comment = world.hears(comment).await.unwrap();
    assert_eq!(world.scm.all_calls(), []);
    let kept = world.store.event(&Tenant::default(), &comment.key).await.unwrap().unwrap();
    assert_eq!(kept.lacks, Some(Lacks::PullRequest { number }));

    let command = world.repo.comment_without_pull_request("alice", number, "/test");
    let command = world.hears(command).await.unwrap();
    assert_eq!(world.scm.calls(ScmCall::PullRequest), 1);
    assert!(is_done(&world.commands(&command).await[0]));
}

#[tokio::test]
async fn a_comment_waits_for_a_host_that_is_down() {
    let world = World::with(CI);
    let number = opened(&world).await;
    let comment = world.repo.comment_without_pull_request("alice", number, "/test");
    world.scm.go_down();
    world.hears(comment).await.unwrap();
    assert_eq!(world.runs().await.len(), 1);
    world.scm.come_back();
    world.passes(jiff::SignedDuration::from_mins(5));
    world.settles().await;
    assert_eq!(world.runs().await.len(), 2);
}

fn occurrence(world: &World, occurrence: Occurrence) -> Observation {
    Observation::new(
        world.scm.tenant(),
        world.repo.reference(),
        "webhook".into(),
        occurrence.id.as_ref().into(),
        Seen::Told,
        SubjectClaim::Occurrence(Box::new(occurrence)),
    )
    .by("alice")
}

#[tokio::test]
async fn an_event_for_a_ref_runs_at_the_commit_where_the_ref_stands() {
    let release = workflow("release", "\n  triggers: [{ name: release, on: release }]");
    let world = World::with(&release);
    world.repo.tag("alice", "v1", "main");
    let mut published = Occurrence::new(EventKind::new("release"), "1/published");
    published.lacks = Some(Lacks::Commit { reference: "refs/tags/v1".into() });
    let event = world.hears(occurrence(&world, published.clone())).await.unwrap();
    let runs = world.runs().await;
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0].commit.as_ref(), Some(&world.repo.head("main")));
    assert_eq!(runs[0].reference.as_deref(), Some("refs/tags/v1"));
    assert_eq!(runs[0].event, event.key);

    published.id = "2/published".into();
    published.lacks = Some(Lacks::Commit { reference: "refs/tags/gone".into() });
    let gone = world.hears(occurrence(&world, published)).await.unwrap();
    assert_eq!(world.runs().await.len(), 1);
    let batches = world.batches(&gone.key).await;
    assert!(batches[0].judged_by["failure"].contains("resolve"), "{batches:?}");
}

#[tokio::test]
async fn what_is_of_no_interest_is_on_record_and_starts_nothing() {
    let world = World::with(CI);
    let repo = RepoRef { connection: "scm".into(), id: "-".into(), name: "-".into() };
    let claim = NothingClaim { what: "star.created".into(), reason: "nobody waits for it".into() };
    let claim = SubjectClaim::Nothing(Box::new(claim));
    let nothing =
        Observation::new(Tenant::default(), repo, "webhook".into(), "d".into(), Seen::Told, claim);
    assert_eq!(world.hears(nothing).await, None);
    let recorded =
        world.store.observations(ObservationQuery::of(Tenant::default())).await.unwrap().items;
    assert_eq!(recorded[0].duplicate.as_deref(), Some("nobody waits for it"));
    assert_eq!(recorded[0].event, None);
}

/// What a host's button sends.
fn pressed(world: &World, by: &str, id: &str, command: Command) -> Observation {
    let mut observation = occurrence(world, command.occurrence(id));
    observation.sender = Some(by.into());
    observation
}

#[tokio::test]
async fn a_button_of_a_status_runs_again_what_the_status_stands_for() {
    use workflows_core::RunPhase;
    let other = workflow("other", "\n  triggers: [{ name: pr, on: pull_request }]");
    let world = World::with(&format!("{CI}\n---\n{other}"));
    opened(&world).await;
    for run in world.runs().await {
        world.sink.set_phase(&run.key, RunPhase::Succeeded);
    }
    world.passes(jiff::SignedDuration::from_secs(60));
    world.settles().await;
    let head = world.repo.head("feature");
    let one = world.runs().await.into_iter().find(|run| &*run.workflow.name == "other").unwrap();

    let shown = |external_id: &str| {
        let (external_id, commit) = (external_id.into(), head.clone());
        Command::Rerun { of: RerunOf::Shown { external_id, commit } }
    };
    let again = world.hears(pressed(&world, "alice", "d1", shown(one.key.as_str()))).await.unwrap();
    assert!(is_done(&world.commands(&again).await[0]));
    let names = world.run_names().await;
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names[2].starts_with("other/pr@"), "{names:?}");
    assert_eq!(world.runs().await[2].attempt.as_str(), "d1");

    // A status that is a note stands for what did not succeed.
    let nothing =
        world.hears(pressed(&world, "alice", "d2", shown(&"0".repeat(64)))).await.unwrap();
    assert!(!is_done(&world.commands(&nothing).await[0]), "all that ended did succeed");

    let all = Command::Rerun { of: RerunOf::All { commit: head.clone() } };
    world.hears(pressed(&world, "alice", "d3", all.clone())).await;
    assert_eq!(world.runs().await.len(), 4, "of `other` the newest has not ended");
    assert_eq!(world.hears(pressed(&world, "alice", "d3", all.clone())).await, None);

    let stranger = world.hears(pressed(&world, "mallory", "d4", all)).await.unwrap();
    assert!(super::world::is_denied(&world.commands(&stranger).await[0]));
    assert_eq!(world.runs().await.len(), 4);
}

#[tokio::test]
async fn a_trigger_on_every_comment_sees_the_pull_request() {
    let every = workflow(
        "every",
        "\n  triggers: [{ name: c, on: comment, filter: \"event.pull_request.draft\" }]",
    );
    let world = World::with(&every);
    let number = opened(&world).await;
    let told = world.repo.comment_without_pull_request("alice", number, "hello");
    let comment = world.hears(told).await.unwrap();
    assert!(matches!(
        world.outcome(&comment, "c").await,
        Outcome::Rejected(rejected) if &*rejected.filter == "filter"
    ));
    world.hears(world.repo.edit_pull_request("alice", number, |one| one.draft = true)).await;
    let told = world.repo.comment_without_pull_request("alice", number, "hello again");
    world.hears(told).await;
    assert_eq!(world.runs().await.len(), 1);
}
