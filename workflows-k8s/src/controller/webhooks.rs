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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use workflows_core::Tenant;
use workflows_scm::webhook::{DeliveryHeaders, WebhookReceiver};

use super::objects::Key;

/// So many kibibytes of deliveries are read at one time.
const ROOM: usize = 128 << 10;
/// How long a delivery may take to come in whole.
const PATIENCE: Duration = Duration::from_secs(8);

/// The receivers of each ScmConnection: one for each tenant that uses it.
#[derive(Debug)]
pub(super) struct Receivers {
    all: RwLock<BTreeMap<Key, BTreeMap<Tenant, WebhookReceiver>>>,
    room: Arc<Semaphore>,
}

impl Receivers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { all: RwLock::default(), room: Arc::new(Semaphore::new(ROOM)) })
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

    fn of(&self, key: &Key) -> Vec<WebhookReceiver> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(key).into_iter().flat_map(BTreeMap::values).cloned().collect()
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
    let of_connection = receivers.of(&key);
    if of_connection.is_empty() {
        let text = r#"{"error":"there is no connection of that name that takes deliveries"}"#;
        return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], text)
            .into_response();
    }
    let (room, bytes) = match tokio::time::timeout(PATIENCE, receivers.read(body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(status)) => return status.into_response(),
        Err(_) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let headers = DeliveryHeaders::new(
        headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))),
    );
    let answers = of_connection.iter().map(|one| one.receive(&headers, bytes.clone()));
    let answers = future::join_all(answers).await;
    drop(room);
    // Whoever has it already knows it again: the host is told that it arrived when all have it.
    let worst = answers.into_iter().max_by_key(|answer| answer.status());
    worst.map_or_else(|| StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response)
}
