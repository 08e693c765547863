//! Taking deliveries in for all connections, at `/hooks/<namespace>/<name>`.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout_at},
};
use workflows_core::Tenant;
use workflows_scm::webhook::{DeliveryHeaders, WebhookReceiver};

use super::objects::Key;

/// So many kibibytes of deliveries are read at one time.
const ROOM: usize = 128 << 10;
/// How long a delivery may take to come in whole, and may wait for the first connections.
const PATIENCE: Duration = Duration::from_secs(8);
/// How much longer it may take to store it. GitHub waits ten seconds for an answer.
const LAST: Duration = Duration::from_secs(1);

/// The receivers of each ScmConnection: one for each tenant that uses it.
#[derive(Debug)]
pub(super) struct Receivers {
    all: RwLock<BTreeMap<Key, BTreeMap<Tenant, WebhookReceiver>>>,
    /// Whether the connections that there were at the start have their receivers.
    complete: watch::Sender<bool>,
    room: Arc<Semaphore>,
}

impl Receivers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            all: RwLock::default(),
            complete: watch::Sender::new(false),
            room: Arc::new(Semaphore::new(ROOM)),
        })
    }

    pub(super) fn put(&self, key: Key, tenant: Tenant, receiver: WebhookReceiver) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(key).or_default().insert(tenant, receiver);
    }

    pub(super) fn remove(&self, key: &Key, tenant: &Tenant) {
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_connection) = all.get_mut(key) {
            of_connection.remove(tenant);
            if of_connection.is_empty() {
                all.remove(key);
            }
        }
    }

    /// Whether the connections that there were at the start have their receivers.
    pub(super) fn completed(&self) -> watch::Receiver<bool> {
        self.complete.subscribe()
    }

    /// The connections that there are have their receivers from now on.
    pub(super) fn are_complete(&self) {
        self.complete.send_if_modified(|complete| !std::mem::replace(complete, true));
    }

    fn of(&self, key: &Key) -> Vec<WebhookReceiver> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// The receivers of a connection. What comes before there are any waits: no host sends again by
    /// itself what it sent too early.
    async fn find(&self, key: &Key, deadline: Instant) -> Result<Vec<WebhookReceiver>, Response> {
        let mut complete = self.complete.subscribe();
        let found = self.of(key);
        if !found.is_empty() {
            return Ok(found);
        }
        let told = |status: StatusCode, text: &'static str| {
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        };
        match timeout_at(deadline, complete.wait_for(|complete| *complete)).await {
            Ok(Ok(_)) => {}
            _ => {
                let text = r#"{"error":"the connections were not read yet; send it again"}"#;
                return Err(told(StatusCode::SERVICE_UNAVAILABLE, text));
            }
        }
        let found = self.of(key);
        if found.is_empty() {
            let text = r#"{"error":"there is no connection of that name that takes deliveries"}"#;
            return Err(told(StatusCode::NOT_FOUND, text));
        }
        Ok(found)
    }

    /// Reads a body as far as it may go, taking room for it as it comes.
    async fn read(&self, body: Body) -> Result<(Vec<OwnedSemaphorePermit>, Bytes), StatusCode> {
        let mut rooms = Vec::new();
        let mut bytes = BytesMut::new();
        let mut chunks = body.into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
            if bytes.len() + chunk.len() > WebhookReceiver::MAX_BYTES {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            let wanted = u32::try_from(chunk.len() / 1024 + 1).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.room).acquire_many_owned(wanted).await;
            rooms.push(room.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?);
            bytes.extend_from_slice(&chunk);
        }
        Ok((rooms, bytes.freeze()))
    }
}

/// The route of all connections.
pub(super) fn router(receivers: Arc<Receivers>) -> Router {
    Router::new().route("/hooks/{namespace}/{name}", post(deliver)).with_state(receivers)
}

async fn deliver(
    State(receivers): State<Arc<Receivers>>,
    Path(key): Path<Key>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let deadline = Instant::now() + PATIENCE;
    let of_connection = match receivers.find(&key, deadline).await {
        Ok(found) => found,
        Err(answer) => return answer,
    };
    let (room, bytes) = match timeout_at(deadline, receivers.read(body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(status)) => return status.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let headers = DeliveryHeaders::new(
        headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))),
    );
    let answers = of_connection.iter().map(|one| one.receive(&headers, bytes.clone()));
    let Ok(answers) = timeout_at(deadline + LAST, future::join_all(answers)).await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    drop(room);
    // Whoever has it already knows it again: the host is told that it arrived when all have it.
    let worst = answers.into_iter().max_by_key(|answer| answer.status());
    worst.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn delivered(receivers: &Arc<Receivers>) -> (StatusCode, String) {
        let request = Request::post("/hooks/team-a/acme").body(Body::from("{}")).unwrap();
        let answer = router(Arc::clone(receivers)).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_connections_are_known_waits_for_them() {
        let receivers = Receivers::new();
        let mut early = std::pin::pin!(delivered(&receivers));
        let waits = tokio::time::timeout(Duration::from_secs(7), &mut early).await;
        assert!(waits.is_err(), "{waits:?}");
        receivers.are_complete();
        let (status, text) = early.await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(text.contains("there is no connection of that name"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_send_again_before_the_host_gives_up() {
        let receivers = Receivers::new();
        let began = Instant::now();
        let (status, text) = delivered(&receivers).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.contains("send it again"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}
