//! GitHub's webhooks, delivery logs and comments.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{TryStreamExt, future::join_all};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use workflows_core::{
    ErrorKind, ManualClock, RepoConnection, ScmDriver,
    repo::{DeliveryLog, Webhook, WebhookAdmin},
};
use workflows_github_standin::{Hub, RepoHandle, Role};
use workflows_scm::{
    github::{GitHubCredentials, GitHubDriver},
    webhook::verify_sha256,
};

const URL: &str = "http://127.0.0.1:9/hooks/acme";

/// An organisation with a repository, and the token of somebody who may administer both.
struct World {
    hub: Hub,
    clock: ManualClock,
    repo: RepoHandle,
    token: String,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let hub = Hub::start(Arc::new(clock.clone()));
        let repo = hub.create_repo("acme/api");
        let token = hub.token_of("ann");
        hub.add_member("acme", "ann", true);
        repo.set_role("ann", Some(Role::Admin));
        Self { hub, clock, repo, token }
    }

    fn driver(&self) -> GitHubDriver {
        GitHubDriver::builder()
            .base(self.hub.api())
            .credentials(GitHubCredentials::token(SecretString::from(self.token.clone())))
            .clock(Arc::new(self.clock.clone()))
            .build()
            .unwrap()
    }

    async fn connect(&self) -> Arc<dyn RepoConnection> {
        self.driver().connect(&"acme".into(), "acme/api").await.unwrap()
    }

    /// What somebody does by hand.
    async fn asks(&self, method: reqwest::Method, route: &str, body: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client
            .request(method, format!("{}{route}", self.hub.api()))
            .bearer_auth(&self.token)
            .header("content-type", "application/json");
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
    }

    async fn hooks(&self, of: &str) -> Vec<Value> {
        let route = format!("{of}/hooks?per_page=100");
        let listed = self.asks(reqwest::Method::GET, &route, json!(null)).await;
        listed.as_array().unwrap().clone()
    }

    /// Whether what is sent now is signed with a secret.
    async fn signs_with(&self, secret: &str) -> bool {
        self.repo.push("main", &[("a", secret)]);
        self.hub.settle().await;
        let sent = self.hub.deliveries().into_iter().rfind(|one| one.event == "push").unwrap();
        let signature = sent.headers.get("X-Hub-Signature-256").map(String::as_str);
        let secrets = [SecretString::from(secret.to_owned())];
        verify_sha256(Bytes::from(sent.body), signature, &secrets).is_ok()
    }
}

const OF_REPO: &str = "/repos/acme/api";
const OF_ORG: &str = "/orgs/acme";

fn wanted(secret: &str) -> Webhook {
    Webhook {
        url: URL.to_owned(),
        secret: SecretString::from(secret.to_owned()),
        events: ["pull_request".to_owned(), "push".to_owned()].into(),
    }
}

#[track_caller]
fn is_as_wanted(hook: &Value) {
    assert_eq!(hook["active"], true);
    assert_eq!(hook["events"], json!(["pull_request", "push"]));
    assert_eq!(hook["config"]["content_type"], "json");
    assert_eq!(hook["config"]["insecure_ssl"], "0");
}

#[tokio::test]
async fn a_hook_is_made_once_and_repaired_after() {
    let world = World::new();
    let connection = world.connect().await;
    let admin = connection.webhook_admin().unwrap();
    let id = admin.ensure(&wanted("one")).await.unwrap();
    let hooks = world.hooks(OF_REPO).await;
    assert_eq!((hooks.len(), hooks[0]["id"].to_string()), (1, id.clone()));
    is_as_wanted(&hooks[0]);
    assert!(world.signs_with("one").await);

    // Somebody changed it, and the secret is another one now.
    let config = json!({"url": URL, "content_type": "form", "insecure_ssl": "1"});
    let change = json!({"active": false, "events": ["push"], "config": config});
    world.asks(reqwest::Method::PATCH, &format!("{OF_REPO}/hooks/{id}"), change).await;
    assert_eq!(admin.ensure(&wanted("two")).await.unwrap(), id);
    let hooks = world.hooks(OF_REPO).await;
    assert_eq!(hooks.len(), 1);
    is_as_wanted(&hooks[0]);
    assert!(world.signs_with("two").await);
}

#[tokio::test]
async fn a_hook_on_a_later_page_is_adopted_and_its_doubles_go() {
    let world = World::new();
    // GitHub allows twenty of an event.
    let events = ["issues", "fork", "watch", "star", "gollum", "label"];
    for (event, number) in events.iter().flat_map(|event| (0..18).map(move |one| (event, one))) {
        let url = format!("http://127.0.0.1:9/{event}/{number}");
        world.repo.add_hook(&url, "s", &[event]);
    }
    world.repo.add_hook(&format!("{URL}2"), "s", &["push"]);
    let oldest = world.repo.add_hook(URL, "s", &["push"]);
    world.repo.add_hook(URL, "s", &["issues"]);
    let connection = world.connect().await;
    let admin = connection.webhook_admin().unwrap();
    assert_eq!(admin.ensure(&wanted("s")).await.unwrap(), oldest.to_string());
    let route = format!("{OF_REPO}/hooks/{oldest}");
    is_as_wanted(&world.asks(reqwest::Method::GET, &route, json!(null)).await);
    let at = || world.repo.hooks().iter().filter(|url| *url == URL).count();
    assert_eq!((at(), world.repo.hooks().len()), (1, 110));

    admin.remove(URL).await.unwrap();
    admin.remove(URL).await.unwrap();
    assert_eq!((at(), world.repo.hooks().len()), (0, 109));
}

#[tokio::test]
async fn replicas_that_register_at_the_same_time_end_with_one_hook() {
    let world = World::new();
    let drivers: Vec<GitHubDriver> = (0..4).map(|_| world.driver()).collect();
    for of in [OF_REPO, OF_ORG] {
        // Each of them finds nothing at first, and is told that there is one when it makes one.
        world.hub.latency(Duration::from_millis(100));
        world.hub.forget_calls();
        let ensured = join_all(drivers.iter().map(|driver| async move {
            match of {
                OF_ORG => driver.organization_hooks("acme").unwrap().ensure(&wanted("s")).await,
                _ => {
                    let connection = driver.connect(&"acme".into(), "acme/api").await.unwrap();
                    connection.webhook_admin().unwrap().ensure(&wanted("s")).await
                }
            }
        }));
        let ensured: Vec<String> = ensured.await.into_iter().map(Result::unwrap).collect();
        world.hub.latency(Duration::ZERO);
        let hooks = world.hooks(of).await;
        assert_eq!(hooks.len(), 1);
        is_as_wanted(&hooks[0]);
        assert_eq!(ensured, vec![hooks[0]["id"].to_string(); 4]);
        let made: Vec<u16> = world
            .hub
            .calls()
            .iter()
            .filter(|one| one.method == "POST")
            .map(|one| one.status)
            .collect();
        assert_eq!(made.iter().filter(|status| **status == 201).count(), 1, "{made:?}");
        assert_eq!(made.iter().filter(|status| **status == 422).count(), 3, "{made:?}");
    }
}

#[tokio::test]
async fn a_hook_without_a_secret_is_never_made() {
    let world = World::new();
    let admin = world.driver().organization_hooks("acme").unwrap();
    assert_eq!(admin.ensure(&wanted("")).await.unwrap_err().kind(), ErrorKind::Invalid);
    let nothing = Webhook { events: Default::default(), ..wanted("s") };
    assert_eq!(admin.ensure(&nothing).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(world.hub.calls().len(), 0);
    for wrong in ["", "a/b", "..", "ä"] {
        assert!(world.driver().organization_hooks(wrong).is_err(), "{wrong:?}");
    }
}

/// A server that takes everything.
async fn taking() -> String {
    let router = axum::Router::new().fallback(|| async { "ok" });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test]
async fn the_log_of_a_repository_is_that_of_all_its_hooks() {
    let world = World::new();
    let reached = world.repo.add_hook(&taking().await, "s", &["push"]);
    let nowhere = world.repo.add_hook(URL, "s", &["create"]);
    let later = || world.clock.advance(SignedDuration::from_mins(10));
    later();
    let since: Timestamp = workflows_core::Clock::now(&world.clock);
    world.repo.push("main", &[("a", "1")]);
    later();
    let commit = world.repo.push("main", &[("a", "2")]);
    world.hub.settle().await;
    let sent: Vec<_> =
        world.hub.deliveries().into_iter().filter(|one| one.event != "ping").collect();
    let connection = world.connect().await;
    let log = connection.delivery_log().unwrap();
    let logged: Vec<_> = log.list(since).try_collect().await.unwrap();
    let short = |one: &workflows_core::repo::LoggedDelivery| (one.id.clone(), one.succeeded);
    let mut short: Vec<_> = logged.iter().map(short).collect();
    short[1..].sort();
    let of = |hook: u64, event: &str, place: usize| {
        let mut of = sent.iter().filter(|one| one.event == event);
        format!("{hook}/{}", of.nth(place).unwrap().id)
    };
    let mut expected = [
        (of(reached, "push", 1), true),
        (of(nowhere, "create", 0), false),
        (of(reached, "push", 0), true),
    ];
    expected[1..].sort();
    assert_eq!(short, expected);
    let may_matter = |one: &&workflows_core::repo::LoggedDelivery| one.may_matter;
    assert_eq!(logged.iter().filter(may_matter).count(), 2, "of a creation the push tells");

    let payload = log.replay(&logged[0].id).await.unwrap();
    let body: Value = serde_json::from_slice(&payload.body).unwrap();
    assert_eq!(body["after"], commit);
    assert!(payload.headers.contains(&("X-GitHub-Event".to_owned(), "push".to_owned())));
    let unknown = format!("{nowhere}/99");
    assert_eq!(log.replay(&unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(log.replay("x").await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_organisations_delivery_is_sent_again_on_request() {
    let world = World::new();
    let hook =
        world.driver().organization_hooks("acme").unwrap().ensure(&wanted("s")).await.unwrap();
    world.repo.push("main", &[("a", "1")]);
    world.hub.settle().await;
    let log = world.driver().organization_deliveries("acme", hook.parse().unwrap()).unwrap();
    let logged: Vec<_> = log.list(Timestamp::UNIX_EPOCH).try_collect().await.unwrap();
    let push = logged.iter().find(|one| one.may_matter).unwrap();
    assert!(!push.succeeded);
    log.redeliver(&push.id).await.unwrap();
    world.hub.settle().await;
    let again: Vec<_> =
        world.hub.deliveries().into_iter().filter(|one| one.is_redelivery).collect();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].event.as_str(), again[0].guid.as_str()), ("push", push.delivery.as_str()));
    let payload = log.replay(&again[0].id.to_string()).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&payload.body).unwrap()["ref"], "refs/heads/main");

    assert_eq!(log.redeliver("../1").await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(log.redeliver("1").await.unwrap_err().kind(), ErrorKind::NotFound);
    let error = world.driver().app_deliveries().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn comments_on_pull_requests_are_listed_and_those_on_issues_are_not() {
    let world = World::new();
    world.repo.push("main", &[("a", "1")]);
    world.repo.push("topic", &[("b", "1")]);
    let number = world.repo.open_pull_request("Do it", "topic", "main");
    let conversation = world.repo.comment(number, "/test");
    let issue = world.repo.open_issue("It is broken");
    world.repo.comment(issue, "/test");
    let line = world.repo.comment_on_line(number, "b", 1, "/test");
    let connection = world.connect().await;
    let feed = connection.comment_feed().unwrap();
    let mut found: Vec<_> = feed.comments_since(Timestamp::UNIX_EPOCH).try_collect().await.unwrap();
    found.sort_by_key(|one| one.comment.id.len());
    let short: Vec<_> =
        found.iter().map(|one| (one.comment.id.to_string(), one.pull_request)).collect();
    assert_eq!(short, [(conversation.to_string(), number), (format!("line-{line}"), number)]);
}
