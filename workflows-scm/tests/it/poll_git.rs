//! Polling a real repository.

use std::sync::Arc;

use jiff::SignedDuration;
use workflows_scm::{git::GitDriver, poll::RefPoller};

use crate::{
    poll_support::Bench,
    support::{Root, http::Server},
};

const A_WHILE: SignedDuration = SignedDuration::from_secs(67);

#[tokio::test]
async fn pushes_to_a_real_repository_are_found_with_one_request_a_look() {
    let root = Root::new();
    let repo = root.repository("api");
    repo.commit_file("a", "1");
    let server = Server::start(root.path()).await;
    let driver = GitDriver::at(&*server.url).unwrap();
    let mut bench = Bench::new("git", Arc::new(driver));
    bench.want(&[("api", &["refs/heads/main", "refs/tags/"])]);
    bench.start(RefPoller::every(SignedDuration::from_mins(1)).unwrap());
    bench.through().await;
    server.take_seen();

    bench.after(A_WHILE).await;
    let seen = server.take_seen();
    assert_eq!(seen.len(), 1, "an idle look is one request: {seen:?}");
    assert!(seen[0].answered < 100 && seen[0].sent < 300, "{seen:?}");

    let before = repo.head();
    repo.commit_file("a", "2");
    let after = repo.commit_file("a", "3");
    repo.git(&["tag", "-a", "-m", "One", "v1"]);
    bench.after(A_WHILE).await;
    repo.git(&["commit", "-q", "--amend", "-m", "Other words"]);
    bench.after(A_WHILE).await;
    repo.git(&["tag", "-d", "v1"]);
    bench.after(A_WHILE).await;

    assert_eq!(
        bench.heard().await,
        [
            "updated refs/heads/main",
            "created refs/tags/v1",
            "forced refs/heads/main",
            "deleted refs/tags/v1",
        ]
    );
    let events = bench.events().await;
    assert_eq!(events[0].base.as_ref().unwrap().sha, before);
    assert_eq!(events[0].head.as_ref().unwrap().sha, after);
    assert_eq!(events[1].head.as_ref().unwrap().sha, after, "the tag is peeled");
}
