//! A program on loopback that is told by HTTP.

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde_json::Value;

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// What came, until it is taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver(Arc<Mutex<Vec<Received>>>);

impl Receiver {
    /// Starts it; it and its address.
    pub(crate) async fn start() -> Result<(Self, String), Box<dyn Error>> {
        let receiver = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}/hook", listener.local_addr()?);
        let router = Router::new().fallback(receive).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((receiver, address))
    }

    /// Takes what came.
    pub(crate) fn take(&self) -> Vec<Received> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(body) = serde_json::from_slice(&body) else { return StatusCode::BAD_REQUEST };
    let mut received = receiver.0.lock().unwrap_or_else(PoisonError::into_inner);
    received.push(Received { headers, body });
    StatusCode::NO_CONTENT
}
