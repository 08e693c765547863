//! Answers that are late, cut off, too long, lying or somewhere else.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use workflows_core::{
    ErrorKind, ScmDriver,
    repo::{DeliveryLog, ReadLimit, RefPosition},
};

use super::{
    scripted::{Reply, Scripted},
    world::{clock, connect, driver, repository, with_token},
};

#[tokio::test]
async fn what_fails_for_a_while_is_transient() {
    for reply in [
        Reply::status(500),
        Reply::status(502),
        Reply::status(503),
        Reply::Truncated,
        Reply::Silence,
        Reply::ok(json!({"default_branch": 7})),
        Reply::ok(json!([])),
    ] {
        let server = Scripted::one_by_one([Reply::ok(repository()), reply.clone()]).await;
        let driver = driver(&server.url, &clock())
            .timeouts(Duration::from_secs(5), Duration::from_millis(300))
            .build()
            .unwrap();
        let connection = connect(&driver).await.unwrap();
        server.calls();
        let error = connection.default_branch().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Transient, "{reply:?}: {error}");
        assert_eq!(server.calls().len(), 1, "nothing is repeated: {reply:?}");
    }
    // Nobody listens.
    let connection = connect(&with_token("http://127.0.0.1:9", &clock())).await;
    assert_eq!(connection.unwrap_err().kind(), ErrorKind::Transient);
}

#[tokio::test]
async fn a_refusal_says_what_kind_it_is() {
    for (status, kind) in [
        (400, ErrorKind::Invalid),
        (401, ErrorKind::Denied),
        (403, ErrorKind::Denied),
        (404, ErrorKind::NotFound),
        (409, ErrorKind::Conflict),
        (410, ErrorKind::NotFound),
        (418, ErrorKind::Invalid),
        (422, ErrorKind::Invalid),
        (451, ErrorKind::Denied),
    ] {
        let server = Scripted::one_by_one([Reply::ok(repository()), Reply::status(status)]).await;
        let connection = connect(&with_token(&server.url, &clock())).await.unwrap();
        let error = connection.default_branch().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
    }
}

#[tokio::test]
async fn a_renamed_repository_is_followed_on_the_same_host() {
    let server = Scripted::start(|seen| match seen.route.as_str() {
        "/repos/acme/api" => Reply::status(301).with("location", "/repositories/1"),
        "/repositories/1" if seen.authorization.is_some() => {
            let mut renamed = repository();
            renamed["full_name"] = json!("acme/service");
            Reply::ok(renamed)
        }
        "/repos/acme/service/git/ref/heads/main" => Reply::ok(reference("main")),
        _ => Reply::status(404),
    })
    .await;
    let driver = with_token(&server.url, &clock());
    let connection = connect(&driver).await.unwrap();
    assert_eq!(&*connection.repo().name, "acme/api");
    connection.resolve("refs/heads/main").await.unwrap();
}

#[tokio::test]
async fn a_redirect_leads_to_no_other_host_and_not_on_and_on() {
    let other = Scripted::one_by_one([Reply::ok(repository())]).await;
    for location in [format!("{}/repositories/1", other.url), "/repos/acme/api".to_owned()] {
        let server = Scripted::one_by_one([Reply::status(301).with("location", &location)]).await;
        let error = connect(&with_token(&server.url, &clock())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{location}: {error}");
        assert!(server.calls().len() <= 2);
    }
    assert_eq!(other.calls(), [""; 0]);
}

fn reference(branch: &str) -> Value {
    json!({
        "ref": format!("refs/heads/{branch}"), "node_id": "x", "url": "https://github.com/x",
        "object": {"type": "commit", "sha": "1".repeat(40), "url": "https://github.com/x"},
    })
}

async fn refs(server: &Scripted) -> workflows_core::Result<Vec<RefPosition>> {
    let connection = connect(&with_token(&server.url, &clock())).await?;
    connection.refs(&["refs/heads/".into()]).try_collect().await
}

#[tokio::test]
async fn pages_are_followed_by_their_route_alone() {
    let server = Scripted::start(|seen| match seen.route.as_str() {
        "/repos/acme/api" => Reply::ok(repository()),
        "/repos/acme/api/git/matching-refs/heads" => Reply::ok(json!([reference("a")])).with(
            "link",
            "<https://evil.example/repos/acme/api/git/matching-refs/heads?page=2>; rel=\"next\", \
             <https://evil.example/x?page=99999999>; rel=\"last\"",
        ),
        "/repos/acme/api/git/matching-refs/heads?page=2" if seen.authorization.is_some() => {
            Reply::ok(json!([reference("b")]))
        }
        _ => Reply::status(404),
    })
    .await;
    let refs = refs(&server).await.unwrap();
    let names: Vec<&str> = refs.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["refs/heads/a", "refs/heads/b"]);
}

#[tokio::test]
async fn pages_that_do_not_end_are_an_error() {
    // In a circle.
    let server = Scripted::start(|seen| match seen.route.as_str() {
        "/repos/acme/api" => Reply::ok(repository()),
        route => Reply::ok(json!([reference("a")])).with(
            "link",
            match route.ends_with("page=2") {
                true => "</repos/acme/api/git/matching-refs/heads>; rel=\"next\"",
                false => "</repos/acme/api/git/matching-refs/heads?page=2>; rel=\"next\"",
            },
        ),
    })
    .await;
    let error = refs(&server).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(server.calls().len(), 3);

    // Always another one.
    let server = Scripted::start(|seen| {
        let page = seen.route.split_once("page=").map_or(1, |(_, page)| page.parse().unwrap());
        match seen.route.as_str() {
            "/repos/acme/api" => Reply::ok(repository()),
            _ => Reply::ok(json!([])).with(
                "link",
                format!("</repos/acme/api/git/matching-refs/heads?page={}>; rel=next", page + 1),
            ),
        }
    })
    .await;
    let error = refs(&server).await.unwrap_err();
    // The points of a minute end before the pages do.
    assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::RateLimited { .. }), "{error}");
}

#[tokio::test]
async fn a_page_that_cannot_be_had_is_asked_for_again_and_not_those_before_it() {
    let failed = AtomicBool::new(false);
    let entry = |id: u64| {
        json!({"id": id, "guid": format!("guid-{id}"), "delivered_at": "2026-03-01T11:00:00Z",
            "status_code": 200, "event": "push", "action": null, "repository_id": 1})
    };
    let server = Scripted::start(move |seen| match seen.route.as_str() {
        "/orgs/acme/hooks/3/deliveries?per_page=100" => Reply::ok(json!([entry(2)]))
            .with("link", "</orgs/acme/hooks/3/deliveries?per_page=100&cursor=v1_1>; rel=\"next\""),
        _ if failed.swap(true, Ordering::SeqCst) => Reply::ok(json!([entry(1)])),
        _ => Reply::status(502),
    })
    .await;
    let log = with_token(&server.url, &clock()).organization_deliveries("acme", 3).unwrap();
    let all: Vec<_> = log.list(jiff::Timestamp::UNIX_EPOCH).collect().await;
    let short: Vec<_> = all
        .iter()
        .map(|one| one.as_ref().map(|one| one.id.as_str()).map_err(|error| error.kind()))
        .collect();
    assert_eq!(short, [Ok("2"), Err(ErrorKind::Transient), Ok("1")]);
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_delivery_without_a_payload_is_not_there() {
    let delivery = json!({"request": {"headers": {"X-GitHub-Event": "push"}, "payload": null}});
    let server = Scripted::one_by_one([Reply::ok(delivery)]).await;
    let log = with_token(&server.url, &clock()).organization_deliveries("acme", 3).unwrap();
    assert_eq!(log.replay("15").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_file_is_read_no_further_than_allowed() {
    let server = Scripted::start(|seen| match seen.route.as_str() {
        "/repos/acme/api" => Reply::ok(repository()),
        route if route.contains("/contents/") => Reply::ok(json!({
            "type": "file", "sha": "2".repeat(40), "size": 40, "encoding": "none", "content": "",
        })),
        _ => Reply::ok(json!("x".repeat(5_000))),
    })
    .await;
    let connection = connect(&with_token(&server.url, &clock())).await.unwrap();
    let commit = "1".repeat(40).parse().unwrap();
    let read = connection.read_file(&commit, "big", ReadLimit::bytes(1_000)).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Invalid);
    for hostile in ["../x", "a/../../b", "a//b", "./a", "a\0b"] {
        let read = connection.read_file(&commit, hostile, ReadLimit::default()).await;
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Invalid, "{hostile:?}");
    }
}

#[tokio::test]
async fn a_repository_that_is_not_allowed_is_not_asked_for() {
    let server = Scripted::one_by_one([Reply::ok(repository())]).await;
    let driver = driver(&server.url, &clock()).allow("ACME/web").allow("other/*").build().unwrap();
    let error = connect(&driver).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    for wrong in ["acme", "acme/api/x", "acme/..", "", "a b/c"] {
        let connection = workflows_core::ConnectionName::new("acme");
        let error = driver.connect(&connection, wrong).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{wrong:?}");
    }
    assert_eq!(server.calls(), [""; 0]);
    assert!(driver.allows("Acme/Web") && driver.allows("other/x") && !driver.allows("acme/api"));
}
