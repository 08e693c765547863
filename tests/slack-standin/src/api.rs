//! The methods of the Web API, and incoming webhooks.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    rules,
    world::{Bot, Shown, World},
};

/// What is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Json(Value),
    /// Too many: come back after so many seconds.
    TooMany(u64),
    /// What a webhook answers.
    Plain(u16, &'static str),
}

fn refused(word: &str) -> Answer {
    Answer::Json(json!({ "ok": false, "error": word }))
}

/// Calls a method of the Web API.
pub(crate) fn call(world: &mut World, method: &str, token: Option<&str>, args: &Args) -> Answer {
    let Some(token) = token else { return refused("not_authed") };
    let Some(bot) = world.bots.get(token) else { return refused("invalid_auth") };
    if bot.is_revoked {
        return refused("token_revoked");
    }
    let scope = match method {
        "auth.test" => None,
        "chat.postMessage" | "chat.update" => Some("chat:write"),
        "conversations.history" | "conversations.replies" => Some("channels:history"),
        _ => return refused("unknown_method"),
    };
    if let Some(needed) = scope.filter(|scope| !bot.scopes.contains(*scope)) {
        let provided = bot.scopes.iter().cloned().collect::<Vec<_>>().join(",");
        let (ok, error) = (false, "missing_scope");
        let answer = json!({ "ok": ok, "error": error, "needed": needed, "provided": provided });
        return Answer::Json(answer);
    }
    let user = bot.user.clone();
    let now = world.now();
    if method != "auth.test" && method != "chat.postMessage" {
        let limits = world.limits.clone();
        if let Some(seconds) = world.spent.call(&limits, method, now) {
            return Answer::TooMany(seconds);
        }
    }
    match method {
        "auth.test" => Answer::Json(json!({ "ok": true, "team": "acme", "user_id": user })),
        "chat.postMessage" => post(world, token, args),
        "chat.update" => update(world, &user, args),
        "conversations.history" => history(world, &user, args),
        _ => replies(world, &user, args),
    }
}

/// The arguments of a call, from a form or from JSON.
#[derive(Debug, Default)]
pub(crate) struct Args(pub(crate) Map<String, Value>);

impl Args {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        matches!(self.0.get(name), Some(Value::Bool(true)))
            || matches!(self.text(name), Some("true" | "1"))
    }
}

/// Why somebody may not write or read in a channel.
fn closed(world: &World, channel: &str, bot: &Bot, writes: bool) -> Option<&'static str> {
    let Some(found) = world.channels.get(channel) else { return Some("channel_not_found") };
    if writes && found.is_archived {
        return Some("is_archived");
    }
    let may_anywhere = writes && bot.scopes.contains("chat:write.public");
    (!found.members.contains(&bot.user) && !may_anywhere).then_some("not_in_channel")
}

/// Why a message is not taken, with what is wrong with its blocks.
fn wrong(world: &mut World, args: &Map<String, Value>) -> Option<(&'static str, Vec<String>)> {
    let text = args.get("text").and_then(Value::as_str).unwrap_or_default();
    let blocks = args.get("blocks").cloned().unwrap_or_else(|| json!([]));
    let violations = rules::violations(&blocks);
    let is_too_long = violations.iter().any(|one| one.starts_with("blocks: their texts"));
    let word = if is_too_long {
        "msg_blocks_too_long"
    } else if !violations.is_empty() {
        "invalid_blocks"
    } else if text.is_empty() && blocks.as_array().is_none_or(Vec::is_empty) {
        "no_text"
    } else if text.chars().count() > rules::TEXT {
        "msg_too_long"
    } else {
        let word = args.get("metadata").and_then(rules::metadata)?;
        world.refused.push(format!("{word}: {}", args["metadata"]));
        return Some((word, Vec::new()));
    };
    world.refused.push(format!("{word}: {}", violations.join("; ")));
    Some((word, violations))
}

fn is_wrong(word: &str, messages: &[String]) -> Answer {
    let messages: Vec<String> = messages.iter().map(|one| format!("[ERROR] {one}")).collect();
    let (ok, metadata) = (false, json!({ "messages": messages }));
    Answer::Json(json!({ "ok": ok, "error": word, "response_metadata": metadata }))
}

fn post(world: &mut World, token: &str, args: &Args) -> Answer {
    let channel = args.text("channel").unwrap_or_default().to_owned();
    let Some(bot) = world.bots.get(token) else { return refused("invalid_auth") };
    let user = bot.user.clone();
    if let Some(word) = closed(world, &channel, bot, true) {
        return refused(word);
    }
    let (limits, now) = (world.limits.clone(), world.now());
    if let Some(seconds) = world.spent.post(&limits, &channel, now) {
        return Answer::TooMany(seconds);
    }
    if let Some((word, messages)) = wrong(world, &args.0) {
        return is_wrong(word, &messages);
    }
    let thread = args.text("thread_ts").map(str::to_owned);
    let shown = Shown {
        ts: world.next_ts(),
        broadcast: thread.is_some() && args.is_true("reply_broadcast"),
        thread,
        text: args.text("text").unwrap_or_default().to_owned(),
        blocks: args.0.get("blocks").cloned().unwrap_or_else(|| json!([])),
        metadata: args.0.get("metadata").cloned(),
        edits: 0,
        by: user,
    };
    let ts = shown.ts.clone();
    let Some(found) = world.channels.get_mut(&channel) else { return refused("channel_not_found") };
    if let Some(thread) = &shown.thread {
        match found.messages.iter().find(|one| one.ts == *thread) {
            None => return refused("thread_not_found"),
            // There are no threads in threads.
            Some(parent) if parent.thread.is_some() => return refused("cannot_reply_to_message"),
            Some(_) => {}
        }
    }
    let message = view(&shown, &[], true);
    found.messages.push(shown);
    Answer::Json(json!({ "ok": true, "channel": channel, "ts": ts, "message": message }))
}

fn update(world: &mut World, user: &str, args: &Args) -> Answer {
    let channel = args.text("channel").unwrap_or_default().to_owned();
    let ts = args.text("ts").unwrap_or_default().to_owned();
    let there = world.channels.get(&channel).map(|channel| channel.is_archived);
    match there {
        None => return refused("channel_not_found"),
        Some(true) => return refused("is_archived"),
        Some(false) => {}
    }
    if let Some((word, messages)) = wrong(world, &args.0) {
        return is_wrong(word, &messages);
    }
    let messages = world.channels.get_mut(&channel).map(|channel| &mut channel.messages);
    let mut messages = messages.into_iter().flatten();
    let Some(message) = messages.find(|one| one.ts == ts) else {
        return refused("message_not_found");
    };
    if message.by != user {
        return refused("cant_update_message");
    }
    message.text = args.text("text").unwrap_or_default().to_owned();
    message.blocks = args.0.get("blocks").cloned().unwrap_or_else(|| json!([]));
    if let Some(metadata) = args.0.get("metadata") {
        message.metadata = Some(metadata.clone());
    }
    message.edits += 1;
    Answer::Json(json!({ "ok": true, "channel": channel, "ts": ts }))
}

/// A message as the API has it.
fn view(message: &Shown, replies: &[&Shown], with_metadata: bool) -> Value {
    let mut view = json!({
        "type": "message",
        "user": message.by,
        "ts": message.ts,
        "text": message.text,
        "blocks": message.blocks,
    });
    if let Some(thread) = &message.thread {
        view["thread_ts"] = json!(thread);
    }
    if message.broadcast {
        view["subtype"] = json!("thread_broadcast");
    }
    if !replies.is_empty() {
        view["thread_ts"] = json!(message.ts);
        view["reply_count"] = json!(replies.len());
    }
    if let Some(metadata) = message.metadata.as_ref().filter(|_| with_metadata) {
        view["metadata"] = metadata.clone();
    }
    view
}

fn readable<'a>(world: &'a World, user: &str, channel: &str) -> Result<&'a [Shown], Answer> {
    let bot = world.bots.values().find(|bot| bot.user == user);
    let closed = bot.and_then(|bot| closed(world, channel, bot, false));
    match (closed, world.channels.get(channel)) {
        (Some(word), _) => Err(refused(word)),
        (None, Some(found)) => Ok(&found.messages),
        (None, None) => Err(refused("channel_not_found")),
    }
}

fn history(world: &World, user: &str, args: &Args) -> Answer {
    let channel = args.text("channel").unwrap_or_default();
    let messages = match readable(world, user, channel) {
        Ok(messages) => messages,
        Err(answer) => return answer,
    };
    let oldest = seconds(args.text("oldest").unwrap_or("0"));
    let with_metadata = args.is_true("include_all_metadata");
    let in_channel = messages.iter().rev().filter(|one| one.thread.is_none() || one.broadcast);
    let views: Vec<Value> = in_channel
        .filter(|one| seconds(&one.ts) > oldest)
        .map(|one| {
            let replies: Vec<&Shown> =
                messages.iter().filter(|reply| reply.thread.as_ref() == Some(&one.ts)).collect();
            view(one, &replies, with_metadata)
        })
        .collect();
    page(world, &views, args)
}

fn replies(world: &World, user: &str, args: &Args) -> Answer {
    let channel = args.text("channel").unwrap_or_default();
    let messages = match readable(world, user, channel) {
        Ok(messages) => messages,
        Err(answer) => return answer,
    };
    let ts = args.text("ts").unwrap_or_default();
    let Some(parent) = messages.iter().find(|one| one.ts == ts) else {
        return refused("thread_not_found");
    };
    let with_metadata = args.is_true("include_all_metadata");
    let replies: Vec<&Shown> =
        messages.iter().filter(|one| one.thread.as_deref() == Some(ts)).collect();
    let mut views = vec![view(parent, &replies, with_metadata)];
    views.extend(replies.iter().map(|one| view(one, &[], with_metadata)));
    page(world, &views, args)
}

/// One page, with the place of the next as its cursor.
fn page(world: &World, views: &[Value], args: &Args) -> Answer {
    let limit = args.text("limit").and_then(|text| text.parse().ok()).unwrap_or(100_usize);
    let limit = limit.clamp(1, world.limits.page());
    let from: usize = args.text("cursor").and_then(|text| text.parse().ok()).unwrap_or(0);
    let shown: Vec<&Value> = views.iter().skip(from).take(limit).collect();
    let more = views.len() > from + shown.len();
    let next = if more { (from + shown.len()).to_string() } else { String::new() };
    let metadata = json!({ "next_cursor": next });
    Answer::Json(json!({
        "ok": true, "messages": shown, "has_more": more, "response_metadata": metadata,
    }))
}

fn seconds(ts: &str) -> (u64, u64) {
    let (seconds, micros) = ts.split_once('.').unwrap_or((ts, "0"));
    (seconds.parse().unwrap_or(0), micros.parse().unwrap_or(0))
}

/// What an incoming webhook does with a body
/// (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/#handling_errors>).
pub(crate) fn webhook(world: &mut World, path: &str, body: &[u8]) -> Answer {
    let Some(channel) = world.webhooks.get(path).cloned() else {
        return Answer::Plain(404, "no_service");
    };
    if world.channels.get(&channel).is_none_or(|channel| channel.is_archived) {
        return Answer::Plain(410, "channel_is_archived");
    }
    let (limits, now) = (world.limits.clone(), world.now());
    if let Some(seconds) = world.spent.post(&limits, &channel, now) {
        return Answer::TooMany(seconds);
    }
    let Ok(Value::Object(args)) = serde_json::from_slice(body) else {
        return Answer::Plain(400, "invalid_payload");
    };
    if let Some((word, _)) = wrong(world, &args) {
        return Answer::Plain(400, if word == "no_text" { "no_text" } else { "invalid_blocks" });
    }
    let shown = Shown {
        ts: world.next_ts(),
        thread: None,
        broadcast: false,
        text: args.get("text").and_then(Value::as_str).unwrap_or_default().to_owned(),
        blocks: args.get("blocks").cloned().unwrap_or_else(|| json!([])),
        metadata: None,
        edits: 0,
        by: "webhook".to_owned(),
    };
    if let Some(found) = world.channels.get_mut(&channel) {
        found.messages.push(shown);
    }
    Answer::Plain(200, "ok")
}

/// The arguments of a request, by its content type; none when it has another one.
pub(crate) fn args(content_type: &str, body: &[u8]) -> Args {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let fields = match kind {
        "application/json" => match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        },
        "application/x-www-form-urlencoded" => {
            let pairs: BTreeMap<String, String> =
                url::form_urlencoded::parse(body).into_owned().collect();
            pairs.into_iter().map(|(name, value)| (name, Value::String(value))).collect()
        }
        _ => Map::new(),
    };
    Args(fields)
}
