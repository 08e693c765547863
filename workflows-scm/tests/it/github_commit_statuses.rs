//! Commit statuses, for who has a token.

use workflows_core::{
    ErrorKind,
    repo::{EarlierReport, StatusState},
};
use workflows_github_standin::Fault;

use super::github_world::{CONTEXT, GitHub, report, report_again, status};

#[tokio::test]
async fn a_run_costs_three_calls_and_shows_how_it_stands() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    let mut last = None;
    for state in [StatusState::Queued, StatusState::InProgress, StatusState::Failure] {
        last =
            Some(report(&connection, &github.status(state, "run-1"), last.as_ref()).await.unwrap());
    }
    let shown = github.repo.statuses(github.commit.as_str());
    let states: Vec<_> = shown.iter().map(|one| (&*one.context, &*one.state)).collect();
    assert_eq!(states, [(CONTEXT, "pending"), (CONTEXT, "pending"), (CONTEXT, "failure")]);
    assert_eq!(shown[2].description, "It is Failure");
    assert_eq!(shown[2].target_url.as_deref(), Some("https://ci.example.com/runs/1"));
    assert_eq!(github.hub.count("* *statuses*"), 3);
    // Nothing is said twice.
    report(&connection, &github.status(StatusState::Failure, "run-1"), last.as_ref())
        .await
        .unwrap();
    assert_eq!(github.hub.count("* *statuses*"), 3);
}

#[tokio::test]
async fn every_state_has_its_place_among_the_four() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    for (state, shows) in [
        (StatusState::ActionRequired, "pending"),
        (StatusState::Success, "success"),
        (StatusState::Neutral, "success"),
        (StatusState::Failure, "failure"),
        (StatusState::TimedOut, "failure"),
        (StatusState::Cancelled, "error"),
    ] {
        report(&connection, &github.status(state, "run-1"), None).await.unwrap();
        let newest = github.repo.statuses(github.commit.as_str()).pop().unwrap();
        assert_eq!(newest.state, shows);
    }
}

#[tokio::test]
async fn a_title_is_cut_between_characters_and_a_link_that_is_none_is_left_out() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    let mut long = github.status(StatusState::Success, "run-1");
    long.title = format!("{}ab", "🦀".repeat(139));
    long.link = Some("file:///runs/1".to_owned());
    report(&connection, &long, None).await.unwrap();
    let shown = github.repo.statuses(github.commit.as_str()).remove(0);
    assert_eq!(shown.description, format!("{}a", "🦀".repeat(139)));
    assert_eq!(shown.target_url, None);
}

#[tokio::test]
async fn a_lost_answer_leaves_the_right_state_in_sight() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    let queued =
        report(&connection, &github.status(StatusState::Queued, "run-1"), None).await.unwrap();
    github.hub.fail("POST *statuses*", 1, Fault::LostAnswer);
    let ended = github.status(StatusState::Success, "run-1");
    report(&connection, &ended, Some(&queued)).await.unwrap_err();
    report_again(&connection, &ended, Some(&queued)).await.unwrap();
    assert_eq!(github.repo.statuses(github.commit.as_str()).pop().unwrap().state, "success");
}

#[tokio::test]
async fn who_remembers_nothing_does_not_undo_the_end_of_a_run() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    let shown = || github.repo.statuses(github.commit.as_str()).pop().unwrap().state;
    report(&connection, &github.status(StatusState::Failure, "run-1"), None).await.unwrap();
    let late = github.status(StatusState::InProgress, "run-1");
    let error = report_again(&connection, &late, None).await.unwrap_err();
    assert_eq!((error.kind(), &*shown()), (ErrorKind::Conflict, "failure"));
    // Another run has another link.
    let mut another = github.status(StatusState::InProgress, "run-2");
    another.link = Some("https://ci.example.com/runs/2".to_owned());
    report_again(&connection, &another, None).await.unwrap();
    assert_eq!(shown(), "pending");
    let error = report_again(&connection, &late, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "it was shown, under what shows now");
}

#[tokio::test]
async fn progress_leaves_room_for_the_end_and_the_limit_is_told() {
    let github = GitHub::with_token();
    github.hub.limits(|limits| limits.points_a_minute = 1_000_000);
    let connection = github.connect().await;
    let mut last = None;
    for minute in 0..600 {
        let mut goes_on = github.status(StatusState::InProgress, "run-1");
        goes_on.title = format!("Running for {minute} minutes");
        last = Some(report(&connection, &goes_on, last.as_ref()).await.unwrap());
        github.later(60);
    }
    assert_eq!(github.repo.statuses(github.commit.as_str()).len(), 500);
    let last =
        report(&connection, &github.status(StatusState::Success, "run-1"), last.as_ref()).await;
    assert_eq!(github.repo.statuses(github.commit.as_str()).pop().unwrap().state, "success");

    let mut refused = None;
    for attempt in 0..600 {
        let ends = github.status(StatusState::Failure, &format!("run-{attempt}"));
        let earlier = EarlierReport::recorded(&last.as_ref().unwrap().id);
        match connection.status_reporter().unwrap().report(&ends, earlier).await {
            Ok(_) => github.later(60),
            Err(error) => {
                refused = Some((attempt, error));
                break;
            }
        }
    }
    let (attempt, error) = refused.expect("GitHub takes a thousand");
    assert_eq!((attempt, error.kind()), (499, ErrorKind::Invalid));
    assert!(error.to_string().contains("1,000 statuses"), "{error}");
}

#[tokio::test]
async fn a_commit_that_is_not_known_is_not_found() {
    let github = GitHub::with_token();
    let connection = github.connect().await;
    let unknown = "0123456789012345678901234567890123456789".parse().unwrap();
    let outcome = report(&connection, &status(&unknown, StatusState::Queued, "run-1"), None).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
}
