//! GitHub's limits, kept.

use std::time::Duration;

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::json;
use workflows_core::{Clock, ErrorKind, RepoConnection, Result};
use workflows_scm::github::GitHubCredentials;

use super::{
    scripted::{Reply, Scripted},
    world::{clock, connect, instant, repository, with_token},
};

fn until(error: &workflows_core::Error) -> Timestamp {
    match error.kind() {
        ErrorKind::RateLimited { until: Some(until) } => until,
        other => panic!("{other:?}: {error}"),
    }
}

fn limited(remaining: u32) -> impl Fn(Reply) -> Reply {
    let reset = instant("2026-01-02T04:00:00Z").as_second();
    move |reply| {
        reply
            .with("x-ratelimit-limit", 5_000)
            .with("x-ratelimit-remaining", remaining)
            .with("x-ratelimit-reset", reset)
            .with("x-ratelimit-resource", "core")
    }
}

async fn list(connection: &dyn RepoConnection) -> Result<usize> {
    let refs: Vec<_> = connection.refs(&["refs/heads/".into()]).try_collect().await?;
    Ok(refs.len())
}

#[tokio::test]
async fn nothing_is_asked_between_the_end_of_a_window_and_the_next() {
    let clock = clock();
    let server = Scripted::one_by_one([limited(0)(Reply::ok(repository()))]).await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    server.calls();
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(until(&error), instant("2026-01-02T04:00:00Z"));
    assert_eq!(server.calls(), [""; 0]);
    clock.advance(SignedDuration::from_hours(1));
    server.answer(|_| Reply::ok(repository()));
    connection.default_branch().await.unwrap();
}

#[tokio::test]
async fn a_poll_leaves_the_reserve_to_what_runs_need() {
    let clock = clock();
    let server = Scripted::one_by_one([limited(1_000)(Reply::ok(repository()))]).await;
    let driver = with_token(&server.url, &clock);
    let connection = connect(&driver).await.unwrap();
    server.calls();
    let error = list(&*connection).await.unwrap_err();
    assert_eq!(until(&error), instant("2026-01-02T04:00:00Z"));
    assert_eq!(server.calls(), [""; 0]);
    connection.default_branch().await.unwrap();

    let budget = driver.budget();
    assert_eq!(budget.len(), 1, "{budget:?}");
    assert_eq!(budget[0].credential, "token");
    assert_eq!(budget[0].resources[0].remaining, 1_000);
    assert_eq!(budget[0].in_flight, 0);
}

#[tokio::test]
async fn drivers_that_share_a_budget_keep_it_together() {
    let clock = clock();
    let server = Scripted::one_by_one([limited(1_000)(Reply::ok(repository()))]).await;
    let driver = with_token(&server.url, &clock);
    let connection = connect(&driver).await.unwrap();
    let builder = || {
        super::world::driver(&server.url, &clock)
            .credentials(GitHubCredentials::token(SecretString::from("t0ken".to_owned())))
            .shared_budget(driver.shared_budget())
    };
    let other = builder().build().unwrap();
    assert_eq!(other.budget(), driver.budget());
    assert_eq!(other.budget()[0].resources[0].remaining, 1_000);
    server.answer(|_| Reply::Json(429, Vec::new(), json!({"message": "no"})));
    connect(&other).await.unwrap_err();
    server.calls();
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(until(&error), instant("2026-01-02T03:05:05Z"), "what one is told, both heed");
    assert_eq!(server.calls(), [""; 0]);

    let error = builder().reserve(5).build().unwrap_err();
    assert!(error.to_string().contains("set them where it is made"), "{error}");
}

#[tokio::test]
async fn a_refusal_for_a_secondary_limit_is_heeded() {
    let secondary = json!({"message": "You have exceeded a secondary rate limit."});
    let refusal = |headers: &[(&str, &str)], status, body: &serde_json::Value| {
        let reply = Reply::Json(status, Vec::new(), body.clone());
        headers.iter().fold(reply, |reply, (name, value)| reply.with(name, value))
    };
    let no = json!({"message": "no"});
    let cases = [
        (refusal(&[("retry-after", "120")], 403, &secondary), "2026-01-02T03:06:05Z"),
        (refusal(&[], 403, &secondary), "2026-01-02T03:05:05Z"),
        (refusal(&[], 429, &no), "2026-01-02T03:05:05Z"),
        (refusal(&[("retry-after", "30")], 429, &no), "2026-01-02T03:04:35Z"),
        (limited(0)(refusal(&[], 403, &no)), "2026-01-02T04:00:00Z"),
        // Nobody is sent away for a year.
        (refusal(&[("retry-after", "31536000")], 429, &no), "2026-01-02T05:04:05Z"),
    ];
    for (reply, expected) in cases {
        let clock = clock();
        let server = Scripted::one_by_one([Reply::ok(repository()), reply.clone()]).await;
        let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
        let error = connection.default_branch().await.unwrap_err();
        assert_eq!(until(&error), instant(expected), "{reply:?}");
        server.calls();
        let error = connection.default_branch().await.unwrap_err();
        assert_eq!(until(&error), instant(expected), "{reply:?}");
        assert_eq!(server.calls(), [""; 0], "GitHub bans who does not stay away: {reply:?}");
        clock.advance(instant(expected).duration_since(clock.now()));
        server.answer(|_| Reply::ok(repository()));
        connection.default_branch().await.unwrap();
    }
}

#[tokio::test]
async fn a_refusal_for_another_reason_is_no_limit() {
    let clock = clock();
    let refusal = limited(4_000)(Reply::Json(
        403,
        Vec::new(),
        json!({"message": "Resource not accessible by integration"}),
    ));
    let refusal = refusal.with("x-accepted-github-permissions", "metadata=read");
    let server = Scripted::one_by_one([Reply::ok(repository()), refusal]).await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    let error = connection.default_branch().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let shown = error.to_string();
    assert!(shown.contains("not accessible") && shown.contains("metadata=read"), "{shown}");
}

#[tokio::test]
async fn limits_that_are_told_oddly_harm_nothing() {
    let clock = clock();
    for (name, value) in [
        ("x-ratelimit-remaining", "-5"),
        ("x-ratelimit-remaining", "many"),
        ("x-ratelimit-reset", "99999999999999999"),
        ("x-ratelimit-limit", "18446744073709551616"),
        ("etag", ""),
        ("link", "<><;;\"rel=next"),
    ] {
        let server = Scripted::one_by_one([Reply::ok(repository()).with(name, value)]).await;
        let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
        connection.default_branch().await.unwrap();
    }
}

#[tokio::test]
async fn what_did_not_change_is_asked_for_with_its_tag() {
    let clock = clock();
    let server = Scripted::start(|seen| match seen.etag.as_deref() {
        Some("\"one\"") => Reply::Json(304, Vec::new(), json!(null)),
        _ => Reply::ok(repository()).with("etag", "\"one\""),
    })
    .await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(&*connection.default_branch().await.unwrap(), "refs/heads/main");
    }
    let seen = server.seen();
    assert_eq!(seen.last().unwrap().etag.as_deref(), Some("\"one\""));
}

#[tokio::test]
async fn the_same_read_at_the_same_time_is_made_once() {
    let clock = clock();
    let server = Scripted::one_by_one([Reply::ok(repository())]).await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    server.calls();
    let reads = futures::future::join_all((0..10).map(|_| connection.default_branch())).await;
    assert!(reads.iter().all(Result::is_ok));
    assert_eq!(server.calls(), ["GET /repos/acme/api"]);
}

#[tokio::test]
async fn how_the_limits_stand_is_shown_as_metrics() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let shows = |line: &str| {
        let text = shown.render();
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    };
    let clock = clock();
    let server = Scripted::start(|seen| match seen.route.as_str() {
        "/repos/acme/api" => limited(4_900)(Reply::ok(repository())),
        _ => Reply::Silence,
    })
    .await;
    let connection = connect(&with_token(&server.url, &clock)).await.unwrap();
    shows(r#"workflows_github_remaining{credential="token",resource="core"} 4900"#);
    shows(r#"workflows_github_points_in_the_last_minute{credential="token"} 1"#);
    shows(r#"workflows_github_calls_in_flight{credential="token"} 0"#);
    shows(r#"workflows_github_blocked_until_seconds{credential="token"} 0"#);
    shows(r#"workflows_github_calls_total{outcome="answered"} 1"#);

    let waiting = tokio::time::timeout(Duration::from_millis(300), list(&*connection));
    assert!(waiting.await.is_err(), "it is not answered");
    shows(r#"workflows_github_points_in_the_last_minute{credential="token"} 2"#);
    let silent = list(&*connection);
    tokio::pin!(silent);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut silent).await.is_err());
    shows(r#"workflows_github_calls_in_flight{credential="token"} 1"#);

    server.answer(|_| Reply::status(429).with("retry-after", 120));
    connection.default_branch().await.unwrap_err();
    let until = instant("2026-01-02T03:06:05Z").as_second();
    shows(&format!(r#"workflows_github_blocked_until_seconds{{credential="token"}} {until}"#));
    connection.default_branch().await.unwrap_err();
    shows(r#"workflows_github_held_back_total{priority="fetch",reason="told to wait"} 1"#);
    clock.advance(SignedDuration::from_secs(120));
    server.answer(|_| Reply::ok(repository()));
    connection.default_branch().await.unwrap();
    shows(r#"workflows_github_blocked_until_seconds{credential="token"} 0"#);
    shows(r#"workflows_github_points_in_the_last_minute{credential="token"} 1"#);
}
