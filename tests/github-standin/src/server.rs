//! The server: what happens to every request before and after its route.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    body::Body as HttpBody,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::stream;
use serde_json::Value;
use sha2::{Digest, Sha256};

use workflows_standin_kit::{decoded, plain};

use crate::{
    Call, Problem, ProblemKind,
    access::Caller,
    answer::{Answer, Body, Request},
    api,
    faults::{self, Fault, Planned},
    limits::{self, Cost},
    openapi::Description,
    world::World,
};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) world: Mutex<World>,
    pub(crate) calls: Mutex<Vec<Call>>,
    pub(crate) faults: Mutex<Vec<Planned>>,
    pub(crate) latency: Mutex<Duration>,
    pub(crate) is_unreachable: AtomicBool,
}

impl Shared {
    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, method: &str, template: &str, path: &str) -> Option<Fault> {
        let now = self.world().clock.now();
        let mut planned = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults::next(&mut planned, method, template, path, now)
    }

    fn description(&self) -> Option<&'static Description> {
        self.world().description
    }

    async fn take_time(&self) {
        let latency = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
    }

    fn problem(&self, kind: ProblemKind, place: String, text: String) {
        self.world().problems.push(Problem { kind, place, text });
    }
}

/// What a request turned out to be, for the record.
struct Seen {
    method: String,
    template: String,
    path: String,
    principal: String,
    is_conditional: bool,
}

pub(crate) async fn handle(
    State(shared): State<Arc<Shared>>,
    request: HttpRequest,
) -> Result<Response<HttpBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Some(below) = below_api(&path) else {
        return Ok(crate::git_http::serve(&shared, &parts, body).await);
    };
    let body = match axum::body::to_bytes(body, 32 << 20).await {
        Ok(body) => body,
        Err(_) => return Ok(plain(413, "too large")),
    };
    let method = parts.method.as_str().to_owned();
    let segments: Vec<String> =
        below.split('/').filter(|part| !part.is_empty()).map(decoded).collect();
    let segments = shared.world().by_name(segments);
    let found = api::find(&method, &segments);
    let template = found.as_ref().map_or("", |(route, _)| route.template).to_owned();
    let head = |name: HeaderName| parts.headers.get(name)?.to_str().ok().map(ToOwned::to_owned);
    let mut seen = Seen {
        method: method.clone(),
        template: template.replace("{+", "{"),
        path: format!("/{}", segments.join("/")),
        principal: "unknown".to_owned(),
        is_conditional: parts.headers.contains_key(header::IF_NONE_MATCH),
    };
    let fault = shared.fault(&method, &seen.template, &seen.path);
    if let Some(answer) = fault.and_then(refusal) {
        shared.take_time().await;
        return Ok(finish(&shared, seen, None, answer, &parts.headers, fault));
    }
    if fault == Some(Fault::Hang) {
        record(&shared, &seen, 0);
        std::future::pending::<()>().await;
    }
    let Some((route, params)) = found else {
        let text = "the stand-in has no such route".to_owned();
        shared.problem(ProblemKind::Route, format!("{method} {}", seen.path), text);
        let answer = Answer::not_found().header("x-standin-unknown-route", "true");
        return Ok(finish(&shared, seen, None, answer, &parts.headers, None));
    };
    let authorization = head(header::AUTHORIZATION);
    let caller = shared.world().caller(authorization.as_deref());
    let caller = match caller {
        Ok(caller) => caller,
        Err(answer) => return Ok(finish(&shared, seen, None, answer, &parts.headers, fault)),
    };
    seen.principal = caller.principal();
    let resource = if route.template == "/graphql" { "graphql" } else { "core" };
    let is_write = method != "GET" && resource == "core";
    let entered = {
        let mut world = shared.world();
        let (limits, now) = (world.limits.clone(), world.clock.now());
        let principal = seen.principal.clone();
        // How the limits stand is told to whom they refuse, too.
        let is_counted = route.template != "/rate_limit";
        let cost = Cost { resource, is_counted, is_write, is_content: route.is_content };
        world.spent.enter(&limits, &principal, &cost, now)
    };
    let _leave = Leave { shared: Arc::clone(&shared), principal: seen.principal.clone() };
    shared.take_time().await;
    if let Err(answer) = entered {
        return Ok(finish(&shared, seen, Some(resource), answer, &parts.headers, fault));
    }
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let answer = understood(&shared, &seen, route, &query, &body).and_then(|json| {
        let token = authorization.as_deref().and_then(|text| text.split_once(' '));
        let request = Request {
            params,
            query,
            body: json.unwrap_or(Value::Null),
            accept: head(header::ACCEPT).unwrap_or_default(),
            caller: caller.clone(),
            token: token.map(|(_, token)| token.to_owned()),
            path: path.clone(),
        };
        (route.handler)(&mut shared.world(), &request)
    });
    let answer = answer.unwrap_or_else(|refused| refused);
    check_answer(&shared, route, &answer);
    let answer = with_tag(answer, &method, authorization.as_deref(), &caller);
    Ok(finish(&shared, seen, Some(resource), answer, &parts.headers, fault))
}

/// The path below the API's base, which is `/api/v3`, and for GraphQL `/api`.
fn below_api(path: &str) -> Option<&str> {
    if path == "/api/graphql" {
        return Some("/graphql");
    }
    path.strip_prefix("/api/v3").filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl World {
    /// `/repositories/{id}/...`, which links and redirects use, as `/repos/{owner}/{repo}/...`.
    fn by_name(&self, mut segments: Vec<String>) -> Vec<String> {
        if let [first, id, ..] = segments.as_slice()
            && first == "repositories"
            && let Some(repo) = id.parse().ok().and_then(|id: u64| self.repos.get(&id))
        {
            let name = ["repos".to_owned(), repo.owner.clone(), repo.name.clone()];
            segments.splice(..2, name);
        }
        segments
    }
}

/// Reads the body and checks the request against GitHub's description.
fn understood(
    shared: &Shared,
    seen: &Seen,
    route: &api::Route,
    query: &[(String, String)],
    body: &Bytes,
) -> Result<Option<Value>, Answer> {
    let json = match body.is_empty() {
        true => None,
        false => Some(
            serde_json::from_slice::<Value>(body)
                .map_err(|_| Answer::error(400, "Problems parsing JSON"))?,
        ),
    };
    let faults = shared.description().map_or_else(Vec::new, |description| {
        description.check_request(&seen.method, route.template, query, json.as_ref())
    });
    if faults.is_empty() {
        return Ok(json);
    }
    let text = faults.join("; ");
    shared.problem(
        ProblemKind::Request,
        format!("{} {}", seen.method, route.template),
        text.clone(),
    );
    Err(Answer::unprocessable(&format!("Invalid request.\n\n{text}")))
}

fn check_answer(shared: &Shared, route: &api::Route, answer: &Answer) {
    if let (Body::Json(body), Some(description)) = (&answer.body, shared.description()) {
        for text in description.check_answer(route.method, route.template, answer.status, body) {
            let place = format!("{} {} {}", route.method, route.template, answer.status);
            shared.problem(ProblemKind::Answer, place, text);
        }
    }
}

/// An answer to a read gets a tag, which is another one for another credential.
fn with_tag(answer: Answer, method: &str, authorization: Option<&str>, caller: &Caller) -> Answer {
    if method != "GET" || answer.status != 200 {
        return answer;
    }
    let mut digest = Sha256::new();
    // A private key's assertions change from call to call; the App stays.
    match caller {
        Caller::App(id) => digest.update(id.to_string()),
        _ => digest.update(authorization.unwrap_or_default()),
    }
    match &answer.body {
        Body::Json(body) => digest.update(body.to_string()),
        Body::Raw(bytes, _) => digest.update(bytes),
        Body::None => {}
    }
    for (name, value) in &answer.headers {
        digest.update(name);
        digest.update(value);
    }
    let tag = format!("W/\"{}\"", HEXLOWER.encode(&digest.finalize()));
    answer.header("etag", tag).header("vary", "Accept, Authorization")
}

fn refusal(fault: Fault) -> Option<Answer> {
    match fault {
        Fault::TooManyRequests(after) => {
            let answer = Answer::error(429, "API rate limit exceeded");
            Some(match after {
                Some(seconds) => answer.header("retry-after", seconds),
                None => answer,
            })
        }
        Fault::SecondaryLimit(after) => Some(limits::secondary(after)),
        Fault::Status(status @ 500..) => Some(Answer {
            status,
            headers: Vec::new(),
            body: Body::Raw(b"<html><title>Unicorn!</title></html>".to_vec(), "text/html"),
        }),
        Fault::Status(status) => Some(Answer::error(status, "Something went wrong on request")),
        Fault::NotYetThere => Some(Answer::not_found()),
        Fault::Hang | Fault::Truncated | Fault::LostAnswer => None,
    }
}

struct Leave {
    shared: Arc<Shared>,
    principal: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.shared.world().spent.leave(&self.principal);
    }
}

fn record(shared: &Shared, seen: &Seen, status: u16) {
    let call = Call {
        method: seen.method.clone(),
        route: seen.template.clone(),
        path: seen.path.clone(),
        status,
        caller: seen.principal.clone(),
        at: shared.world().clock.now(),
    };
    shared.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
}

/// Counts the call and puts the answer on the wire.
fn finish(
    shared: &Shared,
    seen: Seen,
    resource: Option<&'static str>,
    mut answer: Answer,
    headers: &HeaderMap,
    fault: Option<Fault>,
) -> Response<HttpBody> {
    let tag = answer.headers.iter().find(|(name, _)| *name == "etag").map(|(_, tag)| tag.clone());
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let is_unchanged = seen.is_conditional
        && tag
            .as_deref()
            .zip(known)
            .is_some_and(|(tag, known)| known.split(',').any(|known| strong(known) == strong(tag)));
    if is_unchanged {
        answer.status = 304;
        answer.body = Body::None;
    }
    record(shared, &seen, answer.status);
    let mut told = Vec::new();
    {
        let mut world = shared.world();
        let now = world.clock.now();
        // What was not changed since is not counted, when it was asked for with a credential.
        let is_free = is_unchanged && seen.principal != "anonymous";
        if let Some(resource) = resource.filter(|_| world.limits.are_told) {
            let limits = world.limits.clone();
            let window = world.spent.window(&limits, &seen.principal, resource, now);
            if !is_free && seen.template != "/rate_limit" {
                window.used = (window.used + 1).min(window.limit);
            }
            told = vec![
                ("x-ratelimit-limit", window.limit.to_string()),
                ("x-ratelimit-remaining", window.remaining().to_string()),
                ("x-ratelimit-used", window.used.to_string()),
                ("x-ratelimit-reset", window.resets_at.as_second().to_string()),
                ("x-ratelimit-resource", resource.to_owned()),
            ];
        }
        told.push(("date", now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        told.push(("x-github-request-id", format!("STANDIN:{}", world.new_id())));
    }
    let (bytes, kind) = match answer.body {
        Body::None => (Vec::new(), ""),
        Body::Json(body) => (body.to_string().into_bytes(), "application/json; charset=utf-8"),
        Body::Raw(bytes, kind) => (bytes, kind),
    };
    let length = bytes.len();
    let broken = || std::io::Error::other("the stand-in breaks the connection");
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
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    for (name, value) in answer.headers.iter().chain(&told) {
        put(name, value);
    }
    if !kind.is_empty() {
        put("content-type", kind);
    }
    if matches!(fault, Some(Fault::Truncated | Fault::LostAnswer)) {
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
            let answered =
                crate::deliveries::post(&client, url, &delivery.headers, &delivery.payload).await;
            shared.world().delivered(id, answered);
        }
        shared.world().unsent.send_modify(|unsent| *unsent = unsent.saturating_sub(1));
    }
}
