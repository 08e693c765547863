//! What goes wrong on request.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::Method;
use serde_json::json;
use workflows_core::Clock;
use workflows_github_standin::Fault;

use crate::client::{Client, hub};

#[tokio::test]
async fn calls_fail_as_often_as_planned() {
    let (hub, clock) = hub();
    hub.create_repo("acme/api");
    let client = Client::new(&hub, None);
    let repo = || client.get("/repos/acme/api");
    hub.fail("GET /repos/{owner}/{repo}", 2, Fault::Status(502));
    assert_eq!(repo().await.status, 502);
    assert_eq!(repo().await.status, 502);
    assert_eq!(repo().await.status, 200);
    hub.fail("* /repos/acme/*", 1, Fault::TooManyRequests(Some(7)));
    let limited = repo().await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (429, Some("7")));
    hub.fail("GET *", 1, Fault::SecondaryLimit(None));
    let limited = repo().await;
    assert_eq!((limited.status.as_u16(), limited.header("retry-after")), (403, None));
    hub.fail("GET *", 1, Fault::NotYetThere);
    assert_eq!(repo().await.status, 404);
    hub.fail_until("GET *", clock.now() + SignedDuration::from_mins(30), Fault::Status(503));
    assert_eq!(repo().await.status, 503);
    clock.advance(SignedDuration::from_mins(30));
    assert_eq!(repo().await.status, 200);
}

#[tokio::test]
async fn a_lost_answer_has_its_effect() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let issue = repo.open_issue("Talk");
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    let path = format!("/repos/acme/api/issues/{issue}/comments");
    for fault in [Fault::LostAnswer, Fault::Truncated] {
        hub.fail("POST *", 1, fault);
        let sent = client.send(Method::POST, &path, Some(json!({ "body": "hello" })), &[]).await;
        let read = async { sent?.bytes().await };
        assert!(read.await.is_err(), "{fault:?}");
    }
    assert_eq!(repo.comments(issue).len(), 2);
}

#[tokio::test]
async fn a_call_hangs() {
    let (hub, _) = hub();
    hub.create_repo("acme/api");
    hub.fail("GET *", 1, Fault::Hang);
    let client = Client::new(&hub, None);
    let waited = tokio::time::timeout(
        Duration::from_millis(200),
        client.send(Method::GET, "/repos/acme/api", None, &[]),
    );
    assert!(waited.await.is_err());
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
}
