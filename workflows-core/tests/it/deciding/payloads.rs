//! Raw payloads that are not what they should be: what is decided, and in which words.

use bytes::Bytes;
use workflows_core::{
    Event, Store as _,
    event::Payload,
    store::{Decision, Outcome},
};

use super::world::{World, workflow};

const BY_BODY: &str = "
  triggers:
  - { name: by-body, on: push, filter: \"body.deploy == 'yes'\" }
  - { name: by-header, on: push, filter: \"headers['x-github-event'] == 'push'\" }
  - { name: by-event, on: push }";
/// The most that a webhook receiver takes in, which is what GitHub sends at most.
const LARGEST: usize = 25 << 20;

async fn hears_with(payload: Payload) -> (World, Event) {
    let world = World::with(&workflow("deploy", BY_BODY));
    let push = world.repo.push("alice", "main", &[("a", "b")]).with_payload(payload);
    let event = world.hears(push).await.unwrap();
    (world, event)
}

fn with_headers(body: impl Into<Bytes>) -> Payload {
    Payload::new([("x-github-event", "push")], body.into())
}

fn text(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Matched { .. } => "matched".to_owned(),
        Outcome::Rejected(rejected) => format!("no: {}", rejected.filter),
        Outcome::Failed { filter, error } => format!("{filter}: {error}"),
        other => format!("{other:?}"),
    }
}

/// What each trigger says to a push with this payload.
async fn said(payload: Payload) -> Vec<String> {
    let (world, event) = hears_with(payload).await;
    let batches = world.batches(&event.key).await;
    assert_eq!(batches.len(), 1);
    batches[0].decisions.iter().map(text).collect()
}

#[tokio::test]
async fn a_payload_that_is_not_json_fails_the_filters_that_read_it_and_no_other() {
    let cases: [(&[u8], &str); 5] = [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"{\"deploy\": \"ye", "EOF while parsing a string at line 1 column 14"),
        (b"deploy=yes", "expected value at line 1 column 1"),
        (b"{\"deploy\": \"\xff\"}", "invalid unicode code point at line 1 column 13"),
        (b"{\"deploy\": \"yes\"} {}", "trailing characters at line 1 column 19"),
    ];
    for (body, why) in cases {
        assert_eq!(
            said(with_headers(body.to_vec())).await,
            [format!("filter: the payload is not JSON: {why}"), "matched".into(), "matched".into()],
        );
    }
}

#[tokio::test]
async fn a_payload_that_is_nested_without_end_is_refused_and_not_followed() {
    for (open, close, column) in [("[", "]", 128), ("{\"a\":", "}", 636)] {
        let body = format!("{}1{}", open.repeat(500_000), close.repeat(500_000));
        let said = said(with_headers(body)).await;
        let why = "filter: the payload is not JSON: recursion limit exceeded at line 1 column";
        assert_eq!(said[0], format!("{why} {column}"));
        assert_eq!(said[1..], ["matched", "matched"]);
    }
}

#[tokio::test]
async fn a_payload_as_large_as_can_be_is_read_like_any_other() {
    let filling = "x".repeat(LARGEST - 60);
    let said =
        said(with_headers(format!("{{\"filling\":\"{filling}\",\"deploy\":\"yes\"}}"))).await;
    assert_eq!(said, ["matched"; 3]);
}

#[tokio::test]
async fn a_payload_that_is_larger_is_refused_before_anything_is_stored() {
    let world = World::with(&workflow("deploy", BY_BODY));
    let push = world.repo.push("alice", "main", &[("a", "b")]);
    let push = push.with_payload(with_headers(vec![b' '; LARGEST + 1]));
    let refused = world.store.admit(vec![push], None).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "admit observation: it is over the limit `max_payload_bytes` (tenant: default, repository: \
         scm:acme/api, delivery: webhook-4, bytes: 26214419, limit: 26214400)"
    );
    assert_eq!(world.store.position().await.unwrap(), 0);
}

#[tokio::test]
async fn headers_that_are_missing_fail_the_filters_that_read_them_and_no_other() {
    let none: [(&str, &str); 0] = [];
    let said = said(Payload::new(none, Bytes::from_static(b"{\"deploy\": \"no\"}"))).await;
    assert_eq!(
        said,
        [
            "no: filter",
            "filter: headers['x-github-event'] == 'push': No such key: x-github-event",
            "matched"
        ]
    );
}
