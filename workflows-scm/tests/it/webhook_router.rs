//! The receiver behind axum, over a socket.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::stream;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Body, Client, Response, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use workflows_core::{EventSource, conformance::ScriptedScm};
use workflows_scm::{
    github::GitHubDriver,
    webhook::{WebhookReceiver, sign_sha256, webhook_router},
};

use crate::poll_support::Bench;

const SECRET: &str = "s3cret";

struct Served {
    bench: Bench,
    address: SocketAddr,
    client: Client,
}

impl Served {
    async fn start() -> Self {
        let bench = Bench::new("acme", Arc::new(ScriptedScm::new()));
        let driver = GitHubDriver::builder().allow("acme/*").build().unwrap();
        let receiver = WebhookReceiver::new("github", "acme", driver.deliveries())
            .secret(SecretString::from(SECRET))
            .max_bytes(10_000);
        let idle = receiver.clone();
        let (context, _) = bench.context(receiver.name());
        let running = receiver.clone();
        tokio::spawn(async move { running.run(context, CancellationToken::new()).await });
        tokio::task::yield_now().await;
        let other = WebhookReceiver::new("other", "acme", driver.deliveries())
            .patience(SignedDuration::ZERO)
            .secret(SecretString::from("other"));
        let router = webhook_router([("/hooks/acme", idle), ("/hooks/other", other)]);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { bench, address, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn post(&self, path: &str, secret: &str, body: Vec<u8>) -> Response {
        let signature = sign_sha256(&SecretString::from(secret.to_owned()), &body);
        self.client
            .post(format!("http://{}{path}", self.address))
            .header("X-GitHub-Event", "push")
            .header("X-GitHub-Delivery", "guid-1")
            .header("X-Hub-Signature-256", signature)
            .body(body)
            .send()
            .await
            .unwrap()
    }
}

fn push() -> Value {
    json!({
        "ref": "refs/heads/main", "before": "0".repeat(40), "after": "1".repeat(40),
        "forced": false, "repository": {"id": 1, "full_name": "acme/api"},
        "sender": {"login": "ada"},
    })
}

#[tokio::test]
async fn a_delivery_over_a_socket_is_taken_in_on_its_route() {
    let served = Served::start().await;
    let answer = served.post("/hooks/acme", SECRET, push().to_string().into_bytes()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["taken"], "event");
    let events = served.bench.events().await;
    assert_eq!(events[0].repo.id.as_str(), "github.com/1");
    assert_eq!(events[0].repo.connection.as_str(), "acme");
    assert!(events[0].occurred_at <= Timestamp::MAX);

    // The other route has another secret, and its source does not run.
    let wrong = served.post("/hooks/other", SECRET, push().to_string().into_bytes()).await;
    assert_eq!(wrong.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(wrong.headers()["retry-after"], "10");
    let wrong = served.post("/hooks/acme", "other", push().to_string().into_bytes()).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    let nowhere = served.post("/hooks", SECRET, push().to_string().into_bytes()).await;
    assert_eq!(nowhere.status(), StatusCode::NOT_FOUND);
    let address = format!("http://{}/hooks/acme", served.address);
    let get = served.client.get(address).send().await.unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_body_is_read_no_further_than_the_limit() {
    let served = Served::start().await;
    let told = served.post("/hooks/acme", SECRET, vec![b' '; 10_001]).await;
    assert_eq!(told.status(), StatusCode::PAYLOAD_TOO_LARGE);

    // Without a length, chunk by chunk, and without an end.
    let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1_000]));
    let address = format!("http://{}/hooks/acme", served.address);
    let sent = served.client.post(address).body(Body::wrap_stream(endless)).send().await;
    if let Ok(answer) = sent {
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
    assert_eq!(served.bench.events().await, []);
}

/// What a receiver answers to a delivery whose last byte comes after so long, and when.
async fn answered_when_slow(receiver: &WebhookReceiver, slow: Duration) -> (StatusCode, Duration) {
    let whole = push().to_string();
    let signature = sign_sha256(&SecretString::from(SECRET), whole.as_bytes());
    let (last, first) = whole.as_bytes().split_last().unwrap();
    let (first, last) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(&[*last]));
    let chunks = stream::once(async move { Ok::<_, std::io::Error>(first) });
    let chunks = futures::StreamExt::chain(
        chunks,
        stream::once(async move {
            tokio::time::sleep(slow).await;
            Ok(last)
        }),
    );
    let request = axum::http::Request::post("/hook")
        .header("X-GitHub-Event", "push")
        .header("X-GitHub-Delivery", "guid-1")
        .header("X-Hub-Signature-256", signature)
        .body(axum::body::Body::from_stream(chunks))
        .unwrap();
    let began = Instant::now();
    let router = webhook_router([("/hook", receiver.clone())]);
    let answer = router.oneshot(request).await.unwrap();
    (answer.status(), began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn reading_and_storing_have_one_deadline() {
    let bench = Bench::new("acme", Arc::new(ScriptedScm::new()));
    let driver = GitHubDriver::builder().allow("acme/*").build().unwrap();
    let receiver = WebhookReceiver::new("github", "acme", driver.deliveries())
        .secret(SecretString::from(SECRET));
    let (seven, eight) = (Duration::from_secs(7), Duration::from_secs(8));
    // The engine does not run, so that what was read waits for it.
    let answer = answered_when_slow(&receiver, seven).await;
    assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, eight));
    let answer = answered_when_slow(&receiver, Duration::from_secs(60)).await;
    assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, eight));

    let (context, _) = bench.context(receiver.name());
    let running = receiver.clone();
    tokio::spawn(async move { running.run(context, CancellationToken::new()).await });
    let answer = answered_when_slow(&receiver, seven).await;
    assert_eq!(answer, (StatusCode::ACCEPTED, seven));
}
