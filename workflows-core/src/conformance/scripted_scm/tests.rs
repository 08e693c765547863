use std::sync::Arc;

use futures::TryStreamExt;

use super::{ScmCall, ScriptedScm};
use crate::{
    Capability, CommitId, ErrorKind, RepoConnection, ScmDriver, SubjectClaim,
    event::{Before, PullRequestState},
    repo::{EarlierReport, FileChange, ListOptions, ReadLimit, Status, StatusState},
};

async fn connect(scm: &ScriptedScm, repo: &str) -> Arc<dyn RepoConnection> {
    scm.connect(&scm.connection(), repo).await.unwrap()
}

fn status(commit: CommitId, state: StatusState, external_id: &str) -> Status {
    Status {
        commit,
        context: "w/ci".into(),
        state,
        title: String::new(),
        summary: String::new(),
        details: String::new(),
        annotations: Vec::new(),
        actions: Vec::new(),
        link: None,
        external_id: external_id.into(),
        started_at: None,
        finished_at: None,
    }
}

#[tokio::test]
async fn files_of_commits_are_laid_over_those_before() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1"), ("d/b", "2"), ("d/e/c", "3")]);
    let first = repo.head("main");
    repo.push("alice", "main", &[("a", ""), ("d/b", "changed")]);
    let second = repo.head("main");

    let connection = connect(&scm, "acme/api").await;
    let read = connection.read_file(&second, "d/b", ReadLimit::default()).await.unwrap();
    assert_eq!(&read[..], b"changed");
    let gone = connection.read_file(&second, "a", ReadLimit::default()).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let changed: Vec<_> =
        connection.changed_files(Some(&first), &second).try_collect().await.unwrap();
    let changed: Vec<_> = changed.iter().map(|file| (&*file.path, file.change)).collect();
    assert_eq!(changed, [("a", FileChange::Deleted), ("d/b", FileChange::Modified)]);

    let flat = connection.list_directory(&second, "d", ListOptions::default()).await.unwrap();
    let paths: Vec<&str> = flat.entries.iter().map(|entry| &*entry.path).collect();
    assert_eq!(paths, ["b", "e"]);
    let deep = connection.list_directory(&second, "d", ListOptions::recursive()).await.unwrap();
    let paths: Vec<&str> = deep.entries.iter().map(|entry| &*entry.path).collect();
    assert_eq!(paths, ["b", "e/c"]);
}

#[tokio::test]
async fn a_directory_keeps_its_digest_while_its_content_stays() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[(".tekton/ci.yaml", "x")]);
    let first = repo.head("main");
    repo.push("alice", "main", &[("README.md", "y")]);
    let second = repo.head("main");
    repo.push("alice", "main", &[(".tekton/ci.yaml", "z")]);
    let third = repo.head("main");
    let connection = connect(&scm, "acme/api").await;
    let mut digests = Vec::new();
    for commit in [first, second, third] {
        let listing = connection.list_directory(&commit, ".tekton", ListOptions::default()).await;
        digests.push(listing.unwrap().digest.unwrap());
    }
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[1], digests[2]);
}

#[test]
fn pushes_chain_and_force_pushes_leave_the_chain() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    let claim = |observation: crate::Observation| match observation.claim {
        SubjectClaim::Ref(claim) => claim,
        other => panic!("a push claims a ref: {other:?}"),
    };
    let first = claim(repo.push("alice", "main", &[("a", "1")]));
    let second = claim(repo.push("alice", "main", &[("a", "2")]));
    let third = claim(repo.force_push("alice", "main", &[("a", "3")]));
    assert_eq!(first.before, Before::Was(None));
    assert_eq!(second.before, Before::Was(first.after.clone()));
    assert_eq!(third.before, Before::Was(second.after.clone()));
    assert_eq!(third.forced, Some(true));
    assert_ne!(third.after, second.after);
}

#[tokio::test]
async fn a_pull_request_lives_as_at_a_host() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    repo.push("alice", "release/1", &[("r", "1")]);
    let (number, _) = repo.open_fork_pull_request("mallory", "main", &[("a", "2")]);
    let opened = repo.pull_request(number);
    assert!(opened.fork);
    repo.push_to_pull_request(number, &[("a", "3")]);
    repo.edit_pull_request("alice", number, |pull_request| {
        pull_request.base.reference = "refs/heads/release/1".into();
        pull_request.state = PullRequestState::Closed;
    });
    repo.label("alice", number, "bug");

    let connection = connect(&scm, "acme/api").await;
    let now = connection.pull_requests().unwrap().get(number).await.unwrap();
    assert_ne!(now.head.sha, opened.head.sha);
    assert_eq!(now.base.sha, repo.head("release/1"));
    assert_eq!(now.labels, ["bug".into()]);
    assert!(now.updated_at > opened.updated_at);
    assert!(
        connection.history().unwrap().is_ancestor(&opened.head.sha, &now.head.sha).await.unwrap()
    );
}

#[tokio::test]
async fn a_status_never_goes_backwards_within_its_owner() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    let head = repo.head("main");
    let connection = connect(&scm, "acme/api").await;
    let reporter = connection.status_reporter().unwrap();
    reporter
        .report(&status(head.clone(), StatusState::Success, "run-1"), EarlierReport::default())
        .await
        .unwrap();
    let backwards = reporter
        .report(&status(head.clone(), StatusState::Queued, "run-1"), EarlierReport::default())
        .await;
    assert_eq!(backwards.unwrap_err().kind(), ErrorKind::Conflict);
    reporter
        .report(&status(head.clone(), StatusState::Queued, "run-2"), EarlierReport::default())
        .await
        .unwrap();
    assert_eq!(repo.status_history(&head, "w/ci").len(), 2);
}

#[tokio::test]
async fn a_lost_answer_leaves_its_work_done() {
    let scm = ScriptedScm::new();
    let repo = scm.create("acme/api");
    repo.push("alice", "main", &[("a", "1")]);
    let head = repo.head("main");
    let connection = connect(&scm, "acme/api").await;
    scm.lose_next_answer(ScmCall::ReportStatus);
    let lost = connection
        .status_reporter()
        .unwrap()
        .report(&status(head.clone(), StatusState::Success, "run-1"), EarlierReport::default())
        .await;
    assert_eq!(lost.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(repo.status(&head, "w/ci").unwrap().state, StatusState::Success);

    scm.go_down();
    assert_eq!(
        connection.resolve("refs/heads/main").await.unwrap_err().kind(),
        ErrorKind::Transient
    );
    scm.come_back();
    assert!(connection.resolve("refs/heads/main").await.is_ok());
}

#[tokio::test]
async fn a_power_that_is_taken_away_is_not_offered() {
    let scm = ScriptedScm::new();
    scm.create("acme/api");
    let poor = scm.clone().without(Capability::Permissions);
    assert!(connect(&poor, "acme/api").await.permissions().is_none());
    assert!(!poor.capabilities().has(Capability::Permissions));
    assert!(connect(&scm, "acme/api").await.permissions().is_some());
}
