//! What GitHub tells nobody, found by looking.

use std::sync::Arc;

use jiff::SignedDuration;
use workflows_core::EventKind;
use workflows_scm::poll::RefPoller;

use crate::{
    github_world::{As, GitHub},
    poll_support::Bench,
    process::SECRET,
};

#[tokio::test]
async fn more_than_three_tags_of_one_push_are_told_to_no_webhook_and_found_by_looking() {
    let github = GitHub::with_app();
    let As::App(app) = &github.known_as else { unreachable!("it is an App") };
    app.hook("http://127.0.0.1:9/", SECRET);
    let mut bench = Bench::over(github.clock.clone());
    bench.drive("github", Arc::new(github.driver()));
    bench.kinds = vec![EventKind::TAG];
    bench.want(&[("acme/api", &["refs/tags/"])]);
    bench.start(RefPoller::every(SignedDuration::from_mins(1)).unwrap());
    bench.through().await;

    let at = github.commit.as_str();
    let tags = ["refs/tags/a", "refs/tags/b", "refs/tags/c", "refs/tags/d"];
    github.repo.push_refs(&tags.map(|name| (name, at)));
    github.hub.settle().await;
    assert_eq!(github.hub.deliveries().len(), 0);
    bench.after(SignedDuration::from_secs(70)).await;
    let mut heard = bench.heard().await;
    heard.sort();
    assert_eq!(heard, tags.map(|name| format!("created {name}")));
    bench.stop().await;
}
