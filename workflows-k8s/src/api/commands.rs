//! What is told the engine. A command is answered when it is in the ledger.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
};
use workflows_core::{CancelMode, Event, RepoId, RepoRef, RunKey, WorkflowId, engine::Submission};

use super::{
    Api,
    access::Asked,
    failure::{Failure, Sent, idempotency_key, tenant},
    views::{
        ApproveRequest, CancelRequest, ClearRequest, EventView, HoldRequest, ResendRequest,
        RunScheduleRequest, SubmitRequest,
    },
};

type Answer = Result<(StatusCode, Json<EventView>), Failure>;

fn accepted(event: Event) -> (StatusCode, Json<EventView>) {
    (StatusCode::ACCEPTED, Json(event.into()))
}

pub(super) fn creates<'a>(namespace: &'a str, resource: &'a str, part: &'a str) -> Asked<'a> {
    Asked { namespace, verb: "create", resource, part, name: "" }
}

fn workflow_id(repository_id: Option<String>, name: &str) -> WorkflowId {
    match repository_id {
        Some(id) => WorkflowId::in_repository(RepoId::from(id), name),
        None => WorkflowId::registered(name),
    }
}

pub(super) async fn submit(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<SubmitRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "runs", "")).await?;
    let key = idempotency_key(&headers, &caller, "submit", &request.repository)?;
    let connection = request.connection.as_str();
    let mut submission = Submission::new(connection, request.repository, key, caller.user)
        .in_tenant(tenant(&namespace)?);
    if let Some(reference) = request.reference {
        submission = submission.at_ref(reference);
    }
    if let Some(commit) = request.commit {
        submission = submission.at_commit(commit.parse()?);
    }
    if let Some(workflow) = request.workflow {
        submission = submission.for_workflow(workflow);
    }
    for (name, value) in request.params {
        submission = submission.with_param(name, value);
    }
    Ok(accepted(api.engine.submit(submission).await?))
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Path((namespace, run)): Path<(String, String)>,
    headers: HeaderMap,
    Sent(request): Sent<CancelRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "runs", "cancel")).await?;
    let key = idempotency_key(&headers, &caller, "cancel", &run)?;
    let mode = request.mode.unwrap_or(CancelMode::RunFinally);
    let run = RunKey::from(run);
    let event = api.engine.cancel(&tenant(&namespace)?, &run, mode, &key, &caller.user).await?;
    Ok(accepted(event))
}

pub(super) async fn rerun(
    State(api): State<Arc<Api>>,
    Path((namespace, run)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "runs", "rerun")).await?;
    let key = idempotency_key(&headers, &caller, "rerun", &run)?;
    let run = RunKey::from(run);
    let event = api.engine.rerun(&tenant(&namespace)?, &run, &key, &caller.user).await?;
    Ok(accepted(event))
}

pub(super) async fn approve(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<ApproveRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "approvals", "")).await?;
    let key = idempotency_key(&headers, &caller, "approve", &request.head)?;
    let repo = RepoRef {
        connection: request.connection.as_str().into(),
        id: request.repository_id.as_str().into(),
        name: request.repository.into(),
    };
    let head = request.head.parse()?;
    let tenant = tenant(&namespace)?;
    let approved =
        api.engine.approve(&tenant, repo, request.pull_request, head, &key, &caller.user);
    Ok(accepted(approved.await?))
}

pub(super) async fn hold(
    State(api): State<Arc<Api>>,
    Path((namespace, workflow)): Path<(String, String)>,
    headers: HeaderMap,
    Sent(request): Sent<HoldRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "workflows", "hold")).await?;
    let key = idempotency_key(&headers, &caller, "hold", &workflow)?;
    let id = workflow_id(request.repository_id, &workflow);
    let tenant = tenant(&namespace)?;
    let held = api.engine.hold(&tenant, id, &request.reason, &key, &caller.user);
    Ok(accepted(held.await?))
}

pub(super) async fn release(
    State(api): State<Arc<Api>>,
    Path((namespace, workflow)): Path<(String, String)>,
    headers: HeaderMap,
    Sent(request): Sent<HoldRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "workflows", "release")).await?;
    let key = idempotency_key(&headers, &caller, "release", &workflow)?;
    let id = workflow_id(request.repository_id, &workflow);
    let event = api.engine.unhold(&tenant(&namespace)?, id, &key, &caller.user).await?;
    Ok(accepted(event))
}

pub(super) async fn clear_queue(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<ClearRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "queues", "clear")).await?;
    let key = idempotency_key(&headers, &caller, "clear_queue", &request.group)?;
    let group = request.group.as_str().into();
    let event = api.engine.clear_queue(&tenant(&namespace)?, group, &key, &caller.user).await?;
    Ok(accepted(event))
}

pub(super) async fn resend(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<ResendRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "notifications", "resend")).await?;
    let key = idempotency_key(&headers, &caller, "resend", &request.notification)?;
    let notification = request.notification.as_str().into();
    let tenant = tenant(&namespace)?;
    let resent = api.engine.resend(&tenant, notification, &key, &caller.user);
    Ok(accepted(resent.await?))
}

pub(super) async fn run_schedule(
    State(api): State<Arc<Api>>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Sent(request): Sent<RunScheduleRequest>,
) -> Answer {
    let caller = api.admit(&headers, creates(&namespace, "schedules", "run")).await?;
    let key = idempotency_key(&headers, &caller, "run_schedule", &request.trigger)?;
    let id = workflow_id(request.repository_id, &request.workflow);
    let tenant = tenant(&namespace)?;
    let run = api.engine.run_now(&tenant, &id, &request.trigger, &key, &caller.user);
    Ok(accepted(run.await?))
}
