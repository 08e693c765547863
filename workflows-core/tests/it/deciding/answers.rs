//! How commands in comments are answered: by a reaction, and by one comment of the engine's own.

use jiff::SignedDuration;
use workflows_core::{ErrorKind, conformance::ScmCall, repo::StatusAction};

use super::world::{CI, World};

async fn opened(world: &World) -> u64 {
    world.repo.push("alice", "feature", &[("a", "1")]);
    let (number, opened) = world.repo.open_pull_request("alice", "feature", "main");
    world.hears(opened).await;
    number
}

async fn comments(world: &World, by: &str, number: u64, body: &str) -> String {
    let event = world.hears(world.repo.comment(by, number, body)).await.unwrap();
    event.comment.unwrap().id.to_string()
}

async fn waits(world: &World, seconds: i64) {
    for _ in 0..seconds / 60 {
        world.passes(SignedDuration::from_secs(60));
        world.settles().await;
    }
}

#[tokio::test]
async fn a_command_that_was_carried_out_gets_a_reaction_and_no_comment() {
    let world = World::with(CI);
    let number = opened(&world).await;
    let id = comments(&world, "alice", number, "/test").await;
    assert_eq!(world.repo.acknowledged(&id), Some(true));
    assert!(world.repo.sticky_comments(number).is_empty());
}

#[tokio::test]
async fn a_comment_without_a_command_is_not_answered() {
    let world = World::with(CI);
    let number = opened(&world).await;
    let id = comments(&world, "alice", number, "please test this").await;
    assert_eq!(world.repo.acknowledged(&id), None);
    assert_eq!(world.scm.calls(ScmCall::UpsertComment), 0);
}

#[tokio::test]
async fn a_refusal_is_explained_in_one_comment_that_is_kept_up_to_date() {
    let world = World::with(CI);
    let number = opened(&world).await;
    let id = comments(&world, "mallory", number, "/test | @all").await;
    assert_eq!(world.repo.acknowledged(&id), Some(false));
    let first = world.repo.sticky_comments(number);
    let (marker, body) = first.first_key_value().unwrap();
    assert_eq!((first.len(), marker.as_str()), (1, "workflows/default/commands"));
    assert!(body.contains("`mallory`"), "{body}");

    comments(&world, "alice", number, "/retest nothing").await;
    comments(&world, "alice", number, "/test").await;
    let now = world.repo.sticky_comments(number);
    assert_eq!(now.len(), 1);
    let rows: Vec<&str> = now[marker].lines().filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows[0].contains("`/test`") && rows[0].contains("done"), "{rows:?}");
    assert!(rows[1].contains("`/retest nothing`") && rows[1].contains("**failed**"), "{rows:?}");
    assert!(rows[2].contains("`mallory`"), "{rows:?}");
}

#[tokio::test]
async fn answers_wait_for_a_host_that_is_down_and_hold_nothing_back() {
    let world = World::with(CI);
    let number = opened(&world).await;
    world.scm.fail_next(ScmCall::Acknowledge, ErrorKind::Transient, "502");
    world.scm.fail_next(ScmCall::UpsertComment, ErrorKind::Denied, "no permission yet");
    let id = comments(&world, "alice", number, "/test\n/retest unknown").await;
    assert_eq!(world.runs().await.len(), 2, "the run does not wait for its answer");
    assert_eq!(world.repo.acknowledged(&id), None);
    assert!(world.repo.sticky_comments(number).is_empty());
    waits(&world, 120).await;
    assert_eq!(world.repo.acknowledged(&id), Some(false), "one of both was not carried out");
    assert_eq!(world.repo.sticky_comments(number).len(), 1);
}

#[tokio::test]
async fn an_answer_that_was_lost_or_whose_record_was_lost_is_given_once_more_and_changes_nothing() {
    let world = World::with(CI);
    let number = opened(&world).await;
    world.scm.lose_next_answer(ScmCall::Acknowledge);
    world.scm.lose_next_answer(ScmCall::UpsertComment);
    let id = comments(&world, "mallory", number, "/cancel").await;
    waits(&world, 120).await;
    assert_eq!(world.repo.acknowledged(&id), Some(false));
    assert_eq!(world.repo.sticky_comments(number).len(), 1);
    assert_eq!(world.scm.calls(ScmCall::Acknowledge), 2);
    assert_eq!(world.scm.calls(ScmCall::UpsertComment), 2);
    waits(&world, 600).await;
    assert_eq!(world.scm.calls(ScmCall::UpsertComment), 2, "nothing is left to do");
}

#[tokio::test]
async fn a_comment_that_is_gone_and_a_host_that_takes_no_comments_are_left() {
    let world = World::with(CI);
    let number = opened(&world).await;
    world.scm.fail_next(ScmCall::Acknowledge, ErrorKind::NotFound, "the comment was deleted");
    let id = comments(&world, "alice", number, "/test").await;
    waits(&world, 600).await;
    assert_eq!(world.repo.acknowledged(&id), None);
    assert_eq!(world.scm.calls(ScmCall::Acknowledge), 1);

    world.scm.fail_next(ScmCall::UpsertComment, ErrorKind::Unsupported, "there are no comments");
    comments(&world, "mallory", number, "/test").await;
    waits(&world, 600).await;
    assert_eq!(world.scm.calls(ScmCall::UpsertComment), 1);
    assert!(world.repo.sticky_comments(number).is_empty());
}

#[tokio::test]
async fn what_waits_says_for_whom_and_offers_the_approval_of_that_pull_request() {
    let world = World::with(CI);
    let (number, opened) = world.repo.open_fork_pull_request("mallory", "main", &[("a", "1")]);
    world.hears(opened).await;
    let head = world.repo.pull_request(number).head.sha;
    let status = world.status(&head, "workflows/ci");
    assert_eq!(status.title, "waits for the approval of somebody with write access to acme/api");
    assert_eq!(status.actions, [StatusAction::Approve { pull_request: number }]);
}
