//! Commit statuses, notes and reactions.

use std::sync::Arc;

use jiff::Timestamp;
use workflows_core::{
    CommitId, ErrorKind, RepoConnection, Result, ScmDriver,
    repo::{EarlierReport, ReportedStatus, Status, StatusState},
};
use workflows_gitlab_standin::{Access, Fault};

use super::world::{PROJECT, World};

const SHOW: &str = "POST /projects/{id}/statuses/{sha}";
const OF_COMMIT: &str = "GET /projects/{id}/repository/commits/{sha}/merge_requests";
const LIST: &str = "GET /projects/{id}/repository/commits/{sha}/statuses";

fn status(commit: &str, state: StatusState, run: &str) -> Status {
    let at = |text: &str| text.parse::<Timestamp>().ok();
    Status {
        commit: commit.parse::<CommitId>().unwrap(),
        context: "workflows/ci".into(),
        state,
        title: format!("It is {state:?}"),
        summary: "A summary".to_owned(),
        details: String::new(),
        annotations: Vec::new(),
        actions: Vec::new(),
        link: Some("https://ci.example.com/runs/1".to_owned()),
        external_id: run.into(),
        started_at: at("2026-03-01T12:00:10Z"),
        finished_at: None,
    }
}

async fn report(
    connection: &Arc<dyn RepoConnection>,
    status: &Status,
    before: Option<&ReportedStatus>,
) -> Result<ReportedStatus> {
    let earlier =
        before.map_or_else(EarlierReport::default, |one| EarlierReport::recorded(&one.id));
    connection.status_reporter().unwrap().report(status, earlier).await
}

async fn report_again(
    connection: &Arc<dyn RepoConnection>,
    status: &Status,
    before: Option<&ReportedStatus>,
) -> Result<ReportedStatus> {
    let earlier =
        before.map_or_else(EarlierReport::default, |one| EarlierReport::recorded(&one.id));
    connection.status_reporter().unwrap().report(status, earlier.and_maybe_another()).await
}

/// The states and refs of the statuses at a commit of a project.
fn shown(project: &workflows_gitlab_standin::ProjectHandle, commit: &str) -> Vec<(String, String)> {
    project.statuses(commit).into_iter().map(|one| (one.state, one.reference)).collect()
}

fn at(state: &str, reference: &str) -> Vec<(String, String)> {
    vec![(state.to_owned(), reference.to_owned())]
}

#[tokio::test]
async fn a_status_goes_forward_in_one_pipeline_and_a_new_attempt_begins_again() {
    let world = World::new();
    let commit = world.project.branch("main").unwrap();
    let connection = world.connect().await;
    let queued =
        report(&connection, &status(&commit, StatusState::Queued, "r1"), None).await.unwrap();
    assert_eq!(world.calls(), [OF_COMMIT, SHOW]);
    let running = status(&commit, StatusState::InProgress, "r1");
    let running = report(&connection, &running, Some(&queued)).await.unwrap();
    let progress =
        Status { title: "2 of 3".into(), ..status(&commit, StatusState::InProgress, "r1") };
    let running = report(&connection, &progress, Some(&running)).await.unwrap();
    let done = status(&commit, StatusState::Failure, "r1");
    let ended = report(&connection, &done, Some(&running)).await.unwrap();
    assert_eq!(report(&connection, &done, Some(&ended)).await.unwrap(), ended);
    assert_eq!(world.calls(), [SHOW, SHOW], "GitLab takes no text for what goes on");
    assert_eq!(shown(&world.project, &commit), at("failed", "main"));

    let again = status(&commit, StatusState::Queued, "r1/2");
    let again = report(&connection, &again, Some(&ended)).await.unwrap();
    assert_eq!(shown(&world.project, &commit), at("pending", "main"));
    let done = status(&commit, StatusState::Success, "r1/2");
    report(&connection, &done, Some(&again)).await.unwrap();
    let of = world.project.statuses(&commit);
    assert_eq!(of.len(), 1, "one pipeline, one status: {of:?}");
    assert_eq!((of[0].state.as_str(), of[0].description.as_str()), ("success", "It is Success"));
}

#[tokio::test]
async fn a_repeated_state_is_no_error_and_a_forbidden_way_is_one() {
    let world = World::new();
    let commit = world.project.branch("main").unwrap();
    let connection = world.connect().await;
    let queued = status(&commit, StatusState::Queued, "r1");
    let running = status(&commit, StatusState::InProgress, "r1");
    // The answer is lost, and what was asked for is done.
    world.gitlab.fail(SHOW, 1, Fault::LostAnswer);
    let lost = report(&connection, &queued, None).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Transient);
    let first = report_again(&connection, &queued, None).await.unwrap();
    let second = report(&connection, &running, Some(&first)).await.unwrap();
    assert_eq!(shown(&world.project, &commit), at("running", "main"));
    world.gitlab.forget_calls();
    // A late report of what was before shows nothing else.
    report_again(&connection, &queued, Some(&first)).await.unwrap();
    assert_eq!(world.calls(), [SHOW, LIST]);
    assert_eq!(shown(&world.project, &commit), at("running", "main"));

    // Waiting for somebody, after it was queued, is the same state.
    let waiting = status(&commit, StatusState::ActionRequired, "r1");
    report_again(&connection, &waiting, Some(&second)).await.unwrap();

    // GitLab refuses, and shows a state from which the wanted one is not reached.
    let other = world.project.push("other", &[("a", "1")]);
    let wanted = status(&other, StatusState::InProgress, "r2");
    let one = report(&connection, &status(&other, StatusState::Queued, "r2"), None).await.unwrap();
    world.gitlab.fail(SHOW, 1, Fault::Status(400));
    let error = report(&connection, &wanted, Some(&one)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    report(&connection, &wanted, Some(&one)).await.unwrap();
    assert_eq!(shown(&world.project, &other), at("running", "other"));
}

#[tokio::test]
async fn the_status_of_a_merge_request_is_at_its_source_branch() {
    let world = World::new();
    let commit = world.project.push("topic", &[("a", "1")]);
    world.project.force_push("another", &commit);
    world.project.open("Do it", "topic", "main");
    let connection = world.connect().await;
    report(&connection, &status(&commit, StatusState::Success, "r1"), None).await.unwrap();
    assert_eq!(shown(&world.project, &commit), at("success", "topic"));
    // The next one of the same commit asks no more where it goes.
    world.gitlab.forget_calls();
    let lint =
        Status { context: "workflows/lint".into(), ..status(&commit, StatusState::Neutral, "r2") };
    report(&connection, &lint, None).await.unwrap();
    assert_eq!(world.calls(), [SHOW]);
}

#[tokio::test]
async fn the_status_of_a_fork_is_where_its_merge_request_shows_it_or_else_here() {
    let world = World::new();
    let fork = world.project.as_user("mallory").fork();
    let commit = fork.push("patch", &[("a", "1")]);
    let number = world.project.as_user("mallory").open_from(&fork, "Trust me", "patch", "main");
    let connection = world.connect().await;
    // In the fork the bot is a stranger.
    let queued = status(&commit, StatusState::Queued, "r1");
    let first = report(&connection, &queued, None).await.unwrap();
    let kept = format!("refs/merge-requests/{number}/head");
    assert_eq!(shown(&world.project, &commit), at("pending", &kept));
    assert_eq!(world.calls(), [OF_COMMIT, SHOW, SHOW]);
    let done = status(&commit, StatusState::Success, "r1");
    report(&connection, &done, Some(&first)).await.unwrap();
    assert_eq!(world.calls(), [SHOW], "where it was taken is remembered");
    assert_eq!(shown(&world.project, &commit), at("success", &kept));

    // Where the bot may, it is shown at the fork.
    fork.set_access("bot", Some(Access::Developer));
    let next = fork.push("patch", &[("a", "2")]);
    report(&connection, &status(&next, StatusState::Queued, "r2"), None).await.unwrap();
    assert_eq!(shown(&fork, &next), at("pending", "patch"));
    assert_eq!(shown(&world.project, &next), []);
}

#[tokio::test]
async fn who_may_not_show_statuses_is_told_so() {
    let world = World::new();
    world.project.set_access("reporter", Some(Access::Reporter));
    let commit = world.project.branch("main").unwrap();
    for token in [
        world.gitlab.token_of("reporter"),
        world.gitlab.token("bot", &["read_api"], None),
        world.gitlab.token("bot", &["api"], Some("2026-03-01")),
    ] {
        let driver = world.driver_with(&token);
        let connection = driver.connect(&"gitlab".into(), PROJECT).await;
        let error = match connection {
            Ok(connection) => {
                let shown = status(&commit, StatusState::Success, "r1");
                report(&connection, &shown, None).await.unwrap_err()
            }
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let told = error.to_string();
        let remedies = ["role", "scope", "expired"];
        assert!(remedies.iter().any(|word| told.contains(word)), "{told}");
        assert!(!told.contains("glpat"), "{told}");
    }
}

#[tokio::test]
async fn one_note_is_kept_up_to_date() {
    let world = World::new();
    world.project.push("topic", &[("a", "1")]);
    let number = world.project.open("Do it", "topic", "main");
    let connection = world.connect().await;
    let commenter = connection.commenter().unwrap();
    let first = commenter.upsert(number, "answers", "one", None).await.unwrap();
    let marker = world.project.notes(number)[0].body.lines().next().unwrap().to_owned();
    // A stranger writes the marker, too.
    world.project.as_user("mallory").note(number, &format!("{marker}\nmine"));
    let same = commenter.upsert(number, "answers", "two", Some(&first)).await.unwrap();
    let found = commenter.upsert(number, "answers", "three", None).await.unwrap();
    assert_eq!((&same, &found), (&first, &first));
    let of_bot = || {
        let notes = world.project.notes(number).into_iter();
        notes.filter(|note| note.author == "bot").collect::<Vec<_>>()
    };
    assert_eq!(of_bot().len(), 1);
    assert!(of_bot()[0].body.ends_with("three"));
    world.project.delete_note(number, first.parse().unwrap());
    let anew = commenter.upsert(number, "answers", "four", Some(&first)).await.unwrap();
    assert_ne!(anew, first);
    assert_eq!(of_bot().len(), 1);
    let long = "ä".repeat(600_000);
    commenter.upsert(number, "answers", &long, Some(&anew)).await.unwrap();
}

#[tokio::test]
async fn a_note_is_acknowledged_once() {
    let world = World::new();
    world.project.push("topic", &[("a", "1")]);
    let number = world.project.open("Do it", "topic", "main");
    let note = world.project.as_user("alice").note(number, "/test").to_string();
    let connection = world.connect().await;
    let commenter = connection.commenter().unwrap();
    for _ in 0..2 {
        commenter.acknowledge(number, &note, true).await.unwrap();
    }
    assert_eq!(world.project.notes(number)[0].emoji, ["bot rocket"]);
    commenter.acknowledge(number, "commit-7", true).await.unwrap();
    let error = commenter.acknowledge(number, "../7", true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}
