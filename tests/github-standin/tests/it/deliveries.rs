//! Hooks and what they are sent.

use std::sync::{Arc, Mutex};

use axum::{Router, http::HeaderMap, routing::post};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use jiff::SignedDuration;
use serde_json::json;
use sha2::Sha256;
use workflows_core::Clock;

use crate::client::{Client, hub};

type Received = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// A server that takes everything.
async fn receiver() -> (String, Received) {
    let received = Received::default();
    let kept = Arc::clone(&received);
    let router = Router::new().route(
        "/hook",
        post(move |headers: HeaderMap, body: Bytes| {
            kept.lock().unwrap().push((headers, body));
            async { "ok" }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, received)
}

#[tokio::test]
async fn events_are_signed_and_logged() {
    let (hub, _) = hub();
    let (url, received) = receiver().await;
    let repo = hub.create_repo("acme/api");
    let hook = repo.add_hook(&url, "s3cret", &["push", "pull_request"]);
    repo.push("main", &[("a", "1")]);
    repo.push("topic", &[("a", "2")]);
    let number = repo.open_pull_request("Do it", "topic", "main");
    repo.comment(number, "not told");
    hub.settle().await;
    let received: Vec<_> = received.lock().unwrap().drain(..).collect();
    let events: Vec<_> =
        received.iter().map(|(headers, _)| headers["x-github-event"].to_str().unwrap()).collect();
    assert_eq!(events, ["ping", "push", "push", "pull_request"]);
    for (headers, body) in &received {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(body);
        let signed = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        assert_eq!(headers["x-hub-signature-256"].to_str().unwrap(), format!("sha256={signed}"));
    }
    let client = Client::new(&hub, Some(&hub.token_of("acme")));
    let path = format!("/repos/acme/api/hooks/{hook}/deliveries");
    let first = client.get(&format!("{path}?per_page=3")).await;
    assert_eq!(first.body[0]["event"], "pull_request");
    assert_eq!(first.body[0]["status_code"], 200);
    let rest = client.get(&first.link("next").unwrap()).await;
    assert_eq!(rest.body[0]["event"], "ping");
    let whole = client.get(&format!("{path}/{}", first.body[0]["id"])).await;
    assert_eq!(whole.body["request"]["payload"]["action"], "opened");
}

#[tokio::test]
async fn a_failed_delivery_is_not_repeated_but_can_be_sent_again() {
    let (hub, clock) = hub();
    let (url, received) = receiver().await;
    let app = hub.create_app("ci");
    app.hook(&url, "s3cret");
    let repo = hub.create_repo("acme/api");
    hub.hooks_unreachable(true);
    app.install("acme");
    let head = repo.push("main", &[("a", "1")]);
    hub.settle().await;
    assert!(received.lock().unwrap().is_empty());
    hub.hooks_unreachable(false);
    let client = Client::as_app(&hub, &app, clock.now(), 540);
    let logged = client.get("/app/hook/deliveries").await;
    let push = logged.body.as_array().unwrap().iter().find(|one| one["event"] == "push").unwrap();
    assert_eq!(push["status_code"], 502);
    let guid = push["guid"].clone();
    let path = format!("/app/hook/deliveries/{}", push["id"]);
    let whole = client.get(&path).await;
    assert_eq!(whole.body["request"]["payload"]["after"], head);
    assert_eq!(client.post(&format!("{path}/attempts"), json!({})).await.status, 202);
    hub.settle().await;
    let received: Vec<_> = received.lock().unwrap().drain(..).collect();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].0["x-github-delivery"].to_str().unwrap(), guid);
    let logged = client.get("/app/hook/deliveries").await;
    assert_eq!(logged.body[0]["redelivery"], true);
    assert_eq!(logged.body[0]["guid"], guid);
    clock.advance(SignedDuration::from_hours(73));
    let client = Client::as_app(&hub, &app, clock.now(), 540);
    assert_eq!(client.get("/app/hook/deliveries").await.body, json!([]));
}

#[tokio::test]
async fn of_a_push_of_many_refs_nobody_is_told() {
    let (hub, _) = hub();
    let (url, _) = receiver().await;
    let repo = hub.create_repo("acme/api");
    let head = repo.push("main", &[("a", "1")]);
    repo.add_hook(&url, "s3cret", &["push", "create"]);
    let told = |refs: &[String]| {
        let before = hub.deliveries().len();
        let refs: Vec<(&str, &str)> =
            refs.iter().map(|name| (name.as_str(), head.as_str())).collect();
        repo.push_refs(&refs);
        hub.deliveries().len() - before
    };
    let names = |kind: &str, from: usize, to: usize| -> Vec<String> {
        (from..to).map(|number| format!("refs/{kind}/n{number}")).collect()
    };
    assert_eq!(told(&names("tags", 0, 3)), 6);
    assert_eq!(told(&names("tags", 3, 7)), 0);
    assert_eq!(told(&names("heads", 0, 4)), 8);
    assert_eq!(told(&names("heads", 4, 5_005)), 0);
}

#[tokio::test]
async fn every_event_conforms() {
    let (hub, clock) = hub();
    let (url, received) = receiver().await;
    let app = hub.create_app("ci");
    app.hook(&url, "s3cret");
    let repo = hub.create_repo("acme/api");
    let installation = app.install("acme");
    let first = repo.push("main", &[("a", "1")]);
    repo.push("other", &[("o", "1")]);
    let head = repo.push("topic", &[("a", "2")]);
    let number = repo.open_draft("Do it", "topic", "main");
    repo.mark_ready(number);
    repo.convert_to_draft(number);
    repo.mark_ready(number);
    repo.label(number, "bug");
    repo.unlabel(number, "bug");
    repo.retarget(number, "other");
    repo.retarget(number, "main");
    repo.rename_pull_request(number, "Do it now");
    repo.comment(number, "/test");
    repo.comment_on_line(number, "a", 1, "why?");
    repo.comment_on_commit(&head, "/test");
    repo.review(number, "APPROVED", "fine");
    repo.close(number);
    repo.reopen(number);
    repo.push("topic", &[("a", "3")]);
    repo.force_push("topic", &head);
    repo.tag("v1", &first);
    repo.release("v1");
    repo.delete_tag("v1");
    repo.queue(number);
    repo.dispatch("deploy", json!({ "to": "production" }));
    let client = Client::of_installation(&hub, &app, installation, clock.now(), json!({})).await;
    let action = json!({ "label": "Approve", "description": "d", "identifier": "approve" });
    let made = client
        .post(
            "/repos/acme/api/check-runs",
            json!({ "name": "ci", "head_sha": head, "actions": [action] }),
        )
        .await;
    let check = made.body["id"].as_u64().unwrap();
    client
        .patch(&format!("/repos/acme/api/check-runs/{check}"), json!({ "conclusion": "failure" }))
        .await;
    repo.rerun_check(check);
    repo.press(check, "approve");
    repo.rerun_all_checks(&head);
    repo.merge(number);
    repo.delete_branch("topic");
    app.suspend("acme", true);
    app.suspend("acme", false);
    app.uninstall("acme");
    hub.settle().await;
    let mut events: Vec<String> = hub
        .deliveries()
        .into_iter()
        .map(|one| match one.action {
            Some(action) => format!("{}.{action}", one.event),
            None => one.event,
        })
        .collect();
    assert_eq!(events.len(), received.lock().unwrap().len());
    events.sort();
    events.dedup();
    // The hub itself checks each against GitHub's description, and tells when it is dropped.
    let expected = [
        "check_run.completed",
        "check_run.created",
        "check_run.requested_action",
        "check_run.rerequested",
        "check_suite.completed",
        "check_suite.requested",
        "check_suite.rerequested",
        "commit_comment.created",
        "create",
        "delete",
        "installation.created",
        "installation.deleted",
        "installation.suspend",
        "installation.unsuspend",
        "issue_comment.created",
        "merge_group.checks_requested",
        "pull_request.closed",
        "pull_request.converted_to_draft",
        "pull_request.edited",
        "pull_request.labeled",
        "pull_request.opened",
        "pull_request.ready_for_review",
        "pull_request.reopened",
        "pull_request.synchronize",
        "pull_request.unlabeled",
        "pull_request_review.submitted",
        "pull_request_review_comment.created",
        "push",
        "release.published",
        "repository_dispatch.deploy",
    ];
    assert_eq!(events, expected);
}

#[tokio::test]
async fn hooks_are_administered() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let client = Client::new(&hub, Some(&hub.token_of("acme")));
    let hook = |url: &str| {
        json!({
            "name": "web", "events": ["push"], "active": true,
            "config": { "url": url, "content_type": "json", "secret": "x" },
        })
    };
    let path = "/repos/acme/api/hooks";
    let made = client.post(path, hook("http://127.0.0.1:9/a")).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["config"]["secret"], "********");
    assert_eq!(client.post(path, hook("http://127.0.0.1:9/a")).await.status, 422);
    for number in 1..20 {
        let url = format!("http://127.0.0.1:9/{number}");
        assert_eq!(client.post(path, hook(&url)).await.status, 201);
    }
    let too_many = client.post(path, hook("http://127.0.0.1:9/more")).await;
    assert!(too_many.body.to_string().contains("more than 20 hooks"), "{}", too_many.body);
    assert_eq!(repo.hooks().len(), 20);
    let outsider = Client::new(&hub, Some(&hub.token_of("mallory")));
    assert_eq!(outsider.get(path).await.status, 404);
    hub.settle().await;
}
