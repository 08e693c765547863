//! Receivers as routes of an axum server.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Answer, DeliveryHeaders, WebhookReceiver};

/// A router with one route for each receiver, to be merged into a program's own server. A path begins
/// with `/`, such as `/hooks/acme`; what is no `POST` to one of them is not answered here.
///
/// Bytes are read no further than the receiver's limit, and only while there is room for them.
///
/// ```
/// use workflows_scm::{github::GitHubDriver, webhook::{WebhookReceiver, webhook_router}};
/// # use secrecy::SecretString;
///
/// # fn main() -> workflows_core::Result<()> {
/// let driver = GitHubDriver::builder().allow("acme/*").build()?;
/// let receiver = WebhookReceiver::new("github-webhook", "acme", driver.deliveries())
///     .secret(SecretString::from("the webhook's secret"));
/// let router: axum::Router = webhook_router([("/hooks/acme", receiver.clone())]);
/// // and: Engine::builder().source(Arc::new(receiver))
/// # Ok(())
/// # }
/// ```
pub fn webhook_router<P: AsRef<str>>(
    receivers: impl IntoIterator<Item = (P, WebhookReceiver)>,
) -> Router {
    receivers.into_iter().fold(Router::new(), |router, (path, receiver)| {
        router.route(path.as_ref(), post(handle).with_state(Arc::new(receiver)))
    })
}

async fn handle(
    State(receiver): State<Arc<WebhookReceiver>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let deadline = receiver.deadline();
    let reading = read(&receiver, &headers, body, deadline);
    let answer = match tokio::time::timeout_at(deadline, reading).await {
        Ok(Ok((room, bytes))) => {
            receiver.receive_holding(room, &readable(&headers), bytes, deadline).await
        }
        Ok(Err(answer)) => receiver.counted(answer),
        Err(_) => receiver.counted(Answer::unready("the body took too long")),
    };
    answer.into_response()
}

/// Reads a body as far as it may go, taking room for it as it comes.
async fn read(
    receiver: &WebhookReceiver,
    headers: &HeaderMap,
    body: Body,
    deadline: Instant,
) -> Result<(OwnedSemaphorePermit, Bytes), Answer> {
    let limit = receiver.limit();
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if told.and_then(|digits| digits.parse().ok()).is_some_and(|told: usize| told > limit) {
        return Err(Answer::too_large(limit));
    }
    let mut room = receiver.make_room(0, deadline).await?;
    let mut bytes = BytesMut::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Answer::invalid("the body broke off"))?;
        if bytes.len() + chunk.len() > limit {
            return Err(Answer::too_large(limit));
        }
        room.merge(receiver.make_room(chunk.len(), deadline).await?);
        bytes.extend_from_slice(&chunk);
    }
    Ok((room, bytes.freeze()))
}

/// Headers whose values are text.
fn readable(headers: &HeaderMap) -> DeliveryHeaders {
    DeliveryHeaders::new(
        headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))),
    )
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
