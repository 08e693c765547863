//! GitHub's webhooks, delivery logs and comments, against a small server that keeps them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use futures::TryStreamExt;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use workflows_core::{
    ErrorKind, RepoConnection, ScmDriver,
    repo::{Webhook, WebhookAdmin},
};
use workflows_scm::github::{GitHubCredentials, GitHubDriver};

/// What the server keeps.
#[derive(Debug, Default)]
struct Kept {
    hooks: BTreeMap<u64, Value>,
    next: u64,
    /// How many hooks are on a page.
    page: usize,
    /// How many lists of hooks show nothing, as if another replica had not been heard of yet.
    blind: usize,
    deliveries: Vec<Value>,
    redelivered: Vec<u64>,
}

type Shared = Arc<Mutex<Kept>>;

const NEW_EVENTS: [&str; 2] = ["pull_request", "push"];

async fn serve(kept: Shared) -> String {
    let router = Router::new()
        .route(
            "/repos/acme/api",
            get(|| async {
                Json(
                    json!({"id": 1, "full_name": "acme/api", "clone_url": "https://x/acme/api.git",
                    "html_url": "https://x/acme/api"}),
                )
            }),
        )
        .route("/repos/acme/api/hooks", get(list_hooks).post(create_hook))
        .route("/orgs/acme/hooks", get(list_hooks).post(create_hook))
        .route("/repos/acme/api/hooks/{id}", patch(change_hook).delete(delete_hook))
        .route("/orgs/acme/hooks/{id}", patch(change_hook).delete(delete_hook))
        .route("/repos/acme/api/hooks/{id}/deliveries", get(list_deliveries))
        .route("/repos/acme/api/hooks/{id}/deliveries/{delivery}", get(show_delivery))
        .route("/repos/acme/api/issues/comments", get(conversation))
        .route("/repos/acme/api/pulls/comments", get(lines))
        .route("/orgs/acme/hooks/{id}/deliveries/{delivery}/attempts", post(redeliver))
        .with_state(kept);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// A page of a list, with the `Link` that leads to the next.
fn paged(items: Vec<Value>, size: usize, query: &HashMap<String, String>, route: &str) -> Response {
    let page: usize = query.get("page").and_then(|page| page.parse().ok()).unwrap_or(1);
    let mut headers = HeaderMap::new();
    if items.len() > page * size {
        let link = format!("<https://elsewhere.example{route}?page={}>; rel=\"next\"", page + 1);
        headers.insert(header::LINK, link.parse().unwrap());
    }
    let shown: Vec<Value> = items.into_iter().skip((page - 1) * size).take(size).collect();
    (headers, Json(shown)).into_response()
}

async fn list_hooks(
    State(kept): State<Shared>,
    Query(query): Query<HashMap<String, String>>,
    uri: axum::http::Uri,
) -> Response {
    let mut kept = kept.lock().unwrap();
    if kept.blind > 0 {
        kept.blind -= 1;
        return Json(json!([])).into_response();
    }
    let hooks = kept.hooks.values().map(redacted).collect();
    paged(hooks, kept.page.max(1), &query, uri.path())
}

/// GitHub never shows a secret.
fn redacted(hook: &Value) -> Value {
    let mut shown = hook.clone();
    if shown["config"]["secret"].is_string() {
        shown["config"]["secret"] = "********".into();
    }
    shown
}

async fn create_hook(State(kept): State<Shared>, Json(body): Json<Value>) -> Response {
    let mut kept = kept.lock().unwrap();
    if body["name"] != "web" {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    }
    kept.next += 1;
    let id = kept.next;
    let mut hook = body;
    hook["id"] = id.into();
    kept.hooks.insert(id, hook.clone());
    (StatusCode::CREATED, Json(redacted(&hook))).into_response()
}

async fn change_hook(
    State(kept): State<Shared>,
    Path(id): Path<u64>,
    Json(body): Json<Value>,
) -> Response {
    let mut kept = kept.lock().unwrap();
    let Some(hook) = kept.hooks.get_mut(&id) else { return StatusCode::NOT_FOUND.into_response() };
    for (name, value) in body.as_object().unwrap() {
        hook[name] = value.clone();
    }
    Json(redacted(hook)).into_response()
}

async fn delete_hook(State(kept): State<Shared>, Path(id): Path<u64>) -> StatusCode {
    match kept.lock().unwrap().hooks.remove(&id) {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::NOT_FOUND,
    }
}

async fn list_deliveries(
    State(kept): State<Shared>,
    Path(hook): Path<u64>,
    Query(query): Query<HashMap<String, String>>,
    uri: axum::http::Uri,
) -> Response {
    let kept = kept.lock().unwrap();
    let of_hook = kept.deliveries.iter().filter(|one| one["hook"] == hook);
    let lines = of_hook.map(|one| {
        json!({"id": one["id"], "guid": one["guid"], "delivered_at": one["delivered_at"],
            "status_code": one["status_code"], "event": "push", "action": null})
    });
    paged(lines.collect(), 2, &query, uri.path())
}

async fn show_delivery(
    State(kept): State<Shared>,
    Path((_, delivery)): Path<(u64, u64)>,
) -> Response {
    let kept = kept.lock().unwrap();
    match kept.deliveries.iter().find(|one| one["id"] == delivery) {
        Some(found) => Json(found.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn redeliver(
    State(kept): State<Shared>,
    Path((_, delivery)): Path<(u64, u64)>,
) -> (StatusCode, Json<Value>) {
    kept.lock().unwrap().redelivered.push(delivery);
    (StatusCode::ACCEPTED, Json(json!({})))
}

fn comment(id: u64, place: &str, of: &str) -> Value {
    json!({"id": id, "user": {"login": "ada"}, "body": "/test",
        "created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:06Z",
        "html_url": format!("https://x/acme/api/{place}#c"), of: format!("https://x/{place}")})
}

async fn conversation(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    assert_eq!((&*query["sort"], &*query["direction"]), ("updated", "desc"));
    Json(json!([comment(1, "pull/7", "issue_url"), comment(2, "issues/8", "issue_url")]))
}

async fn lines() -> Json<Value> {
    Json(json!([comment(1, "pull/9", "pull_request_url")]))
}

fn driver(base: &str) -> GitHubDriver {
    GitHubDriver::builder()
        .base(base)
        .credentials(GitHubCredentials::token(SecretString::from("token")))
        .build()
        .unwrap()
}

async fn connect(base: &str) -> Arc<dyn RepoConnection> {
    driver(base).connect(&"acme".into(), "acme/api").await.unwrap()
}

fn wanted(secret: &str) -> Webhook {
    Webhook {
        url: "https://ci.example/hooks/acme".to_owned(),
        secret: SecretString::from(secret.to_owned()),
        events: NEW_EVENTS.iter().map(ToString::to_string).collect(),
    }
}

fn hook(id: u64, url: &str, events: &[&str]) -> (u64, Value) {
    let config = json!({"url": url, "content_type": "form", "insecure_ssl": "1"});
    (id, json!({"id": id, "active": false, "events": events, "config": config}))
}

#[track_caller]
fn is_as_wanted(hook: &Value, secret: &str) {
    assert_eq!(hook["active"], true);
    assert_eq!(hook["events"], json!(NEW_EVENTS));
    assert_eq!(hook["config"]["content_type"], "json");
    assert_eq!(hook["config"]["insecure_ssl"], "0");
    assert_eq!(hook["config"]["secret"], secret);
}

#[tokio::test]
async fn a_hook_is_made_once_and_repaired_after() {
    let kept = Shared::default();
    let base = serve(kept.clone()).await;
    let connection = connect(&base).await;
    let admin = connection.webhook_admin().unwrap();
    let id = admin.ensure(&wanted("one")).await.unwrap();
    is_as_wanted(&kept.lock().unwrap().hooks[&1], "one");
    assert_eq!(id, "1");

    // Somebody changed it, and the secret is another one now.
    kept.lock().unwrap().hooks.extend([hook(1, "https://ci.example/hooks/acme", &["push"])]);
    assert_eq!(admin.ensure(&wanted("two")).await.unwrap(), "1");
    is_as_wanted(&kept.lock().unwrap().hooks[&1], "two");
    assert_eq!(kept.lock().unwrap().hooks.len(), 1);
}

#[tokio::test]
async fn a_hook_on_a_later_page_is_adopted_and_its_doubles_go() {
    let kept = Shared::default();
    let url = "https://ci.example/hooks/acme";
    kept.lock().unwrap().hooks.extend([
        hook(10, "https://other.example", &["push"]),
        hook(11, "https://ci.example/hooks/acme2", &["push"]),
        hook(12, url, &["push"]),
        hook(13, url, &["issues"]),
    ]);
    let base = serve(kept.clone()).await;
    let connection = connect(&base).await;
    let admin = connection.webhook_admin().unwrap();
    assert_eq!(admin.ensure(&wanted("s")).await.unwrap(), "12");
    let ids = || kept.lock().unwrap().hooks.keys().copied().collect::<Vec<_>>();
    assert_eq!(ids(), [10, 11, 12]);
    is_as_wanted(&kept.lock().unwrap().hooks[&12], "s");

    admin.remove(url).await.unwrap();
    admin.remove(url).await.unwrap();
    assert_eq!(ids(), [10, 11]);
}

#[tokio::test]
async fn replicas_that_register_at_the_same_time_end_with_one_hook() {
    let kept = Shared::default();
    // Each of them finds nothing at first.
    kept.lock().unwrap().blind = 4;
    kept.lock().unwrap().page = 100;
    let base = serve(kept.clone()).await;
    let drivers: Vec<GitHubDriver> = (0..4).map(|_| driver(&base)).collect();
    let admins = drivers.iter().map(|driver| driver.organization_hooks("acme").unwrap());
    let wanted = wanted("s");
    let ensured = futures::future::join_all(admins.map(|admin| {
        let wanted = &wanted;
        async move { admin.ensure(wanted).await }
    }))
    .await;
    let kept = kept.lock().unwrap();
    assert_eq!(kept.hooks.keys().copied().collect::<Vec<_>>(), [1]);
    assert!(ensured.into_iter().all(|id| id.unwrap() == "1"));
}

#[tokio::test]
async fn a_hook_without_a_secret_is_never_made() {
    let kept = Shared::default();
    let base = serve(kept.clone()).await;
    let admin = driver(&base).organization_hooks("acme").unwrap();
    assert_eq!(admin.ensure(&wanted("")).await.unwrap_err().kind(), ErrorKind::Invalid);
    let nothing = Webhook { events: Default::default(), ..wanted("s") };
    assert_eq!(admin.ensure(&nothing).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert!(kept.lock().unwrap().hooks.is_empty());
    for wrong in ["", "a/b", "..", "ä"] {
        assert!(driver(&base).organization_hooks(wrong).is_err(), "{wrong:?}");
    }
}

fn delivery(hook: u64, id: u64, minute: u64, status: u16) -> Value {
    json!({
        "hook": hook, "id": id, "guid": format!("guid-{id}"), "status_code": status,
        "delivered_at": format!("2026-01-02T03:{minute:02}:00.123Z"),
        "request": {"headers": {"X-GitHub-Event": "push"}, "payload": {"n": id}},
    })
}

#[tokio::test]
async fn the_log_of_a_repository_is_that_of_all_its_hooks() {
    let kept = Shared::default();
    {
        let mut kept = kept.lock().unwrap();
        kept.page = 100;
        kept.hooks.extend([hook(1, "https://a", &["push"]), hook(2, "https://b", &["push"])]);
        kept.deliveries = vec![
            delivery(1, 15, 50, 200),
            delivery(2, 14, 40, 0),
            delivery(1, 13, 30, 502),
            delivery(1, 12, 20, 200),
            delivery(1, 11, 10, 200),
        ];
    }
    let base = serve(kept.clone()).await;
    let connection = connect(&base).await;
    let log = connection.delivery_log().unwrap();
    let since: Timestamp = "2026-01-02T03:15:00Z".parse().unwrap();
    let logged: Vec<_> = log.list(since).try_collect().await.unwrap();
    let short: Vec<_> = logged.iter().map(|one| (one.id.as_str(), one.succeeded)).collect();
    assert_eq!(short, [("1/15", true), ("2/14", false), ("1/13", false), ("1/12", true)]);
    assert_eq!(logged[1].delivery.as_str(), "guid-14");

    let payload = log.replay("2/14").await.unwrap();
    assert_eq!(&payload.body[..], br#"{"n":14}"#);
    assert_eq!(payload.headers, [("X-GitHub-Event".to_owned(), "push".to_owned())]);
    assert_eq!(log.replay("2/99").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.replay("x").await.unwrap_err().kind(), ErrorKind::Invalid);

    kept.lock().unwrap().deliveries[0]["request"]["payload"] = Value::Null;
    assert_eq!(log.replay("1/15").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_delivery_is_sent_again_on_request() {
    let kept = Shared::default();
    let base = serve(kept.clone()).await;
    let log = driver(&base).organization_deliveries("acme", 3).unwrap();
    log.redeliver("14").await.unwrap();
    assert_eq!(kept.lock().unwrap().redelivered, [14]);
    assert_eq!(log.redeliver("../1").await.unwrap_err().kind(), ErrorKind::Invalid);
    let error = driver(&base).app_deliveries().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn comments_on_pull_requests_are_listed_and_those_on_issues_are_not() {
    let base = serve(Shared::default()).await;
    let connection = connect(&base).await;
    let feed = connection.comment_feed().unwrap();
    let since: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let mut found: Vec<_> = feed.comments_since(since).try_collect().await.unwrap();
    found.sort_by(|a, b| a.comment.id.cmp(&b.comment.id));
    let short: Vec<_> =
        found.iter().map(|one| (one.comment.id.as_ref(), one.pull_request)).collect();
    assert_eq!(short, [("1", 7), ("line-1", 9)]);
}
