//! Whether the controller gets on.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio_util::sync::CancellationToken;
use workflows_core::{EngineHandle, engine::StageHealth};
use workflows_k8s::controller::Controller;

/// Work that is due for so many seconds, while its stage neither got through nor failed, is stuck.
const STUCK_AFTER: i64 = 600;

/// What the probes look at.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) handle: EngineHandle,
    pub(crate) controller: Controller,
    pub(crate) shutdown: CancellationToken,
}

/// `/readyz`: the custom resources were read, deliveries are taken in, the ledger answers, and it is not
/// told to stop.
/// `/livez`: no stage is stuck. That a host or the API server cannot be reached is no reason to be
/// started again, and does not show in either.
pub(crate) fn router(watched: Watched) -> Router {
    Router::new()
        .route("/readyz", get(ready))
        .route("/livez", get(live))
        .with_state(Arc::new(watched))
}

async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    if watched.shutdown.is_cancelled() {
        return not_ok("it was told to stop");
    }
    if !*watched.controller.synced().borrow() {
        return not_ok("the custom resources were not read yet");
    }
    if !*watched.controller.listening().borrow() {
        return not_ok("deliveries are not taken in yet");
    }
    match watched.handle.health().await {
        Ok(_) => "ok".into_response(),
        Err(error) => not_ok(&format!("the ledger does not answer: {error}")),
    }
}

async fn live(State(watched): State<Arc<Watched>>) -> Response {
    // A ledger that does not answer is not mended by a restart.
    let Ok(health) = watched.handle.health().await else { return "ok".into_response() };
    let is_stuck = |stage: &&StageHealth| {
        let long_ago = |instant: Option<_>| {
            instant.is_none_or(|instant| health.at.duration_since(instant).as_secs() > STUCK_AFTER)
        };
        let due = stage.backlog.oldest_due;
        let failed = stage.progress.last_error.as_ref().map(|error| error.at);
        due.is_some() && long_ago(due) && long_ago(stage.progress.last_success) && long_ago(failed)
    };
    match health.stages.iter().find(is_stuck) {
        Some(stage) => not_ok(&format!("the stage {} is stuck", stage.backlog.stage)),
        None => "ok".into_response(),
    }
}

fn not_ok(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()).into_response()
}
