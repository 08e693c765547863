//! What the git driver makes of servers that refuse, lie, fall silent or send too much.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{Response, StatusCode},
};
use jiff::{SignedDuration, Timestamp};
use workflows_core::{ErrorKind, ManualClock, repo::ReadLimit};
use workflows_scm::git::GitDriver;

use crate::support::{
    Root, connect,
    http::{Server, anonymous, status},
    kind_of,
};

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let root = Root::new();
    let server = Server::with(root.path(), |_, uri, _| {
        let answer = Response::builder().status(StatusCode::FOUND);
        Some(answer.header("location", uri.to_string()).body(Body::empty()).unwrap())
    })
    .await;
    let connection = connect(&anonymous(&server), "api").await;
    assert_eq!(kind_of(&*connection).await, ErrorKind::Invalid);
    assert!(server.take_seen().len() <= 6);
}

#[tokio::test]
async fn what_the_server_answers_decides_the_kind_of_the_error() {
    let root = Root::new();
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap());
    let now = "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap();
    let limited = |until| ErrorKind::RateLimited { until };
    let later = Some(now + SignedDuration::from_secs(90));
    for (code, retry_after, expected) in [
        (401, None, ErrorKind::Denied),
        (403, None, ErrorKind::Denied),
        (403, Some("90"), limited(later)),
        (404, None, ErrorKind::NotFound),
        (410, None, ErrorKind::NotFound),
        (418, None, ErrorKind::Invalid),
        (429, None, limited(None)),
        (429, Some("90"), limited(later)),
        (500, None, ErrorKind::Transient),
        (503, None, ErrorKind::Transient),
        (503, Some("90"), limited(later)),
    ] {
        let server = Server::with(root.path(), move |_, _, _| {
            let mut answer = Response::builder().status(code);
            if let Some(value) = retry_after {
                answer = answer.header("retry-after", value);
            }
            Some(answer.body(Body::empty()).unwrap())
        })
        .await;
        let driver =
            GitDriver::builder().base(&*server.url).clock(Arc::new(clock.clone())).build().unwrap();
        assert_eq!(kind_of(&*connect(&driver, "api").await).await, expected, "{code}");
    }
    let driver = GitDriver::at("http://127.0.0.1:1").unwrap();
    assert_eq!(kind_of(&*connect(&driver, "api").await).await, ErrorKind::Transient);
}

#[tokio::test]
async fn a_web_page_the_dumb_protocol_and_old_versions_are_refused_by_name() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    let id = "12".repeat(20);
    let old = format!(
        "001e# service=git-upload-pack\n0000004a{id} HEAD\0side-band-64k ofs-delta no-done\n0000"
    );
    for (kind, body) in [
        ("text/html", "<html>".to_owned()),
        ("text/plain", format!("{id}\trefs/heads/main\n")),
        ("application/x-git-upload-pack-advertisement", old),
    ] {
        let server = Server::with(root.path(), move |_, _, _| {
            let answer = Response::builder().header("content-type", kind);
            Some(answer.body(Body::from(body.clone())).unwrap())
        })
        .await;
        let connection = connect(&anonymous(&server), "api").await;
        let error = connection.resolve("refs/heads/main").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn a_repository_with_sha256_names_is_refused_by_name() {
    let root = Root::new();
    let repo = root.repository("api");
    std::fs::remove_dir_all(repo.path.join(".git")).unwrap();
    repo.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
    repo.commit_file("a", "1");
    let server = Server::start(root.path()).await;
    let connection = connect(&anonymous(&server), "api").await;
    let error = connection.resolve("refs/heads/main").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("sha256"), "{error}");
    let error = connection.resolve(repo.head().as_str()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_pack_over_a_limit_is_refused() {
    let root = Root::new();
    let repo = root.repository("api");
    let noise: Vec<u8> =
        (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    repo.write("noise", noise);
    repo.write("zeros", vec![0; 20 << 20]);
    repo.write("small", "1");
    let commit = repo.commit("First");
    let server = Server::start(root.path()).await;
    let driver = GitDriver::builder().base(&*server.url).max_pack_bytes(100_000).build().unwrap();
    let connection = connect(&driver, "api").await;
    let everything = ReadLimit::bytes(usize::MAX);
    for (path, what) in [
        ("noise", "the server sends more than 100000 bytes"),
        ("zeros", "an object of 20971520 bytes is larger than 100000"),
    ] {
        let error = connection.read_file(&commit, path, everything).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{path}: {error}");
        let message = format!("{what}; raise the driver's limit if this is meant");
        assert_eq!(error.message(), message, "{path}");
    }
    assert_eq!(connection.read_file(&commit, "small", everything).await.unwrap(), "1");
    let driver = GitDriver::builder().base(&*server.url).max_objects(1).build().unwrap();
    let connection = connect(&driver, "api").await;
    let error = connection.read_file(&commit, "small", everything).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let message = "objects, more than 1; raise the driver's limit if this is meant";
    assert!(error.message().ends_with(message), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_or_hangs_up_is_a_passing_failure() {
    let root = Root::new();
    root.repository("api").commit_file("a", "1");
    for stall in [true, false] {
        let server = Server::with(root.path(), move |method, _, _| {
            if method != "POST" {
                return None;
            }
            let first = futures::stream::iter([Ok::<_, std::io::Error>("00")]);
            let body = if stall {
                Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()))
            } else {
                Body::from("00")
            };
            let kind = "application/x-git-upload-pack-result";
            Some(Response::builder().header("content-type", kind).body(body).unwrap())
        })
        .await;
        let driver = GitDriver::builder()
            .base(&*server.url)
            .idle_timeout(Duration::from_millis(50))
            .build()
            .unwrap();
        assert_eq!(kind_of(&*connect(&driver, "api").await).await, ErrorKind::Transient);
    }
}

#[tokio::test]
async fn after_a_failure_the_next_call_works_again() {
    let root = Root::new();
    let commit = root.repository("api").commit_file("a", "1");
    let down = Arc::new(AtomicBool::new(false));
    let (is_down, failures) = (Arc::clone(&down), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&failures);
    let server = Server::with(root.path(), move |_, _, _| {
        is_down.load(Ordering::SeqCst).then(|| {
            counted.fetch_add(1, Ordering::SeqCst);
            status(StatusCode::BAD_GATEWAY)
        })
    })
    .await;
    let connection = connect(&anonymous(&server), "api").await;
    connection.default_branch().await.unwrap();
    down.store(true, Ordering::SeqCst);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Transient);
    assert_eq!(failures.load(Ordering::SeqCst), 1, "the driver does not try again by itself");
    down.store(false, Ordering::SeqCst);
    let read = connection.read_file(&commit, "a", ReadLimit::default()).await;
    assert_eq!(read.unwrap(), "1");
}
