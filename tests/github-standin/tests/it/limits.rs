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
    assert_eq!(told.body["resources"]["core"]["remaining"], 0, "it is told nevertheless");
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

#[tokio::test]
async fn callers_without_a_credential_share_a_small_hour() {
    let (hub, clock) = hub();
    hub.create_repo("acme/api");
    hub.limits(|limits| limits.anonymous = 2);
    let nobody = || Client::new(&hub, None);
    assert_eq!(nobody().get("/repos/acme/api").await.status, 200);
    let last = nobody().get("/repos/acme/api").await;
    assert_eq!((last.status.as_u16(), last.header("x-ratelimit-remaining")), (200, Some("0")));
    assert_eq!(nobody().get("/repos/acme/api").await.status, 403);
    let somebody = Client::new(&hub, Some(&hub.token_of("alice")));
    assert_eq!(somebody.get("/repos/acme/api").await.status, 200);
    // Up to the very second in which the next hour begins.
    clock.advance(SignedDuration::from_secs(3_599));
    assert_eq!(nobody().get("/repos/acme/api").await.status, 403);
    clock.advance(SignedDuration::from_secs(1));
    assert_eq!(nobody().get("/repos/acme/api").await.status, 200);
}

#[tokio::test]
async fn what_did_not_change_is_counted_for_callers_without_a_credential() {
    let (hub, _) = hub();
    hub.create_repo("acme/api").push("main", &[("a", "1")]);
    let client = Client::new(&hub, None);
    let first = client.get("/repos/acme/api/branches").await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = client.get_with("/repos/acme/api/branches", &[("if-none-match", &tag)]).await;
    assert_eq!((again.status.as_u16(), again.header("x-ratelimit-remaining")), (304, Some("58")));
}

#[tokio::test]
async fn graphql_has_an_hour_of_its_own_and_refuses_in_an_answer() {
    let (hub, _) = hub();
    hub.create_repo("acme/api").push("main", &[("a", "1")]);
    hub.limits(|limits| limits.graphql = 1);
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    let graphql = format!("{}/api/graphql", hub.root());
    let query = json!({
        "query": "query { repository(owner: \"acme\", name: \"api\") { \
                  object(expression: \"main:a\") { __typename } } }",
    });
    let first = client.post(&graphql, query.clone()).await;
    assert_eq!(first.header("x-ratelimit-resource"), Some("graphql"));
    assert!(first.body["errors"].is_null(), "{}", first.body);
    let refused = client.post(&graphql, query).await;
    assert_eq!(refused.status, 200);
    assert_eq!(refused.body["errors"][0]["type"], "RATE_LIMITED");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(client.get("/repos/acme/api").await.status, 200);
}

#[tokio::test]
async fn an_hour_has_its_writes_that_people_are_told_of() {
    let (hub, clock) = hub();
    let repo = hub.create_repo("acme/api");
    let issue = repo.open_issue("Talk");
    hub.limits(|limits| limits.content_an_hour = 2);
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    let path = format!("/repos/acme/api/issues/{issue}/comments");
    let write = async || client.post(&path, json!({ "body": "text" })).await.status.as_u16();
    assert_eq!(write().await, 201);
    clock.advance(SignedDuration::from_mins(30));
    assert_eq!(write().await, 201);
    clock.advance(SignedDuration::from_mins(29));
    assert_eq!(write().await, 403);
    // The first of them has left the hour.
    clock.advance(SignedDuration::from_mins(1));
    assert_eq!(write().await, 201);
    assert_eq!(write().await, 403);
}

#[tokio::test]
async fn so_many_calls_go_on_at_the_same_time() {
    let (hub, _) = hub();
    hub.create_repo("acme/api");
    hub.latency(std::time::Duration::from_millis(300));
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    for (calls, refused) in [(3, 0), (4, 1)] {
        hub.limits(|limits| limits.concurrent = 3);
        let made = (0..calls).map(|_| client.get("/repos/acme/api"));
        let made = futures::future::join_all(made).await;
        let secondary = made.iter().filter(|one| one.status == 403).count();
        assert_eq!(secondary, refused, "of {calls}");
    }
}

#[tokio::test]
async fn lists_are_cut_beyond_what_is_allowed_and_not_before() {
    let (hub, _) = hub();
    let repo = hub.create_repo("acme/api");
    let base = repo.push("main", &[("README.md", "hello")]);
    let head = repo.push_commits("topic", 4);
    let number = repo.open_pull_request("Four files", "topic", "main");
    let client = Client::new(&hub, Some(&hub.token_of("alice")));
    // README.md, commits, and four files in it.
    for (most, told, truncated) in [(6, 6, false), (5, 5, true)] {
        hub.limits(|limits| limits.tree_entries = most);
        let tree = client.get("/repos/acme/api/git/trees/topic?recursive=1").await;
        assert_eq!(tree.body["tree"].as_array().unwrap().len(), told);
        assert_eq!(tree.body["truncated"], truncated);
    }
    for (most, told) in [(5, 4), (4, 4), (3, 3)] {
        hub.limits(|limits| {
            limits.compared_files = most;
            limits.pull_request_files = most;
        });
        let compared = client.get(&format!("/repos/acme/api/compare/{base}...{head}")).await;
        assert_eq!(compared.body["files"].as_array().unwrap().len(), told);
        assert_eq!(compared.body["total_commits"], 4);
        let files = client.get(&format!("/repos/acme/api/pulls/{number}/files")).await;
        assert_eq!(files.body.as_array().unwrap().len(), told);
    }
}
