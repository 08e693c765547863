//! The server: what happens to every request before and after its route.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::Body as HttpBody,
    extract::{Request as HttpRequest, State},
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::stream;
use serde_json::Value;
use sha2::{Digest, Sha256};
use workflows_standin_kit::{
    decoded,
    faults::{self, Fault, Planned},
    http_backend, plain,
};

use crate::{
    Call,
    access::Caller,
    answer::{Answer, Body, Request},
    api,
    limits::Window,
    world::World,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: Mutex<World>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) faults: Mutex<Vec<Planned>>,
    pub(crate) is_unreachable: AtomicBool,
    pub(crate) is_lost: AtomicBool,
}

impl Shared {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, method: &str, template: &str, path: &str) -> Option<Fault> {
        let now = self.world().now();
        let mut planned = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults::next(&mut planned, method, template, path, now)
    }
}

/// What a request turned out to be, for the record.
struct Seen {
    method: String,
    template: String,
    path: String,
    caller: String,
}

pub(crate) async fn handle(
    State(shared): State<Arc<Shared>>,
    request: HttpRequest,
) -> Result<Response<HttpBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let below = match path.strip_prefix("/api/v4") {
        Some(below) => below.to_owned(),
        None if path == "/api/graphql" => "/graphql".to_owned(),
        None => return Ok(git_over_http(&shared, &parts, body).await),
    };
    let Ok(body) = axum::body::to_bytes(body, 32 << 20).await else {
        return Ok(plain(413, "too large"));
    };
    let head = |name: HeaderName| parts.headers.get(name)?.to_str().ok().map(ToOwned::to_owned);
    let segments: Vec<String> =
        below.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let method = parts.method.as_str().to_owned();
    let found = api::find(&method, &segments);
    let mut seen = Seen {
        method: method.clone(),
        template: found.as_ref().map_or("", |(route, _)| route.template).to_owned(),
        path: format!("/{}", segments.join("/")),
        caller: "unknown".to_owned(),
    };
    let known_tag = head(header::IF_NONE_MATCH);
    let fault = shared.fault(&method, &seen.template, &seen.path);
    if let Some(answer) = fault.and_then(refusal) {
        return Ok(finish(&shared, &seen, answer, None, known_tag.as_deref(), fault));
    }
    if fault == Some(Fault::Hang) {
        record(&shared, &seen, 0);
        std::future::pending::<()>().await;
    }
    let Some((route, params)) = found else {
        shared.world().unknown.push(format!("{method} {}", seen.path));
        let answer = Answer::error(404, "404 Not Found");
        return Ok(finish(&shared, &seen, answer, None, None, None));
    };
    let token = head(header::AUTHORIZATION)
        .and_then(|text| text.strip_prefix("Bearer ").map(ToOwned::to_owned))
        .or_else(|| head(HeaderName::from_static("private-token")));
    let is_write = method != "GET" && route.template != "/graphql";
    let mut window = None;
    let answer = {
        let mut world = shared.world();
        let caller = world.caller(token.as_deref());
        let caller = caller.and_then(|caller| {
            seen.caller = caller.name().to_owned();
            World::check_scope(&caller, is_write).map(|()| caller)
        });
        caller.and_then(|caller| {
            window = within_limit(&mut world, &caller)?;
            let query = parts.uri.query().unwrap_or_default().as_bytes();
            let body = match body.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&body)
                    .map_err(|_| Answer::error(400, "The request body is no JSON"))?,
            };
            let request = Request {
                params,
                query: url::form_urlencoded::parse(query).into_owned().collect(),
                body,
                caller,
                token,
                path: path.clone(),
            };
            (route.handler)(&mut world, &request)
        })
    };
    let answer = answer.unwrap_or_else(|refused| refused);
    Ok(finish(&shared, &seen, answer, window, known_tag.as_deref(), fault))
}

fn within_limit(world: &mut World, caller: &Caller) -> Result<Option<Window>, Answer> {
    let Some(limit) = world.limits.calls_a_minute else { return Ok(None) };
    let now = world.now();
    let window = world.spent.count(caller.name(), "throttle_authenticated_api", limit, now);
    if window.observed > window.limit {
        let wait = window.resets_at.duration_since(now).as_secs().max(1);
        return Err(told(window, Answer::error(429, "Retry later")).header("retry-after", wait));
    }
    Ok(Some(window))
}

/// <https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers>
fn told(window: Window, answer: Answer) -> Answer {
    answer
        .header("ratelimit-limit", window.limit)
        .header("ratelimit-name", "throttle_authenticated_api")
        .header("ratelimit-observed", window.observed)
        .header("ratelimit-remaining", window.limit.saturating_sub(window.observed))
        .header("ratelimit-reset", window.resets_at.as_second())
}

/// Serves `/{path}.git/...` to who may read the project, and nothing else.
async fn git_over_http(
    shared: &Arc<Shared>,
    parts: &axum::http::request::Parts,
    body: HttpBody,
) -> Response<HttpBody> {
    let path = parts.uri.path();
    let Some((name, rest)) = path.trim_start_matches('/').split_once(".git/") else {
        return plain(404, "Not Found");
    };
    let place = {
        let world = shared.world();
        match world.project_for(name, &Caller::Anonymous, 10) {
            Ok(project) => project.git.path().to_owned(),
            Err(_) => return plain(401, "HTTP Basic: Access denied"),
        }
    };
    http_backend(&place, rest, parts, body).await
}

fn refusal(fault: Fault) -> Option<Answer> {
    match fault {
        Fault::TooManyRequests(after) => {
            let answer = Answer::error(429, "Retry later");
            Some(match after {
                Some(seconds) => answer.header("retry-after", seconds),
                None => answer,
            })
        }
        Fault::Status(status @ 500..) => Some(Answer {
            status,
            headers: Vec::new(),
            body: Body::Raw(
                b"<html><title>GitLab is not responding</title></html>".to_vec(),
                "text/html",
            ),
        }),
        Fault::Status(status) => Some(Answer::error(status, "Something went wrong on request")),
        Fault::NotYetThere => Some(Answer::error(404, "404 Not Found")),
        _ => None,
    }
}

fn record(shared: &Shared, seen: &Seen, status: u16) {
    let call = Call {
        method: seen.method.clone(),
        route: seen.template.clone(),
        path: seen.path.clone(),
        status,
        caller: seen.caller.clone(),
        at: shared.world().now(),
    };
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

/// Counts the call and puts the answer on the wire.
fn finish(
    shared: &Shared,
    seen: &Seen,
    mut answer: Answer,
    window: Option<Window>,
    known_tag: Option<&str>,
    fault: Option<Fault>,
) -> Response<HttpBody> {
    if let Some(window) = window {
        answer = told(window, answer);
    }
    if seen.method == "GET" && answer.status == 200 {
        let mut digest = Sha256::new();
        match &answer.body {
            Body::Json(body) => digest.update(body.to_string()),
            Body::Raw(bytes, _) => digest.update(bytes),
            Body::None => {}
        }
        let tag = format!("W/\"{}\"", HEXLOWER.encode(&digest.finalize()));
        if known_tag == Some(tag.as_str()) {
            (answer.status, answer.body) = (304, Body::None);
        }
        answer = answer.header("etag", tag);
    }
    record(shared, seen, answer.status);
    let now = shared.world().now();
    answer = answer.header("date", now.strftime("%a, %d %b %Y %H:%M:%S GMT"));
    let (bytes, kind) = match answer.body {
        Body::None => (Vec::new(), ""),
        Body::Json(body) => (body.to_string().into_bytes(), "application/json"),
        Body::Raw(bytes, kind) => (bytes, kind),
    };
    let length = bytes.len();
    let broken = || std::io::Error::other("the stand-in breaks the connection");
    let is_broken = matches!(fault, Some(Fault::Truncated | Fault::LostAnswer));
    let body = match fault {
        Some(Fault::Truncated) => {
            let half = Bytes::from(bytes).slice(..length / 2);
            HttpBody::from_stream(stream::iter([Ok(half), Err(broken())]))
        }
        Some(Fault::LostAnswer) => HttpBody::from_stream(stream::iter([Err::<Bytes, _>(broken())])),
        _ => HttpBody::from(bytes),
    };
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    for (name, value) in &answer.headers {
        put(name, value);
    }
    if !kind.is_empty() {
        put("content-type", kind);
    }
    if is_broken {
        put("content-length", &length.max(1).to_string());
    }
    response
}

/// Sends deliveries as they come up, one after the other.
pub(crate) async fn post_deliveries(
    shared: Arc<Shared>,
    client: reqwest::Client,
    mut outbox: tokio::sync::mpsc::UnboundedReceiver<u64>,
) {
    while let Some(id) = outbox.recv().await {
        let delivery = shared.world().deliveries.iter().find(|one| one.id == id).cloned();
        if let Some(delivery) = delivery {
            let url = if shared.is_unreachable.load(Ordering::Relaxed) {
                // A port where nobody listens.
                "http://127.0.0.1:9/"
            } else {
                &delivery.url
            };
            let answered = if shared.is_lost.load(Ordering::Relaxed) {
                Ok(200)
            } else {
                crate::deliveries::post(&client, url, &delivery.headers, &delivery.payload).await
            };
            shared.world().delivered(id, answered);
        }
        shared.world().unsent.send_modify(|unsent| *unsent = unsent.saturating_sub(1));
    }
}
