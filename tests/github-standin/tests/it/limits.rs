//! Limits, and answers that did not change.

use jiff::SignedDuration;
use serde_json::json;

use crate::client::{Client, hub};

#[tokio::test]
async fn what_did_not_change_is_not_counted() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    repo.push("main", &[("a", "1")]);
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    let path = "/repos/acme/api/branches";
    let first = client.get(path).await;
    let left = |answer: &crate::client::Answer| {
        answer.header("x-ratelimit-remaining").unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(left(&first), 4_999);
    let tag = first.header("etag").unwrap().to_owned();
    let again = client.get_with(path, &[("if-none-match", &tag)]).await;
    assert_eq!(again.status, 304);
    assert_eq!(left(&again), 4_999);
    // Another credential has another tag.
    let other = Client::new(&hub, Some(&hub.token_of("bob")));
    assert_eq!(other.get_with(path, &[("if-none-match", &tag)]).await.status, 200);
    repo.push("main", &[("a", "2")]);
    let changed = client.get_with(path, &[("if-none-match", &tag)]).await;
    assert_eq!(changed.status, 200);
    assert_eq!(left(&changed), 4_998);
    assert_eq!(hub.count("GET /repos/{owner}/{repo}/branches"), 4);
}

#[tokio::test]
async fn an_hour_has_its_calls() {
    let (hub, clock) = hub();
    hub.create_repo("acme/api");
    hub.limits(|limits| limits.core = 2);
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
    let refused = client.get("/repos/acme/api").await;
    assert_eq!(refused.status, 403);
    assert!(refused.message().starts_with("API rate limit exceeded"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let told = client.get("/rate_limit").await;
    assert_eq!(told.status, 403);
    clock.advance(SignedDuration::from_hours(1));
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
    let told = client.get("/rate_limit").await;
    assert_eq!(told.body["resources"]["core"]["used"], 1);
}

#[tokio::test]
async fn a_minute_has_its_points() {
    let (hub, clock) = hub();
    let repo = hub.create_repo("acme/api");
    let issue = repo.open_issue("Talk");
    hub.limits(|limits| {
        limits.points_a_minute = 11;
        limits.content_a_minute = 1;
    });
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    let path = format!("/repos/acme/api/issues/{issue}/comments");
    assert_eq!(client.post(&path, json!({ "body": "one" })).await.status, 201);
    let refused = client.post(&path, json!({ "body": "two" })).await;
    assert_eq!(refused.status, 403);
    assert!(refused.message().contains("secondary rate limit"));
    assert_eq!(refused.header("retry-after"), Some("60"));
    for _ in 0..6 {
        assert_eq!(client.get("/repos/acme/api").await.status, 200);
    }
    assert_eq!(client.get("/repos/acme/api").await.status, 403);
    clock.advance(SignedDuration::from_secs(61));
    assert_eq!(client.post(&path, json!({ "body": "two" })).await.status, 201);
}

#[tokio::test]
async fn an_enterprise_server_tells_no_limits() {
    let (hub, _) = hub();
    hub.create_repo("acme/api");
    hub.limits(|limits| limits.are_told = false);
    let answer = Client::new(&hub, None).get("/repos/acme/api").await;
    assert_eq!(answer.header("x-ratelimit-remaining"), None);
}
