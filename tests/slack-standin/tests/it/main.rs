//! What the stand-in does as Slack does.

use std::sync::Arc;

use serde_json::{Value, json};
use workflows_core::ManualClock;
use workflows_slack_standin::{Fault, Workspace};

struct World {
    slack: Workspace,
    clock: ManualClock,
    client: reqwest::Client,
    channel: String,
    token: String,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::at(jiff::Timestamp::from_second(1_000_000).unwrap());
        let slack = Workspace::start(Arc::new(clock.clone()));
        let channel = slack.create_channel("ci");
        let token = slack.create_bot(&["chat:write", "channels:history"]);
        slack.invite(&token, &channel);
        Self { slack, clock, client: reqwest::Client::new(), channel, token }
    }

    async fn call_as(&self, token: &str, method: &str, body: Value) -> Value {
        let url = format!("{}/{method}", self.slack.api());
        let request = self
            .client
            .post(url)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    async fn call(&self, method: &str, body: Value) -> Value {
        self.call_as(&self.token, method, body).await
    }

    async fn post(&self, text: &str) -> Value {
        self.call("chat.postMessage", json!({ "channel": self.channel, "text": text })).await
    }
}

#[tokio::test]
async fn it_keeps_what_is_posted_as_often_as_it_is_posted_and_gives_it_back_in_pages() {
    let world = World::new();
    for n in 0..5 {
        assert_eq!(world.post(&format!("same {}", n / 2)).await["ok"], true);
    }
    let ask = |cursor: &str| json!({ "channel": world.channel, "limit": "2", "cursor": cursor });
    let first = world.call("conversations.history", ask("")).await;
    assert_eq!(first["messages"][0]["text"], "same 2");
    assert_eq!(first["messages"].as_array().unwrap().len(), 2);
    let cursor = first["response_metadata"]["next_cursor"].as_str().unwrap();
    let second = world.call("conversations.history", ask(cursor)).await;
    assert_eq!(second["messages"][0]["text"], "same 1");
    let since = second["messages"][0]["ts"].clone();
    let newer = json!({ "channel": world.channel, "oldest": since });
    let newer = world.call("conversations.history", newer).await;
    assert_eq!(newer["messages"].as_array().unwrap().len(), 2, "the oldest is not among them");
}

#[tokio::test]
async fn a_thread_is_apart_but_for_what_is_broadcast_and_metadata_is_told_on_request() {
    let world = World::new();
    let parent = world.post("parent").await["ts"].clone();
    let metadata = json!({ "event_type": "x", "event_payload": { "k": "v" } });
    for broadcast in [false, true] {
        let reply = json!({
            "channel": world.channel, "text": "reply", "thread_ts": parent,
            "reply_broadcast": broadcast, "metadata": metadata,
        });
        assert_eq!(world.call("chat.postMessage", reply).await["ok"], true);
    }
    let ask = json!({ "channel": world.channel });
    let history = world.call("conversations.history", ask).await;
    let messages = history["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0]["subtype"], "thread_broadcast");
    assert_eq!(messages[1]["reply_count"], 2);
    assert!(messages[0].get("metadata").is_none());
    let ask = json!({ "channel": world.channel, "ts": parent, "include_all_metadata": true });
    let thread = world.call("conversations.replies", ask).await;
    assert_eq!(thread["messages"][0]["text"], "parent");
    assert_eq!(thread["messages"][2]["metadata"], metadata);
}

#[tokio::test]
async fn it_refuses_whom_and_what_slack_refuses() {
    let world = World::new();
    let channel = json!(world.channel);
    let post = json!({ "channel": channel, "text": "x" });
    let stranger = world.slack.create_bot(&["chat:write"]);
    let reader = world.slack.create_bot(&["channels:history"]);
    let error = async |token: &str, method: &str, body: &Value| {
        world.call_as(token, method, body.clone()).await["error"].as_str().unwrap().to_owned()
    };
    let ours = &world.token;
    assert_eq!(error("unknown", "chat.postMessage", &post).await, "invalid_auth");
    assert_eq!(error(&stranger, "chat.postMessage", &post).await, "not_in_channel");
    assert_eq!(error(&reader, "chat.postMessage", &post).await, "missing_scope");
    assert_eq!(error(&stranger, "conversations.history", &post).await, "missing_scope");
    let elsewhere = json!({ "channel": "C0", "text": "x" });
    assert_eq!(error(ours, "chat.postMessage", &elsewhere).await, "channel_not_found");
    let nothing = json!({ "channel": channel });
    assert_eq!(error(ours, "chat.postMessage", &nothing).await, "no_text");
    let blocks = json!({ "channel": channel, "blocks": [{ "type": "header" }] });
    assert_eq!(error(ours, "chat.postMessage", &blocks).await, "invalid_blocks");
    let long = json!({ "channel": channel, "text": "x".repeat(40_001) });
    assert_eq!(error(ours, "chat.postMessage", &long).await, "msg_too_long");
    let metadata = json!({ "channel": channel, "text": "x", "metadata": { "event_type": "x" } });
    assert_eq!(error(ours, "chat.postMessage", &metadata).await, "invalid_metadata_format");
    let gone = json!({ "channel": channel, "text": "x", "ts": "1.000001" });
    assert_eq!(error(ours, "chat.update", &gone).await, "message_not_found");
    assert_eq!(error(ours, "chat.delete", &gone).await, "unknown_method");
    world.slack.archive(&world.channel);
    assert_eq!(error(ours, "chat.postMessage", &post).await, "is_archived");
    world.slack.revoke(ours);
    assert_eq!(error(ours, "chat.postMessage", &post).await, "token_revoked");
    assert_eq!(world.slack.take_refused().len(), 4);
}

#[tokio::test]
async fn only_its_author_edits_a_message() {
    let world = World::new();
    let ts = world.post("one").await["ts"].clone();
    let edit = json!({ "channel": world.channel, "ts": ts, "text": "two" });
    let other = world.slack.create_bot(&["chat:write"]);
    world.slack.invite(&other, &world.channel);
    let refused = world.call_as(&other, "chat.update", edit.clone()).await;
    assert_eq!(refused["error"], "cant_update_message");
    assert_eq!(world.call("chat.update", edit).await["ok"], true);
    let shown = world.slack.messages(&world.channel);
    assert_eq!((&*shown[0].text, shown[0].edits), ("two", 1));
}

#[tokio::test]
async fn a_channel_takes_a_short_burst_and_then_a_message_a_second() {
    let world = World::new();
    for _ in 0..5 {
        assert_eq!(world.post("x").await["ok"], true);
    }
    assert_eq!(world.post("x").await["error"], "ratelimited");
    world.clock.advance(jiff::SignedDuration::from_secs(1));
    assert_eq!(world.post("x").await["ok"], true);
    assert_eq!(world.post("x").await["error"], "ratelimited");
    let ask = json!({ "channel": world.channel });
    for _ in 0..50 {
        assert_eq!(world.call("conversations.history", ask.clone()).await["ok"], true);
    }
    assert_eq!(world.call("conversations.history", ask).await["error"], "ratelimited");
}

#[tokio::test]
async fn a_lost_answer_is_one_to_something_that_was_done() {
    let world = World::new();
    world.slack.fail("chat.postMessage", Fault::LostAnswer, 1);
    let url = format!("{}/chat.postMessage", world.slack.api());
    let body = json!({ "channel": world.channel, "text": "x" }).to_string();
    let request = world
        .client
        .post(url)
        .header("authorization", format!("Bearer {}", world.token))
        .header("content-type", "application/json")
        .body(body);
    let answer = request.send().await;
    assert!(answer.is_err() || answer.unwrap().text().await.is_err());
    assert_eq!(world.slack.messages(&world.channel).len(), 1);
}

#[tokio::test]
async fn a_webhook_answers_with_words() {
    let world = World::new();
    let url = world.slack.create_webhook(&world.channel);
    let send = async |url: &str, body: &str| {
        let answer = world.client.post(url).body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(send(&url, r#"{"text":"x"}"#).await, (200, "ok".to_owned()));
    assert_eq!(send(&url, "x").await, (400, "invalid_payload".to_owned()));
    assert_eq!(send(&url, "{}").await, (400, "no_text".to_owned()));
    let elsewhere = url.replace("secret", "other");
    assert_eq!(send(&elsewhere, "{}").await, (404, "no_service".to_owned()));
    world.slack.archive(&world.channel);
    assert_eq!(send(&url, "{}").await, (410, "channel_is_archived".to_owned()));
    world.slack.take_refused();
}
