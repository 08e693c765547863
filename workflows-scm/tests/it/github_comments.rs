//! The one comment on a pull request, and reactions.

use std::sync::Arc;

use workflows_core::{ErrorKind, RepoConnection};
use workflows_github_standin::{Fault, ShownComment};

use super::github_world::GitHub;

const MARKER: &str = "workflows/default/commands";

fn pull_request(github: &GitHub) -> u64 {
    github.repo.push("topic", &[("src/lib.rs", "// soon\n")]);
    github.repo.as_user("alice").open_pull_request("Do it", "topic", "main")
}

async fn write(
    connection: &Arc<dyn RepoConnection>,
    number: u64,
    body: &str,
    known: Option<&str>,
) -> workflows_core::Result<String> {
    connection.commenter().unwrap().upsert(number, MARKER, body, known).await
}

fn bodies(comments: &[ShownComment]) -> Vec<&str> {
    comments.iter().map(|one| one.body.lines().last().unwrap_or_default()).collect()
}

#[tokio::test]
async fn one_comment_is_kept_up_to_date() {
    for github in [GitHub::with_app(), GitHub::with_token()] {
        let connection = github.connect().await;
        let number = pull_request(&github);
        let id = write(&connection, number, "one", None).await.unwrap();
        assert_eq!(write(&connection, number, "two", Some(&id)).await.unwrap(), id);
        assert_eq!(bodies(&github.repo.comments(number)), ["two"]);
        // The id was lost with the ledger.
        assert_eq!(write(&connection, number, "three", None).await.unwrap(), id);
        assert_eq!(bodies(&github.repo.comments(number)), ["three"]);
    }
}

#[tokio::test]
async fn a_comment_whose_answer_was_lost_is_not_written_twice() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let number = pull_request(&github);
    // It is found behind a page of what others wrote.
    for n in 0..120 {
        github.repo.as_user("alice").comment(number, &format!("comment {n}"));
    }
    github.hub.fail("POST *comments", 1, Fault::LostAnswer);
    let lost = write(&connection, number, "one", None).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Transient);
    write(&connection, number, "one", None).await.unwrap();
    let ours = github.repo.comments(number).split_off(120);
    assert_eq!(bodies(&ours), ["one"]);
}

#[tokio::test]
async fn a_comment_of_somebody_else_is_never_ours_whatever_it_holds() {
    for github in [GitHub::with_app(), GitHub::with_token()] {
        let connection = github.connect().await;
        let number = pull_request(&github);
        let id = write(&connection, number, "one", None).await.unwrap();
        let marker = github.repo.comments(number)[0].body.clone();
        github.repo.push("another", &[("b", "1")]);
        let other = github.repo.as_user("alice").open_pull_request("Again", "another", "main");
        github.repo.as_user("mallory").comment(other, &marker);
        let ours = write(&connection, other, "two", None).await.unwrap();
        assert_ne!(ours, id);
        let comments = github.repo.comments(other);
        assert_eq!(bodies(&comments), ["one", "two"]);
        assert_eq!(comments[0].author, "mallory");
    }
}

#[tokio::test]
async fn a_comment_that_was_deleted_is_written_anew() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let number = pull_request(&github);
    let id = write(&connection, number, "one", None).await.unwrap();
    github.hub.fail("PATCH *issues/comments*", 2, Fault::Status(404));
    let anew = write(&connection, number, "two", Some(&id)).await.unwrap();
    assert_ne!(anew, id);
    assert_eq!(bodies(&github.repo.comments(number)), ["one", "two"]);
}

#[tokio::test]
async fn a_long_comment_is_cut_between_characters() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let number = pull_request(&github);
    write(&connection, number, &"🦀".repeat(60_000), None).await.unwrap();
    let body = &github.repo.comments(number)[0].body;
    assert!(body.ends_with('🦀') && body.len() > 64_000, "{}", body.len());
}

#[tokio::test]
async fn commands_get_one_reaction_wherever_they_stand() {
    let github = GitHub::with_app();
    let connection = github.connect().await;
    let number = pull_request(&github);
    let alice = github.repo.as_user("alice");
    let commenter = connection.commenter().unwrap();
    let said = alice.comment(number, "/test");
    let refused = alice.comment(number, "/cancel");
    let on_line = alice.comment_on_line(number, "src/lib.rs", 1, "/test");
    let on_commit = alice.comment_on_commit(github.commit.as_str(), "/test");
    let review = alice.review(number, "COMMENTED", "/test");
    for _ in 0..2 {
        commenter.acknowledge(number, &said.to_string(), true).await.unwrap();
        commenter.acknowledge(number, &refused.to_string(), false).await.unwrap();
        commenter.acknowledge(number, &format!("line-{on_line}"), true).await.unwrap();
        commenter.acknowledge(number, &format!("commit-{on_commit}"), true).await.unwrap();
        commenter.acknowledge(number, &format!("review-{review}"), true).await.unwrap();
    }
    let reactions: Vec<Vec<String>> =
        github.repo.comments(number).into_iter().map(|one| one.reactions).collect();
    assert_eq!(reactions, [vec!["ci[bot] rocket".to_owned()], vec!["ci[bot] confused".to_owned()]]);
    assert_eq!(github.hub.count("POST *reactions"), 8, "a review takes none");

    let gone = commenter.acknowledge(number, "999999999", true).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let wrong = commenter.acknowledge(number, "nonsense", true).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Invalid);
}
