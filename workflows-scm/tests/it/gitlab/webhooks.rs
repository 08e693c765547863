//! GitLab's webhooks: registering them, what disables them, what they tell, their log; and tokens that
//! end.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::SignedDuration;
use secrecy::SecretString;
use serde_json::{Value, json};
use workflows_core::{
    ErrorKind, EventSource, ScmDriver, SubjectClaim, Verified,
    repo::{Webhook, WebhookAdmin},
};
use workflows_scm::{
    gitlab::{GitLabDriver, GitLabWatch},
    poll::RefPoller,
    webhook::{Delivery, DeliveryFormat, DeliveryHeaders, Told},
};

use super::world::{PROJECT, World};
use crate::poll_support::Bench;

const ADDRESS: &str = "http://127.0.0.1:9/hook";
const SECRET: &str = "the secret of the hook";
const SIGNING: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

fn wanted(secret: &str) -> Webhook {
    Webhook {
        url: ADDRESS.to_owned(),
        secret: SecretString::from(secret.to_owned()),
        events: GitLabDriver::useful_events().map(ToOwned::to_owned).collect::<BTreeSet<_>>(),
    }
}

fn headers(event: &str) -> DeliveryHeaders {
    DeliveryHeaders::new([("X-Gitlab-Event", event), ("Idempotency-Key", "key-1")])
}

fn decode(driver: &GitLabDriver, event: &str, body: &Value) -> workflows_core::Result<Delivery> {
    let body = Verified::fetched(Bytes::from(body.to_string()));
    driver.deliveries().decode(&headers(event), &body)
}

#[tokio::test]
async fn a_hook_is_made_once_and_repaired_after() {
    let world = World::new();
    let connection = world.connect().await;
    let admin = connection.webhook_admin().unwrap();
    let id = admin.ensure(&wanted(SECRET)).await.unwrap();
    let hooks = world.project.hooks();
    assert_eq!(hooks.len(), 1);
    assert_eq!(hooks[0].id.to_string(), id);
    let mut events: Vec<&str> = GitLabDriver::useful_events().collect();
    events.sort_unstable();
    assert_eq!(hooks[0].events, events);

    // Other events, and another secret.
    let mut other = wanted(SIGNING);
    other.events = ["merge_requests_events".to_owned()].into();
    assert_eq!(admin.ensure(&other).await.unwrap(), id);
    assert_eq!(world.project.hooks()[0].events, ["merge_requests_events"]);
    admin.remove(ADDRESS).await.unwrap();
    admin.remove(ADDRESS).await.unwrap();
    assert_eq!(world.project.hooks(), []);

    let mut wrong = wanted(SECRET);
    wrong.events = ["push".to_owned()].into();
    let error = admin.ensure(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("push_events"), "{error}");
    let error = admin.ensure(&wanted("whsec_short")).await.unwrap_err();
    assert!(error.to_string().contains("32 bytes"), "{error}");
    assert_eq!(world.project.hooks(), []);
}

#[tokio::test]
async fn replicas_that_register_at_the_same_time_end_with_one_hook() {
    let world = World::new();
    let hooks = || world.driver().group_hooks("acme").unwrap();
    let admins: Vec<_> = (0..4).map(|_| hooks()).collect();
    let hook = wanted(SECRET);
    let all = futures::future::join_all(admins.iter().map(|admin| admin.ensure(&hook))).await;
    // Whoever was late finds the oldest one.
    let again = hooks().ensure(&hook).await.unwrap();
    assert!(all.iter().flatten().any(|id| *id == again), "{all:?}");
    hooks().remove(ADDRESS).await.unwrap();
}

#[tokio::test]
async fn a_hook_that_gitlab_disabled_is_told_and_made_anew() {
    let world = World::new();
    let connection = world.connect().await;
    let admin = connection.webhook_admin().unwrap();
    let id = admin.ensure(&wanted(SECRET)).await.unwrap();
    let mut bench = Bench::over(world.clock.clone());
    bench.drive("gitlab", Arc::new(world.driver()));
    let minute = SignedDuration::from_mins(1);
    let watch = GitLabWatch::of("gitlab", world.driver())
        .project_hook(PROJECT, ADDRESS)
        .every(minute)
        .unwrap();
    assert_eq!(watch.name().as_str(), "gitlab-watch");
    bench.start(watch);
    bench.through().await;
    bench.through().await;
    for number in 0..4 {
        world.project.push("main", &[("a", &number.to_string())]);
    }
    world.gitlab.settle().await;
    assert_eq!(world.project.hooks()[0].alert_status, "temporarily_disabled");
    let sent = world.gitlab.deliveries().len();
    world.project.push("main", &[("a", "more")]);
    world.gitlab.settle().await;
    assert_eq!(world.gitlab.deliveries().len(), sent, "GitLab tells a disabled hook nothing");
    world.later(30);
    let anew = admin.ensure(&wanted(SECRET)).await.unwrap();
    assert_ne!(anew, id);
    assert_eq!(world.project.hooks()[0].alert_status, "executable");
    bench.stop().await;
}

#[tokio::test]
async fn the_end_of_a_token_and_a_disabled_hook_are_told_in_time() {
    let world = World::new();
    let token = world.gitlab.token("bot", &["api"], Some("2026-03-20"));
    let driver = world.driver_with(&token);
    let told = driver.token().await.unwrap();
    assert_eq!(told.scopes, ["api"]);
    assert_eq!(told.expires_at.unwrap().to_string(), "2026-03-20T00:00:00Z");
    driver.project_hooks(PROJECT).unwrap().ensure(&wanted(SECRET)).await.unwrap();
    let mut bench = Bench::over(world.clock.clone());
    bench.drive("gitlab", Arc::new(driver.clone()));
    let watch = GitLabWatch::of("gitlab", driver).project_hook(PROJECT, ADDRESS);
    let (context, mut heard) = bench.context(watch.name());
    let stop = tokio_util::sync::CancellationToken::new();
    let running = {
        let stop = stop.clone();
        tokio::spawn(async move { watch.run(context, stop).await })
    };
    let mut failures = async || {
        let mut failures = Vec::new();
        for _ in 0..2 {
            let told = heard.recv().await.unwrap();
            failures.push(told.failure.map(|(kind, _)| kind));
        }
        failures
    };
    assert_eq!(failures().await, [None, None]);
    for number in 0..4 {
        world.project.push("main", &[("a", &number.to_string())]);
    }
    world.gitlab.settle().await;
    let denied = Some(ErrorKind::Denied);
    // GitLab disables it for a minute at first.
    world.later(3_600);
    assert_eq!(failures().await, [None, None]);
    for day in 1..=25 {
        world.later(3_600 * 24);
        world.project.push("main", &[("b", &day.to_string())]);
        world.gitlab.settle().await;
        let told = failures().await;
        let is_near = day >= 5;
        assert_eq!(told[0], denied.filter(|_| is_near), "day {day}");
        // Once the token is over, nobody is told of the hook either.
        assert!(told[1].is_none() || told[1] == denied, "{told:?}");
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn deliveries_are_known_by_their_key_and_else_by_what_they_are() {
    let world = World::new();
    let format = world.driver().deliveries();
    let body = Bytes::from_static(b"{}");
    let of = |headers: &[(&str, &str)]| {
        let headers = DeliveryHeaders::new(headers.iter().copied());
        format.label(&headers, &body).0.to_string()
    };
    assert_eq!(of(&[("Idempotency-Key", "k"), ("webhook-id", "w")]), "k");
    assert_eq!(of(&[("webhook-id", "w"), ("X-Gitlab-Event-UUID", "u")]), "w");
    let plain = of(&[("X-Gitlab-Event", "Push Hook")]);
    assert!(plain.starts_with("sha256/"), "{plain}");
    assert_ne!(of(&[("X-Gitlab-Event", "Note Hook")]), plain);
    // Hooks that set off each other share this one.
    let recursive = [("X-Gitlab-Event", "Push Hook"), ("X-Gitlab-Event-UUID", "u")];
    assert_eq!(of(&recursive), plain);
    let long = "x".repeat(200);
    assert!(of(&[("Idempotency-Key", long.as_str())]).starts_with("sha256/"));
}

#[tokio::test]
async fn what_no_workflow_waits_for_is_recorded_and_never_refused() {
    let world = World::new();
    let driver = world.driver();
    let project = json!({ "id": 7, "path_with_namespace": "acme/api" });
    for (event, body) in [
        ("Pipeline Hook", json!({ "object_kind": "pipeline", "project": project })),
        ("Job Hook", json!({ "object_kind": "build", "project": project })),
        ("Issue Hook", json!({ "object_kind": "issue", "project": project })),
        ("Something New", json!({ "object_kind": "surprise", "project": project })),
        ("System Hook", json!({ "event_name": "user_create", "name": "x" })),
        (
            "Resource Access Token Hook",
            json!({ "object_kind": "access_token", "project": project }),
        ),
        (
            "Release Hook",
            json!({ "object_kind": "release", "action": "update", "project": project }),
        ),
        (
            "Note Hook",
            json!({ "object_kind": "note", "project": project,
                "object_attributes": { "id": 1, "noteable_type": "Issue", "action": "create" } }),
        ),
        (
            "Note Hook",
            json!({ "object_kind": "note", "project": project,
                "object_attributes": { "id": 1, "noteable_type": "MergeRequest", "action": "update" } }),
        ),
        ("Emoji Hook", json!({})),
    ] {
        let delivery = decode(&driver, event, &body).unwrap();
        assert!(matches!(delivery.told, Told::Nothing(_)), "{event}: {delivery:?}");
    }
    for (event, body) in [
        ("Push Hook", json!({ "object_kind": "push", "project": project })),
        (
            "Push Hook",
            json!({ "object_kind": "push", "project": project, "ref": "refs/heads/a",
            "before": "x", "after": "y" }),
        ),
        ("Merge Request Hook", json!({ "object_kind": "merge_request", "project": project })),
    ] {
        let error = decode(&driver, event, &body).unwrap_err().to_string();
        assert!(error.contains('`'), "the place is named: {error}");
    }
}

#[tokio::test]
async fn a_system_hook_tells_pushes_and_merge_requests_too() {
    let world = World::new();
    let driver = world.driver();
    let (before, after) = ("1".repeat(40), "2".repeat(40));
    let project = json!({ "id": 7, "path_with_namespace": "acme/api" });
    let push = json!({
        "event_name": "push", "before": before, "after": after, "ref": "refs/heads/main",
        "user_username": "ada", "project": project,
    });
    let delivery = decode(&driver, "System Hook", &push).unwrap();
    assert_eq!((&*delivery.what, delivery.sender.as_deref()), ("push", Some("ada")));
    assert!(matches!(&delivery.told, Told::Claims(claims) if claims.len() == 1));

    // One that tells a push of many refs.
    let refs = |name: &str| json!({ "before": before, "after": after, "ref": name });
    let update = json!({
        "event_name": "repository_update", "project": project,
        "changes": [refs("refs/heads/a"), refs("refs/heads/b"), refs("refs/tags/v1")],
    });
    let Told::Claims(claims) = decode(&driver, "System Hook", &update).unwrap().told else {
        panic!("it tells of branches")
    };
    let names: Vec<String> = claims.iter().map(|claim| claim.subject().to_string()).collect();
    assert_eq!(names, ["refs/heads/a", "refs/heads/b"]);
    assert!(claims.iter().all(|claim| matches!(claim, SubjectClaim::Ref(_))));
}

#[tokio::test]
async fn a_push_of_more_than_three_refs_is_told_by_nobody_and_found_by_looking() {
    let world = World::new();
    let connection = world.connect().await;
    connection.webhook_admin().unwrap().ensure(&wanted(SECRET)).await.unwrap();
    world.gitlab.hooks_lost(true);
    let mut bench = Bench::over(world.clock.clone());
    bench.drive("gitlab", Arc::new(world.driver()));
    bench.want(&[(PROJECT, &["refs/heads/", "refs/tags/"])]);
    let minute = SignedDuration::from_mins(1);
    bench.start(RefPoller::every(minute).unwrap());
    bench.through().await;
    let head = world.project.branch("main").unwrap();
    let refs: Vec<String> = (1..=4).map(|number| format!("refs/tags/v{number}")).collect();
    let refs: Vec<(&str, Option<&str>)> =
        refs.iter().map(|name| (name.as_str(), Some(head.as_str()))).collect();
    world.project.push_refs(&refs);
    world.gitlab.settle().await;
    assert_eq!(world.gitlab.deliveries().len(), 0);
    bench.after(minute).await;
    let mut heard = bench.heard().await;
    heard.sort();
    let expected: Vec<String> = (1..=4).map(|n| format!("created refs/tags/v{n}")).collect();
    assert_eq!(heard, expected);
    bench.stop().await;
}

#[tokio::test]
async fn the_log_of_a_project_is_that_of_all_its_hooks() {
    let world = World::new();
    let connection = world.connect().await;
    connection.webhook_admin().unwrap().ensure(&wanted(SIGNING)).await.unwrap();
    let start = workflows_core::Clock::now(&world.clock);
    for number in 0..3 {
        world.later(10);
        world.project.push("main", &[("a", &number.to_string())]);
    }
    world.gitlab.settle().await;
    let log = connection.delivery_log().unwrap();
    let logged: Vec<_> = log.list(start).try_collect().await.unwrap();
    assert_eq!(logged.len(), 3);
    assert!(logged.is_sorted_by(|a, b| a.sent_at >= b.sent_at));
    assert!(logged.iter().all(|one| !one.succeeded), "nobody listens there");
    let sent = world.gitlab.deliveries();
    assert_eq!(logged[0].delivery.as_str(), sent[2].key);
    world.gitlab.forget_calls();
    let payload = log.replay(&logged[0].id).await.unwrap();
    assert_eq!(world.calls(), [""; 0], "the listing brought it");
    let body: Value = serde_json::from_slice(&payload.body).unwrap();
    assert_eq!(body["object_kind"], "push");
    let since = start + SignedDuration::from_secs(25);
    let late: Vec<_> = log.list(since).try_collect().await.unwrap();
    assert_eq!(late.len(), 1);
    // Another process has to look for it.
    let other = world.driver().connect(&"gitlab".into(), PROJECT).await.unwrap();
    let again = other.delivery_log().unwrap().replay(&logged[2].id).await.unwrap();
    assert_ne!(again.body, payload.body);
    let error = other.delivery_log().unwrap().replay("1/2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
