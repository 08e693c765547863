//! The server as a test holds it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use tokio::sync::oneshot;
use workflows_core::SharedClock;

use crate::{
    api::{self, Answer},
    limits::Limits,
    world::{Bot, Channel, Shown, World},
};

/// Something that goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// This status and a page of HTML, as a proxy sends it. Nothing was done.
    Status(u16),
    /// 429, with so many seconds to wait.
    TooMany(u64),
    /// `ok: false` with this word. Nothing was done.
    Word(&'static str),
    /// What was asked for is done, and the connection breaks before the answer's body.
    LostAnswer,
}

/// A call that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The method of the Web API, or `webhook`.
    pub method: String,
    /// Slack's word for the refusal, or the status of an answer that is none of the Web API; empty
    /// when it was done.
    pub refused: String,
    /// When, by the workspace's clock.
    pub at: Timestamp,
}

/// A fault that waits for calls of a method.
#[derive(Debug)]
struct Planned {
    method: String,
    fault: Fault,
    /// So many calls go well first.
    after: u32,
    times: u32,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    calls: Mutex<Vec<Call>>,
    faults: Mutex<Vec<Planned>>,
    latency: Mutex<Duration>,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, method: &str) -> Option<Fault> {
        let mut planned = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        planned.retain(|one| one.times > 0);
        let next = planned.iter_mut().find(|one| one.method == method || one.method == "*")?;
        if next.after > 0 {
            next.after -= 1;
            return None;
        }
        next.times -= 1;
        Some(next.fault)
    }
}

/// A Slack that runs until it is dropped.
#[derive(Debug)]
pub struct Workspace {
    shared: Arc<Shared>,
    root: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Workspace {
    /// Starts an empty one on a free port of this machine, with a thread of its own.
    ///
    /// # Panics
    ///
    /// When there is no port.
    pub fn start(clock: SharedClock) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a port that does not block");
        let root = format!("http://{}", listener.local_addr().expect("an address"));
        let world = World {
            clock,
            limits: Limits::default(),
            spent: Default::default(),
            channels: BTreeMap::new(),
            bots: BTreeMap::new(),
            webhooks: BTreeMap::new(),
            refused: Vec::new(),
            last_id: 100,
        };
        let shared = Arc::new(Shared {
            world: world.into(),
            calls: Default::default(),
            faults: Default::default(),
            latency: Default::default(),
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let served = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime for the stand-in").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let router = Router::new().fallback(handle).with_state(served);
                tokio::select! {
                    served = axum::serve(listener, router) => served.expect("it serves"),
                    _ = stopped => {}
                }
            });
        });
        Self { shared, root, stop: Some(stop), thread: Some(thread) }
    }

    /// Where the Web API is.
    pub fn api(&self) -> String {
        format!("{}/api", self.root)
    }

    /// A channel; its id.
    pub fn create_channel(&self, _name: &str) -> String {
        let mut world = self.shared.world();
        let id = format!("C{:09}", world.next_id());
        world.channels.insert(id.clone(), Channel::default());
        id
    }

    /// Archives a channel.
    pub fn archive(&self, channel: &str) {
        if let Some(channel) = self.shared.world().channels.get_mut(channel) {
            channel.is_archived = true;
        }
    }

    /// A bot with these scopes; its token.
    pub fn create_bot(&self, scopes: &[&str]) -> String {
        let mut world = self.shared.world();
        let id = world.next_id();
        let token = format!("xoxb-standin-{id}");
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        let bot = Bot { user: format!("U{id:09}"), scopes, is_revoked: false };
        world.bots.insert(token.clone(), bot);
        token
    }

    /// Lets a bot into a channel.
    pub fn invite(&self, token: &str, channel: &str) {
        let mut world = self.shared.world();
        let user = world.bots.get(token).map(|bot| bot.user.clone());
        if let (Some(user), Some(channel)) = (user, world.channels.get_mut(channel)) {
            channel.members.insert(user);
        }
    }

    /// Makes a token be refused.
    pub fn revoke(&self, token: &str) {
        if let Some(bot) = self.shared.world().bots.get_mut(token) {
            bot.is_revoked = true;
        }
    }

    /// An incoming webhook to a channel; its address.
    pub fn create_webhook(&self, channel: &str) -> String {
        let mut world = self.shared.world();
        let path = format!("/services/T0/B{}/secret", world.next_id());
        world.webhooks.insert(path.clone(), channel.to_owned());
        format!("{}{path}", self.root)
    }

    /// How much may be asked how often.
    pub fn set_limits(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.shared.world().limits);
    }

    /// A person writes something into a channel.
    pub fn say(&self, channel: &str, text: &str) {
        let mut world = self.shared.world();
        let message = Shown {
            ts: world.next_ts(),
            thread: None,
            broadcast: false,
            text: text.to_owned(),
            blocks: serde_json::json!([]),
            metadata: None,
            edits: 0,
            by: "U000000001".to_owned(),
        };
        if let Some(channel) = world.channels.get_mut(channel) {
            channel.messages.push(message);
        }
    }

    /// Somebody deletes a message.
    pub fn delete(&self, channel: &str, ts: &str) {
        if let Some(channel) = self.shared.world().channels.get_mut(channel) {
            channel.messages.retain(|one| one.ts != ts);
        }
    }

    /// All messages of a channel and its threads, oldest first.
    pub fn messages(&self, channel: &str) -> Vec<Shown> {
        self.shared
            .world()
            .channels
            .get(channel)
            .map(|one| one.messages.clone())
            .unwrap_or_default()
    }

    /// What stands in a channel itself, oldest first.
    pub fn in_channel(&self, channel: &str) -> Vec<Shown> {
        self.messages(channel).into_iter().filter(|one| one.thread.is_none()).collect()
    }

    /// What shows in a channel, replies that were broadcast among it, oldest first.
    pub fn shows_in_channel(&self, channel: &str) -> Vec<Shown> {
        let all = self.messages(channel).into_iter();
        all.filter(|one| one.thread.is_none() || one.broadcast).collect()
    }

    /// What stands in a thread, oldest first.
    pub fn in_thread(&self, channel: &str, ts: &str) -> Vec<Shown> {
        let all = self.messages(channel).into_iter();
        all.filter(|one| one.thread.as_deref() == Some(ts)).collect()
    }

    /// Answers so long after what was asked for is done.
    pub fn set_latency(&self, latency: Duration) {
        *self.shared.latency.lock().unwrap_or_else(PoisonError::into_inner) = latency;
    }

    /// Makes the next calls of a method (`chat.postMessage`, `webhook`, `*`) go wrong.
    pub fn fail(&self, method: &str, fault: Fault, times: u32) {
        self.fail_after(method, 0, fault, times);
    }

    /// The same, after so many calls that go well.
    pub fn fail_after(&self, method: &str, after: u32, fault: Fault, times: u32) {
        let mut planned = self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner);
        planned.push(Planned { method: method.to_owned(), fault, after, times });
    }

    /// Nothing that was planned goes wrong any more.
    pub fn recover(&self) {
        self.shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The calls that were made.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls of a method were made.
    pub fn count(&self, method: &str) -> usize {
        self.calls().iter().filter(|call| call.method == method).count()
    }

    /// What was refused for its form, and forgets it.
    pub fn take_refused(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.world().refused)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let refused = self.take_refused();
        if !refused.is_empty() && !std::thread::panicking() {
            panic!("the stand-in for Slack was sent what Slack refuses:\n{}", refused.join("\n"));
        }
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let method = path.strip_prefix("/api/").unwrap_or("webhook").to_owned();
    let Ok(body) = axum::body::to_bytes(body, 4 << 20).await else {
        return plain(413, "too large");
    };
    let fault = shared.fault(&method);
    let answer = match fault {
        Some(Fault::Status(status)) => Answer::Plain(status, "<html><title>Oops</title></html>"),
        Some(Fault::TooMany(seconds)) => Answer::TooMany(seconds),
        Some(Fault::Word(word)) => Answer::Json(serde_json::json!({ "ok": false, "error": word })),
        Some(Fault::LostAnswer) | None => {
            let head = |name: header::HeaderName| {
                parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
            };
            let mut world = shared.world();
            match method.as_str() {
                "webhook" => api::webhook(&mut world, &path, &body),
                method => {
                    let args = api::args(head(header::CONTENT_TYPE), &body);
                    let token = head(header::AUTHORIZATION).strip_prefix("Bearer ");
                    api::call(&mut world, method, token, &args)
                }
            }
        }
    };
    let refused = match &answer {
        Answer::Json(value) => value["error"].as_str().unwrap_or_default().to_owned(),
        Answer::TooMany(_) => "429".to_owned(),
        Answer::Plain(200, _) => String::new(),
        Answer::Plain(status, _) => status.to_string(),
    };
    let at = shared.world().now();
    let call = Call { method, refused, at };
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    let latency = *shared.latency.lock().unwrap_or_else(PoisonError::into_inner);
    if latency > Duration::ZERO {
        tokio::time::sleep(latency).await;
    }
    if fault == Some(Fault::LostAnswer) {
        let broken = || std::io::Error::other("the stand-in breaks the connection");
        let mut response =
            Response::new(Body::from_stream(stream::iter([Err::<Bytes, _>(broken())])));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("100"));
        return response;
    }
    let scopes = scopes(&shared, &parts.headers);
    match answer {
        Answer::Plain(status, text) => plain(status, text),
        Answer::TooMany(seconds) => {
            let mut response = plain(429, r#"{"ok":false,"error":"ratelimited"}"#);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            response
        }
        Answer::Json(value) => {
            let mut response = plain(200, &value.to_string());
            let headers = response.headers_mut();
            let kind = HeaderValue::from_static("application/json; charset=utf-8");
            headers.insert(header::CONTENT_TYPE, kind);
            if let Some(scopes) = scopes.and_then(|scopes| HeaderValue::from_str(&scopes).ok()) {
                headers.insert("x-oauth-scopes", scopes);
            }
            response
        }
    }
}

fn scopes(shared: &Shared, headers: &axum::http::HeaderMap) -> Option<String> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    let world = shared.world();
    let scopes = world.bots.get(token)?.scopes.iter().cloned().collect::<Vec<_>>();
    Some(scopes.join(","))
}

fn plain(status: u16, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(text.to_owned()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}
