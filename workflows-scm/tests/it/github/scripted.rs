//! A server that answers as a test says, for what a well-behaved stand-in does not do.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    /// With the query.
    pub(super) route: String,
    pub(super) authorization: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) body: Value,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    Json(u16, Vec<(String, String)>, Value),
    /// More is promised than is sent.
    Truncated,
    /// Nothing ever.
    Silence,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self::Json(200, Vec::new(), body)
    }

    pub(super) fn status(status: u16) -> Self {
        Self::Json(status, Vec::new(), json!({"message": "no"}))
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        if let Self::Json(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.to_string()));
        }
        self
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Inner {
    script: Mutex<Arc<Script>>,
    seen: Mutex<Vec<Seen>>,
}

/// The server; it ends with the test's runtime.
pub(super) struct Scripted {
    pub(super) url: String,
    inner: Arc<Inner>,
}

impl Scripted {
    pub(super) async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let script: Arc<Script> = Arc::new(script);
        let inner = Arc::new(Inner { script: Mutex::new(script), seen: Mutex::default() });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, inner }
    }

    /// Answers these one after the other to every request, and the last one on and on.
    pub(super) async fn one_by_one(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Mutex<VecDeque<Reply>> = Mutex::new(replies.into_iter().collect());
        Self::start(move |_| {
            let mut replies = replies.lock().unwrap();
            if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
                .expect("at least one reply")
        })
        .await
    }

    pub(super) fn answer(&self, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Arc::new(script);
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// The method and route of each request since the last look.
    pub(super) fn calls(&self) -> Vec<String> {
        let seen = std::mem::take(&mut *self.inner.seen.lock().unwrap());
        seen.iter().map(|seen| format!("{} {}", seen.method, seen.route)).collect()
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let header = |name: &str| Some(parts.headers.get(name)?.to_str().unwrap().to_owned());
    let seen = Seen {
        method: parts.method.to_string(),
        route: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        authorization: header("authorization"),
        etag: header("if-none-match"),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    inner.seen.lock().unwrap().push(seen.clone());
    let script = Arc::clone(&*inner.script.lock().unwrap());
    match script(&seen) {
        Reply::Json(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            let body =
                if status == 304 || status == 204 { String::new() } else { body.to_string() };
            response.body(Body::from(body)).unwrap()
        }
        Reply::Truncated => {
            let broken = futures::stream::iter([
                Ok(Bytes::from_static(b"{\"id\": 1, ")),
                Err(std::io::Error::other("cut off")),
            ]);
            Response::builder()
                .header("content-length", 1_000)
                .body(Body::from_stream(broken))
                .unwrap()
        }
        Reply::Silence => std::future::pending().await,
    }
}
