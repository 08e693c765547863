//! Check runs, against a GitHub that refuses what GitHub refuses.

use workflows_core::{
    ErrorKind,
    repo::{StatusAction, StatusState},
    run::{Annotation, AnnotationLevel},
};
use workflows_github_standin::Fault;

use super::github_world::{CONTEXT, GitHub, report, report_again, status};

const WRITES: [&str; 2] = ["POST *check-runs*", "PATCH *check-runs*"];

fn writes(github: &GitHub) -> usize {
    WRITES.iter().map(|pattern| github.hub.count(pattern)).sum()
}

fn annotation(line: u32) -> Annotation {
    Annotation {
        path: "src/main.rs".into(),
        start_line: line,
        end_line: line,
        column: Some(7),
        level: AnnotationLevel::Failure,
        message: format!("error {line}"),
    }
}

#[tokio::test]
async fn a_run_costs_three_calls_and_is_one_check_run() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let mut shown = Vec::new();
    let mut last = None;
    for state in [StatusState::Queued, StatusState::InProgress, StatusState::Success] {
        last =
            Some(report(&connection, &github.status(state, "run-1"), last.as_ref()).await.unwrap());
        let checks = github.repo.checks(github.commit.as_str());
        assert_eq!(checks.len(), 1);
        let check = checks.into_iter().next().unwrap();
        assert_eq!((check.name.as_str(), check.external_id.as_str()), (CONTEXT, "run-1"));
        assert_eq!(check.title, format!("It is {state:?}"));
        assert_eq!(check.details_url.as_deref(), Some("https://ci.example.com/runs/1"));
        shown.push((check.status, check.conclusion));
    }
    let expected = [
        ("queued".to_owned(), None),
        ("in_progress".to_owned(), None),
        ("completed".to_owned(), Some("success".to_owned())),
    ];
    assert_eq!(shown, expected);
    assert_eq!(github.hub.count("* *check-runs*"), 3);
    assert!(last.unwrap().link.is_some());
}

#[tokio::test]
async fn every_end_has_its_conclusion() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    for (number, (state, conclusion)) in [
        (StatusState::Success, "success"),
        (StatusState::Failure, "failure"),
        (StatusState::Cancelled, "cancelled"),
        (StatusState::TimedOut, "timed_out"),
        (StatusState::Neutral, "neutral"),
        (StatusState::ActionRequired, "action_required"),
    ]
    .into_iter()
    .enumerate()
    {
        report(&connection, &github.status(state, &format!("run-{number}")), None).await.unwrap();
        let newest = github.repo.checks(github.commit.as_str()).pop().unwrap();
        assert_eq!(newest.status, "completed");
        assert_eq!(newest.conclusion.as_deref(), Some(conclusion));
    }
}

#[tokio::test]
async fn what_a_lost_answer_created_is_found_and_not_created_twice() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let queued = github.status(StatusState::Queued, "run-1");
    for fault in [Fault::LostAnswer, Fault::Truncated] {
        github.hub.fail("POST *check-runs", 1, fault);
        let commit = github.repo.push("main", &[("a", &format!("{fault:?}"))]).parse().unwrap();
        let queued = status(&commit, StatusState::Queued, "run-1");
        let lost = report(&connection, &queued, None).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::Transient, "{lost}");
        let found = report_again(&connection, &queued, None).await.unwrap();
        report(&connection, &status(&commit, StatusState::Failure, "run-1"), Some(&found))
            .await
            .unwrap();
        let checks = github.repo.checks(commit.as_str());
        assert_eq!(checks.len(), 1, "{fault:?}: {checks:?}");
        assert_eq!(checks[0].conclusion.as_deref(), Some("failure"));
    }
    // The call did not come to anything: it is created then.
    github.hub.fail("POST *check-runs", 1, Fault::Status(502));
    report(&connection, &queued, None).await.unwrap_err();
    report_again(&connection, &queued, None).await.unwrap();
    assert_eq!(github.repo.checks(github.commit.as_str()).len(), 1);
}

#[tokio::test]
async fn another_attempt_is_another_check_run_and_the_older_one_is_not_left_open() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let first =
        report(&connection, &github.status(StatusState::InProgress, "run-1"), None).await.unwrap();
    let second = report(&connection, &github.status(StatusState::Queued, "run-2"), Some(&first))
        .await
        .unwrap();
    let ended = report(&connection, &github.status(StatusState::Success, "run-2"), Some(&second))
        .await
        .unwrap();
    // A completed one is left as it is.
    report(&connection, &github.status(StatusState::Queued, "run-3"), Some(&ended)).await.unwrap();
    let shown: Vec<_> = github
        .repo
        .checks(github.commit.as_str())
        .into_iter()
        .map(|one| (one.external_id, one.status, one.conclusion.unwrap_or_default()))
        .collect();
    let is = |id: &str, status: &str, conclusion: &str| {
        (id.to_owned(), status.to_owned(), conclusion.to_owned())
    };
    let expected = [
        is("run-1", "completed", "cancelled"),
        is("run-2", "completed", "success"),
        is("run-3", "queued", ""),
    ];
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn an_older_attempt_whose_answer_was_lost_is_not_left_open_either() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    github.hub.fail("POST *check-runs", 1, Fault::LostAnswer);
    report(&connection, &github.status(StatusState::Queued, "run-1"), None).await.unwrap_err();
    report_again(&connection, &github.status(StatusState::Queued, "run-2"), None).await.unwrap();
    let checks = github.repo.checks(github.commit.as_str());
    let shown: Vec<_> = checks.iter().map(|one| (&*one.external_id, &*one.status)).collect();
    assert_eq!(shown, [("run-1", "completed"), ("run-2", "queued")]);
}

#[tokio::test]
async fn what_waits_has_a_button_and_what_runs_then_is_a_new_check_run() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let mut waits = github.status(StatusState::ActionRequired, "note-1");
    waits.actions = vec![StatusAction::Approve { pull_request: 123_456 }];
    let waiting = report(&connection, &waits, None).await.unwrap();
    assert_eq!(github.repo.checks(github.commit.as_str())[0].actions, ["approve:123456"]);
    let mut runs = github.status(StatusState::InProgress, "run-1");
    runs.actions = vec![StatusAction::Cancel];
    let running = report(&connection, &runs, Some(&waiting)).await.unwrap();
    let checks = github.repo.checks(github.commit.as_str());
    assert_eq!(checks[0].conclusion.as_deref(), Some("action_required"));
    assert_eq!((checks.len(), checks[1].actions.clone()), (2, vec!["cancel".to_owned()]));
    report(&connection, &github.status(StatusState::Success, "run-1"), Some(&running))
        .await
        .unwrap();
    assert!(github.repo.checks(github.commit.as_str())[1].actions.is_empty());
}

#[tokio::test]
async fn annotations_come_in_batches_and_each_once_whatever_is_lost() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let begun =
        report(&connection, &github.status(StatusState::InProgress, "run-1"), None).await.unwrap();
    let mut failed = github.status(StatusState::Failure, "run-1");
    failed.annotations = (1..=120).map(annotation).collect();
    // The first call adds 50 and its answer is lost; of the next ones the second fails.
    github.hub.fail("PATCH *check-runs*", 1, Fault::LostAnswer);
    report(&connection, &failed, Some(&begun)).await.unwrap_err();
    let check = || github.repo.checks(github.commit.as_str()).remove(0);
    assert_eq!((check().conclusion.as_deref(), check().annotations.len()), (Some("failure"), 50));
    let ended = report_again(&connection, &failed, Some(&begun)).await.unwrap();
    let expected: Vec<String> = (1..=120).map(|line| format!("error {line}")).collect();
    assert_eq!(check().annotations, expected);
    // Another change of the same status adds none.
    failed.summary.push_str(", and more");
    report(&connection, &failed, Some(&ended)).await.unwrap();
    assert_eq!(check().annotations, expected);
    assert_eq!(writes(&github), 1 + 1 + 2 + 1);
}

#[tokio::test]
async fn annotations_that_are_refused_do_not_keep_the_result_back() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let mut failed = github.status(StatusState::Failure, "run-1");
    failed.annotations = vec![Annotation { start_line: 0, end_line: 0, ..annotation(1) }];
    report(&connection, &failed, None).await.unwrap();
    let check = github.repo.checks(github.commit.as_str()).remove(0);
    assert_eq!((check.conclusion.as_deref(), check.annotations.len()), (Some("failure"), 0));
    github.hub.take_problems();
}

#[tokio::test]
async fn texts_of_any_length_and_script_are_taken() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let mut failed = github.status(StatusState::Failure, "run-1");
    failed.title = String::new();
    failed.summary = "🦀é".repeat(50_000);
    failed.details = format!("a{}", "🦀".repeat(50_000));
    failed.link = Some("/var/lib/workflows/runs/1".to_owned());
    failed.annotations = vec![
        Annotation { message: "🦀".repeat(50_000), ..annotation(1) },
        Annotation { message: String::new(), end_line: 9, ..annotation(3) },
    ];
    report(&connection, &failed, None).await.unwrap();
    let check = github.repo.checks(github.commit.as_str()).remove(0);
    assert_eq!(check.title, CONTEXT);
    assert!(check.summary.len() > 65_530 && check.text.len() > 65_530);
    assert_eq!(check.annotations.len(), 2);
    assert_ne!(check.details_url.as_deref(), Some("/var/lib/workflows/runs/1"));
}

#[tokio::test]
async fn a_check_run_that_is_gone_is_made_anew() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let queued =
        report(&connection, &github.status(StatusState::Queued, "run-1"), None).await.unwrap();
    github.hub.fail("PATCH *check-runs*", 1, Fault::Status(404));
    report(&connection, &github.status(StatusState::Success, "run-1"), Some(&queued))
        .await
        .unwrap();
    let newest = github.repo.checks(github.commit.as_str()).pop().unwrap();
    assert_eq!(newest.conclusion.as_deref(), Some("success"));
}

#[tokio::test]
async fn a_check_run_that_not_all_of_github_knows_yet_is_not_made_twice_nor_left_open() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let fault = || github.hub.fail("PATCH *check-runs*", 1, Fault::NotYetThere);
    let queued = github.status(StatusState::Queued, "run-1");
    let first = report(&connection, &queued, None).await.unwrap();
    fault();
    let going_on = github.status(StatusState::InProgress, "run-1");
    let first = report(&connection, &going_on, Some(&first)).await.unwrap();
    assert_eq!(github.repo.checks(github.commit.as_str()).len(), 1);
    // Another attempt takes its place.
    fault();
    let again = github.status(StatusState::Queued, "run-2");
    report(&connection, &again, Some(&first)).await.unwrap();
    let checks = github.repo.checks(github.commit.as_str());
    let shown: Vec<_> = checks.iter().map(|one| (&*one.external_id, &*one.status)).collect();
    assert_eq!(shown, [("run-1", "completed"), ("run-2", "queued")]);
}

#[tokio::test]
async fn of_two_check_runs_about_the_same_both_end_alike() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let queued = github.status(StatusState::Queued, "run-1");
    // A call that was slow: it is looked for before it has come to anything.
    let ours = report_again(&connection, &queued, None).await.unwrap();
    report(&connection, &queued, None).await.unwrap();
    report(&connection, &github.status(StatusState::Failure, "run-1"), Some(&ours)).await.unwrap();
    let checks = github.repo.checks(github.commit.as_str());
    let conclusions: Vec<_> = checks.iter().map(|one| one.conclusion.as_deref()).collect();
    assert_eq!(conclusions, [Some("failure"), Some("failure")]);
}

#[tokio::test]
async fn a_stale_process_does_not_open_what_was_completed() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    report(&connection, &github.status(StatusState::Success, "run-1"), None).await.unwrap();
    let stale = github.status(StatusState::InProgress, "run-1");
    let stale = report_again(&connection, &stale, None);
    assert_eq!(stale.await.unwrap_err().kind(), ErrorKind::Conflict);
    let checks = github.repo.checks(github.commit.as_str());
    assert_eq!((checks.len(), checks[0].status.as_str()), (1, "completed"));
}

#[tokio::test]
async fn a_commit_that_is_not_known_is_not_found() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let unknown = "0123456789012345678901234567890123456789".parse().unwrap();
    let mut queued = status(&unknown, StatusState::Queued, "run-1");
    queued.annotations = vec![annotation(1)];
    for outcome in
        [report(&connection, &queued, None).await, report_again(&connection, &queued, None).await]
    {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
    }
}
