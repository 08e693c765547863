//! The engine over HTTP and JSON: [`router`].
//!
//! What an [`EngineHandle`] offers, for each tenant under `/v1/namespaces/<namespace>/`, with
//! [`openapi`] as its description, which is served at `/openapi.json`. Who may do what is for the
//! cluster to say: see [`ClusterAccess`].
//!
//! ```sh
//! curl -H "Authorization: Bearer $(kubectl create token me)" \
//!   'https://workflows.example.com/v1/namespaces/team-a/runs?repository=acme/api'
//! ```

mod access;
mod commands;
mod failure;
mod notifiers;
mod openapi;
mod queries;
mod queues;
mod views;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    routing::{get, post},
};
use workflows_core::EngineHandle;

pub use self::{
    access::{Access, Asked, Caller, ClusterAccess},
    openapi::openapi,
};

/// The largest body of a request.
const MAX_BODY: usize = 1 << 20;

/// What every request is answered with.
#[derive(Debug)]
struct Api {
    engine: EngineHandle,
    access: Arc<dyn Access>,
}

/// The routes, to be merged into a program's own server.
pub fn router(engine: EngineHandle, access: Arc<dyn Access>) -> Router {
    let tenant = Router::new()
        .route("/runs", get(queries::runs).post(commands::submit))
        .route("/runs/{run}", get(queries::run))
        .route("/runs/{run}/log", get(queries::log))
        .route("/runs/{run}/cancel", post(commands::cancel))
        .route("/runs/{run}/rerun", post(commands::rerun))
        .route("/events", get(queries::events))
        .route("/explain", get(queries::explain))
        .route("/replay", post(queries::replay))
        .route("/simulate", post(queries::simulate))
        .route("/approvals", post(commands::approve))
        .route("/workflows/{workflow}/hold", post(commands::hold))
        .route("/workflows/{workflow}/release", post(commands::release))
        .route("/queues", get(queues::queues))
        .route("/queues/clear", post(commands::clear_queue))
        .route("/notifications", get(queries::notifications))
        .route("/notifications/resend", post(commands::resend))
        .route("/notifiers/{notifier}/test", post(notifiers::test))
        .route("/schedules", get(queries::schedules))
        .route("/schedules/run", post(commands::run_schedule));
    Router::new()
        .nest("/v1/namespaces/{namespace}", tenant)
        .route("/v1/health", get(queries::health))
        .route("/openapi.json", get(async || Json(openapi())))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(Arc::new(Api { engine, access }))
}
